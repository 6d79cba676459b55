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
echo "PASSED"
