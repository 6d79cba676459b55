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
exec bash "$root/launch/ranks.sh" "$ranks" "$program" "${options[@]}"
