#!/usr/bin/env bash
# lora-dist generate: prompts of a file and interactive ones, several adapters at once, samples that depend on seed and
# number alone, and what is refused.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
cp -r "$LRD_SOURCE_DIR/tests/golden/runs/all-linear/model" "$LRD_SOURCE_DIR/tests/golden/runs/all-linear/adapter" .
chmod -R u+w .

write_byte_tokenizer model/tokenizer.json

# Two more adapters, which speak in other ways: `adapter` with other B.
python3 - <<'END_PYTHON'
import array, json, shutil, struct
whole = open("adapter/adapter_model.safetensors", "rb").read()
n = struct.unpack("<Q", whole[:8])[0]
header = json.loads(whole[8:8 + n])
for name, factor in ("loud", 40.0), ("other", -40.0):
    data = array.array("f", whole[8 + n:])
    for key, tensor in header.items():
        if "lora_B" in key:
            begin, end = (x // 4 for x in tensor["data_offsets"])
            for i in range(begin, end):
                data[i] *= factor
    shutil.copytree("adapter", name)
    open(name + "/adapter_model.safetensors", "wb").write(whole[:8 + n] + data.tobytes())
END_PYTHON

generate() { "$LRD_PROGRAM" generate --model model --log-level warn "$@"; }
# refuses TEXT WORD...: exit code 2, one line that says this, nothing on standard output
refuses() {
  local code=0
  generate "${@:2}" >stdout 2>stderr </dev/null || code=$?
  [[ $code == 2 ]] || fail "${*:2}: code $code, expected 2"
  [[ $(wc -l <stderr) == 1 && $(cat stderr) == "error: "*"$1"* ]] || fail "${*:2} does not say '$1': $(cat stderr)"
  [[ ! -s stdout ]] || fail "${*:2} printed $(cat stdout)"
}

# ---- a file of prompts
three=(--adapter loud --adapter second=other --adapter adapter --max-new-tokens 9)
cat >prompts.jsonl <<'LINES'
{"prompt": "Where is it?", "adapter": "loud"}
{"prompt": "Where is it?", "adapter": null}
{"input_ids": [5, 6, 7, 8, 9, 10, 11, 12], "adapter": "second"}
{"prompt": "Where is it?", "adapter": "second"}
{"prompt": "", "adapter": "adapter"}
LINES
generate "${three[@]}" --prompt-file prompts.jsonl >together
for batch in 1 2 16; do
  generate "${three[@]}" --prompt-file prompts.jsonl --batch-size $batch --threads 1 >cut
  cmp together cut || fail "batches of $batch"
done
[[ $(wc -l <together) == 5 && $(sort -u together | wc -l) == 5 ]] || fail "the adapters all say the same: $(cat together)"
# One adapter alone, without naming it, says what it says among others.
i=0
for adapter in loud "" other other adapter; do
  i=$((i + 1))
  sed -n ${i}p prompts.jsonl | sed 's/, "adapter": [^}]*//' >one.jsonl
  generate ${adapter:+--adapter "$adapter"} --max-new-tokens 9 --prompt-file one.jsonl --output one
  cmp <(sed 's/"adapter": [^,]*, //' one) <(sed -n ${i}p together | sed 's/"adapter": [^,]*, //') || fail "line $i alone"
done
generate --adapter loud --max-new-tokens 9 --prompt 'Where is it?' >text
python3 -c 'import json; print(json.loads(open("together").readline())["text"])' | cmp - text || fail "--prompt"

# ---- samples: of seed and number of the request, not of its company
sampled=("${three[@]}" --prompt-file prompts.jsonl --do-sample --temperature 1.5 --top-k 200 --top-p 0.99)
generate "${sampled[@]}" --seed 7 >seven
generate "${sampled[@]}" --seed 7 --batch-size 1 --threads 1 >cut
cmp seven cut || fail "the same seed in batches of 1"
generate "${sampled[@]}" --seed 8 >eight
[[ $(comm -12 <(sort seven) <(sort eight) | wc -l) == 0 ]] || fail "two seeds say the same"
sed -n 1p prompts.jsonl | tee -a prompts.jsonl >again
generate "${sampled[@]}" --seed 7 >cut
[[ $(head -5 cut) == "$(cat seven)" && $(tail -1 cut) != "$(head -1 cut)" ]] || fail "a request more changes the others"
sed -i '$d' prompts.jsonl

# ---- what ends an answer
python3 - <<'END_PYTHON' >stop
import json
text = json.loads(open("together").readlines()[0])["text"]
print(text[3:5], end="")
END_PYTHON
generate "${three[@]}" --prompt-file prompts.jsonl --stop "$(cat stop)" >stopped
python3 - <<'END_PYTHON' || fail "--stop"
import json
stop = open("stop").read()
for a, b in zip(map(json.loads, open("together")), map(json.loads, open("stopped"))):
    at = a["text"].find(stop)
    assert b["text"] == (a["text"] if at < 0 else a["text"][:at]), (a, b)
    assert (b["finish_reason"] == "stop") == (at >= 0), (a, b)
assert json.loads(open("stopped").readline())["finish_reason"] == "stop"
END_PYTHON

# ---- interactive: a broken adapter, a wrong name or command is refused, and the session goes on
cp -r adapter broken && truncate -s -9 broken/adapter_model.safetensors
mkdir binary && cp adapter/adapter_config.json binary && echo x >binary/adapter_model.bin
"$LRD_PROGRAM" generate --model model --max-new-tokens 9 >said 2>log <<'LINES' || fail "the session: $(cat log)"
/load loud
/load second=other
Where is it?
/load broken
/load binary
/load nowhere
/adapter loud
Where is it?
/adapter second
/adapter loud
/adapter second
Where is it?
/adapter third
/unload second
Where is it?
/base
/list
/unload third
/frob
/adapter
/quit
Where is it?
LINES
texts() { python3 -c 'import json,sys; [print(json.loads(open("together").readlines()[int(i)])["text"]) for i in sys.argv[1:]]' "$@"; }
cmp <(head -4 said) <(texts 1 0 3 1) || fail "the session's answers: $(cat said)"
grep -qE '^  loud +r 4 +8 modules +0.05 MiB  loud$' said || fail "/list: $(cat said)"
grep -q '1 adapters*, 0.05 MiB beside a base of 0.96 MiB' said || fail "/list: $(cat said)"
[[ $(wc -l <said) == 7 ]] || fail "more than four answers and a list: $(cat said)"
for text in 'broken/adapter_model.safetensors' 'binary/adapter_model.bin is not supported' 'no adapter folder nowhere' \
  'no adapter "third"; loaded are loud, second' 'no adapter "third"; loaded are loud' 'no command /frob' \
  'usage: /adapter NAME'; do
  grep -q "^error: .*$text" log || fail "the session does not say '$text': $(cat log)"
done
[[ $(grep -c '^error' log) == 7 ]] || fail "the session: $(grep '^error' log)"
# A swap names another adapter. Less than a millisecond, in the best of four: another process may run in between.
best=$(sed -n 's/^adapter .* (\([0-9.]*\) ms)$/\1/p' log | sort -g | head -1)
python3 -c "import sys; sys.exit(not float('$best') < 1)" || fail "a swap took $best ms"

# ---- 32 adapters side by side
many=()
for i in $(seq 32); do
  many+=(--adapter "a$i=$([[ $((i % 2)) == 0 ]] && echo loud || echo other)")
  echo "{\"prompt\": \"Where is it?\", \"adapter\": \"a$i\"}"
done >many.jsonl
generate "${many[@]}" --max-new-tokens 9 --prompt-file many.jsonl >many
for i in $(seq 32); do
  cmp <(sed -n ${i}p many | sed 's/"adapter": [^,]*, //') \
    <(sed -n $([[ $((i % 2)) == 0 ]] && echo 1 || echo 4)p together | sed 's/"adapter": [^,]*, //') || fail "adapter $i of 32"
done
echo /list | generate "${many[@]}" --max-new-tokens 9 >list
grep -q '32 adapters, 1.50 MiB beside a base of 0.96 MiB' list || fail "32 adapters: $(tail -2 list)"

# ---- refusals
line() { echo "$1" >line.jsonl; }
line '{"prompt": "a", "adapter": "third"}';      refuses 'line.jsonl:1: no adapter "third"; loaded are loud' --adapter loud --prompt-file line.jsonl
line '{"prompt": "a", "adapter": 3}';            refuses 'line.jsonl:1: "adapter" is a number' --prompt-file line.jsonl
line '{"prompt": "a", "input_ids": [1]}';        refuses 'line.jsonl:1: expected one of "prompt" and "input_ids"' --prompt-file line.jsonl
line '{}';                                       refuses 'line.jsonl:1: expected one of' --prompt-file line.jsonl
line '{"prompt": 7}';                            refuses 'line.jsonl:1: "prompt" is a number, expected a string' --prompt-file line.jsonl
line '{"input_ids": [300]}';                     refuses 'line.jsonl:1' --prompt-file line.jsonl
line '{"input_ids": []}';                        refuses 'line.jsonl:1' --prompt-file line.jsonl
line '{"prompt": "a"';                           refuses 'line.jsonl:1' --prompt-file line.jsonl
: >line.jsonl;                                   refuses 'line.jsonl' --prompt-file line.jsonl
refuses 'nothing.jsonl' --prompt-file nothing.jsonl
refuses 'broken/adapter_model.safetensors' --adapter broken --prompt a
refuses 'adapter_model.bin is not supported' --adapter binary --prompt a
refuses 'two are named "loud"' --adapter loud --adapter loud=other --prompt a
refuses '--do-sample' --temperature 0.5 --prompt a
refuses '--prompt' --prompt a --prompt-file prompts.jsonl
mv model/tokenizer.json . && refuses 'tokenizer.json' --prompt a
find . -name '*partial*' | grep -q . && fail "something half-written is left"
echo PASSED
