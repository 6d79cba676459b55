#!/usr/bin/env bash
# Sets up what is missing and trains on this machine.
#
#   launch/run_local.sh [-n RANKS] [--config F [OPTION...]]
#
# A signal (Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2) ends it with a checkpoint and exit code 75: the same command again goes on.
# Without --config: the example of the README (examples/almanac) on two ranks, a minute or two; its result lands in
# out-almanac/ here. Options behind it are lora-dist's own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
ranks=2
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
fi
if [[ ${1:-} == -n ]]; then
    ranks=${2:?"-n needs a number of ranks"}
    shift 2
fi
bash "$root/launch/setup.sh"
program=$root/build/cpu-release/src/app/lora-dist
options=("$@")
if ((${#options[@]} == 0)); then
    exec bash "$root/examples/almanac/run.sh" "$ranks"
fi
((ranks > 1)) || exec "$program" "${options[@]}"

# Open MPI binds each of few ranks to one core unless told otherwise, and asks root for a second thought. After SIGTERM it
# kills its ranks within a second, which may be too soon for a checkpoint, and answers 1 whatever they do; SIGUSR1 it only
# passes on. So signals become SIGUSR1 here. The limit is raised for those who find mpirun itself (docs/decisions.md).
((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
set -m # mpirun in a process group of its own: Ctrl-C reaches it through the trap alone
mpirun -np "$ranks" --oversubscribe --bind-to none --mca odls_base_sigkill_timeout 4 \
    "$program" "${options[@]}" </dev/null &
job=$!
trap 'kill -USR1 "$job" 2>/dev/null' TERM INT USR1 USR2
while kill -0 "$job" 2>/dev/null; do
    wait "$job" || true # which a signal ends too
done
code=0
wait "$job" || code=$?
exit "$code"
