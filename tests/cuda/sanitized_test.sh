#!/usr/bin/env bash
# The CUDA back end on the emulated device under AddressSanitizer and UndefinedBehaviorSanitizer, its kernels and what the host
# does: builds both once more, with the suites of ops, streams and graphs, and runs these.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
build=$LRD_BINARY_DIR-sanitized # beside it: launch/bundle.sh takes what tests a build folder has
export CTEST_OUTPUT_ON_FAILURE=1
targets=(lrd_cuda_emulated test_emulation test_streams test_graphs)
for family in norm linear attention cached head merge products rows sample single update; do
    targets+=("test_ops_$family")
done
cmake -G Ninja -S "$LRD_SOURCE_DIR" -B "$build" -DLRD_SANITIZE=address,undefined -DBUILD_TESTING=ON >"$build.log" 2>&1 || fail "$(tail -20 "$build.log")"
cmake --build "$build" --target "${targets[@]}" >"$build.log" 2>&1 || fail "$(tail -40 "$build.log")"
ctest --test-dir "$build" --no-tests=error -R '^(ops_.*_cuda(_bare)?|streams_cuda(_early)?|graphs_cuda|cuda_emulation)$' </dev/null
