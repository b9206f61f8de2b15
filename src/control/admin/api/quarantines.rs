//! Who and what is stopped, and how is it let go?

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::control::quarantine::{Done, Operator as By, QuarantineError, Wish};
use crate::policy::quarantine::{Quarantine, Stopped};

use super::super::Admin;
use super::super::access::{Deed, Operator};
use super::super::problem::{Answer, Problem};
use super::input::{Body, Page, Paging, Query};
use super::when;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    stopped: Stopped,
    for_seconds: Option<u64>,
    reason: String,
}

#[derive(Serialize)]
pub(super) struct Shown {
    id: Box<str>,
    stopped: Stopped,
    since: String,
    /// Null: until it is lifted.
    until: Option<String>,
    reason: Box<str>,
    by: Box<str>,
}

#[derive(Serialize)]
pub(super) struct Changed {
    #[serde(flatten)]
    quarantine: Shown,
    /// Whether it outlives the gateway that was asked.
    is_kept: bool,
}

impl From<Quarantine> for Shown {
    fn from(quarantine: Quarantine) -> Self {
        let Quarantine { id, stopped, since, until, why, by } = quarantine;
        Self { id, stopped, since: when::seconds(since), until: until.map(when::seconds), reason: why, by }
    }
}

impl From<Done> for Changed {
    fn from(done: Done) -> Self {
        Self { quarantine: done.quarantine.into(), is_kept: done.is_kept }
    }
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(paging): Query<Paging>) -> Answer<Json<Page<Shown>>> {
    let all = admin.quarantines.list().into_iter().map(Shown::from).collect();
    let page = Page::within(all, paging.after.as_deref(), paging.limit, |shown: &Shown| shown.id.to_string())?;
    Ok(Json(page))
}

pub(super) async fn stop(
    State(admin): State<Arc<Admin>>,
    Extension(deed): Extension<Deed>,
    Extension(operator): Extension<Operator>,
    Body(wish): Body<Stop>,
) -> Answer<Json<Changed>> {
    let Stop { stopped, for_seconds, reason } = wish;
    deed.target(stopped.to_string());
    deed.why(reason.as_str());
    if reason.trim().is_empty() {
        return Err(Problem::invalid("reason is blank"));
    }
    let wish = Wish { stopped, for_seconds, why: reason };
    let done = admin.quarantines.stop(wish, by(&operator, "POST /api/v1/quarantines")).await.map_err(problem)?;
    Ok(Json(done.into()))
}

pub(super) async fn lift(
    State(admin): State<Arc<Admin>>,
    Extension(deed): Extension<Deed>,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
) -> Answer<Json<Changed>> {
    let lifted =
        admin.quarantines.lift(&id, by(&operator, "DELETE /api/v1/quarantines/{id}")).await.map_err(problem)?;
    deed.target(lifted.quarantine.stopped.to_string());
    Ok(Json(lifted.into()))
}

fn by(operator: &Operator, call: &'static str) -> By {
    let name = format!("{} of {}", operator.principal.subject, operator.principal.issuer).into();
    By { name, principal: Some(operator.audit_principal()), call }
}

fn problem(error: QuarantineError) -> Problem {
    match error {
        QuarantineError::Full => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many").detail("limits.quarantines bounds them")
        }
        QuarantineError::Implausible => Problem::invalid(error.to_string()),
        QuarantineError::NotFound => Problem::not_found(),
    }
}
