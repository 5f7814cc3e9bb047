#!/usr/bin/env bash
# A Slurm of one machine: `bash tests/cluster/slurm.sh FOLDER`, as root, on Debian. SLURM_CONF has to
# be FOLDER/slurm.conf for its commands. Two partitions: jobs of "urgent" pre-empt those of "debug",
# which go back into the queue.
set -euo pipefail
folder=$(realpath -m "$1")
if ! command -v slurmctld slurmd munged scontrol > /dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    slurmctld slurmd slurm-client munge > /dev/null
fi
mkdir -p "$folder"/{ctl,d,log} /run/munge
if ! munge -n < /dev/null 2> /dev/null | unmunge > /dev/null 2>&1; then
  chown -R root:root /run/munge /var/log/munge /var/lib/munge /etc/munge
  chmod 755 /run/munge
  chmod 700 /etc/munge /var/log/munge /var/lib/munge
  chmod 400 /etc/munge/munge.key
  setsid munged < /dev/null
fi
host=$(hostname)
cat > "$folder/slurm.conf" << END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
StateSaveLocation=$folder/ctl
SlurmdSpoolDir=$folder/d
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPort=6817
SlurmdPort=6818
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AuthInfo=cred_expire=5
SlurmdTimeout=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF OverSubscribe=NO
END
export SLURM_CONF=$folder/slurm.conf
setsid slurmctld -c < /dev/null
setsid slurmd < /dev/null
for _ in $(seq 60); do
  if sinfo --noheader --format=%t 2> /dev/null | grep -q idle; then exit 0; fi
  sleep 0.5
done
echo "Slurm does not start; see $folder/log" >&2
exit 1
