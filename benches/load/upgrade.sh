#!/usr/bin/env bash
# Does anybody notice five upgrades and five reloads? 64 connections call a tool in one session, a second session counts, and a
# stream that is open from before the first upgrade reports its progress.
#
#   benches/load/upgrade.sh [ROUNDS]         PORTCULLIS=target/debug/portcullis, PORT=18460
#
# Exits 0 only when no request failed, no session was lost and the stream got every event.
set -euo pipefail
cd "$(dirname "$0")/../.."
. benches/load/sample.sh

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

loaded=$(open_session)
counted=$(open_session)
[ "$(count "$counted")" = 1 ] || fail 'the counting session does not count'
wanted=1
lost=0
still_counts() {
    wanted=$((wanted + 1))
    [ "$(count "$counted")" = $wanted ] || lost=$((lost + 1))
}

mcp "$(call slow "{\"seconds\":$STEPS,\"steps\":$STEPS}" ',"_meta":{"progressToken":1}')" -N -H "Mcp-Session-Id: $counted" \
    >"$DIR/stream.txt" &
stream=$!
# Longer than all rounds; ended from outside, the load would count its own open requests as failures.
load $((ROUNDS * (2 * PAUSE + 8))) "$loaded" &
load=$!
sleep 1

upgrades=0
reloads=0
for _ in $(seq "$ROUNDS"); do
    before=$(serving)
    "$PORTCULLIS" upgrade --config "$DIR/portcullis.yaml" >>"$DIR/upgrade.log" 2>&1 || fail "$(cat "$DIR/upgrade.log")"
    [ "$(serving)" != "$before" ] && upgrades=$((upgrades + 1))
    still_counts
    sleep $PAUSE
    still_counts
    kill -HUP "$(serving)"
    sleep $PAUSE
    still_counts
done
reloads=$(grep -c 'The configuration was reloaded' "$DIR/gateway.log" || true)
kill -0 $load 2>/dev/null || fail 'the load ended before the last round'
wait $load
wait $stream
events=$(grep -c notifications/progress "$DIR/stream.txt" || true)
results=$(grep -c '"result"' "$DIR/stream.txt" || true)

load_report
printf 'upgrades          %s of %s\nreloads           %s of %s\n' $upgrades "$ROUNDS" "$reloads" "$ROUNDS"
printf 'requests          %s\nfailed            %s\n' "$requests" "$failures"
printf 'sessions lost     %s\nstream events     %s of %s, result %s of 1\n' $lost "$events" $STEPS "$results"
[ $upgrades = "$ROUNDS" ] && [ "$reloads" = "$ROUNDS" ] && [ "$failures" = 0 ] && [ $lost = 0 ] &&
    [ "$events" = $STEPS ] && [ "$results" = 1 ]
