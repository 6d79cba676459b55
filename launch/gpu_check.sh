#!/usr/bin/env bash
# Everything that a machine with a GPU can say about the CUDA back end, in about ten minutes, into one report. Every part
# has a limit of time and is written down as it comes; a part that fails does not stop the next.
#
#   launch/gpu_check.sh [--no-build] [REPORT]    REPORT: gpu_report.txt unless named
#
# In this order: does it run (the device, equal rows at different numbers of rows); are the ops right; are the training
# runs right; are two ranks on one GPU right; what do memcheck and racecheck say, where compute-sanitizer is installed; how
# long does each op take beside the least that it must do.
set -uo pipefail
cd "$(dirname "$0")/.."
build=$PWD/build/cuda-release
if [[ ${1:-} == --no-build ]]; then
    shift
else
    bash launch/setup.sh --tests --cuda || exit 1
fi
report=${1:-gpu_report.txt}
export LRD_CUDA_PLUGIN=$build/src/app/liblrd_cuda.so
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec > >(tee "$report") 2>&1
failed=()

part() { # seconds, title, command...
    local seconds=$1 title=$2 began=$SECONDS code=0
    shift 2
    echo
    echo "==== $title"
    timeout "$seconds" "$@" || code=$?
    echo "---- $title: exit code $code after $((SECONDS - began)) s"
    ((code == 0)) || failed+=("$title")
}
tests() { ctest --test-dir "$build" --output-on-failure --no-tests=error "$@"; }
export -f tests
export build

command -v nvidia-smi >/dev/null && nvidia-smi
if ! "$build/src/app/lora-dist" info | tee /dev/stderr | grep -q '^backend cuda: device '; then
    echo "No CUDA device: nothing to check"
    exit 77
fi
part 60 "equal rows" bash -c 'tests -R ^ops_rows_gpu'
part 120 "ops" bash -c 'tests -R "^ops_.*_gpu"'
part 120 "training runs" bash -c 'tests -R "^golden_.*_gpu"'
part 60 "two ranks on one device" mpirun -np 2 --bind-to none "$build/tests/comm/test_reduce" --backend cuda
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        for family in norm head attention update; do
            part 60 "$tool of $family" compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$build/tests/kernels/test_ops_$family" --backend cuda
        done
    done
else
    echo "compute-sanitizer is not installed: no memcheck, no racecheck"
fi
while read -r model hidden heads; do
    part 60 "ops of $model" "$build/bench/op_speed" --backend cuda --hidden "$hidden" --heads "$heads"
done <<END
bloom-560m 1024 16
bloom-3b 2560 32
bloom-7b1 4096 32
END
echo
if ((${#failed[@]} > 0)); then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "All parts passed"
