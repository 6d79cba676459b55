#!/usr/bin/env bash
# The tokenizer as a command: JSON strings to ids and back, against the ids in tests/golden/tokenizer.
set -euo pipefail
folder="$LRD_SOURCE_DIR/tests/golden/tokenizer"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The records are ASCII JSON, one a line: {"kind": ..., "text": "...", "ids": [...], "decoded": ...}
sed -nE 's/^.*"text": ?("([^"\\]|\\.)*"), ?"ids".*$/\1/p' "$folder/cases.jsonl" > "$work/texts"
sed -nE 's/^.*"ids": ?(\[[0-9, ]*\]).*$/\1/p' "$folder/cases.jsonl" | tr -d ' ' > "$work/ids"
n=$(wc -l < "$folder/cases.jsonl")
[ "$(wc -l < "$work/texts")" = "$n" ] && [ "$(wc -l < "$work/ids")" = "$n" ]
"$LRD_PROGRAM" tokenize --model "$folder" < "$work/texts" | tr -d ' ' > "$work/have"
cmp "$work/have" "$work/ids"
"$LRD_PROGRAM" tokenize --model "$folder" --decode < "$work/ids" > "$work/decoded"
"$LRD_PROGRAM" tokenize --model "$folder" < "$work/decoded" | tr -d ' ' > "$work/again"
[ "$(wc -l < "$work/again")" = "$n" ]
echo '[1, "x"]' | "$LRD_PROGRAM" tokenize --model "$folder" --decode 2> "$work/log" && exit 1
grep -q 'standard input:1' "$work/log"
echo "PASSED: $n records"
