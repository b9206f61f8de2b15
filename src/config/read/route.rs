//! `routes`: the public paths, and the rules of each.

use serde_json::Value as Json;

use super::{Compile, Names, agents, content, reference};
use crate::config::RouteConfig;
use crate::config::fields::{Fields, Value};
use crate::config::problem::Complaint;
use crate::config::secrets::Look;
use crate::config::values::{self, quote};
use crate::config::yaml::Kind;
use crate::mcp::Method;
use crate::policy::Effect;
use crate::policy::rule::{AgentSpec, ClaimKind, ClaimSpec, RuleSpec, TargetEntry, TargetSpec};

/// What the rules of a route are read with.
#[derive(Clone, Copy)]
pub(super) struct Rules<'r> {
    pub(super) compile: Compile<'r>,
    pub(super) plain_http_hosts: &'r [String],
    pub(super) look: Look<'r>,
}

pub(super) fn route(value: &Value<'_>, public_url: &str, names: &Names<'_>, with: Rules<'_>) -> Option<RouteConfig> {
    value.map(|fields| {
        let path = fields.required("path", |v| v.parse(values::route_path));
        let servers = fields.find_either("servers");
        let servers = fields.must("servers", servers).and_then(|list| {
            let servers = list.some(|v| reference(v, "server", &names.servers))?;
            if servers.len() > 1 {
                list.complain("names several servers", "name one; several servers behind one route come later");
                return None;
            }
            Some(servers)
        });
        let issuers = fields.required("issuers", |v| v.some(|v| reference(v, "issuer", &names.issuers)));
        let scopes = |v: &Value<'_>| v.list(|v| v.parse(values::scope).map(Box::from));
        let scopes_supported = fields.or("scopes_supported", Vec::new(), scopes);
        let agents = fields.optional("agents", |v| agents::agent_use(v, names));
        let content = content::content(fields, with.plain_http_hosts, with.look);
        let rules_at = fields.map().follow("authorization.rules");
        let authorization = fields.or("authorization", (Effect::Deny, Vec::new()), |v| authorization(v, names));

        let (default, rules) = authorization?;
        if fields.map().follow("agents").path == fields.map().path {
            for (nth, _) in rules.iter().enumerate().filter(|(_, rule)| rule.agent.is_some()) {
                let place = rules_at.follow(&format!("[{nth}].source.agent"));
                place.complain(
                    "no agent is looked for on this route",
                    "write agents: optional or required on the route",
                );
            }
        }
        // The rules are checked even when the rest of the route is not in order, so that all problems come at once.
        let route = RouteConfig {
            path: path.unwrap_or_default().into(),
            resource: format!("{public_url}{}", path.unwrap_or_default()).into(),
            servers: servers.clone().unwrap_or_default(),
            issuers: issuers.clone().unwrap_or_default(),
            agents: agents.flatten(),
            scopes_supported: scopes_supported.clone().unwrap_or_default(),
            default,
            rules,
            content: content.clone().unwrap_or_default(),
        };
        let compiles = check_rules(&route, &rules_at, with.compile);
        (path.is_some()
            && servers.is_some()
            && issuers.is_some()
            && scopes_supported.is_some()
            && agents.is_some()
            && content.is_some()
            && compiles)
            .then_some(route)
    })
}

/// Notes what compiling the rules has found, each issue at its own line.
fn check_rules(route: &RouteConfig, rules: &Value<'_>, compile: Compile<'_>) -> bool {
    let issues = compile(route);
    for issue in &issues {
        let place = rules.follow(&format!("[{}].{}", issue.rule, issue.path));
        place.complain(issue.message.clone(), "correct the expression, or remove it");
    }
    issues.is_empty()
}

fn authorization(value: &Value<'_>, names: &Names<'_>) -> Option<(Effect, Vec<RuleSpec>)> {
    value.map(|fields| {
        let default = fields.or("default", Effect::Deny, effect);
        let rules = fields.or("rules", Vec::new(), |list| {
            list.refuse_repeated("name");
            let rules: Vec<Option<RuleSpec>> = list
                .items()?
                .iter()
                .enumerate()
                .map(|(nth, value)| value.map(|fields| rule(fields, nth + 1, names)))
                .collect();
            rules.into_iter().collect()
        });
        Some((default?, rules?))
    })
}

/// Capital letters as in Envoy's MCPRoute are accepted.
fn effect(value: &Value<'_>) -> Option<Effect> {
    value.parse(|text| {
        let words = [("allow", Effect::Allow), ("deny", Effect::Deny)];
        values::word(&text.to_ascii_lowercase(), &words)
    })
}

fn rule(fields: &mut Fields<'_, '_>, nth: usize, names: &Names<'_>) -> Option<RuleSpec> {
    let name = fields.optional("name", |v| v.string::<Box<str>>());
    let effect = fields.or("action", Effect::Allow, effect);
    let source = fields.or("source", Source::default(), source);
    let target = fields.or("target", TargetSpec::default(), |v| target(v, names));
    let when = when(fields);
    let Source { scopes, claims, agent } = source?;
    Some(RuleSpec {
        name: name?.unwrap_or_else(|| format!("rule-{nth}").into()),
        effect: effect?,
        scopes,
        claims,
        agent,
        target: target?,
        when: when?,
    })
}

fn when(fields: &mut Fields<'_, '_>) -> Option<Option<Box<str>>> {
    match fields.find_either("when") {
        Some(value) => value.text_or_blank().map(|text| Some(text.into())),
        None => Some(None),
    }
}

/// What a rule asks of who calls.
#[derive(Default)]
struct Source {
    scopes: Vec<Box<str>>,
    claims: Vec<ClaimSpec>,
    agent: Option<AgentSpec>,
}

/// A condition that holds for everybody is written by leaving it out: an empty list is more likely what a template left.
fn source(value: &Value<'_>) -> Option<Source> {
    value.map(|fields| {
        let agent = fields.optional("agent", agents::source);
        let (scopes, claims) = match fields.find("jwt") {
            Some(jwt) => jwt_source(&jwt)?,
            None if matches!(agent, Some(None)) => {
                // Says that it is missing.
                fields.must("jwt", None)?;
                return None;
            }
            None => (Vec::new(), Vec::new()),
        };
        Some(Source { scopes, claims, agent: agent? })
    })
}

fn jwt_source(jwt: &Value<'_>) -> Option<(Vec<Box<str>>, Vec<ClaimSpec>)> {
    jwt.map(|fields| {
        let scopes = fields.optional("scopes", |v| v.some(|v| v.parse(values::scope).map(Box::from)));
        let claims = fields.optional("claims", |v| v.some(claim));
        let (scopes, claims) = (scopes?, claims?);
        if scopes.is_none() && claims.is_none() {
            jwt.complain("asks for nothing", "name scopes or claims, or leave source out to mean every caller");
            return None;
        }
        Some((scopes.unwrap_or_default(), claims.unwrap_or_default()))
    })
}

fn claim(value: &Value<'_>) -> Option<ClaimSpec> {
    let words = [
        ("string", ClaimKind::String),
        ("string_array", ClaimKind::StringArray),
        ("number", ClaimKind::Number),
        ("boolean", ClaimKind::Boolean),
        // As Envoy's MCPRoute writes them.
        ("String", ClaimKind::String),
        ("StringArray", ClaimKind::StringArray),
    ];
    value.map(|fields| {
        let name = fields.required("name", |v| v.string::<Box<str>>());
        let kind = fields.or("type", ClaimKind::String, |v| v.parse(|text| values::word(text, &words)));
        let values = fields.find("values");
        let values = fields.must("values", values).zip(kind).and_then(|(v, kind)| v.some(|v| claim_value(v, kind)));
        Some(ClaimSpec { name: name?, kind: kind?, values: values? })
    })
}

fn claim_value(value: &Value<'_>, kind: ClaimKind) -> Option<Json> {
    match kind {
        ClaimKind::Boolean => value.flag().map(Json::Bool),
        ClaimKind::Number => {
            let number = if let Kind::Integer(number) = value.kind() {
                Some((*number).into())
            } else if let Kind::Number(number) = value.kind() {
                serde_json::Number::from_f64(*number)
            } else {
                None
            };
            if number.is_none() {
                value.complain("must be a number, as the claim's type says", "write it without quotes");
            }
            number.map(Json::Number)
        }
        ClaimKind::String | ClaimKind::StringArray => value.text_or_blank().map(Json::from),
    }
}

fn target(value: &Value<'_>, names: &Names<'_>) -> Option<TargetSpec> {
    value.map(|fields| {
        let tools = fields.optional("tools", |v| v.some(|v| entry(v, "tool", names)));
        let prompts = fields.optional("prompts", |v| v.some(|v| entry(v, "prompt", names)));
        let resources = fields.optional("resources", |v| v.some(|v| entry(v, "uri", names)));
        let methods = fields.optional("methods", |v| v.some(|v| v.parse(method)));
        let target = TargetSpec {
            tools: tools?.unwrap_or_default(),
            prompts: prompts?.unwrap_or_default(),
            resources: resources?.unwrap_or_default(),
            methods: methods?.unwrap_or_default(),
        };
        if target.is_empty() {
            let hint = "name tools, prompts, resources or methods, or leave target out to mean every one";
            value.complain("names nothing", hint);
            return None;
        }
        Some(target)
    })
}

fn entry(value: &Value<'_>, key: &'static str, names: &Names<'_>) -> Option<TargetEntry> {
    value.map(|fields| {
        let server = match fields.find_either("server") {
            Some(server) => reference(&server, "server", &names.servers).map(|name| Some(Box::from(&*name))),
            None => Some(None),
        };
        let name = fields.find_either(key);
        let name = fields.must(key, name).and_then(|v| v.string::<Box<str>>());
        let glob = fields.or("glob", true, Value::flag);
        let when = when(fields);
        Some(TargetEntry { server: server?, name: name?, glob: glob?, when: when? })
    })
}

/// A name on the wire, or the beginning of one: a rule about a method that does not exist would never apply.
fn method(text: &str) -> Result<Box<str>, Complaint> {
    let known = match text.strip_suffix('*') {
        Some(prefix) => Method::ALL.iter().any(|method| method.as_str().starts_with(prefix)),
        None => Method::parse(text).is_some(),
    };
    if known {
        return Ok(text.into());
    }
    let hint = match values::nearest(text, Method::ALL.iter().map(|method| method.as_str())) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "write one of MCP, e.g. tools/call, or the beginning of some, e.g. tasks/*".to_owned(),
    };
    Err(Complaint::new(format!("{} is not a method", quote(text)), hint))
}
