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

# write_model FOLDER LAYERS HIDDEN HEADS VOCABULARY [float16]: a BLOOM of repeatable random weights.
write_model() {
  python3 "$LRD_SOURCE_DIR/tests/support/write_model.py" "$@"
}

# write_records FILE RECORDS VOCABULARY: so many random records of 12 tokens.
write_records() {
  python3 - "$@" <<'END'
import json, random, sys
draw = random.Random(2)
with open(sys.argv[1], "w") as file:
    for _ in range(int(sys.argv[2])):
        file.write(json.dumps({"input_ids": [draw.randrange(int(sys.argv[3])) for _ in range(12)]}) + "\n")
END
}

# The same in memory where that can be: for tests that flush many files to the device, which is not what they test.
make_fast_temporary() {
  if [[ -d /dev/shm && -w /dev/shm ]]; then TMPDIR=/dev/shm make_temporary; else make_temporary; fi
}
