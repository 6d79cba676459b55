#!/usr/bin/env bash
# Fuzzes every parser of outside input for a while, under AddressSanitizer and UndefinedBehaviorSanitizer, from the
# corpora that are kept. What fails is printed, in base64, to be kept in the corpus with its repair.
#
#   fuzz_test.sh SECONDS BUILD_FOLDER     seconds for each target; the folder is made, or brought up to date
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
seconds=$1 build=$2
command -v clang >/dev/null || skip "no clang, which libFuzzer comes with"
work=$(make_temporary)
remove_at_exit "$work"
(
  flock 9 # the quick and the long test may run at once
  cmake -S "$LRD_SOURCE_DIR" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang \
    -DLRD_SANITIZE=address,undefined -DLRD_FUZZ=ON >"$work/log" 2>&1 &&
    cmake --build "$build" >>"$work/log" 2>&1
) 9>"$build.lock" || fail "the fuzz targets do not build: $(tail -20 "$work/log")"

n=0
for target in "$build"/tests/fuzz/fuzz_*; do
  [[ -f $target && -x $target ]] || continue
  name=${target##*/}
  mkdir -p "$work/$name/found" "$work/$name/new"
  options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1)
  case $name in fuzz_yaml | fuzz_safetensors | fuzz_dataset | fuzz_parquet) ;; *) options+=(-dict="$LRD_SOURCE_DIR/tests/fuzz/json.dict") ;; esac
  if ! "$target" "${options[@]}" -artifact_prefix="$work/$name/found/" "$work/$name/new" \
    "$LRD_SOURCE_DIR/tests/fuzz/corpus/$name" >"$work/log" 2>&1; then
    tail -n 40 "$work/log" >&2
    for file in "$work/$name/found/"*; do
      echo "${file##*/}:" && base64 "$file"
    done >&2
    fail "$name"
  fi
  ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
  ((ran > $(ls "$LRD_SOURCE_DIR/tests/fuzz/corpus/$name" | wc -l))) || fail "$name ran no input beside its corpus"
  echo "$name: $ran inputs in $seconds s"
  n=$((n + 1))
done
((n >= 14)) || fail "only $n targets"
echo PASSED
