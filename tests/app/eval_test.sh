#!/usr/bin/env bash
# lora-dist eval on files of answers: standard output is byte for byte what the official script prints
# (tests/golden/squad_score); what is missing and what is refused.
set -uo pipefail
golden=$LRD_SOURCE_DIR/tests/golden/squad_score
shared=$LRD_SOURCE_DIR/../shared/data/squad
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
fail() { echo "FAILED: $*" >&2; failures=$((failures + 1)); }

# prints FILE WORD...: exactly this, quietly
prints() {
  "$LRD_PROGRAM" eval "${@:2}" > stdout 2> stderr || fail "eval ${*:2}: code $?: $(cat stderr)"
  cmp stdout "$1" || fail "eval ${*:2}"
  [ ! -s stderr ] || fail "eval ${*:2} is not quiet: $(cat stderr)"
}
# refuses CODE TEXT WORD...: one line of error, nothing on standard output
refuses() {
  local code=0
  "$LRD_PROGRAM" eval "${@:3}" > stdout 2> stderr || code=$?
  [ "$code" = "$1" ] || fail "eval ${*:3}: code $code, expected $1"
  [ ! -s stdout ] || fail "eval ${*:3} printed $(cat stdout)"
  [[ $(cat stderr) == "error: "*"$2"* && $(wc -l < stderr) = 1 ]] || fail "eval ${*:3} does not say '$2': $(cat stderr)"
}

for name in small hostile answered unanswerable twice; do
  prints "$golden/$name.txt" --data "$golden/$name.json" --predictions "$golden/$name.predictions.json"
done
small=(--data "$golden/small.json" --predictions "$golden/small.predictions.json")
probs=(--na-prob-file "$golden/small.na_probs.json")
prints "$golden/small.na.txt" "${small[@]}" "${probs[@]}"
prints "$golden/small.na_0.5.txt" "${small[@]}" "${probs[@]}" --na-prob-thresh 0.5
prints "$golden/small.none_-1.txt" "${small[@]}" --na-prob-thresh=-1

# A question without a prediction counts as answered with nothing, and is named.
echo '{"2": "", "x": "bell"}' > few.json
"$LRD_PROGRAM" eval --data "$golden/answered.json" --predictions few.json > stdout 2> stderr || fail "missing prediction: code $?"
grep -q '"exact": 0.0,' stdout || fail "missing prediction: $(cat stdout)"
grep -q '^warning: few.json: no prediction for 1 of 2 questions, the first is .*answered.json: data\[0\].paragraphs\[0\].qas\[0\] (id 1); they count as answered with ""$' stderr ||
  fail "missing prediction: $(cat stderr)"

echo '{"1": "", "2": ""}' > said.json
answered=(--data "$golden/answered.json")
echo '{"1": "bell", "2": 7}' > number.json;  refuses 2 'number.json: the prediction for "2" is a number, expected a string' "${answered[@]}" --predictions number.json
echo '[]' > list.json;                       refuses 2 'list.json is a list, expected an object' "${answered[@]}" --predictions list.json
: > empty.json;                              refuses 2 'empty.json is empty' "${answered[@]}" --predictions empty.json
refuses 2 'none.json' "${answered[@]}" --predictions none.json
refuses 2 'is missing, expected a list' --data few.json --predictions few.json
echo '{"data": []}' > no.json;               refuses 2 'no.json has no questions' --data no.json --predictions few.json
echo '{"1": 0.5}' > prob.json;               refuses 2 'prob.json: no probability for 1 of 2 questions' "${answered[@]}" --predictions said.json --na-prob-file prob.json
refuses 2 'with --predictions P.json' "${answered[@]}"
refuses 2 '--output does nothing beside --predictions' "${answered[@]}" --predictions said.json --output x
refuses 2 '--do-sample does nothing beside --predictions' "${answered[@]}" --predictions said.json --do-sample
find . -name '*partial*' -o -name '*tmp*' | grep -q . && fail "something half-written is left"

# Rank 0 does it, once.
mpirun -np 2 --bind-to none "$LRD_PROGRAM" eval "${small[@]}" > stdout 2> stderr || fail "two ranks: code $?: $(cat stderr)"
cmp stdout "$golden/small.txt" || fail "two ranks"

if [ -f "$shared/dev-v2.0.json" ] && [ -f "$shared/predictions-BERT.json" ]; then
  cat > published <<'TEXT'
{
  "exact": 78.74168280973637,
  "f1": 81.77528052374723,
  "total": 11873,
  "HasAns_exact": 74.10593792172739,
  "HasAns_f1": 80.18183293833508,
  "HasAns_total": 5928,
  "NoAns_exact": 83.36417157275021,
  "NoAns_f1": 83.36417157275021,
  "NoAns_total": 5945
}
TEXT
  prints published --data "$shared/dev-v2.0.json" --predictions "$shared/predictions-BERT.json"
else
  echo "SKIPPED: SQuAD files are not beside the checkout"
fi

[ "$failures" = 0 ] || { echo "$failures cases failed"; exit 1; }
echo PASSED
