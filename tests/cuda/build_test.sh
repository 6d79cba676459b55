#!/usr/bin/env bash
# The plugin compiles and links with nvcc for every target, and its kernels stay within the bounds of usage_test.sh. Where
# NCCL is, the plugin around it is built, and opens; where it is not, that is said.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc) || skip "no nvcc on PATH or in /usr/local/cuda/bin"
build=$LRD_BINARY_DIR/with-cuda
cd "$LRD_SOURCE_DIR"
configure() {
    CUDACXX=$nvcc cmake --preset cuda-release -B "$build" "$@" >"$build.log" 2>&1 || fail "$(tail -20 "$build.log")"
}
configure -DLRD_NCCL_LIBRARY= # as if it were not there
tr -s '\n ' ' ' <"$build.log" | grep -q 'NCCL (nccl.h, libnccl.so) was not found' || fail "nothing says that NCCL is not there"
cmake --build "$build" --target lrd_cuda >"$build.log" 2>&1 || fail "$(tail -40 "$build.log")"
bash tests/cuda/usage_test.sh "$build/kernels/CMakeFiles/lrd_cuda.dir/cuda"

configure -ULRD_NCCL_LIBRARY
if grep -q 'was not found' "$build.log"; then
    echo "no NCCL here: its plugin is not built"
    exit 0
fi
cmake --build "$build" --target lrd_nccl >"$build.log" 2>&1 || fail "$(tail -40 "$build.log")"
LRD_NCCL_PLUGIN=$build/src/app/liblrd_nccl.so "$LRD_PROGRAM" info >"$build.log"
grep '^GPU to GPU: NCCL 2\.' "$build.log" || fail "the plugin does not open: $(grep '^GPU to GPU' "$build.log")"
