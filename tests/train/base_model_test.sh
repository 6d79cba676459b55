#!/usr/bin/env bash
# A run goes on with the base model it began with, wherever that lies by then, and with no other one: the same config.json, the same
# weights. A checkpoint of before the base was kept goes on as ever. What the Hub's names are about: tests/hub/names_test.py.
#
#   base_model_test.sh FORGET_BASE
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
forget_base=$1
base=$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
cp -r "$base/model" "$base/config.yaml" "$base/train.jsonl" .
chmod -R u+w .
export OMP_NUM_THREADS=1
options=(--config config.yaml --set training.save_steps=2 --set training.max_steps=4 --set data.cache_dir=data)
run() { timeout 100 "$LRD_PROGRAM" "${options[@]}" --set training.output_dir="$@" 2> log; }
again() { # MODEL OPTION...: goes on from update 2, in a copy of the folder
  rm -rf again
  cp -r cut again
  run again --set model.name_or_path="$1" --set training.resume_from_checkpoint=true "${@:2}"
}
goes_on() { # WHAT MODEL OPTION...
  again "${@:2}" || fail "$1: $(cat log)"
  grep -q '^Going on from again/checkpoint-2' log || fail "$1 did not go on: $(cat log)"
  cmp again/adapter_model.safetensors whole/adapter_model.safetensors || fail "$1: other bytes"
}
refused() { # TEXT MODEL OPTION...
  local code=0
  again "${@:2}" || code=$?
  [ $code = 2 ] && [ "$(grep -c '^error' log)" = 1 ] && grep -q "^error: again/checkpoint-2 is of a run with other settings: .*$1" log ||
    fail "expected '$1': $code $(cat log)"
  [ ! -e again/checkpoint-4 ] || fail "$1: it went on"
}

run whole || fail "$(cat log)"
cp -r whole cut
(cd cut && rm -r checkpoint-4 adapter_model.safetensors adapter_config.json README.md trainer_state.json)
goes_on "the same folder" model

mkdir elsewhere
cp -r model elsewhere/copied
touch elsewhere/copied/*
goes_on "a copy" elsewhere/copied
mpirun -np 2 --bind-to none "$LRD_PROGRAM" "${options[@]}" --set training.output_dir=two --set training.gradient_accumulation_steps=null \
  --set training.global_batch_size=16 --set model.name_or_path=elsewhere/copied 2> log || fail "$(cat log)"
cmp two/adapter_model.safetensors whole/adapter_model.safetensors

# The last number of the file; a key of config.json that nobody reads; one that changes the model.
cp -r model other
printf '\x01' | dd of=other/model.safetensors bs=1 seek=$(($(stat -c %s other/model.safetensors) - 1)) conv=notrunc status=none
refused 'the base model in other has another config.json or other weights' other
refused 'training.seed was .*; the base model in other has' other --set training.seed=77
rm -rf other
cp -r model other
sed -i '0,/{/s//{"note": 1,/' other/config.json
refused 'the base model in other has another config.json' other

# With leave to overwrite, a run that was interrupted on another base is another run: this one starts.
rm -rf stopped
code=0; LRD_FAULT=0:30:15 run stopped --set training.max_steps=4000 --set training.save_steps=1000 || code=$?
[ $code = 75 ] || fail "expected 75: $code $(cat log)"
run stopped --set model.name_or_path=other --set training.overwrite_output_dir=true || fail "$(cat log)"
! grep -q 'Going on' log || fail "it went on with another base: $(cat log)"

# A checkpoint of before.
"$forget_base" cut/checkpoint-2/state.h5
goes_on "an older checkpoint" model
again other || fail "an older checkpoint knows no base: $(cat log)"
echo PASSED
