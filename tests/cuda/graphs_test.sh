#!/usr/bin/env bash
# Single tokens through graphs: the same tokens as without, adapter and base side by side, sampled; and as many calls of
# the host as predicted. Of n tokens the first comes with the prompts, the second op by op, L calls, and every other one
# is one call.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
cp -r "$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm/"{model,adapter} "$out"
cd "$out"
write_byte_tokenizer model/tokenizer.json
for adapter in '"own"' null '"own"' null null; do
    echo '{"input_ids": [5, 17, 200, 33, 4, 91], "adapter": '"$adapter"'}'
done >"$out/prompts.jsonl"
# generate NAME TOKENS [ARGUMENT]...: "launches" of the run.
generate() {
    LRD_EMULATED_COUNTS=$out/counts "$LRD_PROGRAM" generate --model model --adapter own=adapter --backend cuda \
        --prompt-file "$out/prompts.jsonl" --max-new-tokens "$2" --output "$out/$1-$2.jsonl" --dtype float32 \
        --do-sample --temperature 1.5 "${@:3}" 2>"$out/log" || fail "$1 $2: $(tail -3 "$out/log")"
    sed -n '$s/.*launches //p' "$out/counts"
}
with12=$(generate with 12) with20=$(generate with 20)
without12=$(LRD_CUDA_GRAPHS=0 generate without 12) without20=$(LRD_CUDA_GRAPHS=0 generate without 20)
step=$(((without20 - without12) / 8))
echo "a step: $step calls of the host, $(((with20 - with12) / 8)) with a graph"
for n in 12 20; do
    cmp "$out/with-$n.jsonl" "$out/without-$n.jsonl" || fail "other tokens with graphs"
done
((step > 20 && with20 - with12 == 8)) || fail "$((with20 - with12)) calls for 8 tokens"
((without20 - with20 == 18 * (step - 1))) || fail "$with20 calls with graphs, $without20 without"
# Sequences that come and go: a graph for each number of rows.
generate few 20 --batch-size 2 >"$out/text"
LRD_CUDA_GRAPHS=0 generate few-without 20 --batch-size 2 >"$out/text"
cmp "$out/few-20.jsonl" "$out/few-without-20.jsonl" || fail "other tokens with graphs in small batches"
cmp "$out/few-20.jsonl" "$out/with-20.jsonl" || fail "other tokens in small batches"
