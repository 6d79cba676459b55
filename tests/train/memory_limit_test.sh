#!/usr/bin/env bash
# A model of bloom-1b7's shape under a limit of address space that one rank with all of it does not fit, and
# two ranks with half of it each do. Its float16 file is converted to bfloat16, so that weights take memory
# of their own beside the mapped file; one rank fits with a copy in bfloat16, which is mapped alone.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
[ "$(df --output=avail -k . | tail -n 1)" -gt $((8 << 20)) ] || skip "8 GiB of disk are needed"
[ "$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)" -gt $((9 << 20)) ] || skip "9 GiB of memory are needed"
python3 - <<'END'
import array, json, random
layers, hidden, heads, vocabulary = 24, 2048, 16, 250880
json.dump({"model_type": "bloom", "n_layer": layers, "hidden_size": hidden, "n_head": heads,
           "vocab_size": vocabulary, "torch_dtype": "float16"}, open("config.json", "w"))
norm = lambda name: [(name + ".weight", [hidden]), (name + ".bias", [hidden])]
linear = lambda name, n_in, n_out: [(name + ".weight", [n_out, n_in]), (name + ".bias", [n_out])]
tensors = [("word_embeddings.weight", [vocabulary, hidden])] + norm("word_embeddings_layernorm") + norm("ln_f")
for i in range(layers):
    tensors += [("h.%d.%s" % (i, name), shape) for name, shape in
                norm("input_layernorm") + linear("self_attention.query_key_value", hidden, 3 * hidden) +
                linear("self_attention.dense", hidden, hidden) + norm("post_attention_layernorm") +
                linear("mlp.dense_h_to_4h", hidden, 4 * hidden) + linear("mlp.dense_4h_to_h", 4 * hidden, hidden)]
header, at = {}, 0
for name, shape in tensors:
    n = shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 2 * n]}
    at += 2 * n
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
# Random float16 of either sign between 2^-7 and 2^-5, a piece of prime length over and over.
draw = random.Random(1)
piece = array.array("H", ((draw.getrandbits(1) << 15) | draw.randrange(8 << 10, 10 << 10) for _ in range(1048573))).tobytes()
with open("model.safetensors", "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    while at > 0:
        file.write(piece[:at])
        at -= len(piece)
with open("train.jsonl", "w") as file:
    for _ in range(8):
        file.write(json.dumps({"input_ids": [draw.randrange(vocabulary) for _ in range(12)]}) + "\n")
END
run=("$LRD_PROGRAM" --set model.name_or_path=. --set model.dtype=bfloat16 --set data.format=tokenized
     --set data.train_file=train.jsonl --set training.max_steps=1 --set training.warmup_steps=0
     --set training.per_device_train_batch_size=2 --set training.global_batch_size=4)
echo 'training: {seed: 1}' > config.yaml
run+=(--config config.yaml)
export OMP_NUM_THREADS=1
limit=$((13 << 19)) # KiB: the file's 3.2 GiB, and less than as much again for weights and programs

code=0
(ulimit -v $limit && "${run[@]}" --set training.output_dir=one 2> log) || code=$?
[ $code != 0 ] && grep -q 'memory' log || fail "one rank fits: $code $(tail -n 2 log)"
(ulimit -v $limit && mpirun -np 2 --bind-to none "${run[@]}" --set training.output_dir=two --set parallel.max_memory='[2500MiB,2500MiB]' 2> log) ||
  fail "two ranks: $(grep -E 'error|fail' log)"
grep -q '1 replica of 2 stages' log || fail "the planner did not spread the layers"
"${run[@]}" --set training.output_dir=free --log-level warn
cmp two/adapter_model.safetensors free/adapter_model.safetensors
cmp two/trainer_state.json free/trainer_state.json
(ulimit -v $limit && "${run[@]}" --set training.output_dir=copied --set parallel.offload_folder=copies \
  --set parallel.max_memory='[2500MiB]' 2> log) || fail "one rank with a copy: $(grep -E 'error|fail' log)"
cmp copied/adapter_model.safetensors free/adapter_model.safetensors
cmp copied/trainer_state.json free/trainer_state.json
echo PASSED
