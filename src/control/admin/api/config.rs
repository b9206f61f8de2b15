//! What is configured, would this file do, and read it again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config;
use crate::control::reload::Reloaded;

use super::super::Admin;
use super::super::access::Deed;
use super::super::problem::{Answer, Problem};
use super::input::{Body, looked_at, tag};

#[derive(Serialize)]
struct View {
    generation: u64,
    /// As it was written, comments left out: sources of secrets, never secrets.
    document: Arc<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    yaml: String,
}

#[derive(Serialize)]
pub(super) struct ProblemView {
    path: String,
    line: usize,
    column: usize,
    message: String,
    hint: String,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Response {
    let world = admin.live.take();
    let view = View { generation: world.generation, document: Arc::clone(&world.config.document.0) };
    (tag(world.generation), Json(view)).into_response()
}

/// Checks a file that is not the one on disk. What it names is not looked at: whoever calls this must not have the gateway
/// read files for them.
pub(super) async fn check(Body(check): Body<Check>) -> Answer<Json<Value>> {
    let problems = tokio::task::spawn_blocking(move || config::read_shape(&check.yaml, &config::rule_issues)).await;
    let problems = problems.map_err(|_panicked| Problem::invalid("it cannot be read"))?.err().unwrap_or_default();
    Ok(Json(json!({ "ok": problems.is_empty(), "problems": problems_of(&problems) })))
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(deed): Extension<Deed>,
    headers: HeaderMap,
) -> Answer<Response> {
    let generation = admin.live.peek().generation;
    deed.target(format!("generation {generation}"));
    if looked_at(&headers)? != generation.to_string() {
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed"));
    }
    let reloaded = admin.reload.ask().await.ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy"))?;
    match reloaded {
        Reloaded::Applied(generation) => {
            Ok((tag(generation), Json(json!({ "generation": generation }))).into_response())
        }
        Reloaded::Refused(problems) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config")
            .member("problems", serde_json::to_value(problems_of(&problems)).unwrap_or_default())),
    }
}

pub(super) fn problems_of(problems: &[config::Problem]) -> Vec<ProblemView> {
    let view = |problem: &config::Problem| ProblemView {
        path: problem.path.clone(),
        line: problem.line,
        column: problem.column,
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    };
    problems.iter().take(PROBLEMS_MAX).map(view).collect()
}

const PROBLEMS_MAX: usize = 200;
