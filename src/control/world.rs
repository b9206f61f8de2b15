//! How does a configuration become a snapshot?

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderValue;
use pingora::protocols::tls::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use crate::config::{
    AgentClaimsConfig, AgentIssuerConfig, AgentUse, AgentsConfig, AttesterConfig, Config, InstanceConfig, IssuerConfig,
    RouteConfig, ServerConfig,
};
use crate::content::Plan;
use crate::identity::challenge::Challenges;
use crate::identity::metadata::{ResourceMetadata, WELL_KNOWN};
use crate::identity::{IssuerPolicy, KeySource, Scopes};
use crate::net::{Keyring, Outbound};
use crate::policy::{Effect, Policy};
use crate::registry::agents::{AgentClaims, AgentIssuer, Attester};
use crate::registry::server::Authority;
use crate::registry::{AgentTrust, Issuer, Proof, Route, RouteAgents, Server};
use crate::routing::breaker::Breaker;
use crate::routing::rule::RoutingSpec;
use crate::routing::shadow::Shadow;
use crate::routing::{Instance, Pool, Router};
use crate::session::Ring;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;

use super::health::{Discovery, Probe};
use super::regions;
use super::upstream_tls::{TlsFileError, TlsFiles};

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
    /// The issuer of a server's resource token is not declared.
    #[error("servers: {server}: identity: its issuer is not declared")]
    Identity {
        /// The server.
        server: Arc<str>,
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
    /// The database of addresses cannot be used.
    #[error("region.maxmind: {cause}")]
    Region {
        /// What is wrong with it.
        cause: String,
    },
    /// The routing of a server cannot be put together.
    #[error("servers: {server}: routing: {cause}")]
    Routing {
        /// The server.
        server: Arc<str>,
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
        .map(|server| server_of(server, &issuers, previous, metrics))
        .collect::<Result<Vec<Arc<Server>>, BuildError>>()?;

    let agents = config.agents.as_deref().map(|agents| Arc::new(trust_of(agents, &issuers)));
    let mut routes = Vec::with_capacity(config.routes.len());
    let mut metadata = HashMap::new();
    for route in &config.routes {
        let problem = |cause: String| BuildError::Route { path: Arc::clone(&route.path), cause };
        let server = route.servers.first().and_then(|name| servers.iter().find(|server| server.name() == name));
        let server = Arc::clone(server.ok_or_else(|| problem("its server is not declared".into()))?);
        let server_name = Arc::clone(server.name());
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
            content: Plan::new(&server.config.content, &route.content),
            config: Arc::clone(route),
            server,
            issuers: accepted,
            agents: route.agents.zip(agents.clone()).map(|(used, trust)| {
                let required = used == AgentUse::Required;
                RouteAgents { required, trust }
            }),
            budgets: config.budgets.iter().filter(|budget| budget.is_for(&route.path, &server_name)).cloned().collect(),
            taint: config.taint.as_ref().and_then(|rules| rules.at(&server_name)),
            policy,
            challenges,
        }));
    }
    outbound.allow_plain_http(&config.plain_http_hosts);
    let generation = previous.map_or(1, |previous| previous.generation + 1);
    let locator = config.region.as_ref().map(|spec| regions::locator_of(spec, previous, metrics)).transpose();
    let locator = locator.map_err(|cause| BuildError::Region { cause })?;
    let mut snapshot = Snapshot::new(generation, config, Arc::new(ring), issuers, servers, routes, metadata);
    snapshot.locator = locator;
    Ok(snapshot)
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

/// The issuers that `agents` names, with their keys. The reader has checked that each is there.
fn trust_of(config: &AgentsConfig, issuers: &[Arc<Issuer>]) -> AgentTrust {
    let named = |name: &Arc<str>| issuers.iter().find(|issuer| issuer.config.name == *name).cloned();
    let agent_issuer = |agent: &AgentIssuerConfig| {
        let issuer = named(&agent.issuer)?;
        let policy = IssuerPolicy {
            audiences: agent.audiences.clone(),
            token_types: agent.token_types,
            ..issuer.policy.clone()
        };
        let delegators = agent.delegators.iter().filter_map(named).map(|it| Arc::clone(&it.policy.issuer)).collect();
        Some(AgentIssuer { issuer, policy, delegators, chain: agent.chain })
    };
    let agent_claims = |claims: &AgentClaimsConfig| {
        let forms = claims.claims.clone().into();
        Some(AgentClaims { issuer: named(&claims.issuer)?, forms, chain: claims.chain })
    };
    let attester = |attester: &AttesterConfig| {
        let issuer = named(&attester.issuer)?;
        let (providers, max_age, nonce) = (attester.providers.clone(), attester.max_age, attester.nonce);
        Some(Attester { issuer, providers, max_age, nonce })
    };
    AgentTrust {
        header: config.header.clone(),
        rules: config.rules.clone(),
        issuers: config.issuers.iter().filter_map(agent_issuer).collect(),
        access_tokens: config.access_tokens.iter().filter_map(agent_claims).collect(),
        chain_issuers: config.all_chain_issuers().iter().filter_map(named).collect(),
        attesters: config.attestation.iter().filter_map(attester).collect(),
    }
}

/// What a server must prove. What it has proved is carried over, so that a reload does not close it.
fn proof_of(
    config: &ServerConfig,
    issuers: &[Arc<Issuer>],
    previous: Option<&Snapshot>,
) -> Result<Option<Arc<Proof>>, BuildError> {
    let Some(identity) = &config.identity else { return Ok(None) };
    let issuer = issuers.iter().find(|issuer| issuer.config.name == identity.issuer);
    let issuer = issuer.ok_or_else(|| BuildError::Identity { server: Arc::clone(&config.name) })?;
    let proof = Proof::awaited(identity.clone(), Arc::clone(issuer));
    let before = previous.and_then(|previous| previous.servers.iter().find(|server| *server.name() == config.name));
    if let Some(before) = before.and_then(|server| server.proof.as_deref()) {
        proof.take_over(before);
    }
    Ok(Some(Arc::new(proof)))
}

fn server_of(
    config: &Arc<ServerConfig>,
    issuers: &[Arc<Issuer>],
    previous: Option<&Snapshot>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Server>, BuildError> {
    // Read every time: a file that cannot be used any more is a problem of the whole configuration.
    let tls = TlsFiles::read(config).map_err(|TlsFileError { path, cause }| BuildError::Pem {
        server: Arc::clone(&config.name),
        path,
        cause,
    })?;
    // With other files under the same names too: a pool takes those in its stride.
    let kept = previous.and_then(|previous| {
        let same = |server: &&Arc<Server>| server.name() == &config.name && same_instances(&server.config, config);
        previous.servers.iter().find(same)
    });
    let pool = match kept {
        Some(server) => Arc::clone(&server.pool),
        None => Arc::new(pool_of(config, &tls, metrics)),
    };
    let authority = Authority::prepare(&config.credential)
        .map_err(|error| BuildError::Credential { server: Arc::clone(&config.name), cause: error.to_string() })?;
    let proof = proof_of(config, issuers, previous)?;
    let router = router_of(config, &pool, previous, metrics)?;
    let shadow = config.shadow.as_ref().map(|spec| Arc::new(Shadow::new(spec.clone(), pool.instances())));
    Ok(Arc::new(Server { config: Arc::clone(config), pool, router, shadow, proof, authority }))
}

/// Where a server's requests go. Sides of splits that were closed stay closed while the rules are the same.
fn router_of(
    config: &ServerConfig,
    pool: &Pool,
    previous: Option<&Snapshot>,
    metrics: &Metrics,
) -> Result<Option<Arc<Router>>, BuildError> {
    let before = previous.and_then(|previous| previous.servers.iter().find(|server| *server.name() == config.name));
    let before = before.and_then(|server| server.router.as_deref());
    for side in before.iter().flat_map(|before| before.splits()) {
        metrics.routing.split_removed(&config.name, &side.rule, &side.to);
    }
    let Some(spec) = &config.routing else { return Ok(None) };
    let router = Router::compile(Arc::clone(&config.name), RoutingSpec::clone(spec), pool.instances(), Instant::now());
    let router = router.map_err(|problems| BuildError::Routing {
        server: Arc::clone(&config.name),
        cause: problems
            .iter()
            .map(|problem| format!("[{}].{}: {}", problem.rule, problem.key, problem.message))
            .collect::<Vec<_>>()
            .join("; "),
    })?;
    if let Some(before) = before {
        router.take_over(before);
    }
    for side in router.splits() {
        metrics.routing.split_closed(&config.name, &side.rule, &side.to, side.closed);
    }
    Ok(Some(Arc::new(router)))
}

fn same_instances(one: &ServerConfig, other: &ServerConfig) -> bool {
    one.instances == other.instances
        && one.health == other.health
        && one.timeouts == other.timeouts
        && one.tls == other.tls
        && one.http2 == other.http2
        && one.circuit == other.circuit
}

fn pool_of(server: &Arc<ServerConfig>, tls: &TlsFiles, metrics: &Arc<Metrics>) -> Pool {
    let circuit = |spec| Breaker::of_pool(spec, server.instances.len(), Instant::now());
    let mut breakers = server.circuit.map(circuit).unwrap_or_default().into_iter();
    let instances: Vec<(Arc<Instance>, InstanceConfig)> = server
        .instances
        .iter()
        .map(|config| {
            metrics.instance_healthy(&server.name, &config.id);
            let weight = u32::try_from(config.weight).unwrap_or(1);
            let mut instance =
                Instance::new(Arc::clone(&config.id), host_header(config), peer_template(server, config, tls))
                    .being(config.traits.clone(), weight);
            if let Some(breaker) = breakers.next() {
                metrics.routing.circuit_closed(&server.name, &config.id);
                instance = instance.guarded_by(breaker);
            }
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
    tls.put_into(&mut peer);
    let options = &mut peer.options;
    options.connection_timeout = Some(server.timeouts.connect);
    options.total_connection_timeout = Some(server.timeouts.connect);
    options.write_timeout = Some(server.timeouts.first_byte);
    options.idle_timeout = Some(server.timeouts.keepalive);
    options.max_h2_streams = H2_STREAMS_PER_CONNECTION;
    options.alpn = if server.http2 { ALPN::H2 } else { ALPN::H1 };
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    peer
}

/// Ids of compiled routes: never used twice in a process.
static NEXT_ROUTE_ID: AtomicU64 = AtomicU64::new(1);

const H2_STREAMS_PER_CONNECTION: usize = 100;
