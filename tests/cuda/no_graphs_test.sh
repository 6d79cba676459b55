#!/usr/bin/env bash
# Questions to a model that fits a device but for its graphs are answered without them, and say so; the same answers. The
# memory of an emulated device is what one chooses.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
write_model model 4 64 2 256
write_byte_tokenizer model/tokenizer.json
write_records records.jsonl 4 256
python3 - <<'END'
import json
questions = [{"id": f"q{i}", "question": "Who came?" + "?" * i, "is_impossible": False, "answers": [{"text": "Ann", "answer_start": 0}]} for i in range(4)]
json.dump({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "Ann came with Bob.", "qas": questions}]}]}, open("questions.json", "w"))
END
cat >config.yaml <<'END'
model: {name_or_path: model}
data: {format: squad, eval_file: questions.json}
END
python3 -c 'print("Who?\n" + 1500 * "x" + "\nWho?")' >lines
score() { program score --model model --data records.jsonl; }
generate() { program generate --model model --prompt-file records.jsonl --max-new-tokens 8; }
answer() {
  program eval --config config.yaml --max-new-tokens 8 --output answers.json || return
  cat answers.json
}
converse() { program generate --model model --max-new-tokens 8 <lines; }
program() { timeout 100 "$LRD_PROGRAM" "$@" --backend cuda; }

# on MIB COMMAND: leaves $code, text and log
on() {
  code=0
  LRD_EMULATED_MEMORY=$(($1 << 20)) "$2" >text 2>log || code=$?
  ((code != 124)) || fail "$2 on $1 MiB hangs"
}
stays() { ((code == 0)) && ! grep -q '^device_map' log; } # all of the model on the device
without() { grep -q '^No room for graphs beside the run' log; }

for command in score generate answer; do
  on 128 "$command"
  stays && ! without || fail "$command on a large device: $code $(cat log)"
  cp text expected
  # The least that is enough without graphs: what they would take is more than the difference to the next MiB.
  least=1 most=128
  while ((least < most)); do
    LRD_CUDA_GRAPHS=0 on $(((least + most) / 2)) "$command"
    if stays; then most=$(((least + most) / 2)); else least=$(((least + most) / 2 + 1)); fi
  done
  on "$least" "$command"
  stays && without || fail "$command on $least MiB, which are enough without graphs: $code $(cat log)"
  cmp text expected || fail "$command: other answers without graphs"
  on $((least - 1)) "$command"
  ! stays || fail "$command on $((least - 1)) MiB, which are not enough"
  echo "$command: without graphs on $least MiB"
done

# A longer prompt than before takes the memory of the graphs, and not all of it.
on 128 converse
stays && ! without || fail "prompts on a large device: $code $(cat log)"
cp text expected
head -1 lines >short && mv lines all && mv short lines
least=1 most=128 # for a short one, with graphs
while ((least < most)); do
  on $(((least + most) / 2)) converse
  if stays && ! without; then most=$(((least + most) / 2)); else least=$(((least + most) / 2 + 1)); fi
done
mv all lines
on "$least" converse
stays && without || fail "a longer prompt on $least MiB: $code $(cat log)"
cmp text expected || fail "other answers to a longer prompt"
echo "without graphs for a longer prompt on $least MiB"
echo PASSED
