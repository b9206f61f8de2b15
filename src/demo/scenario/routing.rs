//! Where does it go? Routing by who asks, what and how much, a canary, and a rule that lets nothing out.

use serde_json::{Value, json};

use crate::demo::call::{Call, Sender};
use crate::demo::selfcheck::{Seen, SelfCheck, Unheld, expect};

use super::{Additions, Step};

pub(super) const INTRODUCTION: &str = "Scenario: routing. Instance a is version v1 in the EU, b is v2 in the US with much memory. Rules of the server say which
of them a request may go to.
";

pub(super) fn additions() -> Additions {
    Additions {
        sections: r"
region: { networks: [{ network: 127.0.0.0/8, region: eu }] }
",
        server: r#"    routing:
      - { name: beta, when: 'principal.subject == "bob"', to: { version: v2 } }
      - { name: large, when: 'request.bytes > 4096', to: { labels: { memory: high } } }
      - { name: eu, tools: [counter], when: 'request.region == "eu"', to: { region: eu }, strict: true }
      - { name: unsure, tools: [slow], when: 'claims.home == "eu"', to: { region: eu }, strict: true }
      - name: canary
        tools: [whoami]
        split: [{ to: { version: v1 }, weight: 50 }, { to: { version: v2 }, weight: 50 }]
        sticky: principal
        abort_when: { error_rate_above: 0.05, over: 60s, at_least: 50 }
    default: { version: v1 }
    circuit: { consecutive_failures: 5 }
"#,
        instances: [", version: v1, region: eu", ", version: v2, region: us, labels: { memory: high }"],
        ..Additions::default()
    }
}

pub(super) fn steps(check: &SelfCheck) -> Vec<Step<'_>> {
    vec![
        ("Audience: bob goes to the beta, alice does not", Box::pin(audience(check))),
        ("Size: a large request goes where there is memory", Box::pin(size(check))),
        ("Region: what comes from the EU stays there", Box::pin(region(check))),
        ("A canary: the same caller is always on the same side", Box::pin(canary(check))),
        ("A session stays on its instance, whatever the rules say", Box::pin(session(check))),
        ("A strict rule that cannot be judged lets nothing out", Box::pin(strict(check))),
        ("Metrics and audit tell of all this", Box::pin(recorded(check))),
    ]
}

fn counter() -> Call {
    Call::modern_tool("counter", json!({}))
}

fn whoami() -> Call {
    Call::modern_tool("whoami", json!({}))
}

/// The instance that says it has answered.
async fn instance(check: &SelfCheck, call: &Call, sender: Sender<'_>) -> Result<String, Unheld> {
    let answer = check.send(call, sender).await?;
    expect("status", answer.status, 200)?;
    let instance = answer.structured().get("instance").and_then(Value::as_str).map(str::to_owned);
    instance.ok_or_else(|| Unheld::Other(format!("no instance: {}", answer.result())))
}

async fn audience(check: &SelfCheck) -> Seen {
    for _ in 0..3 {
        expect("bob's instance", instance(check, &counter(), check.tokens.bob()).await?.as_str(), "b")?;
        expect("alice's instance", instance(check, &counter(), check.tokens.alice()).await?.as_str(), "a")?;
    }
    Ok(vec!["b answers bob, by rule beta".to_owned(), "a answers alice".to_owned()])
}

async fn size(check: &SelfCheck) -> Seen {
    let echo = Call::modern_tool("echo", json!({ "text": "x".repeat(8192) }));
    expect("status", check.send(&echo, check.tokens.alice()).await?.status, 200)?;
    let record = routed(check, "large").await?;
    expect("instance", record.get("instance"), Some(&json!("b")))?;
    Ok(vec!["b answers alice's 8 KiB, by rule large".to_owned()])
}

async fn region(check: &SelfCheck) -> Seen {
    for _ in 0..3 {
        expect("instance", instance(check, &counter(), check.tokens.alice()).await?.as_str(), "a")?;
    }
    let record = routed(check, "eu").await?;
    expect("region", record.pointer("/routing/region"), Some(&json!("eu")))?;
    Ok(vec!["127.0.0.1 is in region eu: a answers".to_owned()])
}

async fn canary(check: &SelfCheck) -> Seen {
    let first = instance(check, &whoami(), check.tokens.alice()).await?;
    for _ in 0..4 {
        expect("instance", instance(check, &whoami(), check.tokens.alice()).await?, first.clone())?;
    }
    let record = routed(check, "canary").await?;
    let side = record.pointer("/routing/split").cloned().unwrap_or(Value::Null);
    Ok(vec![format!("alice is on side {side}: {first} answers five times of five")])
}

async fn session(check: &SelfCheck) -> Seen {
    let opened = check.send(&Call::initialize(), check.tokens.bob()).await?;
    let id = opened.header("mcp-session-id").to_owned();
    expect("status", check.send(&Call::initialized(&id), check.tokens.bob()).await?.status, 202)?;
    let counter = Call::tool_in_session(&id, "counter", json!({}));
    for count in 1..=3 {
        let answer = check.send(&counter, check.tokens.bob()).await?;
        expect("instance", answer.structured().get("instance"), Some(&json!("b")))?;
        expect("count", answer.structured().get("count"), Some(&json!(count)))?;
    }
    Ok(vec!["bob's session began at b, and counts 1, 2, 3 there".to_owned()])
}

async fn strict(check: &SelfCheck) -> Seen {
    let before = check.requests_seen();
    let slow = Call::modern_tool("slow", json!({ "seconds": 0, "steps": 1 }));
    let answer = check.send(&slow, check.tokens.alice()).await?;
    expect("status", answer.status, 503)?;
    expect("reason", answer.reason(), "no_instance_in_region")?;
    expect("requests that reached an instance", check.requests_seen() - before, 0)?;
    Ok(vec!["503  no_instance_in_region: her token has no claim home, and no instance has seen anything".to_owned()])
}

async fn recorded(check: &SelfCheck) -> Seen {
    let name = "portcullis_routing_decisions_total";
    let total = check.metric(name).await?;
    if total <= 0.0 {
        return Err(Unheld::Other(format!("{name} is {total}")));
    }
    let record = routed(check, "beta").await?;
    let routing = record.get("routing").cloned().unwrap_or(Value::Null);
    Ok(vec![format!("{name} = {total}"), format!("audit: \"routing\":{routing}")])
}

/// The audit record of a call that this rule has placed.
async fn routed(check: &SelfCheck, rule: &str) -> Result<Value, Unheld> {
    let what = format!("a call placed by rule {rule}");
    check.audit_record(&what, |record| record.pointer("/routing/rule") == Some(&json!(rule))).await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use saphyr::{LoadableYamlNode as _, Yaml};

    use super::*;

    #[test]
    fn what_is_added_is_yaml_with_a_rule_for_every_kind_of_context() {
        let text = format!("server:\n{}", additions().server);
        let documents = Yaml::load_from_str(&text).unwrap();
        let rules = documents.first().unwrap().as_mapping_get("server").unwrap();
        let rules = rules.as_mapping_get("routing").unwrap().as_vec().unwrap();
        for key in ["when", "tools", "to", "split", "strict", "sticky", "abort_when"] {
            assert!(rules.iter().any(|rule| rule.as_mapping_get(key).is_some()), "{key}");
        }
    }
}
