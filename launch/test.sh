#!/usr/bin/env bash
# Builds and tests.
#
#   launch/test.sh [--long]
#
# Without --long: the quick set. With it: the tests that carry the label `long` instead.
set -euo pipefail
cd "$(dirname "$0")/.."
filter=(-LE '^long$')
for option in "$@"; do
    case $option in
    --long) filter=(-L '^long$') ;;
    -h | --help)
        sed -n '2,6s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "test.sh: unknown option $option (--long)" >&2
        exit 2
        ;;
    esac
done

bash launch/setup.sh --tests

build=build/cpu-release
log=$build/Testing/Temporary/LastTest.log
report=$(mktemp)
trap 'rm -f "$report"' EXIT
rm -f "$log"
code=0
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" "${filter[@]}" </dev/null 2>&1 |
    tee "$report" || code=$?

# What did not run, and why: whole tests (exit code 77) as ctest lists them, parts of tests as their output says.
tests=$(grep -cE 'Test +#[0-9]+: .*\*\*\*Skipped' "$report" || true)
parts=0
reasons=
if [[ -f $log ]]; then
    parts=$(grep -acE '^\[  SKIPPED \] [A-Za-z0-9_]+$' "$log" || true)
    reasons=$(grep -ahoE 'SKIPPED: .*' "$log" | sort | uniq -c || true)
fi
echo
echo "Skipped: $tests whole tests, $parts parts of tests"
[[ -z $reasons ]] || echo "$reasons"
grep -E '^[0-9]+% tests passed' "$report" || true
exit "$code"
