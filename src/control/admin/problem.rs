//! How does the API say no? As RFC 9457 problems with words of a fixed set.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

/// A refusal. `type` is `urn:portcullis:problem:` and the word.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) word: &'static str,
    detail: Option<String>,
    members: Map<String, Value>,
}

/// What a handler gives.
pub(super) type Answer<T> = Result<T, Problem>;

impl Problem {
    /// Without words of its own but the title.
    pub(super) fn new(status: StatusCode, word: &'static str) -> Self {
        Self { status, word, detail: None, members: Map::new() }
    }

    /// Says more.
    #[must_use]
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a member (RFC 9457 §3.2).
    #[must_use]
    pub(super) fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// 400: the request cannot be read.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request").detail(detail)
    }

    /// 404.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found")
    }

    /// What every problem of this word is called.
    fn title(&self) -> &'static str {
        TITLES.iter().find(|(word, _)| *word == self.word).map_or("The request was refused", |(_, title)| *title)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:portcullis:problem:{}", self.word),
            "title": self.title(),
            "status": self.status.as_u16(),
        });
        if let Some(members) = body.as_object_mut() {
            if let Some(detail) = &self.detail {
                members.insert("detail".to_owned(), Value::from(detail.as_str()));
            }
            members.extend(self.members.clone());
        }
        let mut answer = (self.status, body.to_string()).into_response();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // For the audit record: what stands in the body is not read again.
        answer.extensions_mut().insert(Word(self.word));
        answer
    }
}

/// The word of the problem that an answer tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word(pub(super) &'static str);

/// Every word there is.
pub(super) const TITLES: [(&str, &str); 27] = [
    ("audit_unavailable", "Nothing can be recorded, so nothing is done"),
    ("busy", "Too much at once; try again"),
    ("conflict", "The state does not allow it"),
    ("csrf_token", "The request does not prove that it comes from the page"),
    ("foreign_host", "The host is not ours"),
    ("foreign_origin", "The request comes from a page that is not ours"),
    ("forbidden", "Your roles do not allow it"),
    ("invalid_config", "The configuration has problems"),
    ("invalid_request", "The request cannot be read"),
    ("issuer_refused", "The issuer did not sign you in"),
    ("issuer_unavailable", "The issuer cannot be asked"),
    ("method_not_allowed", "No such method here"),
    ("no_role", "You have no role here"),
    ("no_registry", "No store is configured, so there is no registry"),
    ("not_an_approver", "You may not do this"),
    ("not_found", "There is no such thing"),
    ("not_signed_in", "Sign in first"),
    ("precondition_failed", "It has changed since you looked at it"),
    ("precondition_required", "Say what you have looked at: If-Match is missing"),
    ("sign_in_expired", "The sign-in took too long; begin again"),
    ("sign_in_forged", "The answer is not to a sign-in that this browser began"),
    ("sign_in_replayed", "This sign-in was used before"),
    ("store_unavailable", "The store cannot be reached"),
    ("too_large", "The body is too large"),
    ("too_many", "There are as many as may be"),
    ("unsupported_media_type", "The body must be JSON"),
    ("invalid_token", "The token is not believed"),
];
