//! Which requests does the gateway answer without anybody else, and which does it not even read?

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CACHE_CONTROL,
    CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::config::Config;
use crate::snapshot::Snapshot;

use super::rejection::Rejection;

/// The `Origin` of a browser page that may read our answers.
#[derive(Clone, Debug)]
pub(super) struct AllowedOrigin(HeaderValue);

/// Refuses hosts and origins that are not ours, before anything else is looked at (DNS rebinding: incident row 6).
/// `host` is what [`host_of`] says of the head, empty when it names none.
///
/// # Errors
/// [`Rejection::ForbiddenHost`], [`Rejection::ForbiddenOrigin`], [`Rejection::HeadersTooLarge`].
pub(super) fn check_head(
    config: &Config,
    head: &RequestHeader,
    host: &str,
) -> Result<Option<AllowedOrigin>, Rejection> {
    let limits = &config.limits;
    if head.headers.len() > limits.header_count || header_bytes(&head.headers) > limits.header_bytes {
        return Err(Rejection::HeadersTooLarge);
    }
    if host.is_empty() || !is_allowed_host(config, host) {
        return Err(Rejection::ForbiddenHost);
    }
    let mut origins = head.headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(None),
        (Some(origin), None) if is_allowed_origin(config, origin) => Ok(Some(AllowedOrigin(origin.clone()))),
        (Some(_), _) => Err(Rejection::ForbiddenOrigin),
    }
}

/// What the gateway answers itself: resource metadata (RFC 9728) and CORS preflights.
pub(super) fn answer(
    world: &Snapshot,
    head: &RequestHeader,
    origin: Option<&AllowedOrigin>,
) -> Option<http::Response<Bytes>> {
    let path = head.uri.path();
    if let Some(document) = world.metadata(path) {
        return Some(metadata_answer(&head.method, document));
    }
    if head.method == Method::OPTIONS && world.route(path).is_some() {
        return Some(preflight_answer(&head.headers, origin));
    }
    None
}

/// Adds what a browser needs to read an answer: to every answer for a page of an allowed origin.
pub(super) fn add_cors(head: &mut ResponseHeader, origin: Option<&AllowedOrigin>) -> pingora::Result<()> {
    let Some(AllowedOrigin(origin)) = origin else { return Ok(()) };
    if !head.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        head.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())?;
    }
    head.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED)?;
    head.append_header(VARY, "Origin")?;
    Ok(())
}

/// Refuses bodies that are not plain JSON, and clients that could not read the answer.
///
/// # Errors
/// [`Rejection::UnsupportedMediaType`], [`Rejection::NotAcceptable`].
pub(super) fn check_media(head: &RequestHeader) -> Result<(), Rejection> {
    if head.method == Method::POST {
        let mut types = head.headers.get_all(CONTENT_TYPE).iter();
        let is_json = types.next().is_some_and(is_json_type) && types.next().is_none();
        let is_encoded = head
            .headers
            .get(CONTENT_ENCODING)
            .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
        if !is_json || is_encoded {
            return Err(Rejection::UnsupportedMediaType);
        }
        let is_usual = head.headers.get(ACCEPT).is_some_and(|accept| accept == USUAL_ACCEPT);
        let accepts = |wanted| is_usual || accepts(&head.headers, wanted);
        if !accepts("application/json") || !accepts("text/event-stream") {
            return Err(Rejection::NotAcceptable);
        }
    }
    if head.method == Method::GET && !accepts(&head.headers, "text/event-stream") {
        return Err(Rejection::NotAcceptable);
    }
    Ok(())
}

/// Whether a trusted proxy says that its client is connected over TLS; what anybody else says of it does not count.
pub(super) fn is_forwarded_over_tls(config: &Config, head: &RequestHeader, peer: Option<SocketAddr>) -> bool {
    let is_trusted = peer.is_some_and(|peer| {
        let ip = peer.ip().to_canonical();
        config.trusted_proxies.iter().any(|range| range.contains(&ip))
    });
    let mut says = head.headers.get_all("x-forwarded-proto").iter();
    is_trusted
        && says.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
        && says.next().is_none()
}

/// The address of the client: the peer's, or what a trusted proxy says it is. From anyone else `X-Forwarded-For` is
/// ignored. The rightmost entry that is not itself a trusted proxy counts: what stands left of it is hearsay.
pub(super) fn client_ip(config: &Config, head: &RequestHeader, peer: Option<SocketAddr>) -> Option<IpAddr> {
    let peer = peer?.ip().to_canonical();
    let is_trusted = |ip: &IpAddr| config.trusted_proxies.iter().any(|range| range.contains(ip));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let mut client = peer;
    for value in head.headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.to_str().unwrap_or_default().rsplit(',') {
            let Ok(ip) = entry.trim().parse::<IpAddr>() else { return Some(client) };
            client = ip.to_canonical();
            if !is_trusted(&client) {
                return Some(client);
            }
        }
    }
    Some(client)
}

/// The host a request names, lower case, without userinfo: `Host` for HTTP/1.1, `:authority` for HTTP/2. A request that
/// names two different ones, or two headers, names none.
pub(super) fn host_of(head: &RequestHeader) -> Option<String> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().ok()?.to_ascii_lowercase()),
        (None, _) => None,
        (Some(_), Some(_)) => return None,
    };
    let authority = head.uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
    match (header, authority) {
        (Some(header), Some(authority)) if header != authority => None,
        (header, authority) => header.or(authority),
    }
    .filter(|host| !host.contains('@'))
}

fn is_allowed_host(config: &Config, host: &str) -> bool {
    let name = host_name(host);
    config.allowed_hosts.iter().any(|allowed| {
        let has_port = host_name(allowed).len() != allowed.len();
        if has_port { allowed == host } else { allowed == name }
    })
}

/// `Host` without its port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_allowed_origin(config: &Config, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    config.allowed_origins.iter().any(|allowed| allowed == origin)
        || config.loopback_origins && is_loopback_origin(origin)
}

fn is_loopback_origin(origin: &str) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host.map(host_name).is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))
}

fn is_json_type(value: &HeaderValue) -> bool {
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Whether `Accept` covers a media type (RFC 9110 §12.5.1; without the header everything is acceptable).
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let family = wanted.split('/').next().unwrap_or_default();
    let mut present = false;
    for value in headers.get_all(ACCEPT) {
        present = true;
        for range in value.as_bytes().split(|byte| *byte == b',') {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let is_refused = parts.any(|parameter| matches!(parameter, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"));
            let covers = name.eq_ignore_ascii_case(wanted.as_bytes())
                || name == b"*/*"
                || name.strip_suffix(b"/*").is_some_and(|prefix| prefix.eq_ignore_ascii_case(family.as_bytes()));
            if covers && !is_refused {
                return true;
            }
        }
    }
    !present
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_FRAMING_BYTES).sum()
}

fn metadata_answer(method: &Method, document: Bytes) -> http::Response<Bytes> {
    let mut answer = http::Response::new(Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    match *method {
        Method::GET | Method::HEAD => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
            *answer.body_mut() = document;
        }
        Method::OPTIONS => {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
            *answer.status_mut() = StatusCode::NO_CONTENT;
        }
        _ => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
    }
    answer
}

fn preflight_answer(head: &HeaderMap, origin: Option<&AllowedOrigin>) -> http::Response<Bytes> {
    let mut answer = http::Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("GET, POST, DELETE, OPTIONS"));
    if origin.is_some() {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE, OPTIONS"));
        // What the page asks for is allowed: headers decide nothing here that the token does not decide again.
        let asked = head.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        headers
            .insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or_else(|| HeaderValue::from_static(REQUEST_HEADERS)));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    answer
}

const EXPOSED: &str = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, X-Request-Id";

const REQUEST_HEADERS: &str = "Authorization, Content-Type, Accept, Mcp-Session-Id, MCP-Protocol-Version, \
                               Last-Event-ID, Mcp-Method, Mcp-Name";

/// What the official SDKs send: it covers both, whatever other `Accept` stands beside it.
const USUAL_ACCEPT: &str = "application/json, text/event-stream";

/// `: ` and the line end.
const HEADER_FRAMING_BYTES: usize = 4;
