//! When does a new configuration take effect?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
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
    /// Who else may ask for it.
    pub asked: ReloadQueue,
}

/// Where somebody asks for the configuration to be read again.
#[derive(Clone, Debug)]
pub struct ReloadDesk(mpsc::Sender<oneshot::Sender<Reloaded>>);

/// Where the wishes of a [`ReloadDesk`] arrive.
#[derive(Debug)]
pub struct ReloadQueue(tokio::sync::Mutex<mpsc::Receiver<oneshot::Sender<Reloaded>>>);

/// What came of reading the configuration again.
#[derive(Clone, Debug)]
pub enum Reloaded {
    /// It is in force, as this generation.
    Applied(u64),
    /// The last good one stays.
    Refused(Vec<config::Problem>),
}

/// A desk and its queue.
#[must_use]
pub fn desk() -> (ReloadDesk, ReloadQueue) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadDesk(sender), ReloadQueue(tokio::sync::Mutex::new(receiver)))
}

impl ReloadDesk {
    /// Has the configuration read again; none when that is not done, because the process ends or others wait already.
    pub async fn ask(&self) -> Option<Reloaded> {
        let (reply, told) = oneshot::channel();
        self.0.try_send(reply).ok()?;
        told.await.ok()
    }
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
        let mut asked = self.asked.0.lock().await;
        loop {
            let mut reply = None;
            tokio::select! {
                _ = shutdown.changed() => return,
                hangup = hangups.recv() => match hangup {
                    Some(()) => self.audit.reopen(),
                    None => return,
                },
                Some(wish) = asked.recv() => reply = Some(wish),
                _ = looks.tick() => {
                    // Half-written files have a newer time a moment later, and are then read again.
                    let modified = self.modified();
                    if modified == seen || modified.is_none() {
                        continue;
                    }
                }
            }
            seen = self.modified();
            let reloaded = self.reload().await;
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _ = reply.send(reloaded);
            }
        }
    }
}

impl Reload {
    fn modified(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()
    }

    async fn reload(&self) -> Reloaded {
        let mut problems = Vec::new();
        let outcome = match config::load(&self.path, &config::rule_issues) {
            Err(report) => {
                error!("The configuration was not reloaded; the last good one stays.\n{report}");
                problems = report.problems;
                ReloadOutcome::Refused
            }
            Ok(config) => match self.put_in_force(config).await {
                Err(problem) => {
                    error!("The configuration was not reloaded; the last good one stays. {problem}");
                    problems.push(whole_file(problem));
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
        match outcome {
            ReloadOutcome::Applied => Reloaded::Applied(self.live.peek().generation),
            ReloadOutcome::Refused => Reloaded::Refused(problems),
        }
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

/// What lies outside the file, or in how its parts meet, has no line.
fn whole_file(message: String) -> config::Problem {
    config::Problem { path: String::new(), line: 0, column: 0, message, hint: "put it right and try again".into() }
}

/// How often it is looked whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
