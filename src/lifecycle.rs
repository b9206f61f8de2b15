//! Where in its life is the process?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the data plane and the control plane tell each other about the process's end: how much is still going on, and
/// that it is time to go.
#[derive(Debug, Default)]
pub struct Lifecycle {
    draining: AtomicBool,
    ending: AtomicBool,
    open_requests: AtomicUsize,
}

/// A request that is counted as open for as long as this lives.
#[derive(Debug)]
pub struct OpenRequest(Arc<Lifecycle>);

impl Lifecycle {
    /// Counts a request until the guard goes.
    #[must_use]
    pub fn open_request(self: &Arc<Self>) -> OpenRequest {
        self.open_requests.fetch_add(1, Ordering::Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Requests that are not over, open streams included.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.open_requests.load(Ordering::Relaxed)
    }

    /// Says that the process is on its way out: it is not ready any more, and closes each connection with its next
    /// answer, so that no client writes into a closing socket.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Says that what is still open must end now.
    pub fn end_streams(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether what is still open must end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Whether the process is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open_requests.fetch_sub(1, Ordering::Relaxed);
    }
}
