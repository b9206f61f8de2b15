//! How did it go in the last minutes? The counters, noted every few seconds, so that charts do not begin with the page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::{MissedTickBehavior, interval};

use super::Admin;
use super::api::Sample;

/// The last samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Arc<Sample>>>);

/// Notes the counters of the gateway that these pages look at.
pub struct Sampling(pub Arc<Admin>);

#[async_trait]
impl BackgroundService for Sampling {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = ticks.tick() => self.0.history.note(Sample::of(&self.0)),
            }
        }
    }
}

impl History {
    fn note(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(Arc::new(sample));
    }

    /// All of them.
    pub(super) fn samples(&self) -> Vec<Arc<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

const EVERY: Duration = Duration::from_secs(5);
/// As many as the charts show, and a minute more that the first rates are reckoned from.
const SAMPLES_MAX: usize = 6 * 60 / 5;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let history = History::default();
        for uptime in 0..100 {
            history.note(Sample::after(uptime));
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples.first().unwrap().uptime_seconds), (SAMPLES_MAX, 28));
        assert_eq!(samples.last().unwrap().uptime_seconds, 99);
    }
}
