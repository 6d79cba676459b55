#!/usr/bin/env bash
# One update of the `qkv` case on the emulated device against the same on the CPU, in float32: the whole step through the
# CUDA back end's own code. Both are within the bounds of docs/numerics.md of the exact numbers, so within twice those of
# each other. And `auto` takes the device where there is one, and says why not where there is none.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
case=$LRD_SOURCE_DIR/tests/golden/runs/qkv
[[ -d $case ]] || case=$LRD_SOURCE_DIR/../shared/golden/qkv
[[ -f $case/config.yaml ]] || skip "../shared/golden/qkv is not here"
out=$(make_temporary)
remove_at_exit "$out"
cd "$case"
for backend in cpu auto; do
    "$LRD_PROGRAM" --config config.yaml --set "training.output_dir=$out/$backend" --set training.max_steps=1 \
        --dtype float32 --backend "$backend" >"$out/$backend.txt" 2>"$out/$backend.log" ||
        fail "$backend: $(tail -3 "$out/$backend.log")"
done
grep -q "emulated device" "$out/auto.log" || fail "auto did not take the device: $(cat "$out/auto.log")"
python3 - "$out" <<'END' || fail "one update differs"
import json, sys
a, b = (json.load(open(f"{sys.argv[1]}/{x}/trainer_state.json"))["log_history"][0] for x in ("cpu", "auto"))
for key, bound in (("loss", 2e-6), ("grad_norm", 1e-5)):
    off = abs(a[key] / b[key] - 1)
    print(f"{key}: {a[key]} and {b[key]}, off by {off:.2g}")
    assert off <= bound
END
LRD_EMULATED_DEVICES=0 "$LRD_PROGRAM" --config config.yaml --set "training.output_dir=$out/none" --set training.max_steps=1 \
    --dtype float32 --backend auto >"$out/none.txt" 2>"$out/none.log" || fail "without a device: $(tail -3 "$out/none.log")"
grep -q "Running on the CPU: .*no CUDA device" "$out/none.log" || fail "auto did not say why: $(cat "$out/none.log")"
LRD_EMULATED_DEVICES=0 "$LRD_PROGRAM" info >"$out/info.txt" 2>&1 || fail "info"
grep -q "backend cuda: not here: no CUDA device" "$out/info.txt" || fail "info: $(cat "$out/info.txt")"
