//! How are the instances?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::registry::Server;
use crate::routing::Instance;
use crate::routing::breaker::Circuit;
use crate::routing::router::SideState;

use super::super::Admin;
use super::super::problem::Answer;
use super::input::{Page, Query};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    after: Option<String>,
    server: Option<String>,
}

#[derive(Serialize)]
pub(super) struct InstanceView {
    server: Arc<str>,
    id: Arc<str>,
    url: String,
    weight: usize,
    /// Whether its health checks succeed.
    healthy: bool,
    /// Whether it is given new work.
    takes_new_work: bool,
    version: Option<Arc<str>>,
    region: Option<Arc<str>>,
    labels: BTreeMap<Box<str>, Box<str>>,
    /// Whether it is left alone, because it fails or is slow: a word of a fixed set; none when nobody looks.
    circuit: Option<&'static str>,
    /// The sides of splits that it is on.
    splits: Vec<SplitView>,
}

/// A side of a split.
#[derive(Serialize)]
pub(super) struct SplitView {
    rule: Arc<str>,
    to: Arc<str>,
    weight: u32,
    /// Too many requests have failed there: it gets no more, until it is opened again or the configuration is read again.
    closed: bool,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Answer<Json<Page<InstanceView>>> {
    let world = admin.live.take();
    let wanted = |name: &str| asked.server.as_deref().is_none_or(|wanted| wanted == name);
    let mut all = Vec::new();
    let now = Instant::now();
    for server in world.servers.iter().filter(|server| wanted(server.name())) {
        for instance in server.pool.instances() {
            let config = server.config.instances.iter().find(|config| config.id == instance.id);
            let scheme = if config.is_some_and(|config| config.tls) { "https" } else { "http" };
            all.push(InstanceView {
                server: Arc::clone(server.name()),
                id: Arc::clone(&instance.id),
                url: config.map_or_else(String::new, |config| format!("{scheme}://{}:{}", config.host, config.port)),
                weight: config.map_or(1, |config| config.weight),
                healthy: instance.is_healthy(),
                takes_new_work: instance.takes_new_work(now),
                version: instance.traits.version.clone(),
                region: instance.traits.region.clone(),
                labels: instance.traits.labels.clone(),
                circuit: instance.circuit(now).map(Circuit::label),
                splits: splits_of(server, instance),
            });
        }
    }
    let key = |instance: &InstanceView| format!("{}/{}", instance.server, instance.id);
    Page::within(all, asked.after.as_deref(), asked.limit, key).map(Json)
}

fn splits_of(server: &Server, instance: &Arc<Instance>) -> Vec<SplitView> {
    let sides = server.router.as_ref().map(|router| router.splits_of(instance)).unwrap_or_default();
    sides.into_iter().map(SplitView::from).collect()
}

impl From<SideState> for SplitView {
    fn from(SideState { rule, to, weight, closed }: SideState) -> Self {
        Self { rule, to, weight, closed }
    }
}
