#!/usr/bin/env bash
# An output folder belongs to one run at a time: a second one is refused by name and changes nothing; what a killed run has left stops
# nobody; of several that start at once one has it; of a run elsewhere one waits for a sign. The claim is gone when a run ends, however.
#
#   claim_test.sh [STARTS]     how often several start at once (10)
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
base=$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm
work=$(make_fast_temporary)
trap 'kill -9 $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
cp -r "$base/model" "$base/config.yaml" "$base/train.jsonl" .
chmod -R u+w .
export OMP_NUM_THREADS=1
options=(--config config.yaml --set training.save_steps=10 --set training.eval_steps=null --set data.cache_dir=data)
run() { timeout 100 "$LRD_PROGRAM" "${options[@]}" --set training.output_dir="$@"; }
unclaimed() { [ -z "$(find "$1" -name 'run.claim*')" ] || fail "$2 left $(find "$1" -name 'run.claim*')"; }
wait_for() { # FILE TEXT
  for _ in $(seq 3000); do
    grep -qs "$2" "$1" && return
    sleep 0.02
  done
  fail "no '$2': $(cat "$1")"
}
refused() { # NAME TEXT: by code 2, with one message
  [ $code = 2 ] && [ "$(grep -c '^error' "$1")" = 1 ] && grep -q "^error: .*$2" "$1" || fail "$1: expected '$2': $code $(cat "$1")"
}
long=(--set training.max_steps=100000 --set training.save_total_limit=2)
short=(--set training.max_steps=12)

run reference "${short[@]}" --log-level warn
unclaimed reference "a run"

# While one runs no other does; it goes on as if nothing had been. Asked to stop, it leaves no claim.
"$LRD_PROGRAM" "${options[@]}" --set training.output_dir=live "${long[@]}" 2> first & pid=$!
wait_for first 'Wrote live/checkpoint-10$'
code=0; run live "${long[@]}" --set training.overwrite_output_dir=true 2> second || code=$?
refused second "live: another run is at work there: process $pid on $(hostname), started 20"
code=0; timeout 100 mpirun -np 2 --bind-to none "$LRD_PROGRAM" "${options[@]}" --set training.output_dir=live "${long[@]}" 2> second || code=$?
refused second "process $pid on "
code=0; run live/../live "${long[@]}" --set data.train_file=nowhere.jsonl 2> second || code=$?
[ $code = 2 ] || fail "a run that could not start: $code"
kill -TERM $pid
code=0; wait $pid || code=$?
[ $code = 75 ] || fail "the first was disturbed: $code $(cat first)"
unclaimed live "exit code 75"

# Killed: the next one does not wait.
"$LRD_PROGRAM" "${options[@]}" --set training.output_dir=killed "${long[@]}" 2> first & pid=$!
wait_for first 'Wrote killed/checkpoint-10$'
kill -9 $pid
[ -e killed/run.claim ] || fail "there was no claim"
wait $pid 2> /dev/null || true
run killed "${short[@]}" --set training.overwrite_output_dir=true --set training.resume_from_checkpoint=false 2> second || fail "after kill -9: $(cat second)"
! grep -q 'in use by' second || fail "it waited: $(cat second)"
cmp killed/adapter_model.safetensors reference/adapter_model.safetensors
unclaimed killed "a run after kill -9"

# Two ranks whose launcher is killed: they leave by themselves, and the next one starts.
mpirun -np 2 --bind-to none "$LRD_PROGRAM" "${options[@]}" --set training.output_dir=orphans "${long[@]}" 2> first & pid=$!
wait_for first 'Wrote orphans/checkpoint-10$'
kill -9 $pid
code=0; run orphans "${short[@]}" --set training.overwrite_output_dir=true --set training.resume_from_checkpoint=false 2> second || code=$?
[ $code = 0 ] || fail "after kill -9 of mpirun: $(cat second)"
cmp orphans/adapter_model.safetensors reference/adapter_model.safetensors
wait $pid 2> /dev/null || true

# Failures before and in the middle of the work.
code=0; run broken "${short[@]}" --set training.max_nonfinite_steps=1 --set training.learning_rate=1e30 --set training.max_grad_norm=0 2> second || code=$?
[ $code = 1 ] && grep -q 'not finite' second || fail "expected a failure: $code $(cat second)"
unclaimed broken "a failure"

# Several at once: one has the folder; the others find it in use, or done.
for i in $(seq "${1:-10}"); do
  pids=()
  for k in 1 2 3 4; do
    run "race$i" "${short[@]}" 2> "race$i.$k" & pids+=($!)
  done
  done=0
  for k in 1 2 3 4; do
    code=0; wait "${pids[k - 1]}" || code=$?
    if [ $code = 0 ]; then done=$((done + 1)); else refused "race$i.$k" '\(another run is at work there\|holds checkpoints of an earlier run\)'; fi
  done
  [ $done = 1 ] || fail "$done of four have the folder: $(cat "race$i".*)"
  cmp "race$i/adapter_model.safetensors" reference/adapter_model.safetensors
  unclaimed "race$i" "four at once"
done

# Of a process that cannot be looked at: alive while its claim is touched, dead when it is not, for as long as it says.
foreign() { # FOLDER SECONDS
  mkdir -p "$1"
  echo "{\"host\": \"node7\", \"process\": 4711, \"process_start\": 5, \"machine\": \"elsewhere-1\", \"started\": \"yesterday\", \"silent_seconds\": $2}" > "$1/run.claim"
}
foreign elsewhere 50
(while sleep 0.2; do touch -c elsewhere/run.claim; done) & toucher=$!
for ranks in 1 2; do
  code=0; timeout 100 mpirun -np $ranks --bind-to none "$LRD_PROGRAM" "${options[@]}" --set training.output_dir=elsewhere "${short[@]}" 2> second || code=$?
  refused second 'another run is at work there: process 4711 on node7, started yesterday'
done
kill $toucher
wait $toucher 2> /dev/null || true
[ "$(ls elsewhere)" = run.claim ] || fail "the refused have left $(ls elsewhere)"
foreign elsewhere 3
code=0; timeout 100 mpirun -np 2 --bind-to none "$LRD_PROGRAM" "${options[@]}" --set training.output_dir=elsewhere "${short[@]}" \
  --set training.global_batch_size=16 --set training.gradient_accumulation_steps=null --set parallel.timeout_seconds=2 2> second || code=$?
[ $code = 0 ] && grep -q 'waiting 3 seconds for a sign of it' second || fail "a silent claim: $code $(cat second)"
unclaimed elsewhere "a run that took over"

# A run that another one has taken for dead meanwhile ends, and leaves the folder to that one.
for ranks in 1 2; do
  timeout 100 mpirun -np $ranks --bind-to none "$LRD_PROGRAM" "${options[@]}" --set training.output_dir="over$ranks" "${long[@]}" \
    --set parallel.timeout_seconds=3 2> first & pid=$!
  wait_for first "Wrote over$ranks/checkpoint-10$"
  foreign "over$ranks" 3
  code=0; wait $pid || code=$?
  [ $code = 1 ] && grep -q "error: .*over$ranks was taken over by process 4711 on node7, started yesterday" first || fail "taken over: $code $(cat first)"
  grep -q 4711 "over$ranks/run.claim" || fail "it removed the other one's claim"
  ! grep -q '"event": *"end"' "over$ranks/run.jsonl" || fail "it wrote its end into the other one's run.jsonl"
done
echo PASSED
