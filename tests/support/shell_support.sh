# What shell tests share: source it first.

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# The whole test does not run, and why.
skip() {
  echo "SKIPPED: $*"
  exit 77
}

# A fresh folder, removed at exit.
make_temporary() {
  mktemp -d "${TMPDIR:-/tmp}/lrd-test.XXXXXX"
}
remove_at_exit() {
  trap "rm -rf '$1'" EXIT
}

# find_python MODULES FOLDER PACKAGE...: sets `python` to one that can import these modules (a list with commas): LRD_HF_PYTHON,
# or that of a virtual environment in the build folder, made with these packages when it is wanted first. Skips the test
# where neither can be.
find_python() {
  local modules=$1 folder=$LRD_BINARY_DIR/$2
  python=${LRD_HF_PYTHON:-$folder/bin/python}
  "$python" -c "import $modules" 2>/dev/null || {
    python=$folder/bin/python
    (
      flock 9 # of tests that run at once the others wait
      "$python" -c "import $modules" 2>/dev/null ||
        { python3 -m venv "$folder" && "$python" -m pip install -q "${@:3}"; } >"$folder.log" 2>&1
    ) 9>"$folder.lock" || skip "no Python here has $modules, and it cannot be installed"
  }
}
hf_packages=(torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors numpy)

# Writes a tokenizer.json whose 256 tokens are the bytes.
write_byte_tokenizer() {
  python3 - "$1" <<'END'
import json, sys
letters = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
letters += [chr(256 + i) for i in range(256 - len(letters))]
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None,
           "decoder": level, "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(letters)}, "merges": []}},
          open(sys.argv[1], "w"))
END
}

# write_model FOLDER LAYERS HIDDEN HEADS VOCABULARY: a BLOOM of repeatable random weights.
write_model() {
  mkdir -p "$1"
  python3 - "$@" <<'END'
import array, json, random, sys
folder, (layers, hidden, heads, vocabulary) = sys.argv[1], map(int, sys.argv[2:])
json.dump({"model_type": "bloom", "n_layer": layers, "hidden_size": hidden, "n_head": heads, "vocab_size": vocabulary,
           "torch_dtype": "float32"}, open(folder + "/config.json", "w"))
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
draw, header, data = random.Random(1), {}, array.array("f")
for name, shape, mean in tensors:
    begin, n = 4 * len(data), shape[0] * (shape[1] if len(shape) > 1 else 1)
    data.extend(mean + draw.uniform(-0.1, 0.1) for _ in range(n))
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, 4 * len(data)]}
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(folder + "/model.safetensors", "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    data.tofile(file)
END
}

# The same in memory where that can be: for tests that flush many files to the device, which is not what they test.
make_fast_temporary() {
  if [[ -d /dev/shm && -w /dev/shm ]]; then TMPDIR=/dev/shm make_temporary; else make_temporary; fi
}
