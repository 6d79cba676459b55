#!/usr/bin/env bash
# One run, many layouts: the adapter's bytes must not depend on the number of ranks or threads, on an
# interruption, or on the backend's order of execution. Dropout and clipping are on.
set -euo pipefail
case_dir="$LRD_SOURCE_DIR/tests/golden/runs/$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$case_dir"
common=(--config config.yaml --set lora.lora_dropout=0.1 --set training.max_grad_norm=0.2
        --set training.gradient_accumulation_steps=null --set training.global_batch_size=14
        --set training.per_device_train_batch_size=2 --set training.max_steps=6 --set training.warmup_steps=2
        --set training.eval_steps=null --log-level warn)

# train NAME RANKS [OPTION...]
train() {
  local name=$1 ranks=$2
  shift 2
  local launch=()
  [ "$ranks" = 1 ] || launch=(mpirun -np "$ranks" --bind-to none)
  "${launch[@]}" "$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$work/$name" "$@"
}
sum() { sha256sum < "$work/$1/adapter_model.safetensors"; }
same() {
  if [ "$(sum "$1")" != "$reference" ]; then
    echo "FAILED: the adapter of '$1' differs from one rank's" >&2
    exit 1
  fi
  echo "same bytes: $1"
}

train one 1 --threads 1
reference=$(sum one)
for ranks in 2 3 4; do # 7 micro-batches: uneven shares
  OMP_NUM_THREADS=1 train "ranks$ranks" "$ranks"
  same "ranks$ranks"
done
for threads in 2 3 8; do
  train "threads$threads" 1 --threads "$threads"
  same "threads$threads"
done
train checked 1 --backend cpu_checked
same checked

# A run that stops after each update, and goes on somewhere else.
for step in 1 2 3 4 5; do
  cp -r "$work/one" "$work/resume$step"
  rm -rf "$work/resume$step"/checkpoint-* "$work/resume$step"/adapter_model.safetensors
  train "cut$step" 1 --set training.save_steps="$step" > /dev/null
  cp -r "$work/cut$step/checkpoint-$step" "$work/resume$step/"
  OMP_NUM_THREADS=1 train "resume$step" $((step % 3 + 1)) --set training.resume_from_checkpoint=true
  same "resume$step"
  cmp <(sed '/save_steps/d' "$work/resume$step/trainer_state.json") \
      <(sed '/save_steps/d' "$work/one/trainer_state.json")
done

# The dropout does something, and a changed seed changes it.
train seed 1 --set training.seed=99 --set training.data_seed=42
[ "$(sum seed)" != "$reference" ] || { echo "FAILED: another seed, the same adapter" >&2; exit 1; }

# Other micro-batches: the same losses to rounding (1e-6 relative), although dropout is on.
losses() { sed -n 's/.*"loss": \([0-9.e-]*\).*/\1/p' "$work/$1/trainer_state.json"; }
close() {
  paste <(losses one) <(losses "$1") | awk -v name="$1" '
    { d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > worst) worst = d }
    END { if (NR < 6 || worst > 1e-6) { print "FAILED: losses of " name " differ by " worst; exit 1 }
          print "same losses to " worst ": " name }'
}
train packed 1 --set training.max_tokens_per_micro_batch=60
close packed
train single 1 --set training.per_device_train_batch_size=1
close single

# The plain all-reduce is close, and need not be equal.
OMP_NUM_THREADS=1 train fast 2 --set parallel.reduction=fast
close fast
echo "PASSED"
