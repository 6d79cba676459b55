"""write_model.py FOLDER LAYERS HIDDEN HEADS VOCABULARY [float16]: a BLOOM of repeatable random weights, config.json and
model.safetensors. float32: small numbers around those of a fresh model. float16, for models of gigabytes: numbers of either
sign between 2^-7 and 2^-5, a piece of prime length over and over."""

import array
import json
import os
import random
import sys

folder, (layers, hidden, heads, vocabulary) = sys.argv[1], map(int, sys.argv[2:6])
dtype = sys.argv[6] if len(sys.argv) > 6 else "float32"


def norm(name):
    return [(name + ".weight", [hidden], 1.0), (name + ".bias", [hidden], 0.0)]


def linear(name, n_in, n_out):
    return [(name + ".weight", [n_out, n_in], 0.0), (name + ".bias", [n_out], 0.0)]


tensors = [("word_embeddings.weight", [vocabulary, hidden], 0.0)] + norm("word_embeddings_layernorm") + norm("ln_f")
for i in range(layers):
    tensors += [("h.%d.%s" % (i, name), shape, mean) for name, shape, mean in
                norm("input_layernorm") + linear("self_attention.query_key_value", hidden, 3 * hidden) +
                linear("self_attention.dense", hidden, hidden) + norm("post_attention_layernorm") +
                linear("mlp.dense_h_to_4h", hidden, 4 * hidden) + linear("mlp.dense_4h_to_h", 4 * hidden, hidden)]


def count(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


draw = random.Random(1)
if dtype == "float32":
    piece = array.array("f", (mean + draw.uniform(-0.1, 0.1) for _, shape, mean in tensors for _ in range(count(shape))))
else:
    piece = array.array("H", ((draw.getrandbits(1) << 15) | draw.randrange(8 << 10, 10 << 10) for _ in range(1048573)))
piece = piece.tobytes()
header, at = {}, 0
for name, shape, _ in tensors:
    end = at + count(shape) * (4 if dtype == "float32" else 2)
    header[name] = {"dtype": "F32" if dtype == "float32" else "F16", "shape": shape, "data_offsets": [at, end]}
    at = end
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "config.json"), "w") as file:
    json.dump({"model_type": "bloom", "n_layer": layers, "hidden_size": hidden, "n_head": heads, "vocab_size": vocabulary,
               "torch_dtype": dtype}, file)
with open(os.path.join(folder, "model.safetensors"), "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    while at > 0:
        file.write(piece[:at])
        at -= len(piece)
