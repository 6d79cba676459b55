#!/usr/bin/env bash
# `lora-dist tune` on the emulated device, whose algorithms differ in their bits, and runs with its file: another adapter than
# without it, the same one each time; words where the file is another back end's, or TF32 is asked of a CPU.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
cd "$out"
write_model model 1 32 2 2048
for ((i = 0; i < 4; i++)); do
    echo "{\"input_ids\": [$i, 5, 9, 60, 3, 17, 41, 8, 2, 33, 12, 7]}"
done >data.jsonl
settings=(--set model.name_or_path=model --set data.format=tokenized --set data.train_file=data.jsonl
    --set training.max_steps=2 --set training.per_device_train_batch_size=4 --set training.learning_rate=1e-2)
echo "{}" >config.yaml
run() { # NAME OPTION...
    "$LRD_PROGRAM" "${@:2}" --config config.yaml "${settings[@]}" --threads 1 --set "training.output_dir=$1" >"$1.txt" 2>"$1.log"
}
run tuning tune --backend cuda --out cuda.json --dtype float32 --set data.max_length=12 || fail "tune: $(tail -3 tuning.log)"
grep -q "96 x 32 transposed float32 to float32, .*: 1.0000 ms, untuned 3.0000" tuning.log || fail "what was found: $(cat tuning.log)"
grep -q "32 x 128 in 16 pieces float32 to float32, .*: [123].0000 ms, untuned 3.0000" tuning.log || fail "the head's sums: $(cat tuning.log)"
run plain train --backend cuda --dtype float32 || fail "plain: $(tail -3 plain.log)"
run tuned train --backend cuda --dtype float32 --set parallel.tuning_file=cuda.json || fail "tuned: $(tail -3 tuned.log)"
run again train --backend cuda --dtype float32 --set parallel.tuning_file=cuda.json || fail "again: $(tail -3 again.log)"
cmp tuned/adapter_model.safetensors again/adapter_model.safetensors || fail "one file, two adapters"
! cmp -s plain/adapter_model.safetensors tuned/adapter_model.safetensors || fail "the file has no effect"
run tf32 train --backend cuda --dtype float32 --set training.tf32=true || fail "TF32: $(tail -3 tf32.log)"
! cmp -s plain/adapter_model.safetensors tf32/adapter_model.safetensors || fail "tf32 has no effect"
python3 - <<'END' || fail "losses are not near each other"
import json
a, b, c = (json.load(open(f"{x}/trainer_state.json"))["log_history"][0]["loss"] for x in ("plain", "tuned", "tf32"))
assert abs(a / b - 1) < 1e-6, (a, b)
assert 0 < abs(a / c - 1) < 1e-3, (a, c)
END

refused() { # NAME WORDS OPTION...: an error in the settings
    local code=0
    run "$1" "${@:3}" || code=$?
    [[ $code == 2 ]] && grep -q "$2" "$1.log" || fail "$1: code $code, $(tail -3 "$1.log")"
}
refused foreign 'cuda.json was made for "emulated device, .*", this machine is' train --backend cpu --set parallel.tuning_file=cuda.json
refused cpu_tf32 "training.tf32: true needs a GPU" train --backend cpu --set training.tf32=true
# The CPU's own file, where its processor has a choice.
if run cpu tune --backend cpu --dtype bfloat16 --out cpu.json; then
    run cpu_tuned train --backend cpu --dtype bfloat16 --set parallel.tuning_file=cpu.json || fail "cpu: $(tail -3 cpu_tuned.log)"
    grep -q "bfloat16 products as tuned" cpu_tuned.log || fail "cpu: $(cat cpu_tuned.log)"
    refused foreign_cpu 'cpu.json was made for .*, this device is "emulated device' train --backend cuda --set parallel.tuning_file=cpu.json
else
    grep -q "one way alone to multiply bfloat16" cpu.log || fail "cpu: $(tail -3 cpu.log)"
fi

# Commands of one rank end under mpirun too.
for command in info "tune --config config.yaml --set model.name_or_path=model --backend cuda --out two.json --set data.max_length=2"; do
    # shellcheck disable=SC2086
    timeout 60 mpirun -np 2 --bind-to none "$LRD_PROGRAM" $command >two.txt 2>two.log </dev/null || fail "$command on two ranks: $(tail -3 two.log)"
done
