//! What holds for every policy.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mcp::Revision;
use crate::policy::rule::RuleSpec;
use crate::policy::{Decision, Effect, Facts, Item, Policy, Question, decide, is_visible};

const TOOLS: [&str; 3] = ["read", "read_all", "purge"];

fn condition() -> impl Strategy<Value = Option<String>> {
    let atom = prop::sample::select(vec![
        "args.n == 1",
        "args.n > 1",
        "has(args.text)",
        "args.text.startsWith('a')",
        "args.list.exists(x, x == args.n)",
        "'g' in claims.groups",
        "claims.missing == 1",
        "'a' in scopes",
        "tool.name == 'read'",
        "method == 'tools/call'",
        "has(meta.x)",
        "true",
        "false",
    ]);
    let expression = atom.prop_map(str::to_owned).prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} && {right})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(test, then, other)| format!("({test} ? {then} : {other})")),
            inner.prop_map(|inner| format!("!({inner})")),
        ]
    });
    prop::option::of(expression)
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    (
        any::<bool>(),
        vec(prop::sample::select(vec!["a", "b", "c"]), 0..3),
        vec((prop::sample::select(vec!["read", "read*", "*", "purge"]), condition()), 0..3),
        prop::option::of(prop::sample::select(vec!["tools/call", "tools/*"])),
        condition(),
        prop::option::of(Just("red")),
    )
        .prop_map(|(allows, scopes, tools, method, when, team)| {
            let mut rule = if allows { allow() } else { deny() }.scopes(&scopes);
            for (name, when) in tools {
                rule = when.map_or_else(|| rule.clone().tool(name), |when| rule.clone().tool_when(name, &when));
            }
            if let Some(method) = method {
                rule = rule.method(method);
            }
            if let Some(team) = team {
                rule = rule.claim("team", team);
            }
            RuleSpec { when: when.map(Into::into), ..rule }
        })
}

fn arguments() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"n": 1}),
        json!({"n": 2, "text": "abc", "list": [1, 2]}),
        json!({"n": "x", "text": 7, "list": []}),
    ])
}

fn asker() -> impl Strategy<Value = crate::identity::Caller> {
    (
        vec(prop::sample::select(vec!["a", "b", "c"]), 0..3),
        prop::sample::select(vec![json!({}), json!({"groups": ["g"]}), json!({"groups": [], "team": "red"})]),
    )
        .prop_map(|(scopes, claims)| caller(&scopes, claims))
}

fn compiled(default: Effect, rules: &[RuleSpec]) -> Policy {
    Policy::compile(default, rules, &servers()).unwrap()
}

fn default() -> impl Strategy<Value = Effect> {
    prop::sample::select(vec![Effect::Allow, Effect::Deny])
}

fn permitted(decision: &Decision) -> bool {
    matches!(decision, Decision::Permit(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn adding_a_deny_rule_only_shrinks_what_is_allowed(
        default in default(), rules in vec(rule(), 0..6), extra in rule(), place in 0..7_usize,
        asker in asker(), tool in prop::sample::select(TOOLS.to_vec()), arguments in arguments(),
    ) {
        let message = call(tool, arguments);
        let before = ask(&compiled(default, &rules), &asker, &message);
        let mut more = rules.clone();
        more.insert(place.min(rules.len()), RuleSpec { effect: Effect::Deny, ..extra });
        let after = compiled(default, &more);
        prop_assert!(permitted(&before) || !permitted(&ask(&after, &asker, &message)));
        let item = Item::Tool(tool);
        prop_assert!(sees(&compiled(default, &rules), &asker, item) || !sees(&after, &asker, item));
    }

    #[test]
    fn the_verdict_does_not_depend_on_the_revision(
        default in default(), rules in vec(rule(), 0..6), asker in asker(),
        tool in prop::sample::select(TOOLS.to_vec()), arguments in arguments(),
    ) {
        let policy = compiled(default, &rules);
        let message = call(tool, arguments);
        let verdicts = Revision::ALL.map(|revision| {
            let facts = Facts { revision, ..facts() };
            verdict(&decide(&policy, &Question { caller: &asker, server: "crm", message: &message, facts: &facts }))
        });
        prop_assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?}");
    }

    #[test]
    fn whatever_may_be_called_is_visible(
        default in default(), rules in vec(rule(), 0..6), asker in asker(),
        tool in prop::sample::select(TOOLS.to_vec()), arguments in arguments(),
    ) {
        let policy = compiled(default, &rules);
        if permitted(&ask(&policy, &asker, &call(tool, arguments))) {
            prop_assert!(is_visible(&policy, &asker, "crm", Item::Tool(tool), &facts()));
        }
    }

    #[test]
    fn a_caller_with_the_scopes_of_the_challenge_is_permitted(
        rules in vec(rule(), 0..6), asker in asker(),
        tool in prop::sample::select(TOOLS.to_vec()), arguments in arguments(),
    ) {
        // Conditions that read scopes see those that are held, so what they say with more is not foreseen.
        prop_assume!(!format!("{rules:?}").contains("in scopes"));
        let policy = compiled(Effect::Deny, &rules);
        let message = call(tool, arguments);
        if let Decision::Deny(denial) = ask(&policy, &asker, &message)
            && let Some(wanted) = denial.challenge
        {
            let scopes: Vec<&str> = asker.scopes().iter().chain(wanted.iter()).collect();
            let richer = caller(&scopes, Value::Object(asker.claims().clone()));
            prop_assert!(permitted(&ask(&policy, &richer, &message)));
        }
    }

    #[test]
    fn no_text_makes_the_compiler_panic(source in "[a-z0-9.()\\[\\]{}!&|=<>+*/%?:,'\" -]{0,60}") {
        let compiled = Policy::compile(Effect::Deny, &[allow().when(&source)], &servers());
        if let Ok(policy) = compiled {
            let decision = ask(&policy, &caller(&[], json!({})), &call("x", json!({"a": 1})));
            prop_assert!(["permit by allow", "deny"].contains(&&*verdict(&decision)));
        }
    }
}
