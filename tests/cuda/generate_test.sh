#!/usr/bin/env bash
# Greedy continuations of the `squad` case on the emulated device, adapter and base side by side in one batch, against
# transformers' generate(), token by token: the first prompts of tests/app/generate_golden_test.sh.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
shared=$LRD_SOURCE_DIR/../shared/golden/squad
[[ -f $shared/expected.json ]] || skip "../shared/golden/squad is not here"
out=$(make_temporary)
remove_at_exit "$out"
cd "$shared"
python3 - "$out" <<'END'
import json, sys
g = json.load(open("expected.json"))["generate"]
with open(sys.argv[1] + "/prompts.jsonl", "w") as f:
    for a, b in zip(g["adapter"][:3], g["base"][:3]):
        f.write(json.dumps({"input_ids": a["prompt_ids"], "adapter": "squad"}) + "\n")
        f.write(json.dumps({"input_ids": b["prompt_ids"], "adapter": None}) + "\n")
END
"$LRD_PROGRAM" generate --model model --adapter squad=adapter --prompt-file "$out/prompts.jsonl" --dtype float32 \
    --max-new-tokens 24 --batch-size 4 --backend cuda --output "$out/replies.jsonl" 2>"$out/log" ||
    fail "generate: $(tail -3 "$out/log")"
python3 - "$out" <<'END' || fail "other tokens than generate()"
import json, sys
g = json.load(open("expected.json"))["generate"]
want = [x["token_ids"] for pair in zip(g["adapter"][:3], g["base"][:3]) for x in pair]
have = [json.loads(x)["token_ids"] for x in open(sys.argv[1] + "/replies.jsonl")]
assert have == want, (have, want)
print(len(want), "continuations equal")
END
