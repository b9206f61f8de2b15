//! Who am I, and how do I leave?

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::json;

use super::super::Admin;
use super::super::access::{Operator, Proof, Role};
use super::super::problem::Answer;
use super::super::signin::{self, cookies};
use super::when;

#[derive(Serialize)]
pub(super) struct Me {
    issuer: Box<str>,
    subject: Box<str>,
    name: Option<Box<str>>,
    roles: Vec<Role>,
    /// What a page sends as `X-CSRF-Token` with every write; null with an access token, which needs none.
    csrf_token: Option<String>,
    expires_at: String,
}

pub(super) async fn show(Extension(operator): Extension<Operator>) -> Json<Me> {
    let (csrf_token, expires_at) = match &operator.proof {
        Proof::Session { csrf_token, expires_at, .. } => (Some(csrf_token.clone()), *expires_at),
        Proof::Token { expires_at } => (None, *expires_at),
    };
    let person = &operator.person;
    Json(Me {
        issuer: person.issuer.clone(),
        subject: person.subject.clone(),
        name: person.name.clone(),
        roles: operator.roles.clone(),
        csrf_token,
        expires_at: when::seconds(expires_at),
    })
}

pub(super) async fn sign_out(
    State(admin): State<Arc<Admin>>,
    Extension(operator): Extension<Operator>,
) -> Answer<Response> {
    let end_session = signin::end(&admin, &operator).await?;
    let mut answer = Json(json!({ "end_session": end_session.map(String::from) })).into_response();
    if let Some(cookie) = cookies::clear(cookies::SESSION) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    answer.headers_mut().insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(answer)
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
