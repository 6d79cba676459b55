#!/usr/bin/env bash
# Files that disappear under a run. One that is mapped and becomes shorter: the rank says so, and all end. One that is
# only replaced or removed is still there for those who have it. An output folder that is gone is made again.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
base="$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
cp -r "$base/model" "$base/config.yaml" "$base/train.jsonl" .
chmod -R u+w .

# begin RANKS: a run whose last rank stops itself among its updates; waits until it has, leaves its $pid and the job's
begin() {
  local launch=(bash -c 'echo $$ > pid; exec "$@"' -) i
  (($1 == 1)) || launch=(mpirun -np "$1" --bind-to none bash -c '[ $OMPI_COMM_WORLD_RANK = 0 ] || echo $$ > pid; exec "$@"' -)
  rm -rf out pid
  LRD_FAULT=$(($1 - 1)):40:19 "${launch[@]}" "$LRD_PROGRAM" --config config.yaml --set training.max_steps=40 \
    --set training.save_steps=10 --set training.gradient_accumulation_steps=null --set training.global_batch_size=8 \
    2> log & job=$!
  for ((i = 0; i < 600; i++)); do
    ! grep -Eq '^State:[[:space:]]+T' "/proc/$(cat pid 2> /dev/null)/status" 2> /dev/null || break
    sleep 0.1
  done
  pid=$(cat pid)
}

# go_on CODE TEXT: 0, or any other exit code; a line of the log
go_on() {
  local code=0 begun=$SECONDS
  kill -CONT "$pid"
  wait $job || code=$?
  [ "$1" = 0 ] && [ $code = 0 ] || { [ "$1" != 0 ] && [ $code != 0 ] && [ $code != 75 ]; } ||
    fail "exit code $code: $(tail -3 log)"
  ((SECONDS - begun < 15)) || fail "took $((SECONDS - begun)) seconds"
  grep -Eq "$2" log || fail "does not say \"$2\": $(cat log)"
}

for ranks in 1 2; do
  cp model/model.safetensors weights
  begin $ranks
  truncate -s 100 model/model.safetensors
  go_on 1 "error: rank $((ranks - 1)) \(.*a file that is in use .* has become shorter"
  mv weights model/model.safetensors
  cp model/model.safetensors weights
  begin $ranks
  mv weights model/model.safetensors
  go_on 0 '^Done in'
done
begin 1
rm -r out
go_on 0 '^Done in'
[ -f out/adapter_model.safetensors ] && [ -d out/checkpoint-40 ] || fail "the output folder that was removed was not made again"
echo PASSED
