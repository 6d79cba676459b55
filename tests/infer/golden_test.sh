#!/usr/bin/env bash
# A script of tests/golden ($1) still makes the files that are kept.
set -euo pipefail
command -v python3 >/dev/null || {
    echo "SKIPPED: no python3"
    exit 77
}
exec python3 "$LRD_SOURCE_DIR/tests/golden/$1" --check
