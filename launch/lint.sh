#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the program's sources; any finding fails.
#
#   launch/lint.sh [BUILD_FOLDER] [FILE...]
#
# BUILD_FOLDER holds compile_commands.json (default: build/cpu-release, which launch/setup.sh --tests makes).
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/cpu-release
if (($# > 0)) && [[ -d $1 ]]; then
    build=$1
    shift
fi
command -v clang-tidy >/dev/null || { echo "lint.sh: no clang-tidy: launch/setup.sh --tests installs it" >&2; exit 1; }
[[ -f $build/compile_commands.json ]] || { echo "lint.sh: no $build/compile_commands.json: run launch/setup.sh" >&2; exit 1; }
if (($# == 0)); then
    mapfile -t files < <(find src kernels -name '*.c' | sort)
else
    files=("$@")
fi
printf '%s\0' "${files[@]}" |
    xargs -0 -n 4 -P "$(nproc)" clang-tidy -p "$build" --quiet --warnings-as-errors='*' \
        --extra-arg=-Wno-unknown-warning-option
