//! Where in its life is the process?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pingora::server::{ExecutionPhase, ShutdownWatch};
use pingora::services::background::BackgroundService;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::info;

/// Raises the draining flag when the process is told to leave: `/readyz` turns 503, and kept-alive connections are closed
/// politely with their next answer, so that no client writes into a closing socket.
pub struct Phases {
    phases: tokio::sync::Mutex<Receiver<ExecutionPhase>>,
    draining: Arc<AtomicBool>,
}

impl Phases {
    /// Follows `phases`, which must have been taken from the server before it runs.
    #[must_use]
    pub fn new(phases: Receiver<ExecutionPhase>, draining: Arc<AtomicBool>) -> Self {
        Self { phases: tokio::sync::Mutex::new(phases), draining }
    }
}

#[async_trait]
impl BackgroundService for Phases {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut phases = self.phases.lock().await;
        loop {
            match phases.recv().await {
                Ok(ExecutionPhase::GracefulUpgradeCloseTimeout | ExecutionPhase::GracefulTerminate) => {
                    info!("The process is leaving: it takes no new connections.");
                    self.draining.store(true, Ordering::Relaxed);
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}
