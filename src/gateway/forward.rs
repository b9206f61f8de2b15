//! How does an admitted request travel to its instance?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use pingora::connectors::L4Connect;
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, OrErr, RetryType};
use pingora_proxy::Session as Client;

use crate::config::UpstreamTimeouts;
use crate::identity::Caller;
use crate::mcp::{Era, Message, Method as McpMethod, Target};
use crate::registry::Server;
use crate::routing::rule::names_tool;
use crate::snapshot::Live;
use crate::time::Clock;

use super::Shell;
use super::credentials::Obtained;
use super::pipeline::{Admitted, Ask, SESSION_ID};
use super::record::{Record, X_REQUEST_ID};
use super::rejection::Rejection;
use super::stops::{Owner, Stops};
use super::watchdog::{Limits, RanOut, Turn};

/// How long one request waits for its server: the three limits of `servers[].timeouts`, each at its time.
pub(super) struct Patience {
    first_byte: Duration,
    idle: Duration,
    total: Duration,
    /// The hard end; known when the request is first sent.
    until: Option<Instant>,
    owner: Arc<Owner>,
    live: Arc<Live>,
    /// Keeps the limits while the server is silent. `None` over HTTP/2.
    turn: Option<Turn>,
}

impl Patience {
    /// For a request of `owner`, which `live` may say to end.
    pub(super) fn new(timeouts: &UpstreamTimeouts, owner: Owner, live: &Arc<Live>) -> Self {
        let UpstreamTimeouts { first_byte, idle, total, .. } = *timeouts;
        let owner = Arc::new(owner);
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
        let limits = Limits { until, silence: Some(self.idle) };
        match &self.turn {
            Some(turn) => turn.heard(limits, now),
            None if now >= until || self.ended().is_some() => Err(RanOut),
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

    /// How somebody has ended the request from outside: the sessions of whoever asked, what was stopped, or what was taken
    /// out of use.
    pub(super) fn ended(&self) -> Option<Rejection> {
        let (quarantines, world) = (self.live.quarantines(), self.live.peek());
        let revocations = self.live.revocations();
        let stops = Stops { revocations, quarantines: &quarantines, catalog: &world.catalog, now: Clock.now() };
        self.owner.ended(&stops)
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
    if server.http2 {
        peer.options.read_timeout = Some(read_timeout(&server.timeouts, &admitted.ask));
    } else {
        // The watchdog keeps these limits, also while the request is written; timers of Pingora's beside it would be set
        // and dropped with every request. How long a connection may wait in the pool is left to Pingora, which takes it
        // out before anybody can be given it.
        peer.options.read_timeout = None;
        peer.options.write_timeout = None;
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
    // A stream keeps its head for as long as it is open, and needs fewer headers.
    let streams = matches!(admitted.ask, Ask::OpenStream(_));
    let mut headers = HeaderMap::with_capacity(if streams { HEADERS_STREAM } else { HEADERS_USUAL });
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
    if admitted.is_new_there {
        // Events of the instance that is gone are unknown where the session was opened anew.
        headers.remove(LAST_EVENT_ID);
    }
    identify(&mut headers, &admitted.route.server, &admitted.caller, admitted.credential.as_ref(), record)?;

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

/// Adds what tells a server for whom it is asked, and by which authority.
pub(super) fn identify(
    headers: &mut HeaderMap,
    server: &Server,
    caller: &Caller,
    credential: Option<&Obtained>,
    record: &Record,
) -> pingora::Result<()> {
    for (claim, name) in &server.config.forward_claims {
        if let Some(value) = caller.claims().get(&**claim).and_then(header_value) {
            headers.insert(name.clone(), value);
        }
    }
    if let Some(ip) = record.client_ip {
        headers.insert(X_FORWARDED_FOR, address_value(ip)?);
    }
    headers.insert(X_FORWARDED_HOST, text_value(&record.host)?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(record.scheme));
    headers.insert(X_REQUEST_ID, record.request_id_value());
    if let Some(Obtained { credential, .. }) = credential {
        headers.insert(credential.header().clone(), credential.value().clone());
    }
    Ok(())
}

/// Pingora's limit for the wait until the head and for each silence after it, fixed before either begins. Over HTTP/2
/// nothing else wakes a request, so the limit is that of what is waited for most: the answer to a POST, the next event of
/// a stream.
fn read_timeout(timeouts: &UpstreamTimeouts, ask: &Ask) -> Duration {
    let UpstreamTimeouts { first_byte, idle, total, .. } = *timeouts;
    match ask {
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

/// Whether a failed request may be repeated: nothing of an answer came, asking twice does no harm, and the connection was a
/// pooled one that had gone stale. What the operator calls idempotent may be repeated whenever a connection breaks. Pingora
/// itself never repeats a POST, and everything in MCP is one.
pub(super) fn may_repeat(admitted: &Admitted, error: &Error, reused: bool, answered: bool) -> bool {
    if answered {
        return false;
    }
    let messages = admitted.ask.messages();
    let is_stale_connection = reused && matches!(error.retry, RetryType::ReusedOnly);
    is_stale_connection && messages.iter().all(|message| is_harmless(message.method()) || is_marked(admitted, message))
        || broke_off(error) && !messages.is_empty() && messages.iter().all(|message| is_marked(admitted, message))
}

/// A call of a tool that the operator calls idempotent.
fn is_marked(admitted: &Admitted, message: &Message) -> bool {
    message.method() == Some(McpMethod::ToolsCall)
        && matches!(&message.target, Target::Tool(name) if names_tool(&admitted.route.server.config.idempotent, name))
}

/// The server's side of the connection broke, and not because the request's time had run out.
fn broke_off(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
        && matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError)
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

/// An address as text. Four numbers are not left to the formatter, which takes a microsecond's third for them.
fn address_value(ip: IpAddr) -> pingora::Result<HeaderValue> {
    let IpAddr::V4(ip) = ip else { return text_value(&ip.to_string()) };
    let mut text = BytesMut::with_capacity(15);
    for octet in ip.octets() {
        if !text.is_empty() {
            text.put_u8(b'.');
        }
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let zeros = digits.iter().take(2).take_while(|digit| **digit == 0).count();
        digits.iter().skip(zeros).for_each(|digit| text.put_u8(b'0' + digit));
    }
    HeaderValue::from_maybe_shared(text.freeze()).or_err(ErrorType::InvalidHTTPHeader, "header value")
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
const HEADERS_STREAM: usize = 12;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const LAST_EVENT_ID: &str = "last-event-id";

/// Names the revision that is spoken.
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

const OUR_USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for text in ["0.0.0.0", "127.0.0.1", "10.20.100.9", "192.168.255.200", "2001:db8::7"] {
            assert_eq!(address_value(text.parse().unwrap()).unwrap(), text);
        }
    }
}
