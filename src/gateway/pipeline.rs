//! May this request go on, and as what? The whole security decision, top to bottom.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use pingora::time::timeout;
use pingora_proxy::Session as Client;

use crate::identity::Caller;
use crate::identity::agent::{DelegationError, ServerIdentity};
use crate::identity::bearer::{self, UnverifiedToken};
use crate::mcp::{self, McpRequest, Message, RequestId, Revision};
use crate::policy::{Decision, Denial, DenialReason, Permit, Question};
use crate::registry::Route;
use crate::routing::Instance;
use crate::routing::router::Path;
use crate::session::{self, Binding, Session};
use crate::snapshot::Snapshot;

use super::agents::{self, Acting};
use super::budgets::{self, Spent};
use super::credentials::{self, Obtained};
use super::handover::{self, Takeover};
use super::meters::RouteMeters;
use super::placement::{Placed, Seen};
use super::record::Record;
use super::rejection::Rejection;
use super::trial::Trial;
use super::{Shell, body, content, governance, local, placement, stops, taint, tokens};

/// Everything that was decided about a request that may go on. Made by [`admit`] and nowhere else.
pub(super) struct Admitted {
    /// The world it was decided in.
    pub(super) world: Arc<Snapshot>,
    /// Where it came in.
    pub(super) route: Arc<Route>,
    /// Who asks.
    pub(super) caller: Arc<Caller>,
    /// The token they proved it with: the subject of another exchange, should the server refuse the first credential.
    pub(super) subject_token: UnverifiedToken,
    /// The software that acts for them.
    pub(super) agent: Option<Acting>,
    /// What the server has proved to be.
    pub(super) server_identity: Option<Arc<ServerIdentity>>,
    /// What they ask.
    pub(super) ask: Ask,
    /// Which conversation it belongs to.
    pub(super) session: Option<Session>,
    /// Proof that the policy allows it, for each message. Forwarding asks for it.
    pub(super) permits: Permits,
    /// What it draws on its budgets, until it ends.
    pub(super) spent: Option<Spent>,
    /// Where it goes.
    pub(super) instance: Arc<Instance>,
    /// What the routing rules have to do with it.
    pub(super) path: Option<Path>,
    /// What is learned from it of whoever answers.
    pub(super) trial: Trial,
    /// What the server sees in place of the token.
    pub(super) credential: Option<Obtained>,
    /// Its session was opened anew for it, where it goes.
    pub(super) is_new_there: bool,
    /// The session id as the client sent it, when the request belongs to a session.
    pub(super) session_id: Option<HeaderValue>,
}

/// What a request asks of a server.
pub(super) enum Ask {
    /// DELETE: end the session.
    EndSession(Revision),
    /// POST: one message, or a batch.
    Messages(McpRequest),
    /// GET: open the session's stream.
    OpenStream(Revision),
}

/// The permits of a request. Cannot be made without [`crate::policy::decide`].
pub(super) struct Permits(Vec<Permit>);

impl Permits {
    /// Whether every message of `ask` has its permit.
    pub(super) fn cover(&self, ask: &Ask) -> bool {
        self.0.len() == ask.messages().len()
    }
}

/// Decides about a request. Each line is a stage, each `?` a refusal, each value what the next stage needs.
///
/// # Errors
/// The [`Rejection`] of the first stage that refuses; nothing was sent upstream, and no credential was fetched, before
/// the policy had permitted every message.
pub(super) async fn admit(
    shell: &Shell,
    world: Arc<Snapshot>,
    client: &mut Client,
    record: &mut Record,
) -> Result<Admitted, Rejection> {
    let (route, meters) = route_of(shell, &world, client, record)?;
    let (caller, subject_token) = authenticate(shell, &route, &meters, client, record).await?;
    placement::locate(&world, &caller, client, record);
    let agent = agents::acting(shell, &route, &caller, &subject_token, &client.req_header().headers, record).await?;
    stops::check_caller(shell, &caller, agent.as_ref())?;
    let ask = classify(shell, &world, &route, client, record).await?;
    record.arrived_at = shell.clock.now();
    let session = open_session(shell, &world, &route, &caller, &ask, client, record)?;
    let server_identity = identify(shell, &route)?;
    let who = Who { caller: &caller, token: &subject_token, agent: agent.as_ref() };
    let seen = Seen { who, server_identity: server_identity.as_deref(), ask: &ask, client };
    let permits = decide(shell, &route, &seen, record)?;
    content::check(&route, &seen, record)?;
    governance::check(shell, &world, &route, &ask, record)?;
    stops::check_tools(shell, &route, &ask)?;
    record.taint = taint::check(shell, &route, session.as_ref(), &seen, record)?;
    let spent = budgets::spend(shell, &route, &meters, &seen, record).await?;
    let placed = placement::pick(shell, &route, session.as_ref(), &seen, record)?;
    promise_record(shell, &world, record).await?;
    let credential = obtain(shell, &route, &meters, who, &permits, record).await?;
    let session_id = session.as_ref().and_then(|_session| client.req_header().headers.get(SESSION_ID).cloned());
    let id = session_id.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let takeover = Takeover { world: &world, route: &route, seen: &seen, credential: credential.as_ref(), id };
    let is_new_there = placed.takes_over;
    let (session, placed) = carry_over(shell, &takeover, session, placed, record).await?;
    Ok(Admitted {
        session_id,
        is_new_there,
        world,
        caller,
        subject_token,
        agent,
        server_identity,
        ask,
        session,
        permits,
        spent,
        path: placed.path,
        trial: Trial::new(&route, placed.turn, placed.path),
        instance: placed.instance,
        credential,
        route,
    })
}

/// What exists: the route with exactly this path, and its counters.
fn route_of(
    shell: &Shell,
    world: &Snapshot,
    client: &Client,
    record: &mut Record,
) -> Result<(Arc<Route>, Arc<RouteMeters>), Rejection> {
    let head = client.req_header();
    let route = world.route(head.uri.path()).ok_or(Rejection::NoRoute)?;
    let meters = record.routed(route, shell);
    match head.method {
        Method::POST | Method::GET | Method::DELETE => Ok((Arc::clone(route), meters)),
        _ => Err(Rejection::MethodNotAllowed { allow: "GET, POST, DELETE, OPTIONS" }),
    }
}

/// Who is calling: from the bearer token of this very request, whatever session it names.
async fn authenticate(
    shell: &Shell,
    route: &Route,
    meters: &RouteMeters,
    client: &Client,
    record: &mut Record,
) -> Result<(Arc<Caller>, UnverifiedToken), Rejection> {
    let token = bearer::unverified_token(&client.req_header().headers)
        .map_err(|error| tokens::refuse_head(route, meters, error))?;
    let caller = shell.tokens.verify(shell, route, meters, &token).await?;
    record.caller = Some(Arc::clone(&caller));
    Ok((caller, token))
}

/// What do they ask: the body is read here, after the caller is known, and read only once.
async fn classify(
    shell: &Shell,
    world: &Snapshot,
    route: &Route,
    client: &mut Client,
    record: &mut Record,
) -> Result<Ask, Rejection> {
    local::check_media(client.req_header())?;
    let limits = &world.config.limits;
    if client.req_header().method != Method::POST {
        let revision = mcp::bodyless_revision(&client.req_header().headers).map_err(Rejection::Request)?;
        record.revision = Some(revision);
        return match (revision.era(), &client.req_header().method) {
            (mcp::Era::Modern, _) => Err(Rejection::MethodNotAllowed { allow: "POST, OPTIONS" }),
            (mcp::Era::Legacy, &Method::GET) => Ok(Ask::OpenStream(revision)),
            (mcp::Era::Legacy, _) => Ok(Ask::EndSession(revision)),
        };
    }
    let body = body::read_whole(client, limits.body_bytes, limits.request_body_timeout).await?;
    record.bytes_in = body.len();
    let bounds = mcp::ClassifyLimits { json_depth: limits.json_depth, batch_messages: limits.batch_messages };
    let request = mcp::classify(&client.req_header().headers, body, &bounds).map_err(|unclassified| {
        record.id = unclassified.id;
        Rejection::Request(unclassified.error)
    })?;
    record.understood(&request, &world.ring);
    if request.revision.era() == mcp::Era::Modern {
        let head = &client.req_header().headers;
        let mut messages = request.messages.iter();
        messages
            .try_for_each(|message| shell.annotations.check(route.server.name(), message, head))
            .map_err(Rejection::Request)?;
    }
    Ok(Ask::Messages(request))
}

/// Which talk: the session a legacy request names, if it is the caller's and its instance still lives.
fn open_session(
    shell: &Shell,
    world: &Snapshot,
    route: &Route,
    caller: &Caller,
    ask: &Ask,
    client: &Client,
    record: &mut Record,
) -> Result<Option<Session>, Rejection> {
    if !ask.belongs_to_a_session() {
        return Ok(None);
    }
    let mut ids = client.req_header().headers.get_all(SESSION_ID).iter();
    let id = match (ids.next(), ids.next()) {
        (Some(id), None) => id.as_bytes(),
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(Rejection::UnknownSession),
    };
    let binding = Binding { principal: caller.principal(), route: &route.config.path };
    let session = session::open(id, binding, &world.ring, record.arrived_at).map_err(|error| {
        tracing::debug!(request = %record.request_id, error = error.label(), "The session id does not open.");
        Rejection::UnknownSession
    })?;
    record.session(id, &world.ring);
    if shell.revoked.contains(id)
        || shell.live.revocations().ended(caller.principal(), session.issued_at)
        || *session.server != **route.server.name()
    {
        return Err(Rejection::UnknownSession);
    }
    Ok(Some(match shell.handovers.of(route, id) {
        Some(held) => held.resolve(session),
        None => session,
    }))
}

/// Everybody a request comes from.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) caller: &'a Caller,
    pub(super) token: &'a UnverifiedToken,
    pub(super) agent: Option<&'a Acting>,
}

/// Is the server what it must be: one that has to prove it gets nothing before it has.
fn identify(shell: &Shell, route: &Route) -> Result<Option<Arc<ServerIdentity>>, Rejection> {
    let Some(proof) = &route.server.proof else { return Ok(None) };
    match proof.current(shell.clock.now()) {
        None if proof.config.required => Err(Rejection::UnidentifiedServer),
        identity => Ok(identity),
    }
}

/// May they: every message needs a permit of its own.
fn decide(shell: &Shell, route: &Route, seen: &Seen<'_>, record: &mut Record) -> Result<Permits, Rejection> {
    let Ask::Messages(request) = seen.ask else { return Ok(Permits(Vec::new())) };
    let facts = seen.facts(record);
    let Who { caller, token, agent } = seen.who;
    let token = token.digest();
    let permits: Result<Vec<Permit>, Denial> = request
        .messages
        .iter()
        .map(|message| {
            let question = Question { caller, server: route.server.name(), message, facts: &facts };
            match shell.decisions.decide(route, &token, agent, &question) {
                Decision::Permit(permit) => Ok(permit),
                Decision::Deny(denial) => Err(denial),
            }
        })
        .collect();
    match permits {
        Ok(permits) => {
            record.permitted(&permits);
            Ok(Permits(permits))
        }
        Err(denial) => {
            record.denied(&denial);
            if denial.reason == DenialReason::DelegationRefused {
                return Err(Rejection::DelegationRefused(DelegationError::ResourceNotAllowed));
            }
            let challenge = denial.challenge.and_then(|scopes| route.challenges.insufficient_scope(&scopes).ok());
            Err(challenge.map_or(Rejection::Denied, |challenge| Rejection::InsufficientScope { challenge }))
        }
    }
}

/// Which talk, once more: a session whose instance is gone is opened anew where the request goes, if its server lets it.
async fn carry_over(
    shell: &Shell,
    takeover: &Takeover<'_>,
    session: Option<Session>,
    placed: Placed,
    record: &mut Record,
) -> Result<(Option<Session>, Placed), Rejection> {
    let Some(session) = session else { return Ok((None, placed)) };
    let is_lost = placed.takes_over;
    let (session, placed) = if is_lost {
        let Placed { instance, turn, path, takes_over } = placed;
        let taken = Box::pin(handover::take_over(shell, takeover, session, Arc::clone(&instance), record));
        let (session, there) = taken.await?;
        let turn = turn.filter(|_| Arc::ptr_eq(&there, &instance));
        record.instance = Some(Arc::clone(&there));
        (session, Placed { instance: there, turn, path, takes_over })
    } else {
        (session, placed)
    };
    if let Some(held) = shell.handovers.of(takeover.route, takeover.id) {
        held.note(takeover.seen.ask.messages());
    }
    Ok((Some(session), placed))
}

/// Opens the session of an admitted request anew, because its instance has forgotten it.
///
/// # Errors
/// Those of the stages that it goes through again.
pub(super) async fn reopen(
    shell: &Shell,
    admitted: &mut Admitted,
    client: &Client,
    record: &mut Record,
) -> Result<(), Rejection> {
    let session = admitted.session.take().ok_or(Rejection::UnknownSession)?;
    let who = Who { caller: &admitted.caller, token: &admitted.subject_token, agent: admitted.agent.as_ref() };
    let server_identity = admitted.server_identity.as_deref();
    let seen = Seen { who, server_identity, ask: &admitted.ask, client };
    let placed = placement::pick(shell, &admitted.route, None, &seen, record)?;
    let takeover = Takeover {
        world: &admitted.world,
        route: &admitted.route,
        seen: &seen,
        credential: admitted.credential.as_ref(),
        id: admitted.session_id.as_ref().map_or(&b""[..], HeaderValue::as_bytes),
    };
    let placed = Placed { takes_over: true, ..placed };
    let (session, placed) = carry_over(shell, &takeover, Some(session), placed, record).await?;
    let trial = Trial::new(&admitted.route, placed.turn, placed.path);
    (admitted.session, admitted.instance, admitted.path) = (session, placed.instance, placed.path);
    (admitted.trial, admitted.is_new_there) = (trial, true);
    Ok(())
}

/// The place of the audit record, before anything is done that would have to be recorded.
async fn promise_record(shell: &Shell, world: &Snapshot, record: &mut Record) -> Result<(), Rejection> {
    let place = shell.audit.reserve(world.config.audit.on_full);
    let place = timeout(AUDIT_WAIT_MAX, place).await.map_err(|_elapsed| Rejection::AuditUnavailable)?;
    record.place = Some(place.map_err(|_unavailable| Rejection::AuditUnavailable)?);
    Ok(())
}

/// Whose authority: a credential for this very caller. The permits are asked for so that nothing is minted for a refused
/// request.
async fn obtain(
    shell: &Shell,
    route: &Route,
    meters: &RouteMeters,
    who: Who<'_>,
    _permits: &Permits,
    record: &mut Record,
) -> Result<Option<Obtained>, Rejection> {
    let obtained = credentials::obtain(shell, route, meters, who, record.arrived_at).await?;
    if let Some(obtained) = &obtained {
        record.credential(&obtained.credential);
    }
    Ok(obtained)
}

impl Admitted {
    /// Whether its session can be opened anew elsewhere.
    pub(super) fn may_be_opened_anew(&self, shell: &Shell) -> bool {
        self.session_id.as_ref().is_some_and(|id| shell.handovers.of(&self.route, id.as_bytes()).is_some())
    }

    /// Every request of the body with its method: what the answer may answer.
    pub(super) fn asked(&self) -> Vec<(RequestId, mcp::Method)> {
        let requests = self.ask.messages().iter();
        requests.filter_map(|message| Some((message.request_id()?.clone(), message.method()?))).collect()
    }
}

impl Ask {
    /// The revision it is spoken in.
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::EndSession(revision) | Self::OpenStream(revision) => *revision,
            Self::Messages(request) => request.revision,
        }
    }

    /// The messages; none without a body.
    pub(super) fn messages(&self) -> &[Message] {
        match self {
            Self::EndSession(_) | Self::OpenStream(_) => &[],
            Self::Messages(request) => &request.messages,
        }
    }

    /// Whether it opens a session: the answer may bring an id.
    pub(super) fn opens_a_session(&self) -> bool {
        self.messages().iter().any(|message| message.method() == Some(mcp::Method::Initialize))
    }

    /// Whether lists may come back that the policy filters: also on a GET stream, which may replay earlier answers.
    pub(super) fn may_bring_lists(&self) -> bool {
        matches!(self, Self::OpenStream(_))
            || self.messages().iter().any(|message| message.method().is_some_and(mcp::Method::is_list))
    }

    /// Whether a session id on it counts: legacy, and not the request that opens a new one.
    fn belongs_to_a_session(&self) -> bool {
        self.revision().era() == mcp::Era::Legacy && !self.opens_a_session()
    }
}

/// The header that carries a session id (MCP 2025-11-25, "Session Management").
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// How long a request waits for a place in the audit queue.
const AUDIT_WAIT_MAX: Duration = Duration::from_secs(10);
