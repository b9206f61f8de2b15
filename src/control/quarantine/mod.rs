//! How is somebody or something stopped at once? The desk where that is asked for, by an operator on this machine
//! ([`socket`]) or through the admin API.
//!
//! What is stopped is in force in this process before anything else is done about it; then it is written to the store, where
//! there is one, and every other gateway on it learns of it: told by PostgreSQL, or by looking twice a second. A store that
//! is away gets it when it is back; until then, and without a store, it ends with the process, except that a successor asks
//! its predecessor.

pub mod client;
pub mod socket;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::audit::{Act, Event, EventKind, Outcome, Principal};
use crate::config::OnFull;
use crate::policy::quarantine::{Quarantine, Quarantines, Stopped};
use crate::snapshot::Live;
use crate::store::{Ears, StoreError};
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

use super::governance::Governance;

/// Where something is stopped and let go again. Clones are the same.
#[derive(Clone)]
pub struct QuarantineDesk(Arc<Inner>);

struct Inner {
    held: Mutex<Held>,
    /// Held while the store is read or written.
    writing: tokio::sync::Mutex<Option<u64>>,
    live: Arc<Live>,
    governance: Option<Governance>,
    audit: AuditSink,
    metrics: Arc<Metrics>,
    clock: Clock,
}

#[derive(Default)]
struct Held {
    list: Vec<Quarantine>,
    /// What is in force here and not in the store, oldest first.
    unwritten: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Lift(Box<str>),
    Put(Quarantine),
}

/// What somebody wants to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Whom, or what.
    pub stopped: Stopped,
    /// For how long; left out: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Why, in their words.
    #[serde(default)]
    pub why: String,
}

/// Who wants it.
#[derive(Clone, Debug)]
pub struct Operator {
    /// As a list shows it.
    pub name: Box<str>,
    /// As the audit log has it; none for somebody on this machine.
    pub principal: Option<Principal>,
    /// By which way they came.
    pub call: &'static str,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// What is in force, or was until now.
    pub quarantine: Quarantine,
    /// Whether it outlives this process: the store has it.
    pub is_kept: bool,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    /// As many are stopped as may be.
    #[error("as many are stopped as limits.quarantines allows")]
    Full,
    /// What is asked for cannot be.
    #[error("that names nothing, or is too long")]
    Implausible,
    /// There is no such quarantine.
    #[error("that is not stopped")]
    NotFound,
}

impl QuarantineDesk {
    /// Takes up what the store says is stopped; while nothing can be read there `inherited`, what the predecessor has told.
    #[must_use]
    pub fn open(
        live: Arc<Live>,
        governance: Option<Governance>,
        inherited: Vec<Quarantine>,
        audit: AuditSink,
        metrics: Arc<Metrics>,
    ) -> Self {
        let clock = Clock;
        let read = governance.as_ref().and_then(|governance| governance.first_quarantines(clock.now(), OPEN_MAX));
        if governance.is_some() && read.is_none() {
            error!("The store cannot be reached: nobody knows yet who and what is stopped.");
        }
        let (seq, list) = read.map_or((None, inherited), |(seq, list)| (Some(seq), list));
        let held = Mutex::new(Held { list, unwritten: Vec::new() });
        let writing = tokio::sync::Mutex::new(seq);
        let inner = Arc::new(Inner { held, writing, live, governance, audit, metrics, clock });
        inner.enforce(&inner.held());
        if let Some(governance) = &inner.governance {
            governance.keep_running(Arc::clone(&inner).follow(governance.clone()));
        }
        Self(inner)
    }

    /// Stops somebody or something, at once; what is stopped already is stopped anew.
    ///
    /// # Errors
    /// [`QuarantineError::Full`] and [`QuarantineError::Implausible`].
    pub async fn stop(&self, wish: Wish, by: Operator) -> Result<Done, QuarantineError> {
        let Wish { stopped, for_seconds, why } = wish;
        if !stopped.is_plausible() || for_seconds == Some(0) || why.len() > WHY_BYTES_MAX {
            return Err(QuarantineError::Implausible);
        }
        let inner = &self.0;
        let since = inner.clock.now();
        let until = for_seconds.map(|seconds| since.plus(Duration::from_secs(seconds)));
        let quarantine = Quarantine { id: stopped.id(), stopped, since, until, why: why.into(), by: by.name.clone() };
        {
            let mut held = inner.held();
            held.list.retain(|known| known.is_in_force(since) && known.id != quarantine.id);
            if held.list.len() >= inner.live.peek().config.limits.quarantines {
                return Err(QuarantineError::Full);
            }
            held.list.push(quarantine.clone());
            held.note(inner.governance.as_ref(), Change::Put(quarantine.clone()));
            inner.enforce(&held);
        }
        info!(stopped = %quarantine.stopped, by = %quarantine.by, "Somebody or something was stopped.");
        Ok(inner.finish(EventKind::QuarantineSet, quarantine, by).await)
    }

    /// Lets go what was stopped.
    ///
    /// # Errors
    /// [`QuarantineError::NotFound`].
    pub async fn lift(&self, id: &str, by: Operator) -> Result<Done, QuarantineError> {
        let inner = &self.0;
        let quarantine = {
            let mut held = inner.held();
            let place = held.list.iter().position(|known| *known.id == *id).ok_or(QuarantineError::NotFound)?;
            let quarantine = held.list.remove(place);
            held.note(inner.governance.as_ref(), Change::Lift(id.into()));
            inner.enforce(&held);
            quarantine
        };
        info!(stopped = %quarantine.stopped, by = %by.name, "Somebody or something was let go.");
        Ok(inner.finish(EventKind::QuarantineLifted, quarantine, by).await)
    }

    /// What is stopped, the latest last.
    #[must_use]
    pub fn list(&self) -> Vec<Quarantine> {
        let now = self.0.clock.now();
        let mut list = self.0.held().list.clone();
        list.retain(|quarantine| quarantine.is_in_force(now));
        list.sort_by_key(|quarantine| quarantine.since);
        list
    }

    /// Forgets what has expired, and says so.
    pub async fn expire(&self) {
        self.0.expire().await;
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        // No code panics while it holds this, and it is whole after every statement.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the list in force.
    fn enforce(&self, held: &Held) {
        self.live.stop(Quarantines::new(held.list.clone()));
        self.metrics.quarantines(held.list.len());
    }

    /// Writes it to the store and to the audit log. It is in force whatever becomes of either.
    async fn finish(self: &Arc<Self>, event: EventKind, quarantine: Quarantine, by: Operator) -> Done {
        let is_kept = match &self.governance {
            None => false,
            Some(governance) => {
                // Whoever asked does not wait longer than this, but the work goes on.
                let (inner, governance) = (Arc::clone(self), governance.clone());
                let write = tokio::spawn(async move { inner.write(&governance).await });
                matches!(timeout(WRITE_MAX, write).await, Ok(Ok(Ok(()))))
            }
        };
        if self.governance.is_some() && !is_kept {
            warn!(stopped = %quarantine.stopped, "The store has not taken it yet; it is in force here.");
        }
        self.record(event, &quarantine, Some(by)).await;
        Done { quarantine, is_kept }
    }

    async fn record(&self, event: EventKind, quarantine: &Quarantine, by: Option<Operator>) {
        let (call, principal) = match &by {
            Some(by) => (by.call, by.principal.clone()),
            None => ("expiry", None),
        };
        let act = Act {
            call: call.into(),
            target: Some(quarantine.stopped.to_string().into()),
            action: Some(by.map_or_else(|| quarantine.by.clone(), |by| by.name)),
            note: Some(quarantine.why.clone()).filter(|why| !why.is_empty()),
            roles: None,
        };
        let event = Event {
            event,
            principal,
            act: Some(Box::new(act)),
            outcome: Outcome::Ok,
            config_generation: self.live.peek().generation,
            ..Event::default()
        };
        match timeout(AUDIT_WAIT_MAX, self.audit.reserve(OnFull::Wait)).await {
            Ok(Ok(place)) => place.record(event),
            // An emergency is not held up by a full log.
            _ => error!(stopped = %quarantine.stopped, "The audit log has not taken it."),
        }
    }

    /// Writes what is not in the store yet, oldest first.
    async fn write(&self, governance: &Governance) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        self.write_in_turn(governance).await
    }

    async fn write_in_turn(&self, governance: &Governance) -> Result<(), StoreError> {
        loop {
            let Some(change) = self.held().unwritten.first().cloned() else { return Ok(()) };
            match change.clone() {
                Change::Put(quarantine) => governance.put_quarantine(quarantine, self.clock.now()).await?,
                Change::Lift(id) => governance.delete_quarantine(id).await?,
            }
            let mut held = self.held();
            if held.unwritten.first() == Some(&change) {
                held.unwritten.remove(0);
            }
        }
    }

    /// Keeps in step with the store.
    async fn follow(self: Arc<Self>, governance: Governance) {
        let mut ears = Ears::default();
        loop {
            governance.may_have_changed(&mut ears, LOOK).await;
            // What failed is tried again with the next look; that the store is away is told by the registry.
            let _ = self.sync(&governance).await;
            self.expire().await;
        }
    }

    async fn sync(&self, governance: &Governance) -> Result<(), StoreError> {
        let mut seq = self.writing.lock().await;
        self.write_in_turn(governance).await?;
        let Some((last, list)) = governance.quarantines(*seq, self.clock.now()).await? else { return Ok(()) };
        *seq = Some(last);
        let mut held = self.held();
        let mut list = list;
        // What came while the store was read.
        for change in &held.unwritten {
            let (Change::Lift(id) | Change::Put(Quarantine { id, .. })) = change;
            list.retain(|known| known.id != *id);
            if let Change::Put(quarantine) = change {
                list.push(quarantine.clone());
            }
        }
        if held.list != list {
            held.list = list;
            self.enforce(&held);
        }
        Ok(())
    }

    async fn expire(&self) {
        let now = self.clock.now();
        let expired: Vec<Quarantine> = {
            let mut held = self.held();
            let (stays, expired): (Vec<_>, Vec<_>) =
                std::mem::take(&mut held.list).into_iter().partition(|quarantine| quarantine.is_in_force(now));
            held.list = stays;
            if !expired.is_empty() {
                self.enforce(&held);
            }
            expired
        };
        for quarantine in expired {
            info!(stopped = %quarantine.stopped, "A quarantine has expired.");
            self.record(EventKind::QuarantineExpired, &quarantine, None).await;
        }
    }
}

impl Held {
    /// Notes what a store has to be told.
    fn note(&mut self, governance: Option<&Governance>, change: Change) {
        if governance.is_some() {
            self.unwritten.push(change);
        }
    }
}

/// How long the first look at the store may take.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// How often the store is looked at when nobody tells of a change: often enough that what is stopped at one gateway is
/// stopped at all within a second.
const LOOK: Duration = Duration::from_millis(400);

/// How long whoever stops something waits for the store.
const WRITE_MAX: Duration = Duration::from_secs(3);

/// How long it waits for a place in the audit queue.
const AUDIT_WAIT_MAX: Duration = Duration::from_secs(5);

/// The longest reason.
const WHY_BYTES_MAX: usize = 1000;
