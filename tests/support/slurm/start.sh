#!/usr/bin/env bash
# A real Slurm on this one machine, for tests: munged, slurmctld and one slurmd per virtual node, with fake GPUs.
#
#   start.sh DIR      (made anew)     stop.sh DIR ends it
#   . DIR/env         sets SLURM_CONF; sinfo, sbatch, vheatbench run --slurm ... then talk to this cluster
#
# Needs Debian's slurmctld, slurmd, slurm-client and munge. Touches nothing in /etc, /run or /var: keys, sockets, state,
# logs and ids of processes lie in DIR, ports are free ones, so that several clusters may run side by side. Settings:
#   NODES=3  CPUS=4 and GPUS=2 (of a node)  GPU_TYPES="fake fake fake" (by node)
#   SLURMD_TIMEOUT=6  KILL_WAIT=3  GRACE_TIME=2 (seconds; Slurm's own are 300, 30 and 0)
set -euo pipefail
dir=${1:?usage: give the folder of the cluster}
nodes=${NODES:-3} cpus=${CPUS:-4} gpus=${GPUS:-2}
read -ra types <<<"${GPU_TYPES:-}"
here=$(cd "$(dirname "$0")" && pwd)

bash "$here/stop.sh" "$dir"   # what an earlier run left here, by its own ids
rm -rf "$dir"
mkdir -p "$dir"/{state,spool,log,pid,dev,munge/socket}
dir=$(cd "$dir" && pwd)
chmod 755 "$dir" "$dir/munge/socket"; chmod 711 "$dir/munge"

host=$(hostname -s)
getent hosts "$host" >/dev/null || { echo "the name $host of this machine does not resolve: add it to /etc/hosts" >&2; exit 1; }

# one port for slurmctld, one for each slurmd
mapfile -t ports < <("${PYTHON:-python3}" - "$((nodes + 1))" <<'PY'
import socket, sys
held = []
for _ in range(int(sys.argv[1])):
    s = socket.socket(); s.bind(("", 0)); held.append(s)
print(*(s.getsockname()[1] for s in held), sep="\n")
PY
)

dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none; chmod 400 "$dir/munge/key"
munged --socket="$dir/munge/socket/s" --key-file="$dir/munge/key" --pid-file="$dir/munge/pid" \
       --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" >"$dir/log/munged.out" 2>&1

{
cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job must wait: 120 s if not said, at least 5
AuthInfo=socket=$dir/munge/socket/s,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/pid/slurmctld
SlurmdPidFile=$dir/pid/%n
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/%n
MailProg=/bin/true
# no control groups, no systemd, no accounting
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# short waits: a test has no time
SlurmdTimeout=${SLURMD_TIMEOUT:-6}
SlurmctldTimeout=30
KillWait=${KILL_WAIT:-3}
CompleteWait=0
InactiveLimit=0
WaitTime=0
MinJobAge=300
MessageTimeout=5
UnkillableStepTimeout=10
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=2
CONF
for ((i = 1; i <= nodes; i++)); do
  gres=""; ((gpus)) && gres="Gres=gpu:${types[i-1]:-fake}:$gpus"
  echo "NodeName=node$i NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[i]} CPUs=$cpus $gres State=UNKNOWN"
done
cat <<CONF
PartitionName=gpu Nodes=node[1-$nodes] Default=YES MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=1 GraceTime=${GRACE_TIME:-2}
PartitionName=urgent Nodes=node[1-$nodes] MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=node[1-$nodes] MaxTime=5 DefaultTime=5 State=UP PriorityTier=1
CONF
} >"$dir/slurm.conf"
if ((gpus)); then
  for ((i = 1; i <= nodes; i++)); do
    # a plain file will not do: "not a valid character or block device"
    for ((g = 0; g < gpus; g++)); do ln -s /dev/null "$dir/dev/node$i-nvidia$g"; done
    echo "NodeName=node$i Name=gpu Type=${types[i-1]:-fake} File=$dir/dev/node$i-nvidia[0-$((gpus - 1))] Flags=nvidia_gpu_env"
  done >"$dir/gres.conf"
fi
printf 'export SLURM_CONF=%q\n' "$dir/slurm.conf" >"$dir/env"
export SLURM_CONF="$dir/slurm.conf"

slurmctld -c >"$dir/log/slurmctld.out" 2>&1
for ((i = 1; i <= nodes; i++)); do mkdir -p "$dir/spool/node$i"; slurmd -N "node$i" >"$dir/log/node$i.out" 2>&1; done

for ((try = 0; try < 150; try++)); do
  if [ "$(sinfo -h -N -o '%N %t' 2>/dev/null | sort -u | grep -c ' idle$')" = "$nodes" ]; then
    echo "slurm is up: $nodes nodes of $cpus CPUs and $gpus GPUs; . $dir/env"
    exit 0
  fi
  sleep 0.2
done
echo "slurm did not come up:" >&2
tail -n 5 "$dir"/log/* >&2
exit 1
