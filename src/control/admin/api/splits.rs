//! How is a side of a split tried again that has closed by itself?

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::routing::router::SideState;

use super::super::Admin;
use super::super::access::Deed;
use super::super::problem::{Answer, Problem};
use super::input::Body;
use super::instances::SplitView;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reopen {
    server: String,
    rule: String,
    /// The side, as `GET /api/v1/instances` calls it.
    to: String,
    reason: String,
}

#[derive(Serialize)]
pub(super) struct Reopened {
    server: String,
    #[serde(flatten)]
    side: SplitView,
}

/// At this gateway: each decides for itself which sides have failed.
pub(super) async fn reopen(
    State(admin): State<Arc<Admin>>,
    Extension(deed): Extension<Deed>,
    Body(wish): Body<Reopen>,
) -> Answer<Json<Reopened>> {
    let Reopen { server, rule, to, reason } = wish;
    deed.target(format!("{to} of rule {rule} of server {server}"));
    deed.why(reason.as_str());
    if reason.trim().is_empty() {
        return Err(Problem::invalid("reason is blank"));
    }
    let found = admin.builder.reopen_split(&server, &rule, &to).await.ok_or_else(Problem::not_found)?;
    if !found.closed {
        return Err(Problem::new(StatusCode::CONFLICT, "conflict").detail("this side of the split is not closed"));
    }
    Ok(Json(Reopened { server, side: SideState { closed: false, ..found }.into() }))
}
