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
        # The demo's configuration from `listen` on, with addresses of our own, but the audience of its tokens.
        sed -e '1,/^listen:/{/^listen:/!d}' \
            -e "s/^  - address: .*/  - address: \"127.0.0.1:$PORT\"/" \
            -e "s/^metrics: .*/metrics: { address: \"127.0.0.1:$((PORT + 1))\" }/" \
            -e "s/^admin: .*/admin: { address: \"127.0.0.1:$((PORT + 2))\" }/" \
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

# mcp BODY CURL-ARGUMENTS…: one message of revision 2025-11-25.
mcp() {
    local body=$1
    shift
    curl -sS "http://127.0.0.1:$PORT/mcp" -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
        -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-11-25' -d "$body" "$@"
}

call() {
    printf '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s","arguments":%s%s}}' "$1" "$2" "${3:-}"
}

# Prints the id of a session that is open.
open_session() {
    local session
    session=$(mcp '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}' \
        -D - -o /dev/null | tr -d '\r' | awk 'tolower($1) == "mcp-session-id:" { print $2 }')
    mcp '{"jsonrpc":"2.0","method":"notifications/initialized"}' -H "Mcp-Session-Id: $session" -o /dev/null
    printf '%s\n' "$session"
}

# count SESSION: how many calls the session's own instance has counted, this one included; 0 when the session is lost.
count() {
    local answer
    answer=$(mcp "$(call counter '{}')" -H "Mcp-Session-Id: $1" | sed 's/^data: //')
    { grep '^{' <<<"$answer" || echo '{}'; } | jq -r '.result.structuredContent.count // 0' | tail -1
}

# load SECONDS SESSION: 64 connections that call a tool in that session; the report goes to $DIR/load.json.
load() {
    oha --no-tui --output-format json -z "${1}s" -w -c 64 -m POST -T application/json \
        -H "Authorization: Bearer $TOKEN" -H 'Accept: application/json, text/event-stream' \
        -H 'MCP-Protocol-Version: 2025-11-25' -H "Mcp-Session-Id: $2" \
        -d "$(call add '{"a":1,"b":2}')" "http://127.0.0.1:$PORT/mcp" >"$DIR/load.json" 2>"$DIR/load.log"
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

for tool in oha curl jq; do
    command -v "$tool" >/dev/null || fail "$tool is missing$([ "$tool" = oha ] && echo ' (cargo install oha --locked)')"
done
