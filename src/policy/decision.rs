//! May this message pass? First match decides.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use super::cel::{Condition, Inputs, Stop};
use super::compile::{Policy, Rule};
use super::index::{Bucket, Candidate, Candidates, Entry, Kind};
use super::rule::Effect;
use crate::identity::agent::ServerIdentity;
use crate::identity::{AgentIdentity, Caller, ClientCertificate, Scopes};
use crate::mcp::{Message, Method, Revision, Target};
use crate::time::UnixSeconds;

/// What rules may read of a request besides caller and message.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// When the request came: `now`.
    pub now: UnixSeconds,
    /// `request.method`.
    pub http_method: &'a str,
    /// `request.host`.
    pub host: &'a str,
    /// `request.path`.
    pub path: &'a str,
    /// `request.headers` and `request.headers_all`.
    pub headers: &'a HeaderMap,
    /// `request.client_ip`; null when it is not known.
    pub client_ip: Option<IpAddr>,
    /// `request.client_certificate`; null without one.
    pub client_certificate: Option<&'a ClientCertificate>,
    /// `agent`: the software that acts; null when none is known.
    pub agent: Option<&'a AgentIdentity>,
    /// `tool.server_identity`: what the server has proved to be; null when it has proved nothing.
    pub server_identity: Option<&'a ServerIdentity>,
    /// `request.bytes`: the length of the body.
    pub body_bytes: usize,
    /// `request.region`: where the caller is; null when nothing says so.
    pub region: Option<&'a str>,
    /// `request.protocol_version`.
    pub revision: Revision,
}

/// One message to decide about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// Which server of the route the message goes to.
    pub server: &'a str,
    /// What is asked.
    pub message: &'a Message,
    /// The request it came in.
    pub facts: &'a Facts<'a>,
}

/// The answer.
#[derive(Clone, Debug)]
#[must_use]
pub enum Decision {
    /// Refused.
    Deny(Denial),
    /// Let through.
    Permit(Permit),
}

/// Proof that [`decide`] let a message through. Nothing goes upstream without one, and nothing else makes one.
#[derive(Clone, Debug)]
pub struct Permit {
    rule: Option<Arc<str>>,
}

impl Permit {
    /// The rule that allowed it; none when the default did, or when the method needs no rule.
    #[must_use]
    pub fn rule(&self) -> Option<&Arc<str>> {
        self.rule.as_ref()
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Whether more scopes would help.
    pub reason: DenialReason,
    /// The deny rule that matched; none when nothing allowed it. For the audit record, not for the client.
    pub rule: Option<Arc<str>>,
    /// The scopes to ask for, with [`DenialReason::InsufficientScope`] only.
    pub challenge: Option<Scopes>,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenialReason {
    /// What was delegated to the agent does not reach this.
    DelegationRefused,
    /// No additional scope would change it.
    Denied,
    /// The scopes of the challenge would have it permitted.
    InsufficientScope,
}

impl DenialReason {
    /// Word for metrics, audit and `data.reason`: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::DelegationRefused => "delegation_refused",
            Self::Denied => "denied",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// Decides whether a message may pass.
///
/// `tools/call`, `prompts/get`, `resources/read`, `resources/subscribe` and `completion/complete` (by what its `ref`
/// names) are decided by the rules. `subscriptions/listen` is permitted when each resource it subscribes to would be
/// permitted to `resources/subscribe`, which it replaces (MCP 2026-07-28, Subscriptions), and rules see it as that method.
/// `tasks/*` needs an allow rule whose target names the method. Everything else is permitted unless a deny rule names
/// the method: lifecycle, lists, ping, logging, notifications, responses, and `resources/unsubscribe`, since ending a
/// subscription gives nobody anything.
///
/// A resource URI with a `.` or `..` segment is refused: what it names depends on who resolves it, so no prefix in a
/// rule could be held against it.
///
/// Before any rule is asked, what was delegated to the agent must reach what is asked for
/// ([`AgentIdentity::reaches`]): the tool, prompt or resource, and for `tasks/*` the server.
pub fn decide(policy: &Policy, question: &Question<'_>) -> Decision {
    match Subject::of(question.message) {
        Subject::Listen => decide_listen(policy, question),
        Subject::Method { method, otherwise } => decide_method(policy, question, method, otherwise),
        Subject::Named { method, kind, name } => decide_named(policy, question, method, kind, name),
        Subject::Response => Decision::Permit(Permit { rule: None }),
        Subject::Unreadable => deny(),
    }
}

/// Whether [`decide`] would say the same to every message of this caller and agent with the same method and target: no rule
/// about it reads arguments, `_meta`, the HTTP request, the server's identity or the time. Then the decision may be kept per
/// (token, agent, server, method, target) for as long as token, agent and policy live.
#[must_use]
pub fn depends_only_on_caller(policy: &Policy, server: &str, message: &Message) -> bool {
    match Subject::of(message) {
        Subject::Listen => false,
        Subject::Method { method, .. } => !policy.naming(method).reads_request,
        Subject::Named { method, kind, name } => {
            buckets(policy, server, method, kind, name).is_none_or(|buckets| buckets.iter().all(|b| !b.reads_request))
        }
        Subject::Response | Subject::Unreadable => true,
    }
}

/// What a message is about, as the rules see it.
enum Subject<'a> {
    Listen,
    /// Only rules that name the method matter.
    Method {
        method: Method,
        otherwise: Effect,
    },
    /// A tool, prompt or resource.
    Named {
        method: Method,
        kind: Kind,
        name: &'a str,
    },
    Response,
    /// The method needs a target that the message does not have.
    Unreadable,
}

impl<'a> Subject<'a> {
    fn of(message: &'a Message) -> Self {
        let Some(method) = message.method() else { return Self::Response };
        match method {
            Method::CompletionComplete => match &message.target {
                Target::Prompt(name) => Self::Named { method, kind: Kind::Prompt, name },
                Target::Resource(uri) => Self::Named { method, kind: Kind::Resource, name: uri },
                Target::None | Target::Task(_) | Target::Tool(_) => Self::Unreadable,
            },
            Method::PromptsGet => match &message.target {
                Target::Prompt(name) => Self::Named { method, kind: Kind::Prompt, name },
                Target::None | Target::Resource(_) | Target::Task(_) | Target::Tool(_) => Self::Unreadable,
            },
            Method::ResourcesRead | Method::ResourcesSubscribe => match &message.target {
                Target::Resource(uri) => Self::Named { method, kind: Kind::Resource, name: uri },
                Target::None | Target::Prompt(_) | Target::Task(_) | Target::Tool(_) => Self::Unreadable,
            },
            Method::ToolsCall => match &message.target {
                Target::Tool(name) => Self::Named { method, kind: Kind::Tool, name },
                Target::None | Target::Prompt(_) | Target::Resource(_) | Target::Task(_) => Self::Unreadable,
            },
            Method::SubscriptionsListen => Self::Listen,
            Method::TasksCancel | Method::TasksGet | Method::TasksList | Method::TasksResult | Method::TasksUpdate => {
                Self::Method { method, otherwise: Effect::Deny }
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
            | Method::ResourcesUnsubscribe
            | Method::ServerDiscover
            | Method::ToolsList => Self::Method { method, otherwise: Effect::Allow },
        }
    }
}

fn decide_method(policy: &Policy, question: &Question<'_>, method: Method, otherwise: Effect) -> Decision {
    if otherwise == Effect::Deny && !question.facts.delegation_reaches(question.server, None) {
        return beyond_delegation();
    }
    let nothing = Bucket::nothing();
    let candidates = Candidates::new([nothing, nothing, policy.naming(method)]);
    judge(policy, &candidates, &question.inputs(method, ""), otherwise)
}

fn decide_named(policy: &Policy, question: &Question<'_>, method: Method, kind: Kind, name: &str) -> Decision {
    let Some(buckets) = buckets(policy, question.server, method, kind, name) else { return deny() };
    if !question.facts.delegation_reaches(question.server, Some(name)) {
        return beyond_delegation();
    }
    if kind == Kind::Resource && has_dot_segment(name) {
        return deny();
    }
    let tool = if kind == Kind::Tool { name } else { "" };
    judge(policy, &Candidates::new(buckets), &question.inputs(method, tool), policy.default)
}

/// `params.notifications.resourceSubscriptions` of `subscriptions/listen` (MCP 2026-07-28, `SubscriptionFilter`).
fn decide_listen(policy: &Policy, question: &Question<'_>) -> Decision {
    let mut decision = decide_method(policy, question, Method::SubscriptionsListen, Effect::Allow);
    let filter = question.message.params.as_ref().and_then(|params| params.value().get("notifications"));
    let Some(uris) = filter.and_then(|filter| filter.get("resourceSubscriptions")) else { return decision };
    let Some(uris) = uris.as_array().filter(|uris| uris.len() <= SUBSCRIPTIONS_MAX) else { return deny() };
    for uri in uris {
        if let Decision::Deny(_) = decision {
            return decision;
        }
        let Some(uri) = uri.as_str() else { return deny() };
        decision = decide_named(policy, question, Method::ResourcesSubscribe, Kind::Resource, uri);
    }
    decision
}

/// The three places where a rule about a thing can stand; `None` when the route has no such server.
pub(super) fn buckets<'p>(
    policy: &'p Policy,
    server: &str,
    method: Method,
    kind: Kind,
    name: &str,
) -> Option<[&'p Bucket; 3]> {
    let names = policy.names(server, kind)?;
    Some([names.named(name), &names.all, policy.naming(method)])
}

impl Facts<'_> {
    /// Whether what was delegated to the agent, if one acts, reaches `name` at `server`.
    pub(super) fn delegation_reaches(&self, server: &str, name: Option<&str>) -> bool {
        self.agent.is_none_or(|agent| agent.reaches(server, name))
    }
}

impl<'a> Question<'a> {
    fn inputs(&self, method: Method, tool: &'a str) -> Inputs<'a> {
        Inputs {
            caller: self.caller,
            server: self.server,
            tool,
            method: Some(method),
            message: Some(self.message),
            facts: self.facts,
        }
    }
}

fn judge(policy: &Policy, candidates: &Candidates<'_>, inputs: &Inputs<'_>, otherwise: Effect) -> Decision {
    for candidate in candidates.clone() {
        let Some(rule) = policy.rules.get(candidate.rule) else { continue };
        if !rule.is_about(inputs) || rule.scopes.missing_from(inputs.caller.scopes()) > 0 {
            continue;
        }
        match (rule.effect, rule.condition(&candidate, inputs)) {
            (Effect::Allow, Truth::True) => return Decision::Permit(Permit { rule: Some(Arc::clone(&rule.name)) }),
            // INVARIANT: an allow rule that errs does not match, a deny rule that errs denies.
            (Effect::Deny, Truth::True | Truth::Error | Truth::Unknown) => {
                return refuse(policy, candidates, inputs, Some(candidate.rule));
            }
            (Effect::Allow, Truth::Error | Truth::False | Truth::Unknown) | (Effect::Deny, Truth::False) => {}
        }
    }
    match otherwise {
        Effect::Allow => Decision::Permit(Permit { rule: None }),
        Effect::Deny => refuse(policy, candidates, inputs, None),
    }
}

/// The denial by rule `by`, or by nothing having allowed it, with the scopes that would have helped.
fn refuse(policy: &Policy, candidates: &Candidates<'_>, inputs: &Inputs<'_>, by: Option<usize>) -> Decision {
    let challenge = challenge(policy, candidates, inputs, by);
    Decision::Deny(Denial {
        reason: if challenge.is_some() { DenialReason::InsufficientScope } else { DenialReason::Denied },
        rule: by.and_then(|by| policy.rules.get(by)).map(|rule| Arc::clone(&rule.name)),
        challenge,
    })
}

fn beyond_delegation() -> Decision {
    Decision::Deny(Denial { reason: DenialReason::DelegationRefused, rule: None, challenge: None })
}

fn deny() -> Decision {
    Decision::Deny(Denial { reason: DenialReason::Denied, rule: None, challenge: None })
}

/// The scopes of the allow rule before `by` that only scopes keep from matching, with the fewest missing; the first of
/// equals. Not those of a rule that would not be reached with its scopes in hand, because a deny rule before it asks for
/// no others.
fn challenge(policy: &Policy, candidates: &Candidates<'_>, inputs: &Inputs<'_>, by: Option<usize>) -> Option<Scopes> {
    let held = inputs.caller.scopes();
    let mut waiting: Vec<&Scopes> = Vec::new();
    let mut best: Option<(usize, &Scopes)> = None;
    for candidate in candidates.clone().take_while(|candidate| by.is_none_or(|by| candidate.rule < by)) {
        let Some(rule) = policy.rules.get(candidate.rule) else { continue };
        let missing = rule.scopes.missing_from(held);
        if missing == 0 || !rule.is_about(inputs) {
            continue;
        }
        match (rule.effect, rule.condition(&candidate, inputs)) {
            (Effect::Deny, Truth::True | Truth::Error | Truth::Unknown) => waiting.push(&rule.scopes),
            (Effect::Allow, Truth::True) if best.is_none_or(|(fewest, _)| missing < fewest) => {
                let reached =
                    |deny: &&Scopes| deny.iter().any(|scope| !held.contains(scope) && !rule.scopes.contains(scope));
                if waiting.iter().all(reached) {
                    best = Some((missing, &rule.scopes));
                }
            }
            (Effect::Allow | Effect::Deny, _) => {}
        }
    }
    best.map(|(_, scopes)| scopes.clone())
}

/// Whether a condition holds, as far as can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Error,
    False,
    True,
    /// It depends on arguments that a list does not have.
    Unknown,
}

impl Rule {
    /// Whether its conditions on caller and agent hold, scopes aside.
    pub(super) fn is_about(&self, inputs: &Inputs<'_>) -> bool {
        self.claims.iter().all(|claim| claim.holds(inputs.caller.claims()))
            && self.agent.as_ref().is_none_or(|spec| inputs.facts.agent.is_some_and(|agent| spec.holds(agent)))
    }

    /// Whether one of the target entries and the rule's own condition hold.
    pub(super) fn condition(&self, candidate: &Candidate<'_>, inputs: &Inputs<'_>) -> Truth {
        let mut entries = candidate.entries.iter().flatten().peekable();
        let target = if entries.clone().any(|entry| entry.any_of.is_empty()) || entries.peek().is_none() {
            Truth::True
        } else {
            Truth::any(entries.map(|entry| entry.truth(inputs)))
        };
        match (&self.when, target) {
            (None, target) => target,
            (Some(_), Truth::False) => Truth::False,
            (Some(when), target) => target.and(Truth::of(when, inputs)),
        }
    }
}

impl Entry {
    /// Whether one of its conditions holds.
    pub(super) fn truth(&self, inputs: &Inputs<'_>) -> Truth {
        if self.any_of.is_empty() {
            return Truth::True;
        }
        Truth::any(self.any_of.iter().map(|condition| Truth::of(condition, inputs)))
    }
}

impl Truth {
    fn of(condition: &Condition, inputs: &Inputs<'_>) -> Self {
        match condition.holds(inputs) {
            Ok(true) => Self::True,
            Ok(false) => Self::False,
            Err(Stop::Unknown) => Self::Unknown,
            // What is too much without arguments may have been cut short with them.
            Err(Stop::Exhausted) if inputs.message.is_none() => Self::Unknown,
            Err(Stop::Error | Stop::Exhausted) => Self::Error,
        }
    }

    /// `||` as CEL has it: what decides wins over errors, the unknown over the wrong.
    fn any(truths: impl Iterator<Item = Self>) -> Self {
        let mut any = Self::False;
        for truth in truths {
            if truth == Self::True {
                return Self::True;
            }
            any = any.join(truth, Self::True);
        }
        any
    }

    /// `&&` likewise.
    fn and(self, other: Self) -> Self {
        self.join(other, Self::False)
    }

    fn join(self, other: Self, decisive: Self) -> Self {
        for strongest in [decisive, Self::Unknown, Self::Error] {
            if self == strongest || other == strongest {
                return strongest;
            }
        }
        self
    }
}

/// Resources one `subscriptions/listen` may name.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// Whether the path of a URI has a segment `.` or `..`, also percent-encoded (RFC 3986 §5.2.4, §6.2.2), with either slash.
pub(super) fn has_dot_segment(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    if !path.contains('.') && !path.contains("%2") {
        return false;
    }
    let path = path.replace("%2e", ".").replace("%2E", ".");
    let path = path.replace("%2f", "/").replace("%2F", "/").replace("%5c", "/").replace("%5C", "/");
    path.split(['/', '\\']).any(|segment| segment == "." || segment == "..")
}
