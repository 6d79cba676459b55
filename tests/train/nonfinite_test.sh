#!/usr/bin/env bash
# Updates whose gradient is not finite are skipped, by all ranks alike: neither parameters nor Adam's clock nor the
# schedule move. So many in a row end the run, counted over an interruption too.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
command -v h5dump > /dev/null || skip "no h5dump"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
export OMP_NUM_THREADS=1
# After one update at this rate the parameters are finite, and nothing that is computed with them.
options=(--config config.yaml --set training.learning_rate=1e30 --set training.warmup_steps=0 --set training.max_steps=12
         --set training.save_steps=1 --set training.gradient_accumulation_steps=null --set training.global_batch_size=8
         --set training.resume_from_checkpoint=true)

# run NAME RANKS MOST CODE [FAULT]: with so many skipped updates in a row borne
run() {
  local code=0 launch=()
  (($2 == 1)) || launch=(mpirun -np "$2" --bind-to none)
  LRD_FAULT=${5:-0:0:9} "${launch[@]}" "$LRD_PROGRAM" "${options[@]}" --set training.output_dir="$work/$1" \
    --set training.max_nonfinite_steps="$3" 2> "$work/log" || code=$?
  [ $code = "$4" ] || fail "$1: exit code $code, expected $4: $(tail -3 "$work/log")"
}
# attribute NAME STEP KEY
attribute() {
  h5dump -a "$3" "$work/$1/checkpoint-$2/state.h5" | sed -n 's/.*(0): //p'
}

for ranks in 1 2; do
  run "all$ranks" $ranks 25 0
  [ "$(grep -c 'was skipped' "$work/log")" = 11 ] || fail "expected 11 skipped updates"
  for step in 2 7 12; do
    cmp "$work/all$ranks/checkpoint-1/adapter_model.safetensors" "$work/all$ranks/checkpoint-$step/adapter_model.safetensors" ||
      fail "a skipped update changed the adapter"
    [ "$(attribute all$ranks $step adam_t)" = 1 ] && [ "$(attribute all$ranks $step bad_in_a_row)" = $((step - 1)) ] ||
      fail "update $step: adam_t $(attribute all$ranks $step adam_t), bad_in_a_row $(attribute all$ranks $step bad_in_a_row)"
  done
  run "some$ranks" $ranks 4 1
  grep -q 'error: .*update 5: .* not finite in 4 updates in a row' "$work/log" || fail "not ended at the fourth: $(tail -3 "$work/log")"
  [ -d "$work/some$ranks/checkpoint-4" ] || fail "the checkpoint before is not there"
done
cmp "$work/all1/adapter_model.safetensors" "$work/all2/adapter_model.safetensors" || fail "two ranks are not one"

# Interrupted among them, the run goes on counting. How many meetings the start takes is not this test's business.
at=0
for ((n = 20; n < 100 && at < 2; n += 2)); do
  rm -rf "$work/cut"
  run cut 1 4 75 0:$n:15
  at=$(ls "$work/cut" 2> /dev/null | sed -n 's/^checkpoint-//p' | sort -n | tail -1)
  at=${at:-0}
done
((at >= 2 && at <= 4)) || fail "interrupted at update $at, expected one of 2 to 4"
run cut 1 4 1
grep -q 'error: .*update 5: .* not finite in 4 updates in a row' "$work/log" || fail "the count began anew: $(tail -3 "$work/log")"
echo PASSED
