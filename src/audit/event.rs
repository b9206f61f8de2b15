//! What does the record of a request say, and how is it written so that nobody can forge one?

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::content::Done;
use crate::identity::AgentIdentity;
use crate::identity::Caller;
use crate::identity::ClientCertificate;
use crate::identity::agent::Step;
use crate::mcp::RequestId;
use crate::mcp::Revision;
use crate::policy::Effect;

/// One audit record, before it has a place in the log. Absent facts are left out of the line.
///
/// Nothing here is a token, a secret or a raw argument: where such a thing must be recognizable, a keyed [`Digest`]
/// stands for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Names the request; the answer to a refused one carries it too.
    pub request_id: Arc<str>,
    /// The W3C trace id the client sent, or ours.
    pub trace_id: Option<Arc<str>>,
    /// What the record is about.
    pub event: EventKind,
    /// Where the request came from, behind trusted proxies.
    pub client_ip: Option<IpAddr>,
    /// The certificate its connection was verified by.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// The route's public path.
    pub route: Option<Arc<str>>,
    /// Who called, once verified.
    pub principal: Option<Principal>,
    /// The software that acted, once verified.
    pub agent: Option<Arc<AgentIdentity>>,
    /// The server it was for.
    pub server: Option<Arc<str>>,
    /// The instance that was asked.
    pub instance: Option<Arc<str>>,
    /// Recognizes a session; never its id.
    pub session: Option<Digest>,
    /// What was asked.
    pub mcp: Option<Mcp>,
    /// Recognizes the arguments of the call.
    pub arguments: Option<Arguments>,
    /// What the policy said.
    pub decision: Option<Decision>,
    /// Why it went where it went; absent where no rule could say.
    pub routing: Option<Routing>,
    /// What was done to the registry, or found by it. Whoever did it is the [`Self::principal`]; none is the gateway itself.
    pub registry: Option<Box<Registry>>,
    /// What somebody did, or wanted to do, on the admin pages or through their API.
    pub act: Option<Box<Act>>,
    /// What the upstream saw in `Authorization`, but for the secret itself.
    pub credential: Option<Credential>,
    /// The budget that it was refused for.
    pub budget: Option<Budget>,
    /// What a taint has to do with it: a word of a fixed set.
    pub taint: Option<&'static str>,
    /// What rules about content did with the answer; never what they found.
    pub content: Vec<Content>,
    /// The HTTP status the client got; absent when it got none.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed: the fixed word of the answer's `data.reason`.
    pub reason: Option<&'static str>,
    /// A finer fixed word than the reason, where there is one.
    pub detail: Option<&'static str>,
    /// From the request's first byte to the answer's last.
    pub duration: Duration,
    /// The part of it spent waiting for the upstream; absent when none was asked.
    pub upstream: Option<Duration>,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Which configuration decided.
    pub config_generation: u64,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Something was done, or refused, on the admin pages or through their API.
    Admin(AdminEvent),
    /// A request without a believable caller.
    AuthRefused,
    /// A configuration was refused and the last one kept.
    ConfigRefused,
    /// A configuration came into force.
    ConfigReloaded,
    /// The gateway answered by itself: resource metadata, a CORS preflight.
    HttpAnswered,
    /// A stream has been open for a while and is not over yet; its [`EventKind::McpRequest`] follows at its end.
    McpOpened,
    /// A request to a route, whatever became of it.
    #[default]
    McpRequest,
    /// A quarantine is over by itself.
    QuarantineExpired,
    /// Somebody has let go what was stopped.
    QuarantineLifted,
    /// Somebody has stopped a principal, an agent or a tool.
    QuarantineSet,
    /// Somebody has approved a server or a definition; it may take others, too.
    RegistryApproved,
    /// Somebody has changed what a server is.
    RegistryChanged,
    /// Something is not as it was approved, or is missing, or back.
    RegistryDrifted,
    /// Somebody was not let do what they wanted.
    RegistryRefused,
    /// A server was entered.
    RegistryRegistered,
    /// A server or an item was put back to use.
    RegistryResumed,
    /// A server or an item was taken out of use for good.
    RegistryRetired,
    /// A server or an item was taken out of use.
    RegistrySuspended,
    /// An instance that was left alone takes work again.
    RoutingCircuitClosed,
    /// An instance is left alone for a while: it fails, or is slow.
    RoutingCircuitOpened,
    /// A call was made once more elsewhere, and the answers were compared.
    RoutingShadowed,
    /// Too many requests on one side of a split failed, and it gets no more.
    RoutingSplitAborted,
    /// A session whose instance is gone was opened anew at another one.
    SessionHandedOver,
}

/// What somebody did on the admin pages or through their API. Whether it was done says the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminEvent {
    /// Had a configuration checked.
    ConfigCheck,
    /// Had the configuration read again.
    ConfigReload,
    /// Did something to an item of a server: the act's word says what.
    ItemAction,
    /// Asked what the rules would say of somebody.
    PolicyExplain,
    /// Let go what was stopped.
    QuarantineLift,
    /// Stopped a principal, an agent or a tool.
    QuarantineSet,
    /// Wanted something that nobody is let do without signing in, or without a role.
    Refused,
    /// Did something to a server: the act's word says what.
    ServerAction,
    /// Changed what a server is.
    ServerChange,
    /// Entered a server.
    ServerRegister,
    /// Ended somebody's sessions.
    SessionsRevoke,
    /// Signed in.
    SignIn,
    /// Signed out.
    SignOut,
    /// Had a side of a split tried again.
    SplitReopen,
}

/// What was done, or was to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Act {
    /// `GET /api/v1/audit`: the method and the path's template, never what stands in the path.
    pub call: Box<str>,
    /// What it was done to: a server's name, an item, a principal.
    pub target: Option<Box<str>>,
    /// A finer word for what was done: `approve`.
    pub action: Option<Box<str>>,
    /// Why, in the words of whoever did it.
    pub note: Option<Box<str>>,
    /// The roles they had, separated by spaces.
    pub roles: Option<Box<str>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It ended before it had an answer: the client went away, or something broke here. What a record says unless
    /// somebody says otherwise.
    #[default]
    Aborted,
    /// The upstream, the token endpoint or the gateway failed it.
    Failed,
    /// It was done.
    Ok,
    /// The gateway refused it.
    Refused,
}

/// Who called.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Arc<str>,
    /// `client_id` or `azp`.
    pub client_id: Option<Arc<str>>,
    /// `jti`.
    pub token_id: Option<Arc<str>>,
}

/// What was done to the registry, or found by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// `prompt`, `resource`, `resource_template`, `tool`; absent when it is about a server as a whole.
    pub kind: Option<&'static str>,
    /// What the server calls the item.
    pub name: Option<Box<str>>,
    /// The digest of the definition, in hex.
    pub digest: Option<Box<str>>,
    /// Where that led: a word of a fixed set.
    pub state: Option<&'static str>,
    /// In which way it is not as it was: a word of a fixed set.
    pub cause: Option<&'static str>,
    /// How many findings the scan has.
    pub findings: u64,
    /// Why, in the words of whoever did it.
    pub note: Option<Box<str>>,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mcp {
    /// The revision spoken.
    pub revision: Option<Revision>,
    /// The JSON-RPC method; whatever the client sent when we know no such method.
    pub method: Option<Cow<'static, str>>,
    /// The tool, the prompt, or the resource's URI.
    pub name: Option<Arc<str>>,
    /// The JSON-RPC id.
    pub id: Option<RequestId>,
    /// Every message of a 2025-03-26 batch. Written as `batch`, and only when not empty.
    pub batch: Vec<Message>,
}

/// One message of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The JSON-RPC method; absent for a response.
    pub method: Option<Cow<'static, str>>,
    /// The tool, the prompt, or the resource's URI.
    pub name: Option<Arc<str>>,
    /// The JSON-RPC id.
    pub id: Option<RequestId>,
    /// Recognizes its arguments.
    pub arguments: Option<Arguments>,
    /// What the policy said of it.
    pub decision: Option<Decision>,
}

/// Recognizes arguments without showing them.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    /// Over the very bytes the client sent (made by [`Digest::of_arguments`]).
    pub hmac_sha256: Digest,
}

/// What the policy said.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Allow or deny.
    pub effect: Effect,
    /// The rule that decided; absent when the default did.
    pub rule: Option<Arc<str>>,
    /// A fixed word.
    pub reason: &'static str,
}

/// Why a request went where it went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// The rule that decided; absent when none matched.
    pub rule: Option<Arc<str>>,
    /// Which side of its split, in few words.
    pub split: Option<Arc<str>>,
    /// The version of the instance.
    pub version: Option<Arc<str>>,
    /// Where the caller is.
    pub region: Option<Arc<str>>,
    /// The rule's own instances take no work: it went where everything else goes.
    pub fell_back: bool,
    /// The first rule whose condition had no answer, and so did not match.
    pub failed_rule: Option<Arc<str>>,
}

/// What the upstream saw in `Authorization`, but for the secret itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// `none`, `static`, `token_exchange`.
    pub mode: &'static str,
    /// Whom it is for.
    pub audience: Arc<[Box<str>]>,
    /// What it allows, separated by spaces; left out when empty.
    pub scope: Arc<str>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// A budget that was exceeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// As the configuration calls it.
    pub name: Arc<str>,
    /// Which limit of it: a word of a fixed set.
    pub limit: &'static str,
}

/// What a rule about content did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The rule.
    pub rule: Arc<str>,
    /// A word of a fixed set: `redacted`, `dropped`, `blocked`, ….
    pub action: &'static str,
    /// How often.
    pub count: u64,
}

impl From<&Done> for Content {
    fn from(done: &Done) -> Self {
        Self { rule: Arc::clone(&done.rule), action: done.action, count: done.count }
    }
}

/// HMAC-SHA-256 of something that must be recognizable but not readable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// What the writer of the log adds to an event.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Milliseconds since 1970-01-01T00:00:00Z at which the event was recorded.
    pub time_ms: u64,
    /// Counts the records of this process from 1; a gap is a lost record.
    pub seq: u64,
    /// This gateway's instance id.
    pub gateway: &'a str,
}

impl Event {
    /// Appends the record, all but the beginning of its line ([`Stamp::write_beginning`]). Together they are a JSON object
    /// (RFC 8259) and a line feed.
    ///
    /// Every string is cut to [`STRING_BYTES_MAX`] and escaped so that the line cannot end early, pass for two, or
    /// move a terminal's cursor: control characters (C0, DEL, C1), line and paragraph separators, and characters that
    /// are invisible or turn text around are written as `\u` escapes, which a JSON parser turns back.
    pub fn write_rest(&self, out: &mut Vec<u8>) {
        let mut line = Object { out, empty: false };
        line.optional("request_id", Some(&*self.request_id).filter(|id| !id.is_empty()));
        line.optional("trace_id", self.trace_id.as_deref());
        line.label("event", self.event.label());
        if let Some(ip) = self.client_ip {
            line.address("client_ip", ip);
        }
        if let Some(certificate) = &self.client_certificate {
            line.object("client_certificate", |object| {
                object.string("subject", certificate.subject());
                object.string("digest", certificate.digest());
            });
        }
        line.optional("route", self.route.as_deref());
        if let Some(principal) = &self.principal {
            line.object("principal", |object| principal.write(object));
        }
        if let Some(agent) = &self.agent {
            line.object("agent", |object| write_agent(agent, object));
        }
        line.optional("server", self.server.as_deref());
        line.optional("instance", self.instance.as_deref());
        if let Some(session) = self.session {
            line.plain("session", &session.hex());
        }
        if let Some(mcp) = &self.mcp {
            line.object("mcp", |object| mcp.write(object));
        }
        if let Some(arguments) = &self.arguments {
            line.object("arguments", |object| arguments.write(object));
        }
        if let Some(decision) = &self.decision {
            line.object("decision", |object| decision.write(object));
        }
        if let Some(routing) = &self.routing {
            line.object("routing", |object| routing.write(object));
        }
        if let Some(act) = &self.act {
            line.object("act", |object| act.write(object));
        }
        if let Some(registry) = &self.registry {
            line.object("registry", |object| registry.write(object));
        }
        if let Some(credential) = &self.credential {
            line.object("credential", |object| credential.write(object));
        }
        if let Some(budget) = &self.budget {
            line.object("budget", |object| {
                object.string("name", &budget.name);
                object.label("limit", budget.limit);
            });
        }
        line.optional_label("taint", self.taint);
        line.objects("content", &self.content, |content, object| {
            object.string("rule", &content.rule);
            object.label("action", content.action);
            object.number("count", content.count);
        });
        if let Some(status) = self.status {
            line.number("status", u64::from(status));
        }
        line.label("outcome", self.outcome.label());
        line.optional_label("reason", self.reason);
        line.optional_label("detail", self.detail);
        line.millis("duration_ms", self.duration);
        if let Some(upstream) = self.upstream {
            line.millis("upstream_ms", upstream);
        }
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.number("config_generation", self.config_generation);
        line.end();
        out.push(b'\n');
    }
}

impl Stamp<'_> {
    /// Appends the beginning of a line; [`Event::write_rest`] has written the rest.
    pub fn write_beginning(&self, out: &mut Vec<u8>) {
        let mut line = Object::begin(out);
        line.time("time", self.time_ms);
        line.number("seq", self.seq);
        line.string("gateway", self.gateway);
    }
}

impl EventKind {
    /// The word in the record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Admin(event) => event.label(),
            Self::AuthRefused => "auth.refused",
            Self::ConfigRefused => "config.refused",
            Self::ConfigReloaded => "config.reloaded",
            Self::HttpAnswered => "http.answered",
            Self::McpOpened => "mcp.opened",
            Self::McpRequest => "mcp.request",
            Self::QuarantineExpired => "quarantine.expired",
            Self::QuarantineLifted => "quarantine.lifted",
            Self::QuarantineSet => "quarantine.set",
            Self::RegistryApproved => "registry.approved",
            Self::RegistryChanged => "registry.changed",
            Self::RegistryDrifted => "registry.drifted",
            Self::RegistryRefused => "registry.refused",
            Self::RegistryRegistered => "registry.registered",
            Self::RegistryResumed => "registry.resumed",
            Self::RegistryRetired => "registry.retired",
            Self::RegistrySuspended => "registry.suspended",
            Self::RoutingCircuitClosed => "routing.circuit_closed",
            Self::RoutingCircuitOpened => "routing.circuit_opened",
            Self::RoutingShadowed => "routing.shadowed",
            Self::RoutingSplitAborted => "routing.split_aborted",
            Self::SessionHandedOver => "session.handed_over",
        }
    }
}

impl EventKind {
    /// Whether it is about a request to a route, and not about the gateway itself.
    #[must_use]
    pub fn is_of_traffic(self) -> bool {
        matches!(self, Self::AuthRefused | Self::McpOpened | Self::McpRequest)
    }
}

impl AdminEvent {
    /// The word in the record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ConfigCheck => "admin.config_check",
            Self::ConfigReload => "admin.config_reload",
            Self::ItemAction => "admin.item_action",
            Self::PolicyExplain => "admin.policy_explain",
            Self::QuarantineLift => "admin.quarantine_lift",
            Self::QuarantineSet => "admin.quarantine_set",
            Self::Refused => "admin.refused",
            Self::ServerAction => "admin.server_action",
            Self::ServerChange => "admin.server_change",
            Self::ServerRegister => "admin.server_register",
            Self::SessionsRevoke => "admin.sessions_revoke",
            Self::SignIn => "admin.sign_in",
            Self::SignOut => "admin.sign_out",
            Self::SplitReopen => "admin.split_reopen",
        }
    }
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Aborted, Self::Failed, Self::Ok, Self::Refused];

    /// The word in records and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

impl From<&Caller> for Principal {
    fn from(caller: &Caller) -> Self {
        Self {
            issuer: Arc::clone(&caller.principal().issuer),
            subject: Arc::clone(&caller.principal().subject),
            client_id: caller.client_id().cloned(),
            token_id: caller.token_id().cloned(),
        }
    }
}

impl From<&crate::credential::Credential> for Credential {
    fn from(credential: &crate::credential::Credential) -> Self {
        Self {
            mode: credential.mode().label(),
            audience: Arc::clone(credential.audience()),
            scope: Arc::clone(credential.scope()),
            cached: credential.is_cached(),
        }
    }
}

impl Principal {
    fn write(&self, object: &mut Object<'_>) {
        object.string("issuer", &self.issuer);
        object.string("subject", &self.subject);
        object.optional("client_id", self.client_id.as_deref());
        object.optional("token_id", self.token_id.as_deref());
    }
}

/// The whole identity, in the words that rules read it by, but for its name, which is `id` here.
fn write_agent(agent: &AgentIdentity, object: &mut Object<'_>) {
    object.string("id", &agent.agent);
    object.string("issuer", &agent.issuer);
    object.optional("instance", agent.instance.as_deref());
    object.optional("type", agent.kind.as_deref());
    object.optional("provider", agent.provider.as_deref());
    object.optional("model", agent.model.as_deref());
    object.optional("version", agent.version.as_deref());
    object.strings("capabilities", agent.capabilities.iter());
    object.optional("trust_level", agent.trust_level.as_deref());
    object.optional("delegator", agent.delegator.as_deref());
    object.objects("chain", &agent.chain, write_step);
    object.string("chain_assurance", agent.assurance.label());
    object.number("depth", agent.depth() as u64);
    object.optional("purpose", agent.purpose.as_deref());
    object.optional("context", agent.context.as_deref());
    object.string("attestation", agent.attestation.label());
    object.optional("attestation_detail", agent.attestation.detail());
    object.string("source", agent.source.label());
}

/// One step of a chain. Constraints are left out: nothing here is of unbounded shape.
fn write_step(step: &Step, object: &mut Object<'_>) {
    object.optional("issuer", step.issuer.as_deref());
    object.string("delegator", &step.delegator);
    object.string("delegatee", &step.delegatee);
    if let Some(at) = step.delegated_at {
        object.number("delegated_at", at.0);
    }
    if let Some(scopes) = &step.scopes {
        object.strings("scopes", scopes.iter());
    }
    object.optional("purpose", step.purpose.as_deref());
    object.optional("id", step.id.as_deref());
}

impl Act {
    fn write(&self, object: &mut Object<'_>) {
        object.string("call", &self.call);
        object.optional("target", self.target.as_deref());
        object.optional("action", self.action.as_deref());
        object.optional("note", self.note.as_deref());
        object.optional("roles", self.roles.as_deref());
    }
}

impl Registry {
    fn write(&self, object: &mut Object<'_>) {
        object.optional("kind", self.kind);
        object.optional("name", self.name.as_deref());
        object.optional("digest", self.digest.as_deref());
        object.optional("state", self.state);
        object.optional("cause", self.cause);
        if self.findings > 0 {
            object.number("findings", self.findings);
        }
        object.optional("note", self.note.as_deref());
    }
}

impl Mcp {
    fn write(&self, object: &mut Object<'_>) {
        object.optional_label("revision", self.revision.map(Revision::as_str));
        object.method(self.method.as_ref());
        object.optional("name", self.name.as_deref());
        object.request_id("id", self.id.as_ref());
        object.objects("batch", &self.batch, Message::write);
    }
}

impl Message {
    fn write(&self, object: &mut Object<'_>) {
        object.method(self.method.as_ref());
        object.optional("name", self.name.as_deref());
        object.request_id("id", self.id.as_ref());
        if let Some(arguments) = &self.arguments {
            object.object("arguments", |object| arguments.write(object));
        }
        if let Some(decision) = &self.decision {
            object.object("decision", |object| decision.write(object));
        }
    }
}

impl Arguments {
    fn write(&self, object: &mut Object<'_>) {
        object.plain("hmac_sha256", &self.hmac_sha256.hex());
    }
}

impl Decision {
    fn write(&self, object: &mut Object<'_>) {
        let effect = match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        object.label("effect", effect);
        object.optional("rule", self.rule.as_deref());
        object.label("reason", self.reason);
    }
}

impl Routing {
    fn write(&self, object: &mut Object<'_>) {
        object.optional("rule", self.rule.as_deref());
        object.optional("split", self.split.as_deref());
        object.optional("version", self.version.as_deref());
        object.optional("region", self.region.as_deref());
        if self.fell_back {
            object.raw("fell_back", true);
        }
        object.optional("failed_rule", self.failed_rule.as_deref());
    }
}

impl Credential {
    fn write(&self, object: &mut Object<'_>) {
        object.label("mode", self.mode);
        object.strings("audience", self.audience.iter().map(|audience| &**audience));
        object.optional("scope", Some(&*self.scope).filter(|scope| !scope.is_empty()));
        object.raw("cached", self.cached);
    }
}

impl Digest {
    /// Of the bytes of a call's `arguments`, exactly as the client sent them. `key` must be secret and used for
    /// nothing else but these digests: whoever has it can confirm a guess.
    #[must_use]
    pub fn of_arguments(key: &ring::hmac::Key, arguments: &[u8]) -> Self {
        Self::of(key, b"arguments\0", arguments)
    }

    /// Of a session id. The prefix keeps it apart from equal bytes elsewhere.
    #[must_use]
    pub fn of_session(key: &ring::hmac::Key, session_id: &[u8]) -> Self {
        Self::of(key, b"session\0", session_id)
    }

    fn of(key: &ring::hmac::Key, purpose: &[u8], bytes: &[u8]) -> Self {
        let mut context = ring::hmac::Context::with_key(key);
        context.update(purpose);
        context.update(bytes);
        let mut digest = [0; 32];
        // Both are 32 bytes with HMAC-SHA-256, the algorithm the key must have.
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Self(digest)
    }

    /// Lower case. Not by the formatter: byte by byte, two of these would cost it as much as the rest of a record.
    fn hex(self) -> [u8; 64] {
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0x0f)]);
        }
        hex
    }
}

impl fmt::Display for Digest {
    /// Lower-case hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

/// Writes one JSON object. Keys are ours and need no escape. Writing to a `Vec` cannot fail.
///
/// What takes a key is put in place by the compiler where it is called, so that the key is a few moves instead of copies of
/// a length that is found out each time: a line has some forty keys.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A value that is JSON already.
    fn raw(&mut self, key: &'static str, value: impl fmt::Display) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    /// A string that holds nothing to escape.
    #[inline(always)]
    fn plain(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    #[inline(always)]
    fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        write_number(value, 1, self.out);
    }

    /// Milliseconds with three decimals.
    fn millis(&mut self, key: &'static str, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.key(key);
        write_number(micros / 1000, 1, self.out);
        self.out.push(b'.');
        write_number(micros % 1000, 3, self.out);
    }

    /// An RFC 3339 time in UTC with milliseconds. Past the year 9999, which RFC 3339 does not have: 1970.
    fn time(&mut self, key: &'static str, unix_ms: u64) {
        let unix_ms = if unix_ms < YEAR_10000_MS { unix_ms } else { 0 };
        let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
        let (year, month, day) = date_of(days);
        self.key(key);
        let parts = [
            (b'"', year, 4),
            (b'-', month, 2),
            (b'-', day, 2),
            (b'T', ms / 3_600_000, 2),
            (b':', ms / 60_000 % 60, 2),
            (b':', ms / 1000 % 60, 2),
            (b'.', ms % 1000, 3),
        ];
        for (mark, number, digits) in parts {
            self.out.push(mark);
            write_number(number, digits, self.out);
        }
        self.out.extend_from_slice(b"Z\"");
    }

    /// An address, whose text holds nothing to escape.
    fn address(&mut self, key: &'static str, ip: IpAddr) {
        self.key(key);
        self.out.push(b'"');
        match ip {
            IpAddr::V4(ip) => {
                for (index, octet) in ip.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(b'.');
                    }
                    write_number(u64::from(octet), 1, self.out);
                }
            }
            IpAddr::V6(ip) => drop(write!(self.out, "{ip}")),
        }
        self.out.push(b'"');
    }

    #[inline(always)]
    fn string(&mut self, key: &'static str, value: &str) {
        self.key(key);
        write_string(value, self.out);
    }

    /// A word of ours, which holds nothing to escape.
    #[inline(always)]
    fn label(&mut self, key: &'static str, value: &'static str) {
        self.plain(key, value.as_bytes());
    }

    #[inline(always)]
    fn optional_label(&mut self, key: &'static str, value: Option<&'static str>) {
        if let Some(value) = value {
            self.label(key, value);
        }
    }

    /// A word of ours, or whatever else the client sent in its place.
    fn method(&mut self, method: Option<&Cow<'static, str>>) {
        match method {
            Some(Cow::Borrowed(method)) => self.label("method", method),
            Some(Cow::Owned(method)) => self.string("method", method),
            None => {}
        }
    }

    #[inline(always)]
    fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    /// A list of at most [`LIST_ITEMS_MAX`] strings, left out when empty.
    fn strings<'v>(&mut self, key: &'static str, values: impl Iterator<Item = &'v str>) {
        let mut values = values.take(LIST_ITEMS_MAX).peekable();
        if values.peek().is_none() {
            return;
        }
        self.key(key);
        self.out.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write_string(value, self.out);
        }
        self.out.push(b']');
    }

    #[inline(always)]
    fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut object = Object::begin(self.out);
        write(&mut object);
        object.end();
    }

    /// A list of objects, left out when empty. Its caller bounds it: a batch has at most `limits.batch_messages`.
    fn objects<T>(&mut self, key: &'static str, values: &[T], write: impl Fn(&T, &mut Object<'_>)) {
        if values.is_empty() {
            return;
        }
        self.key(key);
        self.out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut object = Object::begin(self.out);
            write(value, &mut object);
            object.end();
        }
        self.out.push(b']');
    }

    /// A JSON-RPC id: a number stays one, a string is read and written again, because the client's own spelling of it
    /// may hold what we escape.
    fn request_id(&mut self, key: &'static str, id: Option<&RequestId>) {
        let Some(text) = id.map(RequestId::as_json) else { return };
        if is_integer(text) {
            self.raw(key, text);
        } else {
            match serde_json::from_str::<Cow<'_, str>>(text) {
                Ok(string) => self.string(key, &string),
                Err(_) => self.string(key, text),
            }
        }
    }
}

/// Whether `text` is a JSON integer (RFC 8259 §6) of a bounded length.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    (1..=ID_DIGITS_MAX).contains(&digits.len()) && !leading_zero && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes a number, with zeros in front where it has fewer digits than asked for.
fn write_number(number: u64, digits_min: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let (mut left, mut count) = (number, 0);
    for digit in digits.iter_mut().rev() {
        if left == 0 && count >= digits_min {
            break;
        }
        *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        count += 1;
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Writes a JSON string, cut and escaped as [`Event::write_line`] says.
fn write_string(text: &str, out: &mut Vec<u8>) {
    let text = cut(text);
    out.push(b'"');
    // Nearly every text is plain, and that is quickly seen of many bytes at once.
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        if !needs_escape(character) {
            continue;
        }
        out.extend_from_slice(text.get(plain_from..at).unwrap_or_default().as_bytes());
        plain_from = at + character.len_utf8();
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.extend_from_slice(text.get(plain_from..).unwrap_or_default().as_bytes());
    out.push(b'"');
}

fn needs_escape(character: char) -> bool {
    match character {
        '"' | '\\' => true,
        ' '..='~' => false,
        // C0, DEL, C1 (ESC and CSI move cursors and retitle windows).
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
        '\u{ad}' | '\u{61c}' | '\u{180e}' => true,
        // Zero-width characters and marks, line and paragraph separators (which JavaScript takes for line ends),
        // bidirectional embeddings, overrides and isolates, invisible operators.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        // Byte order mark, interlinear annotations, tags and variation selectors supplement.
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// A text of at most [`STRING_BYTES_MAX`]: itself, or as many whole characters as fit with [`CUT_MARK`].
#[must_use]
pub fn cut(text: &str) -> Cow<'_, str> {
    const KEPT: usize = STRING_BYTES_MAX - CUT_MARK.len();
    if text.len() <= STRING_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    // A character has at most four bytes, so one of the four places is a border.
    let kept = (KEPT - 3..=KEPT).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    Cow::Owned(format!("{kept}{CUT_MARK}"))
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01. By Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March there, so that the leap day is the last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// Bytes of any string, before escapes; a longer one is cut and ends in [`CUT_MARK`].
pub const STRING_BYTES_MAX: usize = 1024;

/// Stands at the end of a string that was cut.
pub const CUT_MARK: &str = "…[cut]";

const LIST_ITEMS_MAX: usize = 32;

const DAY_MS: u64 = 86_400_000;

/// 10000-01-01T00:00:00Z.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// Digits of an `i128`, more than any client counts to.
const ID_DIGITS_MAX: usize = 39;

#[cfg(test)]
mod tests;
