#!/usr/bin/env bash
# The almanac's question set: its generator writes the same bytes again; its answers stand where it says; held-out and
# training passages share neither text nor a name that is kept for the held-out part; enough of everything.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
example=$LRD_SOURCE_DIR/examples/almanac
out=$(make_temporary)
remove_at_exit "$out"
export PYTHONDONTWRITEBYTECODE=1

python3 "$example/make/make_questions.py" "$out"
for name in train heldout; do
  cmp "$out/$name.json" "$example/$name.json" || fail "$name.json is not what make/make_questions.py writes"
done
bytes=$(du -sb "$example/model" | cut -f1)
((bytes <= 8000000)) || fail "the model takes $bytes bytes, more than 8 MB"

python3 - "$example" <<'END_PYTHON' || fail "the question set"
import json, re, sys
sys.path.insert(0, sys.argv[1] + "/make")
import words
held = {name for both in (words.FAMILIES, words.PLACES, words.RIVERS) for name in both[1]}
passages, questions, ids, named = {}, {}, [], {}
for part in "train", "heldout":
    data = json.load(open(f"{sys.argv[1]}/{part}.json"))["data"]
    passages[part] = [p["context"] for a in data for p in a["paragraphs"]]
    questions[part] = [q for a in data for p in a["paragraphs"] for q in p["qas"]]
    named[part] = held & set(re.findall(r"\w+", " ".join(passages[part] + [q["question"] for q in questions[part]])))
    for a in data:
        for p in a["paragraphs"]:
            for q in p["qas"]:
                ids.append(q["id"])
                assert q["is_impossible"] == (not q["answers"])
                for x in q["answers"]:
                    assert p["context"][x["answer_start"]:].startswith(x["text"]), q
    impossible = sum(q["is_impossible"] for q in questions[part]) / len(questions[part])
    assert 0.25 < impossible < 0.5, impossible
assert len(set(ids)) == len(ids)
assert len(questions["train"]) >= 1500 and len(questions["heldout"]) >= 200
assert not set(passages["train"]) & set(passages["heldout"])
assert not named["train"] and len(named["heldout"]) > 50, named
print({part: (len(passages[part]), len(questions[part])) for part in passages})
END_PYTHON
