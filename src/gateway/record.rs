//! What is remembered of a request, and told when it ends?

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use pingora_proxy::Session as Client;

use crate::audit::{self, Event, EventKind, Outcome};
use crate::config::OnFull;
use crate::content::Done;
use crate::credential::Credential;
use crate::identity::{AgentIdentity, Caller, ClientCertificate, Shown};
use crate::lifecycle::OpenRequest;
use crate::mcp::{McpRequest, Message, Method, RequestId, Revision, Target};
use crate::policy::{Denial, Effect, Permit};
use crate::registry::Route;
use crate::routing::Instance;
use crate::session::Ring;
use crate::snapshot::Snapshot;
use crate::telemetry::audit::AuditPlace;
use crate::telemetry::metrics::MethodLabel;
use crate::time::UnixSeconds;

use super::Shell;
use super::local::{self, AllowedOrigin};
use super::meters::RouteMeters;
use super::rejection::Rejection;
use super::taint::Touch;

/// The facts of one request, noted as they become known. From them its audit record and its metrics are made, once.
pub(super) struct Record {
    /// Names the request in answers, logs and the audit record.
    pub(super) request_id: Arc<str>,
    number: u64,
    /// The first request's id, for the answer to a refusal.
    pub(super) id: Option<RequestId>,
    pub(super) route: Option<Arc<Route>>,
    meters: Option<Arc<RouteMeters>>,
    pub(super) caller: Option<Arc<Caller>>,
    /// The software that acts, once verified; whether it may act for the caller is another question.
    pub(super) agent: Option<Arc<AgentIdentity>>,
    pub(super) instance: Option<Arc<Instance>>,
    /// Why there.
    pub(super) routing: Option<audit::Routing>,
    /// Where the caller is, when somebody wants to know and something says so.
    pub(super) region: Option<Arc<str>>,
    pub(super) revision: Option<Revision>,
    pub(super) origin: Option<AllowedOrigin>,
    /// Lower case, with its port.
    pub(super) host: Box<str>,
    /// `http` or `https`, as the client connected.
    pub(super) scheme: &'static str,
    /// Whether the client is connected over TLS, to us or to a trusted proxy.
    pub(super) is_encrypted: bool,
    pub(super) client_ip: Option<IpAddr>,
    /// What the connection has shown of its client, on a listener that asks for a certificate.
    pub(super) shown: Option<Shown>,
    /// When it had come whole: the `now` of everything that is asked about it. 1970 before that.
    pub(super) arrived_at: UnixSeconds,
    /// Bytes of the request body.
    pub(super) bytes_in: usize,
    /// When its head had come.
    pub(super) started: Instant,
    /// Which configuration decides.
    pub(super) generation: u64,
    trace_id: Option<Arc<str>>,
    http_method: HttpMethod,
    mcp: Option<audit::Mcp>,
    /// The method of the only message.
    method: Option<Method>,
    arguments: Option<audit::Arguments>,
    session: Option<audit::Digest>,
    decision: Option<audit::Decision>,
    credential: Option<audit::Credential>,
    /// The budget that it was refused for.
    budget: Option<audit::Budget>,
    /// What a taint has to do with it.
    pub(super) taint: Option<Touch>,
    /// What rules about content did.
    content: Vec<Done>,
    /// How it ended, when somebody has said so.
    outcome: Option<Outcome>,
    /// The reason of the refusal or failure.
    reason: Option<&'static str>,
    detail: Option<&'static str>,
    is_local: bool,
    upstream_started: Option<Instant>,
    upstream_took: Option<Duration>,
    /// Tells that a stream is open when it has been for a while.
    opened: Option<tokio::task::AbortHandle>,
    /// Counts the request as open.
    _open: OpenRequest,
    /// The place of the audit record, reserved before anything goes upstream. While it is here the request has no record
    /// yet: whoever drops it half-way writes one.
    pub(super) place: Option<AuditPlace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpMethod {
    Delete,
    Get,
    Other,
    Post,
}

impl Record {
    /// The record of a request of which nothing is known yet.
    pub(super) fn start(shell: &Shell) -> Self {
        let number = shell.request_ids.next();
        Self {
            number,
            request_id: shell.request_ids.request_id(number),
            id: None,
            route: None,
            meters: None,
            caller: None,
            agent: None,
            instance: None,
            routing: None,
            region: None,
            revision: None,
            origin: None,
            host: Box::default(),
            scheme: "http",
            is_encrypted: false,
            client_ip: None,
            shown: None,
            arrived_at: UnixSeconds::default(),
            bytes_in: 0,
            started: Instant::now(),
            generation: 0,
            trace_id: None,
            http_method: HttpMethod::Other,
            mcp: None,
            method: None,
            arguments: None,
            session: None,
            decision: None,
            credential: None,
            budget: None,
            taint: None,
            content: Vec::new(),
            outcome: None,
            reason: None,
            detail: None,
            is_local: false,
            upstream_started: None,
            upstream_took: None,
            opened: None,
            _open: shell.lifecycle.open_request(),
            place: None,
        }
    }

    /// Notes who has connected, and what the head says of host and trace.
    pub(super) fn arrived(&mut self, shell: &Shell, world: &Snapshot, client: &Client) {
        let head = client.req_header();
        self.started = Instant::now();
        self.generation = world.generation;
        self.host = local::host_of(head).unwrap_or_default().into();
        let downstream = client.as_downstream();
        if let Some(tls) = downstream.digest().and_then(|digest| digest.ssl_digest.as_ref()) {
            self.scheme = "https";
            self.shown = tls.extension.get::<Shown>().cloned();
        }
        let peer = downstream.client_addr().and_then(|address| address.as_inet()).copied();
        self.is_encrypted = self.scheme == "https" || local::is_forwarded_over_tls(&world.config, head, peer);
        self.client_ip = local::client_ip(&world.config, head, peer);
        let traced = head.headers.get("traceparent").and_then(|value| trace_id(value.to_str().ok()?));
        self.trace_id = traced.or_else(|| Some(shell.request_ids.trace_id(self.number)));
        self.http_method = match head.method {
            http::Method::DELETE => HttpMethod::Delete,
            http::Method::GET => HttpMethod::Get,
            http::Method::POST => HttpMethod::Post,
            _ => HttpMethod::Other,
        };
    }

    /// The certificate the client was verified by.
    pub(super) fn client_certificate(&self) -> Option<&Arc<ClientCertificate>> {
        match &self.shown {
            Some(Shown::Verified(certificate)) => Some(certificate),
            Some(Shown::Distrusted) | None => None,
        }
    }

    /// Notes the route, and gives its counters.
    pub(super) fn routed(&mut self, route: &Arc<Route>, shell: &Shell) -> Arc<RouteMeters> {
        let meters = shell.meters.of(route);
        self.meters = Some(Arc::clone(&meters));
        self.route = Some(Arc::clone(route));
        meters
    }

    /// Notes that the answer was the gateway's own: metadata or a preflight.
    pub(super) fn answered_locally(&mut self) {
        self.is_local = true;
        self.outcome = Some(Outcome::Ok);
    }

    /// Notes what the body asks.
    pub(super) fn understood(&mut self, request: &McpRequest, ring: &Ring) {
        self.revision = Some(request.revision);
        self.id = request.messages.iter().find_map(Message::request_id).cloned();
        let mut messages = request.messages.iter().map(|message| describe(message, ring));
        let mut mcp = audit::Mcp { revision: Some(request.revision), id: self.id.clone(), ..audit::Mcp::default() };
        if request.batch {
            mcp.batch = messages.collect();
        } else if let Some(message) = messages.next() {
            self.method = request.messages.first().and_then(Message::method);
            (mcp.method, mcp.name) = (message.method, message.name);
            self.arguments = message.arguments;
        }
        self.mcp = Some(mcp);
    }

    /// Notes the session the request named.
    pub(super) fn session(&mut self, id: &[u8], ring: &Ring) {
        self.session = Some(audit::Digest::of_session(ring.digest_key(), id));
    }

    /// Notes that the policy refused.
    pub(super) fn denied(&mut self, denial: &Denial) {
        self.decision =
            Some(audit::Decision { effect: Effect::Deny, rule: denial.rule.clone(), reason: denial.reason.label() });
    }

    /// Notes that the policy permitted every message; of several permits the last tells the rule.
    pub(super) fn permitted(&mut self, permits: &[Permit]) {
        let rule = permits.iter().rev().find_map(|permit| permit.rule().cloned());
        self.decision = Some(audit::Decision { effect: Effect::Allow, rule, reason: "permitted" });
    }

    /// Notes what rules about content did; the same twice is counted together.
    pub(super) fn filtered(&mut self, done: Vec<Done>) {
        for one in done {
            let same = |known: &&mut Done| known.rule == one.rule && known.action == one.action;
            match self.content.iter_mut().find(same) {
                Some(known) => known.count += one.count,
                None => self.content.push(one),
            }
        }
    }

    /// Keeps nothing that could tell the arguments of a sensitive call.
    pub(super) fn capture_nothing(&mut self) {
        self.arguments = None;
        if let Some(mcp) = &mut self.mcp {
            mcp.batch.iter_mut().for_each(|message| message.arguments = None);
        }
    }

    /// Notes that something passes that nobody has approved: the server's pins only warn.
    pub(super) fn passed_unapproved(&mut self) {
        self.detail = Some("not_approved");
    }

    /// Notes what the server will see in place of the token.
    pub(super) fn credential(&mut self, credential: &Credential) {
        self.credential = Some(credential.into());
    }

    /// Notes that the gateway refused the request.
    pub(super) fn refused(&mut self, rejection: &Rejection) {
        self.reason = Some(rejection.reason());
        self.detail = rejection.detail();
        if let Rejection::OverBudget(over) = rejection {
            self.budget = Some(audit::Budget { name: Arc::clone(&over.budget), limit: over.limit.label() });
        }
        self.outcome = Some(if matches!(rejection, Rejection::ClientGone) {
            Outcome::Aborted
        } else if rejection.status().is_server_error() {
            Outcome::Failed
        } else {
            Outcome::Refused
        });
    }

    /// Notes that the request is on its way upstream.
    pub(super) fn sent_upstream(&mut self) {
        self.upstream_started.get_or_insert_with(Instant::now);
    }

    /// Notes that the head of an answer has come.
    pub(super) fn answered(&mut self) {
        if let Some(started) = self.upstream_started {
            self.upstream_took = Some(started.elapsed());
        }
        self.outcome.get_or_insert(Outcome::Ok);
    }

    /// The request id as a header value.
    pub(super) fn request_id_value(&self) -> HeaderValue {
        // Hex digits and a dash.
        HeaderValue::from_str(&self.request_id).unwrap_or_else(|_infallible| HeaderValue::from_static(""))
    }

    /// The time that passed since the request went upstream.
    fn upstream_total(&self) -> Duration {
        self.upstream_started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Has `mcp.opened` written if the stream is still open after `after`.
    pub(super) fn tell_when_open(&mut self, shell: &Shell, after: Duration) {
        let (event, audit) = (self.event(EventKind::McpOpened), shell.audit.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // A place is waited for: the stream stays open meanwhile, and its end is a record of its own.
            if let Ok(place) = audit.reserve(OnFull::Wait).await {
                place.record(event);
            }
        });
        self.opened = Some(task.abort_handle());
    }

    /// What metrics call the request.
    fn method_label(&self) -> MethodLabel {
        match self.http_method {
            HttpMethod::Delete => MethodLabel::Delete,
            HttpMethod::Get => MethodLabel::Get,
            HttpMethod::Other => MethodLabel::Other,
            HttpMethod::Post => match (&self.mcp, self.method) {
                (None, _) => MethodLabel::Other,
                (Some(mcp), _) if !mcp.batch.is_empty() => MethodLabel::Batch,
                (Some(_), Some(method)) => MethodLabel::Mcp(method),
                (Some(_), None) => MethodLabel::Response,
            },
        }
    }

    /// Something else that happened because of this request.
    pub(super) fn lifecycle_event(&self, event: EventKind, failed: Option<&'static str>) -> Event {
        let outcome = if failed.is_some() { Outcome::Failed } else { Outcome::Ok };
        Event { outcome, reason: failed, detail: None, ..self.event(event) }
    }

    fn event(&self, event: EventKind) -> Event {
        Event {
            request_id: Arc::clone(&self.request_id),
            trace_id: self.trace_id.clone(),
            event,
            client_ip: self.client_ip,
            client_certificate: self.client_certificate().cloned(),
            route: self.route.as_ref().map(|route| Arc::clone(&route.config.path)),
            principal: self.caller.as_deref().map(audit::Principal::from),
            agent: self.agent.clone(),
            server: self.route.as_ref().map(|route| Arc::clone(route.server.name())),
            instance: self.instance.as_ref().map(|instance| Arc::clone(&instance.id)),
            session: self.session,
            mcp: self.mcp.clone(),
            arguments: self.arguments.clone(),
            decision: self.decision.clone(),
            routing: self.routing.clone(),
            registry: None,
            act: None,
            credential: self.credential.clone(),
            budget: self.budget.clone(),
            taint: self.taint.map(Touch::label),
            content: self.content.iter().map(audit::Content::from).collect(),
            status: None,
            outcome: self.outcome.unwrap_or_default(),
            reason: self.reason,
            detail: self.detail,
            duration: self.started.elapsed(),
            upstream: self.upstream_took,
            bytes_in: self.bytes_in as u64,
            bytes_out: 0,
            config_generation: self.generation,
        }
    }
}

/// Ends a request: exactly one audit event, and its metrics, on every outcome.
pub(super) async fn finish(shell: &Shell, client: &mut Client, record: &mut Record) {
    let kind = match (record.is_local, record.reason) {
        (true, _) => EventKind::HttpAnswered,
        (false, Some("missing_token" | "invalid_token" | "missing_agent_token" | "invalid_agent_token")) => {
            EventKind::AuthRefused
        }
        (false, _) => EventKind::McpRequest,
    };
    let mut event = record.event(kind);
    event.status = client.response_written().map(|head| head.status.as_u16());
    event.bytes_out = client.as_downstream().body_bytes_sent() as u64;
    tell_metrics(record, &event);
    let place = match record.place.take() {
        Some(place) => Some(place),
        // A refused request is recorded too. It waits for its place here: its client already has the answer.
        None => shell.audit.reserve(OnFull::Wait).await.ok(),
    };
    if let Some(place) = place {
        place.record(event);
    }
}

impl Drop for Record {
    /// A request that is dropped half-way, by a panic or the end of the process, has its record all the same.
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.abort();
        }
        if let Some(place) = self.place.take() {
            place.record(self.event(EventKind::McpRequest));
        }
    }
}

fn tell_metrics(record: &Record, event: &Event) {
    let Some(meters) = &record.meters else { return };
    meters.route.finished(record.method_label(), event.outcome, event.duration);
    if let Some(agent) = &record.agent {
        meters.agents.acted(agent.kind.as_deref(), agent.provider.as_deref(), event.outcome);
    }
    meters.route.gateway_took(event.duration.saturating_sub(record.upstream_total()));
    if let Some(decision) = &record.decision {
        meters.route.decided(decision.effect, decision.reason);
    }
    if record.method == Some(Method::ToolsCall)
        && let Some(name) = record.mcp.as_ref().and_then(|mcp| mcp.name.as_deref())
    {
        meters.server.tool_called(name, event.outcome, event.duration);
    }
}

/// Request ids: a random part drawn once per process, and a counter. Unique without a random number per request.
pub(super) struct RequestIds {
    process: u64,
    /// From 1: a trace id is not all zero.
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that start with `process`, drawn at random.
    pub(super) fn new(process: u64) -> Self {
        Self { process, next: AtomicU64::new(1) }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn request_id(&self, number: u64) -> Arc<str> {
        let mut id = String::with_capacity(25);
        push_hex(self.process >> 32, 8, &mut id);
        id.push('-');
        push_hex(number, 8, &mut id);
        id.into()
    }

    /// A trace id of our own (W3C Trace Context §3.2.2.3), for a request that brings none.
    fn trace_id(&self, number: u64) -> Arc<str> {
        let mut id = String::with_capacity(32);
        push_hex(self.process, 16, &mut id);
        push_hex(number, 16, &mut id);
        id.into()
    }
}

/// Appends at least so many hex digits: what the formatter does, in a fifth of the time.
fn push_hex(number: u64, digits_min: u32, out: &mut String) {
    let digits = (16 - number.leading_zeros() / 4).max(digits_min);
    for place in (0..digits).rev() {
        let digit = u32::try_from(number >> (4 * place) & 0xf).unwrap_or_default();
        out.push(char::from_digit(digit, 16).unwrap_or_default());
    }
}

/// The header that carries the request id, on the way to the server and back to the client.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn describe(message: &Message, ring: &Ring) -> audit::Message {
    let name = match &message.target {
        Target::None => None,
        Target::Prompt(name) | Target::Resource(name) | Target::Task(name) | Target::Tool(name) => Some(name.clone()),
    };
    audit::Message {
        method: message.method().map(|method| method.as_str().into()),
        name,
        id: message.request_id().cloned(),
        arguments: message.arguments.as_ref().map(|arguments| audit::Arguments {
            hmac_sha256: audit::Digest::of_arguments(ring.digest_key(), arguments.bytes()),
        }),
        decision: None,
    }
}

/// The trace id of a `traceparent` (W3C Trace Context §3.2.2): 32 lower-case hex digits, not all zero.
fn trace_id(traceparent: &str) -> Option<Arc<str>> {
    let id = traceparent.split('-').nth(1)?;
    let is_hex = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && id.bytes().any(|byte| byte != b'0')).then(|| id.into())
}
