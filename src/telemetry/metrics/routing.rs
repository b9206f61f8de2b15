//! How are requests placed, in numbers? Labels are names of the configuration, and words of closed sets.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{NAMESPACE, ReloadOutcome};

/// What is counted where requests are placed.
pub struct RoutingMetrics {
    decisions: IntCounterVec,
    split_closed: IntGaugeVec,
    splits_aborted: IntCounterVec,
    circuit_open: IntGaugeVec,
    circuits_opened: IntCounterVec,
    handovers: IntCounterVec,
    shadows: IntCounterVec,
    region_database_reloads: IntCounterVec,
}

/// What became of a request that a rule was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The rule's condition had no answer.
    Error,
    /// It went where everything else goes, because the rule's instances take no work.
    FellBack,
    /// It went where the rule says.
    Placed,
    /// It was refused: a strict rule has no place for it.
    Refused,
}

impl Placement {
    fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::FellBack => "fell_back",
            Self::Placed => "placed",
            Self::Refused => "refused",
        }
    }
}

impl RoutingMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Self {
            decisions: counters(
                "routing_decisions_total",
                "Requests that a routing rule was about, by rule, side of its split and what became of them.",
                &["server", "rule", "to", "result"],
            )?,
            split_closed: gauges(
                "routing_split_closed",
                "Whether a side of a split gets no more requests, because too many have failed: 1 or 0.",
                &["server", "rule", "to"],
            )?,
            splits_aborted: counters(
                "routing_splits_aborted_total",
                "Sides of splits that were closed because too many of their requests failed.",
                &["server", "rule", "to"],
            )?,
            circuit_open: gauges(
                "circuit_open",
                "Whether an instance is left alone, because it fails or is slow: 1 or 0.",
                &["server", "instance"],
            )?,
            circuits_opened: counters(
                "circuits_opened_total",
                "Times that an instance was left alone, by cause.",
                &["server", "instance", "cause"],
            )?,
            handovers: counters(
                "session_handovers_total",
                "Sessions that were opened anew at another instance, by outcome.",
                &["server", "outcome"],
            )?,
            shadows: counters(
                "shadow_calls_total",
                "Calls that were to be made once more for comparison, by result.",
                &["server", "result"],
            )?,
            region_database_reloads: counters(
                "region_database_reloads_total",
                "Readings of the database of addresses, by outcome.",
                &["outcome"],
            )?,
        })
    }

    /// A rule was about a request. `to` is empty where there is no split.
    pub fn decided(&self, server: &str, rule: &str, to: &str, placement: Placement) {
        self.decisions.with_label_values(&[server, rule, to, placement.label()]).inc();
    }

    /// A side of a split was closed.
    pub fn split_aborted(&self, server: &str, rule: &str, to: &str) {
        self.splits_aborted.with_label_values(&[server, rule, to]).inc();
    }

    /// Whether a side of a split is closed.
    pub fn split_closed(&self, server: &str, rule: &str, to: &str, closed: bool) {
        self.split_closed.with_label_values(&[server, rule, to]).set(i64::from(closed));
    }

    /// A side of a split is no longer configured.
    pub fn split_removed(&self, server: &str, rule: &str, to: &str) {
        // One that was never there is as gone as one that was.
        let _ = self.split_closed.remove_label_values(&[server, rule, to]);
    }

    /// An instance is left alone from here on.
    pub fn circuit_opened(&self, server: &str, instance: &str, cause: &'static str) {
        self.circuits_opened.with_label_values(&[server, instance, cause]).inc();
        self.circuit_open.with_label_values(&[server, instance]).set(1);
    }

    /// An instance takes work.
    pub fn circuit_closed(&self, server: &str, instance: &str) {
        self.circuit_open.with_label_values(&[server, instance]).set(0);
    }

    /// A session was to be opened anew. `outcome` is one of a fixed set.
    pub fn session_handed_over(&self, server: &str, outcome: &'static str) {
        self.handovers.with_label_values(&[server, outcome]).inc();
    }

    /// A call was to be made once more. `result` is one of a fixed set.
    pub fn shadowed(&self, server: &str, result: &'static str) {
        self.shadows.with_label_values(&[server, result]).inc();
    }

    /// The database of addresses was read.
    pub fn region_database_reloaded(&self, outcome: ReloadOutcome) {
        self.region_database_reloads.with_label_values(&[outcome.label()]).inc();
    }

    #[cfg(test)]
    pub(super) fn exercise(&self) {
        self.decided("tickets", "canary", "v2", Placement::Placed);
        self.split_aborted("tickets", "canary", "v2");
        self.split_closed("tickets", "canary", "v2", true);
        self.circuit_opened("tickets", "a", "error_rate");
        self.session_handed_over("tickets", "ok");
        self.shadowed("tickets", "same");
        self.region_database_reloaded(ReloadOutcome::Applied);
    }
}
