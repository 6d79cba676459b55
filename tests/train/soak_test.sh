#!/usr/bin/env bash
# A training is ended at random moments, again and again, and goes on each time on a random number of ranks, as replicas or
# as stages of a pipeline: killed with -9 at some time, at a meeting of the ranks or in the middle of a save, asked to stop
# by a signal to some rank or to mpirun. When it comes to its end, its adapter and its log are those of a run that nothing
# happened to, byte by byte; then another one begins.
#
#   soak_test.sh ENDS [SEED]     the seed of what happens is printed; without one the time gives it
set -uo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
base="$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 TMPDIR=$work
cp -r "$base/model" "$base/config.yaml" "$base/train.jsonl" .
chmod -R u+w .
head -n 12 train.jsonl > eval.jsonl
python3 "$LRD_SOURCE_DIR/tests/train/soak.py" "$LRD_PROGRAM" "$LRD_BINARY_DIR/tests/libfailing_io.so" "$@"
