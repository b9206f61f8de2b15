//! Is it enough? What a call draws on its budgets, and what is given back when it ends.

mod headers;
mod shared;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::config::BudgetsStore;
use crate::policy::budget::meter::{Left, Meter};
use crate::policy::budget::{self, Charge, LimitKind};
use crate::registry::Route;
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, UnixMicros};

use super::Shell;
use super::meters::RouteMeters;
use super::pipeline::Ask;
use super::placement::Seen;
use super::record::Record;
use super::rejection::Rejection;
use headers::{RateHeaders, seconds};
use shared::{Lease, Shared, Verdict};
use table::{Table, TooMuch};

/// What has been used: here, and where several gateways count together.
pub(super) struct Counters {
    table: Arc<Table>,
    /// Where gateways count together; `None`: each counts for itself.
    shared: Option<Arc<Shared>>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Why a call is too much.
#[derive(Clone, Debug)]
pub(crate) struct OverBudget {
    /// The budget.
    pub(crate) budget: Arc<str>,
    /// The limit of it.
    pub(crate) limit: LimitKind,
    /// Whole seconds until it may be asked again.
    pub(crate) retry_after: u64,
    headers: Option<RateHeaders>,
}

/// What a call has drawn. Dropping it gives back what was counted as running.
pub(super) struct Spent {
    counters: Arc<Counters>,
    /// What runs until this is dropped.
    running: Vec<Charge>,
    /// What is charged as the answer comes.
    bytes: Vec<Charge>,
    headers: Option<RateHeaders>,
    lease: Option<Lease>,
}

/// Draws on every budget that counts the request, or on none.
///
/// # Errors
/// [`Rejection::OverBudget`].
pub(super) async fn spend(
    shell: &Shell,
    route: &Route,
    meters: &RouteMeters,
    seen: &Seen<'_>,
    record: &Record,
) -> Result<Option<Spent>, Rejection> {
    if route.budgets.is_empty() || matches!(seen.ask, Ask::EndSession(_)) {
        return Ok(None);
    }
    let charges = budget::charges(&route.budgets, &seen.asked(route, &seen.facts(record)));
    if charges.is_empty() {
        return Ok(None);
    }
    match Counters::spend(&shell.budgets, charges).await {
        Ok(spent) => {
            meters.budgets.let_through();
            Ok(Some(spent))
        }
        Err(over) => {
            meters.budgets.refused(&over.budget, over.limit.label());
            Err(Rejection::OverBudget(Box::new(over)))
        }
    }
}

impl Counters {
    /// Keeps at most `cells_max` cells here, and counts with others at `store`.
    pub(super) fn new(cells_max: usize, store: Option<&BudgetsStore>, metrics: Arc<Metrics>) -> Self {
        let shared = store.and_then(|store| Shared::start(store, Arc::clone(&metrics)));
        Self { table: Arc::new(Table::new(cells_max)), shared, clock: Clock, metrics }
    }

    /// Drops what is without effect.
    pub(super) fn forget_idle(&self) {
        let cells = self.table.forget_idle(self.clock.now_micros());
        self.metrics.budget_cells(cells, self.table.take_evicted());
    }

    async fn spend(counters: &Arc<Self>, charges: Vec<Charge>) -> Result<Spent, OverBudget> {
        let now = counters.clock.now_micros();
        let together = match &counters.shared {
            Some(shared) => shared.spend(&charges).await,
            None => None,
        };
        match together {
            Some(Verdict::Spent { left, lease }) => {
                // Should the others be out of reach later, this gateway at least knows its own share.
                counters.table.note(&charges, now);
                Ok(Spent::new(counters, charges, &left, lease))
            }
            Some(Verdict::TooMuch(too_much)) => Err(over(&charges, too_much)),
            None => match counters.table.spend(&charges, now) {
                Ok(left) => Ok(Spent::new(counters, charges, &left, None)),
                Err(too_much) => Err(over(&charges, too_much)),
            },
        }
    }
}

/// `too_much` names a charge that is there; without one nobody is told more than to wait.
fn over(charges: &[Charge], too_much: TooMuch) -> OverBudget {
    let retry_after = seconds(too_much.exceeded.retry_after).max(1);
    let charge = charges.get(too_much.charge);
    OverBudget {
        budget: charge.map(|charge| Arc::clone(&charge.budget.name)).unwrap_or_default(),
        limit: charge.map_or(LimitKind::Calls, |charge| charge.limit.kind),
        retry_after,
        headers: charge.and_then(|charge| RateHeaders::exceeded(charge, retry_after)),
    }
}

impl OverBudget {
    /// `RateLimit` and `RateLimit-Policy`.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.headers.iter().flat_map(RateHeaders::fields)
    }

    /// What an agent should make of it.
    pub(crate) fn advice(&self) -> &'static str {
        match self.limit {
            LimitKind::Bytes => {
                "this budget's answers have been too large; wait before you ask again, and ask for less"
            }
            LimitKind::Calls => "this budget's calls are used up; wait before you call again",
            LimitKind::Concurrency => "too many calls of this budget run at once; wait until one has ended",
            LimitKind::Rate => "too many calls in a short time; slow down, and wait before you call again",
            LimitKind::Repeat => {
                "the same call with the same arguments was made again and again: this looks like a loop; do something else"
            }
        }
    }
}

impl Spent {
    fn new(counters: &Arc<Counters>, charges: Vec<Charge>, left: &[Left], lease: Option<Lease>) -> Self {
        let headers = RateHeaders::new(&charges, left);
        let bytes = charges.iter().filter(|charge| charge.limit.kind == LimitKind::Bytes).cloned().collect();
        let running = charges.into_iter().filter(|charge| matches!(charge.limit.meter, Meter::Concurrency { .. }));
        Self { counters: Arc::clone(counters), running: running.collect(), bytes, headers, lease }
    }

    /// `RateLimit` and `RateLimit-Policy`.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.headers.iter().flat_map(RateHeaders::fields)
    }

    /// Charges a piece of the answer.
    ///
    /// # Errors
    /// [`Rejection::OverBudget`] when nothing was left before it: what is open for long ends then. A document is whole
    /// before anybody asks, and always passes.
    pub(super) fn passes(&self, piece: Option<&Bytes>, is_stream: bool) -> Result<(), Rejection> {
        let Some(piece) = piece.filter(|piece| !piece.is_empty() && !self.bytes.is_empty()) else { return Ok(()) };
        let (now, amount) = (self.counters.clock.now_micros(), piece.len() as u64);
        let mut empty = None;
        for (nth, charge) in self.bytes.iter().enumerate() {
            if self.counters.table.charge(charge, amount, now) {
                empty = Some(nth);
            }
        }
        if let Some(shared) = &self.counters.shared {
            shared.charge(&self.bytes, amount);
        }
        match empty {
            Some(charge) if is_stream => {
                let exceeded = self.left_in(charge, now);
                Err(Rejection::OverBudget(Box::new(over(&self.bytes, TooMuch { charge, exceeded }))))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn left_in(&self, charge: usize, now: UnixMicros) -> budget::meter::Exceeded {
        let asked = self.bytes.get(charge).map(|charge| self.counters.table.spend(std::slice::from_ref(charge), now));
        asked.and_then(Result::err).map_or(budget::meter::Exceeded { retry_after: 0 }, |too_much| too_much.exceeded)
    }
}

impl Spent {
    /// Gives back what was counted as running: the answer is whole, and its client may call again before the request has
    /// quite gone.
    pub(super) fn release(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let now = self.counters.clock.now_micros();
        for charge in self.running.drain(..) {
            self.counters.table.release(&charge, now);
        }
        if let (Some(shared), Some(lease)) = (&self.counters.shared, self.lease.take()) {
            shared.release(lease);
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.release();
    }
}
