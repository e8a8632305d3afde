#!/usr/bin/env bash
# Runs slurm-array.sh under a Slurm of its own on this machine and compares the
# rows of its four tasks with those of a single run:
#
#   sims/cluster/try-locally.sh [STUDY]
#
# For Debian with the packages slurm-wlm and munge, as root; needs no systemd and
# leaves nothing running. STUDY: default sims/calibration.toml with 200
# replicates.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in slurmctld slurmd munged sbatch; do
    command -v "$program" >/dev/null || { echo "needs $program: apt-get install slurm-wlm munge" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root, which runs slurmctld and slurmd here" >&2; exit 2; }

place=$(mktemp -d)
daemons=()
leave() {
    [ ${#daemons[@]} = 0 ] || kill "${daemons[@]}" 2>/dev/null || true
    wait
    rm -rf "$place"
}
trap leave EXIT

cargo build --quiet --bin rate_sweep
export RATE_SWEEP=$PWD/target/debug/rate_sweep

study=${1:-}
if [ -z "$study" ]; then
    cp -r sims/truths "$place/truths"
    study=$place/calibration.toml
    sed 's/^replicates = .*/replicates = 200/' sims/calibration.toml >"$study"
fi

# Authentication with a key of its own.
mkdir -m 700 "$place/munge"
dd if=/dev/urandom of="$place/munge/key" bs=128 count=1 status=none
chmod 600 "$place/munge/key"
chmod 755 "$place"
mkdir -m 755 "$place/socket"
munged --foreground --force --key-file="$place/munge/key" --socket="$place/socket/munge" \
    --pid-file="$place/munge/pid" --log-file="$place/munge/log" --seed-file="$place/munge/seed" &
daemons+=($!)

node=$(hostname -s)
mkdir "$place/state" "$place/spool"
export SLURM_CONF=$place/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$place/socket/munge
CredType=cred/munge
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld -D &
daemons+=($!)
slurmd -D -N "$node" &
daemons+=($!)
for _ in $(seq 60); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo

sbatch --wait --output="$place/task-%a.log" sims/cluster/slurm-array.sh "$study" --out "$place/shared"
cat "$place"/task-*.log

name=$(basename "$study" .toml)
"$RATE_SWEEP" run "$study" --out "$place/single" >/dev/null 2>&1 || true
rows() { # without header and times, each row once
    tail -q -n +2 "$@" | sed 's/,[^,]*$//' | sort
}
rows "$place/shared/$name"/rows.*-of-*.csv >"$place/merged"
rows "$place/single/$name/rows.csv" >"$place/alone"
wc -l "$place/shared/$name"/rows.*-of-*.csv
cmp "$place/merged" "$place/alone"
echo "$(slurmctld -V): the $(wc -l <"$place/alone") rows of the array equal those of a single run"
