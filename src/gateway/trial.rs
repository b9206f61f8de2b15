//! What does a request say of whoever answered it? Its instance's circuit hears it, and the side of the split it was on.

use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use tracing::{info, warn};

use crate::audit::{self, Event, EventKind, Outcome};
use crate::config::OnFull;
use crate::registry::Route;
use crate::routing::breaker::{Turned, Verdict};
use crate::routing::instance::Turn;
use crate::routing::router::{Path, SideState};
use crate::routing::rule::AbortWhen;

use super::Shell;
use super::rejection::Rejection;

/// One request, as somebody judges its server by it.
pub(super) struct Trial {
    turn: Option<Turn>,
    /// The way it went, when somebody looks at how such requests end.
    watched: Option<(Path, AbortWhen)>,
    sent_at: Option<Instant>,
    /// Whether it failed; none as long as nothing is known.
    failed: Option<bool>,
}

impl Trial {
    /// Of a request that was let in as `turn` and went along `path`.
    pub(super) fn new(route: &Route, turn: Option<Turn>, path: Option<Path>) -> Self {
        let watched = route.server.router.as_ref().zip(path);
        let watched = watched.and_then(|(router, path)| Some((path, router.watches(path)?)));
        Self { turn, watched, sent_at: None, failed: None }
    }

    /// Whether nobody looks.
    fn is_idle(&self) -> bool {
        self.turn.is_none() && self.watched.is_none()
    }

    /// The request is sent.
    pub(super) fn sent(&mut self) {
        if self.turn.is_some() {
            self.sent_at = Some(Instant::now());
        }
    }

    /// The head of an answer has come that can be passed on.
    pub(super) fn answered(&mut self, shell: &Shell, route: &Route) {
        if self.is_idle() {
            return;
        }
        self.failed.get_or_insert(false);
        let now = Instant::now();
        let took = self.sent_at.map(|sent_at| now.saturating_duration_since(sent_at)).unwrap_or_default();
        self.judge(shell, route, Verdict::Succeeded { took }, now);
    }

    /// The request could not be sent, or its answer not be passed on.
    pub(super) fn refused(&mut self, shell: &Shell, route: &Route, rejection: &Rejection) {
        if self.is_idle() || !is_servers_fault(rejection) {
            return;
        }
        self.failed = Some(true);
        self.judge(shell, route, Verdict::Failed, Instant::now());
    }

    /// A piece of the answer passes, whole messages of it.
    pub(super) fn look_at(&mut self, passed: &Bytes) {
        let Some((_path, when)) = self.watched else { return };
        if tells_of_failure(passed, when.tool_errors) {
            self.failed = Some(true);
        }
    }

    /// It is over. Says so, if a side of a split closes with it.
    pub(super) fn end(&mut self, shell: &Shell, route: &Route, generation: u64) {
        let (Some((path, _)), Some(failed)) = (self.watched.take(), self.failed) else { return };
        let Some(router) = &route.server.router else { return };
        if let Some(side) = router.ended(path, failed, Instant::now()) {
            split_aborted(shell, route, &side, generation);
        }
    }

    fn judge(&mut self, shell: &Shell, route: &Route, verdict: Verdict, now: Instant) {
        let Some(turn) = &mut self.turn else { return };
        let (server, instance) = (route.server.name(), turn.instance().id.clone());
        let Some(turned) = turn.end(verdict, now) else { return };
        let (event, cause) = match turned {
            Turned::Closed => {
                shell.metrics.routing.circuit_closed(server, &instance);
                info!(%server, %instance, "The instance works again and takes work.");
                (EventKind::RoutingCircuitClosed, None)
            }
            Turned::Opened(cause) => {
                shell.metrics.routing.circuit_opened(server, &instance, cause.label());
                warn!(%server, %instance, cause = cause.label(), "The instance is left alone for a while.");
                (EventKind::RoutingCircuitOpened, Some(cause.label()))
            }
        };
        // It is about the instance, so neither the route nor the request says anything that happened to end then.
        let event = Event {
            event,
            server: Some(server.clone()),
            instance: Some(instance),
            outcome: Outcome::Ok,
            reason: cause,
            config_generation: shell.live.peek().generation,
            ..Event::default()
        };
        tell(shell, event);
    }
}

/// Whether it says something of the server: not when the client went away, or the gateway had reasons of its own.
fn is_servers_fault(rejection: &Rejection) -> bool {
    matches!(rejection, Rejection::UpstreamProtocol | Rejection::UpstreamTimeout | Rejection::UpstreamUnreachable)
}

fn split_aborted(shell: &Shell, route: &Route, side: &SideState, generation: u64) {
    let server = route.server.name();
    shell.metrics.routing.split_aborted(server, &side.rule, &side.to);
    shell.metrics.routing.split_closed(server, &side.rule, &side.to, true);
    warn!(%server, rule = %side.rule, to = %side.to, "Too many requests failed: this side of the split gets no more.");
    let event = Event {
        event: EventKind::RoutingSplitAborted,
        server: Some(server.clone()),
        route: Some(route.config.path.clone()),
        routing: Some(audit::Routing {
            rule: Some(side.rule.clone()),
            split: Some(side.to.clone()),
            ..audit::Routing::default()
        }),
        outcome: Outcome::Ok,
        config_generation: generation,
        ..Event::default()
    };
    tell(shell, event);
}

/// Records what no request waits for.
fn tell(shell: &Shell, event: Event) {
    let audit = shell.audit.clone();
    tokio::spawn(async move {
        if let Ok(place) = audit.reserve(OnFull::Wait).await {
            place.record(event);
        }
    });
}

/// Whether a whole answer, or whole events of one, hold a JSON-RPC error that is the server's fault, or the result of a tool
/// with `isError` when those count.
fn tells_of_failure(passed: &[u8], tool_errors: bool) -> bool {
    let failed = |message: Message| {
        message.error.is_some_and(|error| error.code == INTERNAL_ERROR || SERVER_ERRORS.contains(&error.code))
            || tool_errors && message.result.is_some_and(|result| result.is_error == Some(true))
    };
    let is_failure = |message: &[u8]| serde_json::from_slice(message).is_ok_and(failed);
    if passed.first() == Some(&b'[') {
        let batch: Vec<Message> = serde_json::from_slice(passed).unwrap_or_default();
        return batch.into_iter().any(failed);
    }
    if passed.first().is_some_and(|byte| matches!(byte, b'{' | b' ' | b'\n')) {
        return is_failure(passed);
    }
    // Ours are written with one line of data each.
    passed.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:")).any(is_failure)
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    error: Option<Failure>,
    #[serde(default)]
    result: Option<ToolResult>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: i64,
}

#[derive(Deserialize)]
struct ToolResult {
    #[serde(default, rename = "isError")]
    is_error: Option<bool>,
}

/// JSON-RPC 2.0 §5.1.
const INTERNAL_ERROR: i64 = -32603;
/// The same: for what a server defines by itself, but for those that MCP gives to mistakes of the client.
const SERVER_ERRORS: std::ops::RangeInclusive<i64> = -32019..=-32000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_is_a_failure_and_a_clients_mistake_is_none() {
        let internal = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}"#;
        let params = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"x"}}"#;
        assert!(tells_of_failure(internal, false));
        assert!(!tells_of_failure(params, false));
        assert!(!tells_of_failure(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#, true));
        assert!(tells_of_failure(br#"[{"id":1,"result":{}},{"id":2,"error":{"code":-32603}}]"#, false));
    }

    #[test]
    fn a_tools_own_error_counts_when_it_is_said_to() {
        let failed = br#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#;
        assert_eq!((tells_of_failure(failed, false), tells_of_failure(failed, true)), (false, true));
    }

    #[test]
    fn a_stream_is_looked_through_event_by_event() {
        let events = b"event: message\ndata: {\"method\":\"notifications/progress\"}\n\n\
                       data: {\"id\":1,\"error\":{\"code\":-32603}}\n\n";
        assert!(tells_of_failure(events, false));
        assert!(!tells_of_failure(b"data: {\"id\":1,\"result\":{}}\n\n", true));
        assert!(!tells_of_failure(b"", true));
    }
}
