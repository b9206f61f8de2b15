//! What does the client ask? One reading of head and body, into a request that means the same to everybody.
//!
//! Whatever two readers could understand differently is refused here, so that policy, audit and the server see one and
//! the same call. Decisions are made on the body alone. Of the headers only `MCP-Protocol-Version` tells anything (the
//! revision); the others must repeat the body in 2026-07-28 and are ignored before it.
//!
//! Where the specification leaves room:
//! - A member of the envelope that JSON-RPC 2.0 does not have passes unread: it means nothing to anybody, and no unknown
//!   member is dropped. One that differs from a known member only in its letters' form is refused.
//! - A notification unknown to the revision is refused as `invalid_request`: JSON-RPC 2.0 §4.1 gives it no answer, and
//!   "unknown is refused" rules out passing it on.
//! - `id` is an integer of 64 bits in plain digits; `1.0`, `1e3` and `-0` come back from servers in another form.
//! - A request that carries the per-request `_meta` of 2026-07-28 but names an older revision in it (and in the header)
//!   asks for a revision that cannot be spoken that way: `unsupported_protocol_version`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;

use super::Era;
use super::JsonText;
use super::McpRequest;
use super::Message;
use super::MessageKind;
use super::Method;
use super::RequestId;
use super::Revision;
use super::Target;
use super::envelope::Body;
use super::envelope::Envelope;
use super::envelope::Params;
use super::envelope::read_body;
use super::error::EnvelopeFault;
use super::error::McpHeader;
use super::error::ParamFault;
use super::error::RequestError;
use super::headers;
use super::json::Kind;
use super::json::Raw;

/// Reads a POST body together with its head.
///
/// # Errors
/// [`Unclassified`] when it is not exactly one thing that a client may send in the revision it speaks.
pub fn classify(head: &HeaderMap, body: Bytes, limits: &ClassifyLimits) -> Result<McpRequest, Unclassified> {
    let read = read_body(&body, limits.json_depth, limits.batch_messages).map_err(RequestError::ParseError)?;
    let (revision, batch, messages) = match &read {
        Body::One(envelope) => {
            let (revision, message) = classify_one(head, &body, envelope)?;
            (revision, false, vec![message])
        }
        Body::Batch(envelopes) => (Revision::V2025_03_26, true, classify_batch(head, &body, envelopes)?),
        Body::BatchTooLong => return Err(RequestError::InvalidRequest(EnvelopeFault::BatchTooLong).into()),
        Body::NoMessage => return Err(RequestError::InvalidRequest(EnvelopeFault::NotAMessage).into()),
    };
    drop(read);
    Ok(McpRequest { revision, batch, messages, body })
}

/// The revision of a request without a body (GET, DELETE): what its head says, else the oldest (2025-11-25, Transports,
/// "Protocol Version Header").
///
/// # Errors
/// Two version headers, or one that names no revision.
pub fn bodyless_revision(head: &HeaderMap) -> Result<Revision, RequestError> {
    Ok(legacy_header(head)?.unwrap_or(Revision::V2025_03_26))
}

/// The bounds of [`classify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassifyLimits {
    /// How many arrays and objects may be open at once; more than [`super::json::DEPTH_MAX`] has no effect.
    pub json_depth: usize,
    /// How many messages a batch may have.
    pub batch_messages: usize,
}

/// A body that was refused before anybody asked whether it is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclassified {
    /// The id for the answer, when the body is one request whose id could be read.
    pub id: Option<RequestId>,
    /// Why.
    pub error: RequestError,
}

impl From<RequestError> for Unclassified {
    fn from(error: RequestError) -> Self {
        Self { id: None, error }
    }
}

/// The resources whose changes a `subscriptions/listen` asks for (2026-07-28); none for every other message. [`classify`]
/// refuses a message for which this errs.
///
/// # Errors
/// [`ParamFault::Subscriptions`] when the filter is malformed or names more than [`SUBSCRIPTIONS_MAX`] resources.
pub fn listen_resources(message: &Message) -> Result<Vec<Box<str>>, RequestError> {
    let fault = || RequestError::InvalidParams(ParamFault::Subscriptions);
    if message.method() != Some(Method::SubscriptionsListen) {
        return Ok(Vec::new());
    }
    let params = message.params.as_ref().ok_or_else(fault)?;
    let filter = params.value().get("notifications").and_then(serde_json::Value::as_object).ok_or_else(fault)?;
    let Some(uris) = filter.get("resourceSubscriptions") else { return Ok(Vec::new()) };
    let uris = uris.as_array().filter(|uris| uris.len() <= SUBSCRIPTIONS_MAX).ok_or_else(fault)?;
    uris.iter()
        .map(|uri| uri.as_str().filter(|uri| is_name(uri, URI_BYTES_MAX)).map(Box::from).ok_or_else(fault))
        .collect()
}

/// The longest string id.
pub const ID_BYTES_MAX: usize = 1024;

/// The longest name of a tool, prompt or task.
pub const NAME_BYTES_MAX: usize = 1024;

/// The longest resource URI.
pub const URI_BYTES_MAX: usize = 8192;

/// How many resources one `subscriptions/listen` may name.
pub const SUBSCRIPTIONS_MAX: usize = 1000;

fn classify_one(head: &HeaderMap, body: &Bytes, envelope: &Envelope<'_>) -> Result<(Revision, Message), Unclassified> {
    let judge = || {
        let shape = Shape::of(envelope)?;
        let revision = revision(head, envelope, &shape)?;
        let message = match revision.era() {
            Era::Legacy => classify_message(Era::Legacy, body, envelope, shape)?,
            Era::Modern => classify_modern(head, body, envelope, shape)?,
        };
        Ok((revision, message))
    };
    judge().map_err(|error| Unclassified { id: envelope.answer_id(), error })
}

/// 2025-03-26, Base Protocol, "Batching": each message is one for itself, but a handshake cannot be among them.
fn classify_batch(head: &HeaderMap, body: &Bytes, envelopes: &[Envelope<'_>]) -> Result<Vec<Message>, RequestError> {
    match legacy_header(head)? {
        None | Some(Revision::V2025_03_26) => {}
        Some(Revision::V2025_06_18 | Revision::V2025_11_25 | Revision::V2026_07_28) => {
            return Err(RequestError::InvalidRequest(EnvelopeFault::BatchNotSpoken));
        }
    }
    if envelopes.is_empty() {
        return Err(RequestError::InvalidRequest(EnvelopeFault::BatchEmpty));
    }
    let mut ids = BTreeSet::new();
    let mut messages = Vec::with_capacity(envelopes.len());
    for envelope in envelopes {
        if envelope.meta_protocol_version().is_some() {
            return Err(RequestError::InvalidRequest(EnvelopeFault::BatchNotSpoken));
        }
        let message = classify_message(Era::Legacy, body, envelope, Shape::of(envelope)?)?;
        if message.method() == Some(Method::Initialize) {
            return Err(RequestError::InvalidRequest(EnvelopeFault::InitializeInBatch));
        }
        if message.request_id().is_some_and(|id| !ids.insert(id.canonical().into_owned())) {
            return Err(RequestError::InvalidRequest(EnvelopeFault::DuplicateId));
        }
        messages.push(message);
    }
    Ok(messages)
}

/// What kind of message an envelope holds, its method not yet looked up.
enum Shape {
    Call { id: Option<RequestId>, method: Box<str> },
    Response { id: RequestId },
}

impl Shape {
    fn of(envelope: &Envelope<'_>) -> Result<Self, RequestError> {
        let fault = |fault| Err(RequestError::InvalidRequest(fault));
        if envelope.jsonrpc.and_then(|raw| raw.as_str()).as_deref() != Some("2.0") {
            return fault(EnvelopeFault::NotJsonRpc2);
        }
        let id = match envelope.id.map(|raw| read_id(&raw)) {
            Some(None) => return fault(EnvelopeFault::BadId),
            Some(id) => id,
            None => None,
        };
        if let Some(method) = envelope.method {
            if envelope.result.is_some() || envelope.error.is_some() {
                return fault(EnvelopeFault::MethodAndResult);
            }
            let Some(method) = method.as_str() else { return fault(EnvelopeFault::NotAMessage) };
            if envelope.params.as_ref().is_some_and(|params| params.raw.kind != Kind::Object) {
                return Err(RequestError::InvalidParams(ParamFault::NotAnObject));
            }
            return Ok(Self::Call { id, method: method.into() });
        }
        let answer = match (envelope.result, envelope.error) {
            (Some(answer), None) | (None, Some(answer)) => answer,
            (Some(_), Some(_)) | (None, None) => return fault(EnvelopeFault::NotAMessage),
        };
        if answer.kind != Kind::Object || envelope.params.is_some() {
            return fault(EnvelopeFault::NotAMessage);
        }
        match id {
            Some(id) => Ok(Self::Response { id }),
            None => fault(EnvelopeFault::BadId),
        }
    }
}

/// The revision the message is spoken in. Modern is told by `_meta` or by the header, and then both must agree.
fn revision(head: &HeaderMap, envelope: &Envelope<'_>, shape: &Shape) -> Result<Revision, RequestError> {
    let modern = Revision::V2026_07_28;
    let names_modern = |value: &http::HeaderValue| value.as_bytes() == modern.as_str().as_bytes();
    let Some(version) = envelope.meta_protocol_version() else {
        if head.get_all(headers::PROTOCOL_VERSION).iter().any(names_modern) {
            require_header(head, McpHeader::ProtocolVersion, &headers::PROTOCOL_VERSION, modern.as_str())?;
            return Ok(modern);
        }
        let spoken = legacy_header(head)?;
        return Ok(match shape {
            Shape::Call { method, .. } if **method == *Method::Initialize.as_str() => offered_revision(envelope),
            Shape::Call { .. } | Shape::Response { .. } => spoken.unwrap_or(Revision::V2025_03_26),
        });
    };
    let version = version.as_str().ok_or(RequestError::InvalidParams(ParamFault::ProtocolVersion))?;
    require_header(head, McpHeader::ProtocolVersion, &headers::PROTOCOL_VERSION, &version)?;
    match Revision::parse(&version) {
        Some(revision) if revision.era() == Era::Modern => Ok(revision),
        // An older one is not offered here: it cannot be spoken with `_meta`, so the client would be refused again.
        Some(_) | None => Err(RequestError::unsupported_version(&version, &Revision::MODERN)),
    }
}

/// The header of a request that is not modern (2025-06-18 and 2025-11-25, Transports, "Protocol Version Header").
fn legacy_header(head: &HeaderMap) -> Result<Option<Revision>, RequestError> {
    match headers::single(head, &headers::PROTOCOL_VERSION) {
        Ok(None) => Ok(None),
        Ok(Some(version)) => {
            Revision::parse(version).map(Some).ok_or_else(|| RequestError::unsupported_version(version, &Revision::ALL))
        }
        Err(_) => Err(RequestError::InvalidRequest(EnvelopeFault::VersionHeader)),
    }
}

/// The revision that an `initialize` offers. The server answers with one it speaks, so one that is unknown here counts
/// as the newest with a handshake.
fn offered_revision(envelope: &Envelope<'_>) -> Revision {
    let offered = envelope.params.as_ref().and_then(|params| params.protocol_version).and_then(|raw| raw.as_str());
    offered
        .and_then(|version| Revision::parse(&version))
        .filter(|revision| revision.era() == Era::Legacy)
        .unwrap_or(Revision::V2025_11_25)
}

/// 2026-07-28: what is asked must stand in the headers too, and each request brings its own context.
fn classify_modern(
    head: &HeaderMap,
    body: &Bytes,
    envelope: &Envelope<'_>,
    shape: Shape,
) -> Result<Message, RequestError> {
    let Shape::Call { id, method } = &shape else {
        return Err(RequestError::InvalidRequest(EnvelopeFault::ResponseNotSpoken));
    };
    // The header rules do not cover notifications, and real clients send theirs without `Mcp-Method`.
    if id.is_some() || head.contains_key(headers::METHOD) {
        require_header(head, McpHeader::Method, &headers::METHOD, method)?;
    }
    if id.is_some() {
        if envelope.meta_protocol_version().is_none() {
            return Err(RequestError::InvalidParams(ParamFault::ProtocolVersion));
        }
        let capabilities = envelope.params.as_ref().and_then(|params| params.meta.as_ref()?.client_capabilities);
        if capabilities.map(|raw| raw.kind) != Some(Kind::Object) {
            return Err(RequestError::InvalidParams(ParamFault::ClientCapabilities));
        }
    }
    let message = classify_message(Era::Modern, body, envelope, shape)?;
    if message.method().is_some_and(mirrors_name)
        && let Target::Prompt(name) | Target::Resource(name) | Target::Task(name) | Target::Tool(name) = &message.target
    {
        require_header(head, McpHeader::Name, &headers::NAME, name)?;
    }
    // A filter nobody can read is the client's mistake, not a question of what it may listen to.
    listen_resources(&message)?;
    Ok(message)
}

/// Whether `Mcp-Name` is required (Streamable HTTP, "Standard Request Headers"; SEP-2663 for tasks).
fn mirrors_name(method: Method) -> bool {
    matches!(
        method,
        Method::PromptsGet
            | Method::ResourcesRead
            | Method::TasksCancel
            | Method::TasksGet
            | Method::TasksUpdate
            | Method::ToolsCall
    )
}

fn require_header(head: &HeaderMap, header: McpHeader, name: &HeaderName, body: &str) -> Result<(), RequestError> {
    headers::require(head, header, name, body).map_err(RequestError::HeaderMismatch)
}

/// Looks up the method and what it is about.
fn classify_message(era: Era, body: &Bytes, envelope: &Envelope<'_>, shape: Shape) -> Result<Message, RequestError> {
    let (id, method) = match shape {
        Shape::Call { id, method } => (id, method),
        Shape::Response { id } => {
            let kind = MessageKind::Response { id };
            return Ok(Message { kind, target: Target::None, params: None, arguments: None, meta: None });
        }
    };
    let method = Method::parse(&method).filter(|method| method.eras().contains(&era));
    let kind = match (id, method) {
        (Some(id), Some(method)) if !method.is_notification() => MessageKind::Request { id, method },
        (None, Some(method)) if method.is_notification() => MessageKind::Notification { method },
        (Some(_), None) => return Err(RequestError::MethodNotFound { era }),
        (Some(_), Some(_)) => return Err(RequestError::InvalidRequest(EnvelopeFault::NotificationWithId)),
        (None, Some(_)) => return Err(RequestError::InvalidRequest(EnvelopeFault::RequestWithoutId)),
        (None, None) => return Err(RequestError::InvalidRequest(EnvelopeFault::UnknownNotification)),
    };
    let text = |raw: &Raw<'_>| JsonText::new(body.slice(raw.start..raw.end()));
    let mut message = Message { kind, target: Target::None, params: None, arguments: None, meta: None };
    let nothing = Params::default();
    let params = envelope.params.as_ref().unwrap_or(&nothing);
    if envelope.params.is_some() {
        message.params = Some(text(&params.raw));
    }
    if let Some(meta) = &params.meta {
        if meta.raw.kind != Kind::Object {
            return Err(RequestError::InvalidParams(ParamFault::Meta));
        }
        message.meta = Some(text(&meta.raw));
    }
    let Some(method) = message.method() else { return Ok(message) };
    message.target = target(method, params).map_err(RequestError::InvalidParams)?;
    if let (Method::PromptsGet | Method::ToolsCall, Some(arguments)) = (method, params.arguments) {
        if arguments.kind != Kind::Object {
            return Err(RequestError::InvalidParams(ParamFault::Arguments));
        }
        message.arguments = Some(text(&arguments));
    }
    Ok(message)
}

/// What a message of this method is about.
fn target(method: Method, params: &Params<'_>) -> Result<Target, ParamFault> {
    match method {
        Method::ToolsCall => name(params.name, NAME_BYTES_MAX).map(Target::Tool).ok_or(ParamFault::Name),
        Method::PromptsGet => name(params.name, NAME_BYTES_MAX).map(Target::Prompt).ok_or(ParamFault::Name),
        Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            name(params.uri, URI_BYTES_MAX).map(Target::Resource).ok_or(ParamFault::Uri)
        }
        Method::TasksCancel | Method::TasksGet | Method::TasksResult | Method::TasksUpdate => {
            name(params.task_id, NAME_BYTES_MAX).map(Target::Task).ok_or(ParamFault::TaskId)
        }
        Method::CompletionComplete => {
            let reference = params.reference.as_ref().ok_or(ParamFault::Ref)?;
            match reference.kind.and_then(|raw| raw.as_str()).as_deref() {
                Some("ref/prompt") => name(reference.name, NAME_BYTES_MAX).map(Target::Prompt).ok_or(ParamFault::Ref),
                Some("ref/resource") => name(reference.uri, URI_BYTES_MAX).map(Target::Resource).ok_or(ParamFault::Ref),
                Some(_) | None => Err(ParamFault::Ref),
            }
        }
        Method::Initialize
        | Method::LoggingSetLevel
        | Method::NotificationsCancelled
        | Method::NotificationsInitialized
        | Method::NotificationsProgress
        | Method::NotificationsRootsListChanged
        | Method::NotificationsTasksStatus
        | Method::Ping
        | Method::PromptsList
        | Method::ResourcesList
        | Method::ResourcesTemplatesList
        | Method::ServerDiscover
        | Method::SubscriptionsListen
        | Method::TasksList
        | Method::ToolsList => Ok(Target::None),
    }
}

fn name(raw: Option<Raw<'_>>, bytes_max: usize) -> Option<Arc<str>> {
    let name = raw?.as_str()?;
    is_name(&name, bytes_max).then(|| name.into())
}

/// Whether a rule and a log line can name it: some characters, none of them a control character.
fn is_name(name: &str, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && !name.chars().any(char::is_control)
}

/// A string of at most [`ID_BYTES_MAX`] bytes or an integer of 64 bits.
fn read_id(raw: &Raw<'_>) -> Option<RequestId> {
    let fits = match raw.kind {
        Kind::String => raw.as_str().is_some_and(|id| id.len() <= ID_BYTES_MAX),
        Kind::Number => raw.text != "-0" && (raw.text.parse::<i64>().is_ok() || raw.text.parse::<u64>().is_ok()),
        Kind::Array | Kind::Bool | Kind::Null | Kind::Object => false,
    };
    fits.then(|| RequestId::from_json(raw.text))
}

impl Envelope<'_> {
    /// The version in `params._meta`, which makes a message a modern one.
    fn meta_protocol_version(&self) -> Option<Raw<'_>> {
        self.params.as_ref()?.meta.as_ref()?.protocol_version
    }

    /// The id under which the client awaits an answer. A response's id is the server's and not to be answered.
    fn answer_id(&self) -> Option<RequestId> {
        let is_response = self.method.is_none() && (self.result.is_some() || self.error.is_some());
        if is_response { None } else { read_id(self.id.as_ref()?) }
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may panic"
)]
mod tests;
