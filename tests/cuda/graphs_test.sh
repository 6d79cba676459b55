#!/usr/bin/env bash
# Generation and scores through graphs: the same as without, with adapter and base side by side, sampled, prompts that come
# and go, on one rank and with the layers on two; and as many calls of the host as predicted.
#
#   graphs_test.sh DTYPE PART...
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
export OMP_NUM_THREADS=1
cp -r "$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm/"{model,adapter} "$out"
cd "$out"
write_byte_tokenizer model/tokenizer.json
python3 - <<'END_OF_PYTHON'
import json, random
r = random.Random(5)
with open("side.jsonl", "w") as f:
    for adapter in "own", None, "own", None, None:
        f.write(json.dumps({"input_ids": [5, 17, 200, 33, 4, 91], "adapter": adapter}) + "\n")
with open("many.jsonl", "w") as f:
    for _ in range(24):
        f.write(json.dumps({"input_ids": [r.randrange(256) for _ in range(r.randint(3, 40))], "adapter": "own"}) + "\n")
with open("records.jsonl", "w") as f:
    for _ in range(10):
        f.write(json.dumps({"input_ids": [r.randrange(256) for _ in range(r.randint(2, 40))]}) + "\n")
END_OF_PYTHON
# run RANKS COMMAND ARGUMENT...: "launches" of the run, of all ranks
run() {
    local launch=()
    (($1 == 1)) || launch=(mpirun -np "$1" --bind-to none)
    rm -f "$out/counts"
    LRD_EMULATED_COUNTS=$out/counts "${launch[@]}" "$LRD_PROGRAM" "$2" --model model --backend cuda "${@:3}" \
        2>log || fail "$*: $(grep error log || tail -3 log)"
    awk '{ n += $NF } END { print n }' "$out/counts"
}
# generate NAME RANKS TOKENS PROMPTS [ARGUMENT]...
generate() {
    run "$2" generate --adapter own=adapter --prompt-file "$4.jsonl" --max-new-tokens "$3" --output "$1-$3.jsonl" \
        --do-sample --temperature 1.5 --seed 1 "${@:5}"
}

# Of n tokens the first comes with the prompts, the second op by op, L calls, and every other one is one call.
single_tokens() { # DTYPE
    local with12 with20 without12 without20 step n
    with12=$(generate with 1 12 side --dtype "$1") with20=$(generate with 1 20 side --dtype "$1")
    without12=$(LRD_CUDA_GRAPHS=0 generate without 1 12 side --dtype "$1")
    without20=$(LRD_CUDA_GRAPHS=0 generate without 1 20 side --dtype "$1")
    step=$(((without20 - without12) / 8))
    echo "$1: a step: $step calls of the host, $(((with20 - with12) / 8)) with a graph"
    for n in 12 20; do
        cmp "with-$n.jsonl" "without-$n.jsonl" || fail "$1: other tokens with graphs"
    done
    ((step > 20 && with20 - with12 == 8)) || fail "$((with20 - with12)) calls for 8 tokens"
    ((without20 - with20 == 18 * (step - 1))) || fail "$with20 calls with graphs, $without20 without"
    # Sequences that come and go: a graph for each number of rows.
    generate few 1 20 side --batch-size 2 --dtype "$1" >text
    LRD_CUDA_GRAPHS=0 generate few-without 1 20 side --batch-size 2 --dtype "$1" >text
    cmp few-20.jsonl few-without-20.jsonl || fail "$1: other tokens with graphs in small batches"
    cmp few-20.jsonl with-20.jsonl || fail "$1: other tokens in small batches"
}

# As many adapters as requests, all of them on all linears: the graph of a step is larger than one of a training may be.
adapters() { # DTYPE
    local i with12 with20 args=()
    cp -r "$LRD_SOURCE_DIR/tests/golden/runs/all-linear" linear
    cd linear
    write_byte_tokenizer model/tokenizer.json
    for i in {1..12}; do
        args+=(--adapter "a$i=adapter")
        echo "{\"input_ids\": [5, 17, 20, 33, 4, $i], \"adapter\": \"a$i\"}"
    done >prompts.jsonl
    with12=$(run 1 generate "${args[@]}" --prompt-file prompts.jsonl --max-new-tokens 12 --output with-12 --dtype "$1")
    with20=$(run 1 generate "${args[@]}" --prompt-file prompts.jsonl --max-new-tokens 20 --output with-20 --dtype "$1")
    LRD_CUDA_GRAPHS=0 run 1 generate "${args[@]}" --prompt-file prompts.jsonl --max-new-tokens 20 --output without-20 --dtype "$1" >text
    cmp with-20 without-20 || fail "$1: other tokens of twelve adapters with graphs"
    echo "$1: twelve adapters: $(((with20 - with12) / 8)) calls of the host for a step"
    ((with20 - with12 == 8)) || fail "$((with20 - with12)) calls for 8 tokens of twelve adapters"
    cd ..
}

# Steps with prompts and single tokens in them, filled up so that they come again.
prompts() { # DTYPE
    local with without
    with=$(generate many 1 4 many --batch-size 4 --dtype "$1")
    without=$(LRD_CUDA_GRAPHS=0 generate many-without 1 4 many --batch-size 4 --dtype "$1")
    echo "$1: prompts that come and go: $with calls of the host, $without without graphs"
    cmp many-4.jsonl many-without-4.jsonl || fail "$1: other tokens where prompts come and go"
    ((3 * with < without)) || fail "no calls are saved"
}

# One call for each rank and token, one more for each rank where a message goes from device to device. (Below 14 tokens the
# memory for a step is so small that weights of 16 bit take more calls to load.)
spread() { # DTYPE
    local transport with14 with20 calls settings
    generate alone 1 20 side --dtype "$1" >text
    generate alone 1 4 many --dtype "$1" --batch-size 4 >text
    for transport in mpi nccl; do
        settings=(--dtype "$1" --set parallel.pipeline=2 --set "parallel.transport=$transport")
        with14=$(generate spread 2 14 side "${settings[@]}") with20=$(generate spread 2 20 side "${settings[@]}")
        generate spread 2 4 many --batch-size 4 "${settings[@]}" >text
        echo "$1, two ranks, $transport: $(((with20 - with14) / 6)) calls for a token"
        for n in 4 20; do
            cmp "alone-$n.jsonl" "spread-$n.jsonl" || fail "$1, $transport: other tokens on two ranks"
        done
        calls=$([[ $transport == mpi ]] && echo 12 || echo 24)
        ((with20 - with14 == calls)) || fail "$((with20 - with14)) calls for 6 tokens on two ranks"
    done
}

scores() { # DTYPE
    local ranks with without args=(score --adapter adapter --data records.jsonl --dtype "$1" --logits-out)
    LRD_CUDA_GRAPHS=0 run 1 "${args[@]}" without.logits >without.score
    for ranks in 1 2; do
        run "$ranks" "${args[@]}" with.logits --set "parallel.pipeline=$ranks" >with.score
        echo "$1, $ranks ranks: scores in $(tail -1 with.score) calls of the host, $(tail -1 without.score) without graphs"
        cmp with.logits without.logits || fail "$1: other logits with graphs"
        cmp <(head -n -1 with.score) <(head -n -1 without.score) || fail "$1: other scores with graphs"
        (($(tail -1 with.score) < $(tail -1 without.score))) || fail "no calls are saved"
    done
}

for part in "${@:2}"; do
    "$part" "$1"
done
