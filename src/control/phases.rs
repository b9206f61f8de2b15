//! How does the process come, and how does it go?
//!
//! Pingora's own order of an upgrade: the successor waits at the upgrade socket; SIGQUIT makes the old process hand its
//! listening sockets over, serve beside the successor for five seconds, close them, and sleep the grace period. Added
//! here: SIGQUIT without a waiting successor is refused instead of ending the service; `/readyz` turns before anything
//! is closed; and a process with nothing left to do does not sleep.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ExecutionPhase, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::lifecycle::Lifecycle;
use crate::telemetry::audit::AuditSink;

/// Follows the process through its phases: tells the service manager when it is ready, and ends it when it is idle.
pub struct Phases {
    /// Taken from the server before it runs.
    pub phases: tokio::sync::Mutex<Receiver<ExecutionPhase>>,
    /// Where the end is announced.
    pub lifecycle: Arc<Lifecycle>,
    /// Closed before the process ends.
    pub audit: AuditSink,
    /// Where the process id stands; written once this process serves.
    pub pid_file: Option<PathBuf>,
    /// How long open streams are served at the end.
    pub grace: Duration,
}

#[async_trait]
impl BackgroundService for Phases {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut phases = self.phases.lock().await;
        loop {
            let phase = match phases.recv().await {
                Ok(phase) => phase,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            // Not `Running`: Pingora announces that before the sockets have come.
            if matches!(phase, ExecutionPhase::BootstrapComplete) {
                self.announce();
            }
            if matches!(phase, ExecutionPhase::GracefulUpgradeCloseTimeout | ExecutionPhase::GracefulTerminate) {
                info!("The process is leaving: it takes no new connections.");
                self.lifecycle.drain();
            }
            if matches!(phase, ExecutionPhase::ShutdownGracePeriod) {
                self.leave().await;
            }
        }
    }
}

impl Phases {
    fn announce(&self) {
        if let Some(path) = &self.pid_file
            && let Err(error) = std::fs::write(path, format!("{}\n", std::process::id()))
        {
            error!(path = %path.display(), %error, "The process id cannot be written; `portcullis upgrade` will not find this process.");
        }
        let states = [sd_notify::NotifyState::MainPid(std::process::id()), sd_notify::NotifyState::Ready];
        if let Err(error) = sd_notify::notify(&states) {
            warn!(%error, "The service manager cannot be told that this process is ready.");
        }
        info!("The gateway serves.");
    }

    /// Ends the process as soon as nothing is open, and at the end of the grace period in any case.
    async fn leave(&self) {
        let until = Instant::now() + self.grace.saturating_sub(LAST_WORDS);
        let mut idle_since = Instant::now();
        while idle_since.elapsed() < QUIET && Instant::now() < until {
            sleep(IDLE_POLL).await;
            if self.lifecycle.open_requests() > 0 {
                idle_since = Instant::now();
            }
        }
        let open = self.lifecycle.open_requests();
        if open > 0 {
            info!(open, "The grace period is over: open streams are ended.");
            self.lifecycle.end_streams();
            sleep(LAST_WORDS).await;
        }
        let audit = self.audit.clone();
        let closed = tokio::task::spawn_blocking(move || audit.close(AUDIT_CLOSE_MAX)).await;
        if !matches!(closed, Ok(Ok(()))) {
            error!("Some audit records could not be written before the end.");
        }
        info!("The process ends.");
        std::process::exit(0);
    }
}

/// The signals that end or replace the process.
pub struct Signals {
    /// Where a successor waits.
    pub upgrade_sock: Option<PathBuf>,
    /// Where the end is announced.
    pub lifecycle: Arc<Lifecycle>,
    /// How long `/readyz` says 503 before the listening sockets are closed (SIGTERM).
    pub drain: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut quit), Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::quit()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            error!("Signals cannot be listened for; the process can only be killed.");
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                () = received(&mut quit) => {
                    if self.has_successor() {
                        return ShutdownSignal::GracefulUpgrade;
                    }
                    // Pingora would go on to its end without having handed its sockets to anybody.
                    error!("SIGQUIT without a successor at the upgrade socket: this process goes on serving. Use `portcullis upgrade`.");
                }
                () = received(&mut terminate) => {
                    info!("SIGTERM: the process is leaving.");
                    self.lifecycle.drain();
                    let _best_effort = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                    sleep(self.drain).await;
                    return ShutdownSignal::GracefulTerminate;
                }
                () = received(&mut interrupt) => return ShutdownSignal::FastShutdown,
            }
        }
    }
}

impl Signals {
    /// Whether a successor listens at the upgrade socket. It accepts one connection only, which must bring the sockets,
    /// so looking must not connect.
    fn has_successor(&self) -> bool {
        self.upgrade_sock.as_deref().is_some_and(is_listening)
    }
}

/// Whether somebody listens at this unix socket (`/proc/net/unix`: the flag `__SO_ACCEPTCON`). A file that a dead process
/// left behind is no listener.
pub(super) fn is_listening(path: &Path) -> bool {
    let Ok(sockets) = std::fs::read_to_string("/proc/net/unix") else { return false };
    let path = path.display().to_string();
    sockets.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        fields.next() == Some(LISTENING_FLAG) && fields.last() == Some(path.as_str())
    })
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}

/// `__SO_ACCEPTCON` as `/proc/net/unix` prints it.
const LISTENING_FLAG: &str = "00010000";

/// How long nothing must be open before the process is idle. Longer than the gateway's door stays open: who was let in a
/// moment ago counts as open only when the request begins to arrive.
const QUIET: Duration = Duration::from_millis(1500);

/// How often it is looked whether everything is done.
const IDLE_POLL: Duration = Duration::from_millis(100);

/// The part of the grace period kept for ending streams cleanly.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the audit log may take to write its last records.
const AUDIT_CLOSE_MAX: Duration = Duration::from_secs(10);
