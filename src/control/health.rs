//! Where do the instances' names lead, and are they alive?

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr as _};
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::HealthCheck;
use serde_json::json;
use tokio::net::{TcpStream, lookup_host};
use tracing::{info, warn};

use crate::config::{Declared, DiscoveryProtocol, InstanceConfig, ServerConfig};
use crate::credential::{Credential, Plan};
use crate::mcp::{Era, Method};
use crate::net::{Talk, TalkError, egress};
use crate::routing::instance::{EMFILE, Health, is_lack_of_files};
use crate::routing::pool::of_backend;
use crate::routing::{Instance, Pool};
use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;

/// Resolves the instances of one server. A name that does not resolve keeps its last good address.
pub struct Discovery {
    instances: Vec<(Arc<Instance>, InstanceConfig)>,
    declared: Declared,
}

impl Discovery {
    /// Over the instances of one server.
    #[must_use]
    pub fn new(instances: Vec<(Arc<Instance>, InstanceConfig)>, declared: Declared) -> Self {
        Self { instances, declared }
    }
}

#[async_trait]
impl ServiceDiscovery for Discovery {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut backends = BTreeSet::new();
        for (instance, config) in &self.instances {
            if let Some(address) = resolve(&config.host, config.port, self.declared).await {
                instance.resolved(address);
            }
            let Some(peer) = instance.peer() else { continue };
            let mut backend = Backend { addr: peer._address, weight: config.weight, ext: http::Extensions::new() };
            backend.ext.insert(Arc::clone(instance));
            backends.insert(backend);
        }
        Ok((backends, HashMap::new()))
    }
}

/// One health check of one server: a TCP connection, or `GET` that must answer 200.
pub struct Probe {
    server: Arc<ServerConfig>,
    metrics: Arc<Metrics>,
    connector: Connector,
}

impl Probe {
    /// As the server's `health` says.
    #[must_use]
    pub fn new(server: Arc<ServerConfig>, metrics: Arc<Metrics>) -> Self {
        Self { server, metrics, connector: Connector::new(None) }
    }

    async fn ask(&self, instance: &Instance) -> pingora::Result<()> {
        let Some(mut peer) = instance.peer() else { return Error::e_explain(ErrorType::ConnectError, "no address") };
        if self.server.health.mcp {
            return self.talk(instance, peer).await;
        }
        let Some(path) = &self.server.health.http_path else {
            let Some(address) = peer._address.as_inet() else {
                return Error::e_explain(ErrorType::ConnectError, "no address");
            };
            let connected = TcpStream::connect(address).await;
            return connected.map(drop).or_err(ErrorType::ConnectError, "not reachable");
        };
        peer.options.read_timeout = Some(self.server.health.timeout);
        let (mut session, _reused) = self.connector.get_http_session(&peer).await?;
        let mut head = RequestHeader::build("GET", path.as_bytes(), None)?;
        head.insert_header(http::header::HOST, instance.host.clone())?;
        session.write_request_header(Box::new(head)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map(|head| head.status.as_u16());
        if status == Some(200) { Ok(()) } else { Error::e_explain(ErrorType::ConnectError, "status is not 200") }
    }
}

impl Probe {
    /// Whether it answers as an MCP server does: `server/discover` (2026-07-28), or `initialize` and `ping` in a session of its
    /// own, which is ended again.
    async fn talk(&self, instance: &Instance, mut peer: HttpPeer) -> pingora::Result<()> {
        peer.options.read_timeout = Some(self.server.health.timeout);
        let (headers, protocol) = own_voice(&self.server);
        let host = instance.host.clone();
        let mut talk = Talk::new(&self.connector, peer, host, &self.server.path, headers, ANSWER_BYTES_MAX);
        let mut answered = talk.begin(protocol).await;
        if answered.is_ok() && talk.revision().era() == Era::Legacy {
            answered = talk.tell(Method::Ping, json!({})).await;
        }
        talk.end().await;
        answered.map_err(|error| match error {
            TalkError::NoFiles => {
                let cause = std::io::Error::from_raw_os_error(EMFILE);
                Error::because(ErrorType::ConnectError, "no more files", cause)
            }
            TalkError::NotMcp | TalkError::Refused { .. } | TalkError::TooLarge | TalkError::Unreachable => {
                Error::explain(ErrorType::ConnectError, error.label())
            }
        })
    }
}

/// What the gateway shows a server in its own name, and how it speaks to it: as `discovery` says, else with the secret that is
/// the same for everybody.
fn own_voice(server: &ServerConfig) -> (HeaderMap, DiscoveryProtocol) {
    let discovery = server.governed.as_ref().and_then(|governed| governed.discovery.as_ref());
    let plan = discovery.map_or(&server.credential, |discovery| &discovery.credential);
    let protocol = discovery.map_or(DiscoveryProtocol::Auto, |discovery| discovery.protocol);
    let mut headers = HeaderMap::new();
    if let Plan::Static { header, secret } = plan
        && let Ok(credential) = Credential::from_static(header.clone(), secret)
    {
        headers.insert(credential.header().clone(), credential.value().clone());
    }
    (headers, protocol)
}

/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let Some(instance) = of_backend(target) else { return Ok(()) };
        let asked = tokio::time::timeout(self.server.health.timeout, self.ask(instance)).await;
        match asked.unwrap_or_else(|_elapsed| Error::e_explain(ErrorType::ConnectTimedout, "no answer in time")) {
            Ok(()) => instance.check_succeeded(),
            // We could not ask. That says nothing of the instance, so the verdict on it stays.
            Err(error) if instance.is_healthy() && is_lack_of_files(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        let Some(instance) = of_backend(target) else { return };
        instance.turned(if healthy { Health::Healthy } else { Health::Unhealthy });
        if healthy {
            self.metrics.instance_healthy(&self.server.name, &instance.id);
            info!(server = %self.server.name, instance = %instance.id, "The instance answers again and takes work.");
        } else {
            self.metrics.instance_unhealthy(&self.server.name, &instance.id);
            warn!(server = %self.server.name, instance = %instance.id, "The instance does not answer and takes no work.");
        }
    }

    fn health_threshold(&self, success: bool) -> usize {
        if success { self.server.health.healthy_after } else { self.server.health.unhealthy_after }
    }
}

/// Keeps every pool of the live snapshot fresh: one task a pool, which ends when no snapshot holds the pool any more.
pub struct HealthChecks {
    live: Arc<Live>,
}

impl HealthChecks {
    /// For the pools of `live`.
    #[must_use]
    pub fn new(live: Arc<Live>) -> Self {
        Self { live }
    }
}

#[async_trait]
impl BackgroundService for HealthChecks {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut swaps = self.live.watch();
        let mut watched: Vec<std::sync::Weak<Pool>> = Vec::new();
        loop {
            watched.retain(|pool| pool.strong_count() > 0);
            for server in &self.live.take().servers {
                let pool = Arc::downgrade(&server.pool);
                if !watched.iter().any(|known| known.ptr_eq(&pool)) {
                    watched.push(pool.clone());
                    tokio::spawn(keep_fresh(pool, server.pool.interval));
                }
            }
            tokio::select! {
                _ = shutdown.changed() => return,
                swapped = swaps.changed() => if swapped.is_err() { return },
            }
        }
    }
}

async fn keep_fresh(pool: std::sync::Weak<Pool>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        pool.refresh().await;
    }
}

async fn resolve(host: &str, port: u16, declared: Declared) -> Option<SocketAddr> {
    let host = host.trim_matches(['[', ']']);
    // Whoever may register a server may not have the gateway ask the machine it runs on, or its cloud, for secrets.
    let may_be_asked = |ip: IpAddr| declared == Declared::InTheFile || egress::may_be_called(ip);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return may_be_asked(ip).then(|| SocketAddr::new(ip, port));
    }
    let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await.ok()?.collect();
    addresses.retain(|address| may_be_asked(address.ip()));
    // A name may have several addresses in changing order: always the same one, IPv4 first, keeps connections pooled.
    addresses.sort_unstable();
    addresses.first().copied()
}
