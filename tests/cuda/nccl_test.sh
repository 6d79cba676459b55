#!/usr/bin/env bash
# Gradients that never meet the host: whole runs on emulated devices with the emulated NCCL between them have the bytes of
# one rank and of MPI; and a failure, a hang and a death in the middle of a collective end all ranks, named, in time.
#
#   nccl_test.sh runs     ranks, both reductions
#   nccl_test.sh stages   layers on several ranks
#   nccl_test.sh faults
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
export OMP_NUM_THREADS=1
# Five micro-batches: 2, 3 and 4 ranks have unequal shares.
options=(--config config.yaml --dtype float32 --backend cuda --set data.cache_dir="$work/data" --set training.max_steps=2
         --set training.per_device_train_batch_size=2 --set training.gradient_accumulation_steps=null
         --set training.global_batch_size=10 --set training.eval_steps=null)

# run NAME RANKS [SETTING]...
run() {
  local launch=() setting settings=()
  (($2 == 1)) || launch=(mpirun -np "$2" --bind-to none)
  for setting in "${@:3}"; do settings+=(--set "$setting"); done
  "${launch[@]}" "$LRD_PROGRAM" "${options[@]}" --set training.output_dir="$work/$1" "${settings[@]}" >"$work/$1.log" 2>&1 ||
    fail "$1: $(tail -5 "$work/$1.log")"
}
same() {
  cmp "$work/$1/adapter_model.safetensors" "$work/$2/adapter_model.safetensors" || fail "$2 has other bytes than $1"
}
uses() { # NAME YES|NO
  grep -q 'GPUs exchange gradients by NCCL 2.28.9' "$work/$1.log" && has=yes || has=no
  [[ $has == "$2" ]] || fail "$1: NCCL is used: $has, expected $2: $(cat "$work/$1.log")"
}

runs() {
  run one 1
  uses one no
  for n in 2 3 4; do
    run "nccl$n" $n
    uses "nccl$n" yes
    same one "nccl$n"
  done
  run staged 3 parallel.transport=mpi
  uses staged no
  same one staged
  # Two ranks: a + b is b + a, so that MPI and NCCL give the same sum, and not that of the tree.
  run fast 2 parallel.reduction=fast
  uses fast yes
  run fast-staged 2 parallel.reduction=fast parallel.transport=mpi
  uses fast-staged no
  same fast-staged fast
  LRD_NCCL_PLUGIN=/no/such/library.so run without 2
  grep -q 'GPUs exchange data through host memory: .*/no/such/library.so: cannot open' "$work/without.log" ||
    fail "nothing says why NCCL is not used: $(cat "$work/without.log")"
  same one without
}

# A BLOOM of six small blocks on 2 to 7 stages: activations go from device to device.
stages() {
  cd "$work"
  write_model model 6 32 4 260
  python3 - <<'END'
import json, random
draw = random.Random(2)
for name, n in ("train.jsonl", 30), ("eval.jsonl", 5):
    with open(name, "w") as file:
        for _ in range(n):
            file.write(json.dumps({"input_ids": [draw.randrange(260) for _ in range(draw.randrange(2, 16))]}) + "\n")
END
  cat >config.yaml <<'END'
model: {name_or_path: model}
lora: {r: 4, lora_dropout: 0.1, target_modules: all-linear, seed: 7}
data: {format: tokenized, train_file: train.jsonl, eval_file: eval.jsonl}
training: {per_device_train_batch_size: 1, global_batch_size: 7, max_steps: 2, learning_rate: 1.0e-2, warmup_steps: 0,
           max_grad_norm: 0.3, eval_steps: 2, per_device_eval_batch_size: 2, logging_steps: 1, seed: 3}
END
  options=(--config config.yaml --backend cuda)
  run one 1
  local layout ranks p v
  for layout in '2 2 1' '3 3 1' '7 7 1' '4 2 1' '4 2 2'; do
    read -r ranks p v <<<"$layout"
    run "$ranks-$p-$v" "$ranks" "parallel.pipeline=$p" "parallel.pipeline_chunks=$v"
    grep -q 'GPUs exchange .*activations by NCCL' "$work/$ranks-$p-$v.log" || fail "$layout does not use NCCL"
    same one "$ranks-$p-$v"
    cmp "$work/one/trainer_state.json" "$work/$ranks-$p-$v/trainer_state.json" || fail "$layout: another log"
  done
  grep -q 'Activations go through host memory' "$work/4-2-2.log" || fail "chunks: $(cat "$work/4-2-2.log")"
  run one16 1 model.dtype=bfloat16
  run three16 3 model.dtype=bfloat16 parallel.pipeline=3
  same one16 three16
  # score takes its records through the relay, from rank to rank; in chunks twice round.
  local program=("$LRD_PROGRAM" score --model model --adapter one --data eval.jsonl --backend cuda)
  "${program[@]}" >one.score 2>log || fail "score: $(cat log)"
  for v in 1 2; do
    mpirun -np 2 --bind-to none "${program[@]}" --set parallel.pipeline=2 --set parallel.pipeline_chunks=$v >two.score 2>log ||
      fail "score in $v chunks: $(cat log)"
    grep -q 'GPUs exchange activations by NCCL' log || fail "score does not use NCCL: $(cat log)"
    cmp one.score two.score || fail "score in $v chunks gives other losses"
  done
}

# ends NAME FAULT MOST PATTERN RANKS [SETTING]...: the fault ends all ranks within so many seconds; one line of the log (AT_ONCE
# says how many at most)
ends() {
  local name=$1 fault=$2 most=$3 pattern=$4 n=$5 job begun code=0 setting settings=()
  for setting in "${@:6}"; do settings+=(--set "$setting"); done
  LRD_EMULATED_NCCL=$fault timeout 120 mpirun -np "$n" --bind-to none "$LRD_PROGRAM" \
    "${options[@]}" --set training.output_dir="$work/$name" "${settings[@]}" >"$work/log" 2>&1 </dev/null &
  job=$!
  while ! grep -q 'emulated NCCL: ' "$work/log" && kill -0 $job 2>/dev/null; do sleep 0.05; done
  begun=$(date +%s%N)
  wait $job || code=$?
  local took=$((($(date +%s%N) - begun) / 1000000))
  ((code != 0 && code != 124)) || fail "$name: exit code $code: $(tail "$work/log")"
  grep -Eq "$pattern" "$work/log" || fail "$name does not say \"$pattern\": $(cat "$work/log")"
  (($(grep -c 'error: ' "$work/log") <= ${AT_ONCE:-1})) || fail "$name says it more than once: $(cat "$work/log")"
  ((took <= most * 1000)) || fail "$name: the ranks were there for $took ms"
  echo "$name: $(grep 'error: ' "$work/log"), $took ms after it happened"
}

# The third and fourth operations are those of the second update.
faults() {
  local words='NCCL: an operation between GPUs has failed: remote process exited or there was a network error: planted'
  ends error 1:3:error 10 "error: rank 1 \(.*\): $words" 3
  ends error-late 0:4:error 10 "error: rank 0 \(.*\): $words" 3
  # Rank 1 of both columns fails at once, so that two may say so before either hears of the other.
  AT_ONCE=2 ends stages 1:2:error 10 "error: rank [13] \(.*\): $words" 4 parallel.pipeline=2
  ends killed 1:3:kill 10 'error: rank 1 \(.*\) is lost' 3
  ends hangs 2:4:hang 10 'error: all ranks have waited for each other' 3 parallel.timeout_seconds=5
}

"$1"
