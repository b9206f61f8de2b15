//! How is it going, in numbers? Every Prometheus metric there is, with labels from the configuration or a closed set.
//!
//! No label can take its value from a request: the methods here ask for types and `&'static str`s, and names
//! from the configuration become handles ([`RouteMetrics`], [`ServerMetrics`], [`IssuerMetrics`]) once per snapshot.
//! A handle keeps its counters, so a request costs atomic additions and no look-up by label.

mod handles;
mod labels;
mod routing;

use std::fmt;

use prometheus::Encoder as _;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::process_collector::ProcessCollector;

use crate::time::UnixSeconds;

use handles::{MethodMetrics, ToolMetrics, Words};

pub use handles::{
    AgentMetrics, BudgetMetrics, CacheMetrics, IssuerMetrics, OpenConnection, OpenStream, RouteMetrics, ServerMetrics,
};
pub use labels::{CacheName, MethodLabel, ReloadOutcome, SessionEvent, UpstreamFile};
pub use routing::{Placement, RoutingMetrics};

/// Every metric of the process, registered with one registry.
pub struct Metrics {
    /// Where requests go.
    pub routing: RoutingMetrics,
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    gateway_duration: HistogramVec,
    authentications: IntCounterVec,
    authorizations: IntCounterVec,
    tool_calls: IntCounterVec,
    tool_call_duration: HistogramVec,
    token_exchanges: IntCounterVec,
    token_exchange_duration: HistogramVec,
    caches: [CacheMetrics; 4],
    agent_requests: IntCounterVec,
    server_identities: IntCounterVec,
    sessions: IntCounterVec,
    streams_active: IntGauge,
    connections_active: IntGauge,
    connections_refused: IntCounter,
    instance_healthy: IntGaugeVec,
    jwks_refreshes: IntCounterVec,
    audit_records: IntCounterVec,
    audit_queue_records: IntGauge,
    config_generation: IntGauge,
    config_reloads: IntCounterVec,
    tls_certificate_not_after: IntGaugeVec,
    tls_certificate_reloads: IntCounterVec,
    upstream_tls_certificate_not_after: IntGaugeVec,
    upstream_tls_certificate_reloads: IntCounterVec,
    registry_items: IntGaugeVec,
    registry_drift: IntCounterVec,
    registry_calls: IntCounterVec,
    registry_reads: IntCounterVec,
    registry_observations_dropped: IntCounter,
    registry_store_up: IntGauge,
    budget_requests: IntCounterVec,
    budget_refusals: IntCounterVec,
    budget_cells: IntGauge,
    budget_evictions: IntCounter,
    budget_store_fallbacks: IntCounterVec,
    quarantines: IntGauge,
    content_filtered: IntCounterVec,
}

impl Metrics {
    /// Registers every metric, and those of the process, with `registry`. To be called after the process has become a
    /// daemon: the metrics of the process are bound to its id.
    ///
    /// # Errors
    /// When `registry` has a metric of the same name already.
    pub fn new(registry: Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(Opts::new(name, help).namespace(NAMESPACE))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(Opts::new(name, help).namespace(NAMESPACE))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let histograms = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec());
            let histograms = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };

        let token_cache = counters("token_cache_total", "Look-ups in a cache, by result.", &["cache", "result"])?;
        let cache = |name: CacheName| CacheMetrics {
            hits: token_cache.with_label_values(&[name.label(), "hit"]),
            misses: token_cache.with_label_values(&[name.label(), "miss"]),
        };
        let metrics = Self {
            requests: counters(
                "requests_total",
                "Requests to a route, by MCP method and how they ended.",
                &["route", "method", "outcome"],
            )?,
            request_duration: histograms(
                "request_duration_seconds",
                "From the first byte of a request to the last of its answer.",
                BUCKETS,
                &["route", "method"],
            )?,
            gateway_duration: histograms(
                "gateway_duration_seconds",
                "The gateway's own part of a request, without the upstream's.",
                BUCKETS_FINE,
                &["route"],
            )?,
            authentications: counters(
                "authentications_total",
                "Tokens judged, by issuer and result.",
                &["issuer", "result"],
            )?,
            authorizations: counters(
                "authorizations_total",
                "Decisions of the policy, by route, decision and reason.",
                &["route", "decision", "reason"],
            )?,
            tool_calls: counters(
                "tool_calls_total",
                "Tool calls, by server, tool and how they ended. A tool that no rule names is `other`.",
                &["server", "tool", "outcome"],
            )?,
            tool_call_duration: histograms(
                "tool_call_duration_seconds",
                "Duration of tool calls as the client sees them.",
                BUCKETS,
                &["server", "tool"],
            )?,
            token_exchanges: counters(
                "token_exchanges_total",
                "Exchanges of a caller's token for a server's, by outcome.",
                &["server", "outcome"],
            )?,
            token_exchange_duration: histograms(
                "token_exchange_duration_seconds",
                "Duration of token exchanges, a retry included.",
                BUCKETS,
                &["server"],
            )?,
            agent_requests: counters(
                "agent_requests_total",
                "Requests that an agent made, by its type and provider and how they ended. What no rule and no attester \
                 names is `other`.",
                &["type", "provider", "outcome"],
            )?,
            server_identities: counters(
                "server_identity_checks_total",
                "Checks of what a server proves to be, by result.",
                &["server", "result"],
            )?,
            caches: [
                cache(CacheName::Agent),
                cache(CacheName::Credential),
                cache(CacheName::Decision),
                cache(CacheName::Token),
            ],
            sessions: counters("sessions_total", "What happened to sessions.", &["event"])?,
            streams_active: gauge("streams_active", "Event streams open now.")?,
            connections_active: gauge("connections_active", "Connections of clients open now.")?,
            connections_refused: counter(
                "connections_refused_total",
                "Connections closed at once, because there were too many.",
            )?,
            instance_healthy: gauges(
                "instance_healthy",
                "Whether an instance takes new work: 1 or 0.",
                &["server", "instance"],
            )?,
            jwks_refreshes: counters(
                "jwks_refreshes_total",
                "Fetches of an issuer's keys, by outcome.",
                &["issuer", "outcome"],
            )?,
            audit_records: counters("audit_records_total", "Audit records written, by sink.", &["sink"])?,
            audit_queue_records: gauge(
                "audit_queue_records",
                "Audit records, and places kept for them, in the queue.",
            )?,
            config_generation: gauge("config_generation", "Which configuration is in force, counted from 1.")?,
            config_reloads: counters(
                "config_reloads_total",
                "Reloads of the configuration, by outcome.",
                &["outcome"],
            )?,
            tls_certificate_not_after: gauges(
                "tls_certificate_not_after_seconds",
                "When the certificate that a listener shows expires, in seconds since 1970.",
                &["listener"],
            )?,
            tls_certificate_reloads: counters(
                "tls_certificate_reloads_total",
                "Reloads of a listener's certificate, by outcome.",
                &["listener", "outcome"],
            )?,
            upstream_tls_certificate_not_after: gauges(
                "upstream_tls_certificate_not_after_seconds",
                "When the first certificate in a file of a server's TLS settings expires, in seconds since 1970.",
                &["server", "file"],
            )?,
            upstream_tls_certificate_reloads: counters(
                "upstream_tls_certificate_reloads_total",
                "Reloads of the files of a server's TLS settings, by outcome.",
                &["server", "outcome"],
            )?,
            registry_items: gauges(
                "registry_items",
                "Items of governed servers, by where they stand.",
                &["server", "state"],
            )?,
            registry_drift: counters(
                "registry_drift_total",
                "Items that are not what was approved, by kind and cause, each time that is found.",
                &["server", "kind", "cause"],
            )?,
            registry_calls: counters(
                "registry_unapproved_calls_total",
                "Calls of items that are not approved, by cause and by what became of them.",
                &["server", "cause", "result"],
            )?,
            registry_reads: counters(
                "registry_reads_total",
                "Readings of a server's lists in the background, by outcome.",
                &["server", "outcome"],
            )?,
            registry_observations_dropped: {
                let dropped = IntCounter::with_opts(
                    Opts::new("registry_observations_dropped_total", "Lists that passed and were not looked at.")
                        .namespace(NAMESPACE),
                )?;
                registry.register(Box::new(dropped.clone()))?;
                dropped
            },
            registry_store_up: gauge("registry_store_up", "Whether the store of the registry answers: 1 or 0.")?,
            budget_requests: counters(
                "budget_requests_total",
                "Requests that some budget counts, by route and result.",
                &["route", "result"],
            )?,
            budget_refusals: counters(
                "budget_refusals_total",
                "Requests refused for a budget, by budget and limit.",
                &["budget", "limit"],
            )?,
            budget_cells: gauge("budget_cells", "Counts that budgets keep, one for each limit and key.")?,
            budget_evictions: counter(
                "budget_evictions_total",
                "Counts of budgets that were dropped while they had an effect, because there were too many.",
            )?,
            budget_store_fallbacks: counters(
                "budget_store_fallbacks_total",
                "Requests whose budgets were counted by this gateway alone, because Redis did not answer, by reason.",
                &["reason"],
            )?,
            quarantines: gauge("quarantines", "Principals, agents and tools that are stopped.")?,
            routing: RoutingMetrics::new(&registry)?,
            content_filtered: counters(
                "content_filtered_total",
                "What rules about content did with answers.",
                &["route", "rule", "action"],
            )?,
            registry: registry.clone(),
        };
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The counters of a configured route. Handles of the same route, from one snapshot and the next, count together.
    #[must_use]
    pub fn route(&self, route: &str) -> RouteMetrics {
        RouteMetrics {
            route: route.into(),
            requests: self.requests.clone(),
            request_duration: self.request_duration.clone(),
            authorizations: self.authorizations.clone(),
            gateway_duration: self.gateway_duration.with_label_values(&[route]),
            methods: (0..MethodLabel::COUNT).map(|_| MethodMetrics::default()).collect(),
            allowed: Words::default(),
            denied: Words::default(),
        }
    }

    /// The counters of a configured server. `tools` are the names that its rules know; calls of every other tool, and
    /// of those past the first [`TOOLS_MAX`], count as `other`.
    #[must_use]
    pub fn server<'a>(&self, server: &str, tools: impl IntoIterator<Item = &'a str>) -> ServerMetrics {
        let tool_metrics = |tool: &str| ToolMetrics {
            tool: tool.into(),
            outcomes: Default::default(),
            duration: self.tool_call_duration.with_label_values(&[server, tool]),
        };
        ServerMetrics {
            server: server.into(),
            tool_calls: self.tool_calls.clone(),
            token_exchanges: self.token_exchanges.clone(),
            token_exchange_duration: self.token_exchange_duration.with_label_values(&[server]),
            exchange_outcomes: Words::default(),
            tools: tools.into_iter().take(TOOLS_MAX).map(|tool| (tool.into(), tool_metrics(tool))).collect(),
            other: tool_metrics("other"),
        }
    }

    /// The counters of a configured issuer.
    #[must_use]
    pub fn issuer(&self, issuer: &str) -> IssuerMetrics {
        IssuerMetrics {
            issuer: issuer.into(),
            authentications: self.authentications.clone(),
            results: Words::default(),
        }
    }

    /// The counters of agents. An agent of any other type or provider counts as `other`, as do those past the first
    /// [`AGENT_NAMES_MAX`].
    #[must_use]
    pub fn agents<'a>(
        &self,
        types: impl IntoIterator<Item = &'a str>,
        providers: impl IntoIterator<Item = &'a str>,
    ) -> AgentMetrics {
        AgentMetrics {
            requests: self.agent_requests.clone(),
            types: types.into_iter().take(AGENT_NAMES_MAX).map(Into::into).collect(),
            providers: providers.into_iter().take(AGENT_NAMES_MAX).map(Into::into).collect(),
        }
    }

    /// A server's identity was looked at; `result` is `ok` or the label of an error.
    pub fn server_identity_checked(&self, server: &str, result: &'static str) {
        self.server_identities.with_label_values(&[server, result]).inc();
    }

    /// The counters of one cache.
    #[must_use]
    pub fn cache(&self, name: CacheName) -> &CacheMetrics {
        let [agent, credential, decision, token] = &self.caches;
        match name {
            CacheName::Agent => agent,
            CacheName::Credential => credential,
            CacheName::Decision => decision,
            CacheName::Token => token,
        }
    }

    /// Something happened to a session.
    pub fn session(&self, event: SessionEvent) {
        let event = match event {
            SessionEvent::Closed => "closed",
            SessionEvent::Lost => "lost",
            SessionEvent::Opened => "opened",
            SessionEvent::Refused => "refused",
        };
        self.sessions.with_label_values(&[event]).inc();
    }

    /// A client's connection was let in.
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections_active.inc();
        OpenConnection(self.connections_active.clone())
    }

    /// A client's connection was turned away.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A stream opened; it closes when the returned guard goes.
    pub fn stream_opened(&self) -> OpenStream {
        self.streams_active.inc();
        OpenStream(self.streams_active.clone())
    }

    /// An instance takes new work.
    pub fn instance_healthy(&self, server: &str, instance: &str) {
        self.instance_healthy.with_label_values(&[server, instance]).set(1);
    }

    /// An instance takes no new work.
    pub fn instance_unhealthy(&self, server: &str, instance: &str) {
        self.instance_healthy.with_label_values(&[server, instance]).set(0);
    }

    /// An instance is no longer configured.
    pub fn instance_removed(&self, server: &str, instance: &str) {
        // An instance that never had a health is as gone as one that had.
        let _ = self.instance_healthy.remove_label_values(&[server, instance]);
    }

    /// An issuer's keys were asked for.
    pub fn jwks_refreshed(&self, issuer: &str, outcome: &'static str) {
        self.jwks_refreshes.with_label_values(&[issuer, outcome]).inc();
    }

    /// A configuration came into force.
    pub fn config_in_force(&self, generation: u64) {
        self.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// A reload was asked for.
    pub fn config_reloaded(&self, outcome: ReloadOutcome) {
        self.config_reloads.with_label_values(&[outcome.label()]).inc();
    }

    /// A listener shows a certificate that is good until `not_after`. `listener` is its configured address.
    pub fn certificate_expires(&self, listener: &str, not_after: UnixSeconds) {
        let not_after = i64::try_from(not_after.0).unwrap_or(i64::MAX);
        self.tls_certificate_not_after.with_label_values(&[listener]).set(not_after);
    }

    /// The certificate of a listener was read again.
    pub fn certificate_reloaded(&self, listener: &str, outcome: ReloadOutcome) {
        self.tls_certificate_reloads.with_label_values(&[listener, outcome.label()]).inc();
    }

    /// The first certificate in a file of a server's TLS settings is good until `not_after`.
    pub fn upstream_certificate_expires(&self, server: &str, file: UpstreamFile, not_after: UnixSeconds) {
        let not_after = i64::try_from(not_after.0).unwrap_or(i64::MAX);
        self.upstream_tls_certificate_not_after.with_label_values(&[server, file.label()]).set(not_after);
    }

    /// The files of a server's TLS settings were read again.
    pub fn upstream_certificates_reloaded(&self, server: &str, outcome: ReloadOutcome) {
        self.upstream_tls_certificate_reloads.with_label_values(&[server, outcome.label()]).inc();
    }

    /// A server's TLS settings are no longer configured.
    pub fn upstream_certificates_removed(&self, server: &str) {
        for file in [UpstreamFile::Ca, UpstreamFile::ClientCertificate] {
            // One that was never there is as gone as one that was.
            let _ = self.upstream_tls_certificate_not_after.remove_label_values(&[server, file.label()]);
        }
    }

    /// How many items of a governed server stand where. `state` is one of a fixed set.
    pub fn registry_items(&self, server: &str, state: &'static str, items: usize) {
        self.registry_items.with_label_values(&[server, state]).set(i64::try_from(items).unwrap_or(i64::MAX));
    }

    /// An item is not what was approved. `kind` and `cause` are each one of a fixed set.
    pub fn registry_drifted(&self, server: &str, kind: &'static str, cause: &'static str) {
        self.registry_drift.with_label_values(&[server, kind, cause]).inc();
    }

    /// An item that is not approved was called. `cause` is one of a fixed set.
    pub fn registry_call(&self, server: &str, cause: &'static str, passed: bool) {
        let result = if passed { "passed" } else { "refused" };
        self.registry_calls.with_label_values(&[server, cause, result]).inc();
    }

    /// The lists of a server were read. `outcome` is one of a fixed set.
    pub fn registry_read(&self, server: &str, outcome: &'static str) {
        self.registry_reads.with_label_values(&[server, outcome]).inc();
    }

    /// A list that passed was not looked at.
    pub fn registry_observations_dropped(&self) {
        self.registry_observations_dropped.inc();
    }

    /// Whether the store answers.
    pub fn registry_store_up(&self, up: bool) {
        self.registry_store_up.set(i64::from(up));
    }

    /// The counters of a route's budgets.
    #[must_use]
    pub fn budgets(&self, route: &str) -> BudgetMetrics {
        BudgetMetrics {
            allowed: self.budget_requests.with_label_values(&[route, "allowed"]),
            refused: self.budget_requests.with_label_values(&[route, "refused"]),
            refusals: self.budget_refusals.clone(),
        }
    }

    /// So many counts are kept, and so many more were dropped while they had an effect.
    pub fn budget_cells(&self, cells: usize, evicted: u64) {
        self.budget_cells.set(i64::try_from(cells).unwrap_or(i64::MAX));
        self.budget_evictions.inc_by(evicted);
    }

    /// Redis did not answer; `reason` is one of a fixed set.
    pub fn budget_store_fell_back(&self, reason: &'static str) {
        self.budget_store_fallbacks.with_label_values(&[reason]).inc();
    }

    /// So many principals, agents and tools are stopped.
    pub fn quarantines(&self, count: usize) {
        self.quarantines.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A rule about content did something `count` times. Route and rule are from the configuration, `action` is one of a
    /// fixed set.
    pub fn content_filtered(&self, route: &str, rule: &str, action: &'static str, count: u64) {
        self.content_filtered.with_label_values(&[route, rule, action]).inc_by(count);
    }

    /// Records written to one kind of sink.
    pub(super) fn audit_records(&self, sink: &'static str) -> IntCounter {
        self.audit_records.with_label_values(&[sink])
    }

    /// Places taken in the audit queue.
    pub(super) fn audit_queue_records(&self) -> &IntGauge {
        &self.audit_queue_records
    }

    /// All of it as it stands.
    #[must_use]
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// All of it in the Prometheus text format 0.0.4 ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            // Half a page would read as a whole one.
            tracing::error!(%error, "The metrics cannot be written.");
            out.clear();
        }
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Tools of one server that have counters of their own.
pub const TOOLS_MAX: usize = 512;

/// Types, and providers, of agents that have counters of their own.
pub const AGENT_NAMES_MAX: usize = 64;

const NAMESPACE: &str = "portcullis";

/// Seconds, from half a millisecond to a minute.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Seconds, from 25 microseconds to a second: the gateway's own work.
const BUCKETS_FINE: &[f64] =
    &[0.000_025, 0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

#[cfg(test)]
mod tests;
