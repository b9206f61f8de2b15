//! Is it alive, is it ready, what does it do? The admin and the metrics listener.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde::Serialize;

use crate::lifecycle::Lifecycle;
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

use super::governance::{Governance, StoreStatus};

/// `/healthz`, `/readyz`, `/status`.
pub struct Admin {
    /// Where it listens: its own address is an accepted `Host`.
    pub address: SocketAddr,
    /// What it tells of.
    pub live: Arc<Live>,
    /// Whether the process is on its way out.
    pub lifecycle: Arc<Lifecycle>,
    /// The registry, where there is one.
    pub governance: Option<Governance>,
}

/// `/metrics`.
pub struct MetricsPage {
    /// Where it listens: its own address is an accepted `Host`.
    pub address: SocketAddr,
    /// Whose `allowed_hosts` are accepted too.
    pub live: Arc<Live>,
    /// What it tells.
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, client: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(refusal) = refusal(client, self.address, &self.live) {
            return refusal;
        }
        let world = self.live.peek();
        let status = Status::of(&world, self.governance.as_ref(), self.lifecycle.is_draining());
        match client.req_header().uri.path() {
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" if status.ready && status.store == Some("away") => {
                text(StatusCode::OK, "ready; the store is away, and what was approved stays in force\n")
            }
            "/readyz" if status.ready => text(StatusCode::OK, "ready\n"),
            "/readyz" => json(StatusCode::SERVICE_UNAVAILABLE, &status),
            "/status" => json(StatusCode::OK, &status),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

#[async_trait]
impl ServeHttp for MetricsPage {
    async fn response(&self, client: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(refusal) = refusal(client, self.address, &self.live) {
            return refusal;
        }
        match client.req_header().uri.path() {
            "/metrics" => answer(StatusCode::OK, METRICS_TYPE, self.metrics.render()),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

/// What `/status` tells, and `/readyz` when it is not.
#[derive(Debug, Serialize)]
struct Status {
    ready: bool,
    draining: bool,
    version: &'static str,
    config_generation: u64,
    /// Which parts decide on requests. All of them always do: none can be switched off.
    enforcing: [&'static str; 4],
    /// How it goes with the store of the registry: `up`, `away` (what was in force stays) or `never_read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'static str>,
    issuers: Vec<IssuerStatus>,
    servers: Vec<ServerStatus>,
    routes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct IssuerStatus {
    name: String,
    keys: usize,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    name: String,
    /// Whether it has proved what it must; left out when it must prove nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    identified: Option<bool>,
    instances: Vec<InstanceStatus>,
}

#[derive(Debug, Serialize)]
struct InstanceStatus {
    id: String,
    healthy: bool,
    takes_new_work: bool,
}

impl Status {
    fn of(world: &Snapshot, governance: Option<&Governance>, draining: bool) -> Self {
        let issuers: Vec<IssuerStatus> = world
            .issuers
            .iter()
            .map(|issuer| IssuerStatus { name: issuer.config.name.to_string(), keys: issuer.keys.current().len() })
            .collect();
        let servers: Vec<ServerStatus> = world
            .servers
            .iter()
            .map(|server| ServerStatus {
                name: server.name().to_string(),
                identified: server.proof.as_ref().map(|proof| proof.current(Clock.now()).is_some()),
                instances: server
                    .pool
                    .instances()
                    .iter()
                    .map(|instance| InstanceStatus {
                        id: instance.id.to_string(),
                        healthy: instance.is_healthy(),
                        takes_new_work: instance.takes_new_work(),
                    })
                    .collect(),
            })
            .collect();
        let has_keys = issuers.iter().all(|issuer| issuer.keys > 0);
        let has_instances =
            servers.iter().all(|server| server.instances.iter().any(|instance| instance.takes_new_work));
        let are_identified = world.servers.iter().zip(&servers).all(|(server, status)| {
            let required = server.proof.as_ref().is_some_and(|proof| proof.config.required);
            !required || status.identified == Some(true)
        });
        let mut routes: Vec<String> = world.routes().map(|route| route.config.path.to_string()).collect();
        routes.sort_unstable();
        let store = governance.map(Governance::status);
        // A gateway whose store is away serves what was in force: were it not ready, the loss of one database would take all
        // gateways out of service.
        let has_store = store != Some(StoreStatus::NeverRead);
        Self {
            ready: has_keys && has_instances && are_identified && has_store && !draining,
            store: store.map(|store| match store {
                StoreStatus::Away => "away",
                StoreStatus::NeverRead => "never_read",
                StoreStatus::Up => "up",
            }),
            draining,
            version: env!("CARGO_PKG_VERSION"),
            config_generation: world.generation,
            enforcing: ["identity", "policy", "sessions", "audit"],
            issuers,
            servers,
            routes,
        }
    }
}

/// Refuses who should not look. These pages are for the operator's tools on this machine: a browser that was led here by
/// another name is turned away (DNS rebinding), and nothing here is changed by a request.
fn refusal(client: &ServerSession, address: SocketAddr, live: &Live) -> Option<Response<Vec<u8>>> {
    let head = client.req_header();
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Some(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
    }
    let host =
        head.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| head.uri.host()).unwrap_or_default();
    let is_ours = host == address.to_string()
        || host.rsplit_once(':').map_or(host, |(name, _port)| name) == "localhost"
        || host.parse::<SocketAddr>().is_ok_and(|host| host.ip().is_loopback() || host.ip() == address.ip())
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip == address.ip())
        || address.ip().is_unspecified() && host.parse::<SocketAddr>().is_ok();
    // Over TLS a name is asked for that the certificate has.
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let is_ours = is_ours || live.peek().config.allowed_hosts.iter().any(|allowed| allowed == host || allowed == name);
    let has_origin = head.headers.contains_key(http::header::ORIGIN);
    (!is_ours || has_origin).then(|| text(StatusCode::FORBIDDEN, "forbidden\n"))
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    answer(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Vec<u8>> {
    answer(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
