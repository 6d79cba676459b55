#!/usr/bin/env bash
# One run, many placements of its layers: adapter, losses, gradient norms and evaluations must have the
# bytes of one rank's run, however many stages, chunks and replicas there are. Dropout and clipping are on.
#
#   pipeline_test.sh GROUP...
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
write_model model 10 32 4 260
python3 - <<'END'
import json, random
draw = random.Random(2)
for name, n in ("train.jsonl", 60), ("eval.jsonl", 23):
    with open(name, "w") as file:
        for _ in range(n):
            file.write(json.dumps({"input_ids": [draw.randrange(260) for _ in range(draw.randrange(2, 40))]}) + "\n")
END
cat > config.yaml <<'END'
model: {name_or_path: model}
lora: {r: 4, lora_dropout: 0.1, target_modules: all-linear, seed: 7}
data: {format: tokenized, train_file: train.jsonl, eval_file: eval.jsonl}
training: {per_device_train_batch_size: 2, global_batch_size: 14, max_steps: 6, learning_rate: 1.0e-2, warmup_steps: 2,
           max_grad_norm: 0.3, eval_steps: 3, per_device_eval_batch_size: 5, save_steps: 2, logging_steps: 1, seed: 3}
END

# train NAME RANKS [OPTION...]
train() {
  local launch=()
  [ "$2" = 1 ] || launch=(mpirun -np "$2" --bind-to none)
  OMP_NUM_THREADS=1 timeout 100 "${launch[@]}" "$LRD_PROGRAM" --config config.yaml --log-level "${level:-warn}" \
    --set training.output_dir="$1" "${@:3}" || fail "$1 ended with code $?"
}

# same NAME AS: all that a run leaves in its folder
same() {
  cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" || fail "the adapter of '$1' differs"
  cmp "$1/trainer_state.json" "$2/trainer_state.json" || fail "the log of '$1' differs"
  cmp "$1/checkpoint-4/adapter_model.safetensors" "$2/checkpoint-4/adapter_model.safetensors" || fail "a checkpoint of '$1'"
  echo "same bytes: $1"
}

# try NAME AS STAGES CHUNKS REPLICAS [OPTION...]
try() {
  train "$1" $(($3 * $5)) --set parallel.pipeline="$3" --set parallel.pipeline_chunks="$4" --set parallel.data="$5" "${@:6}"
  same "$1" "$2"
}

train one 1
for group in "$@"; do
  case $group in
  quick)
    try two one 2 1 1
    try uneven one 3 1 1
    try grid one 2 1 2
    try chunks one 2 2 1
    try checked one 2 1 1 --backend cpu_checked
    # Any layout goes on with what another left.
    cp -r two resumed
    rm -r resumed/checkpoint-[46] resumed/*.*
    train resumed 2 --set parallel.pipeline=2 --set parallel.pipeline_chunks=3 --set training.resume_from_checkpoint=true
    same resumed one
    ;;
  layouts)
    try four one 4 1 1
    try deep one 8 1 1 # more stages than micro-batches
    try grid3 one 3 1 2
    try chunks3 one 3 3 1
    try chunks22 one 2 2 2
    try chunks5 one 2 5 1
    for step in 2 4; do
      cp -r one "resumed$step"
      rm -r "resumed$step"/checkpoint-[46] "resumed$step"/*.*
      [ $step = 2 ] || cp -r chunks3/checkpoint-4 "resumed$step"
      train "resumed$step" 3 --set parallel.pipeline=3 --set training.resume_from_checkpoint=true
      same "resumed$step" one
    done
    ;;
  maps) # device_map and max_memory
    map() { # NAME RANKS MAP [OPTION...]: the same run, and which layers each rank says that it has
      (level=info train "$1" "$2" --set parallel.device_map="$3" "${@:4}") 2> "$1.log" || fail "$(grep error: "$1.log")"
      same "$1" one
      layers=$(awk '/^ *rank +host/ { on = 1; next } on && NF < 8 { exit } on { $1 = $2 = ""; NF -= 5; gsub(/^ +| +$/, ""); print }' "$1.log" | paste -sd '|')
    }
    expect() { [ "$layers" = "$1" ] || fail "layers are placed as $layers, not $1"; }
    map explicit 2 '{transformer: 0, transformer.h.6: 1, transformer.h.7: 1, transformer.h.8: 1, transformer.h.9: 1, lm_head: 1}'
    expect "embeddings, 0-5|6-9, head"
    grep -q "device_map = {'transformer.word_embeddings': 0, .*'transformer.h.5': 0, 'transformer.h.6': 1, .*'lm_head': 1}" explicit.log
    map alone 3 '{transformer: 1, transformer.word_embeddings: 0, transformer.word_embeddings_layernorm: 0, lm_head: 2}'
    expect "embeddings|0-9|head"
    map round 2 '{transformer: 0, transformer.h.2: 1, transformer.h.4: 1, transformer.h.3: 1, transformer.h.8: 1, transformer.h.9: 1, lm_head: 1}'
    expect "embeddings, 0-1, 5-7|2-4, 8-9, head"
    map balanced 2 balanced
    map sequential 2 sequential --set parallel.max_memory='[1MiB,100MiB]'
    ;;
  adapters) # stages without adapters, stages below the lowest one, and one where it begins in the middle
    for layers in '[5]' '[0,9]' '[7,8]'; do
      few=(--set lora.layers_to_transform="$layers" --set lora.target_modules='[dense,dense_4h_to_h]')
      train "few$layers" 1 "${few[@]}"
      try "few$layers-two" "few$layers" 2 1 1 "${few[@]}"
      try "few$layers-four" "few$layers" 4 1 1 "${few[@]}"
      try "few$layers-chunks" "few$layers" 2 3 1 "${few[@]}"
    done
    ;;
  dtypes) # the loss scale of float16 is one for all stages
    for dtype in float16 bfloat16; do
      train $dtype 1 --dtype $dtype
      try $dtype-two $dtype 2 1 1 --dtype $dtype
      try $dtype-chunks $dtype 2 2 2 --dtype $dtype
    done
    try checked3 one 3 1 1 --backend cpu_checked
    try checked22 one 2 2 2 --backend cpu_checked
    ;;
  recompute) # with less kept the same bytes, on one rank and several, and whatever is adapted
    for what in attention block; do
      again=(--set training.gradient_checkpointing=$what)
      try $what-one one 1 1 1 "${again[@]}"
      try $what-two one 2 1 1 "${again[@]}"
      try $what-chunks one 2 2 2 "${again[@]}"
      try $what-checked one 2 1 1 "${again[@]}" --backend cpu_checked
      for layers in '[5]' '[0,9]'; do
        few=(--set lora.layers_to_transform="$layers" --set lora.target_modules='[query_key_value,dense_4h_to_h]')
        [ -e "some$layers" ] || train "some$layers" 1 "${few[@]}"
        try "$what-some$layers" "some$layers" 1 1 1 "${few[@]}" "${again[@]}"
        try "$what-some$layers-two" "some$layers" 2 1 1 "${few[@]}" "${again[@]}"
      done
      memory() { "$LRD_PROGRAM" plan --config config.yaml --log-level error "$@" | awk '$1 == "activations" { print int($2 * 10) }'; }
      [ $(($(memory "${again[@]}") * 10)) -lt $(($(memory) * 8)) ] || fail "$what keeps $(memory "${again[@]}") of $(memory)"
    done
    # A run goes on with another way to save memory.
    cp -r attention-one changed
    rm -r changed/checkpoint-[46] changed/*.*
    train changed 1 --set training.gradient_checkpointing=block --set training.resume_from_checkpoint=true
    same changed one
    ;;
  unequal) # ranks of 1, 2 and 3 threads: who has which layers follows from a measurement, the bytes do not
    mixed() { # NAME RANKS STAGES [OPTION...]: stage 0 with 1 thread, stage 1 with 2, ...
      local launch=() r
      for ((r = 0; r < $2; r++)); do
        launch+=(: -np 1 -x OMP_NUM_THREADS=$((r % $3 + 1)) --bind-to none "$LRD_PROGRAM" --config config.yaml
          --set training.output_dir="$1" --set parallel.pipeline="$3" "${@:4}")
      done
      timeout 100 mpirun "${launch[@]:1}" 2> "$1.log" || fail "$1: $(grep error: "$1.log")"
      grep -q "^The ranks' devices or threads differ: a block takes .* on rank .*; layers are placed by that" "$1.log" ||
        fail "$1 was not measured: $(cat "$1.log")"
    }
    mixed mixed 3 3
    same mixed one
    mixed mixed22 4 2
    same mixed22 one
    # A checkpoint of one placement goes on under another.
    train lopsided 2 --set 'parallel.device_map={transformer: 1, transformer.word_embeddings: 0, transformer.word_embeddings_layernorm: 0, transformer.h.0: 0, lm_head: 1}'
    same lopsided one
    rm -r lopsided/checkpoint-[46] lopsided/*.*
    mixed lopsided 3 3 --set training.resume_from_checkpoint=true
    same lopsided one
    # Ranks that are alike are not measured.
    (level=info train alike 2 --set parallel.pipeline=2) 2> alike.log || fail "$(grep error: alike.log)"
    ! grep -q "devices or threads differ" alike.log || fail "equal ranks were measured"
    same alike one
    ;;
  *) fail "no group '$group'" ;;
  esac
done
echo PASSED
