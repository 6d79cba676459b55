#!/usr/bin/env bash
# docs/configuration.md is what the program knows; the files of configs/ are right, and say so without
# a warning; no document names a command, an option or a key that there is not.
# Arguments: the programs print_reference and check_config.
set -uo pipefail
print_reference=$1 check_config=$2
cd "$LRD_SOURCE_DIR"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*" >&2; failures=$((failures + 1)); }

"$print_reference" > "$work/reference" || fail "print_reference"
cmp "$work/reference" docs/configuration.md || fail "docs/configuration.md is out of date: see tests/app/print_reference.c"

for file in configs/*.yaml; do
  "$check_config" "$file" 2> "$work/log" || fail "$file: $(cat "$work/log")"
  [ ! -s "$work/log" ] || fail "$file is not quiet: $(cat "$work/log")"
done

# Every key: in squad.yaml or in the reference, each under its section.
"$check_config" --keys > "$work/keys"
[ "$(wc -l < "$work/keys")" -gt 50 ] || fail "the list of keys is short"
while IFS=. read -r section key; do
  awk -v s="$section:" -v k="$key:" '/^[a-z]/ { in_s = ($1 == s) } in_s && $1 == k { found = 1 } END { exit !found }' configs/squad.yaml ||
    awk -v s="## \`$section\`" -v k="| \`$key\` |" '/^## / { in_s = (index($0, s) == 1) } in_s && index($0, k) == 1 { found = 1 } END { exit !found }' docs/configuration.md ||
    fail "$section.$key stands neither in configs/squad.yaml nor in docs/configuration.md"
done < "$work/keys"

# Keys that documents write as section.key=value.
grep -ohE '\b(model|lora|data|training|parallel)\.[a-z_]+=' README.md CONTRIBUTING.md docs/*.md launch/* examples/* 2> /dev/null |
  sort -u | while read -r word; do
  grep -qxF "${word%=}" "$work/keys" || echo "$word"
done > "$work/unknown"
[ ! -s "$work/unknown" ] || fail "documents set keys that there are not: $(tr '\n' ' ' < "$work/unknown")"

# Commands and options that documents write behind the program's name.
{ "$LRD_PROGRAM" --help; for c in train plan inspect score generate eval merge tokenize tune download push info; do "$LRD_PROGRAM" $c --help; done; } > "$work/help" || fail "help"
grep -ohE 'lora-dist [a-z]+ --' README.md docs/*.md launch/* examples/* 2> /dev/null | awk '{ print $2 }' | sort -u |
  while read -r word; do grep -qE "^  $word " "$work/help" || echo "$word"; done > "$work/unknown"
[ ! -s "$work/unknown" ] || fail "documents name commands that there are not: $(tr '\n' ' ' < "$work/unknown")"

# squad.yaml spells out the tutorial's keys.
for key in r lora_alpha lora_dropout target_modules per_device_train_batch_size gradient_accumulation_steps max_steps \
  learning_rate warmup_steps prompt_template no_answer_text; do
  grep -qE "^ +$key:" configs/squad.yaml || fail "configs/squad.yaml does not show $key"
done

# says TEXT OPTION...: standard output and error together hold the text
says() {
  local said
  said=$("$LRD_PROGRAM" "${@:2}" 2>&1)
  [[ $said == *"$1"* ]] || fail "lora-dist ${*:2} does not say '$1': $said"
}
says tokenize --help
says lora_alpha train --help
says 'lora-dist ' --version
says 'bfloat16 products' info
says 'did you mean train' trian
says 'did you mean --config' --confg x

[ "$failures" = 0 ] || exit 1
echo PASSED
