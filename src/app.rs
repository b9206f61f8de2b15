//! The composition root: builds every long-lived part and registers Pingora's services.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use pingora_proxy::http_proxy;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;

use crate::config::{Config, Listen};
use crate::control::admin::{Admin, AdminListener, MetricsPage, Parts, Sampling, sessions_of};
use crate::control::builder::Builder;
use crate::control::certificates::{CertificateWatch, Certificates};
use crate::control::governance::Governance;
use crate::control::health::HealthChecks;
use crate::control::keys::KeyRefresh;
use crate::control::phases::{Phases, Signals};
use crate::control::proofs::ProofRefresh;
use crate::control::pulse;
use crate::control::quarantine::socket::ControlSocket;
use crate::control::quarantine::{QuarantineDesk, client};
use crate::control::regions::RegionWatch;
use crate::control::reload::{self, Reload};
use crate::control::upstream_tls::UpstreamCertificates;
use crate::control::warmup::{Means, Warmup};
use crate::control::world;
use crate::gateway::Gateway;
use crate::gateway::door::{Door, Room};
use crate::lifecycle::Lifecycle;
use crate::net::Outbound;
use crate::snapshot::Live;
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent::Recent;
use crate::time::Clock;

/// Serves `config`, which was read from `path`, until the process is told to end. With `upgrade`, the listening sockets
/// are taken over from the running process.
///
/// # Errors
/// When a part cannot be built; nothing serves then.
pub fn run(path: &Path, config: Config, upgrade: bool) -> anyhow::Result<()> {
    if !upgrade {
        check_addresses(&config)?;
    }
    let clock = Clock;
    let metrics = Arc::new(Metrics::new(prometheus::Registry::new()).context("metrics")?);
    let outbound = Outbound::new().context("outbound client")?;
    if !outbound.has_system_roots() {
        tracing::warn!(
            "This system trusts no certificate authority: calls over https will fail (install ca-certificates)."
        );
    }
    let recent = config.admin.as_ref().filter(|admin| admin.sign_in.is_some());
    let recent = recent.map(|admin| Arc::new(Recent::new(admin.recent)));
    let audit = AuditSink::start_showing(&config.audit, gateway_id()?.into(), &metrics, recent.clone());
    let audit = audit.context("audit log")?;
    let file = config.clone();
    let live = Arc::new(Live::new(world::build(config, None, &outbound, &metrics)?));
    metrics.config_in_force(live.peek().generation);
    let means = Means { outbound: outbound.clone(), metrics: Arc::clone(&metrics), clock };
    let builder = Arc::new(Builder::new(file, Arc::clone(&live), means.clone()));
    let certificates = Certificates::load(&live.peek().config.listeners(), Arc::clone(&metrics), clock)?;
    let certificates = Arc::new(certificates);
    let lifecycle = Arc::new(Lifecycle::default());
    let config = Arc::clone(&live.peek().config);

    // Read before anything listens: until it was, nothing of the governed servers is open.
    let (observer, passed) = mpsc::channel(PASSED_MAX);
    let governance = match config.store.clone() {
        Some(store) => {
            let (live, builder) = (Arc::clone(&live), Arc::clone(&builder));
            let started = Governance::start(store, live, builder, audit.clone(), Arc::clone(&metrics), passed);
            Some(started.context("registry")?)
        }
        None => None,
    };
    let observer = governance.as_ref().map(|_there| observer);
    let control_sock = config.server.control_sock.clone();
    let inherited = control_sock.as_deref().map(client::inherit).unwrap_or_default();
    let quarantines =
        QuarantineDesk::open(Arc::clone(&live), governance.clone(), inherited, audit.clone(), Arc::clone(&metrics));

    let options = Opt { upgrade, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(options, server_conf(&config));
    let phases = server.watch_execution_phase();

    // Keys are fetched and instances probed before the listening sockets are opened or taken over, so that a successor
    // that cannot work yet does not replace a process that does.
    let warmup = Warmup { live: Arc::clone(&live), means, within: WARMUP_MAX };
    let warmup = server.add_service(background_service("warm-up", warmup));
    let bootstrap = server.bootstrap_as_a_service();
    bootstrap.add_dependency(&warmup);

    let gateway = Gateway::new(
        Arc::clone(&live),
        Arc::clone(&metrics),
        audit.clone(),
        outbound.clone(),
        Arc::clone(&lifecycle),
        observer,
    );
    let gateway = gateway.map_err(|_unspecified| anyhow!("the system has no random numbers"))?;
    server.add_service(background_service("sweep", gateway.sweep()));
    let proxy = http_proxy(&server.configuration, gateway);
    let room = Room::Public { files_max: connections_in(files_max()), metrics: Arc::clone(&metrics) };
    let mut proxy = Service::new("gateway".to_owned(), Door::new(proxy, Arc::clone(&live), room));
    for listen in &config.listen {
        open(&mut proxy, listen.address, &certificates)?;
    }
    let (proxy, pulse) = pulse::of(proxy, Arc::clone(&lifecycle));
    server.add_service(proxy).add_dependency(&bootstrap);
    server.add_service(background_service("pulse", pulse)).add_dependency(&bootstrap);

    let (desk, asked) = reload::desk();
    if let Some(settings) = &config.admin {
        let address = settings.address;
        let admin = Admin::new(Parts {
            address,
            live: Arc::clone(&live),
            lifecycle: Arc::clone(&lifecycle),
            metrics: Arc::clone(&metrics),
            audit: audit.clone(),
            recent,
            outbound: outbound.clone(),
            reload: desk,
            builder: Arc::clone(&builder),
            quarantines: quarantines.clone(),
            sessions: sessions_of(governance.as_ref()),
            governance: governance.clone(),
            clock,
        });
        let admin = admin.map_err(|_unspecified| anyhow!("the system has no random numbers"))?;
        let admin = Arc::new(admin);
        let mut service = Service::new("admin".to_owned(), AdminListener::new(Arc::clone(&admin)));
        open(&mut service, address, &certificates)?;
        server.add_service(service).add_dependency(&bootstrap);
        if settings.sign_in.is_some() {
            server.add_service(background_service("samples", Sampling(admin))).add_dependency(&bootstrap);
        }
    }
    let control = ControlSocket { path: control_sock, desk: quarantines };
    server.add_service(background_service("control", control)).add_dependency(&bootstrap);
    if let Some(Listen { address, .. }) = config.metrics {
        let page = MetricsPage { address, live: Arc::clone(&live), metrics: Arc::clone(&metrics) };
        let door = Door::new(page, Arc::clone(&live), Room::Operators);
        let mut service = Service::new("metrics".to_owned(), door);
        open(&mut service, address, &certificates)?;
        server.add_service(service).add_dependency(&bootstrap);
    }
    server.add_service(background_service("health", HealthChecks::new(Arc::clone(&live)))).add_dependency(&warmup);
    let proofs =
        ProofRefresh { live: Arc::clone(&live), outbound: outbound.clone(), metrics: Arc::clone(&metrics), clock };
    server.add_service(background_service("proofs", proofs)).add_dependency(&warmup);
    let keys = KeyRefresh { live: Arc::clone(&live), metrics: Arc::clone(&metrics), clock };
    server.add_service(background_service("keys", keys)).add_dependency(&warmup);
    let phases = Phases {
        phases: tokio::sync::Mutex::new(phases),
        lifecycle: Arc::clone(&lifecycle),
        audit: audit.clone(),
        pid_file: config.server.pid_file.clone(),
        grace: Duration::from_secs(config.server.grace_period_seconds),
    };
    server.add_service(background_service("phases", phases));
    server.add_service(background_service("certificates", CertificateWatch(Arc::clone(&certificates))));
    let regions = RegionWatch { live: Arc::clone(&live), metrics: Arc::clone(&metrics) };
    server.add_service(background_service("regions", regions));
    let path = path.to_owned();
    let upstream_certificates = UpstreamCertificates::new(Arc::clone(&live), Arc::clone(&metrics), clock);
    let upstream_watch = background_service("upstream certificates", upstream_certificates);
    let upstream_certificates = upstream_watch.task();
    server.add_service(upstream_watch);
    let reload = Reload {
        path,
        live: Arc::clone(&live),
        audit: audit.clone(),
        metrics,
        builder,
        certificates,
        upstream_certificates,
        asked,
    };
    server.add_service(background_service("reload", reload));

    let signals = Signals {
        upgrade_sock: config.server.upgrade_sock.clone(),
        lifecycle,
        drain: Duration::from_secs(config.server.drain_seconds),
    };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    audit.close(AUDIT_CLOSE_MAX).context("audit log")
}

/// Refuses addresses that cannot be bound. Pingora tries each for half a minute, and then ends only the one service, so that
/// the process would live on and call itself ready without its listener.
fn check_addresses(config: &Config) -> anyhow::Result<()> {
    // Held until all are bound: two keys that name one address are found as well.
    let mut held = Vec::new();
    for Listen { address, .. } in config.listeners() {
        held.push(TcpListener::bind(address).with_context(|| address.to_string())?);
    }
    Ok(())
}

/// Has `service` listen on `address`, over TLS if `certificates` says so.
fn open<A>(service: &mut Service<A>, address: SocketAddr, certificates: &Certificates) -> anyhow::Result<()> {
    let listener = ListenerConfig::tcp(address.to_string());
    service.add_listener(match certificates.settings(address) {
        Some(settings) => {
            let buffer = L4BufferSettings::default().read(TLS_READ_BYTES);
            listener.tls(settings.context("TLS")?).l4_buffer(buffer)
        }
        // Heads and bodies have buffers of their own, so one more would only be memory, and a copy.
        None => listener.l4_buffer(L4BufferSettings::default().read(0)),
    });
    Ok(())
}

/// How many files the process may have open, sockets included. The limit is first raised as far as the system lets everybody
/// raise it: a shell or a container often starts with 1024, which is meant for programs that use `select`.
fn files_max() -> usize {
    let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let raised = now >= most || setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok();
    usize::try_from(if raised { most } else { now }).unwrap_or(usize::MAX)
}

/// How many of so many open files may be clients: the rest is for connections to servers, logs and files that are read again.
fn connections_in(files_max: usize) -> usize {
    files_max / 4 * 3
}

/// Names this process in its audit records: no two processes share one, so that `seq` counts without gaps in each.
fn gateway_id() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 4];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| anyhow!("the system has no random numbers"))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "portcullis" } else { host.trim() };
    Ok(format!("{host}-{:08x}", u32::from_be_bytes(bytes)))
}

fn server_conf(config: &Config) -> ServerConf {
    let settings = &config.server;
    let mut conf = ServerConf {
        threads: settings.threads,
        work_stealing: settings.work_stealing,
        grace_period_seconds: Some(settings.grace_period_seconds),
        graceful_shutdown_timeout_seconds: Some(settings.graceful_shutdown_timeout_seconds),
        max_retries: TRIES_MAX,
        ..ServerConf::default()
    };
    if let Some(path) = &settings.upgrade_sock {
        conf.upgrade_sock = path.display().to_string();
    }
    if let Some(path) = &settings.pid_file {
        conf.pid_file = path.display().to_string();
    }
    conf
}

/// How long keys and instances are waited for before the gateway opens.
const WARMUP_MAX: Duration = Duration::from_secs(6);

/// How long the audit log may take to write its last records.
const AUDIT_CLOSE_MAX: Duration = Duration::from_secs(10);

/// Lists that passed and wait to be looked at.
const PASSED_MAX: usize = 1024;

/// Attempts at one request, the first included.
const TRIES_MAX: usize = 3;

/// What is read at once of a TLS connection: one record. Pingora's own 64 KiB would be kept by every idle connection.
const TLS_READ_BYTES: usize = 16 * 1024;
