//! What must be known before the first request?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;

use crate::identity::KeySource;
use crate::net::Outbound;
use crate::registry::{Proof, Server};
use crate::routing::Pool;
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

use super::{keys, proofs};

/// Fetches the issuers' keys, looks at every instance and asks servers what they prove to be, once, before the listening
/// sockets are opened or taken over: a successor that cannot work yet must not replace a process that does. An issuer or
/// instance that is down does not keep the gateway from starting; `/readyz` tells of it.
pub struct Warmup {
    /// Whose issuers and servers.
    pub live: Arc<Live>,
    /// How.
    pub means: Means,
    /// How long it may take.
    pub within: Duration,
}

/// What a world is warmed up with.
#[derive(Clone)]
pub struct Means {
    /// What servers' proofs are fetched with.
    pub outbound: Outbound,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
}

#[async_trait]
impl BackgroundService for Warmup {
    async fn start_with_ready_notifier(&self, _shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        warm_up(&self.live.take(), None, &self.means, self.within).await;
        ready.notify_ready();
    }
}

/// Fetches the keys and looks at the instances and proofs of `world` that are not `before`'s as well; for at most `within`.
pub(super) async fn warm_up(world: &Snapshot, before: Option<&Snapshot>, means: &Means, within: Duration) {
    let has_keys = |keys: &Arc<dyn KeySource>| {
        before.is_some_and(|before| before.issuers.iter().any(|issuer| Arc::ptr_eq(&issuer.keys, keys)))
    };
    let has_pool = |pool: &Arc<Pool>| {
        before.is_some_and(|before| before.servers.iter().any(|server| Arc::ptr_eq(&server.pool, pool)))
    };
    let has_proof = |proof: &Arc<Proof>| {
        let mut known =
            before.into_iter().flat_map(|before| &before.servers).filter_map(|server| server.proof.as_ref());
        known.any(|known| Arc::ptr_eq(known, proof))
    };
    let mut tasks = tokio::task::JoinSet::new();
    for issuer in world.issuers.iter().filter(|issuer| !has_keys(&issuer.keys)) {
        let (issuer, means) = (Arc::clone(issuer), means.clone());
        tasks.spawn(async move { keys::refresh(&issuer, means.clock.now(), &means.metrics).await });
    }
    for server in world.servers.iter().filter(|server| !has_pool(&server.pool)) {
        let pool = Arc::clone(&server.pool);
        tasks.spawn(async move { pool.refresh().await });
    }
    let is_unproved = |server: &&Arc<Server>| server.proof.as_ref().is_some_and(|proof| !has_proof(proof));
    let all = async {
        while tasks.join_next().await.is_some() {}
        // What a server shows of itself is held against keys, so it comes after them.
        for server in world.servers.iter().filter(is_unproved) {
            let (server, means) = (Arc::clone(server), means.clone());
            tasks.spawn(async move {
                proofs::check(&server, &means.outbound, means.clock.now(), &means.metrics).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    };
    let _in_time = tokio::time::timeout(within, all).await;
}
