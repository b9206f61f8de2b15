//! How does an admitted request travel to its instance?

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use pingora::connectors::L4Connect;
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, RetryType};
use pingora_proxy::Session as Client;

use crate::config::{ServerConfig, UpstreamTimeouts};
use crate::identity::Principal;
use crate::mcp::{Era, Method as McpMethod};
use crate::snapshot::Live;

use super::Shell;
use super::credentials::Obtained;
use super::pipeline::{Admitted, Ask, SESSION_ID};
use super::record::{Record, X_REQUEST_ID};
use super::rejection::Rejection;
use super::watchdog::{Limits, Owner, RanOut, Turn};

/// How long one request waits for its server: the three limits of `servers[].timeouts`, each at its time.
pub(super) struct Patience {
    first_byte: Duration,
    idle: Duration,
    total: Duration,
    /// The hard end; known when the request is first sent.
    until: Option<Instant>,
    owner: Owner,
    live: Arc<Live>,
    /// Keeps the limits while the server is silent. `None` over HTTP/2.
    turn: Option<Turn>,
}

impl Patience {
    /// For a request of `principal`, which `live` may say to end.
    pub(super) fn new(timeouts: &UpstreamTimeouts, principal: &Principal, live: &Arc<Live>) -> Self {
        let UpstreamTimeouts { first_byte, idle, total, .. } = *timeouts;
        let owner = Owner { principal: principal.clone(), since: Instant::now() };
        Self { first_byte, idle, total, until: None, owner, live: Arc::clone(live), turn: None }
    }

    /// The request is about to be sent on `connection`.
    ///
    /// # Errors
    /// When nothing may be sent on it.
    pub(super) fn begin(&mut self, connection: Option<&Digest>) -> Result<(), RanOut> {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + self.total);
        let limits = Limits { until: until.min(now + self.first_byte), silence: None };
        self.turn = Turn::begin(connection, &self.owner, limits, now)?;
        Ok(())
    }

    /// The server was heard: its head, or a piece of its body.
    ///
    /// # Errors
    /// When it was too late.
    pub(super) fn heard(&self) -> Result<(), RanOut> {
        let now = Instant::now();
        let until = self.until.unwrap_or(now);
        // The longer of the two is Pingora's own limit: see `read_timeout`.
        let limits = Limits { until, silence: (self.idle < self.first_byte).then_some(self.idle) };
        match &self.turn {
            Some(turn) => turn.heard(limits, now),
            None if now >= until || self.is_ended() => Err(RanOut),
            None => Ok(()),
        }
    }

    /// The answer is whole.
    pub(super) fn end(&self) {
        if let Some(turn) = &self.turn {
            turn.end();
        }
    }

    /// The connection is used no longer.
    pub(super) fn give_up_connection(&mut self) {
        self.turn = None;
    }

    /// Whether somebody has ended the sessions of whoever asked, since they asked.
    pub(super) fn is_ended(&self) -> bool {
        self.live.revocations().ended_open(&self.owner.principal, self.owner.since)
    }

    /// Whether the request's time has run out.
    pub(super) fn ran_out(&self) -> bool {
        self.turn.as_ref().is_some_and(Turn::ran_out)
    }
}

/// How to connect to the admitted instance.
pub(super) fn peer(shell: &Shell, admitted: &Admitted) -> Result<Box<HttpPeer>, Rejection> {
    // INVARIANT: nothing reaches an upstream without a permit, not even a connection.
    if !admitted.permits.cover(&admitted.ask) {
        return Err(Rejection::Denied);
    }
    let mut peer = admitted.instance.peer().ok_or(Rejection::NoHealthyInstance)?;
    let server = &admitted.route.server.config;
    peer.options.read_timeout = Some(read_timeout(server, &admitted.ask));
    if !server.http2 {
        peer.options.custom_l4 = Some(Arc::clone(&shell.watchdog) as Arc<dyn L4Connect + Send + Sync>);
    }
    Ok(Box::new(peer))
}

/// Writes the request head that the instance sees. It starts empty: of the client's headers only those on
/// [`PASSED_ON`] travel, so the client's token, cookies, forwarding headers and copies of ours cannot.
pub(super) fn write_head(
    admitted: &Admitted,
    client: &Client,
    record: &Record,
    upstream: &mut RequestHeader,
) -> pingora::Result<()> {
    let from = client.req_header();
    let server = &admitted.route.server.config;
    let mut headers = HeaderMap::with_capacity(HEADERS_USUAL);
    headers.insert(HOST, admitted.instance.host.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(OUR_USER_AGENT));

    let modern = admitted.ask.revision().era() == Era::Modern;
    for (name, value) in &from.headers {
        if PASSED_ON.contains(&name.as_str()) || modern && is_modern_header(name) || !modern && name == LAST_EVENT_ID {
            headers.append(name.clone(), value.clone());
        }
    }
    match &admitted.ask {
        Ask::Messages(request) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        }
        Ask::OpenStream(_) => {
            headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        }
        Ask::EndSession(_) => {
            headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
    }
    if let Some(session) = &admitted.session {
        headers.insert(SESSION_ID, text_value(&session.upstream_id)?);
    }
    for (claim, name) in &server.forward_claims {
        if let Some(value) = admitted.caller.claims().get(&**claim).and_then(header_value) {
            headers.insert(name.clone(), value);
        }
    }
    if let Some(ip) = record.client_ip {
        headers.insert(X_FORWARDED_FOR, text_value(&ip.to_string())?);
    }
    headers.insert(X_FORWARDED_HOST, text_value(&record.host)?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(record.scheme));
    headers.insert(X_REQUEST_ID, record.request_id_value());
    if let Some(Obtained { credential, .. }) = &admitted.credential {
        headers.insert(credential.header().clone(), credential.value().clone());
    }

    // Put together as `http` does it: Pingora's own way keeps the spelling of every name in a second map, and reads each
    // name anew.
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = from.method.clone();
    head.uri = Uri::from(PathAndQuery::try_from(&*server.path).or_err(ErrorType::InvalidHTTPHeader, "server path")?);
    head.version = upstream.version;
    head.headers = headers;
    *upstream = head.into();
    Ok(())
}

/// Pingora's limit for the wait until the head and for each silence after it, fixed before either begins.
///
/// Over HTTP/1.1 it is the longer of the two: when that is `idle`, Pingora keeps it exactly, and else the watchdog does,
/// as it keeps `first_byte` and `total` in any case. Over HTTP/2 nothing else wakes a request, so the limit is that of
/// what is waited for most: the answer to a POST, the next event of a stream.
fn read_timeout(server: &ServerConfig, ask: &Ask) -> Duration {
    let UpstreamTimeouts { first_byte, idle, total, .. } = server.timeouts;
    match ask {
        _ if !server.http2 => first_byte.max(idle),
        Ask::EndSession(_) | Ask::Messages(_) => first_byte.min(total),
        Ask::OpenStream(_) => idle.min(total),
    }
}

/// The body that goes upstream: the bytes that were judged, whatever Pingora's buffer holds.
pub(super) fn judged_body(admitted: &Admitted) -> Option<Bytes> {
    match &admitted.ask {
        Ask::Messages(request) if !request.body.is_empty() => Some(request.body.clone()),
        Ask::EndSession(_) | Ask::Messages(_) | Ask::OpenStream(_) => None,
    }
}

/// Whether a failure on a pooled connection may be repeated: the connection had gone stale, nothing of an answer came,
/// and asking twice does no harm. Pingora itself never repeats a POST, and everything in MCP is one.
pub(super) fn may_repeat(admitted: &Admitted, error: &Error, reused: bool, answered: bool) -> bool {
    let is_stale_connection = reused && matches!(error.retry, RetryType::ReusedOnly);
    is_stale_connection && !answered && admitted.ask.messages().iter().all(|message| is_harmless(message.method()))
}

/// What a Pingora error on the upstream side means to the client.
pub(super) fn rejection_of(error: &Error) -> Rejection {
    let kind = error.etype();
    if matches!(kind, ErrorType::ReadTimedout | ErrorType::WriteTimedout) {
        Rejection::UpstreamTimeout
    } else if matches!(
        kind,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2
    ) {
        Rejection::UpstreamProtocol
    } else {
        Rejection::UpstreamUnreachable
    }
}

/// Asking it twice changes nothing at the server. `tools/call` may, and `initialize` opens a session each time.
fn is_harmless(method: Option<McpMethod>) -> bool {
    matches!(
        method,
        Some(
            McpMethod::CompletionComplete
                | McpMethod::Ping
                | McpMethod::PromptsGet
                | McpMethod::PromptsList
                | McpMethod::ResourcesList
                | McpMethod::ResourcesRead
                | McpMethod::ResourcesTemplatesList
                | McpMethod::ServerDiscover
                | McpMethod::ToolsList
        )
    )
}

fn is_modern_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "mcp-method" | "mcp-name") || name.starts_with("mcp-param-")
}

fn text_value(text: &str) -> pingora::Result<HeaderValue> {
    HeaderValue::from_str(text).or_err(ErrorType::InvalidHTTPHeader, "header value")
}

/// A claim as a header value: strings as they are, numbers and booleans as JSON, arrays of strings joined by commas.
/// What cannot stand in a header is left out rather than changed.
fn header_value(claim: &serde_json::Value) -> Option<HeaderValue> {
    use serde_json::Value;
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
        Value::Array(items) => items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join(","),
        Value::Null | Value::Object(_) => return None,
    };
    HeaderValue::from_str(&text).ok()
}

/// Client headers that travel on in either era: the protocol's own, and W3C trace context.
const PASSED_ON: [&str; 4] = ["mcp-protocol-version", "traceparent", "tracestate", "baggage"];

/// What a request to a server needs, with room for a few headers of its own.
const HEADERS_USUAL: usize = 24;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const LAST_EVENT_ID: &str = "last-event-id";

const OUR_USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
