#!/usr/bin/env bash
# Greedy continuations and SQuAD answers of the `squad` case, against transformers' generate(): token by token in
# float32, in several batch sizes, with the adapter and the base side by side; predictions and official scores on one
# and two ranks.
#
#   generate_golden_test.sh [PROMPTS BATCH BACKEND]    only continuations, of the first prompts
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
shared=$LRD_SOURCE_DIR/../shared/golden/squad
[[ -f $shared/eval.json ]] || skip "../shared/golden/squad is not here"
out=$(make_temporary)
remove_at_exit "$out"
cd "$shared"
prompts=1000 # all
variants=("1 cpu" "16 cpu" "5 cpu_checked")
if (($# > 0)); then
    prompts=$1
    variants=("$2 $3")
fi

python3 - "$out" "$prompts" <<'END'
import json, sys
g = json.load(open("expected.json"))["generate"]
n = int(sys.argv[2])
with open(sys.argv[1] + "/prompts.jsonl", "w") as f:
    for a, b in zip(g["adapter"][:n], g["base"][:n]):  # in turn, so that a batch holds both
        f.write(json.dumps({"input_ids": a["prompt_ids"], "adapter": "squad"}) + "\n")
        f.write(json.dumps({"input_ids": b["prompt_ids"], "adapter": None}) + "\n")
END
for variant in "${variants[@]}"; do
  read -r batch backend <<<"$variant"
  "$LRD_PROGRAM" generate --model model --adapter squad=adapter --prompt-file "$out/prompts.jsonl" --dtype float32 \
    --max-new-tokens 24 --batch-size "$batch" --backend "$backend" --output "$out/replies.jsonl" 2>"$out/log" ||
    fail "generate: $(tail -3 "$out/log")"
  python3 - "$out" "$prompts" <<'END' || fail "batch $batch on $backend: other tokens than generate()"
import json, sys
g = json.load(open("expected.json"))["generate"]
n = int(sys.argv[2])
want = [x["token_ids"] for pair in zip(g["adapter"][:n], g["base"][:n]) for x in pair]
have = [json.loads(x) for x in open(sys.argv[1] + "/replies.jsonl")]
assert len(have) == len(want)
for i, (h, w) in enumerate(zip(have, want)):
    assert h["adapter"] == ("squad" if i % 2 == 0 else None), (i, h["adapter"])
    assert h["token_ids"] == w, (i, h["token_ids"], w)
    assert h["finish_reason"] == ("eos" if w[-1] == 2 else "length"), (i, h)
print(f"{len(want)} continuations equal")
END
done
(($# == 0)) || exit 0

for who in adapter base; do
  flags=()
  [[ $who == base ]] || flags=(--adapter adapter)
  for ranks in 1 2; do
    mpirun -np "$ranks" --bind-to none "$LRD_PROGRAM" eval --config config.yaml --data eval-questions.json \
      --max-new-tokens 24 --output "$out/predictions.json" "${flags[@]}" >"$out/metrics.json" 2>"$out/log" ||
      fail "eval: $(tail -3 "$out/log")"
    python3 - "$out" "$who" <<'END' || fail "$who on $ranks ranks: other answers than the reference"
import json, sys
want = json.load(open("eval.json"))[sys.argv[2]]
have = json.load(open(sys.argv[1] + "/predictions.json"))
different = {k: (have.get(k), v) for k, v in want["predictions"].items() if have.get(k) != v}
assert not different and len(have) == len(want["predictions"]), different
metrics = json.load(open(sys.argv[1] + "/metrics.json"))
assert metrics == want["scores"], (metrics, want["scores"])
print(f"{sys.argv[2]}: {len(have)} answers equal, exact {metrics['exact']}, f1 {metrics['f1']}")
END
  done
done
echo PASSED
