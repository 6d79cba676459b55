#!/usr/bin/env bash
# Something happens to a rank as it comes to a meeting with the others (LRD_FAULT, comm/comm.h), at each meeting in turn:
# start-up, updates, evaluations, answers, checkpoints, the end. A signal: exit code 75, or 0 at the very end. A phase
# or a call that fails, a rank that is killed: neither, with a message that names the rank, and in seconds. The same
# command again ends with the bytes of an uninterrupted run, and nothing half-written is in its way.
#
#   meeting_test.sh STEP RANKS WHAT...     every STEP-th meeting; WHAT: a signal's number, or fail
set -uo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
step=$1 ranks=$2
shift 2
base="$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 TMPDIR=$work
failures=0
cp -r "$base/model" "$base/config.yaml" .
chmod -R u+w .
write_byte_tokenizer model/tokenizer.json
cp "$LRD_SOURCE_DIR/tests/golden/data/passages.json" questions.json
options=(--config config.yaml --set training.max_steps=3 --set training.save_steps=1 --set training.eval_steps=1
         --set training.save_total_limit=2 --set training.load_best_model_at_end=true
         --set training.gradient_accumulation_steps=null --set training.global_batch_size=8
         --set training.per_device_train_batch_size=2 --set data.format=squad --set data.max_length=400
         --set data.on_too_long=drop --set data.train_file=questions.json --set data.eval_file=questions.json
         --set data.cache_dir=cache --set training.predict_with_generate=true
         --set training.generation_max_new_tokens=3 --set training.metric_for_best_model=f1
         --set training.warmup_steps=0 --set training.resume_from_checkpoint=true --set parallel.timeout_seconds=30)
launch=()
((ranks == 1)) || launch=(mpirun -np "$ranks" --bind-to none)

# run FAULT: leaves stderr, $code and $seconds
run() {
  local begun=${EPOCHREALTIME/./}
  code=0
  LRD_FAULT=$1 timeout -k 1 60 "${launch[@]}" "$LRD_PROGRAM" "${options[@]}" --log-level "${2:-info}" 2> stderr || code=$?
  seconds=$(((${EPOCHREALTIME/./} - begun) / 1000000))
}

problem() {
  failures=$((failures + 1))
  echo "FAILED $what: $1 (exit code $code after $seconds s)"
  grep -v '^update' stderr | tail -n 5 | cut -c1-300 | sed 's/^/    /'
}

what="the whole run"
run 0:1000000000:9 debug
total=$(sed -n 's/^debug: \([0-9]*\) meetings$/\1/p' stderr)
[ "$code" = 0 ] && [ "${total:-0}" -gt 20 ] || { problem "does not run, or counts no meetings"; exit 1; }
total=$((total - 1)) # one is about the profile, which this level alone prints
mv out reference

for fault in "$@"; do
  declare -A seen=()
  for ((number = 1, i = 0; number <= total; number += step, i++)); do
    rank=$((i % ranks))
    what="rank $rank of $ranks, meeting $number of $total, $fault"
    rm -rf out cache
    run "$rank:$number:$fault"
    seen[$code]=$((${seen[$code]:-0} + 1))
    ((seconds < 15)) || problem "took too long"
    case $fault in
    2 | 10 | 12 | 15)
      [ "$code" = 75 ] || { [ "$code" = 0 ] && ((number > total - 12)); } || problem "expected exit code 75"
      [ "$code" != 75 ] || grep -q '^Interrupted .*same command again' stderr || problem "no word about what to do"
      ;;
    *)
      [ "$code" != 0 ] && [ "$code" != 75 ] && [ "$code" != 124 ] || problem "expected a failure"
      [ "$fault$ranks" = 91 ] || grep -Eq "error: .*(rank $rank \(|planted failure)" stderr || problem "the rank is not named"
      ;;
    esac
    [ "$code" != 0 ] || continue
    run 0:0:9
    [ "$code" = 0 ] || problem "going on failed"
    [ -z "$(find out cache -name '*.partial*')" ] || problem "something half-written is left"
    cmp -s out/adapter_model.safetensors reference/adapter_model.safetensors || problem "another adapter"
    cmp -s out/trainer_state.json reference/trainer_state.json || problem "another history"
  done
  echo "$fault: every $step. of $total meetings; exit codes:$(for c in "${!seen[@]}"; do echo -n " $c (${seen[$c]})"; done)"
  unset seen
done
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
echo PASSED
