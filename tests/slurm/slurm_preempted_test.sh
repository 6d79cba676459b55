#!/usr/bin/env bash
# launch/squad.sbatch on a real Slurm: a job that a more important one preempts, and one that is told its time is over,
# write a checkpoint, go back into the queue, go on and end with the bytes of a run that nobody stopped; a job that fails
# does not come back; tasks of an array do not share a folder.
#
#   slurm_preempted_test.sh [lost]     lost: instead, a job whose mpirun is lost when it is preempted, and that comes back
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
source "$(dirname "$0")/slurm_support.sh"
need_slurm
out=$(make_temporary)
trap 'stop_slurm "$out/slurm"; rm -rf "$out"' EXIT
start_slurm "$out/slurm" alone
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
export LRD_PROGRAM

common=(--config config.yaml --set training.max_steps=300 --set training.eval_steps=null --set training.save_steps=1000
        --set training.gradient_accumulation_steps=null --set training.global_batch_size=16 --set data.cache_dir="$out/data")
mpirun -np 2 --bind-to none "$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$out/whole" 2>"$out/log" ||
  fail "$(tail -3 "$out/log")"

submit() { # NAME [SBATCH OPTION...] -- OPTION...: prints the job's number
  local name=$1 options=()
  shift
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  sbatch --parsable --ntasks-per-node=2 --time=10 --output="$out/$name.log" "${options[@]}" \
    "$LRD_SOURCE_DIR/launch/squad.sbatch" "${@:2}"
}
at_work() { grep -q '^update [1-9][0-9]*/' "$out/$1.log" 2>/dev/null; }
starts() { grep -c ' job .*, start ' "$out/$1.log"; }
left_node() { # JOB: the daemon of its last start, too, which takes the job's script away when it ends
  nodes_idle 1 && ! pgrep -f "^slurmstepd: \[$1\." >/dev/null
}
# Slurm keeps a requeued job back for two minutes; once its first start has left the node, that ends here. Not at once: a
# node refuses what was queued in the second in which it was told to end the job.
start_again() {
  if [[ $let_go == no ]] && job_is "$1" PENDING && left_node "$1"; then
    scontrol update JobId="$1" StartTime=now+2 2>/dev/null && let_go=yes
  fi
  (($(starts "$2") == 2))
}
finish() { # NAME JOB [CODE]: lets the queued job start, and compares
  local let_go=no
  wait_until 60 "$1 is queued again" job_is "$2" PENDING || fail "$(cat "$out/$1.log")"
  wait_until 60 "$1 has started again" start_again "$2" "$1" || { cat "$out/$1.log" "$out"/slurm/log/slurmd-*.log; fail "$(scontrol show job "$2")"; }
  wait_until 120 "$1 is complete" job_is "$2" COMPLETED || fail "$(tail -20 "$out/$1.log")"
  grep -q "ended with ${3:-75}" "$out/$1.log" || fail "$1 was not stopped: $(tail -5 "$out/$1.log")"
  cmp "$out/whole/adapter_model.safetensors" "$out/$1/adapter_model.safetensors" || fail "$1: other bytes"
}

if [[ ${1:-} == lost ]]; then
  # The nodes have names of their own here, so that mpirun starts a daemon on them as it does on other hosts.
  job=$(LRD_LAUNCHER=mpirun submit lost -- "${common[@]}" --set training.save_steps=10 --set training.output_dir="$out/lost")
  wait_until 60 "lost has a checkpoint" grep -qs 'checkpoint-10' "$out/lost.log" || fail "$(cat "$out/lost.log")"
  sbatch --parsable -p high --ntasks=2 --output="$out/high.log" --wrap true >/dev/null
  finish lost "$job" '[1-9]'
  grep -q '^Going on from' "$out/lost.log" || fail "lost began anew"
  exit 0
fi

job=$(submit preempted -- "${common[@]}" --set training.output_dir="$out/preempted")
wait_until 60 "preempted is at work" at_work preempted || fail "$(cat "$out/preempted.log")"
sbatch --parsable -p high --ntasks=2 --output="$out/high.log" --wrap true >/dev/null
finish preempted "$job"

job=$(LRD_LAUNCHER=mpirun submit signalled -- "${common[@]}" --set training.output_dir="$out/signalled")
wait_until 60 "signalled is at work" at_work signalled || fail "$(cat "$out/signalled.log")"
scancel --signal=USR1 --batch "$job" # what --signal=B:USR1@120 sends before the time limit
finish signalled "$job"

job=$(submit broken -- --config config.yaml --set data.train_file=nowhere.jsonl --set training.output_dir="$out/broken")
wait_until 60 "broken has failed" job_is "$job" FAILED || fail "$(cat "$out/broken.log")"
(($(starts broken) == 1)) || fail "a job that fails came back"
grep -q 'nowhere.jsonl' "$out/broken.log" || fail "no reason: $(cat "$out/broken.log")"

printf '%s\n' '--set lora.r=2' '--set lora.r=3' >"$out/sweep"
job=$(sbatch --parsable --array=1-2 --ntasks-per-node=1 --time=10 --output="$out/sweep-%a.log" "$LRD_SOURCE_DIR/launch/squad.sbatch" \
  --sweep "$out/sweep" --config config.yaml --set training.max_steps=3 --set training.output_dir="$out/swept")
for task in 1 2; do
  wait_until 60 "task $task is complete" job_is "${job}_$task" COMPLETED || fail "$(cat "$out/sweep-$task.log")"
  grep -q "\"r\": $((task + 1))," "$out/swept/$task/adapter_config.json" || fail "task $task has another adapter"
done
