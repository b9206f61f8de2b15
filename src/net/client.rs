//! How do we call others? Over TLS, for a bounded time and a bounded number of bytes, and exactly where we were told to.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header::ACCEPT;
use http::header::CONTENT_TYPE;
use reqwest::Client;
use reqwest::ClientBuilder;
use reqwest::RequestBuilder;
use reqwest::Url;
use reqwest::redirect::Policy;

use super::egress::{self, ForbiddenAddress, Guarded, Lookup, SystemLookup};

/// The client for our own calls. Cheap to clone: clones share one pool of connections.
///
/// - https only, but for loopback hosts and those that the operator names: keys and secrets travel here.
/// - Redirects are not followed: who answers is who was asked (RFC 9700 §4.11; a redirect is also the usual way of making a
///   server fetch what its caller could not).
/// - Addresses that no operator means are never connected to ([`egress::may_be_called`]), whether they stand in the URL or a
///   name resolves to them. Private ranges are allowed: the operator names these hosts, and that is where they live.
/// - Proxies named by the environment are not used: what goes out is what the configuration says.
/// - Answers are not decompressed, so their bound is the bound of what is held in memory.
#[derive(Clone, Debug)]
pub struct Outbound {
    client: Client,
    has_system_roots: bool,
    plain_http_hosts: Arc<ArcSwap<Vec<String>>>,
}

impl Outbound {
    /// Makes the client, and names ring as the TLS library of this process if that was not done before.
    ///
    /// Certificates are held against those the system trusts (on Debian the package `ca-certificates`, or the file that
    /// `SSL_CERT_FILE` names). A system that trusts none can still be served over loopback; calls over https then fail with
    /// [`NetError::Tls`].
    ///
    /// # Errors
    /// [`NetError::Setup`] when no client can be made.
    pub fn new() -> Result<Self, NetError> {
        Self::resolving_by(Arc::new(SystemLookup))
    }

    /// The same, with names looked up elsewhere.
    ///
    /// # Errors
    /// As [`Outbound::new`].
    pub fn resolving_by(lookup: Arc<dyn Lookup>) -> Result<Self, NetError> {
        install_tls();
        if let Ok(client) = settings(Arc::clone(&lookup)).build() {
            return Ok(Self { client, has_system_roots: true, plain_http_hosts: Arc::default() });
        }
        let client = settings(lookup).tls_certs_only([]).build().map_err(|_| NetError::Setup)?;
        Ok(Self { client, has_system_roots: false, plain_http_hosts: Arc::default() })
    }

    /// Whether the system trusts any certificate authority. If not, someone should hear of it.
    #[must_use]
    pub fn has_system_roots(&self) -> bool {
        self.has_system_roots
    }

    /// Lets exactly these hosts, lower case, be called without TLS from here on, by every clone.
    pub fn allow_plain_http(&self, hosts: &[String]) {
        self.plain_http_hosts.store(Arc::new(hosts.to_vec()));
    }

    /// Reads a URL that this client may call, as [`checked_url`].
    ///
    /// # Errors
    /// Those of [`checked_url`].
    pub fn checked_url(&self, text: &str) -> Result<Url, NetError> {
        checked_url(text, &self.plain_http_hosts.load())
    }

    /// Asks for JSON at `url` and reads at most `bytes_max` of the answer, within [`GET_TIMEOUT`].
    ///
    /// # Errors
    /// Those of [`NetError`]; a status other than 200 is an answer.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Answer, NetError> {
        let url = self.checked_url(url)?;
        let request = self.client.get(url).header(ACCEPT, JSON).timeout(GET_TIMEOUT);
        exchange(request, bytes_max).await
    }

    /// Posts JSON to `url`, as [`Outbound::post_form`] does a form.
    ///
    /// # Errors
    /// As [`Outbound::post_form`].
    pub async fn post_json(
        &self,
        url: &str,
        headers: HeaderMap,
        json: Bytes,
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<Answer, NetError> {
        let url = self.checked_url(url)?;
        let request = self.client.post(url).header(CONTENT_TYPE, JSON).header(ACCEPT, JSON).headers(headers);
        exchange(request.body(reqwest::Body::from(json)).timeout(timeout), bytes_max).await
    }

    /// Posts an encoded form to `url` and reads at most `bytes_max` of the answer, all within `timeout`.
    ///
    /// `headers` are added to ours (`Content-Type`, `Accept`). The request is sent once: whether it may be sent again is for
    /// the caller to say.
    ///
    /// # Errors
    /// Those of [`NetError`]; a status other than 200 is an answer.
    pub async fn post_form(
        &self,
        url: &str,
        headers: HeaderMap,
        form: impl Into<Bytes>,
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<Answer, NetError> {
        let url = self.checked_url(url)?;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, FORM)
            .header(ACCEPT, JSON)
            .headers(headers)
            .body(reqwest::Body::from(form.into()))
            .timeout(timeout);
        exchange(request, bytes_max).await
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, redirects included.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body of an answer with status 200.
    ///
    /// # Errors
    /// [`NetError::BadStatus`] with any other.
    pub fn ok(self) -> Result<Bytes, NetError> {
        if self.status == StatusCode::OK { Ok(self.body) } else { Err(NetError::BadStatus(self.status.as_u16())) }
    }
}

/// Why a call brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NetError {
    /// An answer with this status, where only 200 would do.
    #[error("answered with status {0}")]
    BadStatus(u16),
    /// Not an http(s) URL with a host and without user name, or a part of it cannot be sent.
    #[error("not a URL that can be called")]
    BadUrl,
    /// No connection: no such host, refused, no route.
    #[error("no connection")]
    Connect,
    /// The host is, or resolves only to, addresses that are never called.
    #[error("an address that is never called")]
    ForbiddenAddress,
    /// http to a host that is not this machine.
    #[error("plain http to another machine")]
    InsecureUrl,
    /// The connection broke, or what came was no HTTP.
    #[error("the answer broke off")]
    Protocol,
    /// The client could not be made.
    #[error("the client could not be made")]
    Setup,
    /// No answer in time, or not the whole of it.
    #[error("no answer in time")]
    Timeout,
    /// TLS failed: above all a certificate that nobody we trust has signed for this host.
    #[error("TLS failed")]
    Tls,
    /// More bytes than the bound.
    #[error("the answer is too large")]
    TooLarge,
}

impl NetError {
    /// Word for metrics and logs: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BadStatus(_) => "bad_status",
            Self::BadUrl => "bad_url",
            Self::Connect => "connect",
            Self::ForbiddenAddress => "forbidden_address",
            Self::InsecureUrl => "insecure_url",
            Self::Protocol => "protocol",
            Self::Setup => "setup",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::TooLarge => "too_large",
        }
    }
}

/// Names ring as the TLS library of this process. Calling it again changes nothing.
pub fn install_tls() {
    // An error says that one is named already; the process is built with ring alone.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Reads a URL that we may call: https, or http to this very machine or to one of `plain_http_hosts`.
///
/// A name may still resolve to an address that is not called; that shows when it is.
///
/// # Errors
/// [`NetError::BadUrl`], [`NetError::ForbiddenAddress`] and [`NetError::InsecureUrl`].
pub fn checked_url(text: &str, plain_http_hosts: &[String]) -> Result<Url, NetError> {
    let url = Url::parse(text).map_err(|_| NetError::BadUrl)?;
    if url.host_str().is_none_or(str::is_empty) || !url.username().is_empty() || url.password().is_some() {
        return Err(NetError::BadUrl);
    }
    // The parser has read every spelling of an IPv4 address (decimal, octal, hexadecimal) into dotted form.
    if host_address(&url).is_some_and(|address| !egress::may_be_called(address)) {
        return Err(NetError::ForbiddenAddress);
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) || plain_http_hosts.iter().any(|host| url.host_str() == Some(host)) => Ok(url),
        "http" => Err(NetError::InsecureUrl),
        _ => Err(NetError::BadUrl),
    }
}

/// Whether the URL's host is this machine: a loopback address, `localhost` or a name under it (RFC 6761 §6.3).
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match host_address(url) {
        Some(address) => address.is_loopback(),
        None => url.host_str().is_some_and(egress::is_loopback_name),
    }
}

/// The host, if it is an address and not a name.
fn host_address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Time for one `GET`, from looking up the host to the last byte.
pub const GET_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

fn settings(lookup: Arc<dyn Lookup>) -> ClientBuilder {
    Client::builder()
        .dns_resolver(Guarded::new(lookup))
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
}

async fn exchange(request: RequestBuilder, bytes_max: usize) -> Result<Answer, NetError> {
    let mut answer = request.send().await.map_err(|error| classify(&error))?;
    if answer.content_length().is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(NetError::TooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| classify(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(NetError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: answer.status(), headers: std::mem::take(answer.headers_mut()), body: body.freeze() })
}

fn classify(error: &reqwest::Error) -> NetError {
    // The words of `NetError` are few and fixed; what the system said goes to whoever looks for it.
    tracing::debug!(error = ?error, "a call of ours failed");
    if error.is_timeout() {
        return NetError::Timeout;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if is_tls(error) {
            return NetError::Tls;
        }
        if error.is::<ForbiddenAddress>() {
            return NetError::ForbiddenAddress;
        }
        cause = error.source();
    }
    if error.is_connect() {
        NetError::Connect
    } else if error.is_builder() {
        NetError::BadUrl
    } else {
        NetError::Protocol
    }
}

/// TLS errors travel inside IO errors, perhaps several deep, whose `source` skips over what they carry.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let mut carrier = error.downcast_ref::<io::Error>();
    while let Some(carried) = carrier.and_then(io::Error::get_ref) {
        if carried.is::<rustls::Error>() {
            return true;
        }
        carrier = carried.downcast_ref();
    }
    error.is::<rustls::Error>()
}

#[cfg(test)]
mod tests;
