//! Messages, rules and verdicts in few words.

use std::sync::{Arc, LazyLock};

use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::identity::Caller;
use crate::mcp::{JsonText, Message, MessageKind, Method, RequestId, Revision, Target};
use crate::policy::rule::{ClaimKind, ClaimSpec, RuleSpec, TargetEntry, TargetSpec};
use crate::policy::{Decision, Effect, Facts, Item, Policy, Question, decide, is_visible};
use crate::time::UnixSeconds;

/// 2026-07-27T09:30:00Z, a Monday.
pub(in crate::policy) const NOW: UnixSeconds = UnixSeconds(1_785_144_600);

static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

pub(in crate::policy) fn caller(scopes: &[&str], claims: Value) -> Caller {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    Caller::for_test(scopes, claims)
}

pub(in crate::policy) fn facts() -> Facts<'static> {
    Facts {
        now: NOW,
        http_method: "POST",
        host: "mcp.test",
        path: "/mcp",
        headers: &NO_HEADERS,
        client_ip: Some("192.0.2.7".parse().unwrap()),
        client_certificate: None,
        agent: None,
        server_identity: None,
        body_bytes: 300,
        region: None,
        revision: Revision::V2025_11_25,
    }
}

pub(in crate::policy) fn message(method: Method, target: Target, params: Value) -> Message {
    let text = |value: &Value| JsonText::new(value.to_string().into());
    let kind = if method.is_notification() {
        MessageKind::Notification { method }
    } else {
        MessageKind::Request { id: RequestId::from_json("1"), method }
    };
    Message {
        kind,
        target,
        arguments: params.get("arguments").map(text),
        meta: params.get("_meta").map(text),
        params: Some(text(&params)),
    }
}

pub(in crate::policy) fn call(tool: &str, arguments: Value) -> Message {
    message(Method::ToolsCall, Target::Tool(tool.into()), json!({"name": tool, "arguments": arguments}))
}

pub(in crate::policy) fn read(uri: &str) -> Message {
    message(Method::ResourcesRead, Target::Resource(uri.into()), json!({"uri": uri}))
}

pub(in crate::policy) fn bare(method: Method) -> Message {
    message(method, Target::None, json!({}))
}

/// A rule that allows everything, to be narrowed.
pub(in crate::policy) fn allow() -> RuleSpec {
    RuleSpec {
        name: "allow".into(),
        effect: Effect::Allow,
        scopes: vec![],
        claims: vec![],
        agent: None,
        target: TargetSpec::default(),
        when: None,
    }
}

/// A rule that denies everything, to be narrowed.
pub(in crate::policy) fn deny() -> RuleSpec {
    RuleSpec { name: "deny".into(), effect: Effect::Deny, ..allow() }
}

pub(in crate::policy) trait Narrow {
    fn named(self, name: &str) -> RuleSpec;
    fn scopes(self, scopes: &[&str]) -> RuleSpec;
    fn claim(self, name: &str, value: &str) -> RuleSpec;
    fn when(self, when: &str) -> RuleSpec;
    fn tool(self, name: &str) -> RuleSpec;
    fn tool_when(self, name: &str, when: &str) -> RuleSpec;
    fn prompt(self, name: &str) -> RuleSpec;
    fn resource(self, uri: &str) -> RuleSpec;
    fn method(self, name: &str) -> RuleSpec;
}

fn entry(name: &str, when: Option<&str>) -> TargetEntry {
    TargetEntry { server: None, name: name.into(), glob: true, when: when.map(Into::into) }
}

impl Narrow for RuleSpec {
    fn named(self, name: &str) -> RuleSpec {
        RuleSpec { name: name.into(), ..self }
    }

    fn scopes(self, scopes: &[&str]) -> RuleSpec {
        RuleSpec { scopes: scopes.iter().map(|scope| (*scope).into()).collect(), ..self }
    }

    fn claim(mut self, name: &str, value: &str) -> RuleSpec {
        self.claims.push(ClaimSpec { name: name.into(), kind: ClaimKind::String, values: vec![value.into()] });
        self
    }

    fn when(self, when: &str) -> RuleSpec {
        RuleSpec { when: Some(when.into()), ..self }
    }

    fn tool(mut self, name: &str) -> RuleSpec {
        self.target.tools.push(entry(name, None));
        self
    }

    fn tool_when(mut self, name: &str, when: &str) -> RuleSpec {
        self.target.tools.push(entry(name, Some(when)));
        self
    }

    fn prompt(mut self, name: &str) -> RuleSpec {
        self.target.prompts.push(entry(name, None));
        self
    }

    fn resource(mut self, uri: &str) -> RuleSpec {
        self.target.resources.push(entry(uri, None));
        self
    }

    fn method(mut self, name: &str) -> RuleSpec {
        self.target.methods.push(name.into());
        self
    }
}

pub(in crate::policy) fn servers() -> Vec<Arc<str>> {
    vec!["crm".into(), "files".into()]
}

pub(in crate::policy) fn policy(rules: &[RuleSpec]) -> Policy {
    Policy::compile(Effect::Deny, rules, &servers()).unwrap()
}

pub(in crate::policy) fn open_policy(rules: &[RuleSpec]) -> Policy {
    Policy::compile(Effect::Allow, rules, &servers()).unwrap()
}

pub(in crate::policy) fn ask(policy: &Policy, caller: &Caller, message: &Message) -> Decision {
    decide(policy, &Question { caller, server: "crm", message, facts: &facts() })
}

pub(in crate::policy) fn sees(policy: &Policy, caller: &Caller, item: Item<'_>) -> bool {
    is_visible(policy, caller, "crm", item, &facts())
}

/// A decision on one line: `permit`, `permit by readers`, `deny`, `deny by no-purge`, `deny for a b`.
pub(in crate::policy) fn verdict(decision: &Decision) -> String {
    match decision {
        Decision::Permit(permit) => {
            permit.rule().map_or_else(|| "permit".to_owned(), |rule| format!("permit by {rule}"))
        }
        Decision::Deny(denial) => {
            let by = denial.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
            let wanted = denial.challenge.as_ref().map(|scopes| {
                let scopes: Vec<&str> = scopes.iter().collect();
                format!(" for {}", scopes.join(" "))
            });
            format!("deny{by}{}", wanted.unwrap_or_default())
        }
    }
}

pub(in crate::policy) fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("not an object") };
    members
}
