#!/usr/bin/env bash
# Layers spread over ranks on the emulated device, a device for each: a golden case with dropout and clipping leaves the bytes
# of one rank on the same device, on 2 and 3 stages and on 2 x 2; and score, generate and eval print what one rank prints, and
# what it prints without graphs.
#
#   stages_test.sh train CASE [SETTING=VALUE]...   one device, then each layout
#   stages_test.sh ask RANKS...
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
export OMP_NUM_THREADS=1 LRD_EMULATED_DEVICES=4

# on RANKS OPTION...: the program on the emulated device
on() {
    local launch=()
    (($1 == 1)) || launch=(mpirun -np "$1" --bind-to none)
    "${launch[@]}" "$LRD_PROGRAM" "${@:2}" --backend cuda
}

train() { # CASE [SETTING=VALUE]...
    local case=$LRD_SOURCE_DIR/tests/golden/runs/$1 set=() layout name ranks
    [[ -d $case ]] || case=$LRD_SOURCE_DIR/../shared/golden/$1
    [[ -f $case/config.yaml ]] || skip "../shared/golden/$1 is not here"
    for setting in lora.lora_dropout=0.1 training.max_grad_norm=0.2 training.per_device_train_batch_size=1 \
        training.gradient_accumulation_steps=null training.warmup_steps=0 "${@:2}"; do
        set+=(--set "$setting")
    done
    cd "$case"
    for layout in "1 1 one" "2 2 two" "3 3 three" "4 2 grid"; do
        read -r ranks stages name <<<"$layout"
        on "$ranks" --config config.yaml "${set[@]}" --set parallel.pipeline="$stages" \
            --set training.output_dir="$out/$name" 2>"$out/log" || fail "$name: $(cat "$out/log")"
        grep -q "emulated device" "$out/log" || fail "$name did not run on the device: $(cat "$out/log")"
        for file in adapter_model.safetensors trainer_state.json; do
            cmp "$out/one/$file" "$out/$name/$file" || fail "$name: another $file"
        done
    done
    grep -q '"grad_norm": [0-9.e-]*[1-9]' "$out/one/trainer_state.json" || fail "nothing was learned"
}

ask() { # RANKS...
    local almanac=$LRD_SOURCE_DIR/examples/almanac n ranks kind
    cd "$out"
    cat >config.yaml <<END
model: {name_or_path: $almanac/model}
lora: {r: 4, target_modules: [query_key_value]}
data: {train_file: $almanac/heldout.json, eval_file: $almanac/heldout.json, max_length: 60, on_too_long: truncate_context}
training: {max_steps: 1, per_device_train_batch_size: 1, learning_rate: 0.01, warmup_steps: 0, output_dir: adapter}
END
    "$LRD_PROGRAM" --config config.yaml --backend cpu 2>log || fail "no adapter: $(cat log)"
    echo '{"input_ids": [5, 900, 31, 7, 2000, 11, 4]}' >records.jsonl
    printf '%s\n' '{"prompt": "Where is the bell?", "adapter": "a"}' '{"prompt": "Who keeps it?", "adapter": null}' >prompts.jsonl
    for n in 1 "$@" plain; do # plain: one rank, without graphs
        ranks=${n/plain/1}
        [[ $n != plain ]] || export LRD_CUDA_GRAPHS=0
        local stages=(--set "parallel.pipeline=$ranks") model=(--model "$almanac/model")
        on "$ranks" score "${model[@]}" --adapter adapter --data records.jsonl --logits-out "$n.logits" "${stages[@]}" \
            >"$n.score" 2>log || fail "score on $n: $(cat log)"
        on "$ranks" generate "${model[@]}" --adapter a=adapter --prompt-file prompts.jsonl --max-new-tokens 4 "${stages[@]}" \
            >"$n.generate" 2>log || fail "generate on $n: $(cat log)"
        on "$ranks" eval --config config.yaml --adapter adapter --limit 2 --max-new-tokens 3 --output "$n.predictions" \
            "${stages[@]}" >"$n.eval" 2>log || fail "eval on $n: $(cat log)"
        for kind in score logits generate predictions eval; do
            [[ -s $n.$kind ]] && cmp "1.$kind" "$n.$kind" || fail "$n stages: another $kind"
        done
    done
}

"$@"
echo PASSED
