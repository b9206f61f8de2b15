//! What rules decide, one behaviour each.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::identity::Scopes;
use crate::mcp::{JsonText, Message, MessageKind, Method, RequestId, Target};
use crate::policy::rule::RuleSpec;
use crate::policy::{
    Decision, Denial, DenialReason, Effect, Policy, Question, RuleProblem, decide, depends_only_on_caller,
};

fn nobody() -> crate::identity::Caller {
    caller(&[], json!({}))
}

#[test]
fn a_policy_is_shared_between_threads() {
    fn shareable<T: Send + Sync + 'static>(_: &T) {}
    shareable(&policy(&[allow().when("now.getHours() > 3 && args.x.matches('a') && type(args.y) == int")]));
}

#[test]
fn nothing_is_allowed_without_a_rule() {
    assert_eq!(verdict(&ask(&policy(&[]), &nobody(), &call("x", json!({})))), "deny");
    assert_eq!(verdict(&ask(&open_policy(&[]), &nobody(), &call("x", json!({})))), "permit");
}

#[test]
fn the_first_match_decides_and_is_named() {
    let policy = policy(&[deny().named("no-purge").tool("purge"), allow().named("all")]);
    assert_eq!(verdict(&ask(&policy, &nobody(), &call("purge", json!({})))), "deny by no-purge");
    assert_eq!(verdict(&ask(&policy, &nobody(), &call("search", json!({})))), "permit by all");
}

#[test]
fn a_name_matches_exactly_or_by_prefix() {
    let rules = [
        allow().named("exact").tool("get"),
        allow().named("prefix").tool("get_*"),
        allow().named("longer").tool("get_user_*"),
        deny().named("rest").tool("*"),
    ];
    let policy = policy(&rules);
    for (tool, expected) in [
        ("get", "permit by exact"),
        ("Get", "deny by rest"),
        ("ge", "deny by rest"),
        ("get_", "permit by prefix"),
        ("get_x", "permit by prefix"),
        ("get_user_x", "permit by prefix"),
        ("gét", "deny by rest"),
        ("", "deny by rest"),
    ] {
        assert_eq!(verdict(&ask(&policy, &nobody(), &call(tool, json!({})))), expected, "{tool}");
    }
}

#[test]
fn an_exact_name_also_has_the_rules_of_its_prefixes_in_order() {
    let policy = policy(&[
        deny().named("no-admin").tool("admin_*"),
        allow().named("reset").tool("admin_reset"),
        allow().named("all").tool("*"),
    ]);
    assert_eq!(verdict(&ask(&policy, &nobody(), &call("admin_reset", json!({})))), "deny by no-admin");
}

#[test]
fn a_star_is_a_letter_without_glob() {
    let mut rule = allow().tool("a*");
    rule.target.tools[0].glob = false;
    let policy = policy(&[rule]);
    assert_eq!(verdict(&ask(&policy, &nobody(), &call("a*", json!({})))), "permit by allow");
    assert_eq!(verdict(&ask(&policy, &nobody(), &call("ab", json!({})))), "deny");
}

#[test]
fn a_rule_for_one_server_says_nothing_of_another() {
    let mut rule = allow().tool("list");
    rule.target.tools[0].server = Some("files".into());
    let policy = policy(&[rule]);
    let message = call("list", json!({}));
    let at =
        |server| verdict(&decide(&policy, &Question { caller: &nobody(), server, message: &message, facts: &facts() }));
    assert_eq!(at("files"), "permit by allow");
    assert_eq!(at("crm"), "deny");
    assert_eq!(at("elsewhere"), "deny");
}

#[test]
fn a_server_the_route_does_not_have_is_refused_even_by_an_open_policy() {
    let message = call("list", json!({}));
    let decision = decide(
        &open_policy(&[]),
        &Question { caller: &nobody(), server: "elsewhere", message: &message, facts: &facts() },
    );
    assert_eq!(verdict(&decision), "deny");
}

#[test]
fn entries_of_one_target_are_alternatives() {
    let rule = allow().tool_when("echo", "args.a == 1").tool_when("ec*", "args.b == 1").tool_when("*", "args.c == 1");
    let policy = policy(&[rule]);
    for (arguments, expected) in [
        (json!({"a": 1}), "permit by allow"),
        (json!({"b": 1}), "permit by allow"),
        (json!({"c": 1}), "permit by allow"),
        (json!({"a": 2}), "deny"),
    ] {
        assert_eq!(verdict(&ask(&policy, &nobody(), &call("echo", arguments))), expected);
    }
}

/// Invariant 7: an error inside a rule never opens a door.
#[test]
fn an_allow_rule_that_errs_does_not_match_and_a_deny_rule_that_errs_denies() {
    for wrong in [
        "args.missing == 1",
        "1 / args.zero == 1",
        "args.text",
        "args.text > 3",
        "10",
        "args.text.matches(args.bad)",
        "args.list[7] == 1",
        "int(args.text) == 1",
        "args.text.startsWith(args.zero)",
        "!args.text",
        "args.zero && true",
    ] {
        let arguments = json!({"zero": 0, "text": "x", "bad": "(", "list": []});
        let message = call("echo", arguments);
        let allowing = policy(&[allow().when(wrong)]);
        assert_eq!(verdict(&ask(&allowing, &nobody(), &message)), "deny", "{wrong}");
        let denying = policy(&[deny().when(wrong), allow()]);
        assert_eq!(verdict(&ask(&denying, &nobody(), &message)), "deny by deny", "{wrong}");
    }
}

#[test]
fn an_error_beside_what_decides_does_no_harm() {
    let message = call("echo", json!({"a": 1}));
    for (when, expected) in [
        ("args.missing == 1 || args.a == 1", "permit by allow"),
        ("args.a == 1 || args.missing == 1", "permit by allow"),
        ("args.missing == 1 && args.a == 2", "deny"),
        ("[1, 2].exists(x, x / (x - 1) == 2)", "permit by allow"),
    ] {
        assert_eq!(verdict(&ask(&policy(&[allow().when(when)]), &nobody(), &message)), expected, "{when}");
    }
    let denying = policy(&[deny().when("args.missing == 1 && args.a == 2"), allow()]);
    assert_eq!(verdict(&ask(&denying, &nobody(), &message)), "permit by allow");
}

#[test]
fn an_error_gives_no_challenge() {
    let erring = policy(&[allow().scopes(&["admin"]).when("args.missing == 1")]);
    assert_eq!(verdict(&ask(&erring, &nobody(), &call("echo", json!({})))), "deny");
    let denying = policy(&[deny().when("args.missing == 1"), allow().scopes(&["admin"])]);
    assert_eq!(verdict(&ask(&denying, &nobody(), &call("echo", json!({})))), "deny by deny");
}

#[test]
fn the_challenge_is_the_rule_with_the_fewest_missing_scopes() {
    let held = caller(&["a", "b"], json!({"team": "red"}));
    for (rules, expected) in [
        (vec![allow().scopes(&["a", "x", "y"]), allow().scopes(&["b", "z"])], "deny for b z"),
        // Ties go to the first rule.
        (vec![allow().scopes(&["x"]), allow().scopes(&["y"])], "deny for x"),
        // A rule that something else keeps from matching is no help.
        (vec![allow().scopes(&["x"]).when("args.n == 2"), allow().scopes(&["y", "z"])], "deny for y z"),
        (vec![allow().scopes(&["x"]).claim("team", "blue")], "deny"),
        (vec![allow().scopes(&["x"]).tool("other")], "deny"),
        // Only what stands before the deny rule that matched can be reached.
        (vec![allow().scopes(&["x"]), deny()], "deny by deny for x"),
        (vec![deny(), allow().scopes(&["x"])], "deny by deny"),
        (vec![deny().scopes(&["b"]), allow().scopes(&["x"])], "deny by deny"),
        // With x in hand the deny rule would match first.
        (vec![deny().scopes(&["x"]), allow().scopes(&["x"])], "deny"),
        (vec![deny().scopes(&["x"]), allow().scopes(&["x"]), allow().scopes(&["y", "z"])], "deny for y z"),
        (vec![deny().scopes(&["x", "w"]), allow().scopes(&["x"])], "deny for x"),
        (vec![deny().scopes(&["x"]).when("args.n == 2"), allow().scopes(&["x"])], "deny for x"),
        (vec![deny().scopes(&["x"]).when("args.missing"), allow().scopes(&["x"])], "deny"),
    ] {
        assert_eq!(verdict(&ask(&policy(&rules), &held, &call("echo", json!({"n": 1})))), expected, "{rules:?}");
    }
}

#[test]
fn a_denial_with_a_challenge_is_one_for_scope() {
    let Decision::Deny(denial) = ask(&policy(&[allow().scopes(&["x"])]), &nobody(), &call("echo", json!({}))) else {
        panic!("permitted")
    };
    let expected = Denial { reason: DenialReason::InsufficientScope, rule: None, challenge: Some(Scopes::new(["x"])) };
    assert_eq!(denial, expected);
    assert_eq!((denial.reason.label(), DenialReason::Denied.label()), ("insufficient_scope", "denied"));
}

#[test]
fn methods_without_intent_pass_unless_a_deny_rule_names_them() {
    let closed = policy(&[deny()]);
    for method in Method::ALL.iter().copied() {
        let expected = match method.as_str() {
            "completion/complete" | "prompts/get" | "resources/read" | "resources/subscribe" | "tools/call" => "deny",
            name if name.starts_with("tasks/") => "deny",
            _ => "permit",
        };
        assert_eq!(verdict(&ask(&closed, &nobody(), &bare(method))), expected, "{method}");
    }
    let naming = policy(&[deny().named("no-logging").method("logging/*").method("ping")]);
    assert_eq!(verdict(&ask(&naming, &nobody(), &bare(Method::LoggingSetLevel))), "deny by no-logging");
    assert_eq!(verdict(&ask(&naming, &nobody(), &bare(Method::Ping))), "deny by no-logging");
    assert_eq!(verdict(&ask(&naming, &nobody(), &bare(Method::Initialize))), "permit");
}

#[test]
fn an_allow_rule_before_the_deny_rule_of_a_method_lets_its_callers_through() {
    let policy = policy(&[allow().scopes(&["ops"]).method("logging/setLevel"), deny().method("*")]);
    let message = bare(Method::LoggingSetLevel);
    assert_eq!(verdict(&ask(&policy, &caller(&["ops"], json!({})), &message)), "permit by allow");
    assert_eq!(verdict(&ask(&policy, &nobody(), &message)), "deny by deny for ops");
}

#[test]
fn a_response_passes() {
    let message = Message {
        kind: MessageKind::Response { id: RequestId::from_json("7") },
        target: Target::None,
        params: None,
        arguments: None,
        meta: None,
    };
    assert_eq!(verdict(&ask(&policy(&[deny().method("*")]), &nobody(), &message)), "permit");
}

#[test]
fn tasks_need_an_allow_rule_that_names_them() {
    let task = message(Method::TasksGet, Target::Task("t1".into()), json!({"taskId": "t1"}));
    assert_eq!(verdict(&ask(&policy(&[allow()]), &nobody(), &task)), "deny");
    assert_eq!(verdict(&ask(&open_policy(&[]), &nobody(), &task)), "deny");
    assert_eq!(verdict(&ask(&policy(&[allow().method("tasks/*")]), &nobody(), &task)), "permit by allow");
    assert_eq!(verdict(&ask(&policy(&[allow().method("tasks/cancel")]), &nobody(), &task)), "deny");
    let scoped = policy(&[allow().method("tasks/get").scopes(&["tasks"])]);
    assert_eq!(verdict(&ask(&scoped, &nobody(), &task)), "deny for tasks");
}

#[test]
fn prompts_resources_and_completions_are_decided_by_their_names() {
    let rules = [allow().named("p").prompt("greet*"), allow().named("r").resource("file:///public/*")];
    let policy = policy(&rules);
    let prompt = |name: &str| Target::Prompt(name.into());
    let resource = |uri: &str| Target::Resource(uri.into());
    for (method, target, expected) in [
        (Method::PromptsGet, prompt("greet_all"), "permit by p"),
        (Method::PromptsGet, prompt("secret"), "deny"),
        (Method::ResourcesRead, resource("file:///public/a.txt"), "permit by r"),
        (Method::ResourcesRead, resource("file:///private/a.txt"), "deny"),
        (Method::ResourcesSubscribe, resource("file:///public/a.txt"), "permit by r"),
        (Method::ResourcesSubscribe, resource("file:///private/a.txt"), "deny"),
        (Method::ResourcesUnsubscribe, resource("file:///private/a.txt"), "permit"),
        (Method::CompletionComplete, prompt("greet"), "permit by p"),
        (Method::CompletionComplete, resource("file:///public/{name}"), "permit by r"),
        (Method::CompletionComplete, resource("file:///{+path}"), "deny"),
        // A target of the wrong kind is not guessed at.
        (Method::ToolsCall, prompt("greet"), "deny"),
        (Method::PromptsGet, Target::Tool("greet".into()), "deny"),
    ] {
        let message = message(method, target.clone(), json!({}));
        assert_eq!(verdict(&ask(&policy, &nobody(), &message)), expected, "{method} {target:?}");
    }
}

/// A prefix would be worth nothing if the server resolved `..` after it (RFC 3986 §5.2.4).
#[test]
fn a_resource_uri_with_a_dot_segment_is_refused() {
    let policy = policy(&[allow().resource("file:///public/*")]);
    for uri in [
        "file:///public/../secret",
        "file:///public/x/..",
        "file:///public/./x",
        "file:///public/%2e%2E/secret",
        "file:///public/.%2e/secret",
        "file:///public/..%2fsecret",
        "file:///public/..\\secret",
        "file:///public/..%5Csecret",
    ] {
        assert_eq!(verdict(&ask(&policy, &nobody(), &read(uri))), "deny", "{uri}");
        assert_eq!(verdict(&ask(&open_policy(&[]), &nobody(), &read(uri))), "deny", "{uri}");
    }
    for uri in ["file:///public/a..b", "file:///public/.hidden", "file:///public/a?x=/../b", "file:///public/v1.2/"] {
        assert_eq!(verdict(&ask(&policy, &nobody(), &read(uri))), "permit by allow", "{uri}");
    }
}

/// MCP 2026-07-28, Subscriptions: `notifications.resourceSubscriptions` replaces `resources/subscribe`.
#[test]
fn listening_needs_every_resource_it_subscribes_to() {
    let listen = |subscriptions: Value| {
        let notifications = json!({"toolsListChanged": true, "resourceSubscriptions": subscriptions});
        message(Method::SubscriptionsListen, Target::None, json!({"notifications": notifications}))
    };
    let rules = [
        allow().named("public").resource("file:///public/*").when("method == 'resources/subscribe'"),
        allow().named("team").resource("file:///team/*").scopes(&["team"]),
    ];
    let policy = policy(&rules);
    let many: Vec<String> = (0..1001).map(|n| format!("file:///public/{n}")).collect();
    for (subscriptions, expected) in [
        (json!([]), "permit"),
        (json!(["file:///public/a"]), "permit by public"),
        (json!(["file:///public/a", "file:///secret"]), "deny"),
        (json!(["file:///secret", "file:///public/a"]), "deny"),
        (json!(["file:///team/a", "file:///public/a"]), "deny for team"),
        (json!(["file:///public/../secret"]), "deny"),
        (json!(["file:///public/a", 7]), "deny"),
        (json!("file:///public/a"), "deny"),
        (json!(many), "deny"),
    ] {
        assert_eq!(verdict(&ask(&policy, &nobody(), &listen(subscriptions.clone()))), expected, "{subscriptions}");
    }
    let lists_only = message(Method::SubscriptionsListen, Target::None, json!({"notifications": {}}));
    assert_eq!(verdict(&ask(&policy, &nobody(), &lists_only)), "permit");
    let refused = self::policy(&[deny().method("subscriptions/listen"), allow()]);
    assert_eq!(verdict(&ask(&refused, &nobody(), &listen(json!(["file:///a"])))), "deny by deny");
}

#[test]
fn a_decision_depends_only_on_the_caller_when_no_rule_about_it_reads_more() {
    let policy = policy(&[
        allow().tool("by_scope").scopes(&["a"]),
        allow().tool("by_claim").when("'x' in claims.groups && tool.name == 'by_claim' && principal.subject != ''"),
        allow().tool("by_args").when("args.n == 1"),
        allow().tool("by_meta").when("has(meta.x)"),
        allow().tool("by_time").when("now > timestamp('2026-01-01T00:00:00Z')"),
        allow().tool("by_header").when("request.headers['x'] == 'y'"),
        allow().tool_when("by_entry", "request.client_ip == '192.0.2.7'"),
        allow().tool("glob_*").when("args.n == 1"),
        allow().tool("jwt").when("request.auth.jwt.claims.a == 1 && request.mcp.tool == 'jwt'"),
    ]);
    for (tool, expected) in [
        ("by_scope", true),
        ("by_claim", true),
        ("by_args", false),
        ("by_meta", false),
        ("by_time", false),
        ("by_header", false),
        ("by_entry", false),
        ("glob_x", false),
        ("jwt", true),
        ("unknown", true),
    ] {
        assert_eq!(depends_only_on_caller(&policy, "crm", &call(tool, json!({}))), expected, "{tool}");
    }
    assert!(depends_only_on_caller(&policy, "crm", &bare(Method::ToolsList)));
    assert!(!depends_only_on_caller(&policy, "crm", &bare(Method::SubscriptionsListen)));
    let everywhere = self::policy(&[allow().tool("x"), deny().when("args.n == 1")]);
    assert!(!depends_only_on_caller(&everywhere, "crm", &call("x", json!({}))));
    let by_method = self::policy(&[allow().tool("x"), deny().method("tools/*").when("args.n == 1")]);
    assert!(!depends_only_on_caller(&by_method, "crm", &call("x", json!({}))));
}

#[test]
fn every_problem_of_every_rule_is_reported_with_its_path() {
    let mut elsewhere = allow().tool("x").tool("");
    elsewhere.target.tools[0].server = Some("nowhere".into());
    let rules: Vec<RuleSpec> = vec![
        allow().when("args.a =="),
        elsewhere,
        allow().tool("ok").tool_when("b", "arg.x == 1"),
        allow().scopes(&["ok", "two words"]).method("tools/explode").method("tasks/*"),
        allow().resource("a*b").claim("", "x"),
    ];
    let problems = Policy::compile(Effect::Deny, &rules, &servers()).unwrap_err();
    let found: Vec<(usize, &str)> = problems.iter().map(|problem| (problem.rule, problem.path.as_str())).collect();
    let expected = [
        (0, "when"),
        (1, "target.tools[0].server"),
        (1, "target.tools[1].tool"),
        (2, "target.tools[1].when"),
        (3, "source.jwt.scopes[1]"),
        (3, "target.methods[0]"),
        (4, "source.jwt.claims[0].name"),
        (4, "target.resources[0].uri"),
    ];
    assert_eq!(found, expected);
    assert!(problems[0].message.starts_with("line 1, column "), "{}", problems[0].message);
    assert_eq!(problems[1].message, "`nowhere` is not a server of this route; there is `crm`, `files`");
    let RuleProblem { message, .. } = &problems[3];
    assert!(message.starts_with("line 1, column 1: unknown variable `arg`; there are `agent`, `args`"), "{message}");
}

/// Ten thousand rules cost what ten do: a call looks at the rules about its own name.
#[test]
fn a_call_looks_only_at_the_rules_about_its_name() {
    let rules: Vec<RuleSpec> = (0..10_000)
        .map(|n| allow().named(&format!("rule-{n}")).tool(&format!("tool_{n}")).scopes(&["a"]))
        .chain([allow().named("shared").tool("tool_77*"), deny().named("last")])
        .collect();
    let policy = policy(&rules);
    let names = policy.names("crm", crate::policy::index::Kind::Tool).unwrap();
    let looked_at = |tool: &str| names.named(tool).entries.len() + names.all.entries.len();
    assert_eq!((looked_at("tool_5"), looked_at("tool_77"), looked_at("tool_771x"), looked_at("none")), (2, 3, 2, 1));
    let holder = caller(&["a"], json!({}));
    assert_eq!(verdict(&ask(&policy, &holder, &call("tool_9999", json!({})))), "permit by rule-9999");
}

/// A body of 4 MiB against the most expensive conditions: an expression over its bound errs, and soon.
#[test]
fn a_condition_over_its_bound_errs() {
    let list: Vec<u32> = (0..200_000).collect();
    let long = "a".repeat(1_000_000);
    let message = call("echo", json!({"list": list, "long": long, "patterns": vec!["(a|aa)*b"; 1000]}));
    for when in [
        "args.list.all(x, args.list.all(y, x + y >= 0))",
        "args.list.all(x, x in args.list)",
        "args.list.map(x, args.list.map(y, x)) == []",
        "args.list.all(x, args.long.contains('b') || x >= 0)",
        "args.patterns.all(p, !args.long.matches(p))",
        "args.list.all(x, args.long + args.long != '')",
        "args.list.all(x, args == {'a': 1} || args.list == args.list)",
    ] {
        let started = Instant::now();
        assert_eq!(verdict(&ask(&policy(&[allow().when(when)]), &nobody(), &message)), "deny", "{when}");
        assert_eq!(verdict(&ask(&policy(&[deny().when(when), allow()]), &nobody(), &message)), "deny by deny");
        // Unoptimized and on a busy machine; what is measured for is a runaway.
        assert!(started.elapsed().as_secs() < 20, "{when} took {:?}", started.elapsed());
    }
}

#[test]
fn hostile_arguments_do_no_harm() {
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let texts = [
        "{}",
        "[]",
        "null",
        "{\"x\":null}",
        "{\"x\":1e308}",
        "{\"x\":-0.0}",
        "{\"x\":18446744073709551615}",
        "{\"x\":-9223372036854775808}",
        "{\"x\":1e400}",
        "{\"x\":\"\\u0000\"}",
        "{\"x\":\"\u{1F600}\"}",
    ];
    let deep = format!("{{\"x\":{nested}}}");
    let too_deep = format!("{{\"x\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    for text in texts.into_iter().chain([&*deep, &*too_deep]) {
        for when in [
            "args.x == args.x",
            "-args.x > 0 || args.x / -1 == 1 || args.x % -1 == 0",
            "int(args.x) > 0 || uint(args.x) > 0u || double(args.x) > 0.0",
            "string(args.x) == '' || bytes(args.x) == b''",
            "timestamp(args.x) < now || duration(args.x) > duration('1s')",
            "args.x[0] == 1 || args.x['a'] == 1 || args.x[1.5] == 1 || args.x[18446744073709551615u] == 1",
            "args.x in args.x || args.x.exists(y, y == args.x)",
            "args.x.map(y, [y, y]).map(y, [y, y]) == args.x || size(args.x) == 1",
            "args.x.contains(args.x) && args.x.matches(args.x)",
            "{args.x: 1} == {args.x: 1}",
            "type(args.x) == int && args.x + args.x > args.x * args.x",
            "now.getHours(args.x) == 1",
        ] {
            let arguments = JsonText::new(text.to_owned().into());
            let message = Message { arguments: Some(arguments), ..call("echo", json!({})) };
            // Whatever the verdict, there is one, and deny after it wins.
            let decision = ask(&policy(&[allow().when(when), deny()]), &nobody(), &message);
            assert!(["permit by allow", "deny by deny"].contains(&&*verdict(&decision)), "{when} on {text}");
        }
    }
}

#[test]
fn deep_and_long_sources_are_refused_or_read_but_never_overflow() {
    for source in [
        format!("{}true{}", "(".repeat(1000), ")".repeat(1000)),
        format!("{}true", "!".repeat(4000)),
        format!("{}1 == 1", "-".repeat(4000)),
        format!("args{} == 1", ".a".repeat(2000)),
        format!("args{} == 1", "[0]".repeat(1300)),
        format!("args{} == 1", ".a()".repeat(1000)),
        format!("{}1{}", "[".repeat(2000), "]".repeat(2000)),
        format!("1{} == 1", " + 1".repeat(1000)),
        format!("1{}", " == 1".repeat(800)),
        format!("{}true", "true ? ".repeat(500)),
        format!("true{}", " ? true : true".repeat(280)),
    ] {
        match Policy::compile(Effect::Deny, &[allow().when(&source)], &servers()) {
            Ok(policy) => assert!(verdict(&ask(&policy, &nobody(), &call("x", json!({})))).len() > 3),
            Err(problems) => assert_eq!(problems.len(), 1),
        }
    }
    let many = format!("args.n == 0{}", " || args.n == 42".repeat(250));
    assert_eq!(
        verdict(&ask(&policy(&[allow().when(&many)]), &nobody(), &call("x", json!({"n": 42})))),
        "permit by allow"
    );
    let nested = format!("{}args.n == 42{}", "(".repeat(80), ")".repeat(80));
    assert_eq!(
        verdict(&ask(&policy(&[allow().when(&nested)]), &nobody(), &call("x", json!({"n": 42})))),
        "permit by allow"
    );
    let problems = Policy::compile(Effect::Deny, &[allow().when(&"(".repeat(1000))], &servers()).unwrap_err();
    assert_eq!(problems[0].message, "nested too deeply");
}
