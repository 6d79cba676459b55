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
# Open MPI binds each of few ranks to one core unless told otherwise.
exec bash "$(dirname "$0")/mpirun.sh" -np "$ranks" --oversubscribe --bind-to none "$@"
