#!/usr/bin/env bash
# Weights that stay in files where ops read host memory: adapter, log and answers of a run without, byte for byte; one copy
# in the compute dtype for all ranks and runs, made whole or not at all; `plan` says what a run takes; and a run in less
# memory than its weights.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
almanac=$LRD_SOURCE_DIR/examples/almanac
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
write_model model 6 32 4 260 # float32; the runs compute in bfloat16
python3 - <<'END'
import json, random
draw = random.Random(2)
for name, n in ("train.jsonl", 40), ("eval.jsonl", 13):
    with open(name, "w") as file:
        for _ in range(n):
            file.write(json.dumps({"input_ids": [draw.randrange(260) for _ in range(draw.randrange(2, 40))]}) + "\n")
END
cat > config.yaml <<'END'
model: {name_or_path: model, dtype: bfloat16}
lora: {r: 4, lora_dropout: 0.1, target_modules: all-linear, seed: 7}
data: {format: tokenized, train_file: train.jsonl, eval_file: eval.jsonl}
training: {per_device_train_batch_size: 2, global_batch_size: 8, max_steps: 3, learning_rate: 1.0e-2, warmup_steps: 0,
           eval_steps: 2, per_device_eval_batch_size: 5, logging_steps: 1, seed: 3}
END
folder=(--set parallel.offload_folder=copies)

train() { # NAME RANKS [OPTION...]
  local launch=()
  [ "$2" = 1 ] || launch=(mpirun -np "$2" --bind-to none)
  timeout 100 "${launch[@]}" "$LRD_PROGRAM" --config config.yaml --set training.output_dir="$1" "${@:3}" 2> "$1.log" ||
    fail "$1 ended with code $?: $(grep error "$1.log")"
}
same() { # NAME AS
  cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" || fail "the adapter of '$1' differs"
  cmp "$1/trainer_state.json" "$2/trainer_state.json" || fail "the log of '$1' differs"
  echo "same bytes: $1"
}
try() { # NAME RANKS [OPTION...]: with the weights in files
  train "$@" "${folder[@]}"
  same "$1" one
  grep -q "^device_map = .*'transformer.h.5': 'disk'" "$1.log" || fail "$1 keeps all: $(grep device_map "$1.log")"
  grep -Eq 'weights (mapped from their|in) files' "$1.log" || [ "$2" -gt 1 ] || fail "$1 maps nothing: $(cat "$1.log")"
}

train one 1
# What one rank takes with half of its weights: enough when they stay in a file, and not when they do not.
little=$(awk '$1 == "in" && $2 == "all" { all = $3 } $1 == "weights" { w = $2 } END { print int((all - w / 2) * 1024) }' one.log)
limit=(--set parallel.max_memory="[${little}KiB,${little}KiB]")
refuse() { # TEXT OPTION...
  local code=0
  "$LRD_PROGRAM" --config config.yaml --set training.output_dir=refused "${@:2}" 2> log || code=$?
  [ $code = 2 ] && grep -q -- "$1" log && [ "$(grep -c '^error' log)" = 1 ] || fail "expected '$1' for ${*:2}: $code $(cat log)"
}
refuse 'the model does not fit' "${limit[@]}"
refuse 'name a parallel.offload_folder' --set 'parallel.device_map={"": 0, transformer.h.5: disk}'
refuse 'embedding and head are not offloaded' --set 'parallel.device_map={"": 0, lm_head: disk}'

# A disk that is full from some call on while the copy is written: nothing of it is left.
mkdir full copies
cp -r one/data full/data
failed=0
for n in $(seq 2 40); do
  code=0
  LD_PRELOAD=$LRD_BINARY_DIR/tests/libfailing_io.so LRD_FAIL_WRITE=$n "$LRD_PROGRAM" --config config.yaml \
    --set training.output_dir=full "${limit[@]}" "${folder[@]}" 2> log || code=$?
  grep -q '^error: .*copies.*No space' log || continue
  failed=$((failed + 1))
  [ $code != 0 ] && [ -z "$(ls copies)" ] || fail "a full disk at call $n: $code $(ls copies) $(cat log)"
done
[ $failed -gt 2 ] || fail "the copy was written by $failed calls"
rm -rf copies full

# The copy is made once, whoever comes.
try limited 1 "${limit[@]}"
copy=$(ls copies)
[ "$(wc -w <<< "$copy")" = 1 ] && [[ $copy == *.safetensors ]] || fail "copies holds $copy"
grep -q 'Wrote copies/' limited.log || fail "no copy was made: $(cat limited.log)"
made=$(stat -c '%i %y' copies/*)
try mapped 1 --set 'parallel.device_map={"": 0, transformer.h.1: cpu, transformer.h.5: disk}'
try stages 2 --set 'parallel.device_map={transformer: 0, transformer.h.3: 1, transformer.h.4: 1, transformer.h.5: disk, transformer.ln_f: 1, lm_head: 1}'
try chunks 2 --set parallel.pipeline=2 --set parallel.pipeline_chunks=2 \
  --set 'parallel.device_map={transformer: 0, transformer.h.1: 1, transformer.h.2: disk, transformer.h.4: 1, transformer.h.5: disk, transformer.ln_f: 1, lm_head: 1}'
try checked 1 --set 'parallel.device_map={"": 0, transformer.h: disk}' --backend cpu_checked
try block 1 --set 'parallel.device_map={"": 0, transformer.h.2: cpu, transformer.h.5: disk}' --set training.gradient_checkpointing=block
[ "$made" = "$(stat -c '%i %y' copies/*)" ] || fail "the copy was made again"
touch model/model.safetensors # another model, for all one knows
rm -r copies/*
try replicas 2 "${limit[@]}" --set parallel.data=2
grep -q '^No room for the gradients of unequal shares' replicas.log || fail "replicas: $(cat replicas.log)" # there is for even ones
[ "$(find copies -type f | wc -l)" = 1 ] || fail "two ranks leave $(ls copies)"

# Memory as planned, with the copy and without.
for where in copies nowhere; do
  "$LRD_PROGRAM" plan --config config.yaml "${limit[@]}" --set parallel.offload_folder=$where > planned 2> log || fail "plan: $(cat log)"
  [ "$(sed -n '/^  [a-z].* MiB$/p' planned)" = "$(sed -n '/^  [a-z].* MiB$/p' limited.log)" ] || fail "planned: $(cat planned)"
  [ "$(grep ^device_map planned)" = "$(grep ^device_map limited.log)" ] || fail "another map is planned"
done
[ ! -e nowhere ] || fail "a plan made a copy"

# Asking a model: the bytes of one that is in memory.
python3 - <<'END'
import json, random
draw = random.Random(3)
with open("records.jsonl", "w") as file:
    for n in 7, 2, 61, 30:
        file.write(json.dumps({"input_ids": [draw.randrange(4, 3072) for _ in range(n)]}) + "\n")
with open("prompts.jsonl", "w") as file:
    for text in "Where is the bell?", "Who keeps the lamp?", "When?":
        file.write(json.dumps({"prompt": text}) + "\n")
END
ask() { # NAME OPTION...
  "$LRD_PROGRAM" score --model "$almanac/model" --data records.jsonl --dtype bfloat16 --logits-out "$1.logits" "${@:2}" \
    > "$1.score" 2> log || fail "score, $1: $(cat log)"
  "$LRD_PROGRAM" generate --model "$almanac/model" --prompt-file prompts.jsonl --dtype bfloat16 --max-new-tokens 12 "${@:2}" \
    > "$1.generate" 2> log || fail "generate, $1: $(cat log)"
}
ask memory
ask disk "${folder[@]}" --set 'parallel.device_map={"": 0, transformer.h: disk}'
[ "$(find copies -type f | wc -l)" = 2 ] || fail "no copy for questions"
for kind in score generate logits; do
  cmp "memory.$kind" "disk.$kind" || fail "another $kind"
done

# 200 MiB of weights where the data of a program may have 150 MiB.
write_model large 2 512 8 190000 float16
write_records few.jsonl 4 190000
run=("$LRD_PROGRAM" --config config.yaml --set model.name_or_path=large --set data.train_file=few.jsonl --set data.eval_file=null
     --set training.eval_steps=null --set training.max_steps=1 --set training.global_batch_size=4)
"${run[@]}" --set training.output_dir=free --log-level error
code=0
(ulimit -d $((150 << 10)) && "${run[@]}" --set training.output_dir=tight 2> log) || code=$?
[ $code != 0 ] && grep -q memory log || fail "the weights fit: $code $(cat log)"
rm -rf tight
(ulimit -d $((150 << 10)) && "${run[@]}" --set training.output_dir=tight "${folder[@]}" --set parallel.max_memory='[100MiB]' 2> log) ||
  fail "in less memory than the weights: $(tail -n 3 log)"
same tight free
echo PASSED
