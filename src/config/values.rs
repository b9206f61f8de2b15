//! What does a string of the file mean? Durations, sizes, URLs, names: each word or the complaint about it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, Uri};

use super::problem::Complaint;

/// What a duration looks like.
pub(super) const DURATION_HINT: &str = "write a number with ms, s, m, h or d, e.g. 2s";

/// Reads `500ms`, `30s`, `5m`, `12h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, Complaint> {
    let wrong = || Complaint::new(format!("{} is not a duration", quote(text)), DURATION_HINT);
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    milliseconds.and_then(|unit| number.checked_mul(unit)).map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads `512B`, `64KiB`, `4MiB`, `1GiB`.
pub(super) fn size(text: &str) -> Result<usize, Complaint> {
    let wrong = || {
        let hint = "write bytes, or a number with B, KiB, MiB or GiB, e.g. 4MiB";
        Complaint::new(format!("{} is not a size", quote(text)), hint)
    };
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let bytes = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let bytes = bytes.and_then(|unit| number.checked_mul(unit)).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(wrong)
}

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit)?;
    Some((number.parse().ok()?, unit))
}

/// The shortest way to write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = units.iter().find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{milliseconds}ms"), |(name, unit)| format!("{}{name}", milliseconds / unit))
}

/// The shortest way to write it.
pub(super) fn show_size(bytes: usize) -> String {
    let bytes = bytes as u64;
    let whole = SIZE_UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A value from the file, for a message: in quotes, control characters escaped, at most 60 characters.
pub(super) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// The word an operator most likely meant: at most two typing errors away, or a third of the word's length.
pub(super) fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if typed.len() > 64 {
        return None;
    }
    let close = words.into_iter().map(|word| (distance(&typed.to_lowercase(), &word.to_lowercase()), word));
    let (errors, word) = close.min_by_key(|(errors, _)| *errors)?;
    (errors <= 2.min(word.len() / 2).max(word.len() / 3)).then_some(word)
}

/// Letters to change, add or leave out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (done, from) in a.chars().enumerate() {
        let mut diagonal = done;
        let mut left = done + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let changed = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = changed.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = done + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Reads one word of a closed set.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Complaint> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Complaint::new(format!("{} is not known here", quote(text)), format!("write one of {}", known.join(", ")))
    })
}

/// Reads a name for logs, metrics and references: 1 to 64 of letters, digits, `.`, `_`, `-`.
pub(super) fn name(text: &str) -> Result<&str, Complaint> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.len() <= 64 && !text.is_empty() && text.chars().all(fits) {
        return Ok(text);
    }
    let hint = "use 1 to 64 letters, digits, \".\", \"_\" and \"-\"";
    Err(Complaint::new(format!("{} cannot be a name", quote(text)), hint))
}

/// Reads `IP:PORT`.
pub(super) fn address(text: &str) -> Result<SocketAddr, Complaint> {
    let hint = "write an IP address and a port, e.g. 127.0.0.1:8080 or [::]:443";
    let address: SocketAddr =
        text.parse().map_err(|_| Complaint::new(format!("{} is not an address", quote(text)), hint))?;
    if address.port() == 0 {
        return Err(Complaint::new("port 0 is no port", "write one from 1 to 65535"));
    }
    Ok(address)
}

/// Reads a network, or one address as a network of its own.
pub(super) fn network(text: &str) -> Result<ipnet::IpNet, Complaint> {
    let one = text.parse::<IpAddr>().map(ipnet::IpNet::from);
    text.parse()
        .or(one)
        .map_err(|_| Complaint::new(format!("{} is not a network", quote(text)), "write a CIDR range, e.g. 10.0.0.0/8"))
}

/// An http or https URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Whether the scheme is https.
    pub(super) tls: bool,
    /// As written, IPv6 addresses in brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// `/` when the URL has none.
    pub(super) path: String,
    pub(super) query: Option<String>,
}

impl Url {
    /// Whether the host can only be this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }

    /// The port, spelled out or of the scheme.
    pub(super) fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }
}

/// Reads an http or https URL without user information and fragment.
pub(super) fn url(text: &str) -> Result<Url, Complaint> {
    let hint = "write one like https://host.example.com:8443/path";
    let wrong = |what: &str| Complaint::new(format!("{} {what}", quote(text)), hint);
    if text.contains('#') {
        return Err(wrong("has a fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("is not an http or https URL")),
    };
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    if authority.contains('@') {
        return Err(wrong("has user information in it"));
    }
    let host = uri.host().filter(|host| is_host(host)).ok_or_else(|| wrong("has no valid host"))?;
    let port = uri.port_u16().filter(|port| *port > 0);
    if authority != host && port.is_none() {
        return Err(wrong("has no valid port"));
    }
    Ok(Url { tls, host: host.to_owned(), port, path: uri.path().to_owned(), query: uri.query().map(str::to_owned) })
}

/// Reads a URL that carries tokens, keys or secrets: https, or http to this machine.
pub(super) fn trustworthy_url(text: &str) -> Result<Url, Complaint> {
    protected_url(text, &[], "write an https URL; http is for loopback hosts only")
}

/// Reads a URL that we call with tokens, keys or secrets: https, or http to this machine or to one of `plain_http_hosts`.
pub(super) fn callable_url(text: &str, plain_http_hosts: &[String]) -> Result<Url, Complaint> {
    let hint = "write an https URL; http is for loopback hosts, and for plain_http_hosts";
    protected_url(text, plain_http_hosts, hint)
}

fn protected_url(text: &str, plain_http_hosts: &[String], hint: &str) -> Result<Url, Complaint> {
    let url = url(text)?;
    let is_named = plain_http_hosts.iter().any(|host| host.eq_ignore_ascii_case(&url.host));
    if !url.tls && !url.is_loopback() && !is_named {
        return Err(Complaint::new(format!("{} is not protected on its way", quote(text)), hint));
    }
    Ok(url)
}

/// Whether `host` can only be this machine; IPv6 addresses in brackets or not.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether it is a DNS name, an IPv4 address or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(bare) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return bare.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// Reads a header name for something we add to a request; not one of those that the gateway, HTTP or MCP decides on.
pub(super) fn own_header(text: &str) -> Result<HeaderName, Complaint> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Complaint::new(format!("{} is not a header name", quote(text)), "write letters, digits and \"-\"")
    })?;
    let reserved = RESERVED_HEADERS.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
    if reserved {
        let message = format!("{} is a header that only HTTP, MCP or the gateway sets", quote(text));
        return Err(Complaint::new(message, "use one of your own, e.g. X-User-Id"));
    }
    Ok(name)
}

const RESERVED_HEADERS: [&str; 22] = [
    "accept",
    "accept-encoding",
    "authorization",
    "baggage",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-request-id",
];

const RESERVED_PREFIXES: [&str; 8] =
    ["access-control-", "content-", "http2-", "mcp-", "proxy-", "sec-", "x-accel-", "x-forwarded-"];

/// Reads the public path of a route: absolute and exact.
pub(super) fn route_path(text: &str) -> Result<&str, Complaint> {
    let wrong = |what: &str, hint: &str| Err(Complaint::new(format!("{} {what}", quote(text)), hint));
    if text == "/" {
        return Ok(text);
    }
    if !text.starts_with('/') {
        return wrong("is not absolute", "start it with /");
    }
    if text.contains('*') {
        return wrong("has a wildcard in it", "a route has one exact path; write one route per path");
    }
    if text.contains(['?', '#']) {
        return wrong("has a query or fragment in it", "write the path alone");
    }
    if text.contains('%') {
        return wrong("has a percent sign in it", "use characters that need no encoding");
    }
    if text.ends_with('/') {
        return wrong("ends with a slash", "leave the last slash out");
    }
    if text.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return wrong("has an empty, \".\" or \"..\" segment", "write the path it leads to");
    }
    if text == "/.well-known" || text.starts_with("/.well-known/") {
        return wrong("is where the gateway publishes metadata", "choose a path outside /.well-known/");
    }
    path_characters(text)
}

/// Reads the path of a server or health check: absolute, without query and fragment.
pub(super) fn upstream_path(text: &str) -> Result<&str, Complaint> {
    if !text.starts_with('/') {
        return Err(Complaint::new(format!("{} is not absolute", quote(text)), "start it with /"));
    }
    if text.contains(['?', '#']) {
        let message = format!("{} has a query or fragment in it", quote(text));
        return Err(Complaint::new(message, "write the path alone"));
    }
    path_characters(text)
}

/// RFC 3986 §3.3: `pchar` and `/`.
fn path_characters(text: &str) -> Result<&str, Complaint> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    match text.chars().find(|c| !fits(*c)) {
        None => Ok(text),
        Some(c) => {
            let message = format!("{} has {c:?} in it, which no path can contain", quote(text));
            Err(Complaint::new(message, "use letters, digits, \"-\", \"_\" and \"/\""))
        }
    }
}

/// Reads an OAuth scope: visible ASCII without space, `"` and `\` (RFC 6749 §3.3).
pub(super) fn scope(text: &str) -> Result<&str, Complaint> {
    let fits = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if text.chars().all(fits) {
        return Ok(text);
    }
    let hint = "write one scope per list item, without spaces";
    Err(Complaint::new(format!("{} is not one scope", quote(text)), hint))
}
