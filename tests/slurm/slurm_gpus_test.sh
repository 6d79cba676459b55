#!/usr/bin/env bash
# A GPU for each task (--gpus-per-task=1): every rank sees one, another one, and takes it. Without that they all see the
# first alone and are refused. The GPUs are emulated (tests/cuda).
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
source "$(dirname "$0")/slurm_support.sh"
need_slurm
out=$(make_temporary)
trap 'stop_slurm "$out/slurm"; rm -rf "$out"' EXIT
start_slurm "$out/slurm" alone
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
export LRD_PROGRAM LRD_EMULATED_DEVICES=1

submit() { # NAME [SBATCH OPTION...]
  sbatch --parsable --ntasks-per-node=2 --time=10 --output="$out/$1.log" "${@:2}" "$LRD_SOURCE_DIR/launch/squad.sbatch" \
    --config config.yaml --backend cuda --set training.max_steps=1 --set training.output_dir="$out/$1"
}
job=$(submit own --gpus-per-task=1)
wait_until 100 "the job is complete" job_is "$job" COMPLETED || fail "$(tail -20 "$out/own.log")"
grep -q 'on 2 ranks; .*emulated device' "$out/own.log" || fail "not on two devices: $(tail -20 "$out/own.log")"
job=$(submit shared)
wait_until 100 "the job is refused" job_is "$job" FAILED || fail "$(tail -20 "$out/shared.log")"
grep 'ranks, 0 and 1 among them, have the device' "$out/shared.log" || fail "no reason: $(tail -20 "$out/shared.log")"
