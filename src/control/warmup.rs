//! What must be known before the first request?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;

use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

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
        let world = self.live.take();
        let mut tasks = tokio::task::JoinSet::new();
        for issuer in &world.issuers {
            let issuer = Arc::clone(issuer);
            let (metrics, now) = (Arc::clone(&self.metrics), self.clock.now());
            tasks.spawn(async move { keys::refresh(&issuer, now, &metrics).await });
        }
        for server in &world.servers {
            let pool = Arc::clone(&server.pool);
            tasks.spawn(async move { pool.refresh().await });
        }
        let _in_time = tokio::time::timeout(self.within, async { while tasks.join_next().await.is_some() {} }).await;
        ready.notify_ready();
    }
}
