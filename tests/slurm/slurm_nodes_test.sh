#!/usr/bin/env bash
# Two nodes of two ranks each: the adapter has the bytes of a run on one rank.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
source "$(dirname "$0")/slurm_support.sh"
need_slurm
out=$(make_temporary)
trap 'stop_slurm "$out/slurm"; rm -rf "$out"' EXIT
start_slurm "$out/slurm" n1 n2
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
# Both nodes are this host: shared memory between what Open MPI takes for hosts would be wrong.
export LRD_PROGRAM OMPI_MCA_btl=self,tcp OMPI_MCA_pml=ob1 OMPI_MCA_btl_tcp_if_include=lo

common=(--config config.yaml --set training.gradient_accumulation_steps=null --set training.global_batch_size=16)
"$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$out/one" 2>"$out/log" || fail "$(tail -3 "$out/log")"
job=$(sbatch --parsable --nodes=2 --ntasks-per-node=2 --time=10 --output="$out/srun.log" \
  "$LRD_SOURCE_DIR/launch/squad.sbatch" "${common[@]}" --set training.output_dir="$out/srun")
wait_until 100 "the job is complete" job_is "$job" COMPLETED || fail "$(tail -20 "$out/srun.log")"
grep -q 'on 4 ranks' "$out/srun.log" || fail "not 4 ranks: $(tail -20 "$out/srun.log")"
cmp "$out/one/adapter_model.safetensors" "$out/srun/adapter_model.safetensors" || fail "other bytes under srun"
