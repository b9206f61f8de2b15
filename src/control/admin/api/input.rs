//! What does a call bring? Bodies, queries, what somebody has looked at, and pages of lists, read strictly.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::Admin;
use super::super::problem::{Answer, Problem};

/// A JSON body. Unknown and repeated members are refused, as is everything over `admin.body_bytes`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Admin>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let body = json_bytes(request, admin).await?;
        serde_json::from_slice(&body).map(Body).map_err(|error| Problem::invalid(error.to_string()))
    }
}

/// A JSON body as it came, for whoever reads it themselves.
pub(super) struct Text(pub(super) String);

impl FromRequest<Arc<Admin>> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let body = json_bytes(request, admin).await?;
        String::from_utf8(body.into()).map(Text).map_err(|_error| Problem::invalid("the body is not UTF-8"))
    }
}

async fn json_bytes(request: Request, admin: &Admin) -> Result<Bytes, Problem> {
    let essence = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    let essence = essence.and_then(|value| value.split(|byte| *byte == b';').next()).unwrap_or_default();
    if !essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"));
    }
    let bytes_max = admin.settings().map_or(0, |settings| settings.body_bytes);
    let body = axum::body::to_bytes(request.into_body(), bytes_max).await;
    body.map_err(|_too_long| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large"))
}

/// The parameters of a query.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Admin>> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, admin).await;
        query.map(|query| Query(query.0)).map_err(|refused| Problem::invalid(refused.body_text()))
    }
}

/// Which page of a list is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    /// At most so many items.
    pub(super) limit: Option<usize>,
    /// What the page before gave as `next`.
    pub(super) after: Option<String>,
}

/// One page of a list.
#[derive(Serialize)]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// What to give as `after` for the next page; null on the last one.
    next: Option<String>,
}

impl<T> Page<T> {
    /// `found` holds one more than fits on a page when there is a next one; `key` names an item in `after`.
    pub(super) fn of(mut found: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> Self {
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_last| has_more).map(key);
        Self { items: found, next }
    }

    /// Of everything there is, in order: the page after the item that `after` names.
    pub(super) fn within(
        all: Vec<T>,
        after: Option<&str>,
        limit: Option<usize>,
        key: impl Fn(&T) -> String,
    ) -> Answer<Self> {
        let limit = limit_of(limit)?;
        let from = match after {
            None => 0,
            // What is gone meanwhile was the last of its page: its list begins again.
            Some(after) => all.iter().position(|item| key(item) == after).map_or(0, |at| at + 1),
        };
        Ok(Self::of(all.into_iter().skip(from).take(limit + 1).collect(), limit, key))
    }
}

/// How many items somebody wants.
pub(super) fn limit_of(limit: Option<usize>) -> Answer<usize> {
    let limit = limit.unwrap_or(LIMIT_USUAL);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid(format!("limit is from 1 to {LIMIT_MAX}")))
}

/// The version that somebody has looked at (RFC 9110 §13.1.1): one strong tag.
pub(super) fn looked_at(headers: &HeaderMap) -> Answer<String> {
    let mut tags = headers.get_all(IF_MATCH).iter();
    let required = || Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required");
    let (Some(tag), None) = (tags.next(), tags.next()) else { return Err(required()) };
    let tag = tag.to_str().ok().map(str::trim);
    let tag = tag.and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')).filter(|tag| !tag.contains(['"', ',']));
    // `*` and weak tags say nothing of what was looked at.
    tag.map(str::to_owned).ok_or_else(required)
}

/// The tag of a version.
pub(super) fn tag(version: impl std::fmt::Display) -> [(http::HeaderName, HeaderValue); 1] {
    let tag = HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    [(ETAG, tag)]
}

const LIMIT_USUAL: usize = 100;
const LIMIT_MAX: usize = 1000;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn only_one_strong_tag_says_what_was_looked_at() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_MATCH, HeaderValue::from_static(value));
            }
            headers
        };
        assert_eq!(looked_at(&headers(&["\"7\""])).unwrap(), "7");
        for values in [&[][..], &["*"], &["W/\"7\""], &["\"7\", \"8\""], &["7"], &["\"7\"", "\"7\""], &["\""]] {
            let refused = looked_at(&headers(values)).unwrap_err();
            assert_eq!(refused.status, StatusCode::PRECONDITION_REQUIRED, "{values:?}");
        }
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all = || (1..=5).collect::<Vec<u32>>();
        let page = |after: Option<&str>| Page::within(all(), after, Some(2), u32::to_string).unwrap();
        let (first, last) = (page(None), page(Some("4")));
        assert_eq!((first.items, first.next.as_deref()), (vec![1, 2], Some("2")));
        assert_eq!((last.items, last.next), (vec![5], None));
        assert!(Page::within(all(), None, Some(0), u32::to_string).is_err());
        assert!(Page::within(all(), None, Some(LIMIT_MAX + 1), u32::to_string).is_err());
    }
}
