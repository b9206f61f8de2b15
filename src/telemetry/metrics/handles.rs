//! What counts for one route, server, issuer or cache? Handles that keep their counters, so that a request looks none up.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use crate::audit::Outcome;
use crate::credential::ExchangeError;
use crate::policy::Effect;

use super::labels::MethodLabel;

/// The counters of one route.
pub struct RouteMetrics {
    pub(super) route: Box<str>,
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) authorizations: IntCounterVec,
    pub(super) gateway_duration: Histogram,
    pub(super) methods: Box<[MethodMetrics]>,
    pub(super) allowed: Words,
    pub(super) denied: Words,
}

/// The counters of one server.
pub struct ServerMetrics {
    pub(super) server: Box<str>,
    pub(super) tool_calls: IntCounterVec,
    pub(super) token_exchanges: IntCounterVec,
    pub(super) token_exchange_duration: Histogram,
    pub(super) exchange_outcomes: Words,
    pub(super) tools: HashMap<Box<str>, ToolMetrics>,
    pub(super) other: ToolMetrics,
}

/// The counters of one issuer.
pub struct IssuerMetrics {
    pub(super) issuer: Box<str>,
    pub(super) authentications: IntCounterVec,
    pub(super) results: Words,
}

/// The counters of agents on one route.
pub struct AgentMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) types: HashSet<Box<str>>,
    pub(super) providers: HashSet<Box<str>>,
}

/// The counters of the budgets of one route.
pub struct BudgetMetrics {
    pub(super) allowed: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) refusals: IntCounterVec,
}

/// Hits and misses of one cache.
#[derive(Clone)]
pub struct CacheMetrics {
    pub(super) hits: IntCounter,
    pub(super) misses: IntCounter,
}

/// A connection that is counted as open for as long as this lives.
#[must_use = "the connection counts as open only while this lives"]
#[derive(Debug)]
pub struct OpenConnection(pub(super) IntGauge);

/// A stream that is counted as open for as long as this lives.
#[must_use = "the stream counts as open only while this lives"]
#[derive(Debug)]
pub struct OpenStream(pub(super) IntGauge);

pub(super) struct MethodMetrics {
    pub(super) outcomes: [OnceLock<IntCounter>; Outcome::ALL.len()],
    pub(super) duration: OnceLock<Histogram>,
}

pub(super) struct ToolMetrics {
    pub(super) tool: Box<str>,
    pub(super) outcomes: [OnceLock<IntCounter>; Outcome::ALL.len()],
    pub(super) duration: Histogram,
}

impl RouteMetrics {
    /// A request ended.
    pub fn finished(&self, method: MethodLabel, outcome: Outcome, duration: Duration) {
        let Some(cells) = self.methods.get(method.index()) else { return };
        if let Some(cell) = cells.outcomes.get(outcome as usize) {
            let labels = || [&*self.route, method.label(), outcome.label()];
            cell.get_or_init(|| self.requests.with_label_values(&labels())).inc();
        }
        cells
            .duration
            .get_or_init(|| self.request_duration.with_label_values(&[&*self.route, method.label()]))
            .observe(duration.as_secs_f64());
    }

    /// The gateway's own part of a request was this long.
    pub fn gateway_took(&self, duration: Duration) {
        self.gateway_duration.observe(duration.as_secs_f64());
    }

    /// The policy decided; `reason` is one of its fixed words.
    pub fn decided(&self, effect: Effect, reason: &'static str) {
        let (words, decision) = match effect {
            Effect::Allow => (&self.allowed, "allow"),
            Effect::Deny => (&self.denied, "deny"),
        };
        words.inc(reason, || self.authorizations.with_label_values(&[&*self.route, decision, reason]));
    }
}

impl fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteMetrics").field("route", &self.route).finish_non_exhaustive()
    }
}

impl ServerMetrics {
    /// A tool call ended. `tool` is what the client named; only names known at the start become labels.
    pub fn tool_called(&self, tool: &str, outcome: Outcome, duration: Duration) {
        let known = self.tools.get(tool).unwrap_or(&self.other);
        if let Some(cell) = known.outcomes.get(outcome as usize) {
            let labels = || [&*self.server, &*known.tool, outcome.label()];
            cell.get_or_init(|| self.tool_calls.with_label_values(&labels())).inc();
        }
        known.duration.observe(duration.as_secs_f64());
    }

    /// A token exchange ended, after `duration` with its retry.
    pub fn exchanged(&self, outcome: Result<(), ExchangeError>, duration: Duration) {
        let outcome = outcome.map_or_else(ExchangeError::label, |()| "ok");
        self.exchange_outcomes.inc(outcome, || self.token_exchanges.with_label_values(&[&*self.server, outcome]));
        self.token_exchange_duration.observe(duration.as_secs_f64());
    }
}

impl fmt::Debug for ServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMetrics").field("server", &self.server).finish_non_exhaustive()
    }
}

impl IssuerMetrics {
    /// A token of this issuer was judged; `result` is `ok` or the label of an error.
    pub fn authenticated(&self, result: &'static str) {
        self.results.inc(result, || self.authentications.with_label_values(&[&*self.issuer, result]));
    }
}

impl fmt::Debug for IssuerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerMetrics").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl AgentMetrics {
    /// A request that an agent made ended. Only types and providers that are known become labels.
    pub fn acted(&self, kind: Option<&str>, provider: Option<&str>, outcome: Outcome) {
        let known = |name: Option<&str>, names: &HashSet<Box<str>>| name.filter(|name| names.contains(*name)).is_some();
        let kind = if known(kind, &self.types) { kind } else { None };
        let provider = if known(provider, &self.providers) { provider } else { None };
        let labels = [kind.unwrap_or("other"), provider.unwrap_or("other"), outcome.label()];
        self.requests.with_label_values(&labels).inc();
    }
}

impl fmt::Debug for AgentMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentMetrics").finish_non_exhaustive()
    }
}

impl BudgetMetrics {
    /// Every budget had enough left.
    pub fn let_through(&self) {
        self.allowed.inc();
    }

    /// One had not. `budget` is the configuration's name for it, `limit` one of a fixed set.
    pub fn refused(&self, budget: &str, limit: &'static str) {
        self.refused.inc();
        self.refusals.with_label_values(&[budget, limit]).inc();
    }
}

impl fmt::Debug for BudgetMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetMetrics").finish_non_exhaustive()
    }
}

impl CacheMetrics {
    /// It was there.
    pub fn hit(&self) {
        self.hits.inc();
    }

    /// It was not.
    pub fn missed(&self) {
        self.misses.inc();
    }
}

impl fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMetrics").finish_non_exhaustive()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for MethodMetrics {
    fn default() -> Self {
        Self { outcomes: Default::default(), duration: OnceLock::new() }
    }
}

/// Counters for a few fixed words, found without a lock: each cell is claimed once by the first word that needs it.
#[derive(Default)]
pub(super) struct Words([OnceLock<(&'static str, IntCounter)>; 16]);

impl Words {
    /// Counts `word`; `counter` looks its counter up, once unless there are more words than cells.
    fn inc(&self, word: &'static str, counter: impl Fn() -> IntCounter) {
        for cell in &self.0 {
            let (claimed_by, claimed) = cell.get_or_init(|| (word, counter()));
            if *claimed_by == word {
                return claimed.inc();
            }
        }
        counter().inc();
    }
}
