//! What do the proxies stand in front of? An MCP server whose answers are fixed bytes, so that it costs next to nothing,
//! and an RFC 8693 token endpoint beside it.
//!
//! What a request asks is found by looking for a few words in its body: the load is ours, so nothing has to be parsed. All
//! answers are for the JSON-RPC id 1.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certificates;

/// Serves on these ports of 127.0.0.1 until the process ends: in clear text, and over TLS on those after
/// `tls CERTIFICATE KEY`.
pub fn serve(arguments: &[&str]) {
    let (clear, tls) = match arguments.iter().position(|argument| *argument == "tls") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, [].as_slice()),
    };
    let acceptor = tls.first().map(|certificate| certificates::acceptor(certificate.as_ref(), tls[1].as_ref()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answers = Arc::new(Answers::new());
        let mut listeners = tokio::task::JoinSet::new();
        let clear = clear.iter().map(|port| (port, None));
        let over_tls = tls.iter().skip(2).map(|port| (port, acceptor.clone()));
        for (port, acceptor) in clear.chain(over_tls) {
            listeners.spawn(listen(port.parse().expect("PORT"), acceptor, Arc::clone(&answers)));
        }
        listeners.join_all().await;
    });
}

/// Answers requests.
pub trait Answer: Send + Sync + 'static {
    /// The answer to a request with this head and body: head and body too.
    fn to(&self, head: &[u8], body: &[u8]) -> Cow<'_, [u8]>;
}

/// Serves on this port of 127.0.0.1; over TLS with an `acceptor`.
pub async fn listen(port: u16, acceptor: Option<TlsAcceptor>, answers: Arc<impl Answer>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    let listener: TcpListener = socket.listen(8192).unwrap();
    loop {
        let Ok((stream, _peer)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
        tokio::spawn(async move {
            match acceptor {
                None => converse(stream, answers).await,
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    converse(stream, answers).await;
                }
            }
        });
    }
}

/// Answers the requests of one connection.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Arc<impl Answer>) {
    let mut received = Vec::new();
    loop {
        let (head, whole) = loop {
            if let Some(head) = head_length(&received) {
                let whole = head + content_length(&received[..head]);
                if received.len() >= whole {
                    break (head, whole);
                }
                received.reserve(whole - received.len());
            } else {
                received.reserve(4096);
            }
            match stream.read_buf(&mut received).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let answer = answers.to(&received[..head], &received[head..whole]);
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        drop(answer);
        received.drain(..whole);
    }
}

/// The bytes of every answer, head included.
struct Answers {
    accepted: Vec<u8>,
    big: Vec<u8>,
    events: Vec<u8>,
    exchanged: Vec<u8>,
    initialized: Vec<u8>,
    small: Vec<u8>,
    stream: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let capabilities = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fixed","version":"1"}}"#;
        let initialized = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{capabilities}}}"#);
        let event = format!("event: message\ndata: {}\n\n", result(64));
        let events = format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
        let stream_head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        Self {
            accepted: b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec(),
            big: json("", &result(64 * 1024)),
            events: format!("{stream_head}{events}").into_bytes(),
            exchanged: json("cache-control: no-store\r\n", EXCHANGED),
            initialized: json("mcp-session-id: 6f1c2f8e-0a52-4b4c-9a53-3c1d7a1b9e10\r\n", &initialized),
            small: json("", &result(64)),
            stream: format!("{stream_head}e\r\n: the stream\n\n\r\n").into_bytes(),
        }
    }
}

impl Answer for Answers {
    fn to(&self, head: &[u8], body: &[u8]) -> Cow<'_, [u8]> {
        if head.starts_with(b"GET ") {
            return Cow::Borrowed(&self.stream);
        }
        if head.starts_with(b"POST /token ") {
            return Cow::Borrowed(&self.exchanged);
        }
        // The method and the name of the tool stand before the arguments.
        let start = &body[..body.len().min(256)];
        Cow::Borrowed(if contains(start, br#""name":"echo""#) {
            &self.small
        } else if contains(start, br#""name":"big""#) {
            &self.big
        } else if contains(start, br#""name":"events""#) {
            &self.events
        } else if contains(start, br#""method":"initialize""#) {
            &self.initialized
        } else {
            &self.accepted
        })
    }
}

/// A `tools/call` result with this many bytes of text.
fn result(text_bytes: usize) -> String {
    let text = "All work and no play makes a dull tool. ".repeat(text_bytes / 40 + 1);
    let text = &text[..text_bytes];
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}],"isError":false}}}}"#)
}

/// The bytes of an answer in JSON; `headers` are lines.
pub fn json(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .into()
}

/// Where the body begins, once the head is whole.
fn head_length(received: &[u8]) -> Option<usize> {
    received.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4)
}

/// The length of the body; 0 without the header.
fn content_length(head: &[u8]) -> usize {
    let mut lines = head.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    });
    let value = value.and_then(|value| std::str::from_utf8(value).ok());
    value.map_or(0, |value| value.trim().parse().expect("Content-Length"))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

const EXCHANGED: &str = concat!(
    r#"{"access_token":"exchanged-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","#,
    r#""issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3600}"#
);
