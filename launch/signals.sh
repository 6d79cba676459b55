# For scripts beside it: source it.
#
#   run_signalled COMMAND...
#
# Runs it in a process group of its own. Each SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 that this shell gets, Ctrl-C too, reaches
# the command as SIGUSR1; the return code is the command's, which is waited for in any case. It reads nothing. mpirun loses
# a signal that comes before its ranks are there: they find LRD_STOP_FILE instead when they start. What the signal kills has
# not begun to listen yet, and has done nothing: that is 75 as well, the same command again goes on.

run_signalled() {
    local code=0 job= folder
    folder=$(mktemp -d)
    export LRD_STOP_FILE=$folder/stop
    trap ': >"$LRD_STOP_FILE"; [[ -z $job ]] || kill -USR1 "$job" 2>/dev/null || true' TERM INT USR1 USR2
    set -m # the group: Ctrl-C reaches the command through the trap alone
    "$@" </dev/null &
    job=$!
    set +m
    while kill -0 "$job" 2>/dev/null; do
        wait "$job" || true # which a signal ends too
    done
    wait "$job" || code=$?
    trap - TERM INT USR1 USR2
    ((code != 138)) || [[ ! -e $LRD_STOP_FILE ]] || code=75
    rm -rf "$folder"
    unset LRD_STOP_FILE
    return "$code"
}
