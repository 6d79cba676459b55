#!/usr/bin/env bash
# Every C, C++ and CUDA file is as clang-format 14 writes it.
set -euo pipefail
cd "${LRD_SOURCE_DIR:-$(dirname "$0")/..}"
tool=$(command -v clang-format-14 || command -v clang-format || true)
if [[ -z $tool ]] || ! "$tool" --version | grep -q 'version 14\.'; then
    echo "SKIPPED: no clang-format 14"
    exit 77
fi
find src kernels tests bench -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print0 | sort -z |
    xargs -0 "$tool" --dry-run -Werror
