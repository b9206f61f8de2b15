//! What must be known before the first request?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;

use crate::identity::KeySource;
use crate::routing::Pool;
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, UnixSeconds};

use super::keys;

/// Fetches the issuers' keys and looks at every instance once, before the listening sockets are opened or taken over: a
/// successor that cannot work yet must not replace a process that does. An issuer or instance that is down does not keep
/// the gateway from starting; `/readyz` tells of it.
pub struct Warmup {
    /// Whose issuers and servers.
    pub live: Arc<Live>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
    /// How long it may take.
    pub within: Duration,
}

#[async_trait]
impl BackgroundService for Warmup {
    async fn start_with_ready_notifier(&self, _shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        warm_up(&self.live.take(), None, &self.metrics, self.clock.now(), self.within).await;
        ready.notify_ready();
    }
}

/// Fetches the keys and looks at the instances of `world` that are not `before`'s as well; for at most `within`.
pub(super) async fn warm_up(
    world: &Snapshot,
    before: Option<&Snapshot>,
    metrics: &Arc<Metrics>,
    now: UnixSeconds,
    within: Duration,
) {
    let has_keys = |keys: &Arc<dyn KeySource>| {
        before.is_some_and(|before| before.issuers.iter().any(|issuer| Arc::ptr_eq(&issuer.keys, keys)))
    };
    let has_pool = |pool: &Arc<Pool>| {
        before.is_some_and(|before| before.servers.iter().any(|server| Arc::ptr_eq(&server.pool, pool)))
    };
    let mut tasks = tokio::task::JoinSet::new();
    for issuer in world.issuers.iter().filter(|issuer| !has_keys(&issuer.keys)) {
        let (issuer, metrics) = (Arc::clone(issuer), Arc::clone(metrics));
        tasks.spawn(async move { keys::refresh(&issuer, now, &metrics).await });
    }
    for server in world.servers.iter().filter(|server| !has_pool(&server.pool)) {
        let pool = Arc::clone(&server.pool);
        tasks.spawn(async move { pool.refresh().await });
    }
    let _in_time = tokio::time::timeout(within, async { while tasks.join_next().await.is_some() {} }).await;
}
