#!/usr/bin/env bash
# Does it hold? Half an hour at a steady rate of sessions that come and go, tokens that expire, signing keys that change every
# minute, and an instance that is killed every 20 seconds. Everything in target/soak, on loopback alone.
#
#   benches/load/soak.sh [MINUTES] [RATE]    default: 30 minutes; half of what the machine can do
#
# Exits 0 only when no answer was other than it must be, no call was carried out twice, and, in 20 minutes or more, resident
# memory stayed within 5 % and descriptors stayed flat at the end. `soak.sh 1` is the short form: kill -9, and nothing else lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:$HOME/.cargo/bin:$PWD/target/build-tools/bin"

built=$(cargo build --locked --release --bin portcullis --bench load --message-format=json)
program() {
    sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$built" | tail -n 1
}

exec "$(program load)" soak --portcullis "$(program portcullis)" --dir "$PWD/target/soak" \
    --minutes "${1:-30}" --rate "${2:-half}"
