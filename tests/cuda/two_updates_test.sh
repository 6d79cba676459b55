#!/usr/bin/env bash
# Two updates of a golden case on the emulated device against the same on the CPU, in float32: the whole step through the
# CUDA back end's own code; without warm-up, so that in the second one B is no longer zero. Both are within the bounds of
# docs/numerics.md of the exact numbers, so within twice those of each other. And `auto` takes the device where there is
# one, and says why not where there is none.
#
#   two_updates_test.sh CASE RANKS [SETTING=VALUE]...   the settings for both; the device is used on so many ranks
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
case=$LRD_SOURCE_DIR/tests/golden/runs/$1
[[ -d $case ]] || case=$LRD_SOURCE_DIR/../shared/golden/$1
[[ -f $case/config.yaml ]] || skip "../shared/golden/$1 is not here"
ranks=$2
settings=(--config config.yaml --set training.max_steps=2 --set training.warmup_steps=0 --dtype float32)
for setting in "${@:3}"; do
    settings+=(--set "$setting")
done
out=$(make_temporary)
remove_at_exit "$out"
cd "$case"
train() { # folder, backend
    "${launcher[@]}" "$LRD_PROGRAM" "${settings[@]}" --set "training.output_dir=$out/$1" --backend "$2" \
        >"$out/$1.txt" 2>"$out/$1.log" || fail "$1: $(tail -3 "$out/$1.log")"
}
launcher=()
train cpu cpu
((ranks == 1)) || launcher=(mpirun -np "$ranks" --bind-to none)
train device auto
grep -q "emulated device" "$out/device.log" || fail "auto did not take the device: $(cat "$out/device.log")"
if ((ranks > 1)); then # a device for each, seen by all or by its rank alone; shared only when asked for
    share() { # FILE [SETTING]...: all see one device
        LRD_EMULATED_DEVICES=1 "${launcher[@]}" "$LRD_PROGRAM" "${settings[@]}" --set "training.output_dir=$out/$1" \
            --backend auto "${@:2}" >"$out/$1.txt" 2>"$out/$1.log"
    }
    ! share few || fail "ranks shared a device that was not asked for"
    grep -q "2 ranks, 0 and 1 among them, have the device GPU-00" "$out/few.log" || fail "who shares: $(cat "$out/few.log")"
    share shared --set parallel.ranks_per_device=2 || fail "sharing: $(tail -3 "$out/shared.log")"
    LRD_EMULATED_DEVICES=1 "${launcher[@]}" bash -c 'CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK exec "$@"' bash \
        "$LRD_PROGRAM" "${settings[@]}" --set "training.output_dir=$out/each" --backend auto >"$out/each.txt" 2>"$out/each.log" ||
        fail "a device for each rank alone: $(tail -3 "$out/each.log")"
    for run in shared each; do
        cmp "$out/device/adapter_model.safetensors" "$out/$run/adapter_model.safetensors" || fail "$run: other bytes"
    done
fi
python3 - "$out" <<'END' || fail "the updates differ"
import json, sys
logs = [json.load(open(f"{sys.argv[1]}/{x}/trainer_state.json"))["log_history"] for x in ("cpu", "device")]
for step, (a, b) in enumerate(zip(*[[e for e in log if "grad_norm" in e] for log in logs], strict=True), 1):
    for key, bound in (("loss", 2e-6), ("grad_norm", 1e-5)):
        off = abs(a[key] / b[key] - 1)
        print(f"update {step}: {key}: {a[key]} and {b[key]}, off by {off:.2g}")
        assert off <= bound
assert step == 2
END
export LRD_EMULATED_DEVICES=0
train none auto
grep -q "Running on the CPU: .*no CUDA device" "$out/none.log" || fail "auto did not say why: $(cat "$out/none.log")"
"$LRD_PROGRAM" info >"$out/info.txt" 2>&1 || fail "info: $(cat "$out/info.txt")"
grep -q "backend cuda: not here: no CUDA device" "$out/info.txt" || fail "info: $(cat "$out/info.txt")"
