//! What may somebody call, and which rule says so?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::config::Pins;
use crate::control::governance::{ItemFilter, PAGE_MAX, Page};
use crate::identity::agent::{Description, ImaginedAgent};
use crate::identity::{Imagined, Principal, Scopes};
use crate::mcp::{self, ClassifyLimits, ItemKind, McpRequest, Revision};
use crate::policy::{self, Effect, Explained, Facts, Verdict};
use crate::registry::Server;
use crate::registry::catalog::Verdict as Standing;
use crate::snapshot::Snapshot;

use super::super::Admin;
use super::super::access::Deed;
use super::super::problem::{Answer, Problem};
use super::input::Body;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The path of a route.
    route: String,
    /// The claims of the access token. `iss` and `sub` may be left out; scope claims count as scopes.
    #[serde(default)]
    claims: Map<String, Value>,
    #[serde(default)]
    scopes: Vec<String>,
    /// The software that acts; by default nobody looks for one.
    agent: Option<AgentAsked>,
    /// Tools beside those that rules and registry know, each with the arguments of the call, or null.
    #[serde(default)]
    tools: BTreeMap<String, Option<Box<RawValue>>>,
}

/// An agent, in the words that rules and audit records have for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentAsked {
    agent: Box<str>,
    #[serde(default)]
    issuer: Box<str>,
    instance: Option<Box<str>>,
    r#type: Option<Box<str>>,
    provider: Option<Box<str>>,
    model: Option<Box<str>>,
    version: Option<Box<str>>,
    #[serde(default)]
    capabilities: Vec<Box<str>>,
    trust_level: Option<Box<str>>,
    #[serde(default)]
    attestation: Attested,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Attested {
    #[default]
    Unverified,
    Verified,
}

#[derive(Serialize)]
pub(super) struct Reply {
    route: Arc<str>,
    server: Arc<str>,
    /// What became of the agent: `considered`, `none`, `ignored` (the route looks for none) or `missing` (it requires one, so
    /// every call is refused).
    agent: &'static str,
    /// What happens where no rule matches.
    default: &'static str,
    tools: Vec<ToolView>,
}

#[derive(Serialize)]
struct ToolView {
    tool: String,
    /// `allow`, `deny` or `depends`.
    verdict: &'static str,
    /// The rule that decides; null: the default.
    rule: Option<Arc<str>>,
    /// What it does when no rule of `depends_on` does.
    effect: &'static str,
    depends_on: Vec<RuleView>,
    /// What the registry says beside the rules: `open`, or that the call is refused all the same; null where it does not govern.
    registry: Option<&'static str>,
    /// Scopes that would have the call permitted.
    missing_scopes: Option<Vec<String>>,
    /// Whether arguments were given.
    with_arguments: bool,
}

#[derive(Serialize)]
struct RuleView {
    rule: Arc<str>,
    effect: &'static str,
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    Extension(deed): Extension<Deed>,
    Body(question): Body<Question>,
) -> Answer<Json<Reply>> {
    deed.target(question.route.as_str());
    let world = admin.live.take();
    let route = world.route(&question.route).ok_or_else(Problem::not_found)?;
    if question.tools.len() > TOOLS_MAX {
        return Err(Problem::invalid(format!("at most {TOOLS_MAX} tools")));
    }
    let server = route.server.name();
    let who = imagined(question.claims, &question.scopes, route.issuers.first().map(|issuer| &*issuer.config));
    let agent = question.agent.map(|agent| agent.imagined(&who));
    let agent_word = match (&route.agents, &agent) {
        (Some(_), Some(_)) => "considered",
        (Some(agents), None) if agents.required => "missing",
        (None, Some(_)) => "ignored",
        (_, None) => "none",
    };
    let headers = HeaderMap::new();
    let host = admin.live.peek().config.allowed_hosts.first().cloned().unwrap_or_default();
    let now = admin.clock.now();
    let identity = route.server.proof.as_ref().and_then(|proof| proof.current(now));
    let facts = Facts {
        now,
        http_method: "POST",
        host: &host,
        path: &route.config.path,
        headers: &headers,
        client_ip: None,
        client_certificate: None,
        // Where a route looks for no agent, rules see none.
        agent: agent.as_ref().filter(|_agent| route.agents.is_some()).map(ImaginedAgent::as_rules_see_it),
        server_identity: identity.as_deref(),
        body_bytes: 0,
        region: None,
        revision: Revision::V2025_11_25,
    };
    let offered = offered_tools(&admin, server);
    let mut names: BTreeSet<&str> = route.policy.tools_named(server).into_iter().take(TOOLS_MAX).collect();
    names.extend(offered.iter().map(|name| &**name));
    names.extend(question.tools.keys().map(String::as_str));
    let mut tools = Vec::with_capacity(names.len());
    for name in names {
        let arguments = question.tools.get(name).and_then(Option::as_deref);
        let call = arguments.map(|arguments| call_of(name, arguments)).transpose()?;
        let message = call.as_ref().and_then(|call| call.messages.first());
        let explained = policy::explain(&route.policy, &who, server, name, message, &facts);
        let registry = registry_says(&world, &route.server, name);
        tools.push(ToolView::of(name, explained, registry, message.is_some()));
    }
    let default = word(route.config.default);
    let (route, server) = (Arc::clone(&route.config.path), Arc::clone(server));
    Ok(Json(Reply { route, server, agent: agent_word, default, tools }))
}

/// What becomes of a call that the rules permit, as the data plane has it.
fn registry_says(world: &Snapshot, server: &Server, tool: &str) -> Option<&'static str> {
    let governed = server.config.governed.as_ref()?;
    let Some(standing) = world.catalog.server(server.name()).filter(|standing| standing.is_open()) else {
        return Some("server_suspended");
    };
    if governed.pins == Pins::Off || !governed.kinds.contains(&ItemKind::Tool) {
        return Some("open");
    }
    Some(match standing.call(ItemKind::Tool, tool) {
        Standing::Quarantined(_cause) if governed.pins == Pins::Enforce => "quarantined",
        Standing::Suspended => "suspended",
        Standing::Open | Standing::Quarantined(_) => "open",
    })
}

/// The tools that the registry knows of a server; none when it is not governed.
fn offered_tools(admin: &Admin, server: &str) -> Vec<Box<str>> {
    let mut names = Vec::new();
    let Some(governance) = &admin.governance else { return names };
    let filter = ItemFilter { kind: Some(ItemKind::Tool), standing: None };
    let mut page = Page { after: None, limit: Some(PAGE_MAX) };
    while let Ok(found) = governance.items(server, &filter, &page) {
        names.extend(found.items.into_iter().map(|item| item.name));
        if found.next.is_none() || names.len() >= TOOLS_MAX {
            break;
        }
        page.after = found.next;
    }
    names
}

/// Somebody with these claims, as a token of the route's first issuer would make them.
fn imagined(
    mut claims: Map<String, Value>,
    scopes: &[String],
    issuer: Option<&crate::config::IssuerConfig>,
) -> Imagined {
    let mut scopes: Vec<Box<str>> = scopes.iter().map(|scope| scope.as_str().into()).collect();
    for name in issuer.map_or(&[][..], |issuer| &issuer.scope_claims) {
        match claims.remove(&**name) {
            Some(Value::String(held)) => scopes.extend(held.split(' ').map(Into::into)),
            Some(Value::Array(held)) => scopes.extend(held.iter().filter_map(Value::as_str).map(Into::into)),
            _ => {}
        }
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let principal = Principal {
        issuer: text("iss").or(issuer.map(|issuer| &*issuer.issuer)).unwrap_or_default().into(),
        subject: text("sub").unwrap_or("somebody").into(),
    };
    Imagined::new(principal, Scopes::new(scopes), claims)
}

impl AgentAsked {
    /// Acting for `who`, unless it is they.
    fn imagined(self, who: &Imagined) -> ImaginedAgent {
        let subject = &who.principal().subject;
        ImaginedAgent::new(Description {
            delegator: (**subject != *self.agent).then(|| (&**subject).into()),
            agent: self.agent,
            issuer: self.issuer.into(),
            instance: self.instance,
            kind: self.r#type,
            provider: self.provider,
            model: self.model,
            version: self.version,
            capabilities: self.capabilities,
            trust_level: self.trust_level,
            is_attested: self.attestation == Attested::Verified,
        })
    }
}

/// The call as a client would send it, read as strictly as one.
fn call_of(tool: &str, arguments: &RawValue) -> Answer<McpRequest> {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments },
    });
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("mcp-protocol-version"), HeaderValue::from_static("2025-11-25"));
    let bounds = ClassifyLimits { json_depth: JSON_DEPTH_MAX, batch_messages: 1 };
    mcp::classify(&headers, body.to_string().into(), &bounds)
        .map_err(|unclassified| Problem::invalid(unclassified.error.public_message()))
}

impl ToolView {
    fn of(tool: &str, explained: Explained, registry: Option<&'static str>, with_arguments: bool) -> Self {
        let Explained { verdict, rule, effect, depends_on, challenge } = explained;
        Self {
            tool: tool.to_owned(),
            verdict: match verdict {
                Verdict::Allow => "allow",
                Verdict::Deny => "deny",
                Verdict::Depends => "depends",
            },
            rule,
            effect: word(effect),
            depends_on: depends_on.into_iter().map(|(rule, effect)| RuleView { rule, effect: word(effect) }).collect(),
            registry,
            missing_scopes: challenge.map(|scopes| scopes.iter().map(str::to_owned).collect()),
            with_arguments,
        }
    }
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

const TOOLS_MAX: usize = 5000;
const JSON_DEPTH_MAX: usize = 64;
