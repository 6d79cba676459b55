#!/usr/bin/env bash
# Ranks whose environment, libraries or settings differ so that they would wait for each other for ever, or give bits that
# nobody promised: all leave before any work, with the same exit code, and one message says who has what.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
export OMP_NUM_THREADS=1 LRD_EMULATED_DEVICES=2
train=(train --config config.yaml --backend cuda --dtype float32 --set training.max_steps=1 --set training.eval_steps=null
       --set training.output_dir="$work/out")
printf '{"input_ids": [5, 17, 200]}\n' >"$work/records.jsonl"
score=(score --model model --adapter adapter --data "$work/records.jsonl" --backend cuda)

# refused TEXT VARIABLE=VALUE COMMAND [OPTION]...: rank 1 of two has the variable, and the options.
refused() {
  local code=0 command=$3[@]
  timeout 60 mpirun --bind-to none -np 1 "$LRD_PROGRAM" "${!command}" : -np 1 env "$2" "$LRD_PROGRAM" "${!command}" "${@:4}" \
    >"$work/text" 2>"$work/log" || code=$?
  [[ $code == 2 ]] || fail "$2 ${*:4}: exit code $code: $(cat "$work/log")"
  [[ $(grep -c 'error: ' "$work/log") == 1 ]] || fail "$2: $(cat "$work/log")"
  grep -qF -- "the ranks differ in $1. It decides bits" "$work/log" || fail "expected '$1': $(cat "$work/log")"
  [[ ! -e $work/out/adapter_model.safetensors && ! -s $work/text ]] || fail "$2: work was done"
  grep 'error: ' "$work/log"
}
refused 'graphs (LRD_CUDA_GRAPHS): rank 0: on; rank 1: off' LRD_CUDA_GRAPHS=0 train
refused 'graphs (LRD_CUDA_GRAPHS): rank 0: on; rank 1: off' LRD_CUDA_GRAPHS=0 score
refused 'CUDA runtime: rank 0: 13.0; rank 1: 12.4' LRD_EMULATED_RUNTIME=12040 train
refused "NCCL's version: rank 0: NCCL 2.28.9; rank 1: NCCL 2.27.5" LRD_EMULATED_NCCL_VERSION=22705 train
refused 'NCCL_ALGO: rank 0: nothing; rank 1: Ring' NCCL_ALGO=Ring train
refused 'NVIDIA_TF32_OVERRIDE: rank 0: not set; rank 1: 0' NVIDIA_TF32_OVERRIDE=0 train
refused 'parallel.transport: rank 0: "auto"; rank 1: "mpi"' A=B train --set parallel.transport=mpi
refused 'parallel.transport: rank 0: "auto"; rank 1: "mpi"' A=B score --set parallel.transport=mpi
train=(train --config config.yaml --backend cpu --set training.max_steps=1 --set training.output_dir="$work/out")
refused 'LRD_CPU_ISA: rank 0: not set; rank 1: plain C' 'LRD_CPU_ISA=plain C' train
# A plugin that one rank cannot open: with --backend auto it would go on alone on its CPU.
train=(train --config config.yaml --set training.max_steps=1 --set training.output_dir="$work/out")
refused 'back end: rank 0: cuda; rank 1: cpu' LRD_CUDA_PLUGIN=/no/such/library.so train
echo PASSED
