#!/usr/bin/env bash
# eval, score and generate by a model whose layers are spread over ranks: the bytes of one rank, on 1 to 4 stages, in chunks,
# on replicas that share the work, in two replicas of two, by a map and by a limit of memory; what does not fit and what cannot be is refused.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
almanac=$LRD_SOURCE_DIR/examples/almanac
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
# An adapter whose B is not zero, so that it has a say.
cat >config.yaml <<END
model: {name_or_path: $almanac/model}
lora: {r: 4, target_modules: all-linear}
data: {train_file: $almanac/heldout.json, eval_file: $almanac/heldout.json, max_length: 400}
training: {max_steps: 1, per_device_train_batch_size: 2, learning_rate: 0.01, warmup_steps: 0, output_dir: adapter}
END
"$LRD_PROGRAM" --config config.yaml 2>log || fail "no adapter: $(cat log)"
python3 - <<'END'
import json, random
draw = random.Random(3)
with open("records.jsonl", "w") as file:
    for n in [7, 2, 61, 30] + [draw.randrange(2, 6) for _ in range(36)]: # more than a round of two replicas
        file.write(json.dumps({"input_ids": [draw.randrange(4, 3072) for _ in range(n)]}) + "\n")
words = "Where is the bell? Who keeps the lamp and when was it lit?".split()
with open("prompts.jsonl", "w") as file:
    for i in range(6):
        text = " ".join(draw.choice(words) for _ in range(draw.randrange(1, 40)))
        file.write(json.dumps({"prompt": text, "adapter": "a" if i % 2 else None}) + "\n")
END
printf '%s\n' 'Where is the bell?' '/adapter a' 'Where is the bell?' '/frob' '/list' 'Who?' >talk

base=(--set data.max_length=400)
answer() { # NAME RANKS OPTION...: all commands, into files called after NAME
  local name=$1 ranks=$2 run
  run=(mpirun -np "$ranks" --bind-to none "$LRD_PROGRAM")
  [[ $ranks != 1 ]] || run=("$LRD_PROGRAM")
  "${run[@]}" eval --config config.yaml --adapter adapter --limit 7 --max-new-tokens 12 --batch-size 3 \
    --output "$name.predictions" "${@:3}" >"$name.eval" 2>"$name.log" || fail "eval, $name: $(cat "$name.log")"
  "${run[@]}" score --model "$almanac/model" --adapter adapter --data records.jsonl --logits-out "$name.logits" \
    "${@:3}" >"$name.score" 2>"$name.log" || fail "score, $name: $(cat "$name.log")"
  "${run[@]}" generate --model "$almanac/model" --adapter a=adapter --prompt-file prompts.jsonl --max-new-tokens 12 \
    --batch-size 4 --do-sample --temperature 1.3 --repetition-penalty 1.1 "${@:3}" >"$name.generate" 2>"$name.log" ||
    fail "generate, $name: $(cat "$name.log")"
  "${run[@]}" generate --model "$almanac/model" --adapter a=adapter --max-new-tokens 12 "${@:3}" <talk >"$name.talk" \
    2>"$name.log" || fail "a talk, $name: $(cat "$name.log")"
  sed -i '/beside a base of/d' "$name.talk" # memory of rank 0
  [[ $(grep -c 'error: no command /frob' "$name.log") == 1 ]] || fail "a talk, $name: $(cat "$name.log")"
}
same() { # NAME AS
  local kind
  for kind in predictions eval logits score generate talk; do
    cmp "$2.$kind" "$1.$kind" || fail "$1: another $kind"
  done
}

for backend in cpu cpu_checked; do
  answer "one-$backend" 1 --backend "$backend"
  stages="2 3 4"
  [[ ${1:-} == all ]] || stages=3
  [[ ${1:-} == all || $backend == cpu ]] || stages=""
  for n in $stages; do
    answer "$n-$backend" "$n" --backend "$backend" --set parallel.pipeline="$n"
    same "$n-$backend" "one-$backend"
  done
  answer "chunks-$backend" 2 --backend "$backend" --set parallel.pipeline=2 --set parallel.pipeline_chunks=2
  same "chunks-$backend" "one-$backend"
  # Replicas share records and prompts.
  answer "replicas-$backend" 2 --backend "$backend"
  same "replicas-$backend" "one-$backend"
  [[ ${1:-} == all ]] || continue
  for n in 3 4; do
    answer "replicas$n-$backend" "$n" --backend "$backend"
    same "replicas$n-$backend" "one-$backend"
  done
  answer "grid-$backend" 4 --backend "$backend" --set parallel.pipeline=2
  same "grid-$backend" "one-$backend"
done
[[ $(wc -l <one-cpu.score) == 40 && $(wc -l <one-cpu.generate) == 6 && $(wc -c <one-cpu.logits) -gt $((100 * 3072 * 4)) ]] ||
  fail "one rank says little"
[[ $(sed 's/.*"text": //' one-cpu.generate | sort -u | wc -l) == 6 ]] || fail "all prompts have one answer: $(cat one-cpu.generate)"
if [[ ${1:-} == all ]]; then
  answer map 2 --backend cpu --set 'parallel.device_map={transformer.word_embeddings: 0, transformer.word_embeddings_layernorm: 0, transformer.h.0: 0, transformer.h: 1, transformer.ln_f: 1, lm_head: 1}'
  same map one-cpu
fi

# More replicas than there is work.
head -n 1 records.jsonl >record.jsonl
for n in 1 3; do
  run=(mpirun -np "$n" --bind-to none "$LRD_PROGRAM")
  "${run[@]}" score --model "$almanac/model" --backend cpu --data record.jsonl --logits-out "few$n.logits" >"few$n.score" 2>log &&
    "${run[@]}" generate --model "$almanac/model" --backend cpu --prompt 'Who keeps the lamp?' --max-new-tokens 5 \
      >"few$n.prompt" 2>log || fail "little work on $n: $(cat log)"
done
for kind in score logits prompt; do
  [[ -s few1.$kind ]] && cmp few1.$kind few3.$kind || fail "little work on three replicas: another $kind"
done

# Memory decides: a replica where it fits, else stages; and what fits nowhere is refused.
score() { # RANKS OPTION...
  code=0
  mpirun -np "$1" --bind-to none "$LRD_PROGRAM" score --model "$almanac/model" --backend cpu --adapter adapter \
    --data records.jsonl "${@:2}" >said 2>log || code=$?
}
score 2 --set parallel.max_memory='[1GiB, 1GiB]'
[[ $code == 0 ]] && ! grep -q device_map log && cmp said one-cpu.score || fail "a replica fits: $(cat log)"
score 2 --set parallel.max_memory='[8MiB, 8MiB]'
[[ $code == 0 ]] && grep -q "^device_map = {.*'lm_head': 1}" log && cmp said one-cpu.score || fail "two stages fit: $(cat log)"
refuse() { # TEXT RANKS OPTION...
  score "${@:2}"
  [[ $code == 2 && ! -s said && $(grep -c '^error' log) == 1 ]] && grep -q -- "$1" log || fail "expected '$1' for ${*:2}: $code $(cat log)"
}
refuse 'smaller --batch-size' 2 --set parallel.max_memory='[1KiB, 1KiB]'
refuse 'is not the 1 rank' 1 --set parallel.pipeline=2
refuse 'the model has 6 blocks' 2 --set parallel.pipeline=2 --set parallel.pipeline_chunks=5

# `plan` counts the memory of answers in evaluations as the run does; here they take more than a micro-batch.
python3 - "$almanac/heldout.json" <<'END'
import json, sys
data = json.load(open(sys.argv[1]))
data["data"] = data["data"][:12]
json.dump(data, open("few.json", "w"))
END
run=(--config config.yaml --set data.eval_file=few.json --set training.eval_steps=1 --set parallel.pipeline=2
     --set training.per_device_train_batch_size=1 --set training.output_dir=answered)
asked=(--set training.predict_with_generate=true --set training.generation_max_new_tokens=4
       --set training.per_device_eval_batch_size=64)
rows() { awk '/^ *rank +host/ { on = 1; next } on && NF < 7 { exit } on { sub(/replica [0-9]+/, "host"); $2 = ""; NF--; print }' "$1"; }
mpirun -np 2 --bind-to none "$LRD_PROGRAM" "${run[@]}" "${asked[@]}" 2>log || fail "a run with answers: $(cat log)"
"$LRD_PROGRAM" plan "${run[@]}" "${asked[@]}" >planned 2>log.plan || fail "plan: $(cat log.plan)"
"$LRD_PROGRAM" plan "${run[@]}" >without 2>log.plan || fail "plan: $(cat log.plan)"
[[ $(rows log | wc -l) == 2 && $(rows log) == $(rows planned) ]] || fail "planned $(rows planned), ran $(rows log)"
[[ $(rows without) != $(rows planned) ]] || fail "answers take no memory: $(rows planned)"

# A signal to one rank: all leave at the same step.
code=0
LRD_FAULT=1:60:15 mpirun -np 2 --bind-to none "$LRD_PROGRAM" generate --model "$almanac/model" --adapter a=adapter \
  --prompt-file prompts.jsonl --batch-size 1 --max-new-tokens 100 --set parallel.pipeline=2 >said 2>log || code=$?
[[ $code == 1 && ! -s said && $(grep -c '^error: .*interrupted' log) == 1 ]] || fail "a signal: $code $(cat log)"
echo PASSED
