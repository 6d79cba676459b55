#!/usr/bin/env bash
# Runs a test that needs a GPU, or skips it where the plugin finds none.
#
#   [RANKS=N] gpu_test.sh PROGRAM [WORD]...   RANKS: under mpirun, with a GPU for each rank
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
about=$("$LRD_PROGRAM" info | grep '^backend cuda: ')
[[ $about == "backend cuda: device "* ]] || skip "${about#backend cuda: }"
ranks=${RANKS:-1}
((ranks == 1)) || [[ $(nvidia-smi -L 2>/dev/null | wc -l) -ge $ranks ]] || skip "fewer than $ranks GPUs"
((ranks == 1)) || exec mpirun -np "$ranks" --bind-to none "$@"
exec "$@"
