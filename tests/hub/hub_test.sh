#!/usr/bin/env bash
# Runs a test in Python against the fake Hub: hub_test.sh FILE.py [CLASS]
set -euo pipefail
exec python3 -u -B "$LRD_SOURCE_DIR/tests/hub/$1" "${@:2}"
