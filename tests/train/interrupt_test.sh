#!/usr/bin/env bash
# A signal leads to a checkpoint and exit code 75; the same command again goes on and ends with the
# bytes of an uninterrupted run. A folder with checkpoints is not overwritten without leave.
set -euo pipefail
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=(--config config.yaml --set training.max_steps=80 --set training.save_steps=1000
        --set training.eval_steps=null --threads 1)
run() {
  "$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$work/$1" "${@:2}"
}
fail() { echo "FAILED: $*" >&2; exit 1; }

run whole --log-level warn
# A signal may come at any instruction: several times.
for signal in USR1 TERM INT USR2 USR1 TERM; do
  rm -rf "$work/cut"
  : > "$work/log"
  "$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$work/cut" 2> "$work/log" & pid=$!
  for _ in $(seq 1000); do grep -q 'update 5/' "$work/log" && break; sleep 0.01; done
  kill -"$signal" $pid
  code=0; wait $pid || code=$?
  [ $code = 75 ] || fail "exit code $code after SIG$signal, expected 75"
  ls "$work/cut" | grep -q '^checkpoint-' || fail "no checkpoint after SIG$signal"
done
run cut --log-level warn || fail "going on failed"
cmp "$work/whole/adapter_model.safetensors" "$work/cut/adapter_model.safetensors"

code=0; run whole --log-level error 2> "$work/refused" || code=$?
[ $code = 2 ] || fail "exit code $code where a finished run would be overwritten, expected 2"
grep -q overwrite_output_dir "$work/refused"
code=0; run cut --set training.resume_from_checkpoint=true --set lora.r=2 --log-level error 2> "$work/other" || code=$?
[ $code = 2 ] || fail "exit code $code for another rank, expected 2"

# A damaged newest checkpoint is named, and the one before it used.
run two --set training.save_steps=40 --log-level warn
state="$work/two/checkpoint-80/state.h5" # most of it is arrays
printf 'damaged' | dd of="$state" bs=1 seek=$(($(stat -c %s "$state") / 2)) conv=notrunc status=none
run two --set training.resume_from_checkpoint=true --set training.save_steps=40 2> "$work/damaged"
grep -q 'checkpoint-80 cannot be used' "$work/damaged" || fail "damage went unnoticed"
grep -q 'Going on from .*checkpoint-40' "$work/damaged" || fail "the older checkpoint was not used"
cmp "$work/whole/adapter_model.safetensors" "$work/two/adapter_model.safetensors"
truncate -s -20 "$work/two/checkpoint-80/trainer_state.json"
run two --set training.resume_from_checkpoint=true --set training.save_steps=40 --set training.save_total_limit=1 2> "$work/damaged"
grep -q 'checkpoint-80 cannot be used: .*trainer_state.json' "$work/damaged" || fail "a damaged history went unnoticed"
[ "$(ls "$work/two" | grep -c '^checkpoint-')" = 1 ] || fail "save_total_limit: 1 left $(ls "$work/two")"
cmp "$work/whole/adapter_model.safetensors" "$work/two/adapter_model.safetensors"

# interrupt NAME OPTION...: by a signal at a meeting of the ranks some updates after the start
interrupt() {
  local code=0
  LRD_FAULT=0:80:15 run "$@" 2> "$work/log" || code=$?
  [ $code = 75 ] || fail "exit code $code, expected 75: $(tail -3 "$work/log")"
}
steps() { ls "$work/$1" | sed -n 's/^checkpoint-//p' | sort -n | tr '\n' ' '; }

# With leave to overwrite, a run starts over: what is there is of another run, and gone with its first checkpoint. But
# what it was interrupted at is its own: the same command goes on, until it is done.
over=(--set training.overwrite_output_dir=true --set training.learning_rate=0.003 --set lora.lora_dropout=0.25)
run fresh "${over[@]}" --log-level warn
run mixed --set training.save_steps=40 --log-level warn
interrupt mixed "${over[@]}"
at=$(steps mixed)
[ "$at" -gt 0 ] && [ "$at" -lt 80 ] || fail "after starting over the checkpoints are $at"
interrupt mixed "${over[@]}"
grep -q "Going on from .*/checkpoint-${at% }:" "$work/log" || fail "an interrupted run that may overwrite started over"
run mixed "${over[@]}" --log-level warn
cmp "$work/fresh/adapter_model.safetensors" "$work/mixed/adapter_model.safetensors"
run mixed "${over[@]}" 2> "$work/log"
! grep -q "Going on" "$work/log" || fail "a finished run that may be overwritten did not start over"

# Changed settings: some are named, those that make it another run are refused.
interrupt changed --set training.resume_from_checkpoint=true
code=0
run changed --set training.resume_from_checkpoint=true --set training.seed=43 --set lora.lora_alpha=77 \
  --set training.adam_beta1=0.8 2> "$work/log" || code=$?
[ $code = 2 ] || fail "exit code $code with another seed, expected 2"
for key in 'training.seed was 3, is 43' 'lora.lora_alpha was 32.0, is 77.0' 'training.adam_beta1 was 0.9, is 0.8'; do
  grep -q "error: .*other settings: .*$key" "$work/log" || fail "not refused by name: $key: $(cat "$work/log")"
done
run changed --set training.resume_from_checkpoint=true --set training.learning_rate=0.002 2> "$work/log"
grep -q 'warning: Going on from .* with changed settings: training.learning_rate was .*, is 0.002' "$work/log" ||
  fail "a changed learning rate is not named"
! cmp -s "$work/whole/adapter_model.safetensors" "$work/changed/adapter_model.safetensors" || fail "it had no effect"
echo "PASSED"
