#!/usr/bin/env bash
# A real Slurm on this one machine, to try jobs on: a controller and two nodes, n1 and n2, of one CPU each.
#
#   scripts/slurm_testbed.sh install          install what it needs (Debian, Ubuntu: slurm-wlm and munge)
#   scripts/slurm_testbed.sh start FOLDER     start it; its configuration, logs and pid files lie in FOLDER
#   scripts/slurm_testbed.sh status FOLDER    what runs, its nodes and its jobs
#   scripts/slurm_testbed.sh stop FOLDER      cancel its jobs and end what `start` started, and nothing else
#
# Clients find it by SLURM_CONF=FOLDER/slurm.conf. Partitions: `low`, whose jobs are requeued, GRACE seconds after a
# SIGTERM, when a job of `high` wants their nodes; `abrupt`, the same without that grace.
#
# All of it runs as root and listens on the loopback address; nothing outside FOLDER is written, and a Slurm or a
# munge that this machine runs otherwise is left alone.
#
# PORT=...    the first of the three ports it listens on (17817)
# GRACE=...   seconds between SIGTERM and requeueing in `low` (30)
# NOTICE=...  how often the controller looks at time limits and jobs that wait, in seconds (2)
set -euo pipefail

port=${PORT:-17817}
grace=${GRACE:-30}
notice=${NOTICE:-2}
nodes="n1 n2"

say() { printf 'slurm-testbed: %s\n' "$*"; }
die() { printf 'slurm-testbed: error: %s\n' "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "its daemons run as root; run this as root"; }

need_programs() {
    local program
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || die "there is no $program here; run $0 install"
    done
}

install() {
    need_root
    command -v apt-get >/dev/null || die "no apt-get here; install slurmctld, slurmd, Slurm's clients and munge by hand"
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends slurm-wlm munge
}

write_configuration() {
    local host
    host=$(hostname -s)
    if [ ! -e "$folder/munge.key" ]; then
        (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    fi
    cat >"$folder/slurm.conf" <<CONF
ClusterName=testbed
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until the credential of its earlier start has expired: 2 minutes by default.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmctldPort=$port
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
StateSaveLocation=$folder/state
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdSpoolDir=$folder/spool-%n
SlurmdDebug=verbose
SlurmctldDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=10
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=$notice,bf_interval=$notice,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 Gres=gpu:1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 Gres=gpu:1
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=$grace
PartitionName=abrupt Nodes=n1,n2 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF
CONF
    # The graphics cards are make-believe: a job may ask for one, and gets the null device.
    echo "Name=gpu File=/dev/null" >"$folder/gres.conf"
    echo "CgroupPlugin=autodetect" >"$folder/cgroup.conf"
}

start() {
    need_programs
    mkdir -p "$folder/state"
    [ -z "$(running)" ] || die "it runs already in $folder; stop it first"
    write_configuration
    # --force: FOLDER may be readable by root alone, and so are all who use it.
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" \
        2>"$folder/munged.err" || die "munged: $(cat "$folder/munged.err")"
    slurmctld -f "$SLURM_CONF" -c
    local node
    for node in $nodes; do
        slurmd -f "$SLURM_CONF" -N "$node"
    done
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --Node --partition low --format %T 2>/dev/null | grep -c '^idle$')" = 2 ]; then
            say "two nodes are idle; export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    tail -n 5 "$folder"/*.log >&2
    die "the nodes do not become idle; the logs are in $folder"
}

# The daemons of FOLDER that live: "NAME PID" a line. A pid file that outlived its daemon may name another process.
running() {
    local file pid
    for file in "$folder"/*.pid; do
        pid=$(cat "$file" 2>/dev/null) || continue
        if tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$folder"; then
            echo "$(basename "$file" .pid) $pid"
        fi
    done
}

# What a node starts for each step of a job: it has no pid file, and the configuration in its environment.
step_daemons() {
    local process
    for process in /proc/[0-9]*; do
        if [ "$(cat "$process/comm" 2>/dev/null)" = slurmstepd ] &&
            tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "SLURM_CONF=$SLURM_CONF"; then
            echo "slurmstepd ${process#/proc/}"
        fi
    done
}

cancel_jobs() {
    scancel --user=root
    for second in $(seq 20); do
        [ -n "$(squeue --noheader)" ] || return 0
        # Whoever does not end within 5 seconds is not asked any more.
        [ "$second" -lt 5 ] || scancel --quiet --full --signal=KILL --user=root
        sleep 1
    done
}

stop() {
    local name pid
    [ -z "$(running | grep slurmctld)" ] || cancel_jobs 2>/dev/null || true
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        pid=$(running | sed -n "s/^$name //p")
        [ -z "$pid" ] || end "$name" "$pid"
    done
    while read -r name pid; do
        end "$name" "$pid"
    done < <(step_daemons)
    [ -z "$(running)$(step_daemons)" ] || die "still there: $(running) $(step_daemons)"
    say "stopped"
}

end() {
    kill "$2" 2>/dev/null || true
    for _ in $(seq 100); do
        [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$2/cmdline")" ] || return 0 # gone, or a zombie
        sleep 0.1
    done
    say "$1 does not end; killing it"
    kill -9 "$2" 2>/dev/null || true
    sleep 0.5
}

status() {
    running
    [ -n "$(running)" ] || { say "nothing runs in $folder"; exit 1; }
    sinfo
    squeue
}

[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
command=$1
if [ "$command" != install ]; then
    [ $# = 2 ] || die "say which folder: $0 $command FOLDER"
    need_root
    mkdir -p "$2"
    folder=$(cd "$2" && pwd -P)
    export SLURM_CONF=$folder/slurm.conf
fi
case $command in
    install | start | stop | status) "$command" ;;
    *) die "no command '$command'; there are install, start, stop, status" ;;
esac
