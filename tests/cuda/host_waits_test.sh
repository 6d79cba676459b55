#!/usr/bin/env bash
# How often the host waits for the device in an update of a training on one rank: at its end, for the numbers that are
# printed; and until the input of each micro-batch was taken, with the device going on.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
cd "$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
# count MICRO-BATCHES UPDATES: what the host did in such a run.
count() {
    LRD_EMULATED_COUNTS=$out/counts "$LRD_PROGRAM" --config config.yaml --backend cuda --set "training.max_steps=$2" \
        --set training.per_device_train_batch_size=1 --set "training.gradient_accumulation_steps=$1" \
        --set training.eval_steps=null --set "training.output_dir=$out/run-$1-$2" \
        >"$out/text" 2>"$out/log" || fail "$1 x $2: $(tail -3 "$out/log")"
    tail -1 "$out/counts"
}
for m in 1 2 5; do
    read -r _ w1 _ d1 _ < <(count "$m" 1)
    read -r _ w3 _ d3 _ < <(count "$m" 3)
    echo "$m micro-batches: $(((w3 - w1) / 2)) waits an update, $(((d3 - d1) / 2)) of them for all that was asked for"
    ((d3 - d1 == 2)) || fail "the device ran dry $((d3 - d1)) times in two updates"
    ((w3 - w1 == 2 * (m + 1))) || fail "$((w3 - w1)) waits in two updates"
done
