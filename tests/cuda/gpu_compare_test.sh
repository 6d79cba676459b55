#!/usr/bin/env bash
# bench/gpu_compare.py with a tiny model on the CPU.
#
#   gpu_compare_test.sh alone   lora-dist, under a python3 that may lack torch
#   gpu_compare_test.sh peft    beside PEFT: the losses of both agree, and those of unequal work do not
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
compare() { # PYTHON OPTION...
    HF_HUB_OFFLINE=1 "$1" "$LRD_SOURCE_DIR/bench/gpu_compare.py" --models tiny --cases 2x64 packed:256 --backend cpu --threads 1 \
        --folder "$out" "${@:2}" >"$out/log" 2>&1 || fail "$(tail -5 "$out/log")"
}

alone() {
    compare python3 --dtypes float32 float16 --out "$out/alone" --budget 60 --generate 1 3
    python3 - "$out/alone" <<'END' || fail "alone: $(cat "$out/log")"
import json, sys
report = json.load(open(sys.argv[1] + ".json"))
assert len(report["rows"]) == 4, report["rows"]
assert all(r["ours"]["tokens_per_s"] > 0 and len(r["ours"]["loss"]) == 8 for r in report["rows"])
assert all(r["ours"]["loss"][-1] < r["ours"]["loss"][0] for r in report["rows"]), "nothing was learned"
assert set(report["ceilings"]["tflops"]) == {"float32", "float16"}, "no ceilings without torch"
for plan in (r["ours"]["planned_mib"] for r in report["rows"]):
    rows = [mib for row, mib in plan.items() if row != "in all"]
    assert len(rows) > 5 and abs(sum(rows) - plan["in all"]) <= 0.05 * len(plan), plan
steps = report["generation"]
assert [(g["dtype"], g["sequences"]) for g in steps] == [("float32", 1), ("float32", 3)] and all(g["ms"] > 0 for g in steps), steps
table = open(sys.argv[1] + ".md").read()
assert "| tiny | float16 | packed:256 |" in table and "## Ops of tiny, float32, 2x64" in table, table
END
    PYTHONPATH=$LRD_SOURCE_DIR/bench python3 -B - "$out" <<'END' || fail "where models are made"
import shutil, sys
from collections import namedtuple
from gpu_compare import place_for
rooms = {"/dev/shm": 64 << 20, ".": 64 << 20}  # as containers have it
shutil.disk_usage = lambda place: namedtuple("usage", "free")(rooms.get(place, 1 << 34))
assert place_for(None, 6e9) not in rooms and place_for(sys.argv[1], 6e9) == sys.argv[1]
assert place_for(None, 1e12) is None and place_for(sys.argv[1], 1e12) is None
END
    compare python3 --dtypes float32 --out "$out/late" --budget 0
    grep -q "left out, 0 s are spent" "$out/late.md" || fail "no word of what was left out: $(cat "$out/late.md")"
}

peft() {
    find_python torch,transformers,peft hf-venv "${hf_packages[@]}"
    compare "$python" --dtypes bfloat16 --out "$out/both"
    PYTHONPATH=$LRD_SOURCE_DIR/bench "$python" -B - "$out/both" <<'END' || fail "beside PEFT: $(cat "$out/log")"
import json, sys
from gpu_compare import compare
rows = json.load(open(sys.argv[1] + ".json"))["rows"]
assert [r["agreement"]["agree"] for r in rows] == [True, True]
print([r["agreement"] for r in rows])
a, b = rows
assert not compare(a["ours"], b["theirs"], "bfloat16", 2)["agree"], "other batches agree"
late = {k: v[1:] + v[-1:] if isinstance(v, list) else v for k, v in a["theirs"].items()}
assert not compare(a["ours"], late, "bfloat16", 2)["agree"], "an update too many agrees"
END
}

"$1"
