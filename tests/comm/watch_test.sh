#!/usr/bin/env bash
# Ranks watch each other: one that dies, is stopped, hangs or fails ends the job within seconds, with a message that
# names it; one that works for longer than the limit does not. No process is left. Also where mpirun is more patient with
# those whom it ends than it is by default.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
cat > rank.sh <<'END'
echo $$ > "pids/${OMPI_COMM_WORLD_RANK:-0}"
exec "$PROGRAM" "$@"
END
export PROGRAM=$LRD_BINARY_DIR/tests/comm/rank_that

# Waits until a process is gone (a zombie is); false: it stays.
is_gone() {
  local i
  for ((i = 0; i < 50; i++)); do
    grep -Eq '^State:[[:space:]]+[^Z]' "/proc/$1/status" 2> /dev/null || return 0
    sleep 0.1
  done
  return 1
}

grace=1
# check CODE TEXT SECONDS RANKS WORD...: exit code 0, or any other; a line of the output
check() {
  local expected=$1 text=$2 most=$3 ranks=$4 code=0 pid launch=()
  shift 4
  ((ranks == 1)) || launch=(mpirun -np "$ranks" --bind-to none --mca odls_base_sigkill_timeout "$grace")
  rm -rf pids && mkdir pids
  local begun=$SECONDS
  timeout -k 1 90 "${launch[@]}" bash rank.sh "$@" > log 2>&1 < /dev/null || code=$?
  [ "$expected" = 0 ] && [ $code = 0 ] || { [ "$expected" != 0 ] && [ $code != 0 ] && [ $code != 124 ]; } ||
    fail "$* on $ranks: exit code $code: $(cat log)"
  ((SECONDS - begun <= most)) || fail "$* on $ranks took $((SECONDS - begun)) seconds"
  [ -z "$text" ] || grep -Eq "$text" log || fail "$* on $ranks does not say \"$text\": $(cat log)"
  [ $(grep -c 'error: ' log) -le 1 ] || fail "$* on $ranks says it more than once: $(cat log)"
  for pid in pids/*; do
    is_gone "$(cat "$pid")" || fail "$* on $ranks: rank ${pid##*/} is still there"
  done
  echo "$* on $ranks: exit code $code after $((SECONDS - begun)) s"
}

check 0 '' 60 2 works 4 8
check 0 '' 60 3 asks 20
check 1 'error: rank 1 \(.*has made no progress' 30 2 hangs 4 60
check 1 'error: has made no progress' 10 1 hangs 1 60
grace=4
check 1 'error: rank 1 \(.*is lost' 30 3 dies 20
check 1 'error: rank 1 \(.*not been heard of' 30 3 stops 4
grace=1
check 1 'error: rank 1 \(.*: planted' 30 3 ends 20
check 1 'error: all ranks have waited' 30 2 crosses 4
echo PASSED
