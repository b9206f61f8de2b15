//! When does a new configuration take effect?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::audit::{Event, EventKind, Outcome};
use crate::config::{self, Config, OnFull};
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::ReloadOutcome;

use super::certificates::{Certificates, Prepared};
use super::upstream_tls::UpstreamCertificates;
use super::warmup::{Means, warm_up};
use super::world;

/// On SIGHUP reopens the audit file (log rotation) and reads the configuration again; reads it again too when the file has
/// changed. A configuration with a problem replaces nothing.
pub struct Reload {
    /// The file.
    pub path: PathBuf,
    /// Where the new snapshot goes.
    pub live: Arc<Live>,
    /// Whose file is reopened, and where the reload is recorded.
    pub audit: AuditSink,
    /// What the new world is warmed up with, and where the reload is counted.
    pub means: Means,
    /// What the TLS listeners show.
    pub certificates: Arc<Certificates>,
    /// What connections to instances are made with.
    pub upstream_certificates: Arc<UpstreamCertificates>,
}

#[async_trait]
impl BackgroundService for Reload {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            error!("SIGHUP cannot be listened for: neither reload nor log rotation will work.");
            return;
        };
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.modified();
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                hangup = hangups.recv() => match hangup {
                    Some(()) => self.audit.reopen(),
                    None => return,
                },
                _ = looks.tick() => {
                    // Half-written files have a newer time a moment later, and are then read again.
                    let modified = self.modified();
                    if modified == seen || modified.is_none() {
                        continue;
                    }
                }
            }
            seen = self.modified();
            self.reload().await;
        }
    }
}

impl Reload {
    fn modified(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()
    }

    async fn reload(&self) {
        let before = self.live.take();
        let outcome = match config::load(&self.path, &config::rule_issues) {
            Err(problems) => {
                error!("The configuration was not reloaded; the last good one stays.\n{problems}");
                ReloadOutcome::Refused
            }
            Ok(config) => match self.next(config, &before) {
                Err(problem) => {
                    error!("The configuration was not reloaded; the last good one stays. {problem}");
                    ReloadOutcome::Refused
                }
                Ok((next, certificates)) => {
                    // An instance that has not been looked at takes no work: without this, requests of the first moments
                    // after the swap would find none that does.
                    warm_up(&next, Some(&before), &self.means, WARM_UP_MAX).await;
                    info!(generation = next.generation, "The configuration was reloaded.");
                    self.live.swap(next);
                    self.certificates.apply(certificates);
                    self.upstream_certificates.follow();
                    ReloadOutcome::Applied
                }
            },
        };
        self.means.metrics.config_reloaded(outcome);
        self.means.metrics.config_in_force(self.live.peek().generation);
        self.record(outcome).await;
    }

    /// Everything that `config` puts in force, or the first reason why nothing of it is.
    fn next(&self, config: Config, before: &Snapshot) -> Result<(Snapshot, Prepared), String> {
        let certificates = self.certificates.prepare(&config.listeners()).map_err(|error| error.to_string())?;
        let next = world::build(config, Some(before), &self.means.outbound, &self.means.metrics);
        Ok((next.map_err(|error| error.to_string())?, certificates))
    }

    async fn record(&self, outcome: ReloadOutcome) {
        let (event, outcome) = match outcome {
            ReloadOutcome::Applied => (EventKind::ConfigReloaded, Outcome::Ok),
            ReloadOutcome::Refused => (EventKind::ConfigRefused, Outcome::Refused),
        };
        let event = Event { event, outcome, config_generation: self.live.peek().generation, ..Event::default() };
        if let Ok(place) = self.audit.reserve(OnFull::Wait).await {
            place.record(event);
        }
    }
}

/// How often it is looked whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long a reload waits for keys and instances that are new. Those that do not answer are looked for afterwards too.
const WARM_UP_MAX: Duration = Duration::from_secs(3);
