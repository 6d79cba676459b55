#!/usr/bin/env bash
# The memory limit of a job or container (trees of files in place of the kernel's: LRD_SYSTEM_ROOT): `info` and `plan` name it, ranks
# share what is shared and have to themselves what is not, and a run that would be killed for it is refused beforehand.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
write_model model 4 64 4 500
write_records train.jsonl 16 500
cat > config.yaml <<'END'
model: {name_or_path: model}
lora: {r: 4, target_modules: all-linear}
data: {format: tokenized, train_file: train.jsonl}
training: {per_device_train_batch_size: 2, global_batch_size: 4, max_steps: 1, warmup_steps: 0}
END

# A machine with 64 GiB, of which a job has one; its two tasks are in groups of their own below it. Trees 0 and 1 are the same as
# task 0 and task 1 see them.
mib() { echo $(($1 << 20)); }
group() { # FOLDER LIMIT USED CACHED, in MiB; limit "max"
  mkdir -p "$1"
  if [ "$2" = max ]; then echo max; else mib "$2"; fi > "$1/memory.max"
  mib "$3" > "$1/memory.current"
  echo "inactive_file $(mib "$4")" > "$1/memory.stat"
}
for task in 0 1; do
  mkdir -p "$task/proc/self" "$task/proc/sys/kernel/random"
  printf 'MemTotal: %d kB\nMemAvailable: %d kB\n' $((64 << 20)) $((60 << 20)) > "$task/proc/meminfo"
  echo one > "$task/proc/sys/kernel/random/boot_id"
  echo "0::/job_7/task_$task" > "$task/proc/self/cgroup"
  echo '30 23 0:26 / /cgroup rw - cgroup2 cgroup2 rw' > "$task/proc/self/mountinfo"
  ln -s "$work/cgroup" "$task/cgroup"
  group "cgroup/job_7/task_$task" max 0 0
done
group cgroup/job_7 1024 64 32
export LRD_SYSTEM_ROOT=$work/0
job='memory limit of the job or container (/cgroup/job_7/memory.max)'

"$LRD_PROGRAM" info > said
grep -qxF "host memory: 1.0 of 1.0 GiB left: $job" said || fail "info: $(cat said)"
grep -qxF 'host memory: 60.0 of 64.0 GiB left: free memory of this machine' said || fail "info: $(cat said)"
grep -q '^backend cpu: .*; 1.0 of 1.0 GiB free$' said || fail "info: $(cat said)"

# What ranks have: the job's limit divided among them.
plan() { "$LRD_PROGRAM" plan --config config.yaml --log-level warn "$@" | sed -n 's/^The rank with the least memory has //p'; }
expect() { # TEXT [OPTION...]
  local said
  said=$(plan "${@:2}")
  [ "$said" = "$1" ] || fail "plan ${*:2}: '$said', expected '$1'"
}
expect "992.0 MiB: $job"
expect "248.0 MiB: $job, shared by 4 ranks" --ranks 4
expect "100.0 MiB: --memory" --ranks 4 --memory 100MiB
expect "200.0 MiB: parallel.max_memory" --ranks 2 --set 'parallel.max_memory=[200MiB,300MiB]'

# Real ranks, each in its task. Too little for one rank, and said by code 2, with the one that has the least.
refuse() { # TEXT: two ranks
  local code=0
  mpirun -np 2 --bind-to none bash -c 'LRD_SYSTEM_ROOT=$0/$OMPI_COMM_WORLD_RANK exec "$LRD_PROGRAM" --config config.yaml --set training.output_dir=none' \
    "$work" 2> log || code=$?
  [ $code = 2 ] && grep -qF "$1" log && [ "$(grep -c '^error' log)" = 1 ] && [ ! -e none/checkpoint-1 ] || fail "expected '$1': $code $(cat log)"
}
group cgroup/job_7 2 1 1
refuse "the model does not fit: not into the 0.00 GiB that the rank with the least has ($job, shared by 2 ranks)"
group cgroup/job_7 1024 64 32
group cgroup/job_7/task_1 1 0 0
refuse 'the rank with the least has (memory limit of the job or container (/cgroup/job_7/task_1/memory.max))'

# One rank, whose allocation finds it.
group cgroup/job_7/task_0 1 0 0
code=0
"$LRD_PROGRAM" --config config.yaml --set training.output_dir=none 2> log || code=$?
[ $code != 0 ] && grep -qF 'GiB of 0.00 are free: memory limit of the job or container (/cgroup/job_7/task_0/memory.max). Smaller' log ||
  fail "one rank: $code $(cat log)"

# With room the run is that of a machine without limits.
group cgroup/job_7/task_0 512 0 0
"$LRD_PROGRAM" --config config.yaml --set training.output_dir=limited 2> log || fail "with room: $(cat log)"
unset LRD_SYSTEM_ROOT
"$LRD_PROGRAM" --config config.yaml --set training.output_dir=free --log-level warn
cmp limited/adapter_model.safetensors free/adapter_model.safetensors
echo PASSED
