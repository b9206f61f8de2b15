//! The composition root: builds every long-lived part and registers Pingora's services.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pingora::apps::HttpServerOptions;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use pingora_proxy::http_proxy;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::control::admin::{Admin, AdminListener, MetricsPage, Parts, sessions_of};
use crate::control::builder::Builder;
use crate::control::certificates::{CertificateWatch, Certificates};
use crate::control::governance::Governance;
use crate::control::health::HealthChecks;
use crate::control::keys::KeyRefresh;
use crate::control::phases::{Phases, Signals};
use crate::control::pulse;
use crate::control::reload::{self, Reload};
use crate::control::warmup::Warmup;
use crate::control::world;
use crate::gateway::Gateway;
use crate::gateway::door::Door;
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
    let builder = Arc::new(Builder::new(file, Arc::clone(&live), outbound.clone(), Arc::clone(&metrics)));
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

    let options = Opt { upgrade, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(options, server_conf(&config));
    let phases = server.watch_execution_phase();

    // Keys are fetched and instances probed before the listening sockets are opened or taken over, so that a successor
    // that cannot work yet does not replace a process that does.
    let warmup = Warmup { live: Arc::clone(&live), metrics: Arc::clone(&metrics), clock, within: WARMUP_MAX };
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
    let mut proxy = http_proxy(&server.configuration, gateway);
    proxy.server_options = Some(http_options());
    proxy.h2_options = Some(h2_options());
    let mut proxy = Service::new("gateway".to_owned(), Door::new(proxy));
    for listen in &config.listen {
        let address = listen.address.to_string();
        match certificates.settings(listen.address) {
            Some(settings) => proxy.add_tls_with_settings(&address, None, settings.context("TLS")?),
            None => proxy.add_tcp(&address),
        }
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
            sessions: sessions_of(governance.as_ref()),
            governance: governance.clone(),
            clock,
        });
        let admin = admin.map_err(|_unspecified| anyhow!("the system has no random numbers"))?;
        let mut service = Service::new("admin".to_owned(), AdminListener::new(Arc::new(admin)));
        match certificates.settings(address) {
            Some(settings) => service.add_tls_with_settings(&address.to_string(), None, settings.context("TLS")?),
            None => service.add_tcp(&address.to_string()),
        }
        server.add_service(service).add_dependency(&bootstrap);
    }
    if let Some(address) = config.metrics {
        let page = MetricsPage { address, metrics: Arc::clone(&metrics) };
        let mut service = Service::new("metrics".to_owned(), page);
        service.add_tcp(&address.to_string());
        server.add_service(service).add_dependency(&bootstrap);
    }
    server.add_service(background_service("health", HealthChecks::new(Arc::clone(&live)))).add_dependency(&warmup);
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
    let path = path.to_owned();
    let reload = Reload { path, live: Arc::clone(&live), audit: audit.clone(), metrics, builder, certificates, asked };
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
    let listeners = config.listeners().into_iter().map(|listen| listen.address);
    // Held until all are bound: two keys that name one address are found as well.
    let mut held = Vec::new();
    for address in listeners.chain(config.metrics) {
        held.push(TcpListener::bind(address).with_context(|| address.to_string())?);
    }
    Ok(())
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

fn http_options() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(H2_IDLE_MAX);
    options
}

fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options.initial_window_size(H2_WINDOW_BYTES);
    options
}

/// How long keys and instances are waited for before the gateway opens.
const WARMUP_MAX: Duration = Duration::from_secs(6);

/// How long the audit log may take to write its last records.
const AUDIT_CLOSE_MAX: Duration = Duration::from_secs(10);

/// Lists that passed and wait to be looked at.
const PASSED_MAX: usize = 1024;

/// Attempts at one request, the first included.
const TRIES_MAX: usize = 3;

/// What a client may send on one HTTP/2 stream before it has to wait for us.
const H2_WINDOW_BYTES: u32 = 1024 * 1024;

/// An HTTP/2 connection without a stream is closed after this long.
const H2_IDLE_MAX: Duration = Duration::from_secs(60);
