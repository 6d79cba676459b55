#!/usr/bin/env bash
# launch/gpu_check.sh from a bundle with its tests, moved elsewhere, on two emulated devices: every part starts and none fails.
# Without a device it says so; without time it names what it left out; what compute-sanitizer finds is a failure.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
command -v patchelf >/dev/null || skip "no patchelf"
! ldd "$LRD_PROGRAM" | grep -q libasan || skip "a build with sanitizers is not for carrying about"
out=$(make_temporary)
remove_at_exit "$out"
bash "$LRD_SOURCE_DIR/launch/bundle.sh" --build "$LRD_BINARY_DIR" --tests "$out/made" >"$out/bundle.log" || fail "$(cat "$out/bundle.log")"
cat "$out/bundle.log"
mv "$out/made" "$out/elsewhere"
# Stand-ins: a compute-sanitizer that finds something in one program if FOUND names it, and two devices.
mkdir "$out/bin"
cat >"$out/bin/compute-sanitizer" <<'END'
#!/usr/bin/env bash
tool=$2
while [[ $1 == --* ]]; do shift 2; done
[[ -x $1 && $2 == --backend ]] || exit 3
[[ ${1##*/} != "${FOUND:-}" ]] || { echo "========= $tool: Invalid __global__ read of size 4 bytes"; exit 9; }
echo "========= $tool: ERROR SUMMARY: 0 errors"
END
cat >"$out/bin/nvidia-smi" <<'END'
#!/usr/bin/env bash
[[ ${1:-} != -L ]] || printf 'GPU %s: emulated device\n' 0 1
END
chmod +x "$out"/bin/*
export LRD_EMULATED_DEVICES=2
check() { # NAME OPTION...
    env -u LRD_PROGRAM -u LRD_SOURCE_DIR -u LRD_BINARY_DIR PATH="$PATH:$out/bin" bash "$out/elsewhere/launch/gpu_check.sh" "${@:2}" "$out/$1.txt" >"$out/$1.log" 2>&1
}
check dry --dry-run || fail "$(tail -40 "$out/dry.log")"
for part in "equal rows" "streams and graphs" "ops" "memcheck" "racecheck" "training runs" "two ranks on one device" "two devices" \
    "ops of bloom-3b" "tuning for bloom-3b" "beside PEFT"; do
    grep -q "^---- $part: exit code" "$out/dry.txt" || fail "$part did not run: $(cat "$out/dry.txt")"
done
grep -q "^---- tuning for bloom-3b: exit code 0 " "$out/dry.txt" || fail "tuning did not end: $(cat "$out/dry.txt")"
grep -q "^---- beside PEFT: exit code 0 " "$out/dry.txt" || fail "the comparison did not end: $(cat "$out/dry.txt")"
grep -q "^All parts passed" "$out/dry.txt" || fail "it does not say that all is well"
grep -q "| tiny | bfloat16 | 2x16 |" "$out/dry.txt.compare.md" || fail "no comparison"
grep -q "| tiny | bfloat16 | 1 |" "$out/dry.txt.compare.md" || fail "no steps of generation"
grep -q '"route"' "$out/dry.txt.tuning.json" || fail "the tuning file is not kept"
for tool in memcheck racecheck; do
    (($(grep -c "= $tool: ERROR SUMMARY: 0 errors" "$out/dry.txt") == 11)) || fail "$tool: not all ops: $(grep -- "-- $tool" "$out/dry.txt")"
done
FOUND=test_ops_update check found --dry-run --seconds 16 && fail "what memcheck found is no failure"
grep -q "memcheck: Invalid __global__ read" "$out/found.txt" && grep -q "^FAILED: memcheck" "$out/found.txt" || fail "found: $(cat "$out/found.txt")"
check late --dry-run --seconds 0 || fail "without time: $(tail -5 "$out/late.log")"
grep -q "^LEFT OUT: equal rows streams and graphs ops memcheck racecheck training runs" "$out/late.txt" || fail "without time: $(cat "$out/late.txt")"
code=0
LRD_EMULATED_DEVICES=0 check none || code=$?
[[ $code == 77 ]] && grep -q "No CUDA device" "$out/none.txt" || fail "without a device: code $code, $(cat "$out/none.log")"
