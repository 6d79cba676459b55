#!/usr/bin/env bash
# The share of its time that a device waits for others. On emulated devices each piece of work takes a millisecond, so
# that a rank whose device is F times as slow makes the other's wait for (F - 1) / F of its time: by less more or less
# than one update's share, since what comes before the first update, and behind the last exchange, is less than an update.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 LRD_EMULATED_DEVICES=2
updates=6
write_model model 2 32 2 64
write_records train.jsonl 8 64
cat >config.yaml <<END
model: {name_or_path: model}
lora: {r: 4, target_modules: all-linear}
data: {format: tokenized, train_file: train.jsonl, cache_dir: data}
training: {per_device_train_batch_size: 1, global_batch_size: 4, max_steps: $updates, save_steps: 100, warmup_steps: 0}
END

# share NAME PACE-0 PACE-1 [SETTING]...: per mille of rank 0's time that its device waits.
share() {
  local program=("$LRD_PROGRAM" --config config.yaml --backend cuda --set training.output_dir="$1") setting
  for setting in "${@:4}"; do program+=(--set "$setting"); done
  mpirun --bind-to none -np 1 env LRD_EMULATED_PACE="$2" "${program[@]}" : -np 1 env LRD_EMULATED_PACE="$3" "${program[@]}" \
    2>"$1.log" || fail "$1: $(cat "$1.log")"
  sed -n 's/^Ranks waited for each other and the network in .* of the time of updates, their devices in \([0-9]*\)\.\([0-9]\) % (rank 0)$/\1\2/p' \
    "$1.log" | sed 's/^0*\(.\)/\1/'
}
near() { # NAME SHARE F
  awk -v share="$2" -v f="$3" -v n=$updates -v name="$1" 'BEGIN {
    want = 1000 * (f - 1) / f; print name ": the device waits for " share / 10 " % of its time, expected " want / 10 " %"
    exit !(share >= want - want / n && share <= want + want / n) }' || fail "$1"
}
near equal "$(share equal 1 1)" 1
near slow-other "$(share slow-other 1 4)" 4
near slow-own "$(share slow-own 4 1)" 1
cmp equal/adapter_model.safetensors slow-other/adapter_model.safetensors || fail "other bytes"
# Stages: a slower second one makes the first wait for most of its time, and is not waited for itself. What the log calls
# busy is by the same clocks: where the first waits for a share w, the two are busy for 1 - w / 2, but for the time in which
# the second waits for its first micro-batch, which is less than a quarter of the first one's work.
slow=$(share stages-slow 1 4 parallel.pipeline=2) own=$(share stages-own 4 1 parallel.pipeline=2)
busy=$(sed -n 's/^update .* busy \([0-9]*\) %.*/\1/p' stages-slow.log | tail -1)
echo "stages wait for $slow and $own per mille, busy for $busy %"
((slow > 500 && own < 125)) || fail "stages wait for $slow and $own per mille"
((busy * 10 >= 1000 - slow / 2 - 125 && busy * 10 <= 1000 - slow / 2 + 5)) || fail "busy for $busy %"
echo PASSED
