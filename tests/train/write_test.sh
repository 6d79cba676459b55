#!/usr/bin/env bash
# Writing fails: the disk is full from the n-th call on, or one call alone fails (tests/support/failing_io.c), and the
# same with a small file system and with a limit on the size of files. The run ends with exit code 1 or 2 and one message
# about it, the checkpoint before stands, and once there is room again the run goes on to the same bytes. Reads that
# come in pieces change nothing. What a run that is killed at the n-th call leaves half-written, the next one removes.
#
#   write_test.sh STEP     every STEP-th call
set -uo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
step=$1
base="$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
preload=$LRD_BINARY_DIR/tests/libfailing_io.so
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 TMPDIR=$work
failures=0
cp -r "$base/model" "$base/config.yaml" "$base/train.jsonl" .
chmod -R u+w .
options=(--config config.yaml --set training.max_steps=4 --set training.save_steps=1
         --set training.save_total_limit=2 --set training.resume_from_checkpoint=true)

more=()
# run OUT VARIABLE...: leaves stderr and $code
run() {
  code=0
  env "${@:2}" timeout -k 1 60 "$LRD_PROGRAM" "${options[@]}" "${more[@]}" --set training.output_dir="$1" 2> stderr || code=$?
}

problem() {
  failures=$((failures + 1))
  echo "FAILED $what: $1 (exit code $code)"
  grep -v '^update' stderr | tail -n 5 | cut -c1-300 | sed 's/^/    /'
}

same() {
  cmp -s "$1/adapter_model.safetensors" reference/adapter_model.safetensors || problem "another adapter"
  cmp -s "$1/trainer_state.json" reference/trainer_state.json || problem "another history"
}

# What must hold after a failure to write into a folder: nothing that is there is half-written, and it can go on.
check_failed() {
  local before newest
  if [ "$code" = 0 ]; then
    same "$1"
    return
  fi
  ((code == 1 || code == 2)) || problem "ended badly"
  [ "$(grep -c '^error: ' stderr)" = 1 ] || problem "not one message"
  grep -Eq '^error: .*(No space left|File too large)' stderr || problem "the message does not say why"
  before=$(ls "$1" 2> /dev/null | grep -E '^checkpoint-[0-9]+$')
  newest=$(sed 's/.*-//' <<< "$before" | sort -n | tail -1)
  [ -z "$2" ] || "$2"
  run "$1"
  [ "$code" = 0 ] || problem "going on failed"
  [ -z "$newest" ] || ((newest == 4)) || grep -q "^Going on from .*/checkpoint-$newest:" stderr || problem "did not go on from checkpoint-$newest"
  ! grep -q 'cannot be used' stderr || problem "a damaged checkpoint stood"
  same "$1"
}

what="the whole run"
run reference LD_PRELOAD="$preload"
total=$(sed -n 's/^\([0-9]*\) writing calls$/\1/p' stderr | tail -1)
[ "$code" = 0 ] && [ "${total:-0}" -gt 50 ] || { problem "does not run, or counts no calls"; exit 1; }

what="reads in pieces"
run pieces LD_PRELOAD="$preload" LRD_SHORT_READ=1
[ "$code" = 0 ] || problem "failed"
same pieces
what="a file system without locks, which cannot exchange names"
run far LD_PRELOAD="$preload" LRD_NETWORK_DISK=1
[ "$code" = 0 ] || problem "failed"
same far
truncate -s -20 far/checkpoint-4/trainer_state.json # made anew in its place
run far LD_PRELOAD="$preload" LRD_NETWORK_DISK=1
[ "$code" = 0 ] || problem "going on failed"
grep -q 'checkpoint-4 cannot be used' stderr && grep -q '^Going on from .*/checkpoint-3:' stderr || problem "did not go on from checkpoint-3"
same far
cmp -s far/checkpoint-4/trainer_state.json reference/checkpoint-4/trainer_state.json || problem "checkpoint-4 is damaged still"
[ -z "$(find far -name '*.partial*')" ] || problem "left behind: $(find far -name '*.partial*')"
for once in "" LRD_FAIL_ONCE=1; do
  for ((number = 1; number <= total; number += step)); do
    what="writing call $number of $total $once"
    rm -rf out
    run out LD_PRELOAD="$preload" LRD_FAIL_WRITE="$number" $once
    check_failed out ""
  done
done
echo "every $step. of $total calls"

# Killed instead. The next run of the folder tidies up there; what is left of a data set, another run that shares the
# cache, of other tokens.
leftovers=0 foreign=0
for ((number = 1; number <= total; number += step)); do
  what="killed at writing call $number of $total"
  rm -rf out cache other
  run out LD_PRELOAD="$preload" LRD_KILL_WRITE="$number" 2> /dev/null # where bash says that it was killed
  [ "$code" = 137 ] || problem "was not killed"
  [ -z "$(find out -name '*.partial*' 2> /dev/null)" ] || leftovers=$((leftovers + 1))
  if [ -n "$(find out/data -name '*.partial*' 2> /dev/null)" ]; then
    foreign=$((foreign + 1))
    mv out/data cache
    more=(--set data.cache_dir=cache --set data.max_length=1000)
    run other
    more=()
    [ "$code" = 0 ] || problem "another run with its cache failed"
    [ -z "$(find cache -name '*.partial*')" ] || problem "another run left $(find cache -name '*.partial*')"
  fi
  run out
  [ "$code" = 0 ] || problem "going on failed"
  [ -z "$(find out -name '*.partial*')" ] || problem "left behind: $(find out -name '*.partial*')"
  same out
done
((leftovers > 0)) || problem "no run left anything"
echo "killed at every $step. call: $leftovers runs left something, $foreign of them a data set"

# State that outgrows what a file may have: data set and adapter do not.
options+=(--set lora.r=64 --set lora.target_modules=all-linear)
what="files of limited size"
rm -rf reference out && run reference
[ "$code" = 0 ] || problem "the reference failed"
largest=$(stat -c %s reference/adapter_model.safetensors)
(ulimit -f $((largest / 1024 + 8)) && run out && echo "$code" > code)
code=$(cat code)
[ "$code" = 1 ] || problem "expected exit code 1"
check_failed out ""

# Room for two checkpoints, and a bit.
what="a small file system"
small=$work/small
mkdir "$small"
bytes=$(du -sb reference/checkpoint-4 | cut -f1)
if mount -t tmpfs -o size=$((bytes * 5 / 2)) tmpfs "$small" 2> /dev/null; then
  trap 'umount "$small"; rm -rf "$work"' EXIT
  more_room() { mount -o remount,size=$((bytes * 20)) "$small"; }
  run "$small/out"
  [ "$code" = 1 ] || problem "expected exit code 1"
  ls "$small/out" | grep -Eq '^checkpoint-[12]$' || problem "no checkpoint stands"
  check_failed "$small/out" more_room
else
  echo "not allowed to mount: no small file system"
fi
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
echo PASSED
