//! What becomes of a session whose instance is gone? For servers that declare it safe (`on_instance_loss: reinitialize`) the
//! gateway opens another in its place: it repeats what the client had said, and the client goes on with the same id.
//!
//! Session ids are sealed and hold all that is needed to find an instance; what the client has *said* in a session is not in
//! them. So it is kept here, of such servers alone, bounded, and by this process alone: another replica, a successor and a
//! process that was started anew know nothing of it, and their answer is 404, as without all this. What else a session holds
//! at its server (state of tools, requests under way, events to be replayed) is lost with the instance.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::audit::EventKind;
use crate::mcp::{self, Message, Method, Revision, Target};
use crate::net::{Talk, TalkError};
use crate::policy::{self, Decision, Question};
use crate::registry::Route;
use crate::routing::Instance;
use crate::routing::rule::OnInstanceLoss;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::time::UnixSeconds;

use super::Shell;
use super::credentials::Obtained;
use super::forward;
use super::pipeline::Ask;
use super::placement::Seen;
use super::recent::Recent;
use super::record::Record;
use super::rejection::Rejection;

/// What clients have said in sessions that may be opened anew.
pub(super) struct Handovers {
    sessions: Recent<Arc<Held>>,
}

/// One session.
pub(super) struct Held {
    expires_at: UnixSeconds,
    said: Mutex<Said>,
    /// Held while the session is opened anew: requests that come together have it done once.
    turn: tokio::sync::Mutex<()>,
    /// Where it is since.
    moved: ArcSwapOption<Moved>,
}

/// What is repeated.
#[derive(Clone, Default)]
struct Said {
    /// Bytes of all that is kept.
    bytes: usize,
    /// There was more than may be kept: it cannot be repeated.
    is_incomplete: bool,
    /// `params` of `initialize`.
    initialize: Bytes,
    /// `params` of the last `logging/setLevel`.
    level: Option<Bytes>,
    /// URIs that are subscribed to.
    subscriptions: BTreeSet<Arc<str>>,
}

struct Moved {
    instance: Arc<str>,
    upstream_id: Box<str>,
}

/// A session that is to be opened anew, and for whom.
pub(super) struct Takeover<'a> {
    pub(super) world: &'a Snapshot,
    pub(super) route: &'a Route,
    pub(super) seen: &'a Seen<'a>,
    pub(super) credential: Option<&'a Obtained>,
    /// The id as the client sent it.
    pub(super) id: &'a [u8],
}

impl Handovers {
    /// Keeps at most `entries_max` sessions.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { sessions: Recent::new(entries_max) }
    }

    /// Forgets sessions that have expired.
    pub(super) fn forget_expired(&self, now: UnixSeconds) {
        self.sessions.retain(|held| held.expires_at > now);
    }

    /// Forgets a session that was ended.
    pub(super) fn forget(&self, id: &[u8]) {
        self.sessions.remove(id);
    }

    /// What is known of a session of `route`; nothing unless its server declares that it may be opened anew.
    pub(super) fn of(&self, route: &Route, id: &[u8]) -> Option<Arc<Held>> {
        if route.server.config.on_instance_loss == OnInstanceLoss::NotFound {
            return None;
        }
        self.sessions.get(id).map(|held| Arc::clone(&held))
    }

    /// Keeps what opened a session, if its server declares that it may be opened anew. When full, the one that
    /// was opened first goes.
    pub(super) fn opened(&self, route: &Route, id: &[u8], ask: &Ask, expires_at: UnixSeconds) {
        if route.server.config.on_instance_loss == OnInstanceLoss::NotFound {
            return;
        }
        let [message] = ask.messages() else { return };
        let Some(params) = message.params.as_ref().filter(|params| params.bytes().len() <= SAID_BYTES_MAX) else {
            return;
        };
        // A copy: the bytes are part of a body that would stay as a whole.
        let initialize = Bytes::copy_from_slice(params.bytes());
        let said = Said { bytes: initialize.len(), initialize, ..Said::default() };
        let held = Held {
            expires_at,
            said: Mutex::new(said),
            turn: tokio::sync::Mutex::default(),
            moved: ArcSwapOption::empty(),
        };
        self.sessions.insert(id, Arc::new(held));
    }
}

impl Held {
    /// The session as it is since it was opened anew.
    pub(super) fn resolve(&self, session: Session) -> Session {
        match &*self.moved.load() {
            Some(moved) => {
                Session { instance: (*moved.instance).into(), upstream_id: moved.upstream_id.clone(), ..session }
            }
            None => session,
        }
    }

    /// Keeps what a request says that would have to be said again.
    pub(super) fn note(&self, messages: &[Message]) {
        for message in messages {
            match (message.method(), &message.target, &message.params) {
                (Some(Method::LoggingSetLevel), _, Some(params)) => self.said().level(params.bytes()),
                (Some(Method::ResourcesSubscribe), Target::Resource(uri), _) => self.said().subscribed(uri),
                (Some(Method::ResourcesUnsubscribe), Target::Resource(uri), _) => self.said().unsubscribed(uri),
                _ => {}
            }
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// Whether there is room for so many bytes more.
    fn has_room_for(&mut self, bytes: usize) -> bool {
        let has_room = self.bytes.saturating_add(bytes) <= SAID_BYTES_MAX;
        self.is_incomplete |= !has_room;
        has_room
    }

    fn level(&mut self, params: &[u8]) {
        self.bytes -= self.level.take().map_or(0, |level| level.len());
        if self.has_room_for(params.len()) {
            self.bytes += params.len();
            self.level = Some(Bytes::copy_from_slice(params));
        }
    }

    fn subscribed(&mut self, uri: &Arc<str>) {
        if !self.subscriptions.contains(uri) && self.has_room_for(uri.len()) {
            self.bytes += uri.len();
            self.subscriptions.insert((**uri).into());
        }
    }

    fn unsubscribed(&mut self, uri: &str) {
        if self.subscriptions.remove(uri) {
            self.bytes -= uri.len();
        }
    }
}

/// Opens a session anew at `instance`, in place of one that is lost. Gives the session as it is then, and the instance it is
/// at: another one, if another request had it opened meanwhile.
///
/// # Errors
/// [`Rejection::UnknownSession`] when it cannot be: the client then opens one of its own. [`Rejection::AuditUnavailable`].
pub(super) async fn take_over(
    shell: &Shell,
    takeover: &Takeover<'_>,
    session: Session,
    instance: Arc<Instance>,
    record: &mut Record,
) -> Result<(Session, Arc<Instance>), Rejection> {
    let route = takeover.route;
    let held = shell.handovers.of(route, takeover.id).ok_or(Rejection::UnknownSession)?;
    let _turn = held.turn.lock().await;
    let lost = (&session.instance, &session.upstream_id);
    let resolved = held.resolve(session.clone());
    if (&resolved.instance, &resolved.upstream_id) != lost
        && let Some(there) = route.server.pool.named(&resolved.instance).filter(|instance| instance.is_healthy())
    {
        return Ok((resolved, Arc::clone(there)));
    }
    let audit = shell.audit.reserve(takeover.world.config.audit.on_full).await;
    let audit = audit.map_err(|_unavailable| Rejection::AuditUnavailable)?;
    let said = held.said().clone();
    let within = route.server.config.timeouts.first_byte.min(TAKEOVER_MAX);
    let opened = tokio::time::timeout(within, open(shell, takeover, &said, &instance, record)).await;
    let (outcome, reason) = match &opened {
        Ok(Ok(_)) => ("ok", None),
        Ok(Err(error)) => (error.label(), Some(error.label())),
        Err(_elapsed) => ("timeout", Some("timeout")),
    };
    shell.metrics.routing.session_handed_over(route.server.name(), outcome);
    record.instance = Some(Arc::clone(&instance));
    audit.record(record.lifecycle_event(EventKind::SessionHandedOver, reason));
    let Ok(Ok(upstream_id)) = opened else {
        warn!(server = %route.server.name(), instance = %instance.id, outcome, "A session could not be opened anew.");
        return Err(Rejection::UnknownSession);
    };
    info!(server = %route.server.name(), instance = %instance.id, "A session whose instance is gone was opened anew.");
    held.moved.store(Some(Arc::new(Moved { instance: Arc::clone(&instance.id), upstream_id })));
    Ok((held.resolve(session), instance))
}

/// Why a session could not be opened anew.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The policy does not let the caller do any more what they did then.
    Denied,
    /// The client has said more than is kept.
    Incomplete,
    /// The server speaks another revision there, or gives no session.
    OtherRevision,
    Talk(TalkError),
}

impl Failure {
    fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Incomplete => "incomplete",
            Self::OtherRevision => "other_revision",
            Self::Talk(error) => error.label(),
        }
    }
}

impl From<TalkError> for Failure {
    fn from(error: TalkError) -> Self {
        Self::Talk(error)
    }
}

/// Says everything again. Each message is judged anew: what is not permitted any more is not said.
async fn open(
    shell: &Shell,
    takeover: &Takeover<'_>,
    said: &Said,
    instance: &Instance,
    record: &Record,
) -> Result<Box<str>, Failure> {
    let Takeover { route, seen, credential, .. } = takeover;
    if said.is_incomplete {
        return Err(Failure::Incomplete);
    }
    let server = &route.server;
    let mut headers = HeaderMap::new();
    forward::identify(&mut headers, server, seen.who.caller, *credential, record)
        .map_err(|_no_header| Failure::OtherRevision)?;
    let peer = instance.peer().ok_or(Failure::Talk(TalkError::Unreachable))?;
    let mut talk =
        Talk::new(&shell.connector, peer, instance.host.clone(), &server.config.path, headers, ANSWER_BYTES_MAX);
    let revision = seen.ask.revision();
    let params = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_else(|_checked| json!({}));
    let initialize = params(&said.initialize);
    if !may(takeover, revision, Method::Initialize, &initialize, record) {
        return Err(Failure::Denied);
    }
    talk.initialize(initialize).await?;
    let repeated = async {
        if talk.revision() != revision {
            return Err(Failure::OtherRevision);
        }
        if let Some(level) = said.level.as_ref().map(|level| params(level))
            && may(takeover, revision, Method::LoggingSetLevel, &level, record)
        {
            talk.tell(Method::LoggingSetLevel, level).await?;
        }
        for uri in &said.subscriptions {
            let params = json!({ "uri": uri });
            if may(takeover, revision, Method::ResourcesSubscribe, &params, record) {
                talk.tell(Method::ResourcesSubscribe, params).await?;
            }
        }
        let id = talk.session().and_then(|id| id.to_str().ok()).ok_or(Failure::OtherRevision)?;
        Ok(Box::from(id))
    };
    let repeated = repeated.await;
    if repeated.is_err() {
        talk.end().await;
    }
    repeated
}

/// Whether the policy permits a message to whoever asks.
fn may(takeover: &Takeover<'_>, revision: Revision, method: Method, params: &Value, record: &Record) -> bool {
    let Takeover { world, route, seen, .. } = takeover;
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method.as_str(), "params": params }).to_string();
    let mut head = HeaderMap::new();
    if revision != Revision::V2025_03_26 && method != Method::Initialize {
        head.insert(forward::PROTOCOL_VERSION, HeaderValue::from_static(revision.as_str()));
    }
    let limits = &world.config.limits;
    let limits = mcp::ClassifyLimits { json_depth: limits.json_depth, batch_messages: 1 };
    let Ok(request) = mcp::classify(&head, body.into(), &limits) else { return false };
    let facts = seen.facts(record);
    let caller = seen.who.caller;
    request.messages.iter().all(|message| {
        let question = Question { caller, server: route.server.name(), message, facts: &facts };
        matches!(policy::decide(&route.policy, &question), Decision::Permit(_))
    })
}

/// What is kept of one session at most. More is not repeated in part: such a session is lost with its instance.
const SAID_BYTES_MAX: usize = 64 << 10;

/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long all of it may take.
const TAKEOVER_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_kept_up_to_its_bound_and_never_in_part() {
        let mut said = Said::default();
        said.level(br#"{"level":"debug"}"#);
        said.level(br#"{"level":"error"}"#);
        said.subscribed(&"notes://1".into());
        said.subscribed(&"notes://1".into());
        said.subscribed(&"notes://2".into());
        said.unsubscribed("notes://1");
        said.unsubscribed("notes://never");
        assert_eq!((said.bytes, said.is_incomplete), (17 + 9, false));
        assert_eq!(said.subscriptions.iter().map(|uri| &**uri).collect::<Vec<_>>(), ["notes://2"]);
        said.subscribed(&"x".repeat(SAID_BYTES_MAX).into());
        assert_eq!((said.bytes, said.is_incomplete), (17 + 9, true));
    }
}
