//! Who may look at all, and what may a browser do with what it gets?

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::Admin;
use super::problem::Problem;

/// Why a request is turned away before anything of it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// A foreign host or origin.
    Away,
    /// Not GET or HEAD.
    Method,
}

/// For pages that the operator's tools on this machine read: a browser that was led here by another name is turned away
/// (DNS rebinding), as is every page of a browser, and nothing here is changed by a request.
///
/// # Errors
/// [`Turned`].
pub(super) fn look_at(
    method: &Method,
    headers: &HeaderMap,
    uri: &Uri,
    address: SocketAddr,
    allowed_hosts: &[String],
) -> Result<(), Turned> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Turned::Method);
    }
    // Over TLS a name is asked for that the certificate has.
    let is_ours =
        host_of(headers, uri).is_some_and(|host| is_own_host(host, address) || is_allowed_host(host, allowed_hosts));
    if !is_ours || headers.contains_key(ORIGIN) { Err(Turned::Away) } else { Ok(()) }
}

/// Refuses hosts and origins that are not ours, and says to browsers what they may do with the answer.
pub(super) async fn stand(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let answer = match refusal(&admin, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    harden(answer, admin.has_tls)
}

/// The refusal of a request that does not even get to the pages; `None` lets it through.
fn refusal(admin: &Admin, request: &Request) -> Option<Response> {
    let (method, headers, uri) = (request.method(), request.headers(), request.uri());
    let settings = admin.settings();
    let Some(settings) = settings.as_ref().filter(|settings| settings.sign_in.is_some() && !is_health(uri.path()))
    else {
        let allowed_hosts = &admin.live.peek().config.allowed_hosts;
        return match look_at(method, headers, uri, admin.address, allowed_hosts) {
            Err(Turned::Away) => Some((StatusCode::FORBIDDEN, "forbidden\n").into_response()),
            Err(Turned::Method) => Some((StatusCode::METHOD_NOT_ALLOWED, "only GET\n").into_response()),
            Ok(()) => (!is_health(uri.path())).then(nothing_here),
        };
    };
    let host = host_of(headers, uri);
    let public_host = settings.public_url.split_once("://").map(|(_scheme, host)| host);
    if !host.is_some_and(|host| is_own_host(host, admin.address) || Some(host) == public_host) {
        return Some(Problem::new(StatusCode::FORBIDDEN, "foreign_host").into_response());
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => None,
        (Some(origin), None) if origin.as_bytes() == settings.public_url.as_bytes() => None,
        (Some(_), _) => Some(Problem::new(StatusCode::FORBIDDEN, "foreign_origin").into_response()),
    }
}

/// What there is at a path that leads nowhere.
pub(super) fn nothing_here() -> Response {
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain; charset=utf-8")], "not found\n").into_response()
}

fn is_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/status")
}

/// The one host a request names: `Host`, or the authority of an HTTP/2 request.
fn host_of<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => uri.authority().map(http::uri::Authority::as_str),
        (Some(_), Some(_)) => None,
    }
}

/// Whether `host` names this listener by its address, or this machine.
fn is_own_host(host: &str, address: SocketAddr) -> bool {
    host == address.to_string()
        || host.rsplit_once(':').map_or(host, |(name, _port)| name) == "localhost"
        || host.parse::<SocketAddr>().is_ok_and(|host| host.ip().is_loopback() || host.ip() == address.ip())
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == address.ip())
        || address.ip().is_unspecified() && host.parse::<SocketAddr>().is_ok()
}

/// Whether `host` is one that the gateway is called by, with whatever port.
fn is_allowed_host(host: &str, allowed_hosts: &[String]) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    allowed_hosts.iter().any(|allowed| allowed == host || allowed == name)
}

/// Every answer, whoever made it: nothing of it is guessed at, framed, sent on or kept, and a page may load and call only
/// what comes from here.
fn harden(mut answer: Response, has_tls: bool) -> Response {
    let headers = answer.headers_mut();
    let policy = if headers.contains_key(PAGE) { PAGE_POLICY } else { NOTHING_POLICY };
    headers.remove(PAGE);
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if has_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Marks an answer that a browser shows as a page; taken off before it leaves.
pub(super) const PAGE: HeaderName = HeaderName::from_static("x-portcullis-page");

const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                           connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const NOTHING_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_listener_are_hosts() {
        let address = "127.0.0.1:9091".parse().unwrap();
        for host in ["127.0.0.1:9091", "localhost", "localhost:1", "[::1]:9091", "127.0.0.1", "[::1]"] {
            assert!(is_own_host(host, address), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9091", "10.0.0.1:9091", ""] {
            assert!(!is_own_host(host, address), "{host}");
        }
    }

    #[test]
    fn hosts_of_the_gateway_are_accepted_with_any_port() {
        let allowed = ["mcp.test".to_owned(), "mcp.example:8443".to_owned()];
        for host in ["mcp.test", "mcp.test:9091", "mcp.example:8443"] {
            assert!(is_allowed_host(host, &allowed), "{host}");
        }
        for host in ["mcp.example", "mcp.example:9091", "evil.mcp.test", "mcp.test.evil.example:9091", ""] {
            assert!(!is_allowed_host(host, &allowed), "{host}");
        }
    }

    #[test]
    fn a_request_that_names_two_hosts_names_none() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(host_of(&headers, &Uri::from_static("/")), None);
    }
}
