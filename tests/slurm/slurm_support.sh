# A Slurm of the test's own: munged, slurmctld and one slurmd for each node, in a folder, without systemd.

need_slurm() {
  ((EUID == 0)) || skip "Slurm's daemons need root"
  local what
  for what in munged mungekey slurmctld slurmd srun; do
    command -v "$what" >/dev/null || [[ -x /usr/sbin/$what ]] || skip "no $what here (Debian: slurm-wlm, munge)"
  done
}

# start_slurm FOLDER NODE...: nodes of two tasks and two GPUs each on this host; the GPUs are numbers only. Partitions low and high: jobs of the second take nodes
# away from those of the first, which are queued again.
start_slurm() {
  local folder=$1 node port=17001 host
  shift
  host=$(hostname -s)
  mkdir -p "$folder"/{state,log} /run/munge
  chown munge:munge /run/munge
  [[ -f /etc/munge/munge.key ]] || /usr/sbin/mungekey --create || skip "no key for munge here"
  pidof munged >/dev/null || su -s /bin/sh munge -c /usr/sbin/munged || skip "munged does not start here"
  {
    cat <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17000
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
TmpFS=$folder/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=20
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1,requeue_delay=1
END
    for node in "$@"; do
      echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=2 RealMemory=1000 Gres=gpu:2 State=UNKNOWN"
      port=$((port + 1))
    done
    echo "PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20"
    echo "PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF"
  } >"$folder/slurm.conf"
  printf 'Name=gpu File=%s\n' /dev/zero /dev/full >"$folder/gres.conf"
  export SLURM_CONF=$folder/slurm.conf
  /usr/sbin/slurmctld -c || skip "slurmctld does not start here"
  for node in "$@"; do
    mkdir -p "$folder/spool-$node"
    /usr/sbin/slurmd -N "$node" || true
  done
  wait_until 30 "Slurm has its nodes" nodes_idle "$#" ||
    skip "Slurm does not start here: $(cat "$folder"/log/* | grep -i 'error\|fatal' | tail -1)"
}
nodes_idle() {
  (($(sinfo -h -N -p low -o %T 2>/dev/null | grep -c '^idle$') == $1))
}

ended() {
  ! kill -0 "$1" 2>/dev/null || [[ $(ps -o stat= -p "$1") == Z* ]]
}
stop_slurm() {
  local folder=$1 file pid
  scancel -u root 2>/dev/null || true
  for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid"; do
    [[ -f $file ]] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || continue
    wait_until 20 "Slurm's daemon $pid has ended" ended "$pid" || true
  done
}

# wait_until SECONDS WHAT COMMAND...
wait_until() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < until)) || { echo "waited in vain until $what" >&2; return 1; }
    sleep 0.1
  done
}
job_is() { # JOB STATE
  [[ $(scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p') == "$2" ]]
}
