//! Who calls the API, may they, and what is written down of it? One gate in front of every endpoint.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::audit::{Act, AdminEvent, Event, EventKind, Outcome};
use crate::config::{AdminSettings, OnFull, RoleGroups, SignIn};
use crate::identity::crypto::sha256;
use crate::identity::{Principal, bearer};
use crate::registry::definition::Digest;
use crate::telemetry::audit::AuditPlace;
use crate::time::UnixSeconds;

use super::Admin;
use super::listener::Peer;
use super::problem::{Problem, Word};
use super::signin::person::Person;
use super::signin::{self, cookies};

/// One call of the API.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// As axum has it: `/api/v1/servers/{name}`.
    pub(super) path: &'static str,
    pub(super) access: Access,
    /// What is written down of it. Every call that can change something has one.
    pub(super) event: Option<AdminEvent>,
    pub(super) handler: fn() -> MethodRouter<Arc<Admin>>,
}

/// Who may call an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Admins.
    Administer,
    /// Approvers and admins: a handler narrows it down by what is to be done.
    Approve,
    /// Auditors and admins.
    Audit,
    /// Whoever has a role.
    Read,
    /// Whoever has signed in.
    SignedIn,
    /// Everybody.
    Stranger,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Admin,
    Approver,
    Auditor,
    Viewer,
}

/// Somebody who has signed in, as of this request.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) person: Arc<Person>,
    pub(super) principal: Principal,
    pub(super) roles: Vec<Role>,
    pub(super) proof: Proof,
}

/// How it is known who calls.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// A browser with a session.
    Session {
        /// Its row.
        id: Digest,
        /// What the page sends to prove that it is ours.
        csrf_token: String,
        /// When it ends, used or not.
        expires_at: UnixSeconds,
    },
    /// An access token.
    Token {
        /// When it ends.
        expires_at: UnixSeconds,
    },
}

/// What a handler says of what is done, for the record.
#[derive(Clone, Debug, Default)]
pub(super) struct Deed(Arc<Mutex<Act>>);

/// Puts the gate in front of an endpoint.
pub(super) fn guarded(admin: &Arc<Admin>, endpoint: &'static Endpoint) -> MethodRouter<Arc<Admin>> {
    (endpoint.handler)().route_layer(middleware::from_fn_with_state((Arc::clone(admin), endpoint), gate))
}

async fn gate(
    State((admin, endpoint)): State<(Arc<Admin>, &'static Endpoint)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    let mut record = Record::begin(&admin, endpoint, &head);
    let request_id = record.event.request_id.clone();
    let is_anonymous = head.method == Method::GET
        && !head.headers.contains_key(AUTHORIZATION)
        && cookies::find(&head.headers, cookies::SESSION).is_none();
    let answer = match admit(&admin, endpoint, &head, &mut record).await {
        Err(problem) => {
            let answer = problem.into_response();
            // A page that asks whether somebody is signed in does nothing that has to be written down.
            if !is_anonymous {
                record.fill(&answer);
                record.send(&admin).await;
            }
            answer
        }
        Ok(operator) => {
            if let Some(operator) = operator {
                head.extensions.insert(operator);
            }
            head.extensions.insert(record.deed.clone());
            let request = Request::from_parts(head, body);
            if endpoint.event.is_some() { act(admin, record, request, next).await } else { next.run(request).await }
        }
    };
    named(answer, &request_id)
}

/// Does what was asked, and records it, also when whoever asked does not wait for the end.
async fn act(admin: Arc<Admin>, mut record: Record, request: Request, next: Next) -> Response {
    let settings = admin.live.peek().config.audit.on_full;
    let place = tokio::time::timeout(AUDIT_WAIT_MAX, admin.audit.reserve(settings)).await;
    let Ok(Ok(place)) = place else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable").into_response();
    };
    record.place = Some(place);
    let done = tokio::spawn(async move {
        let answer = next.run(request).await;
        record.finish(&answer);
        answer
    });
    done.await.unwrap_or_else(|_panicked| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Who calls, and may they? `None` where nobody is asked.
async fn admit(
    admin: &Arc<Admin>,
    endpoint: &Endpoint,
    head: &Parts,
    record: &mut Record,
) -> Result<Option<Operator>, Problem> {
    if endpoint.access == Access::Stranger {
        return Ok(None);
    }
    let settings = admin.settings().ok_or_else(Problem::not_found)?;
    let sign_in = settings.sign_in.as_ref().ok_or_else(Problem::not_found)?;
    let operator = identify(admin, &settings, sign_in, &head.headers).await?;
    record.operator(&operator);
    let is_write = !matches!(head.method, Method::GET | Method::HEAD);
    if is_write && let Proof::Session { csrf_token, .. } = &operator.proof {
        check_page(&settings, &head.headers, csrf_token)?;
    }
    if !endpoint.access.is_open_to(&operator.roles) {
        let needed = format!("this takes the role: {}", endpoint.access.label());
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden").detail(needed));
    }
    Ok(Some(operator))
}

/// Who calls: by an access token if there is one, else by the session of the browser.
async fn identify(
    admin: &Arc<Admin>,
    settings: &AdminSettings,
    sign_in: &SignIn,
    headers: &HeaderMap,
) -> Result<Operator, Problem> {
    let (person, proof, since) = if headers.contains_key(AUTHORIZATION) {
        let token = bearer::unverified_token(headers).map_err(|_error| not_signed_in("invalid_token"))?;
        let believed = admin.provider.believe_access_token(sign_in, &settings.public_url, &token, admin.clock.now());
        let caller = believed.await?;
        let approval_claim = &admin.live.peek().config.registry.claim;
        let person = Person::of(caller.principal(), caller.claims(), &sign_in.claim, approval_claim);
        (person, Proof::Token { expires_at: caller.expires_at() }, None)
    } else {
        let secret = cookies::find(headers, cookies::SESSION).ok_or_else(|| not_signed_in("not_signed_in"))?;
        let found = signin::session(admin, sign_in, secret).await?;
        let (id, person, row) = found.ok_or_else(|| not_signed_in("not_signed_in"))?;
        let proof = Proof::Session { id, csrf_token: csrf_token(secret), expires_at: row.expires };
        (person, proof, Some(row.created))
    };
    let principal = Principal { issuer: (&*person.issuer).into(), subject: (&*person.subject).into() };
    if since.is_some_and(|since| admin.live.revocations().ended(&principal, since)) {
        return Err(not_signed_in("not_signed_in"));
    }
    let roles = roles_of(&sign_in.roles, &person.groups);
    Ok(Operator { person: Arc::new(person), principal, roles, proof })
}

/// RFC 6750 §3.1; browsers take no notice of the scheme.
fn not_signed_in(word: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, word)
}

/// A browser sends cookies with whatever any page makes it send. So a write must come from our page (browsers put an
/// `Origin` on those), and bring what only our page can read.
fn check_page(settings: &AdminSettings, headers: &HeaderMap, csrf_token: &str) -> Result<(), Problem> {
    if headers.get(ORIGIN).is_none_or(|origin| origin.as_bytes() != settings.public_url.as_bytes()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin"));
    }
    let mut given = headers.get_all(CSRF_TOKEN).iter();
    match (given.next(), given.next()) {
        // Compared by digest, so that the time it takes says nothing.
        (Some(given), None) if sha256(given.as_bytes()) == sha256(csrf_token.as_bytes()) => Ok(()),
        _ => Err(Problem::new(StatusCode::FORBIDDEN, "csrf_token")),
    }
}

/// What a page proves itself with: derived from the secret of the session, which pages cannot read.
fn csrf_token(session_secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(format!("csrf {session_secret}").as_bytes()))
}

/// The roles that these groups have, sorted.
pub(super) fn roles_of(of: &RoleGroups, groups: &[Box<str>]) -> Vec<Role> {
    let has = |wanted: &[Box<str>]| wanted.iter().any(|group| groups.contains(group));
    [(Role::Admin, &of.admin), (Role::Approver, &of.approver), (Role::Auditor, &of.auditor), (Role::Viewer, &of.viewer)]
        .into_iter()
        .filter(|(_role, wanted)| has(wanted))
        .map(|(role, _wanted)| role)
        .collect()
}

impl Access {
    pub(super) fn is_open_to(self, roles: &[Role]) -> bool {
        let any = |wanted: &[Role]| roles.iter().any(|role| wanted.contains(role));
        match self {
            Self::Administer => any(&[Role::Admin]),
            Self::Approve => any(&[Role::Admin, Role::Approver]),
            Self::Audit => any(&[Role::Admin, Role::Auditor]),
            Self::Read => !roles.is_empty(),
            Self::SignedIn | Self::Stranger => true,
        }
    }

    /// The word in the API's description.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Administer => "admin",
            Self::Approve => "approver or admin",
            Self::Audit => "auditor or admin",
            Self::Read => "any role",
            Self::SignedIn => "signed in",
            Self::Stranger => "everybody",
        }
    }
}

impl Role {
    fn label(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
        }
    }
}

impl Deed {
    /// What it is done to.
    pub(super) fn target(&self, target: impl Into<Box<str>>) {
        self.note(|act| act.target = Some(target.into()));
    }

    /// What is done, in a word.
    pub(super) fn action(&self, action: impl Into<Box<str>>) {
        self.note(|act| act.action = Some(action.into()));
    }

    /// Why, in the words of whoever does it.
    pub(super) fn why(&self, why: impl Into<Box<str>>) {
        self.note(|act| act.note = Some(why.into()));
    }

    fn note(&self, note: impl FnOnce(&mut Act)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Act {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is written down of one call. While it has a place in the audit log and has not used it, dropping it writes the
/// record all the same.
struct Record {
    event: Event,
    deed: Deed,
    place: Option<AuditPlace>,
    started: Instant,
}

impl Record {
    fn begin(admin: &Admin, endpoint: &Endpoint, head: &Parts) -> Self {
        let deed = Deed::default();
        deed.note(|act| act.call = format!("{} {}", endpoint.method, endpoint.path).into());
        let event = Event {
            request_id: admin.request_id(),
            event: EventKind::Admin(endpoint.event.unwrap_or(AdminEvent::Refused)),
            client_ip: peer_of(head).map(|peer| peer.ip().to_canonical()),
            config_generation: admin.live.peek().generation,
            ..Event::default()
        };
        Self { event, deed, place: None, started: Instant::now() }
    }

    fn operator(&mut self, operator: &Operator) {
        self.event.principal = Some(operator.audit_principal());
        let roles: Vec<&str> = operator.roles.iter().map(|role| role.label()).collect();
        self.deed.note(|act| act.roles = Some(roles.join(" ").into()));
    }

    fn finish(mut self, answer: &Response) {
        self.fill(answer);
        if let Some(place) = self.place.take() {
            place.record(std::mem::take(&mut self.event));
        }
    }

    async fn send(mut self, admin: &Admin) {
        let reserved = tokio::time::timeout(AUDIT_WAIT_MAX, admin.audit.reserve(OnFull::Wait)).await;
        if let Ok(Ok(place)) = reserved {
            place.record(std::mem::take(&mut self.event));
        }
    }

    fn fill(&mut self, answer: &Response) {
        let status = answer.status();
        self.event.status = Some(status.as_u16());
        self.event.reason = answer.extensions().get::<Word>().map(|word| word.0);
        self.event.outcome = outcome_of(status);
        self.event.act = Some(Box::new(self.deed.take()));
        self.event.duration = self.started.elapsed();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.event.act = Some(Box::new(self.deed.take()));
            place.record(std::mem::take(&mut self.event));
        }
    }
}

impl Operator {
    /// As audit records have it.
    pub(super) fn audit_principal(&self) -> crate::audit::Principal {
        crate::audit::Principal {
            issuer: Arc::clone(&self.principal.issuer),
            subject: Arc::clone(&self.principal.subject),
            client_id: None,
            token_id: None,
        }
    }
}

/// How an answer with this status counts.
pub(super) fn outcome_of(status: StatusCode) -> Outcome {
    if status.is_server_error() {
        Outcome::Failed
    } else if status.is_client_error() {
        Outcome::Refused
    } else {
        Outcome::Ok
    }
}

/// Who is at the other end of the connection.
pub(super) fn peer_of(head: &Parts) -> Option<SocketAddr> {
    head.extensions.get::<Peer>().and_then(|peer| peer.0)
}

/// Puts the request id on an answer, and on a 401 how to do better (RFC 9110 §11.6.1).
pub(super) fn named(mut answer: Response, request_id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(X_REQUEST_ID, id);
    }
    if answer.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portcullis admin\""));
    }
    answer
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");

/// How long a call waits for a place in the audit queue.
pub(super) const AUDIT_WAIT_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_what_the_groups_say_and_none_holds_another() {
        let of = RoleGroups {
            admin: vec!["ops".into()],
            approver: vec!["sec".into()],
            auditor: vec!["aud".into()],
            viewer: vec!["all".into(), "dev".into()],
        };
        let roles = |groups: &[&str]| roles_of(&of, &groups.iter().map(|group| Box::from(*group)).collect::<Vec<_>>());
        assert_eq!(roles(&[]), []);
        assert_eq!(roles(&["Ops", "nobody"]), []);
        assert_eq!(roles(&["ops"]), [Role::Admin]);
        assert_eq!(roles(&["dev", "sec"]), [Role::Approver, Role::Viewer]);
    }

    #[test]
    fn what_a_role_opens() {
        let table = [
            (Access::Read, vec![Role::Admin, Role::Approver, Role::Auditor, Role::Viewer]),
            (Access::Audit, vec![Role::Admin, Role::Auditor]),
            (Access::Approve, vec![Role::Admin, Role::Approver]),
            (Access::Administer, vec![Role::Admin]),
        ];
        for (access, open_to) in table {
            assert!(!access.is_open_to(&[]), "{access:?}");
            for role in [Role::Admin, Role::Approver, Role::Auditor, Role::Viewer] {
                assert_eq!(access.is_open_to(&[role]), open_to.contains(&role), "{access:?} {role:?}");
            }
        }
    }
}
