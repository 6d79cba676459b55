#!/usr/bin/env bash
# Blocks that are kept off their device and travel: adapter, log and answers of a run that keeps all, byte for byte. The
# backend is one with memory and streams of its own: cpu_checked, whose streams run when somebody waits for them, or cuda
# on the emulated device.
#
#   offload_device_test.sh BACKEND GROUP...
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
backend=$1
almanac=$LRD_SOURCE_DIR/examples/almanac
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
write_model model 10 32 4 260
write_byte_tokenizer model/tokenizer.json
python3 - <<'END'
import json, random
draw = random.Random(2)
for name, n in ("train.jsonl", 40), ("eval.jsonl", 5), ("records.jsonl", 4):
    with open(name, "w") as file:
        for _ in range(n):
            file.write(json.dumps({"input_ids": [draw.randrange(260) for _ in range(draw.randrange(2, 30))]}) + "\n")
END
cat > config.yaml <<'END'
model: {name_or_path: model}
lora: {r: 4, lora_dropout: 0.1, target_modules: all-linear, seed: 7}
data: {format: tokenized, train_file: train.jsonl, eval_file: eval.jsonl, cache_dir: data}
training: {per_device_train_batch_size: 2, global_batch_size: 4, max_steps: 2, learning_rate: 1.0e-2, warmup_steps: 0,
           eval_steps: 2, per_device_eval_batch_size: 5, logging_steps: 1, seed: 3}
END

train() { # NAME RANKS [OPTION...]
  local launch=()
  [ "$2" = 1 ] || launch=(mpirun -np "$2" --bind-to none)
  timeout 250 "${launch[@]}" "$LRD_PROGRAM" --config config.yaml --backend "$backend" --set training.output_dir="$1" "${@:3}" \
    2> "$1.log" || fail "$1 ended with code $?: $(grep error "$1.log")"
}
map_of() { sed -n 's/^device_map = //p' "$1.log"; }
# try NAME AS RANKS [OPTION...]: a run with blocks that are elsewhere
try() {
  train "$1" "$3" "${@:4}"
  cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" || fail "the adapter of '$1' differs"
  cmp "$1/trainer_state.json" "$2/trainer_state.json" || fail "the log of '$1' differs"
  map_of "$1" | grep -Eq "'(cpu|disk)'" || fail "$1 keeps all: $(map_of "$1")"
  grep -q '^Weights that are not kept on their device' "$1.log" || fail "$1 does not say so"
  echo "same bytes: $1"
}
blocks() { # WORD MAP...: [LAYER...] on a word, of a map for YAML
  for layer in "${@:2}"; do printf ', transformer.h.%s: %s' "$layer" "$1"; done
}
mixed="parallel.device_map={'': 0$(blocks cpu 0 1 5 8)$(blocks disk 3 6 9)}"
two="parallel.device_map={transformer: 0$(blocks cpu 1 2)$(blocks disk 4)$(blocks 1 5 9)$(blocks cpu 6 7 8), transformer.ln_f: 1, lm_head: 1}"
round="parallel.device_map={transformer: 0$(blocks cpu 1)$(blocks 1 2)$(blocks disk 3 4)$(blocks 0 5 6)$(blocks cpu 7)$(blocks 1 8)$(blocks cpu 9), transformer.ln_f: 1, lm_head: 1}"

train one 1
mib() { awk -v row="$1" 'index($0, "  " row "  ") == 1 { print $(NF - 1) }' "$2"; }
half=$(awk -v all="$(mib 'in all' one.log)" -v weights="$(mib weights one.log)" -v graphs="$(mib 'graphs, at most' one.log)" \
  'BEGIN { print int((all - graphs - weights / 2) * 1024) }')
for group in "${@:2}"; do
  case $group in
  mixed) try mixed one 1 --set "$mixed" ;;
  stages) try two one 2 --set "$two" ;;
  memory) # the device's own: as many blocks stay as fit, and `plan` says what a run takes
    LRD_EMULATED_MEMORY=$((half * 1024)) try tight one 1
    map_of tight | grep -q "'transformer.h.[0-9]': 0" || fail "nothing stays: $(map_of tight)"
    LRD_EMULATED_MEMORY=$((half * 1024)) "$LRD_PROGRAM" plan --config config.yaml --backend "$backend" > planned 2> log ||
      fail "plan: $(cat log)"
    [ "$(grep 'MiB$' planned)" = "$(sed -n '/^  [a-z].* MiB$/p' tight.log)" ] || fail "planned $(cat planned), ran $(cat tight.log)"
    ;;
  limits) # parallel.max_memory for device and host
    limit=(--set "parallel.max_memory={0: ${half}KiB}")
    try limited one 1 "${limit[@]}"
    map_of limited | grep -q "'transformer.h.[0-9]': 0" || fail "nothing stays: $(map_of limited)"
    ! map_of limited | grep -q disk || fail "the host has room: $(map_of limited)"
    "$LRD_PROGRAM" plan --config config.yaml --backend "$backend" "${limit[@]}" > planned 2> log || fail "plan: $(cat log)"
    [ "$(sed -n '/^  [a-z].* MiB$/p' planned)" = "$(sed -n '/^  [a-z].* MiB$/p' limited.log)" ] ||
      fail "planned $(cat planned), ran $(cat limited.log)"
    [ "$(grep ^device_map planned)" = "$(grep ^device_map limited.log)" ] || fail "another map is planned"
    grep -Eq '^Beside it weights travel for [0-9.e-]+ s' planned || fail "no time for the way: $(tail -n 2 planned)"
    block=$(($(stat -c %s model/model.safetensors) / 11000))
    limit=(--set "parallel.max_memory={0: ${half}KiB, cpu: $((block * 6))KiB}")
    try spilled one 1 "${limit[@]}"
    map_of spilled | grep -q cpu && map_of spilled | grep -q disk || fail "not on both: $(map_of spilled)"
    # As accelerate places them: by their weights alone.
    try sequential one 1 --set parallel.device_map=sequential --set 'parallel.max_memory={0: 350KiB}'
    map_of sequential | grep -q "'transformer.h.0': 0.*'transformer.h.9': 'cpu'" || fail "sequential: $(map_of sequential)"
    # Converted weights need a place, and have it in the folder.
    train converted 1 --dtype bfloat16
    code=0
    "$LRD_PROGRAM" --config config.yaml --backend "$backend" --dtype bfloat16 --set training.output_dir=refused \
      --set "$mixed" 2> log || code=$?
    [ $code = 2 ] && grep -q 'name a parallel.offload_folder' log || fail "another dtype: $code $(cat log)"
    try copied converted 1 --dtype bfloat16 --set "$mixed" --set parallel.offload_folder=copies
    [ "$(find copies -type f | wc -l)" = 1 ] || fail "copies holds $(ls copies)"
    ;;
  layouts) # chunks, replicas, and what the planner makes of two ranks
    try round one 2 --set "$round"
    try grid one 4 --set parallel.data=2 --set parallel.pipeline=2 --set "$two"
    some=$(awk -v all="$(mib 'in all' one.log)" -v weights="$(mib weights one.log)" -v graphs="$(mib 'graphs, at most' one.log)" \
      'BEGIN { print int((all - graphs - 0.9 * weights) * 1024) }')
    "$LRD_PROGRAM" plan --config config.yaml --backend "$backend" --ranks 2 --memory "${some}KiB" --set parallel.transport=mpi > planned 2> log || fail "plan: $(cat log)"
    grep -q '1 replica of 2 stages' planned || fail "no stages: $(cat planned)"
    ;;
  recompute)
    for what in attention block; do
      try "$what" one 1 --set "$mixed" --set training.gradient_checkpointing=$what
    done
    try block-two one 2 --set "$two" --set training.gradient_checkpointing=block
    ;;
  adapters) # the way back ends at the lowest one
    few=(--set 'lora.layers_to_transform=[5,7]' --set 'lora.target_modules=[dense]')
    train few 1 "${few[@]}"
    try few-mixed few 1 "${few[@]}" --set "$mixed"
    try few-two few 2 "${few[@]}" --set "$two"
    ;;
  ask) # score and generate, on one rank and on stages
    ask() { # NAME RANKS OPTION...
      local run=("$LRD_PROGRAM") end=(--backend "$backend" "${@:3}")
      [ "$2" = 1 ] || run=(mpirun -np "$2" --bind-to none "$LRD_PROGRAM")
      "${run[@]}" score --model model --adapter one --data records.jsonl "${end[@]}" > "$1.score" 2> log || fail "score, $1: $(cat log)"
      "${run[@]}" generate --model model --adapter a=one --prompt-file records.jsonl --max-new-tokens 4 --batch-size 3 "${end[@]}" \
        > "$1.generate" 2> log || fail "generate, $1: $(cat log)"
    }
    ask whole 1
    ask mixed 1 --set "$mixed"
    cmp whole.score mixed.score && cmp whole.generate mixed.generate || fail "other answers"
    [ "$backend" = cpu_checked ] || continue
    ask two 2 --set "$two"
    cmp whole.score two.score && cmp whole.generate two.generate || fail "other answers of two stages"
    ask round 2 --set "$round"
    cmp whole.score round.score && cmp whole.generate round.generate || fail "other answers of two stages in turn"
    ;;
  answers) # eval, and questions answered in the middle of a training
    python3 - "$almanac/heldout.json" <<'END'
import json, sys
data = json.load(open(sys.argv[1]))
data["data"] = data["data"][:3]
json.dump(data, open("few.json", "w"))
END
    squad=(--backend "$backend" --set model.name_or_path="$almanac/model" --set data.format=squad --set data.train_file=few.json
      --set data.eval_file=few.json --set data.max_length=400 --set training.max_steps=2 --set training.eval_steps=1
      --set training.predict_with_generate=true --set training.generation_max_new_tokens=6)
    away="parallel.device_map={'': 0$(blocks cpu 0 2 4)$(blocks disk 5)}"
    for name in kept away; do
      map="{'': 0}"
      [ $name = kept ] || map=${away#*=}
      "$LRD_PROGRAM" --config config.yaml "${squad[@]}" --set training.output_dir="squad-$name" --set parallel.device_map="$map" \
        2> log || fail "answers, $name: $(cat log)"
      "$LRD_PROGRAM" eval --config config.yaml "${squad[@]}" --adapter "squad-$name" --set parallel.device_map="$map" --limit 6 \
        --output "$name.json" > "$name.eval" 2> log || fail "eval, $name: $(cat log)"
    done
    grep -q eval_exact squad-kept/trainer_state.json || fail "nothing was answered"
    for file in adapter_model.safetensors trainer_state.json; do
      cmp "squad-kept/$file" "squad-away/$file" || fail "answers change $file"
    done
    cmp kept.json away.json && cmp kept.eval away.eval || fail "other answers of eval"
    ;;
  *) fail "no group '$group'" ;;
  esac
done
echo PASSED
