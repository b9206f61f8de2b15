//! Which software was seen?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;

use super::super::Admin;
use super::super::problem::Answer;
use super::input::{Page, Paging, Query};
use super::when;

#[derive(Serialize)]
pub(super) struct AgentSeen {
    id: Box<str>,
    first_seen: String,
    last_seen: String,
    requests: u64,
    refused: u64,
    /// As in its latest audit record.
    agent: Value,
    /// For whom it acted last.
    principal: Value,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(paging): Query<Paging>,
) -> Answer<Json<Page<AgentSeen>>> {
    let agents = admin.recent.agents().into_iter().map(|(id, seen)| {
        let mut record: Value = serde_json::from_str(&seen.latest.line()).unwrap_or_default();
        AgentSeen {
            id,
            first_seen: when::millis(seen.first_ms),
            last_seen: when::millis(seen.last_ms),
            requests: seen.requests,
            refused: seen.refused,
            agent: record.get_mut("agent").map(Value::take).unwrap_or_default(),
            principal: record.get_mut("principal").map(Value::take).unwrap_or_default(),
        }
    });
    let page = Page::within(agents.collect(), paging.after.as_deref(), paging.limit, |agent| agent.id.to_string());
    page.map(Json)
}
