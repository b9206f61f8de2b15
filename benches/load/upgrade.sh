#!/usr/bin/env bash
# Does anybody notice five upgrades and five reloads? 64 connections call a tool, eight sessions count, and a stream that
# is open from before the first upgrade reports its progress.
#
#   benches/load/upgrade.sh [ROUNDS]         PORTCULLIS=target/release/portcullis, PORT=18460
#
# Exits 0 only when no request failed, no session was lost and the stream got every event.
set -euo pipefail
cd "$(dirname "$0")/../.."
. benches/load/sample.sh
sample_needs

ROUNDS=${1:-5}
PAUSE=4                                  # seconds after each upgrade, and after each reload
STEPS=20                                 # progress events of the stream, one a second

sample_start "server:
  threads: 2
  pid_file: $DIR/portcullis.pid
  upgrade_sock: $DIR/upgrade.sock
  grace_period_seconds: 60" file:
"$PORTCULLIS" run --config "$DIR/portcullis.yaml" >"$DIR/gateway.log" 2>&1 &
serving() { cat "$DIR/portcullis.pid"; }
until_true 30 ready
trap 'kill "$(serving)" 2>/dev/null || true; finish' EXIT

open_sessions 8
stream $STEPS &
stream=$!
# Longer than all rounds take on a busy machine.
load $((ROUNDS * (2 * PAUSE + 10))) &
load=$!
sleep 1

upgrades=0
reloads=0
for _ in $(seq "$ROUNDS"); do
    before=$(serving)
    "$PORTCULLIS" upgrade --config "$DIR/portcullis.yaml" >>"$DIR/upgrade.log" 2>&1 || fail "$(cat "$DIR/upgrade.log")"
    [ "$(serving)" != "$before" ] && upgrades=$((upgrades + 1))
    count_all
    sleep $PAUSE
    count_all
    kill -HUP "$(serving)"
    sleep $PAUSE
    count_all
done
reloads=$(grep -c 'The configuration was reloaded' "$DIR/gateway.log" || true)
kill -0 $load 2>/dev/null || fail 'the load ended before the last round'
wait $load || true
wait $stream || true
events=$(grep -c notifications/progress "$DIR/stream.txt" || true)
results=$(grep -c '"result"' "$DIR/stream.txt" || true)

load_report
printf 'upgrades          %s of %s\nreloads           %s of %s\n' $upgrades "$ROUNDS" "$reloads" "$ROUNDS"
printf 'requests          %s\nfailed            %s\n' "$requests" "$failures"
printf 'session calls     %s in %s sessions, %s wrong\n' $((counted * ${#sessions[@]})) ${#sessions[@]} $lost
printf 'stream events     %s of %s, result %s of 1\n' "$events" $STEPS "$results"
[ $upgrades = "$ROUNDS" ] && [ "$reloads" = "$ROUNDS" ] && [ "$failures" = 0 ] && [ $lost = 0 ] &&
    [ "$events" = $STEPS ] && [ "$results" = 1 ]
