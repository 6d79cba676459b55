#!/usr/bin/env bash
# Replicas of unequal speed: the slower one is given fewer micro-batches from the end of the first window of measured updates
# on (train/shares.h), the others wait for it less, and every byte is that of one rank. On emulated devices, whose clocks say
# how long work takes whatever else this machine does.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
write_model model 2 32 2 64
write_records train.jsonl 50 64 # of an epoch's nine updates the last one has two micro-batches, the others six
cat >config.yaml <<END
model: {name_or_path: model}
lora: {r: 4, lora_dropout: 0.1, target_modules: all-linear}
data: {format: tokenized, train_file: train.jsonl, cache_dir: data}
training: {per_device_train_batch_size: 1, global_batch_size: 6, max_steps: 10, save_steps: 8, warmup_steps: 0,
           learning_rate: 1.0e-2, logging_steps: 1}
END

# train NAME "PACE..." [SETTING]...: a rank for each pace
train() {
  local program=("$LRD_PROGRAM" --config config.yaml --backend cuda --set training.output_dir="$1") setting pace launch=()
  for setting in "${@:3}"; do program+=(--set "$setting"); done
  for pace in $2; do launch+=(: -np 1 env LRD_EMULATED_PACE="$pace" "${program[@]}"); done
  mpirun --bind-to none "${launch[@]:1}" 2>"$1.log" || fail "$1: $(cat "$1.log")"
}
same() { # NAME AS
  local file
  for file in adapter_model.safetensors trainer_state.json checkpoint-8/adapter_model.safetensors; do
    cmp "$1/$file" "$2/$file" || fail "$file of $1 is not that of $2"
  done
}
moved() { # NAME SLOW SHARES: once, to these
  sed -n 's/^\(Replica .*\) takes .* micro-batches of an update they compute \([0-9 ]*\) from here on, .*/\1: \2/p' "$1.log" >said
  [[ $(cat said) == "Replica $2: $3" ]] || fail "$1: shares are \"$(cat said)\", expected \"Replica $2: $3\": $(cat "$1.log")"
  [[ $(grep -c "^{\"event\": \"shares\", .*\"micro_batches\": \[${3// /, }\], " "$1/run.jsonl") == 1 ]] ||
    fail "$1: run.jsonl: $(grep shares "$1/run.jsonl")"
  echo "$1: $(grep ' from here on, ' "$1.log")"
}
even() { ! grep -q ' from here on, ' "$1.log" || fail "$1: $(grep ' from here on, ' "$1.log")"; }
# Per mille of rank 0's time that its device waits.
waits() {
  sed -n 's/^Ranks waited .*, their devices in \([0-9]*\)\.\([0-9]\) % (rank 0)$/\1\2/p' "$1.log" | sed 's/^0*\(.\)/\1/'
}

train one 1
train even '1 2' parallel.shares=even
train slow '1 2'
even even
moved slow 1 '4 2'
same even one
same slow one
# The fast device is done in half the time of the other's three micro-batches: it waits for 50 %. With four and two nobody does,
# in three of the last four updates: (6 * 3 + 1) / (6 * 6 + 3 * 4 + 2) = 38 %.
echo "the fast device waits for $(waits even) per mille with even shares, $(waits slow) with others"
(($(waits even) > 460 && $(waits slow) < 420)) || fail "it waits for $(waits even) and $(waits slow) per mille"

train first '3 1 1'
moved first 0 '1 3 2'
same first one
train staged '2 1' parallel.transport=mpi
moved staged 0 '2 4'
same staged one
train grid '1 1 2 2' parallel.pipeline=2
moved grid 1 '4 2'
same grid one
# A run goes on from a checkpoint that was made with such shares, on another layout.
cp -r slow resumed
rm -r resumed/checkpoint-10 resumed/*.*
train resumed '1 1 1' training.resume_from_checkpoint=true
same resumed one

# One micro-batch for each replica: what would help is said once.
train few '1 2' training.global_batch_size=2 training.max_steps=7
even few
[[ $(grep -c '^Replica 1 takes .* training.max_tokens_per_micro_batch makes more' few.log) == 1 ]] || fail "no advice: $(cat few.log)"
echo PASSED
