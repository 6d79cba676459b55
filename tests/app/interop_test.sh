#!/usr/bin/env bash
# What travels between Hugging Face's libraries and lora-dist: $1 is the check.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
find_python torch,transformers,peft hf-venv "${hf_packages[@]}"
work=$(make_temporary)
remove_at_exit "$work"
HF_HUB_OFFLINE=1 "$python" "$LRD_SOURCE_DIR/tests/app/$1" "$LRD_PROGRAM" \
  "$LRD_SOURCE_DIR/tests/golden/runs/all-linear" "$work"
