#!/usr/bin/env bash
# A Slurm of one machine: `bash tests/cluster/slurm.sh FOLDER`. SLURM_CONF has to be FOLDER/slurm.conf
# for its commands, and the numbers of its three daemons are in FOLDER/*.pid. Two partitions: jobs of
# "urgent" pre-empt those of "debug", which go back into the queue. FOLDER should be short: a socket's
# path has at most 108 characters.
set -euo pipefail
folder=$(realpath -m "$1")
host=$(hostname)
user=$(id -un)
read -r port another < <(shuf -i 20000-30000 -n 2 | xargs) # what a killed run left may have others
mkdir -p "$folder"/{ctl,d,log}
chmod 711 "$folder"
cat > "$folder/slurm.conf" << END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/ctl
SlurmdSpoolDir=$folder/d
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPort=$port
SlurmdPort=$another
ProctrackType=proctrack/pgid
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF OverSubscribe=NO
END
export SLURM_CONF=$folder/slurm.conf
(umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
setsid munged --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munge.seed" \
  --log-file="$folder/log/munged.log" < /dev/null
setsid slurmctld -c < /dev/null
setsid slurmd < /dev/null
for _ in $(seq 120); do
  if sinfo --noheader --format=%t 2> /dev/null | grep -q idle; then exit 0; fi
  sleep 0.25
done
echo "Slurm does not start:" >&2
tail -n 20 "$folder"/log/*.log >&2
exit 1
