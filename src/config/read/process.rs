//! Sections about this process: `server`, `listen`, who may reach it under which names, `metrics`, `admin`, `audit`,
//! `session`, `limits`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::fields::{Fields, Value};
use crate::config::pem;
use crate::config::problem::Complaint;
use crate::config::secrets::{self, Keep, Look};
use crate::config::values::{self, quote};
use crate::config::{AuditSettings, Limits, Listen, ListenTls, OnFull, ServerSettings, SessionSettings};

/// What browsers and other clients may call us, and where they may come from.
pub(super) struct Web {
    pub(super) allowed_hosts: Vec<String>,
    pub(super) allowed_origins: Vec<String>,
    pub(super) loopback_origins: bool,
}

pub(super) fn server(top: &mut Fields<'_, '_>, look: Look<'_>) -> Option<ServerSettings> {
    let threads = look.cores().clamp(1, THREADS_MAX);
    let default = ServerSettings {
        threads,
        work_stealing: is_worth_stealing(threads),
        pid_file: None,
        upgrade_sock: None,
        control_sock: None,
        grace_period_seconds: 30,
        drain_seconds: 1,
        graceful_shutdown_timeout_seconds: 10,
    };
    let Some(section) = top.find("server") else { return Some(default) };
    section.map(|fields| {
        let threads = fields.or("threads", default.threads, |v| v.whole(1..=THREADS_MAX));
        let stealing = is_worth_stealing(threads.unwrap_or(default.threads));
        let work_stealing = fields.or("work_stealing", stealing, Value::flag);
        let pid_file = fields.optional("pid_file", plain_path);
        let upgrade_sock = fields.optional("upgrade_sock", plain_path);
        let control_sock = fields.optional("control_sock", plain_path);
        let grace = fields.or("grace_period_seconds", default.grace_period_seconds, |v| v.whole(0..=86_400));
        let drain = fields.or("drain_seconds", default.drain_seconds, |v| v.whole(0..=600));
        let shutdown = fields.or("graceful_shutdown_timeout_seconds", default.graceful_shutdown_timeout_seconds, |v| {
            v.whole(0..=86_400)
        });
        Some(ServerSettings {
            threads: threads?,
            work_stealing: work_stealing?,
            pid_file: pid_file?,
            upgrade_sock: upgrade_sock?,
            control_sock: control_sock?,
            grace_period_seconds: grace?,
            drain_seconds: drain?,
            graceful_shutdown_timeout_seconds: shutdown?,
        })
    })
}

/// A single thread finds nobody to take work from, and a scheduler that could look for somebody costs it 7 % of a request's
/// CPU with 32 connections (3 % less with 256).
fn is_worth_stealing(threads: usize) -> bool {
    threads > 1
}

const THREADS_MAX: usize = 1024;

/// A file we make ourselves.
fn plain_path(value: &Value<'_>) -> Option<PathBuf> {
    value.string::<&str>().map(PathBuf::from)
}

pub(super) fn listen(value: &Value<'_>, look: Look<'_>) -> Option<Vec<Listen>> {
    value.some(|listener| {
        listener.map(|fields| {
            let address = fields.required("address", |v| v.parse(values::address));
            let tls = fields.optional("tls", |v| listen_tls(v, look));
            Some(Listen { address: address?, tls: tls? })
        })
    })
}

pub(super) fn listen_tls(value: &Value<'_>, look: Look<'_>) -> Option<ListenTls> {
    value.map(|fields| {
        let certificate = fields.required("certificate", |v| secrets::pem(v, look, Keep::Public, pem::certificates));
        let private_key = fields.required("private_key", |v| secrets::pem(v, look, Keep::Private, pem::private_key));
        let client_ca = fields.optional("client_ca", |v| secrets::pem(v, look, Keep::Public, pem::authorities));
        let pair = secrets::key_pair(certificate, private_key, &fields.map().follow("private_key"));
        let (certificate, private_key) = pair?;
        Some(ListenTls { certificate, private_key, client_ca: client_ca?.map(|(path, _)| path) })
    })
}

/// `metrics`: served to whoever comes, so on loopback, or over TLS, unless the operator insists.
pub(super) fn inner_listen(value: &Value<'_>, look: Look<'_>) -> Option<Listen> {
    value.map(|fields| inner_listen_of(fields, look))
}

/// Address and TLS of `metrics` or `admin`.
pub(super) fn inner_listen_of(fields: &mut Fields<'_, '_>, look: Look<'_>) -> Option<Listen> {
    let insecure = fields.or("insecure", false, Value::flag);
    let tls = fields.optional("tls", |v| listen_tls(v, look));
    let address = fields.find("address");
    let address = fields.must("address", address)?;
    let parsed = address.parse(values::address)?;
    let is_clear = matches!(tls, Some(None));
    if !insecure? && is_clear && !parsed.ip().is_loopback() {
        let message = format!("{parsed} is reachable from other machines, without TLS and without authentication");
        address.complain(
            message,
            "use a loopback address, add tls, or add insecure: true if the network is closed to others",
        );
        return None;
    }
    Some(Listen { address: parsed, tls: tls? })
}

/// Two sockets cannot share an address and port.
pub(super) fn distinct_addresses(
    top: &mut Fields<'_, '_>,
    listen: Option<&[Listen]>,
    metrics: Option<SocketAddr>,
    admin: Option<SocketAddr>,
) {
    let listeners = listen.unwrap_or_default().iter().enumerate().map(|(nth, l)| (format!("listen[{nth}]"), l.address));
    let inner = [("metrics", metrics), ("admin", admin)];
    let inner = inner.into_iter().filter_map(|(key, inner)| Some((key.to_owned(), inner?)));
    let mut seen: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (path, address) in listeners.chain(inner) {
        if let Some(first) = seen.get(&address) {
            let place = top.map().follow(&format!("{path}.address"));
            place.complain(format!("{address} is taken by {first}"), "give each its own address or port");
        } else {
            seen.insert(address, path);
        }
    }
}

/// Reads an origin with an optional base path, without a slash at the end, in the one spelling that clients compare with
/// (RFC 9728 §3.3 compares resource identifiers as strings).
pub(super) fn public_url(text: &str) -> Result<String, Complaint> {
    let url = values::trustworthy_url(text)?;
    let wrong = |what: &str, hint: &str| Err(Complaint::new(format!("{} {what}", quote(text)), hint));
    let spelled = format!("{}://{}", if url.tls { "https" } else { "http" }, url.host.to_ascii_lowercase());
    if !text.starts_with(&spelled) {
        return wrong("has capital letters in scheme or host", "write both in lower case");
    }
    if url.port == Some(if url.tls { 443 } else { 80 }) {
        return wrong("spells out the scheme's own port", "leave the port out");
    }
    if url.query.is_some() {
        return wrong("has a query", "write scheme, host and, if need be, port and path");
    }
    if url.path != "/" {
        let path = url.path.strip_suffix('/').unwrap_or(&url.path);
        values::route_path(path)?;
    }
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

pub(super) fn web(top: &mut Fields<'_, '_>, public_url: Option<&str>, listen: Option<&[Listen]>) -> Option<Web> {
    let public = public_url.and_then(|text| values::url(text).ok());
    let hosts = public.as_ref().map(|url| {
        let mut hosts = vec![url.host.clone()];
        hosts.extend(LOOPBACK_HOSTS.iter().map(|host| (*host).to_owned()).filter(|host| *host != url.host));
        hosts
    });
    let origins = public.map(|url| {
        let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
        vec![format!("{}://{}{port}", if url.tls { "https" } else { "http" }, url.host)]
    });
    let only_loopback = listen.unwrap_or_default().iter().all(|listener| listener.address.ip().is_loopback());

    let allowed_hosts = top.optional("allowed_hosts", |v| v.some(|v| v.parse(allowed_host)));
    let allowed_origins = top.optional("allowed_origins", |v| v.list(|v| v.parse(allowed_origin)));
    let origins_given = !matches!(allowed_origins, Some(None));
    let loopback_origins = top.or("loopback_origins", only_loopback && !origins_given, Value::flag);
    Some(Web {
        allowed_hosts: allowed_hosts?.or(hosts)?,
        allowed_origins: allowed_origins?.or(origins)?,
        loopback_origins: loopback_origins?,
    })
}

const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

fn allowed_host(text: &str) -> Result<String, Complaint> {
    let hint = "write a host name, or host:port to accept one port only";
    let wrong = || Complaint::new(format!("{} is not a host", quote(text)), hint);
    if text.contains('*') {
        let message = format!("{} has a wildcard in it", quote(text));
        return Err(Complaint::new(message, "name each host; a wildcard would let in hosts that others control"));
    }
    let url = values::url(&format!("http://{text}")).map_err(|_| wrong())?;
    let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
    let spelled = format!("{}{port}", url.host);
    if spelled != text {
        return Err(wrong());
    }
    Ok(spelled.to_ascii_lowercase())
}

/// Reads an origin as browsers send it (RFC 6454 §6.2): scheme, host in lower case, port unless it is the scheme's.
fn allowed_origin(text: &str) -> Result<String, Complaint> {
    let hint = "write scheme, host and, if need be, port: https://app.example.com";
    let wrong = || Complaint::new(format!("{} is not an origin", quote(text)), hint);
    let url = values::url(text).map_err(|_| wrong())?;
    let port = url.port.filter(|port| *port != if url.tls { 443 } else { 80 });
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let spelled = format!("{}://{}{port}", if url.tls { "https" } else { "http" }, url.host.to_ascii_lowercase());
    if spelled != text {
        return Err(wrong());
    }
    Ok(spelled)
}

pub(super) fn audit(top: &mut Fields<'_, '_>) -> Option<AuditSettings> {
    let default =
        AuditSettings { file: None, stdout: true, queue: 65_536, on_full: OnFull::Wait, open_after: seconds(10) };
    let Some(section) = top.find("audit") else { return Some(default) };
    section.map(|fields| {
        let file = fields.optional("file", plain_path);
        let no_file = matches!(file, Some(None));
        let stdout = fields.or("stdout", no_file, Value::flag);
        let queue = fields.or("queue", default.queue, |v| v.whole(1..=COUNT_MAX));
        let words = [("wait", OnFull::Wait), ("refuse", OnFull::Refuse)];
        let on_full = fields.or("on_full", default.on_full, |v| v.parse(|text| values::word(text, &words)));
        let open_after = fields.or("open_after", default.open_after, |v| v.duration(SHORT_TIME));
        if no_file && stdout == Some(false) {
            fields.map().complain("audit records would go nowhere", "name a file, or write stdout: true");
            return None;
        }
        Some(AuditSettings { file: file?, stdout: stdout?, queue: queue?, on_full: on_full?, open_after: open_after? })
    })
}

/// Reads a host that may be called without TLS.
pub(super) fn plain_http_host(text: &str) -> Result<String, Complaint> {
    if values::is_host(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Complaint::new(format!("{} is not a host", quote(text)), "write a host name or an address, without a port"))
}

pub(super) fn session(value: &Value<'_>, look: Look<'_>) -> Option<SessionSettings> {
    value.map(|fields| {
        let keys = fields.required("keys", |list| {
            let keys = list.some(|v| secrets::session_key(v, look))?;
            let repeated = keys
                .iter()
                .enumerate()
                .any(|(nth, key)| keys.iter().take(nth).any(|earlier| earlier.expose() == key.expose()));
            if repeated && matches!(look, Look::Inside(_)) {
                list.complain("holds the same key twice", "keep one, or add the old key after the current one");
                return None;
            }
            Some(keys)
        });
        let ttl = fields.or("ttl", seconds(12 * 3600), |v| v.duration(seconds(1)..=seconds(30 * 86_400)));
        Some(SessionSettings { keys: keys?, ttl: ttl? })
    })
}

pub(super) fn limits(top: &mut Fields<'_, '_>) -> Option<Limits> {
    let default = Limits {
        body_bytes: 4 * MIB,
        json_depth: 64,
        sse_event_bytes: 4 * MIB,
        list_bytes: 16 * MIB,
        header_bytes: 64 * KIB,
        header_count: 128,
        connections: 20_000,
        http2_streams: 100,
        request_head_timeout: seconds(60),
        request_body_timeout: seconds(10),
        client_write_timeout: seconds(30),
        batch_messages: 50,
        token_cache: 65_536,
        agent_cache: 65_536,
        credential_cache: 65_536,
        decision_cache: 65_536,
        revoked_sessions: 65_536,
        budget_cells: 131_072,
        taint_marks: 65_536,
        quarantines: 1024,
        handover_sessions: 16_384,
    };
    let Some(section) = top.find("limits") else { return Some(default) };
    section.map(|fields| {
        let body_bytes = fields.or("body_bytes", default.body_bytes, |v| v.size(KIB..=1024 * MIB));
        let json_depth = fields.or("json_depth", default.json_depth, |v| v.whole(4..=512));
        let sse_event_bytes = fields.or("sse_event_bytes", default.sse_event_bytes, |v| v.size(KIB..=1024 * MIB));
        let list_bytes = fields.or("list_bytes", default.list_bytes, |v| v.size(KIB..=1024 * MIB));
        let header_bytes = fields.or("header_bytes", default.header_bytes, |v| v.size(KIB..=MIB));
        let header_count = fields.or("header_count", default.header_count, |v| v.whole(8..=256));
        let connections = fields.or("connections", default.connections, |v| v.whole(1..=COUNT_MAX));
        let http2_streams = fields.or("http2_streams", default.http2_streams, |v| v.whole(1..=10_000));
        let request_head_timeout =
            fields.or("request_head_timeout", default.request_head_timeout, |v| v.duration(SHORT_TIME));
        let request_body_timeout =
            fields.or("request_body_timeout", default.request_body_timeout, |v| v.duration(SHORT_TIME));
        let client_write_timeout =
            fields.or("client_write_timeout", default.client_write_timeout, |v| v.duration(SHORT_TIME));
        let batch_messages = fields.or("batch_messages", default.batch_messages, |v| v.whole(1..=10_000));
        let token_cache = fields.or("token_cache", default.token_cache, |v| v.whole(1..=COUNT_MAX));
        let agent_cache = fields.or("agent_cache", default.agent_cache, |v| v.whole(1..=COUNT_MAX));
        let credential_cache = fields.or("credential_cache", default.credential_cache, |v| v.whole(1..=COUNT_MAX));
        let decision_cache = fields.or("decision_cache", default.decision_cache, |v| v.whole(1..=COUNT_MAX));
        let revoked_sessions = fields.or("revoked_sessions", default.revoked_sessions, |v| v.whole(1..=COUNT_MAX));
        let budget_cells = fields.or("budget_cells", default.budget_cells, |v| v.whole(1024..=COUNT_MAX));
        let taint_marks = fields.or("taint_marks", default.taint_marks, |v| v.whole(1..=COUNT_MAX));
        let quarantines = fields.or("quarantines", default.quarantines, |v| v.whole(1..=65_536));
        let handover_sessions = fields.or("handover_sessions", default.handover_sessions, |v| v.whole(1..=1 << 20));
        Some(Limits {
            body_bytes: body_bytes?,
            json_depth: json_depth?,
            sse_event_bytes: sse_event_bytes?,
            list_bytes: list_bytes?,
            header_bytes: header_bytes?,
            header_count: header_count?,
            connections: connections?,
            http2_streams: http2_streams?,
            request_head_timeout: request_head_timeout?,
            request_body_timeout: request_body_timeout?,
            client_write_timeout: client_write_timeout?,
            batch_messages: batch_messages?,
            token_cache: token_cache?,
            agent_cache: agent_cache?,
            credential_cache: credential_cache?,
            decision_cache: decision_cache?,
            revoked_sessions: revoked_sessions?,
            budget_cells: budget_cells?,
            taint_marks: taint_marks?,
            quarantines: quarantines?,
            handover_sessions: handover_sessions?,
        })
    })
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Entries of a cache or queue.
const COUNT_MAX: usize = 1 << 24;

/// For one step of a request.
const SHORT_TIME: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
