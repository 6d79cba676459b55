#!/usr/bin/env bash
# The time of an update as `plan` says it, within 15 % of that of a run: one rank, two replicas, two stages. Skips where repeated
# plans, or updates of one run, say that the machine has other work.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
(($(nproc) >= 2)) || skip "two ranks want two cores"
exec python3 "$LRD_SOURCE_DIR/bench/plan_time.py" --program "$LRD_PROGRAM" --bound 15 --repeat 3 --case "512, small" \
  --case "1024, bfloat16" --case "1024, recomputed" --case "512, large vocabulary, answers" --case "1024, chunks"
