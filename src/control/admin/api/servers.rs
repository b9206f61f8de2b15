//! Which servers and items are there, what is approved, and by whom? The registry, for people.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::control::governance::{
    Doing, Governance, GovernanceError, ItemDetail, ItemFilter, ItemView, PAGE_MAX, Page, Paged, Pending, ServerView,
    key_of,
};
use crate::mcp::ItemKind;
use crate::registry::approval::Actor;
use crate::registry::definition::{Digest, ItemKey};
use crate::registry::diff::Change;
use crate::registry::lifecycle::Action;
use crate::registry::record::{Act, ItemRecord};
use crate::store::Version;

use super::super::Admin;
use super::super::access::{Deed, Operator, Role};
use super::super::problem::{Answer, Problem};
use super::config::problems_of;
use super::input::{Body, Paging, Query, Text, looked_at, tag};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemsAsked {
    limit: Option<usize>,
    after: Option<String>,
    kind: Option<String>,
    state: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FromTo {
    from: Digest,
    to: Digest,
}

/// What somebody does to what they have looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    action: Action,
    /// Of what is approved; with `approve` only.
    digest: Option<Digest>,
    reason: String,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

#[derive(Serialize)]
pub(super) struct Versions {
    items: Vec<Version>,
}

#[derive(Serialize)]
pub(super) struct Difference {
    from: Digest,
    to: Digest,
    from_definition: Option<Box<RawValue>>,
    to_definition: Option<Box<RawValue>>,
    changes: Vec<Change>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(paging): Query<Paging>,
) -> Answer<Json<Paged<ServerView>>> {
    Ok(Json(admin.governance()?.servers(&paging.page()?)))
}

pub(super) async fn register(
    State(admin): State<Arc<Admin>>,
    Extension(operator): Extension<Operator>,
    Extension(deed): Extension<Deed>,
    Text(text): Text,
) -> Answer<Response> {
    let doing = operator.doing(None, reason_in(&text)?, &deed)?;
    let server = admin.governance()?.register(&text, doing).await?;
    deed.target(server.name.clone());
    let mut answer = (StatusCode::CREATED, tag(server.version), Json(&server)).into_response();
    // Names of servers hold nothing that a path could not.
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/servers/{}", server.name)) {
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Answer<Response> {
    let server = admin.governance()?.server(&name)?;
    Ok((tag(server.version), Json(server)).into_response())
}

pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    Extension(operator): Extension<Operator>,
    Extension(deed): Extension<Deed>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Text(text): Text,
) -> Answer<Response> {
    deed.target(name.as_str());
    let doing = operator.doing(Some(version_of(&headers)?), reason_in(&text)?, &deed)?;
    let server = admin.governance()?.put(&name, &text, doing).await?;
    Ok((tag(server.version), Json(server)).into_response())
}

pub(super) async fn act(
    State(admin): State<Arc<Admin>>,
    Extension(operator): Extension<Operator>,
    Extension(deed): Extension<Deed>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(wish): Body<Wish>,
) -> Answer<Response> {
    deed.target(name.as_str());
    let (governance, doing) = (admin.governance()?, wish.begin(&operator, &deed, &headers)?);
    let server = match wish.digest()? {
        Some(digest) => governance.approve_server(&name, digest, doing).await?,
        None => governance.act_on_server(&name, wish.action, doing).await?,
    };
    Ok((tag(server.version), Json(server)).into_response())
}

pub(super) async fn acts(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Answer<Json<Paged<Act>>> {
    Ok(Json(admin.governance()?.acts(&name, None, &paging.page()?).await?))
}

pub(super) async fn items(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(asked): Query<ItemsAsked>,
) -> Answer<Json<Paged<ItemView>>> {
    let ItemsAsked { limit, after, kind, state } = asked;
    let kind = kind.map(|kind| ItemKind::named(&kind).ok_or_else(|| Problem::invalid("no such kind"))).transpose()?;
    if state.as_deref().is_some_and(|state| !ItemRecord::STANDINGS.contains(&state)) {
        return Err(Problem::invalid(format!("state is one of {}", ItemRecord::STANDINGS.join(", "))));
    }
    let filter = ItemFilter { kind, standing: state };
    Ok(Json(admin.governance()?.items(&name, &filter, &Paging { limit, after }.page()?)?))
}

pub(super) async fn item(
    State(admin): State<Arc<Admin>>,
    Path((name, kind, id)): Path<(String, String, String)>,
) -> Answer<Response> {
    let detail = admin.governance()?.item(&name, &key(&kind, &id)?).await?;
    Ok((tag(detail.item.version), Json(detail)).into_response())
}

pub(super) async fn act_on_item(
    State(admin): State<Arc<Admin>>,
    Extension(operator): Extension<Operator>,
    Extension(deed): Extension<Deed>,
    Path((name, kind, id)): Path<(String, String, String)>,
    headers: HeaderMap,
    Body(wish): Body<Wish>,
) -> Answer<Response> {
    let key = key(&kind, &id)?;
    deed.target(format!("{name}: {} {}", key.kind.label(), key.name));
    let (governance, doing) = (admin.governance()?, wish.begin(&operator, &deed, &headers)?);
    let detail: ItemDetail = match wish.digest()? {
        Some(digest) => governance.approve_item(&name, &key, digest, doing).await?,
        None => governance.act_on_item(&name, &key, wish.action, doing).await?,
    };
    Ok((tag(detail.item.version), Json(detail)).into_response())
}

pub(super) async fn item_acts(
    State(admin): State<Arc<Admin>>,
    Path((name, kind, id)): Path<(String, String, String)>,
    Query(paging): Query<Paging>,
) -> Answer<Json<Paged<Act>>> {
    Ok(Json(admin.governance()?.acts(&name, Some(&key(&kind, &id)?), &paging.page()?).await?))
}

pub(super) async fn versions(
    State(admin): State<Arc<Admin>>,
    Path((name, kind, id)): Path<(String, String, String)>,
) -> Answer<Json<Versions>> {
    Ok(Json(Versions { items: admin.governance()?.versions(&name, &key(&kind, &id)?).await? }))
}

pub(super) async fn diff(
    State(admin): State<Arc<Admin>>,
    Path((name, kind, id)): Path<(String, String, String)>,
    Query(FromTo { from, to }): Query<FromTo>,
) -> Answer<Json<Difference>> {
    let (governance, key) = (admin.governance()?, key(&kind, &id)?);
    let raw = |text: String| RawValue::from_string(text).ok();
    let from_definition = raw(governance.definition(&name, &key, from).await?);
    let to_definition = raw(governance.definition(&name, &key, to).await?);
    let changes = governance.diff(&name, &key, from, to).await?;
    Ok(Json(Difference { from, to, from_definition, to_definition, changes }))
}

pub(super) async fn approvals(
    State(admin): State<Arc<Admin>>,
    Query(paging): Query<Paging>,
) -> Answer<Json<Paged<Pending>>> {
    Ok(Json(admin.governance()?.approvals(&paging.page()?).await?))
}

impl Admin {
    /// The registry.
    fn governance(&self) -> Answer<&Governance> {
        self.governance.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_registry"))
    }
}

impl Paging {
    fn page(self) -> Answer<Page> {
        let Self { limit, after } = self;
        if limit.is_some_and(|limit| !(1..=PAGE_MAX).contains(&limit)) {
            return Err(Problem::invalid(format!("limit is from 1 to {PAGE_MAX}")));
        }
        Ok(Page { after, limit })
    }
}

impl Wish {
    /// Whether this person may do so, and on what they have looked at.
    fn begin(&self, operator: &Operator, deed: &Deed, headers: &HeaderMap) -> Answer<Doing> {
        let (word, roles): (&str, &[Role]) = match self.action {
            Action::Approve => ("approve", &[Role::Approver]),
            Action::Resume => ("resume", &[Role::Approver]),
            // Taking something out of use must not wait for anybody.
            Action::Suspend => ("suspend", &[Role::Admin, Role::Approver]),
            Action::Retire => ("retire", &[Role::Admin]),
            Action::Register => return Err(Problem::invalid("action is approve, suspend, resume or retire")),
        };
        deed.action(word);
        deed.why(self.reason.as_str());
        if !operator.roles.iter().any(|role| roles.contains(role)) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden").detail(format!("your roles cannot {word}")));
        }
        operator.doing(Some(version_of(headers)?), self.reason.clone(), deed)
    }

    /// What is approved; none with another action.
    fn digest(&self) -> Answer<Option<Digest>> {
        match (self.action, self.digest) {
            (Action::Approve, Some(digest)) => Ok(Some(digest)),
            (Action::Approve, None) => Err(Problem::invalid("digest says what was looked at; it is missing")),
            (_, None) => Ok(None),
            (_, Some(_)) => Err(Problem::invalid("digest goes with approve only")),
        }
    }
}

impl Operator {
    fn doing(&self, version: Option<u64>, reason: String, deed: &Deed) -> Answer<Doing> {
        if reason.trim().is_empty() {
            return Err(Problem::invalid("reason is missing or blank"));
        }
        deed.why(reason.as_str());
        let actor = Actor {
            issuer: self.person.issuer.clone(),
            subject: self.person.subject.clone(),
            name: self.person.name.clone(),
            groups: self.person.approval_groups.clone(),
        };
        Ok(Doing { actor, version, reason })
    }
}

impl From<GovernanceError> for Problem {
    fn from(error: GovernanceError) -> Self {
        match error {
            GovernanceError::Conflict(why) => Self::new(StatusCode::CONFLICT, "conflict").detail(why),
            GovernanceError::Forbidden(why) => Self::new(StatusCode::FORBIDDEN, "not_an_approver").detail(why),
            GovernanceError::Invalid(problems) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config")
                .member("problems", json!(problems_of(&problems))),
            GovernanceError::NotFound => Self::not_found(),
            GovernanceError::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            GovernanceError::StoreAway => Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        }
    }
}

/// The version that somebody has looked at. What is no version of ours is not the one in force.
fn version_of(headers: &HeaderMap) -> Answer<u64> {
    let version = looked_at(headers)?.parse();
    version.map_err(|_other| Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed"))
}

fn key(kind: &str, id: &str) -> Answer<ItemKey> {
    key_of(kind, id).ok_or_else(Problem::not_found)
}

fn reason_in(text: &str) -> Answer<String> {
    serde_json::from_str::<Reason>(text).map(|found| found.reason).map_err(|error| Problem::invalid(error.to_string()))
}
