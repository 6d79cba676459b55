#!/usr/bin/env bash
# Runs a test that needs a GPU, or skips it where the plugin finds none.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
about=$("$LRD_PROGRAM" info | grep '^backend cuda: ')
[[ $about == "backend cuda: device "* ]] || skip "${about#backend cuda: }"
exec "$@"
