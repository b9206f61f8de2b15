//! What must be known before the first request?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;

use crate::net::Outbound;
use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

use super::{keys, proofs};

/// Fetches the issuers' keys, looks at every instance and at what servers prove to be, once, before the listening sockets are opened or taken over: a
/// successor that cannot work yet must not replace a process that does. An issuer or instance that is down does not keep
/// the gateway from starting; `/readyz` tells of it.
pub struct Warmup {
    /// Whose issuers and servers.
    pub live: Arc<Live>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
    /// What servers' resource tokens are fetched with.
    pub outbound: Outbound,
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
        let prepare = async {
            while tasks.join_next().await.is_some() {}
            // What a server shows of itself is held against keys, so it comes after them.
            for server in &world.servers {
                let server = Arc::clone(server);
                let (outbound, metrics, now) = (self.outbound.clone(), Arc::clone(&self.metrics), self.clock.now());
                tasks.spawn(async move { proofs::check(&server, &outbound, now, &metrics).await });
            }
            while tasks.join_next().await.is_some() {}
        };
        let _in_time = tokio::time::timeout(self.within, prepare).await;
        ready.notify_ready();
    }
}
