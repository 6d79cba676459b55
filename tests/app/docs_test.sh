#!/usr/bin/env bash
# The reference in docs/ is the one that the settings table prints; every file in configs/ is accepted;
# squad.yaml spells out the tutorial's keys.
set -uo pipefail
failures=0
"$1" | diff - "$LRD_SOURCE_DIR/docs/configuration.md" ||
  { echo "FAILED: docs/configuration.md is not what the table prints: run $1 > docs/configuration.md"; failures=1; }
cd "$LRD_SOURCE_DIR" || exit 1
for file in configs/*.yaml; do
  # A model that is not there is the first thing to be missed once the settings are accepted.
  message=$("$LRD_PROGRAM" inspect --config "$file" --set model.name_or_path=no-such-model 2>&1)
  grep -q 'no-such-model' <<< "$message" || { echo "FAILED $file: $message"; failures=1; }
done
for key in r lora_alpha lora_dropout target_modules per_device_train_batch_size gradient_accumulation_steps max_steps \
  learning_rate warmup_steps prompt_template no_answer_text; do
  grep -qE "^ +$key:" configs/squad.yaml || { echo "FAILED: configs/squad.yaml does not show $key"; failures=1; }
done
# says TEXT OPTION...: standard output and error together hold the text
says() {
  local said
  said=$("$LRD_PROGRAM" "${@:2}" 2>&1)
  [[ $said == *"$1"* ]] || { echo "FAILED: lora-dist ${*:2} does not say '$1': $said"; failures=1; }
}
says tokenize --help
says lora_alpha train --help
says 'lora-dist ' --version
says oneDNN info
says 'did you mean train' trian
says 'did you mean --config' --confg x
[ "$failures" = 0 ] && echo PASSED
exit "$failures"
