#!/usr/bin/env bash
# Runs a compile command of nvcc and keeps what ptxas reports (-Xptxas=-v) in OBJECT.usage; everything else is printed.
set -uo pipefail
object=/dev/null
for ((i = 1; i < $#; i++)); do
    [[ ${!i} == -o ]] && next=$((i + 1)) && object=${!next}
done
report=$("$@" 2>&1)
code=$?
is_usage='^ptxas info|bytes stack frame|Compiling entry function|Function properties'
printf '%s\n' "$report" | grep -E "$is_usage" >"$object.usage"
printf '%s\n' "$report" | grep -vE "$is_usage|^$" >&2
exit "$code"
