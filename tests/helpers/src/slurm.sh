#!/bin/bash
# slurm.sh DIR NODES CPUS: starts a Slurm cluster on loopback without systemd, as root. It must run in new mount, UTS,
# network and process namespaces (see slurm.rs): when their first process ends, the kernel ends the daemons and all jobs.
# DIR/ready appears when all nodes are idle.
set -euo pipefail
dir=$1 nodes=$2 cpus=$3

# Names are resolved only where an address other than 127.0.0.1 exists; each node gets one.
ip link set lo up
hostname controller
{
    echo "127.0.0.1 localhost"
    echo "10.0.0.100 controller"
    for node in $(seq "$nodes"); do echo "10.0.0.$node n$node"; done
} >"$dir/hosts"
tail -n +2 "$dir/hosts" | while read -r address _; do ip address add "$address/32" dev lo; done
mount --bind "$dir/hosts" /etc/hosts
chmod 755 "$dir"
mkdir "$dir/state" "$dir/log"
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")

# RequeueExit: a job that ends with 75 (EX_TEMPFAIL) is queued again. cred_expire shortens the wait before it starts again.
# config_overrides: nodes may have more CPUs than this machine.
cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=controller(10.0.0.100)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort=6817
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd.%n
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
RequeueExit=75
JobRequeue=1
SlurmdTimeout=10
InactiveLimit=0
WaitTime=0
KillWait=3
MinJobAge=3600
ReturnToService=2
MessageTimeout=30
UnkillableStepTimeout=20
MailProg=/bin/true
END
memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
for node in $(seq "$nodes"); do
    echo "NodeName=n$node NodeHostname=n$node NodeAddr=10.0.0.$node Port=$((6820 + node)) CPUs=$cpus RealMemory=$memory State=UNKNOWN"
done >>"$dir/slurm.conf"
cat >>"$dir/slurm.conf" <<END
PartitionName=low Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=3
PartitionName=high Nodes=n[1-$nodes] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END

# A node: a host name, processes and temporary folders of its own. `start-node NAME` starts one that was killed again.
cat >"$dir/start-node" <<END
#!/bin/bash
export SLURM_CONF=$dir/slurm.conf
mkdir -p "$dir/spool.\$1" "$dir/local.\$1"
unshare --mount --uts --pid --fork --kill-child --mount-proc bash -c '
    hostname "\$1"
    mount --bind "$dir/local.\$1" /var/tmp
    exec slurmd -D -N "\$1"' bash "\$1" </dev/null >>"$dir/log/slurmd.\$1.out" 2>&1 &
echo \$! >"$dir/\$1.pid"
END
chmod +x "$dir/start-node"

export SLURM_CONF=$dir/slurm.conf
munged --foreground --key-file="$dir/munge.key" --socket="$dir/munge.sock" --pid-file="$dir/munged.pid" \
    --log-file="$dir/log/munged" --seed-file="$dir/munge.seed" --num-threads=2 </dev/null >"$dir/log/munged.out" 2>&1 &
until [ -S "$dir/munge.sock" ]; do sleep 0.05; done
slurmctld -D -c </dev/null >"$dir/log/slurmctld.out" 2>&1 &
for node in $(seq "$nodes"); do "$dir/start-node" "n$node"; done
until [ "$(timeout 10 sinfo -h -N -p low -o %t 2>/dev/null | grep -cx idle)" = "$nodes" ]; do sleep 0.1; done
touch "$dir/ready"
