#!/usr/bin/env bash
# What pyarrow writes, in every way it can, is read here as pyarrow reads it: parquet_oracle_test.sh PARQUET_ROWS
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
find_python pyarrow parquet-venv pyarrow==26.0.1
work=$(make_temporary)
remove_at_exit "$work"
shared=$LRD_SOURCE_DIR/../shared/data/squad
files=("$LRD_SOURCE_DIR/tests/golden/data/passages.json")
[[ ! -d $shared ]] || files+=("$shared"/dev-v2.0.json "$shared"/train-v2.0.first10articles.json)
"$python" "$LRD_SOURCE_DIR/tests/data/parquet_oracle.py" "$1" "$work" "${files[@]}"
echo PASSED
