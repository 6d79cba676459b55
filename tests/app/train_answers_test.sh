#!/usr/bin/env bash
# Exact match and F1 in evaluations during training: what `eval` says of the same adapter, on one, two and four ranks, with
# layers spread over them too, of a file or of a validation split; the best of them is the result. Without them the run has the same bits.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
shared=$LRD_SOURCE_DIR/../shared/golden/squad
[[ -f $shared/eval.json ]] || skip "../shared/golden/squad is not here"
out=$(make_temporary)
remove_at_exit "$out"
cd "$shared"

# From an adapter that answers, at a learning rate that soon makes it forget.
common=(--config config.yaml --set lora.adapter_name_or_path=adapter --set lora.seed=0 --set data.cache_dir="$out/data"
        --set training.warmup_steps=0 --set training.learning_rate=0.02 --set training.lr_scheduler_type=constant
        --set training.max_steps=4 --set training.save_steps=2 --set training.eval_steps=2
        --set training.gradient_accumulation_steps=null --set training.global_batch_size=8)
answers=(--set training.predict_with_generate=true --set training.generation_max_new_tokens=24)
train() {
  local ranks=$1 name=$2
  mpirun -np "$ranks" --bind-to none "$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$out/$name" \
    "${@:3}" 2>"$out/log" || fail "$name: $(tail -3 "$out/log")"
}
answer() {
  "$LRD_PROGRAM" eval --config config.yaml --data eval-questions.json --max-new-tokens 24 --adapter "$1" \
    --output "$out/predictions.json" 2>"$out/log" || fail "eval: $(tail -3 "$out/log")"
}

train 1 one "${answers[@]}" --set data.eval_file=eval-questions.json --set training.metric_for_best_model=f1 \
  --set training.load_best_model_at_end=true
train 2 two "${answers[@]}" --set data.eval_file=eval-questions.json
train 2 staged "${answers[@]}" --set data.eval_file=eval-questions.json --set parallel.pipeline=2 --set parallel.pipeline_chunks=2
train 4 grid "${answers[@]}" --set data.eval_file=eval-questions.json --set parallel.pipeline=2
train 1 none --set data.eval_file=eval-questions.json
for step in 2 4; do
  answer "$out/one/checkpoint-$step" >"$out/eval-$step.json"
  for name in two staged grid none; do
    cmp "$out/one/checkpoint-$step/adapter_model.safetensors" "$out/$name/checkpoint-$step/adapter_model.safetensors" ||
      fail "other bits at update $step of $name"
  done
done
python3 - "$out" <<'END_PYTHON' || fail "evaluations during training"
import json, sys
out = sys.argv[1]
state = {n: json.load(open(f"{out}/{n}/trainer_state.json")) for n in ("one", "two", "staged", "grid", "none")}
evals = {n: {x["step"]: x for x in s["log_history"] if "eval_loss" in x} for n, s in state.items()}
want = {n: json.load(open(f"{out}/eval-{n}.json")) for n in (2, 4)}
for step in 2, 4:
    for name in "two", "staged", "grid": # one rank, two, layers on two, both
        assert evals["one"][step] == evals[name][step], (name, evals)
    assert evals["one"][step]["eval_exact"] == want[step]["exact"], (evals["one"], want)
    assert evals["one"][step]["eval_f1"] == want[step]["f1"], (evals["one"], want)
    assert "eval_f1" not in evals["none"][step] and evals["none"][step]["eval_loss"] == evals["one"][step]["eval_loss"]
f1 = {step: want[step]["f1"] for step in want}
assert f1[2] != f1[4] and max(f1.values()) > 5, f1
best = 2 if f1[2] > f1[4] else 4
assert state["one"]["best_global_step"] == best and state["one"]["best_metric"] == f1[best], state["one"]
one, same = (open(f"{out}/one{x}/adapter_model.safetensors", "rb").read() for x in ("", f"/checkpoint-{best}"))
assert one == same
print("exact and f1:", {step: (want[step]["exact"], want[step]["f1"]) for step in want}, "best at", best)
END_PYTHON

# Of a split, which takes whole articles: the figures are those of some of the articles.
train 1 split "${answers[@]}" --set data.eval_file=null --set data.train_file=eval-questions.json \
  --set data.validation_split=0.4 --set training.max_steps=2 --set training.learning_rate=0.0001
n=$(sed -n 's/^Answering: \([0-9]*\) questions.*/\1/p' "$out/log")
answer "$out/split" >/dev/null
python3 - "$out" "$LRD_PROGRAM" "$n" <<'END_PYTHON' || fail "evaluation of a split"
import itertools, json, subprocess, sys
out, program, n = sys.argv[1:]
entry = [x for x in json.load(open(f"{out}/split/trainer_state.json"))["log_history"] if "eval_loss" in x][-1]
data = json.load(open("eval-questions.json"))
fits = []
for k in range(1, len(data["data"])):
    for articles in itertools.combinations(data["data"], k):
        if sum(len(p["qas"]) for a in articles for p in a["paragraphs"]) != int(n):
            continue
        json.dump({"version": "v2.0", "data": articles}, open(f"{out}/part.json", "w"))
        have = json.loads(subprocess.run([program, "eval", "--data", f"{out}/part.json", "--predictions",
                                          f"{out}/predictions.json", "--log-level", "error"], check=True,
                                         capture_output=True).stdout)
        if abs(have["exact"] - entry["eval_exact"]) < 1e-9 and abs(have["f1"] - entry["eval_f1"]) < 1e-9:
            fits.append([a["title"] for a in articles])
assert len(fits) == 1 and entry["eval_exact"] > 20, (n, entry, fits)
print(f"exact {entry['eval_exact']:.2f}, f1 {entry['eval_f1']:.2f}: those of {fits[0]}, {n} questions")
END_PYTHON
echo PASSED
