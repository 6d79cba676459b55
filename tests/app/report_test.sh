#!/usr/bin/env bash
# `report`: its page is well-formed, brings nothing from elsewhere, shows the numbers of the run's own files, and cannot be
# led astray by what stands in them; of runs that broke off, and of damaged ones, it shows what there is.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
command -v python3 > /dev/null || skip "no python3, which checks the pages"
check=$LRD_SOURCE_DIR/tests/app/report_check.py
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
cp -r "$LRD_SOURCE_DIR/examples/almanac/model" model
python3 - "$LRD_SOURCE_DIR/examples/almanac" << 'END'
import json, sys
for name in "train", "heldout":
    data = json.load(open(f"{sys.argv[1]}/{name}.json"))
    data["data"] = data["data"][:3]
    questions = [q for a in data["data"] for p in a["paragraphs"] for q in p["qas"]]
    questions[0]["question"] = "</td></table><script>alert(1)</script> & \"who\" 'asks'?"
    json.dump(data, open(f"{name}.json", "w"))
END
cat > config.yaml << 'END'
model: {name_or_path: model, dtype: float32}
lora: {r: 4, target_modules: [query_key_value]}
data: {format: squad, train_file: train.json, eval_file: heldout.json, loss_on: answer}
training: {global_batch_size: 4, per_device_train_batch_size: 2, per_device_eval_batch_size: 8, max_steps: 8, eval_steps: 4, save_steps: 4, warmup_steps: 2,
           learning_rate: 1.0e-2}
END
# run RANKS FOLDER [OPTION...]: leaves $code
run() {
  local launch=()
  code=0
  (($1 == 1)) || launch=(mpirun -np "$1" --bind-to none)
  "${launch[@]}" "$LRD_PROGRAM" --config config.yaml --set "training.output_dir=$2" "${@:3}" 2> log || code=$?
}
report() { "$LRD_PROGRAM" report "$@" --log-level warn; }
# shows PAGE TEXT...: sound, and these texts stand on it
shows() { python3 "$check" "$1" --sound "${@:2}" || fail "${FUNCNAME[1]} $1: ${*:2}"; }

# One run, on two ranks that share the layers, with answers.
run 2 out --set parallel.pipeline=2
[ "$code" = 0 ] || fail "the run: $(grep error log)"
"$LRD_PROGRAM" eval --config config.yaml --adapter out --max-new-tokens 4 --set training.output_dir=out --log-level warn > scores ||
  fail "eval"
python3 - << 'END' || fail "predictions.evaluation.json"
import json
record, scores = json.load(open("out/predictions.evaluation.json")), json.load(open("scores"))
said = json.load(open("out/predictions.json"))
asked = {q["id"]: q for a in json.load(open("heldout.json"))["data"] for p in a["paragraphs"] for q in p["qas"]}
assert record["metrics"] == scores and record["adapter"] == "out" and record["data"] == "heldout.json"
assert 0 < len(record["examples"]) <= 12
for example in record["examples"]:
    assert example["prediction"] == said[example["id"]]
    assert example["question"] == asked[example["id"]]["question"]
    assert example["answers"] == [a["text"] for a in asked[example["id"]]["answers"]]
END
# Versions of libraries: one place tells `info` and the run.
"$LRD_PROGRAM" info > info
python3 - << 'END' || fail "software in run.jsonl: $(head -1 out/run.jsonl)"
import json
software = json.loads(open("out/run.jsonl").readline())["software"]
said = dict(line.strip().split(": ", 1) for line in open("info") if ": " in line)
assert {"compiler", "C library", "MPI", "HDF5", "Oniguruma"} <= set(software), software
assert all(said[name] == version for name, version in software.items()), (said, software)
END
report out
python3 "$check" out/report.html out || fail "the page about one run"
exact=$(python3 -c 'import json; print("%.1f" % json.load(open("scores"))["exact"])')
python3 "$check" out/report.html --sound "training.json" 2> /dev/null && fail "what is not there is found"
shows out/report.html finished "8 of 8 updates." "$exact / " "</td></table><script>alert(1)</script> & \"who\" 'asks'?" "1 replica of 2 stages" \
  checkpoint-8 "Who computed what"
run 2 seldom --set parallel.pipeline=2 --set training.logging_steps=3
report seldom
seen() { sed -n 's/.*data-fact="tokens" data-value="\([0-9.]*\)".*/\1/p' "$1"; }
[ -n "$(seen out/report.html)" ] && [ "$(seen seldom/report.html)" = "$(seen out/report.html)" ] ||
  fail "the same updates are $(seen out/report.html) tokens, $(seen seldom/report.html) when logged seldom"
cp out/report.html first.html
report out/ --out again.html
report ./out --out - > piped.html
cmp first.html again.html && cmp first.html piped.html || fail "the same files make another page"
[ -z "$(find . -name '*.partial*')" ] || fail "left behind: $(find . -name '*.partial*')"

# One that is interrupted, shown, and goes on.
LRD_FAULT=0:1000000:15 run 1 whole --log-level debug
meetings=$(sed -n 's/^debug: \([0-9]*\) meetings$/\1/p' log)
LRD_FAULT=0:$((meetings * 4 / 5)):15 run 1 'stopped & "so" <i>'
[ "$code" = 75 ] || fail "was not interrupted: $code $(tail -3 log)"
stopped='stopped & "so" <i>'
step=$(ls "$stopped" | sed -n 's/^checkpoint-//p' | sort -n | tail -1)
report "$stopped" --out stopped.html
shows stopped.html "$stopped" interrupted "checkpoint-$step stands: the same command again goes on from it." "$step of 8 updates"
run 1 "$stopped"
[ "$code" = 0 ] || fail "did not go on"
report "$stopped" --out stopped.html
shows stopped.html finished "Went on after update $step on 1 rank"
python3 "$check" stopped.html "$stopped" || fail "the page about a run that went on"

# One that starts over in a folder of another: that one's evaluations are there until its first update, its checkpoints and
# adapter until it has its own, and nothing of them is shown as its. What nobody of these wrote stays.
cp -r out over
sed 's/"adapter": "out"/"adapter": null/' out/predictions.evaluation.json > over/base.evaluation.json
sed 's/"model": "model"/"model": "another"/' over/base.evaluation.json > over/other-base.evaluation.json
echo '{"grade": 5}' > over/essay.evaluation.json
touch over/notes.txt over/base.json
anew=(over --set training.overwrite_output_dir=true --set training.seed=7 --set training.save_steps=1000 --set training.eval_steps=null
      --log-level debug)
evaluations() { (cd over && echo *.evaluation.json predictions*); }
before=$(evaluations)
LRD_FAULT=0:3:15 run 1 "${anew[@]}"
[ "$code" = 75 ] && [ "$(evaluations)" = "$before" ] || fail "a run that made no update: $code, $(evaluations)"
LRD_FAULT=0:1000000:15 run 1 whole-anew "${anew[@]:1}"
meetings_anew=$(sed -n 's/^debug: \([0-9]*\) meetings$/\1/p' log)
LRD_FAULT=0:$((meetings_anew * 4 / 5)):9 run 1 "${anew[@]}"
[ "$code" = 137 ] && [ -e over/checkpoint-8/state.h5 ] && [ -e over/adapter_model.safetensors ] ||
  fail "it was to be killed before its first checkpoint: $code $(ls over)"
[ "$(cd over && echo *.evaluation.json)" = "base.evaluation.json essay.evaluation.json" ] && [ -e over/notes.txt ] &&
  [ -e over/base.json ] && [ ! -e over/predictions.json ] || fail "after the first update: $(ls over)"
report over --out over.html
shows over.html "checkpoint-8: adapter and history there are of an earlier run" "There is no checkpoint to go on from"
! grep -q 'data-fact="f1"' over.html || fail "answers of an earlier run are shown as this one's"
run 1 "${anew[@]}"
[ "$code" = 0 ] && [ "$(cd over && echo checkpoint-* *.evaluation.json)" = \
  "checkpoint-8 base.evaluation.json essay.evaluation.json" ] || fail "started over: $code $(ls over)"
cmp over/adapter_model.safetensors whole-anew/adapter_model.safetensors
report over --out over.html
! grep -q "an earlier run" over.html || fail "what is this run's is said to be of an earlier one"

# What is not finite: skipped updates, an end with its cause.
run 1 wild --set training.learning_rate=1e30 --set training.warmup_steps=0 --set training.max_nonfinite_steps=3 --set training.eval_steps=null
[ "$code" = 1 ] || fail "a run without a finite loss ended with $code"
report wild
shows wild/report.html failed NaN "were skipped" "training.max_nonfinite_steps says how many are borne" "not finite" "was skipped: its gradient is not finite"

# Side by side; the settings that differ.
run 2 slow --set training.learning_rate=1e-3 --set 'lora.target_modules=[query_key_value, dense]'
report out slow "$stopped" --out compared.html
python3 "$check" compared.html out slow "$stopped" || fail "the page about three runs"
report out slow wild --out compared.html
shows compared.html "3 runs" wild failed
! grep -q "Software that differs" compared.html || fail "runs of one program on one machine differ in libraries"
cp -r slow newer
sed 's/"HDF5": "[^"]*"/"HDF5": "99.1 <i>"/; s/"version": "[^"]*"/"version": "99.2"/; s/"software": {/"software": {"CUDA runtime": "12.4", /' slow/run.jsonl > newer/run.jsonl
report out newer --out compared.html
python3 "$check" compared.html out newer || fail "the page about two runs with other libraries"
shows compared.html "Software that differs" "CUDA runtime" "99.1 <i>" 99.2
mkdir elsewhere && cp -r out elsewhere/out
report out elsewhere/out --out compared.html
shows compared.html elsewhere/out "none but the folders"

# Files are missing or damaged: the page says so, and shows the rest.
broken() { # WHAT SHOWN COMMAND...: on a copy of the run
  rm -rf broken && cp -r out broken
  (cd broken && "${@:3}")
  report broken out --out compared.html || fail "$1: no page of two"
  report broken || fail "$1: no page"
  shows broken/report.html "$2"
  shows compared.html broken
}
broken "half a history" "trainer_state.json" truncate -s 700 trainer_state.json
broken "no history" "8 of 8 updates." rm -r trainer_state.json checkpoint-4 checkpoint-8
broken "half a log" "line" truncate -s -20 run.jsonl
broken "no log" "there is no run.jsonl" rm run.jsonl
broken "no adapter" "there is no adapter_model.safetensors" rm adapter_model.safetensors
broken "half an adapter" "adapter_model.safetensors" truncate -s 50 adapter_model.safetensors
broken "a damaged evaluation" "predictions.evaluation.json" sh -c 'echo "{" > predictions.evaluation.json'
broken "half a checkpoint" "files are missing" rm checkpoint-8/adapter_model.safetensors
broken "one being written" "checkpoint-12.partial is not complete" mkdir checkpoint-12.partial
broken "nothing but checkpoints" "checkpoint-8" sh -c 'rm -f *.*'
broken "nothing at all" "there is no run.jsonl" sh -c 'rm -r -- *'

# A history as transformers' Trainer leaves it, in its last checkpoint alone.
mkdir -p peft/checkpoint-2
cat > peft/checkpoint-2/trainer_state.json << 'END'
{"best_metric": null, "epoch": 1.0, "global_step": 2, "is_world_process_zero": true, "max_steps": 2, "log_history": [
 {"epoch": 0.5, "grad_norm": 3.5, "learning_rate": 0.0005, "loss": 4.1234, "step": 1},
 {"epoch": 1.0, "grad_norm": NaN, "learning_rate": 0.0, "loss": 3.9876, "step": 2},
 {"epoch": 1.0, "step": 2, "total_flos": 1.5e12, "train_loss": 4.05, "train_runtime": 3.5}]}
END
report peft
shows peft/report.html "2 of 2 updates" 3.988 NaN

# Refused: before any work 2, after it 1.
refuse() { # CODE WORDS ARGUMENT...
  code=0
  "$LRD_PROGRAM" report "${@:3}" > /dev/null 2> log || code=$?
  [ "$code" = "$1" ] && grep -q "$2" log || fail "report ${*:3}: $code, $(cat log)"
}
mkdir other && touch other/letter
refuse 2 "no such folder" absent
refuse 2 "no such folder" config.yaml
refuse 2 "is not the output_dir of a run" out other
refuse 2 "report needs the folder of a run"
refuse 2 "of 1 to 12 runs" out out out out out out out out out out out out out
refuse 1 "nowhere" out --out nowhere/page.html
echo PASSED
