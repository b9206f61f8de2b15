//! When are the issuers' keys fetched again?

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use crate::registry::Issuer;
use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, UnixSeconds};

/// Fetches the keys of every issuer of the live snapshot on its refresh interval, and sooner while there are none.
pub struct KeyRefresh {
    /// Whose issuers.
    pub live: Arc<Live>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
}

#[async_trait]
impl BackgroundService for KeyRefresh {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut due: HashMap<Arc<str>, UnixSeconds> = HashMap::new();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = ticks.tick() => {}
            }
            let issuers = self.live.take().issuers.clone();
            due.retain(|name, _at| issuers.iter().any(|issuer| issuer.config.name == *name));
            for issuer in issuers {
                let now = self.clock.now();
                // At the start the warm-up has just fetched them; after a reload the old ones were carried over.
                let at = due.entry(Arc::clone(&issuer.config.name)).or_insert_with(|| next_fetch(&issuer, now));
                if now >= *at {
                    refresh(&issuer, now, &self.metrics).await;
                    *at = next_fetch(&issuer, self.clock.now());
                }
            }
        }
    }
}

/// Fetches the keys of one issuer once. The last good set stays when that fails.
pub async fn refresh(issuer: &Issuer, now: UnixSeconds, metrics: &Metrics) {
    let outcome = issuer.keys.refresh(now).await;
    metrics.jwks_refreshed(&issuer.config.name, outcome);
}

fn next_fetch(issuer: &Issuer, now: UnixSeconds) -> UnixSeconds {
    now.plus(if issuer.keys.current().is_empty() { RETRY_EMPTY } else { issuer.config.jwks_refresh })
}

/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_secs(1);

/// How soon an issuer is asked again while none of its keys are known.
const RETRY_EMPTY: Duration = Duration::from_secs(2);
