//! Does an explanation say what a decision would?

use serde_json::json;

use super::kit::*;
use crate::identity::{Imagined, Principal, Scopes};
use crate::policy::{Decision, Effect, Explained, Policy, Verdict, explain};

fn imagined(scopes: &[&str], claims: serde_json::Value) -> Imagined {
    let principal = Principal { issuer: "https://idp.test".into(), subject: "alice".into() };
    Imagined::new(principal, Scopes::new(scopes.iter().copied()), object(claims))
}

fn of(policy: &Policy, who: &Imagined, tool: &str) -> Explained {
    explain(policy, who, "crm", tool, None, &facts())
}

fn depends_on(explained: &Explained) -> Vec<(&str, Effect)> {
    explained.depends_on.iter().map(|(rule, effect)| (&**rule, *effect)).collect()
}

#[test]
fn the_first_rule_that_must_match_decides() {
    let policy =
        policy(&[deny().named("no-purge").tool("purge"), allow().named("readers").scopes(&["read"]).tool("*")]);
    let (reader, nobody) = (imagined(&["read"], json!({})), imagined(&[], json!({})));
    let cases = [
        (&reader, "purge", Verdict::Deny, Some("no-purge")),
        (&reader, "get", Verdict::Allow, Some("readers")),
        (&nobody, "get", Verdict::Deny, None),
    ];
    for (who, tool, verdict, rule) in cases {
        let explained = of(&policy, who, tool);
        assert_eq!((explained.verdict, explained.rule.as_deref()), (verdict, rule), "{tool}");
    }
}

#[test]
fn what_reads_arguments_is_told_as_such() {
    let policy = policy(&[
        deny().named("no-secrets").tool_when("echo", r#"args.text.contains("secret")"#),
        allow().named("polite").tool_when("echo", r#"args.text.startsWith("Hello")"#),
        allow().named("admins").claim("role", "admin").tool("echo"),
    ]);
    let explained = of(&policy, &imagined(&[], json!({})), "echo");
    assert_eq!(
        (explained.verdict, explained.effect, explained.rule.as_deref()),
        (Verdict::Depends, Effect::Deny, None)
    );
    assert_eq!(depends_on(&explained), [("no-secrets", Effect::Deny), ("polite", Effect::Allow)]);

    let explained = of(&policy, &imagined(&[], json!({ "role": "admin" })), "echo");
    assert_eq!((explained.verdict, explained.effect), (Verdict::Depends, Effect::Allow));
    assert_eq!(explained.rule.as_deref(), Some("admins"));
}

/// A condition whose outcome changes nothing is no reason to say "it depends".
#[test]
fn what_could_turn_out_either_way_but_does_the_same_decides_nothing() {
    let policy = policy(&[deny().named("some").tool_when("echo", "args.x == 1"), deny().named("all").tool("echo")]);
    let explained = of(&policy, &imagined(&[], json!({})), "echo");
    assert_eq!((explained.verdict, explained.rule.as_deref()), (Verdict::Deny, Some("all")));
    assert_eq!(depends_on(&explained), []);
}

#[test]
fn with_arguments_it_is_the_decision_itself() {
    let policy =
        policy(&[allow().named("polite").scopes(&["echo"]).tool_when("echo", r#"args.text.startsWith("Hello")"#)]);
    let (text, rude) = (call("echo", json!({ "text": "Hello" })), call("echo", json!({ "text": "Oi" })));
    let with = imagined(&["echo"], json!({}));
    let explained = explain(&policy, &with, "crm", "echo", Some(&text), &facts());
    assert_eq!((explained.verdict, explained.rule.as_deref()), (Verdict::Allow, Some("polite")));
    assert_eq!(explain(&policy, &with, "crm", "echo", Some(&rude), &facts()).verdict, Verdict::Deny);
    let without = explain(&policy, &imagined(&[], json!({})), "crm", "echo", Some(&text), &facts());
    assert_eq!(without.challenge, Some(Scopes::new(["echo"])));
}

/// Whatever is said without arguments holds for every call.
#[test]
fn an_explanation_never_contradicts_a_decision() {
    let rules = [
        deny().named("a").tool_when("t", "args.n > 5"),
        allow().named("b").scopes(&["s"]).tool_when("t", "args.n < 3"),
        allow().named("c").claim("role", "admin").tool("*"),
        deny().named("d").tool("u"),
    ];
    for policy in [policy(&rules), open_policy(&rules)] {
        for scopes in [&[][..], &["s"]] {
            for claims in [json!({}), json!({ "role": "admin" })] {
                for tool in ["t", "u", "v"] {
                    let explained = of(&policy, &imagined(scopes, claims.clone()), tool);
                    let decisions: Vec<bool> = [0, 4, 9]
                        .iter()
                        .map(|n| {
                            let decision =
                                ask(&policy, &caller(scopes, claims.clone()), &call(tool, json!({ "n": n })));
                            matches!(decision, Decision::Permit(_))
                        })
                        .collect();
                    let fits = match explained.verdict {
                        Verdict::Allow => decisions.iter().all(|permitted| *permitted),
                        Verdict::Deny => !decisions.iter().any(|permitted| *permitted),
                        Verdict::Depends => decisions.contains(&true) && decisions.contains(&false),
                    };
                    assert!(fits, "{tool} {scopes:?} {claims}: {explained:?} {decisions:?}");
                }
            }
        }
    }
}
