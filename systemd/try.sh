#!/usr/bin/env bash
# Does the unit do what it promises under a real systemd? Runs portcullis.service in a user manager of its own, with load: five
# reloads, a reload that must fail, log rotation, the watchdog, the stop.
#
#   systemd/try.sh                           PORTCULLIS=target/release/portcullis, PORT=18480
#
# As root, in a container or virtual machine: the manager gets a control group and a pid namespace of its own, and nothing of the
# system's. Needs systemd 252 or later, oha, curl and jq, and installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

RELOADS=5

[ -x /lib/systemd/systemd ] && command -v systemctl >/dev/null || .ci/deps systemd

if [ -z "${IN_OWN_NAMESPACE:-}" ]; then
    # Moves this shell out of the group it shares with others: a manager takes over the group it is started in.
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        [ -w $hierarchy/cgroup.procs ] || continue
        mkdir -p $hierarchy/portcullis-try
        echo $$ >$hierarchy/portcullis-try/cgroup.procs
    done
    IN_OWN_NAMESPACE=yes exec unshare --pid --fork --kill-child --mount-proc "$PWD/systemd/try.sh" "$@"
fi

# A /run of our own, with what the system's manager keeps there: the sign that the machine was booted with systemd, and the files
# that hide others from a service. Shared, as PID 1 has it, with namespaces made below; the outer one does not see it.
mount -t tmpfs tmpfs /run
mount --make-rshared /
mkdir -p /run/systemd/system /run/systemd/inaccessible /run/try
(cd /run/systemd/inaccessible && : >reg && mkdir dir && mkfifo fifo && mknod chr c 0 0 && mknod blk b 0 0 && chmod 000 ./*)
export XDG_RUNTIME_DIR=/run/try
AUDIT=$XDG_RUNTIME_DIR/state/log/portcullis/audit.jsonl
PORT=${PORT:-18480}
. benches/load/sample.sh
sample_needs
trap 'systemctl --user exit 2>/dev/null || true; finish' EXIT

sample_start "server:
  threads: 2
  pid_file: $XDG_RUNTIME_DIR/portcullis/portcullis.pid
  upgrade_sock: $XDG_RUNTIME_DIR/portcullis/upgrade.sock
  grace_period_seconds: 20" credential:

# The unit itself, with the paths of this run. The drop-in takes back only the other user, which a user manager cannot give, and
# what would hide the directories of this run.
units=$XDG_RUNTIME_DIR/systemd/user
mkdir -p "$units/portcullis.service.d"
sed -e "s|/usr/bin/portcullis|$PORTCULLIS|; s|/etc/portcullis|$DIR|" systemd/portcullis.service >"$units/portcullis.service"
cat >"$units/portcullis.service.d/try.conf" <<END
[Service]
DynamicUser=no
User=
ProtectHome=no
PrivateTmp=no
ReadWritePaths=$XDG_RUNTIME_DIR
# There is no journal here.
StandardOutput=append:$DIR/gateway.log
StandardError=append:$DIR/gateway.log
# Short, so that this run sees it work.
WatchdogSec=4s
END

mkdir -p "$XDG_RUNTIME_DIR/state"
XDG_CONFIG_HOME=$XDG_RUNTIME_DIR/state XDG_STATE_HOME=$XDG_RUNTIME_DIR/state \
    SYSTEMD_LOG_TARGET=console /lib/systemd/systemd --user --unit=basic.target >"$DIR/manager.log" 2>&1 &
started+=($!)
until_true 20 systemctl --user show --property=Version
unit() { systemctl --user "$@" portcullis.service; }
property() { unit show --value --property="$1"; }
main() { property MainPID; }

said() { printf '%-34s %s\n' "$1" "$2"; }
check() {
    said "$1" "$2"
    [ "$2" = "$3" ] || fail "$1: $2 where $3 was expected
$(tail -20 "$DIR/gateway.log")"
}

systemctl --user start portcullis.service || fail "$(unit status --no-pager || true; cat "$DIR/manager.log" "$DIR/gateway.log")"
until_true 20 ready
check 'started' "$(property ActiveState)" active
open_sessions 8

load $((RELOADS * 9 + 20)) &
load=$!
sleep 1
moved=0
slowest=0
for _ in $(seq $RELOADS); do
    before=$(main)
    begun=$(date +%s%3N)
    unit reload || fail "$(unit status --no-pager || true; tail -30 "$DIR/gateway.log")"
    took=$(($(date +%s%3N) - begun))
    [ $took -le $slowest ] || slowest=$took
    [ "$(main)" != "$before" ] && [ "$(property ActiveState)" = active ] && moved=$((moved + 1))
    count_all
    sleep 6
done
check 'reloads that moved MainPID' $moved $RELOADS
said 'slowest reload' "$slowest ms"

cp "$DIR/portcullis.yaml" "$DIR/good.yaml"
before=$(main)
echo 'nonsense: true' >"$DIR/broken" && cat "$DIR/good.yaml" "$DIR/broken" >"$DIR/portcullis.yaml"
unit reload 2>/dev/null && outcome=accepted || outcome=refused
check 'reload of a broken configuration' "$outcome" refused
check 'the process that serves then' "$(main)" "$before"
cp "$DIR/good.yaml" "$DIR/portcullis.yaml"

# What the logrotate snippet does.
mv "$AUDIT" "$AUDIT.1"
unit kill --kill-whom=main --signal=HUP
until_true 10 test -s "$AUDIT"
check 'audit log after rotation' "$(head -1 "$AUDIT" | jq -r 'has("seq")')" true

kill -0 $load 2>/dev/null || fail 'the load ended before the last step'
wait $load || true
load_report
said 'requests meanwhile' "$requests"
check 'failed' "$failures" 0
count_all
check 'session calls that were lost' $lost 0
check 'restarts by the watchdog' "$(property NRestarts)" 0

kill -STOP "$(main)"
restarted() { [ "$(property NRestarts)" = 1 ] && ready; }
until_true 30 restarted
check 'restarts of a process that hangs' "$(property NRestarts)" 1
count_all
check 'session calls lost by the restart' $lost 0

unit stop
check 'stopped' "$(property ActiveState) $(property Result) $(property ExecMainStatus)" 'inactive success 0'
