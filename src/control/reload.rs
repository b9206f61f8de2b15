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
use crate::snapshot::Live;
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};

use super::builder::Builder;
use super::certificates::Certificates;
use super::upstream_tls::UpstreamCertificates;

/// On SIGHUP reopens the audit file (log rotation) and reads the configuration again; reads it again too when the file has
/// changed. A configuration with a problem replaces nothing.
pub struct Reload {
    /// The file.
    pub path: PathBuf,
    /// What is in force.
    pub live: Arc<Live>,
    /// Whose file is reopened, and where the reload is recorded.
    pub audit: AuditSink,
    /// Where the reload is counted.
    pub metrics: Arc<Metrics>,
    /// What builds the new snapshot.
    pub builder: Arc<Builder>,
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
        let outcome = match config::load(&self.path, &config::rule_issues) {
            Err(problems) => {
                error!("The configuration was not reloaded; the last good one stays.\n{problems}");
                ReloadOutcome::Refused
            }
            Ok(config) => match self.put_in_force(config).await {
                Err(problem) => {
                    error!("The configuration was not reloaded; the last good one stays. {problem}");
                    ReloadOutcome::Refused
                }
                Ok(generation) => {
                    info!(generation, "The configuration was reloaded.");
                    ReloadOutcome::Applied
                }
            },
        };
        self.metrics.config_reloaded(outcome);
        self.metrics.config_in_force(self.live.peek().generation);
        self.record(outcome).await;
    }

    /// Puts everything in force that `config` says, or nothing; its generation, or the first reason why not.
    async fn put_in_force(&self, config: Config) -> Result<u64, String> {
        let certificates = self.certificates.prepare(&config.listeners()).map_err(|error| error.to_string())?;
        let generation = self.builder.reload(config).await.map_err(|error| error.to_string())?;
        self.certificates.apply(certificates);
        self.upstream_certificates.follow();
        Ok(generation)
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
