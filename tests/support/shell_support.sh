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

# The same in memory where that can be: for tests that flush many files to the device, which is not what they test.
make_fast_temporary() {
  if [[ -d /dev/shm && -w /dev/shm ]]; then TMPDIR=/dev/shm make_temporary; else make_temporary; fi
}
