//! What is known of one address of a server?

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use pingora::Error;
use pingora::upstreams::peer::HttpPeer;

use super::breaker::{Breaker, Circuit, Entry, Turned, Verdict};
use super::subset::Traits;

/// One address of a server. Shared by every snapshot in which it stands unchanged, so its health outlives a reload.
pub struct Instance {
    /// Names it in sessions, metrics and logs.
    pub id: Arc<str>,
    /// What it is sent as `Host`.
    pub host: HeaderValue,
    /// What tells it apart from the others.
    pub traits: Traits,
    /// Its share of new work.
    pub weight: u32,
    /// Leaves it alone when it fails too often; `None`: nobody looks.
    breaker: Option<Breaker>,
    /// How to connect, all but the address: time limits, TLS, HTTP version. Whoever writes `peer` holds the lock.
    template: Mutex<HttpPeer>,
    /// The template with the address that the host name last resolved to; empty until it first did.
    peer: ArcSwapOption<HttpPeer>,
    /// The verdict of the health checks: turns after so many results in a row.
    healthy: AtomicBool,
    /// A connection has just failed, and no health check has succeeded since.
    suspect: AtomicBool,
}

impl Instance {
    /// An instance that counts as healthy until the checks say otherwise.
    #[must_use]
    pub fn new(id: Arc<str>, host: HeaderValue, template: HttpPeer) -> Self {
        Self {
            id,
            host,
            traits: Traits::default(),
            weight: 1,
            breaker: None,
            template: Mutex::new(template),
            peer: ArcSwapOption::empty(),
            healthy: AtomicBool::new(true),
            suspect: AtomicBool::new(false),
        }
    }

    /// The same, being what `traits` says, with this share of new work.
    #[must_use]
    pub fn being(self, traits: Traits, weight: u32) -> Self {
        Self { traits, weight, ..self }
    }

    /// The same, with a circuit.
    #[must_use]
    pub fn guarded_by(self, breaker: Breaker) -> Self {
        Self { breaker: Some(breaker), ..self }
    }

    /// Notes the address that the host name resolves to.
    pub fn resolved(&self, address: SocketAddr) {
        let address = pingora::protocols::l4::socket::SocketAddr::Inet(address);
        let template = self.template();
        if self.peer.load().as_deref().is_some_and(|peer| peer._address == address) {
            return;
        }
        let mut peer = template.clone();
        peer._address = address;
        self.peer.store(Some(Arc::new(peer)));
    }

    /// Changes how to connect. Connections that are open go on; those of another [`Self::connection_group`] carry no
    /// request that begins after this.
    pub fn connect_anew(&self, change: impl FnOnce(&mut HttpPeer)) {
        let mut template = self.template();
        change(&mut template);
        if let Some(before) = &*self.peer.load() {
            let mut peer = template.clone();
            peer._address = before._address.clone();
            self.peer.store(Some(Arc::new(peer)));
        }
    }

    /// How to connect; `None` while its name has never resolved.
    #[must_use]
    pub fn peer(&self) -> Option<HttpPeer> {
        self.peer.load().as_deref().cloned()
    }

    /// Which connections of the process may carry its requests: those opened with the same certificates.
    #[must_use]
    pub fn connection_group(&self) -> u64 {
        self.template().group_key
    }

    fn template(&self) -> MutexGuard<'_, HttpPeer> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the health checks find it alive. A session whose instance is not is over.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether new work may go to it at `now`: alive, reachable when last tried, its address known, and not left alone.
    #[must_use]
    pub fn takes_new_work(&self, now: Instant) -> bool {
        self.is_healthy()
            && !self.suspect.load(Ordering::Relaxed)
            && self.peer.load().is_some()
            && self.breaker.as_ref().is_none_or(|breaker| breaker.lets_in(now))
    }

    /// Lets a request begin. What is given must be told how the request ended; it is none where nobody looks.
    ///
    /// # Errors
    /// [`LeftAlone`] when the instance has failed too often.
    pub fn begin(self: &Arc<Self>, now: Instant) -> Result<Option<Turn>, LeftAlone> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        let entry = breaker.enter(now).ok_or(LeftAlone)?;
        Ok(Some(Turn { instance: Arc::clone(self), entry, is_judged: false }))
    }

    /// Where its circuit stands at `now`; `None` when it has none.
    #[must_use]
    pub fn circuit(&self, now: Instant) -> Option<Circuit> {
        self.breaker.as_ref().map(|breaker| breaker.circuit(now))
    }

    /// Notes that a connection to it failed with `error`: new work goes elsewhere at once, until a health check succeeds.
    pub fn connection_failed(&self, error: &Error) {
        if !is_lack_of_files(error) {
            self.suspect.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that one health check succeeded.
    pub fn check_succeeded(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }

    /// Notes that the verdict of the health checks has turned.
    pub fn turned(&self, health: Health) {
        self.healthy.store(matches!(health, Health::Healthy), Ordering::Relaxed);
    }
}

/// The instance takes no requests for a while, because too many have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftAlone;

/// One request that an instance's circuit has let in. Dropping it without a verdict says nothing of the instance.
#[derive(Debug)]
pub struct Turn {
    instance: Arc<Instance>,
    entry: Entry,
    is_judged: bool,
}

impl Turn {
    /// Notes how the request ended; only the first verdict counts. Says so when the circuit turns with it.
    pub fn end(&mut self, verdict: Verdict, now: Instant) -> Option<Turned> {
        if std::mem::replace(&mut self.is_judged, true) {
            return None;
        }
        self.instance.breaker.as_ref()?.leave(self.entry, verdict, now)
    }

    /// Whose turn it is.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_judged
            && let Some(breaker) = &self.instance.breaker
        {
            breaker.give_back(self.entry);
        }
    }
}

/// The verdict of the health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes work.
    Healthy,
    /// Does not answer.
    Unhealthy,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("id", &self.id).field("healthy", &self.is_healthy()).finish_non_exhaustive()
    }
}

/// Whether a connection failed because this process, or this machine, may open no more files: that says nothing of whom it
/// was for.
#[must_use]
pub fn is_lack_of_files(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.and_then(std::io::Error::raw_os_error).is_some_and(|code| matches!(code, ENFILE | EMFILE))
}

/// Too many open files in the system (errno of Linux).
const ENFILE: i32 = 23;
/// Too many open files in this process.
pub const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use pingora::ErrorType;

    use super::*;

    #[test]
    fn an_instance_is_not_blamed_for_files_that_we_lack() {
        let refused_with = |code| {
            let instance = Instance::new(
                "a".into(),
                HeaderValue::from_static("a"),
                HttpPeer::new("127.0.0.1:1", false, String::new()),
            );
            let cause = std::io::Error::from_raw_os_error(code);
            instance.connection_failed(&Error::because(ErrorType::ConnectError, "in a test", cause));
            instance.suspect.load(Ordering::Relaxed)
        };
        assert!(!refused_with(EMFILE) && !refused_with(ENFILE));
        const ECONNREFUSED: i32 = 111;
        assert!(refused_with(ECONNREFUSED));
    }
}
