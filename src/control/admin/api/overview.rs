//! How is it going? The numbers behind the charts, from the same registry as `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use crate::telemetry::metrics::Metrics;

use super::super::Admin;
use super::super::health::Status;
use super::when;

/// Counted since the process began; a page draws the differences.
#[derive(Serialize)]
pub(super) struct Overview {
    at: String,
    uptime_seconds: u64,
    config_generation: u64,
    ready: bool,
    /// By outcome.
    requests: BTreeMap<String, u64>,
    routes: Vec<RouteView>,
    /// Of whole requests.
    latency: Histogram,
    /// The gateway's own part.
    gateway_latency: Histogram,
    /// Refusals of the policy, by reason.
    denials: BTreeMap<String, u64>,
    /// Tokens judged, by result.
    authentications: BTreeMap<String, u64>,
    /// Token exchanges, by outcome.
    exchanges: BTreeMap<String, u64>,
    exchange_latency: Histogram,
    tools: Vec<ToolView>,
    sessions: BTreeMap<String, u64>,
    streams_active: u64,
    instances: Vec<InstanceHealth>,
    audit_queue_records: u64,
    /// By cache and result.
    caches: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Serialize)]
struct RouteView {
    route: String,
    requests: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct ToolView {
    server: String,
    tool: String,
    calls: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct InstanceHealth {
    server: String,
    instance: String,
    healthy: bool,
}

/// The counters that charts are drawn of, at one moment.
#[derive(Debug, Default, Serialize)]
pub(in super::super) struct Sample {
    at: String,
    pub(in super::super) uptime_seconds: u64,
    requests: BTreeMap<String, u64>,
    latency: Histogram,
    gateway_latency: Histogram,
    denials: BTreeMap<String, u64>,
    exchanges: BTreeMap<String, u64>,
}

#[derive(Serialize)]
pub(super) struct Samples {
    /// The oldest first.
    items: Vec<Arc<Sample>>,
}

#[derive(Debug, Default, Serialize)]
struct Histogram {
    /// Seconds, and how many took at most so long.
    buckets: Vec<Bucket>,
    count: u64,
    sum_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Bucket {
    le: f64,
    count: u64,
}

/// Every metric as it stands.
pub(super) struct Families(Vec<MetricFamily>);

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Overview> {
    let families = Families::of(&admin.metrics);
    let world = admin.live.take();
    let Sample { at, uptime_seconds, requests, latency, gateway_latency, denials, exchanges } =
        Sample::from(&families, admin.started);
    let mut instances: Vec<InstanceHealth> = Vec::new();
    for server in &world.servers {
        instances.extend(server.pool.instances().iter().map(|instance| InstanceHealth {
            server: server.name().to_string(),
            instance: instance.id.to_string(),
            healthy: instance.is_healthy(),
        }));
    }
    let mut caches = BTreeMap::new();
    for metric in families.metrics("portcullis_token_cache_total") {
        let results: &mut BTreeMap<String, u64> = caches.entry(label(metric, "cache")).or_default();
        results.insert(label(metric, "result"), value(metric));
    }
    Json(Overview {
        at,
        uptime_seconds,
        config_generation: world.generation,
        ready: Status::of(&admin).ready,
        requests,
        routes: families
            .values("portcullis_requests_total", "route")
            .into_iter()
            .map(|route| RouteView {
                requests: families.by("portcullis_requests_total", "outcome", &[("route", &route)]),
                route,
            })
            .collect(),
        latency,
        gateway_latency,
        denials,
        authentications: families.by("portcullis_authentications_total", "result", &[]),
        exchanges,
        exchange_latency: families.histogram("portcullis_token_exchange_duration_seconds"),
        tools: families.tools(),
        sessions: families.by("portcullis_sessions_total", "event", &[]),
        streams_active: families.sum("portcullis_streams_active", &[]),
        instances,
        audit_queue_records: families.sum("portcullis_audit_queue_records", &[]),
        caches,
    })
}

/// What the charts show of the time before the page was opened.
pub(super) async fn history(State(admin): State<Arc<Admin>>) -> Json<Samples> {
    Json(Samples { items: admin.history.samples() })
}

impl Sample {
    /// Of this very moment.
    pub(in super::super) fn of(admin: &Admin) -> Self {
        Self::from(&Families::of(&admin.metrics), admin.started)
    }

    #[cfg(test)]
    pub(in super::super) fn after(uptime_seconds: u64) -> Self {
        Self { uptime_seconds, ..Self::default() }
    }

    fn from(families: &Families, started: Instant) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Self {
            at: when::millis(u64::try_from(now).unwrap_or_default()),
            uptime_seconds: started.elapsed().as_secs(),
            requests: families.by("portcullis_requests_total", "outcome", &[]),
            latency: families.histogram("portcullis_request_duration_seconds"),
            gateway_latency: families.histogram("portcullis_gateway_duration_seconds"),
            denials: families.by("portcullis_authorizations_total", "reason", &[("decision", "deny")]),
            exchanges: families.by("portcullis_token_exchanges_total", "outcome", &[]),
        }
    }
}

impl Families {
    pub(super) fn of(metrics: &Metrics) -> Self {
        Self(metrics.gather())
    }

    fn metrics(&self, name: &str) -> &[Metric] {
        self.0.iter().find(|family| family.name() == name).map_or(&[], MetricFamily::get_metric)
    }

    /// All of them with these labels, added up.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.metrics(name).iter().filter(|metric| has(metric, labels)).map(value).sum()
    }

    /// Added up for each value of one label.
    fn by(&self, name: &str, key: &str, labels: &[(&str, &str)]) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for metric in self.metrics(name).iter().filter(|metric| has(metric, labels)) {
            *sums.entry(label(metric, key)).or_default() += value(metric);
        }
        sums
    }

    fn values(&self, name: &str, key: &str) -> Vec<String> {
        let mut values: Vec<String> = self.metrics(name).iter().map(|metric| label(metric, key)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn tools(&self) -> Vec<ToolView> {
        let mut tools: BTreeMap<(String, String), BTreeMap<String, u64>> = BTreeMap::new();
        for metric in self.metrics("portcullis_tool_calls_total") {
            let calls = tools.entry((label(metric, "server"), label(metric, "tool"))).or_default();
            *calls.entry(label(metric, "outcome")).or_default() += value(metric);
        }
        let mut tools: Vec<ToolView> =
            tools.into_iter().map(|((server, tool), calls)| ToolView { server, tool, calls }).collect();
        tools.sort_by_key(|tool| std::cmp::Reverse(tool.calls.values().sum::<u64>()));
        tools.truncate(TOOLS_MAX);
        tools
    }

    fn histogram(&self, name: &str) -> Histogram {
        let mut sum = Histogram::default();
        for metric in self.metrics(name) {
            let histogram = metric.get_histogram();
            sum.count += histogram.get_sample_count();
            sum.sum_seconds += histogram.get_sample_sum();
            for bucket in histogram.get_bucket() {
                // The last one holds everything, and JSON has no infinity.
                let le = bucket.upper_bound();
                if !le.is_finite() {
                    continue;
                }
                match sum.buckets.iter_mut().find(|known| known.le.total_cmp(&le).is_eq()) {
                    Some(known) => known.count += bucket.cumulative_count(),
                    None => sum.buckets.push(Bucket { le, count: bucket.cumulative_count() }),
                }
            }
        }
        sum
    }
}

fn has(metric: &Metric, labels: &[(&str, &str)]) -> bool {
    labels
        .iter()
        .all(|(name, value)| metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value))
}

fn label(metric: &Metric, name: &str) -> String {
    metric.get_label().iter().find(|label| label.name() == name).map_or_else(String::new, |label| label.value().into())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and not negative")]
fn value(metric: &Metric) -> u64 {
    let counter = metric.get_counter().get_value();
    if counter > 0.0 { counter as u64 } else { metric.get_gauge().get_value().max(0.0) as u64 }
}

/// Tools on the page, those with the most calls first.
const TOOLS_MAX: usize = 50;
