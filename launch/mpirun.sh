#!/usr/bin/env bash
# mpirun, for trainings that may be stopped: SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 sent to this script leads to a checkpoint, and
# the exit code is the program's, 75.
#
#   launch/mpirun.sh [MPIRUN OPTION...] PROGRAM [ARGUMENT...]
#
# Open MPI's mpirun itself passes SIGUSR1 and SIGUSR2 on and answers with the program's code; but a SIGTERM makes it kill its
# ranks within a second, which may be too soon for a checkpoint, and it answers 1 whatever they do. So all become SIGUSR1 here.
# The limit is raised for those who find mpirun itself (docs/decisions.md).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/signals.sh"
((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # which Open MPI asks of root
if [[ -t 2 ]]; then # mpirun puts a pipe between: the progress bar needs to know
    LRD_TERMINAL_COLUMNS=$(stty size <&2 2>/dev/null | cut -d' ' -f2) || true
    export LRD_TERMINAL_COLUMNS
fi
run_signalled mpirun --mca odls_base_sigkill_timeout 4 "$@"
