//! What exists, by whose decision? The service that joins the registry's rules, its store, and what serves.
//!
//! Every gateway keeps all records in memory and decides there; what it decides is written with the versions it was decided
//! on, so that of two gateways which decide at once one begins again. What serves is swapped only after the commit. While
//! the store is away nothing can be decided, and what was in force stays in force; what must be kept back is kept back at
//! once, and written when the store is there again.

mod quarantines;
mod reader;
mod service;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::audit::{Event, EventKind, Outcome, Principal, Registry};
use crate::config::{OnFull, Problem, StoreConfig};
use crate::registry::approval::{Actor, ApprovalRule};
use crate::registry::definition::{Digest, ItemKey};
use crate::registry::ledger::{Decided, Drift, DriftKind, Ledger, Observed, Passed, Refused, Seer};
use crate::registry::lifecycle::State;
use crate::registry::record::{Act, ItemRecord};
use crate::snapshot::Live;
use crate::store::{Background, Batch, Ears, Keep, Seen, SignIn, Store, StoreError};
use crate::telemetry::audit::{AuditPlace, AuditSink};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, UnixSeconds};

use super::builder::Builder;

pub use service::Doing;
pub use views::{
    ItemDetail, ItemFilter, ItemView, LastRead, PAGE_MAX, Page, Paged, Pending, ServerView, SpecView, id_of, key_of,
};

/// The governance of servers and tools. Clones are the same.
#[derive(Clone)]
pub struct Governance {
    inner: Arc<Inner>,
    background: Arc<Background>,
}

/// Why something cannot be told or done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GovernanceError {
    /// It does not go with how things stand; the words say why.
    #[error("{0}")]
    Conflict(String),
    /// This person may not; the words say why.
    #[error("{0}")]
    Forbidden(String),
    /// What was sent is not in order.
    #[error("what was sent is not in order")]
    Invalid(Vec<Problem>),
    /// There is no such thing.
    #[error("there is no such thing")]
    NotFound,
    /// The record has changed since it was looked at.
    #[error("the record has changed since you looked at it")]
    Stale {
        /// Its version; none when it changed at this very moment.
        version: Option<u64>,
    },
    /// The store cannot be reached, so that nothing can be decided.
    #[error("the store cannot be reached")]
    StoreAway,
}

/// How it goes with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreStatus {
    /// It was never reached: nothing of the governed servers is open.
    NeverRead,
    /// It was reached, and is not any more: what was in force stays.
    Away,
    /// It answers.
    Up,
}

struct Inner {
    config: StoreConfig,
    store: RwLock<Option<Store>>,
    ledger: RwLock<Ledger>,
    /// Held while something is decided and written.
    turn: tokio::sync::Mutex<Progress>,
    is_up: AtomicBool,
    was_read: AtomicBool,
    reads: Mutex<HashMap<Box<str>, LastRead>>,
    live: Arc<Live>,
    builder: Arc<Builder>,
    audit: AuditSink,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// How far the store was read.
#[derive(Default)]
struct Progress {
    seq: u64,
    /// What was kept back and could not be written. The records in memory are ahead of the store until it is.
    unwritten: Vec<(Arc<str>, Vec<Observed>)>,
}

impl Governance {
    /// Opens the store and reads it, for `OPEN_MAX` at most; a store that is away is tried again and again. `passed` brings
    /// what lists show that pass through the gateway.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        config: StoreConfig,
        live: Arc<Live>,
        builder: Arc<Builder>,
        audit: AuditSink,
        metrics: Arc<Metrics>,
        passed: mpsc::Receiver<Passed>,
    ) -> std::io::Result<Self> {
        let background = Arc::new(Background::start()?);
        let inner = Arc::new(Inner {
            config,
            store: RwLock::default(),
            ledger: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            is_up: AtomicBool::new(true),
            was_read: AtomicBool::new(false),
            reads: Mutex::default(),
            live,
            builder,
            audit,
            metrics,
            clock: Clock,
        });
        let opening = Arc::clone(&inner);
        background.block_on(async move {
            let opened = tokio::time::timeout(OPEN_MAX, opening.sync()).await;
            if !matches!(opened, Ok(Ok(()))) {
                opening.went(false);
            }
        });
        background.spawn(Arc::clone(&inner).look_at_what_passes(passed));
        background.spawn(Arc::clone(&inner).keep_in_step());
        background.spawn(reader::keep_reading(Arc::clone(&inner)));
        Ok(Self { inner, background })
    }

    /// How it goes with the store.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        match (self.inner.was_read.load(Ordering::Relaxed), self.inner.is_up.load(Ordering::Relaxed)) {
            (false, _) => StoreStatus::NeverRead,
            (true, false) => StoreStatus::Away,
            (true, true) => StoreStatus::Up,
        }
    }

    /// Adds a row of a sign-in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_sign_in(&self, row: SignIn) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.create_sign_in(&row).await }).await
    }

    /// The row of a sign-in, unless it has expired at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sign_in(
        &self,
        id: Digest,
        purpose: &'static str,
        now: UnixSeconds,
    ) -> Result<Option<SignIn>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.sign_in(id, purpose, now).await }).await
    }

    /// Notes that a sign-in was used; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn touch_sign_in(&self, id: Digest, purpose: &'static str, now: UnixSeconds) -> Result<bool, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.touch_sign_in(id, purpose, now).await }).await
    }

    /// Takes a sign-in out; whether it was there. Of two at once one is told so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_sign_in(&self, id: Digest, purpose: &'static str) -> Result<bool, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.delete_sign_in(id, purpose).await }).await
    }

    /// Takes out all sign-ins of a purpose but the `rows_max` that were used last; how many that were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_sign_ins(&self, purpose: &'static str, rows_max: usize) -> Result<u64, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.keep_sign_ins(purpose, rows_max).await }).await
    }

    /// Takes out the sign-ins that have expired at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge_sign_ins(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.purge_sign_ins(now).await }).await
    }
}

impl Inner {
    fn store(&self) -> Result<Store, StoreError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or(StoreError::Away)
    }

    /// Looks at the records.
    fn look<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn rule(&self) -> ApprovalRule {
        let settings = &self.live.peek().config.registry;
        ApprovalRule { groups: settings.approvers.clone(), required: settings.approvals_required }
    }

    fn keep(&self) -> Keep {
        let settings = &self.live.peek().config.registry;
        Keep { versions: settings.history, server_bytes: settings.server_bytes }
    }

    /// Takes in what other gateways have written, and writes what could not be written before.
    async fn sync(&self) -> Result<(), StoreError> {
        let mut turn = self.turn.lock().await;
        self.sync_in_turn(&mut turn).await
    }

    async fn sync_in_turn(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let synced = self.try_sync(progress).await;
        self.went(synced.is_ok());
        synced
    }

    async fn try_sync(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let store = match self.store() {
            Ok(store) => store,
            Err(_not_open) => {
                let store = Store::open(&self.config).await?;
                *self.store.write().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
                store
            }
        };
        // Records that are ahead of the store are forgotten, and what they came from is looked at again.
        let since = if progress.unwritten.is_empty() { progress.seq } else { 0 };
        let changes = store.changes(since).await?;
        if since == 0 {
            let mut ledger = Ledger::default();
            ledger.apply(changes.servers, changes.items);
            *self.ledger.write().unwrap_or_else(PoisonError::into_inner) = ledger;
            self.was_read.store(true, Ordering::Relaxed);
            let catalog = self.look(Ledger::catalog);
            self.live.publish(Arc::new(catalog));
            let servers: Vec<Box<str>> =
                self.look(|ledger| ledger.servers().map(|server| server.name.clone()).collect());
            servers.iter().for_each(|server| self.count(server));
            self.serve().await;
        } else if changes.seq != progress.seq {
            self.take_in(Decided { servers: changes.servers, items: changes.items, acts: Vec::new() }).await;
        }
        progress.seq = changes.seq;
        let declared = self.builder.declared();
        let decided = self.look(|ledger| ledger.declare(declared.iter().map(|name| &**name), self.clock.now()));
        if !decided.servers.is_empty() {
            match store.commit(&batch(&decided, Vec::new()), self.keep()).await {
                Ok(_) => {
                    self.take_in(decided.clone()).await;
                    self.record(None, &decided.acts).await;
                }
                // Another gateway has declared the same at the same moment.
                Err(StoreError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        let unwritten = std::mem::take(&mut progress.unwritten);
        for (server, observed) in unwritten {
            self.observe_in_turn(progress, &server, observed, Seer::Traffic).await;
        }
        Ok(())
    }

    /// Notes whether the store answers, and tells when that has changed.
    fn went(&self, up: bool) {
        self.metrics.registry_store_up(up);
        if self.is_up.swap(up, Ordering::Relaxed) != up {
            if up {
                info!("The store answers again.");
            } else {
                error!("The store cannot be reached: what was approved stays in force, and nothing can be approved.");
            }
        }
    }

    /// Decides and writes, once more when another gateway was faster.
    async fn decide(
        &self,
        decide: impl Fn(&Ledger) -> Result<Decided, Refused> + Send,
    ) -> Result<Decided, GovernanceError> {
        let mut turn = self.turn.lock().await;
        for _attempt in 0..2 {
            self.sync_in_turn(&mut turn).await?;
            let decided = self.look(&decide)?;
            // The place of the record comes first: what cannot be recorded is not done.
            let place = self.audit.reserve(OnFull::Wait).await.map_err(|_closed| GovernanceError::StoreAway)?;
            match self.store()?.commit(&batch(&decided, Vec::new()), self.keep()).await {
                Ok(seq) => {
                    if seq == turn.seq + 1 {
                        turn.seq = seq;
                    }
                    self.take_in(decided.clone()).await;
                    self.record(Some(place), &decided.acts).await;
                    return Ok(decided);
                }
                Err(StoreError::Stale) => {}
                Err(error) => {
                    self.went(false);
                    return Err(error.into());
                }
            }
        }
        Err(GovernanceError::Stale { version: None })
    }

    /// Looks at what a server lists.
    async fn observe(&self, server: &str, observed: Vec<Observed>, seer: Seer) {
        let mut turn = self.turn.lock().await;
        self.observe_in_turn(&mut turn, server, observed, seer).await;
    }

    async fn observe_in_turn(&self, progress: &mut Progress, server: &str, observed: Vec<Observed>, seer: Seer) {
        let items_max = self.live.peek().config.registry.items;
        for attempt in 0..2 {
            let now = self.clock.now();
            let observation = self.look(|ledger| ledger.observe(server, &observed, seer, items_max, now));
            if observation.left_out > 0 && seer == Seer::Reader {
                warn!(
                    server,
                    items = observation.left_out,
                    "The server lists more items than are governed; they stay hidden."
                );
            }
            if observation.items.is_empty() {
                return;
            }
            let seen = observation.seen.into_iter();
            let seen: Vec<Seen> = seen.map(|definition| Seen { server: server.into(), definition, at: now }).collect();
            let decided = Decided { items: observation.items, ..Decided::default() };
            // Records that are ahead of the store cannot be written before the store was read again.
            let written = match self.store() {
                Ok(store) if progress.unwritten.is_empty() => store.commit(&batch(&decided, seen), self.keep()).await,
                Ok(_) | Err(_) => Err(StoreError::Away),
            };
            match written {
                Ok(seq) => {
                    if seq == progress.seq + 1 {
                        progress.seq = seq;
                    }
                }
                Err(StoreError::Stale) if attempt == 0 && self.catch_up(progress).await.is_ok() => continue,
                // What must be kept back is kept back, written or not.
                Err(_) => {
                    if progress.unwritten.len() < UNWRITTEN_MAX {
                        progress.unwritten.push((server.into(), observed));
                    }
                }
            }
            self.take_in(decided).await;
            self.tell_drifts(server, &observation.drifts).await;
            return;
        }
    }

    /// Reads what others have written, and nothing else.
    async fn catch_up(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let changes = self.store()?.changes(progress.seq).await?;
        progress.seq = changes.seq;
        self.take_in(Decided { servers: changes.servers, items: changes.items, acts: Vec::new() }).await;
        Ok(())
    }

    /// Puts records in force.
    async fn take_in(&self, decided: Decided) {
        let names = decided.servers.iter().map(|server| &server.name);
        let names: BTreeSet<Box<str>> = names.chain(decided.items.iter().map(|item| &item.server)).cloned().collect();
        if names.is_empty() {
            return;
        }
        let are_servers = !decided.servers.is_empty();
        self.ledger.write().unwrap_or_else(PoisonError::into_inner).apply(decided.servers, decided.items);
        let mut catalog = crate::registry::Catalog::clone(&self.live.peek().catalog);
        for name in &names {
            catalog = catalog.with(name, self.look(|ledger| ledger.standing(name)));
            self.count(name);
        }
        self.live.publish(Arc::new(catalog));
        if are_servers {
            self.serve().await;
        }
    }

    /// Puts the registered servers in force that are approved.
    async fn serve(&self) {
        let specs = self.look(Ledger::specs_in_force);
        if let Err(error) = self.builder.serve(specs).await {
            error!(%error, "The registered servers cannot be put in force; what was in force stays.");
        }
    }

    fn count(&self, server: &str) {
        let mut standings: BTreeMap<&'static str, usize> = ItemRecord::STANDINGS.map(|standing| (standing, 0)).into();
        self.look(|ledger| {
            for item in ledger.items(server) {
                *standings.entry(item.standing()).or_default() += 1;
            }
        });
        standings.into_iter().for_each(|(standing, items)| self.metrics.registry_items(server, standing, items));
    }

    /// Records what was done; the first of it in `place`.
    async fn record(&self, mut place: Option<AuditPlace>, acts: &[Act]) {
        for act in acts {
            let event = match &*act.what {
                "approve" => EventKind::RegistryApproved,
                "change" => EventKind::RegistryChanged,
                "resume" => EventKind::RegistryResumed,
                "retire" => EventKind::RegistryRetired,
                "suspend" => EventKind::RegistrySuspended,
                _ => EventKind::RegistryRegistered,
            };
            let mut event = self.event(event, Outcome::Ok, &act.server, act.item.as_ref(), Some(&act.actor));
            if let Some(registry) = &mut event.registry {
                registry.digest = act.digest.map(|digest| digest.to_string().into());
                registry.state = Some(act.state.label());
                registry.note = Some(act.reason.clone()).filter(|reason| !reason.is_empty());
            }
            match place.take() {
                Some(place) => {
                    place.record(event);
                }
                None => self.write(event).await,
            }
        }
    }

    async fn tell_drifts(&self, server: &str, drifts: &[Drift]) {
        for drift in drifts {
            self.metrics.registry_drifted(server, drift.key.kind.label(), drift.what.label());
            let mut event = self.event(EventKind::RegistryDrifted, Outcome::Ok, server, Some(&drift.key), None);
            if let Some(registry) = &mut event.registry {
                registry.digest = drift.digest.map(|digest| digest.to_string().into());
                registry.cause = Some(drift.what.label());
                registry.findings = drift.findings as u64;
            }
            self.write(event).await;
        }
        let quarantined = |drift: &&Drift| matches!(drift.what, DriftKind::Quarantined(_));
        let quarantined = drifts.iter().filter(quarantined).count();
        if quarantined > 0 {
            warn!(server, items = quarantined, "The server lists things that nobody has approved; they are kept back.");
        }
    }

    /// Records that somebody was not let do something.
    async fn record_refusal(&self, server: &str, item: Option<&ItemKey>, actor: &Actor, error: &GovernanceError) {
        let mut event = self.event(EventKind::RegistryRefused, Outcome::Refused, server, item, Some(actor));
        event.reason = Some(error.label());
        if let (Some(registry), GovernanceError::Forbidden(why) | GovernanceError::Conflict(why)) =
            (&mut event.registry, error)
        {
            registry.note = Some(why.as_str().into());
        }
        self.write(event).await;
    }

    fn event(
        &self,
        event: EventKind,
        outcome: Outcome,
        server: &str,
        item: Option<&ItemKey>,
        actor: Option<&Actor>,
    ) -> Event {
        let principal = actor.filter(|actor| !actor.issuer.is_empty()).map(|actor| Principal {
            issuer: (*actor.issuer).into(),
            subject: (*actor.subject).into(),
            client_id: None,
            token_id: None,
        });
        let registry = Registry {
            kind: item.map(|key| key.kind.label()),
            name: item.map(|key| key.name.clone()),
            ..Registry::default()
        };
        Event {
            event,
            outcome,
            principal,
            server: Some(server.into()),
            registry: Some(Box::new(registry)),
            config_generation: self.live.peek().generation,
            ..Event::default()
        }
    }

    async fn write(&self, event: Event) {
        if let Ok(place) = self.audit.reserve(OnFull::Wait).await {
            place.record(event);
        }
    }

    async fn look_at_what_passes(self: Arc<Self>, mut passed: mpsc::Receiver<Passed>) {
        while let Some(Passed { server, items }) = passed.recv().await {
            // A server that the registry does not know (its store was never read) has nothing that could be kept.
            let now = self.clock.now();
            let items: Vec<Observed> = self.look(|ledger| {
                // A definition that changes with every list is kept back once; each of its changes is not worth a write.
                let is_settled = |seen: &Observed| {
                    let waiting = ledger.item(&server, &seen.key).and_then(|item| item.waiting.as_ref());
                    waiting.is_some_and(|waiting| waiting.since.until(now) < SETTLE && waiting.since <= now)
                };
                let is_known = ledger.server(&server).is_some();
                items.into_iter().filter(|seen| is_known && !is_settled(seen)).collect()
            });
            if !items.is_empty() {
                self.observe(&server, items, Seer::Traffic).await;
            }
        }
    }

    async fn keep_in_step(self: Arc<Self>) {
        let mut ears = Ears::default();
        loop {
            match self.store() {
                Ok(store) => store.may_have_changed(&mut ears).await,
                Err(_not_open) => tokio::time::sleep(self.config.poll.max(RETRY_MIN)).await,
            }
            let _ = self.sync().await;
        }
    }

    fn state_of(&self, server: &str) -> Option<State> {
        self.look(|ledger| ledger.server(server).map(|server| server.state))
    }
}

impl GovernanceError {
    /// Word for records: one of a fixed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "conflict",
            Self::Forbidden(_) => "forbidden",
            Self::Invalid(_) => "invalid",
            Self::NotFound => "not_found",
            Self::Stale { .. } => "stale",
            Self::StoreAway => "store_away",
        }
    }
}

impl From<StoreError> for GovernanceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away | StoreError::Corrupt => Self::StoreAway,
            StoreError::Stale => Self::Stale { version: None },
        }
    }
}

impl From<Refused> for GovernanceError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Approver(why) => Self::Forbidden(why.to_string()),
            Refused::NotFound => Self::NotFound,
            Refused::Stale { version } => Self::Stale { version: Some(version) },
            Refused::Exists
            | Refused::NotKept
            | Refused::NotNow(_)
            | Refused::NotWaiting
            | Refused::ReadOnly
            | Refused::RetiredForGood
            | Refused::TooMany => Self::Conflict(refused.to_string()),
        }
    }
}

fn batch(decided: &Decided, seen: Vec<Seen>) -> Batch {
    Batch { servers: decided.servers.clone(), items: decided.items.clone(), seen, acts: decided.acts.clone() }
}

/// How long the start waits for the store.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// How soon a store that was never reached is tried again.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// How long an item that is kept back is not looked at again when a list passes.
const SETTLE: Duration = Duration::from_secs(1);

/// Looks at lists that are kept while the store is away.
const UNWRITTEN_MAX: usize = 1000;

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed test may panic"
)]
mod tests;
