//! What happened, and what is happening?

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior};

use crate::telemetry::recent::{Filter, Recorded};

use super::super::Admin;
use super::super::access::{Access, Operator, Proof, roles_of};
use super::super::problem::{Answer, Problem};
use super::input::{Page, Query, limit_of};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    after: Option<u64>,
    request_id: Option<String>,
    principal: Option<String>,
    tool: Option<String>,
    outcome: Option<String>,
    event: Option<String>,
    server: Option<String>,
    reason: Option<String>,
    agent: Option<String>,
}

/// One line of the audit log, as it stands there.
#[derive(serde::Serialize)]
#[serde(transparent)]
pub(super) struct Line {
    line: Box<RawValue>,
    #[serde(skip)]
    seq: u64,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(asked): Query<Asked>) -> Answer<Json<Page<Line>>> {
    let limit = limit_of(asked.limit)?;
    let after = asked.after;
    let found = admin.recent.find(&asked.filter(), after, limit + 1);
    let lines = found.iter().filter_map(|record| Some(Line { line: raw(record)?, seq: record.seq })).collect();
    Ok(Json(Page::of(lines, limit, |line| line.seq.to_string())))
}

/// Records as they come, as server-sent events (HTML Living Standard §9.2): `id` is the number of the record, so that a
/// browser that comes back goes on where it was.
pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    Extension(operator): Extension<Operator>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Answer<Response> {
    let place = admin.stream_place().ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy"))?;
    let filter = asked.filter();
    // Listening begins before looking back, so that nothing falls between; what comes twice has the same number.
    let news = admin.recent.listen();
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let mut backlog = VecDeque::new();
    if let Some(last_id) = last_id {
        let missed = admin.recent.find(&filter, None, BACKLOG_MAX);
        backlog.extend(missed.into_iter().rev().filter(|record| record.seq > last_id));
    }
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let tail = Tail { sent: last_id.unwrap_or(0), admin, operator, filter, news, backlog, ticks, _place: place };
    let events = stream::unfold(tail, |mut tail| async move { Some((tail.next().await?, tail)) });
    let answer = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(answer.into_response())
}

struct Tail {
    admin: Arc<Admin>,
    operator: Operator,
    filter: Filter,
    news: Receiver<Arc<Recorded>>,
    backlog: VecDeque<Arc<Recorded>>,
    /// The number of the last record that was sent.
    sent: u64,
    ticks: Interval,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Tail {
    /// The next event; `None` when the stream ends: with the session, with the role, with the process.
    async fn next(&mut self) -> Option<Result<Event, Infallible>> {
        loop {
            if let Some(record) = self.backlog.pop_front() {
                self.sent = self.sent.max(record.seq);
                return Some(Ok(event_of(&record)));
            }
            tokio::select! {
                _ = self.ticks.tick() => {
                    if !self.may_go_on().await {
                        return None;
                    }
                }
                heard = self.news.recv() => match heard {
                    Ok(record) if record.seq > self.sent && self.filter.admits(&record.about) => {
                        self.sent = record.seq;
                        return Some(Ok(event_of(&record)));
                    }
                    Ok(_other) => {}
                    Err(RecvError::Lagged(missed)) => {
                        let gap = json!({ "missed": missed }).to_string();
                        return Some(Ok(Event::default().event("gap").data(gap)));
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    async fn may_go_on(&self) -> bool {
        if self.admin.lifecycle.is_draining() {
            return false;
        }
        let Some(settings) = self.admin.settings() else { return false };
        let Some(sign_in) = &settings.sign_in else { return false };
        if !Access::Audit.is_open_to(&roles_of(&sign_in.roles, &self.operator.person.groups)) {
            return false;
        }
        let now = self.admin.clock.now();
        match &self.operator.proof {
            Proof::Token { expires_at } => *expires_at > now,
            Proof::Session { id, .. } => {
                let row = self.admin.sessions.find(*id, now).await;
                let revocations = self.admin.live.revocations();
                row.is_ok_and(|row| row.is_some_and(|row| !revocations.ended(&self.operator.principal, row.created)))
            }
        }
    }
}

impl Asked {
    fn filter(self) -> Filter {
        let Self { request_id, principal, tool, outcome, event, server, reason, agent, .. } = self;
        Filter { request_id, principal, tool, outcome, event, server, reason, agent }
    }
}

fn raw(record: &Recorded) -> Option<Box<RawValue>> {
    RawValue::from_string(record.line()).ok()
}

fn event_of(record: &Recorded) -> Event {
    Event::default().event("record").id(record.seq.to_string()).data(record.line())
}

/// Records that somebody who comes back is given of what they missed.
const BACKLOG_MAX: usize = 1000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How soon a stream ends after the session it belongs to.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
