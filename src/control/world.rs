//! How does a configuration become a snapshot?

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use pingora::protocols::tls::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use ring::digest::{Context, SHA256};

use crate::config::pem::{self, PemError};
use crate::config::{Config, InstanceConfig, IssuerConfig, Machine, RouteConfig, ServerConfig, ThisMachine};
use crate::identity::challenge::Challenges;
use crate::identity::metadata::{ResourceMetadata, WELL_KNOWN};
use crate::identity::{KeySource, Scopes};
use crate::net::{Keyring, Outbound};
use crate::policy::{Effect, Policy};
use crate::registry::server::Authority;
use crate::registry::{Issuer, Route, Server};
use crate::routing::{Instance, Pool};
use crate::session::Ring;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;

use super::health::{Discovery, Probe};

/// Why a checked configuration cannot be put to work. Everything in it was valid by itself; what failed lies outside the
/// file, or in how its parts meet.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A static credential cannot stand in a header.
    #[error("servers: {server}: credential: {cause}")]
    Credential {
        /// The server.
        server: Arc<str>,
        /// What is wrong with it.
        cause: String,
    },
    /// A PEM file of an upstream's TLS settings cannot be used.
    #[error("servers: {server}: {path}: {cause}")]
    Pem {
        /// The server.
        server: Arc<str>,
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A route refers to something that cannot be put together.
    #[error("routes: {path}: {cause}")]
    Route {
        /// The route.
        path: Arc<str>,
        /// What is wrong with it.
        cause: String,
    },
    /// There is no usable session key.
    #[error("session.keys: no key")]
    SessionKey,
}

/// Builds the snapshot of `config`. What is unchanged since `previous` is carried over: keys that were fetched, and
/// instances with their health, so that a reload disturbs nothing that it does not change.
///
/// # Errors
/// [`BuildError`]; `previous` stays as it is.
pub fn build(
    config: Config,
    previous: Option<&Snapshot>,
    outbound: &Outbound,
    metrics: &Arc<Metrics>,
) -> Result<Snapshot, BuildError> {
    let config = Arc::new(config);
    let ring = Ring::derive(&config.session.keys).ok_or(BuildError::SessionKey)?;
    let issuers: Vec<Arc<Issuer>> = config.issuers.iter().map(|issuer| issuer_of(issuer, previous, outbound)).collect();
    let servers = config
        .servers
        .iter()
        .map(|server| server_of(server, previous, metrics))
        .collect::<Result<Vec<Arc<Server>>, BuildError>>()?;

    let mut routes = Vec::with_capacity(config.routes.len());
    let mut metadata = HashMap::new();
    for route in &config.routes {
        let problem = |cause: String| BuildError::Route { path: Arc::clone(&route.path), cause };
        let server = route.servers.first().and_then(|name| servers.iter().find(|server| server.name() == name));
        let server = Arc::clone(server.ok_or_else(|| problem("its server is not declared".into()))?);
        let accepted: Vec<Arc<Issuer>> =
            issuers.iter().filter(|issuer| route.issuers.contains(&issuer.config.name)).cloned().collect();
        let document = ResourceMetadata::new(
            &route.resource,
            accepted.iter().map(|issuer| &*issuer.config.issuer),
            route.scopes_supported.iter().map(|scope| &**scope),
        )
        .map_err(|error| problem(error.to_string()))?;
        let challenges =
            Challenges::new(document.url(), &first_scopes(route)).map_err(|error| problem(error.to_string()))?;
        let policy = Policy::compile(route.default, &route.rules, &route.servers).map_err(|problems| {
            let texts: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
            problem(texts.join("; "))
        })?;
        if config.routes.len() == 1 {
            metadata.insert(WELL_KNOWN.to_owned(), document.body().clone());
        }
        metadata.insert(document.path().to_owned(), document.body().clone());
        routes.push(Arc::new(Route {
            id: NEXT_ROUTE_ID.fetch_add(1, Ordering::Relaxed),
            config: Arc::clone(route),
            server,
            issuers: accepted,
            policy,
            challenges,
        }));
    }
    let generation = previous.map_or(1, |previous| previous.generation + 1);
    Ok(Snapshot::new(generation, config, Arc::new(ring), issuers, servers, routes, metadata))
}

/// What a caller without a token is told to ask for: the least that any allow rule wants, not the catalogue
/// (MCP Security Best Practices, "Scope Minimization").
fn first_scopes(route: &RouteConfig) -> Scopes {
    let rules = route.rules.iter().filter(|rule| rule.effect == Effect::Allow && !rule.scopes.is_empty());
    let least = rules.min_by_key(|rule| rule.scopes.len());
    least.map_or_else(Scopes::default, |rule| Scopes::new(rule.scopes.iter().cloned()))
}

/// The keys of an unchanged issuer are carried over, so that a reload while it is down loses none.
fn issuer_of(config: &Arc<IssuerConfig>, previous: Option<&Snapshot>, outbound: &Outbound) -> Arc<Issuer> {
    let kept = previous.and_then(|previous| {
        previous.issuers.iter().find(|issuer| {
            let before = &issuer.config;
            before.issuer == config.issuer && before.jwks == config.jwks && before.jwks_cooldown == config.jwks_cooldown
        })
    });
    let keys: Arc<dyn KeySource> = match kept {
        Some(issuer) => Arc::clone(&issuer.keys),
        None => Arc::new(Keyring::new(Arc::clone(config), outbound.clone())),
    };
    Arc::new(Issuer { policy: config.policy(), config: Arc::clone(config), keys })
}

fn server_of(
    config: &Arc<ServerConfig>,
    previous: Option<&Snapshot>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Server>, BuildError> {
    // Read every time: the files may have changed under the same names.
    let tls = TlsFiles::read(config)?;
    let kept = previous.and_then(|previous| {
        let same = |server: &&Arc<Server>| {
            server.name() == &config.name
                && same_instances(&server.config, config)
                && server.pool.instances().iter().all(|instance| instance.connection_group() == tls.fingerprint)
        };
        previous.servers.iter().find(same)
    });
    let pool = match kept {
        Some(server) => Arc::clone(&server.pool),
        None => Arc::new(pool_of(config, &tls, metrics)),
    };
    let authority = Authority::prepare(&config.credential)
        .map_err(|error| BuildError::Credential { server: Arc::clone(&config.name), cause: error.to_string() })?;
    Ok(Arc::new(Server { config: Arc::clone(config), pool, authority }))
}

fn same_instances(one: &ServerConfig, other: &ServerConfig) -> bool {
    one.instances == other.instances
        && one.health == other.health
        && one.timeouts == other.timeouts
        && one.tls == other.tls
        && one.http2 == other.http2
}

fn pool_of(server: &Arc<ServerConfig>, tls: &TlsFiles, metrics: &Arc<Metrics>) -> Pool {
    let instances: Vec<(Arc<Instance>, InstanceConfig)> = server
        .instances
        .iter()
        .map(|config| {
            metrics.instance_healthy(&server.name, &config.id);
            let instance =
                Instance::new(Arc::clone(&config.id), host_header(config), peer_template(server, config, tls));
            (Arc::new(instance), config.clone())
        })
        .collect();
    let members = instances.iter().map(|(instance, _config)| Arc::clone(instance)).collect();
    let discovery = Discovery::new(instances, server.declared);
    let probe = Probe::new(Arc::clone(server), Arc::clone(metrics));
    Pool::new(members, Box::new(discovery), Box::new(probe), server.health.interval)
}

/// `Host` as RFC 9110 §7.2 asks: the port is left out when it is the scheme's own.
fn host_header(instance: &InstanceConfig) -> HeaderValue {
    let default_port = if instance.tls { 443 } else { 80 };
    let host = if instance.port == default_port {
        instance.host.clone()
    } else {
        format!("{}:{}", instance.host, instance.port)
    };
    // The configuration was checked to hold a host name or address, so this always parses.
    HeaderValue::from_str(&host).unwrap_or_else(|_checked| HeaderValue::from_static("invalid"))
}

/// How to connect to an instance, all but the address, which [`Instance`] fills in when the host name resolves.
fn peer_template(server: &ServerConfig, instance: &InstanceConfig, tls: &TlsFiles) -> HttpPeer {
    let sni = match (instance.tls, &server.tls.server_name) {
        (true, Some(name)) => name.clone(),
        (true, None) => instance.host.trim_matches(['[', ']']).to_owned(),
        (false, _) => String::new(),
    };
    let mut peer = HttpPeer::new((std::net::Ipv4Addr::UNSPECIFIED, instance.port), instance.tls, sni);
    peer.client_cert_key = tls.client.clone();
    peer.group_key = tls.fingerprint;
    let options = &mut peer.options;
    options.ca = tls.ca.clone();
    options.connection_timeout = Some(server.timeouts.connect);
    options.total_connection_timeout = Some(server.timeouts.connect);
    options.write_timeout = Some(server.timeouts.first_byte);
    options.idle_timeout = Some(server.timeouts.keepalive);
    options.max_h2_streams = H2_STREAMS_PER_CONNECTION;
    options.alpn = if server.http2 { ALPN::H2 } else { ALPN::H1 };
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    peer
}

/// What the files of `servers[].tls` hold.
struct TlsFiles {
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
    /// Recognizes these very files; 0 when there are none. Pingora's pool tells connections apart by the serial of the
    /// client certificate but not by the authorities, so without it a connection that was verified by one server's
    /// authorities would carry requests of another's, or of a configuration that trusts them no more.
    fingerprint: u64,
}

impl TlsFiles {
    fn read(server: &ServerConfig) -> Result<Self, BuildError> {
        let tls = &server.tls;
        let mut seen = Context::new(&SHA256);
        let mut parsed = |path: &Path| {
            let file = ThisMachine.read(path).map_err(|cause| pem_error(server, path, &cause))?;
            seen.update(&(file.bytes.expose().len() as u64).to_be_bytes());
            seen.update(file.bytes.expose());
            Ok::<_, BuildError>(file)
        };
        let mut ca = None;
        if let Some(path) = &tls.ca {
            let file = parsed(path)?;
            pem::authorities(file.bytes.expose()).map_err(|error| unusable(server, path, error))?;
            let chain = pem::certificates(file.bytes.expose()).map_err(|error| unusable(server, path, error))?;
            let wrapped = chain.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509));
            ca = Some(Arc::from(wrapped.collect::<Box<[WrappedX509]>>()));
        }
        let mut client = None;
        if let (Some(certificate), Some(key)) = (&tls.client_certificate, &tls.client_key) {
            let chain = pem::certificates(parsed(certificate)?.bytes.expose())
                .map_err(|error| unusable(server, certificate, error))?;
            let private_key =
                pem::private_key(parsed(key)?.bytes.expose()).map_err(|error| unusable(server, key, error))?;
            pem::certified_key(chain.clone(), &private_key).map_err(|error| unusable(server, key, error))?;
            let chain = chain.iter().map(|der| der.to_vec()).collect();
            client = Some(Arc::new(CertKey::new(chain, private_key.expose().clone())));
        }
        let fingerprint = if ca.is_none() && client.is_none() { 0 } else { first_bits(seen.finish().as_ref()) };
        Ok(Self { ca, client, fingerprint })
    }
}

fn unusable(server: &ServerConfig, path: &Path, error: PemError) -> BuildError {
    pem_error(server, path, &error.to_string())
}

fn first_bits(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn pem_error(server: &ServerConfig, path: &Path, cause: &str) -> BuildError {
    BuildError::Pem { server: Arc::clone(&server.name), path: path.display().to_string(), cause: cause.to_owned() }
}

/// Ids of compiled routes: never used twice in a process.
static NEXT_ROUTE_ID: AtomicU64 = AtomicU64::new(1);

const H2_STREAMS_PER_CONNECTION: usize = 100;
