//! Who has sessions, and how are they ended?

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::identity::Principal;

use super::super::Admin;
use super::super::access::Deed;
use super::super::problem::{Answer, Problem};
use super::input::{Body, Page, Paging, Query};
use super::overview::Families;
use super::when;

#[derive(Serialize)]
pub(super) struct Sessions {
    /// Since the process began.
    opened: u64,
    closed: u64,
    lost: u64,
    refused: u64,
    streams_active: u64,
    #[serde(flatten)]
    principals: Page<PrincipalSeen>,
}

#[derive(Serialize)]
pub(super) struct PrincipalSeen {
    issuer: Arc<str>,
    subject: Arc<str>,
    first_seen: String,
    last_seen: String,
    requests: u64,
    refused: u64,
    /// Used within the time that a session may live, and not ended since.
    sessions: usize,
    /// When somebody ended all of them.
    revoked_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    issuer: String,
    subject: String,
    reason: String,
}

#[derive(Serialize)]
pub(super) struct Revoked {
    issuer: String,
    subject: String,
    revoked_at: String,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(paging): Query<Paging>) -> Answer<Json<Sessions>> {
    let families = Families::of(&admin.metrics);
    let event = |label: &str| families.sum("portcullis_sessions_total", &[("event", label)]);
    let ttl = admin.live.peek().config.session.ttl;
    let alive_since = admin.clock.now().minus(ttl).0.saturating_mul(1000);
    let seen = admin.recent.principals().into_iter().map(|((issuer, subject), seen)| {
        let principal = Principal { issuer: Arc::clone(&issuer), subject: Arc::clone(&subject) };
        let revoked = admin.live.revocations().of(&principal).map(|revoked| revoked.at);
        let counted_since = revoked.map_or(alive_since, |at| alive_since.max(at.0.saturating_add(1) * 1000));
        PrincipalSeen {
            issuer,
            subject,
            first_seen: when::millis(seen.first_ms),
            last_seen: when::millis(seen.last_ms),
            requests: seen.requests,
            refused: seen.refused,
            sessions: seen.sessions_since(counted_since),
            revoked_at: revoked.map(when::seconds),
        }
    });
    let key = |principal: &PrincipalSeen| format!("{} {}", principal.issuer, principal.subject);
    let principals = Page::within(seen.collect(), paging.after.as_deref(), paging.limit, key)?;
    Ok(Json(Sessions {
        opened: event("opened"),
        closed: event("closed"),
        lost: event("lost"),
        refused: event("refused"),
        streams_active: families.sum("portcullis_streams_active", &[]),
        principals,
    }))
}

pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    Extension(deed): Extension<Deed>,
    Body(wish): Body<Revoke>,
) -> Answer<Json<Revoked>> {
    let Revoke { issuer, subject, reason } = wish;
    deed.target(format!("{subject} of {issuer}"));
    deed.why(reason.as_str());
    if issuer.is_empty() || subject.is_empty() || issuer.len() + subject.len() > NAMES_BYTES_MAX {
        return Err(Problem::invalid("issuer and subject name nobody"));
    }
    if reason.trim().is_empty() {
        return Err(Problem::invalid("reason is blank"));
    }
    let principal = Principal { issuer: issuer.as_str().into(), subject: subject.as_str().into() };
    let now = admin.clock.now();
    let revoked = admin.live.revocations().revoke(&principal, now, Instant::now());
    revoked.map_err(|_full| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many").detail("admin.revocations bounds them")
    })?;
    Ok(Json(Revoked { issuer, subject, revoked_at: when::seconds(now) }))
}

const NAMES_BYTES_MAX: usize = 8 * 1024;
