//! What is asked? The requests of the load, and the rows of the table that they make.

use crate::stage::Variant;
use crate::tokens::Signature;

/// One kind of request; the same bytes go through every proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A result of 64 KiB.
    BigResult,
    /// An argument of 64 KiB.
    BigArgument,
    /// An argument that no rule allows.
    Denied,
    /// An answer as an event stream.
    Events,
    Initialize,
    /// 2026-07-28: no session, and headers that repeat the body.
    Modern,
    OpenStream,
    /// A call of about 300 bytes with a result of 64.
    Small,
}

impl Call {
    /// The JSON-RPC message.
    pub fn body(self) -> String {
        let tool = match self {
            Self::BigResult => "big",
            Self::Events => "events",
            Self::BigArgument | Self::Denied | Self::Modern | Self::Small => "echo",
            Self::Initialize => return INITIALIZE.to_owned(),
            Self::OpenStream => return String::new(),
        };
        let text = match self {
            Self::BigArgument => "lorem ipsum ".repeat(64 * 1024 / 12),
            Self::BigResult
            | Self::Denied
            | Self::Events
            | Self::Initialize
            | Self::Modern
            | Self::OpenStream
            | Self::Small => "lorem ipsum dolor sit amet ".repeat(5),
        };
        let greeting = if self == Self::Denied { "Goodbye" } else { "Hello" };
        let meta = if self == Self::Modern { MODERN_META } else { r#""progressToken":"b6f1""# };
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{greeting}, {text}!","limit":10}},"_meta":{{{meta}}}}}}}"#
        )
    }

    /// The header lines, as oha takes them.
    pub fn headers(self, token: &str, session: Option<&str>) -> Vec<String> {
        let revision = if self == Self::Modern { "2026-07-28" } else { "2025-11-25" };
        let mut headers =
            vec![format!("Authorization: Bearer {token}"), "Accept: application/json, text/event-stream".to_owned()];
        if self != Self::Initialize {
            headers.push(format!("MCP-Protocol-Version: {revision}"));
        }
        if self != Self::OpenStream {
            headers.push("Content-Type: application/json".to_owned());
        }
        if self == Self::Modern {
            headers.extend(["Mcp-Method: tools/call".to_owned(), "Mcp-Name: echo".to_owned()]);
        } else if let Some(session) = session {
            headers.push(format!("Mcp-Session-Id: {session}"));
        }
        headers
    }

    /// The whole request for the clients of our own.
    pub fn request(self, token: &str, session: Option<&str>) -> String {
        let (body, headers) = (self.body(), self.headers(token, session).join("\r\n"));
        let method = if self == Self::OpenStream { "GET" } else { "POST" };
        let length = body.len();
        format!("{method} /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    /// The status of every answer.
    pub fn status(self) -> u16 {
        if self == Self::Denied { 403 } else { 200 }
    }
}

/// Which proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    Bare,
    BareTls,
    Nginx,
    Portcullis(Variant),
}

impl Proxy {
    /// Whether clients speak TLS with it.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::BareTls | Self::Portcullis(Variant::Tls))
    }
}

/// One line of the table: who is asked what.
#[derive(Clone, Copy)]
pub struct Case {
    pub label: &'static str,
    pub proxy: Proxy,
    pub call: Call,
    pub tokens: Tokens,
}

/// Which token a request brings.
#[derive(Clone, Copy)]
pub enum Tokens {
    /// Another one each time.
    Many(Signature),
    /// The same.
    One(Signature),
}

/// Cases that are measured in turn; all are held against the first.
pub struct Row {
    pub name: &'static str,
    pub connections: usize,
    pub seconds: u64,
    pub cases: Vec<Case>,
}

/// The table, in order of importance.
pub fn rows() -> Vec<Row> {
    let all = |call| vec![bare(call), full(call), case("nginx", Proxy::Nginx, call)];
    let es256 = Case { tokens: Tokens::One(Signature::Es256), ..full(Call::Small) };
    let row = |name, connections, seconds, cases| Row { name, connections, seconds, cases };
    vec![
        row("c=32, call of 300 B", 32, 5, all(Call::Small)),
        row("c=256", 256, 5, all(Call::Small)),
        row("c=1", 1, 3, all(Call::Small)),
        row("64 KiB result", 32, 3, all(Call::BigResult)),
        row("64 KiB argument", 32, 3, all(Call::BigArgument)),
        row("SSE answer", 32, 3, vec![bare(Call::Events), full(Call::Events)]),
        row(
            "denied call",
            32,
            3,
            vec![Case { label: "allowed", ..full(Call::Small) }, Case { label: "denied", ..full(Call::Denied) }],
        ),
        row("modern request", 32, 3, vec![bare(Call::Modern), full(Call::Modern)]),
        row("ES256", 32, 3, vec![bare(Call::Small), es256]),
        row(
            "TLS on both sides",
            32,
            3,
            vec![
                case("bare Pingora", Proxy::BareTls, Call::Small),
                case("portcullis", Proxy::Portcullis(Variant::Tls), Call::Small),
            ],
        ),
        row(
            "first-seen tokens",
            32,
            3,
            vec![
                first_seen("bare", Proxy::Bare, Signature::Rs256),
                first_seen("RS256", Proxy::Portcullis(Variant::Forgetful), Signature::Rs256),
                first_seen("ES256", Proxy::Portcullis(Variant::Forgetful), Signature::Es256),
                first_seen("RS256 and exchange", Proxy::Portcullis(Variant::Amnesic), Signature::Rs256),
            ],
        ),
        row(
            "rules",
            32,
            3,
            vec![
                case("10 rules", Proxy::Portcullis(Variant::Rules(10)), Call::Small),
                case("1,000 rules", Proxy::Portcullis(Variant::Rules(1_000)), Call::Small),
                case("10,000 rules", Proxy::Portcullis(Variant::Rules(10_000)), Call::Small),
            ],
        ),
        row("features that do not match", 32, 5, features(Call::Small)),
        row("and a 64 KiB result", 32, 3, features(Call::BigResult)),
    ]
}

fn bare(call: Call) -> Case {
    case("bare Pingora", Proxy::Bare, call)
}

fn full(call: Call) -> Case {
    case("portcullis", Proxy::Portcullis(Variant::Full), call)
}

/// Held against a gateway that has none of them.
fn features(call: Call) -> Vec<Case> {
    vec![
        case("none", Proxy::Portcullis(Variant::Full), call),
        case("none matches", Proxy::Portcullis(Variant::Features), call),
        case("answer scanned", Proxy::Portcullis(Variant::Scanning), call),
    ]
}

fn case(label: &'static str, proxy: Proxy, call: Call) -> Case {
    Case { label, proxy, call, tokens: Tokens::One(Signature::Rs256) }
}

fn first_seen(label: &'static str, proxy: Proxy, signature: Signature) -> Case {
    Case { label, proxy, call: Call::Small, tokens: Tokens::Many(signature) }
}

const MODERN_META: &str = concat!(
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{}"#
);

const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"load","version":"1"}}}"#
);
