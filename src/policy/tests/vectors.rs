//! The shared authorization vectors, once per revision: the verdict must not depend on it (a downgraded
//! `MCP-Protocol-Version` skipped per-tool scopes in mcp-toolbox, CVE-2026-11719).

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::identity::{Caller, Scopes};
use crate::mcp::{Message, Method, Revision, Target};
use crate::policy::rule::{ClaimKind, ClaimSpec, RuleSpec, TargetEntry, TargetSpec};
use crate::policy::{Decision, DenialReason, Effect, Facts, Item, Policy, Question, decide, is_visible};

#[test]
fn every_vector_decides_as_written_in_every_revision() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/authorization.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 35);
    for vector in vectors {
        for revision in Revision::ALL {
            check(vector, revision);
        }
    }
}

fn check(vector: &Value, revision: Revision) {
    let id = format!("{} ({revision})", vector["id"].as_str().unwrap());
    let request = &vector["request"];
    let server = request["server"].as_str().unwrap();
    let rules: Vec<RuleSpec> =
        vector["authorization"]["rules"].as_array().unwrap().iter().enumerate().map(rule).collect();
    let default = effect(&vector["authorization"]["default"]);
    let policy = Policy::compile(default, &rules, &["crm".into(), "files".into()]).unwrap();
    let caller = vector_caller(&vector["claims"]);
    let headers = headers(&request["headers"]);
    let facts = Facts {
        http_method: request["http_method"].as_str().unwrap(),
        host: request["host"].as_str().unwrap(),
        path: request["path"].as_str().unwrap(),
        headers: &headers,
        revision,
        ..facts()
    };
    let allowed = vector["expect"]["decision"] == "allow";
    let tool = request["tool"].as_str().unwrap();
    if vector["evaluation"] == "list" {
        assert_eq!(is_visible(&policy, &caller, server, Item::Tool(tool), &facts), allowed, "{id}");
        return;
    }
    let message = vector_message(request, revision);
    let decision = decide(&policy, &Question { caller: &caller, server, message: &message, facts: &facts });
    let challenge = vector["expect"]["challenge_scopes"]
        .as_array()
        .map(|scopes| Scopes::new(scopes.iter().map(|scope| scope.as_str().unwrap())));
    match decision {
        Decision::Permit(_) => assert!(allowed, "{id} was permitted"),
        Decision::Deny(denial) => {
            assert!(!allowed, "{id} was denied: {denial:?}");
            let reason = if challenge.is_some() { DenialReason::InsufficientScope } else { DenialReason::Denied };
            assert_eq!((denial.reason, denial.challenge), (reason, challenge), "{id}");
        }
    }
}

fn vector_message(request: &Value, revision: Revision) -> Message {
    let mut params = json!({"name": request["params_name"], "arguments": request["arguments"]});
    if revision == Revision::V2026_07_28 {
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": revision.as_str()});
    }
    message(Method::ToolsCall, Target::Tool(request["tool"].as_str().unwrap().into()), params)
}

/// What identity makes of a token: scopes are the union of the scope claims, which leave the claims.
fn vector_caller(claims: &Value) -> Caller {
    let mut claims = object(claims.clone());
    let scopes: Vec<Value> = ["scope", "scp"].into_iter().filter_map(|name| claims.remove(name)).collect();
    let scopes: Vec<&str> = scopes.iter().flat_map(|scopes| scopes.as_str().unwrap().split(' ')).collect();
    Caller::for_test(&scopes, claims)
}

fn headers(written: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in written.as_object().unwrap() {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        for value in values {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
    }
    headers
}

fn effect(action: &Value) -> Effect {
    match action.as_str() {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        other => panic!("{other:?}"),
    }
}

fn rule((index, written): (usize, &Value)) -> RuleSpec {
    let jwt = &written["source"]["jwt"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(Into::into);
    RuleSpec {
        name: format!("rule-{}", index + 1).into(),
        effect: effect(&written["action"]),
        scopes: list(&jwt["scopes"]).iter().filter_map(text).collect(),
        claims: list(&jwt["claims"])
            .iter()
            .map(|claim| ClaimSpec {
                name: text(&claim["name"]).unwrap(),
                kind: match claim["type"].as_str() {
                    Some("string") => ClaimKind::String,
                    Some("string_array") => ClaimKind::StringArray,
                    other => panic!("{other:?}"),
                },
                values: list(&claim["values"]),
            })
            .collect(),
        agent: None,
        target: TargetSpec {
            tools: list(&written["target"]["tools"])
                .iter()
                .map(|tool| TargetEntry {
                    server: text(&tool["server"]),
                    name: text(&tool["tool"]).unwrap(),
                    glob: true,
                    when: text(&tool["when"]),
                })
                .collect(),
            ..TargetSpec::default()
        },
        when: text(&written["when"]),
    }
}
