#!/usr/bin/env bash
# The aim for memory (docs/gpu.md), which a plan answers: bloom-3b, 4 x 512 tokens, float16, nothing computed again, in at most
# 10^10 bytes over all categories, on an emulated device of an H200's size. Its products give zeros: nothing here depends on them.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 LRD_EMULATED_MEMORY=$((139 << 30))
mkdir bloom-3b
cat >bloom-3b/config.json <<'END'
{"model_type": "bloom", "n_layer": 30, "hidden_size": 2560, "n_head": 32, "vocab_size": 250880, "torch_dtype": "float16"}
END
# A micro-batch may have the four long ones; that the usual one is short saves time where passes are timed.
python3 - <<'END'
import json
with open("train.jsonl", "w") as file:
    for i in range(1000):
        file.write(json.dumps({"input_ids": [(i + k) % 1000 for k in range(512 if i < 4 else 2)]}) + "\n")
END
cat >config.yaml <<'END'
model: {name_or_path: bloom-3b}
lora: {r: 8, target_modules: [query_key_value]}
data: {format: tokenized, train_file: train.jsonl, cache_dir: data}
training: {per_device_train_batch_size: 4, max_steps: 1, warmup_steps: 0}
END
"$LRD_PROGRAM" plan --config config.yaml --backend cuda >planned 2>log || fail "plan: $(cat log)"
grep -q '^1 replica of 1 stage, computed again: nothing' planned || fail "something is computed again: $(cat planned)"
grep -q "^device_map = {'': 0}" planned || fail "not all is on the device: $(cat planned)"
awk '/^  [a-z].* MiB$/ { row = $0; sub(/ +[0-9.]+ MiB$/, "", row); mib[row] = $(NF - 1) }
    END {
      if (mib["  activations"] < 3000 || mib["  graphs, at most"] < 100) { print "not 4 x 512 tokens, or no graphs"; exit 1 }
      bytes = mib["  in all"] * 1048576
      printf "%.3f GB\n", bytes / 1e9
      exit !(bytes > 0 && bytes <= 1e10)
    }' planned || fail "more than 10 GB: $(cat planned)"
echo PASSED
