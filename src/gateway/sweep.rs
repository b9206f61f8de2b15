//! When is it forgotten what is of no use any more?
//!
//! Nothing stale is ever used. But a cache makes room only when it is full, and until then would hold tokens long past their
//! end: memory that grows for days, and secrets where nobody needs them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::{MissedTickBehavior, interval};

use crate::time::UnixSeconds;

use super::Shell;

/// Forgets once a minute.
pub struct Sweep(Arc<Shell>);

impl Sweep {
    pub(super) fn new(shell: Arc<Shell>) -> Self {
        Self(shell)
    }
}

#[async_trait]
impl BackgroundService for Sweep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = ticks.tick() => self.0.forget_stale(self.0.clock.now()),
            }
        }
    }
}

impl Shell {
    /// Verified tokens that have ended and what was decided for them, exchanged tokens that are not fresh any more, and
    /// ended sessions that would have expired by themselves; counts of budgets and marks that have no effect any more.
    fn forget_stale(&self, now: UnixSeconds) {
        self.tokens.forget_stale(now);
        self.decisions.retain(|token, route| self.tokens.remembers(token, route));
        self.exchanger.drop_stale(now);
        self.revoked.retain(|until| *until > now);
        self.budgets.forget_idle();
        self.marks.forget_expired(now);
        self.handovers.forget_expired(now);
    }
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
