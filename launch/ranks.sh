#!/usr/bin/env bash
# Runs a program on so many ranks of this machine, alone or under Open MPI's mpirun.
#
#   launch/ranks.sh RANKS PROGRAM [ARGUMENT...]
#
# A signal (Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2) reaches every rank once; the exit code is the program's.
set -euo pipefail
ranks=${1:?"needs a number of ranks"}
shift
((ranks > 1)) || exec "$@"

# Open MPI binds each of few ranks to one core unless told otherwise, and asks root for a second thought. After SIGTERM it
# kills its ranks within a second, which may be too soon for a checkpoint, and answers 1 whatever they do; SIGUSR1 it only
# passes on. So signals become SIGUSR1 here. The limit is raised for those who find mpirun itself (docs/decisions.md).
((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if [[ -t 2 ]]; then # mpirun puts a pipe between: the progress bar needs to know
    LRD_TERMINAL_COLUMNS=$(stty size <&2 2>/dev/null | cut -d' ' -f2) || true
    export LRD_TERMINAL_COLUMNS
fi
set -m # mpirun in a process group of its own: Ctrl-C reaches it through the trap alone
mpirun -np "$ranks" --oversubscribe --bind-to none --mca odls_base_sigkill_timeout 4 "$@" </dev/null &
job=$!
trap 'kill -USR1 "$job" 2>/dev/null' TERM INT USR1 USR2
while kill -0 "$job" 2>/dev/null; do
    wait "$job" || true # which a signal ends too
done
code=0
wait "$job" || code=$?
exit "$code"
