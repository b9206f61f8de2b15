# Sourced by scripts that need something to put load on: an issuer, two tool instances (those of `portcullis demo`), a
# configuration for a gateway of the script's own in front of them, and an agent with a token. Loopback only.
#
#   PORTCULLIS  the binary     PORT  first of three ports for that gateway     DIR  a directory of this run, made here

PORTCULLIS=$(realpath "${PORTCULLIS:-target/release/portcullis}")
PORT=${PORT:-18460}
DIR=$(mktemp -d)
started=() # processes to end

finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$DIR"
}
trap finish EXIT

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# until_true SECONDS COMMAND…
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "in vain: $*"
        sleep 0.2
    done
}

# Starts issuer and tools, and writes $DIR/session.key, $DIR/sts.secret and $DIR/portcullis.yaml. The two arguments are what
# that configuration says about the gateway's process (`server:`) and where it finds the two secrets.
sample_start() {
    local server=$1 secrets=$2 demo
    "$PORTCULLIS" demo --listen 127.0.0.1:0 >"$DIR/demo.txt" 2>"$DIR/demo.log" &
    started+=($!)
    until_true 30 grep -q 'steps held' "$DIR/demo.txt"
    demo=$(dirname "$(awk '$1 == "audit" { print $2 }' "$DIR/demo.txt")")
    TOKEN=$(sed -n "s/^ALICE='\(.*\)'$/\1/p" "$DIR/demo.txt")
    cp "$demo/session.key" "$DIR/session.key"
    cp "$demo/client.secret" "$DIR/sts.secret"
    {
        printf '%s\n' "$server"
        # The demo's configuration from `listen` on, with addresses of our own, but the audience of its tokens, and nothing to
        # govern with: its pages and store stay with the demo.
        sed -e '1,/^listen:/{/^listen:/!d}' \
            -e "s/^  - address: .*/  - address: \"127.0.0.1:$PORT\"/" \
            -e "s/^metrics: .*/metrics: { address: \"127.0.0.1:$((PORT + 1))\" }/" \
            -e "s/^admin:.*/&\n  address: \"127.0.0.1:$((PORT + 2))\"/" -e '/^admin:/,/^audit:/{/^a[du]/!d}' \
            -e "s|\"$demo/audit.jsonl\"|\"${AUDIT:-$DIR/audit.jsonl}\"|" \
            -e "s|{ file: \"$demo/session.key\" }|{ $secrets session.key }|" \
            -e "s|{ file: \"$demo/client.secret\" }|{ $secrets sts.secret }|" \
            "$demo/portcullis.yaml"
    } >"$DIR/portcullis.yaml"
    [ "$secrets" = credential: ] || sed -i "s|{ file: \(s[a-z.]*\) }|{ file: $DIR/\1 }|" "$DIR/portcullis.yaml"
}

ready() {
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$((PORT + 2))/readyz")" = 200 ]
}

mcp_url() { printf 'http://127.0.0.1:%s/mcp' "$PORT"; }

# mcp BODY CURL-ARGUMENTS…: one message of revision 2025-11-25.
mcp() {
    local body=$1
    shift
    curl -sS "$(mcp_url)" -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
        -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-11-25' -d "$body" "$@"
}

# Prints the id of a session that is open.
open_session() {
    local session
    session=$(mcp '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}' \
        -D - -o /dev/null | tr -d '\r' | awk 'tolower($1) == "mcp-session-id:" { print $2 }')
    mcp '{"jsonrpc":"2.0","method":"notifications/initialized"}' -H "Mcp-Session-Id: $session" -o /dev/null
    printf '%s\n' "$session"
}

# Opens so many sessions, which `count_all` counts in.
open_sessions() {
    sessions=()
    counted=0
    lost=0
    for _ in $(seq "$1"); do sessions+=("$(open_session)"); done
    count_all
    [ $lost = 0 ] || fail 'the sessions do not count'
}

# Calls once in each session. The instance that owns a session counts its calls; each session whose number is not the next one
# adds to `lost`.
count_all() {
    local session answer
    counted=$((counted + 1))
    for session in "${sessions[@]}"; do
        # No id twice in a session: answers are told apart by it.
        answer=$(mcp "{\"jsonrpc\":\"2.0\",\"id\":$counted,\"method\":\"tools/call\",\"params\":{\"name\":\"counter\",\"arguments\":{}}}" \
            -H "Mcp-Session-Id: $session" || true)
        grep -q "\"structuredContent\":{\"count\":$counted," <<<"$answer" || lost=$((lost + 1))
    done
}

# Sets `stateless`, the headers of a call of revision 2026-07-28, and `body`: stateless_call TOOL ARGUMENTS
stateless_call() {
    stateless=(-H "Authorization: Bearer $TOKEN" -H 'Accept: application/json, text/event-stream'
        -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H "Mcp-Name: $1")
    body="{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"$1\",\"arguments\":$2,\"_meta\":{
        \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{},\"progressToken\":1}}}"
}

# load SECONDS: 64 connections that call a tool; the report goes to $DIR/load.json.
load() {
    stateless_call add '{"a":1,"b":2}'
    # What hangs is a failure too, not a reason to wait for ever.
    oha --no-tui --output-format json -z "${1}s" -w -t 30s -c 64 -m POST -T application/json \
        "${stateless[@]}" -d "$body" "$(mcp_url)" >"$DIR/load.json" 2>"$DIR/load.log"
}

# stream SECONDS: one call that takes so long and reports progress every second; what comes goes to $DIR/stream.txt.
stream() {
    stateless_call slow "{\"seconds\":$1,\"steps\":$1}"
    curl -sSN "$(mcp_url)" "${stateless[@]}" -H 'Content-Type: application/json' -d "$body" >"$DIR/stream.txt"
}

# Sets `requests` and `failures` from the report, and says what the failures were.
load_report() {
    local answered
    requests=$(jq '[.statusCodeDistribution[], .errorDistribution[]] | add // 0' "$DIR/load.json")
    answered=$(jq '.statusCodeDistribution["200"] // 0' "$DIR/load.json")
    failures=$((requests - answered))
    [ "$failures" = 0 ] || jq -c '{statusCodeDistribution, errorDistribution}' "$DIR/load.json" >&2
    [ "$requests" -gt 0 ] || fail "the load made no request: $(cat "$DIR/load.log")"
}

# Installs what the load is made and read with, when it is missing.
sample_needs() {
    command -v oha >/dev/null || cargo install oha --locked --root target/tools --target-dir target/oha
    local missing=()
    for tool in curl jq; do command -v $tool >/dev/null || missing+=($tool); done
    [ ${#missing[@]} = 0 ] || .ci/deps "${missing[@]}"
}

# Where run.sh has put oha, or would.
export PATH="$PATH:$HOME/.cargo/bin:$PWD/target/tools/bin"
