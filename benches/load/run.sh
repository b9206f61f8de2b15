#!/usr/bin/env bash
# Measures Portcullis against a bare Pingora proxy, and nginx where there is one: `make bench`. About six minutes, on
# loopback alone, with everything in target/load. Options go to the program: --only PART of a row's name, --rounds N.
#
# Needs oha (https://github.com/hatoo/oha), which it installs into target/tools when it is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:$HOME/.cargo/bin:$PWD/target/build-tools/bin:$PWD/target/tools/bin"

command -v oha >/dev/null || cargo install oha --locked --root target/tools --target-dir target/oha

# The path of a program is in what cargo says of it.
built=$(cargo build --locked --release --bin portcullis --bench load --bench bare_proxy --message-format=json)
program() {
    sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$built" | tail -n 1
}

# Ten thousand streams take three descriptors each. Only root may raise the limit; with fewer descriptors there are fewer streams.
ulimit -n 32768 2>/dev/null || ulimit -n "$(ulimit -Hn)"

exec "$(program load)" run \
    --oha "$(command -v oha)" --bare "$(program bare_proxy)" --portcullis "$(program portcullis)" \
    --nginx "$(PATH="$PATH:/usr/sbin" command -v nginx || true)" \
    --dir "$PWD/target/load" --json "$PWD/target/load.json" "$@"
