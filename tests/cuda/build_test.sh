#!/usr/bin/env bash
# The plugin compiles and links with nvcc for every target, and its kernels stay within the bounds of usage_test.sh.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc) || skip "no nvcc on PATH or in /usr/local/cuda/bin"
build=$LRD_BINARY_DIR/with-cuda
cd "$LRD_SOURCE_DIR"
CUDACXX=$nvcc cmake --preset cuda-release -B "$build" >"$build.log" 2>&1 || fail "$(tail -20 "$build.log")"
cmake --build "$build" --target lrd_cuda >"$build.log" 2>&1 || fail "$(tail -40 "$build.log")"
bash tests/cuda/usage_test.sh "$build/kernels/CMakeFiles/lrd_cuda.dir/cuda"
