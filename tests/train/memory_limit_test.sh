#!/usr/bin/env bash
# A model of bloom-1b7's shape under a limit of address space that one rank with all of it does not fit, and
# two ranks with half of it each do. Its float16 file is converted to bfloat16, so that weights take memory
# of their own beside the mapped file; one rank fits with a copy in bfloat16, which is mapped alone.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
[ "$(df --output=avail -k . | tail -n 1)" -gt $((8 << 20)) ] || skip "8 GiB of disk are needed"
[ "$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)" -gt $((9 << 20)) ] || skip "9 GiB of memory are needed"
write_model . 24 2048 16 250880 float16
write_records train.jsonl 8 250880
run=("$LRD_PROGRAM" --set model.name_or_path=. --set model.dtype=bfloat16 --set data.format=tokenized
     --set data.train_file=train.jsonl --set training.max_steps=1 --set training.warmup_steps=0
     --set training.per_device_train_batch_size=2 --set training.global_batch_size=4)
echo 'training: {seed: 1}' > config.yaml
run+=(--config config.yaml)
export OMP_NUM_THREADS=1
limit=$((13 << 19)) # KiB: the file's 3.2 GiB, and less than as much again for weights and programs

code=0
(ulimit -v $limit && "${run[@]}" --set training.output_dir=one 2> log) || code=$?
[ $code != 0 ] && grep -q 'memory' log || fail "one rank fits: $code $(tail -n 2 log)"
(ulimit -v $limit && mpirun -np 2 --bind-to none "${run[@]}" --set training.output_dir=two --set parallel.max_memory='[2500MiB,2500MiB]' 2> log) ||
  fail "two ranks: $(grep -E 'error|fail' log)"
grep -q '1 replica of 2 stages' log || fail "the planner did not spread the layers"
"${run[@]}" --set training.output_dir=free --log-level warn
cmp two/adapter_model.safetensors free/adapter_model.safetensors
cmp two/trainer_state.json free/trainer_state.json
(ulimit -v $limit && "${run[@]}" --set training.output_dir=copied --set parallel.offload_folder=copies \
  --set parallel.max_memory='[2500MiB]' 2> log) || fail "one rank with a copy: $(grep -E 'error|fail' log)"
cmp copied/adapter_model.safetensors free/adapter_model.safetensors
cmp copied/trainer_state.json free/trainer_state.json
echo PASSED
