//! How are the instances?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

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
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Answer<Json<Page<InstanceView>>> {
    let world = admin.live.take();
    let wanted = |name: &str| asked.server.as_deref().is_none_or(|wanted| wanted == name);
    let mut all = Vec::new();
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
                takes_new_work: instance.takes_new_work(),
            });
        }
    }
    let key = |instance: &InstanceView| format!("{}/{}", instance.server, instance.id);
    Page::within(all, asked.after.as_deref(), asked.limit, key).map(Json)
}
