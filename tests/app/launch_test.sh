#!/usr/bin/env bash
# Whoever stops a run from outside stops its launcher. Each signal sent to one of them leads to a checkpoint and exit code
# 75 within seconds, no process stays, and the same command goes on to the bytes of a run that nobody stopped.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
tree=$work/tree # what the launchers expect, with nothing to install or to build
mkdir -p "$tree/build/cpu-release/src/app"
cp -r "$LRD_SOURCE_DIR/launch" "$LRD_SOURCE_DIR/configs" "$tree"
ln -s "$LRD_SOURCE_DIR/examples" "$tree/examples"
: >"$tree/launch/setup.sh"
export TRACE=$work/pids
cat >"$tree/build/cpu-release/src/app/lora-dist" <<END
#!/usr/bin/env bash
echo \$\$ | tee "\$TRACE.\${OMPI_COMM_WORLD_RANK:-0}" >>"\$TRACE"
if [[ -n \${EARLY:-} ]]; then # the request comes before the program can hear it
  [[ -n \${DEAF:-} ]] || trap '' USR1
  : >"\$EARLY.\$OMPI_COMM_WORLD_RANK"
  until [[ -e \$EARLY.0 && -e \$EARLY.1 ]]; do sleep 0.05; done
  ((OMPI_COMM_WORLD_RANK == 1)) || kill -TERM "\$(cat "\$EARLY")"
  until [[ -e \$LRD_STOP_FILE ]]; do sleep 0.05; done
  [[ -z \${DEAF:-} ]] || sleep 60
fi
exec "$LRD_PROGRAM" "\$@"
END
chmod +x "$tree/build/cpu-release/src/app/lora-dist"
program=$tree/build/cpu-release/src/app/lora-dist
common=(--config config.yaml --set training.max_steps=300 --set training.save_steps=1000 --set training.eval_steps=null
        --set training.gradient_accumulation_steps=null --set training.global_batch_size=16
        --set training.resume_from_checkpoint=true --set data.cache_dir="$work/data" --threads 1)

gone() { # PID: also where nobody has asked what became of it
  ! grep -Eq '^State:[[:space:]]+[^Z]' "/proc/$1/status" 2>/dev/null
}
at_work() { grep -q "$1" "$work/log"; }
wait_until() { # WHAT COMMAND...
  local i what=$1
  shift
  for ((i = 0; i < 600; i++)); do
    ! "$@" || return 0
    sleep 0.1
  done
  fail "waited in vain until $what: $(tail -5 "$work/log")"
}
# stop SIGNAL PATTERN COMMAND...: once the log has the pattern; exit code 75 and nobody left
stop() {
  local signal=$1 pattern=$2 code=0 begun pid
  shift 2
  : >"$TRACE" >"$work/log"
  env --default-signal=INT "$@" >"$work/log" 2>&1 </dev/null & # which shells make their background jobs ignore
  job=$!
  wait_until "$1 is at work" at_work "$pattern"
  begun=$SECONDS
  kill "-$signal" "$job"
  wait "$job" || code=$?
  ((code == 75)) || fail "$*: exit code $code after SIG$signal, expected 75: $(tail -5 "$work/log")"
  ((SECONDS - begun < 15)) || fail "$*: it took $((SECONDS - begun)) s after SIG$signal"
  [[ -s $TRACE ]] || fail "$*: nothing ran"
  for pid in $(cat "$TRACE"); do
    gone "$pid" || fail "$*: process $pid is still there"
  done
  echo "SIG$signal to ${1##*/} ${2##*/}: exit code 75"
}

"$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$work/whole" 2>"$work/log" || fail "$(tail -3 "$work/log")"
for signal in TERM INT USR1 USR2; do
  rm -rf "$work/out"
  command=(bash "$tree/launch/ranks.sh" 2 "$program" "${common[@]}" --set training.output_dir="$work/out")
  stop $signal '^update 5/' "${command[@]}"
  grep -q '^Interrupted after update' "$work/log" || fail "no checkpoint: $(tail -3 "$work/log")"
done
"${command[@]}" 2>"$work/log" || fail "going on: $(tail -3 "$work/log")"
grep -q '^Going on from' "$work/log" || fail "it did not go on"
cmp "$work/whole/adapter_model.safetensors" "$work/out/adapter_model.safetensors" || fail "another adapter"

stop TERM '^update 5/' bash "$tree/launch/ranks.sh" 1 "$program" "${common[@]}" --set training.output_dir="$work/one"
stop TERM '^update 5/' bash "$tree/launch/mpirun.sh" --host localhost:3 -np 3 --bind-to none -x TRACE \
  "$program" "${common[@]}" --set training.output_dir="$work/three"
stop TERM '^update 5/' bash "$tree/launch/run_local.sh" -n 2 "${common[@]}" --set training.output_dir="$work/local"

# A request that comes too early for the program is not lost, be it that the signal passes unheard or that it kills.
early() { # VARIABLE...
  local code=0
  rm -f "$work"/launcher*
  env EARLY="$work/launcher" "$@" bash -c 'echo $$ >"$EARLY"; exec bash "$@"' - "$tree/launch/ranks.sh" 2 "$program" \
    "${common[@]}" --set training.output_dir="$work/early" >"$work/log" 2>&1 || code=$?
  ((code == 75)) || fail "exit code $code after an early SIGTERM, expected 75: $(tail -5 "$work/log")"
}
early
grep -q '^Interrupted while starting' "$work/log" || fail "it was not early: $(tail -5 "$work/log")"
early DEAF=1
! grep -q '^Interrupted' "$work/log" || fail "it heard the signal: $(tail -5 "$work/log")"

# Where the first signal cannot end in order, since a rank does not answer, a second one leaves at once.
rm -f "$TRACE".*
: >"$work/log"
mpirun -np 2 --bind-to none "$program" "${common[@]}" --set training.output_dir="$work/stuck" >"$work/log" 2>&1 </dev/null &
job=$!
wait_until "it is at work" at_work '^update 5/'
kill -STOP "$(cat "$TRACE.1")"
kill -TERM "$(cat "$TRACE.0")"
sleep 2.5 # what comes within a second or so is the first one again
! gone "$(cat "$TRACE.0")" || fail "the first signal ended rank 0, though rank 1 does not answer"
kill -TERM "$(cat "$TRACE.0")"
begun=$SECONDS
wait_until "rank 0 has left" gone "$(cat "$TRACE.0")"
((SECONDS - begun <= 3)) || fail "rank 0 took $((SECONDS - begun)) s to leave at once"
kill -CONT "$(cat "$TRACE.1")"
code=0
wait "$job" || code=$?
((code != 0 && code != 75)) || fail "exit code $code after a second signal"

# Without options: the example, which asks questions first.
cd "$work"
: >"$TRACE"
LRD_PROGRAM=$program bash "$tree/launch/run_local.sh" >"$work/log" 2>&1 </dev/null &
job=$!
wait_until "the example is at work" test -s "$TRACE"
kill -TERM "$job"
! wait "$job" || fail "the example went on: $(tail -5 "$work/log")"
for pid in $(cat "$TRACE"); do
  wait_until "process $pid has ended" gone "$pid"
done
echo PASSED
