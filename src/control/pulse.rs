//! Does the data plane still run? The service manager hears so only while it does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora::services::Service;
use pingora::services::background::BackgroundService;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use crate::lifecycle::Lifecycle;

/// A service that answers, between its own work, whether it runs.
pub struct Watched<S> {
    service: S,
    questions: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Tells the service manager at half of its interval (`WATCHDOG_USEC`) that the watched service runs; left out twice, the
/// service manager starts the process anew.
///
/// A process that is on its way out says nothing: it must not vouch for the successor that is watched in its place.
pub struct Pulse {
    service: mpsc::Sender<oneshot::Sender<()>>,
    lifecycle: Arc<Lifecycle>,
}

/// Has `service` watched. Both must be started, and each in a runtime of its own, as Pingora does.
pub fn of<S: Service>(service: S, lifecycle: Arc<Lifecycle>) -> (Watched<S>, Pulse) {
    let (sender, questions) = mpsc::channel(1);
    (Watched { service, questions }, Pulse { service: sender, lifecycle })
}

#[async_trait]
impl<S: Service> Service for Watched<S> {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let Self { service, questions } = self;
        // One task: when the service ends, by a panic too, nobody answers for it.
        tokio::select! {
            biased; // the service speaks first: no answer is given for one that has just ended
            () = service.start_service(fds, shutdown, listeners_per_fd) => {}
            () = answer(questions) => {}
        }
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        self.service.runtime_opts_override(global)
    }

    fn on_startup_delay(&self, time_waited: Duration) {
        self.service.on_startup_delay(time_waited);
    }

    // Pingora closes what was handed over and is not listed here.
    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

#[async_trait]
impl BackgroundService for Pulse {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(half) = sd_notify::watchdog_enabled().map(|whole| whole / 2).filter(|half| !half.is_zero()) else {
            return;
        };
        let mut ticks = interval(half);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = ticks.tick() => {}
            }
            let runs = self.service_runs(half).await;
            if self.lifecycle.is_draining() {
                return;
            }
            if !runs {
                error!("The data plane does not answer: the service manager is not told that this process works.");
            } else if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
                warn!(%error, "The service manager cannot be told that this process works.");
            }
        }
    }
}

impl Pulse {
    async fn service_runs(&self, within: Duration) -> bool {
        let (reply, replied) = oneshot::channel();
        let asked = async {
            self.service.send(reply).await.ok()?;
            replied.await.ok()
        };
        matches!(timeout(within, asked).await, Ok(Some(())))
    }
}

/// Never ends: the service goes on when nobody asks any more.
async fn answer(questions: &mut mpsc::Receiver<oneshot::Sender<()>>) {
    while let Some(reply) = questions.recv().await {
        let _asker_may_be_gone = reply.send(());
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Works;
    struct Ends;
    struct Blocks;

    #[tokio::test]
    async fn a_service_that_works_answers() {
        assert!(runs(Works).await);
    }

    #[tokio::test]
    async fn nobody_answers_for_a_service_that_has_ended() {
        assert!(!runs(Ends).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_answers_for_a_service_whose_thread_hangs() {
        assert!(!runs(Blocks).await);
    }

    async fn runs(service: impl Service + 'static) -> bool {
        let (mut watched, pulse) = of(service, Arc::default());
        let (_shutdown, shutdown_watch) = tokio::sync::watch::channel(false);
        let started = tokio::spawn(async move { watched.start_service(None, shutdown_watch, 1).await });
        let runs = pulse.service_runs(Duration::from_millis(200)).await;
        started.abort();
        runs
    }

    #[async_trait]
    impl Service for Works {
        async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
            std::future::pending().await
        }

        fn name(&self) -> &str {
            "works"
        }
    }

    #[async_trait]
    impl Service for Ends {
        async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {}

        fn name(&self) -> &str {
            "ends"
        }
    }

    #[async_trait]
    impl Service for Blocks {
        async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
            std::thread::sleep(Duration::from_secs(2));
        }

        fn name(&self) -> &str {
            "blocks"
        }
    }
}
