#!/usr/bin/env bash
# Passes of a training through graphs, and the padding that makes micro-batches come again: the same adapter to the bit as
# without both, from records of many lengths, with dropout; and an update takes as many calls of the host whatever the
# number of layers is, once its sizes have come twice.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
cd "$out"
echo 'data: {format: tokenized}' >config.yaml
write_model one 1 32 2 64
write_model two 2 32 2 64
python3 - <<'END'
import json, random
r = random.Random(3)
for name, lengths in (("equal", [12] * 16), ("different", [r.randint(1, 60) for _ in range(16)])):
    with open(name + ".jsonl", "w") as f:
        for n in lengths:
            f.write(json.dumps({"input_ids": [r.randrange(64) for _ in range(n)]}) + "\n")
END
# train NAME MODEL DATA UPDATES [SETTING=VALUE]...: "launches" of the run.
train() {
    local settings=()
    for setting in model.name_or_path="$2" data.train_file="$3.jsonl" training.max_steps="$4" training.output_dir="$1" \
        "${@:5}"; do
        settings+=(--set "$setting")
    done
    LRD_EMULATED_COUNTS=$out/counts "$LRD_PROGRAM" --config config.yaml "${settings[@]}" --backend cuda --dtype float32 >text 2>log ||
        fail "$1: $(tail -3 log)"
    sed -n '$s/.*launches //p' counts
}
several=(lora.target_modules=all-linear lora.lora_dropout=0.1 training.per_device_train_batch_size=4
    training.gradient_accumulation_steps=2 training.num_train_epochs=3)
with=$(train with two different -1 "${several[@]}")
without=$(LRD_CUDA_GRAPHS=0 train without two different -1 "${several[@]}")
echo "records of many lengths: $with calls of the host with graphs, $without without"
cmp with/adapter_model.safetensors without/adapter_model.safetensors || fail "other bytes with graphs"
((with < without)) || fail "no calls are saved"
for model in one two; do
    few=$(train "few-$model" "$model" equal 3 training.per_device_train_batch_size=4)
    many=$(train "many-$model" "$model" equal 6 training.per_device_train_batch_size=4)
    echo "model $model: $(((many - few) / 3)) calls an update"
    calls+=($((many - few)))
done
((calls[0] == calls[1])) || fail "the number of calls depends on the number of layers: ${calls[*]}"
