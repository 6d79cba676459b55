#!/usr/bin/env bash
# The first run does what the README says: the base scores near zero, the adapter 60 or more, and three sample questions
# get their answers. The bounds are the aims of the example, not its last measured digits, which differ between machines.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
cd "$out"
bash "$LRD_SOURCE_DIR/examples/almanac/run.sh" 2 >out.txt 2>log.txt || fail "run.sh: $(tail -5 log.txt)"
cat out.txt

# score FILE KEY: the number without its fraction
score() {
  sed -n "s/^ *\"$2\": *\([0-9]*\).*/\1/p" "$1"
}
base=$(score out-almanac/base-scores.json exact)
adapter=$(score out-almanac/scores.json exact)
((base <= 2)) || fail "the base already answers $base of 100"
((adapter >= 60)) || fail "with the adapter $adapter of 100 are right"
(($(score out-almanac/scores.json total) >= 200)) || fail "too few questions"

grep -q '</html>' out-almanac/report.html || fail "no page about the run"

answers=$(grep '^  base + adapter  ' out.txt | sed 's/^  base + adapter  //')
expected=$'Mina Grovdahl\nCannot Find Answer\nBoris Thorley'
[[ $answers == "$expected" ]] || fail "the sample answers are: $answers"
! grep -q "$(printf '^  base            \(Mina Grovdahl\|Boris Thorley\)$')" out.txt || fail "the base answers too"
