#!/usr/bin/env bash
# Does the unit do what it promises under a real systemd? Runs portcullis.service in a user manager of its own, with load: five
# reloads, a reload that must fail, log rotation, the watchdog, the stop.
#
#   systemd/try.sh                           PORTCULLIS=target/debug/portcullis, PORT=18480
#
# As root, in a container or virtual machine: the manager gets a control group and a pid namespace of its own, and nothing of the
# system's. Needs oha, curl, jq and systemd 252 or later.
set -euo pipefail
cd "$(dirname "$0")/.."

RELOADS=5

if [ -z "${IN_OWN_NAMESPACE:-}" ]; then
    # Moves this shell out of the group it shares with others: a manager takes over the group it is started in.
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        [ -w $hierarchy/cgroup.procs ] || continue
        mkdir -p $hierarchy/portcullis-try
        echo $$ >$hierarchy/portcullis-try/cgroup.procs
    done
    IN_OWN_NAMESPACE=yes exec unshare --pid --fork --kill-child --mount-proc "$PWD/systemd/try.sh" "$@"
fi

export XDG_RUNTIME_DIR
XDG_RUNTIME_DIR=$(mktemp -d)
AUDIT=$XDG_RUNTIME_DIR/state/log/portcullis/audit.jsonl
PORT=${PORT:-18480}
. benches/load/sample.sh
trap 'systemctl --user exit 2>/dev/null || true; finish; rm -rf "$XDG_RUNTIME_DIR"' EXIT

sample_start "server:
  threads: 2
  pid_file: $XDG_RUNTIME_DIR/portcullis/portcullis.pid
  upgrade_sock: $XDG_RUNTIME_DIR/portcullis/upgrade.sock
  grace_period_seconds: 20" credential:

# The unit itself, with the paths of this run. The drop-in takes back only what a user manager cannot do: other users, what
# needs the system's own manager, and the directories of this run, which are hidden by ProtectHome and PrivateTmp.
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
${DROP_IN:-}
# Short, so that this run sees it work.
WatchdogSec=3s
END

mkdir -p "$XDG_RUNTIME_DIR/state"
XDG_CONFIG_HOME=$XDG_RUNTIME_DIR/state XDG_STATE_HOME=$XDG_RUNTIME_DIR/state \
    /lib/systemd/systemd --user --unit=basic.target >"$DIR/manager.log" 2>&1 &
started+=($!)
until_true 20 systemctl --user show --property=Version || cat "$DIR/manager.log"
unit() { systemctl --user "$@" portcullis.service; }
property() { unit show --value --property="$1"; }
main() { property MainPID; }

said() { printf '%-34s %s\n' "$1" "$2"; }
check() {
    said "$1" "$2"
    [ "$2" = "$3" ] || fail "$1: $2 where $3 was expected
$(tail -20 "$DIR/manager.log")"
}

systemctl --user start portcullis.service || fail "$(unit status || true; cat "$DIR/manager.log")"
until_true 20 ready
check 'started' "$(property ActiveState)" active
session=$(open_session)
counted=$(open_session)
[ "$(count "$counted")" = 1 ] || fail 'the session does not count'

load $((RELOADS * 9 + 20)) "$session" &
load=$!
sleep 1
moved=0
slowest=0
for _ in $(seq $RELOADS); do
    before=$(main)
    begun=$(date +%s%3N)
    unit reload || fail "$(unit status || true; tail -30 "$DIR/manager.log")"
    took=$(($(date +%s%3N) - begun))
    [ $took -le $slowest ] || slowest=$took
    [ "$(main)" != "$before" ] && [ "$(property ActiveState)" = active ] && moved=$((moved + 1))
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
wait $load
load_report
said 'requests meanwhile' "$requests"
check 'failed' "$failures" 0
check 'calls the session has counted' "$(count "$counted")" 2
check 'restarts by the watchdog' "$(property NRestarts)" 0

kill -STOP "$(main)"
restarted() { [ "$(property NRestarts)" = 1 ] && ready; }
until_true 30 restarted
check 'restarts of a process that hangs' "$(property NRestarts)" 1
check 'calls counted after the restart' "$(count "$counted")" 3

unit stop
check 'stopped' "$(property ActiveState) $(property Result) $(property ExecMainStatus)" 'inactive success 0'
