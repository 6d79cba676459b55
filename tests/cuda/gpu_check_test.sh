#!/usr/bin/env bash
# launch/gpu_check.sh from a bundle with its tests, moved elsewhere, on the emulated device: every part starts and none fails.
# Without a device it says so; without time it names what it left out.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
command -v patchelf >/dev/null || skip "no patchelf"
! ldd "$LRD_PROGRAM" | grep -q libasan || skip "a build with sanitizers is not for carrying about"
out=$(make_temporary)
remove_at_exit "$out"
bash "$LRD_SOURCE_DIR/launch/bundle.sh" --build "$LRD_BINARY_DIR" --tests "$out/made" >"$out/bundle.log" || fail "$(cat "$out/bundle.log")"
cat "$out/bundle.log"
mv "$out/made" "$out/elsewhere"
check() { # NAME OPTION...
    env -u LRD_PROGRAM -u LRD_SOURCE_DIR -u LRD_BINARY_DIR bash "$out/elsewhere/launch/gpu_check.sh" "${@:2}" "$out/$1.txt" >"$out/$1.log" 2>&1
}
check dry --dry-run || fail "$(tail -40 "$out/dry.log")"
for part in "equal rows" "streams and graphs" "ops" "training runs" "two ranks on one device" "ops of bloom-3b" "tuning for bloom-3b" "beside PEFT"; do
    grep -q "^---- $part: exit code" "$out/dry.txt" || fail "$part did not run: $(cat "$out/dry.txt")"
done
grep -q "^---- tuning for bloom-3b: exit code 0 " "$out/dry.txt" || fail "tuning did not end: $(cat "$out/dry.txt")"
grep -q "^---- beside PEFT: exit code 0 " "$out/dry.txt" || fail "the comparison did not end: $(cat "$out/dry.txt")"
grep -q "^All parts passed" "$out/dry.txt" || fail "it does not say that all is well"
grep -q "| tiny | bfloat16 | 2x16 |" "$out/dry.txt.compare.md" || fail "no comparison"
check late --dry-run --seconds 0 || fail "without time: $(tail -5 "$out/late.log")"
grep -q "^LEFT OUT: equal rows streams and graphs ops training runs" "$out/late.txt" || fail "without time: $(cat "$out/late.txt")"
code=0
LRD_EMULATED_DEVICES=0 check none || code=$?
[[ $code == 77 ]] && grep -q "No CUDA device" "$out/none.txt" || fail "without a device: code $code, $(cat "$out/none.log")"
