//! May they? Rules through the real binary: the details stand in the vectors, here is what only the whole can show.

use serde_json::{Value, json};

use crate::support::{LEGACY, REVISIONS, World};

fn tool_rule(name: &str, tool: &str, more: Value) -> Value {
    let mut rule = json!({ "name": name, "target": { "tools": [{ "server": "tickets", "tool": tool }] } });
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    rule
}

#[test]
fn everything_without_a_rule_is_denied() {
    let world = World::start();
    let caller = world.reader();
    caller.call("purge", json!({})).assert_refused(403, "denied");
    caller.call("unheard-of", json!({})).assert_refused(403, "denied");
    caller.request("prompts/get", json!({ "name": "p" })).assert_refused(403, "denied");
    caller.request("resources/read", json!({ "uri": "file:///etc/passwd" })).assert_refused(403, "denied");
    let by_ref = json!({ "ref": { "type": "ref/prompt", "name": "p" }, "argument": { "name": "a", "value": "" } });
    caller.request("completion/complete", by_ref).assert_refused(403, "denied");
    let session = caller.initialize(LEGACY);
    world.tickets.forget();
    session.request("resources/subscribe", json!({ "uri": "file:///x" })).assert_refused(403, "denied");
    session.request("tasks/get", json!({ "taskId": "t" })).assert_refused(403, "denied");
    world.tickets.assert_saw_nothing();
}

#[test]
fn lifecycle_and_lists_are_open_to_every_caller_unless_a_rule_denies_the_method() {
    let open = World::start();
    let session = open.gateway.caller(open.idp.token()).initialize(LEGACY);
    for method in ["ping", "tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        assert_eq!(session.request(method, json!({})).status(), 200, "{method}");
    }
    assert_eq!(session.request("logging/setLevel", json!({ "level": "info" })).status(), 200);

    let rule = json!({ "action": "deny", "target": { "methods": ["logging/*", "resources/list"] } });
    let closed = World::with(|conf| conf.rule(rule));
    let session = closed.gateway.caller(closed.idp.token()).initialize(LEGACY);
    session.request("logging/setLevel", json!({ "level": "info" })).assert_refused(403, "denied");
    session.request("resources/list", json!({})).assert_refused(403, "denied");
    assert_eq!(session.request("tools/list", json!({})).status(), 200);
}

#[test]
fn the_first_match_decides() {
    let deny = |name| tool_rule(name, "read", json!({ "action": "deny" }));
    let after = World::with(|conf| conf.rule(deny("late")));
    assert_eq!(after.reader().call("read", json!({})).status(), 200);

    let before = World::with(|conf| {
        let rules = conf.value["routes"][0]["authorization"]["rules"].as_array().unwrap().clone();
        conf.set("routes.0.authorization.rules", [vec![deny("early")], rules].concat())
    });
    before.reader().call("read", json!({})).assert_refused(403, "denied");
}

#[test]
fn arguments_decide_in_cel() {
    let when = json!({ "when": r#"args.text.matches("^Hello, .*!$")"# });
    let world = World::with(|conf| conf.rule(tool_rule("polite", "purge", when)));
    let call = |arguments| world.reader().call("purge", arguments);
    assert_eq!(call(json!({ "text": "Hello, World!" })).status(), 200);
    call(json!({ "text": "Goodbye" })).assert_refused(403, "denied");
    // An allow rule that errs does not match.
    call(json!({})).assert_refused(403, "denied");
    call(json!({ "text": 7 })).assert_refused(403, "denied");
    assert_eq!(world.tickets.seen_of("tools/call").len(), 1);
}

/// Invariant 7: an error inside a rule never opens a door.
#[test]
fn a_deny_rule_that_errs_denies() {
    let world = World::with(|conf| {
        let deny = tool_rule("careful", "purge", json!({ "action": "deny", "when": "args.amount > 10" }));
        conf.rule(deny).allow_all()
    });
    assert_eq!(world.reader().call("purge", json!({ "amount": 5 })).status(), 200);
    world.reader().call("purge", json!({ "amount": 50 })).assert_refused(403, "denied");
    world.reader().call("purge", json!({})).assert_refused(403, "denied");
}

#[test]
fn cel_sees_the_caller_the_tool_and_the_request() {
    let when = concat!(
        r#"principal.subject == "alice" && principal.issuer.startsWith("http://") && "tickets:read" in scopes"#,
        r#" && claims.department == "sales" && tool.server == "tickets" && tool.name == "purge""#,
        r#" && method == "tools/call" && request.method == "POST" && request.path == "/mcp""#,
        r#" && request.headers["x-tenant"] == "acme" && request.mcp.backend == "tickets" && client_ip_ok"#,
        r#" && meta["x.test/y"] == 7 && now > timestamp("2020-01-01T00:00:00Z") && agent == null"#,
    )
    .replace("client_ip_ok", r#"request.client_ip == "127.0.0.1""#);
    let world = World::with(|conf| conf.rule(tool_rule("whole", "purge", json!({ "when": when }))));
    let caller = world.gateway.caller(world.reader_token().claim("department", "sales")).header("X-Tenant", "acme");
    let params = json!({ "name": "purge", "arguments": {}, "_meta": { "x.test/y": 7 } });
    let answer = caller.request("tools/call", params);
    assert_eq!(answer.status(), 200, "{}", answer.0);
}

#[test]
fn prompts_and_resources_have_rules_of_their_own() {
    let prompt = json!({ "target": { "prompts": [{ "server": "tickets", "prompt": "summary" }] } });
    let resource = json!({ "target": { "resources": [{ "server": "tickets", "uri": "ticket://open/*" }] } });
    let world = World::with(|conf| conf.rule(prompt).rule(resource));
    let caller = world.reader();
    assert_eq!(caller.request("prompts/get", json!({ "name": "summary" })).status(), 200);
    caller.request("prompts/get", json!({ "name": "other" })).assert_refused(403, "denied");
    assert_eq!(caller.request("resources/read", json!({ "uri": "ticket://open/7" })).status(), 200);
    caller.request("resources/read", json!({ "uri": "ticket://closed/7" })).assert_refused(403, "denied");
    let complete = |name| {
        let params = json!({ "ref": { "type": "ref/prompt", "name": name }, "argument": { "name": "a", "value": "" } });
        caller.request("completion/complete", params)
    };
    assert_eq!(complete("summary").status(), 200);
    complete("other").assert_refused(403, "denied");
}

/// Invariant 8. The whole vector file runs in `vectors.rs`; this is the one-line version that shows the session too.
#[test]
fn the_verdict_is_the_same_in_every_revision() {
    let world = World::start();
    for revision in REVISIONS {
        let answers = if revision == crate::support::MODERN {
            ["read", "close", "purge"].map(|tool| world.reader().call(tool, json!({})))
        } else {
            let session = world.reader().initialize(revision);
            ["read", "close", "purge"].map(|tool| session.call(tool, json!({})))
        };
        let [read, close, purge] = answers;
        assert_eq!(read.status(), 200, "{revision}: {}", read.0);
        close.assert_refused(403, "insufficient_scope");
        assert_eq!(close.challenge_parameter("scope").as_deref(), Some("tickets:write"), "{revision}");
        purge.assert_refused(403, "denied");
    }
}

/// The decision cache must not answer for another caller, tool or argument.
#[test]
fn one_callers_permission_is_not_anothers() {
    let world = World::start();
    let other = world.gateway.caller(world.idp.token().subject("bob").scope("tickets:write"));
    for _ in 0..3 {
        assert_eq!(world.reader().call("read", json!({})).status(), 200);
        other.call("read", json!({})).assert_refused(403, "insufficient_scope");
        assert_eq!(other.call("close", json!({})).status(), 200);
        world.reader().call("close", json!({})).assert_refused(403, "insufficient_scope");
    }
}

#[test]
fn ten_thousand_rules_still_decide() {
    let rules: Vec<Value> = (0..10_000)
        .map(|number| tool_rule(&format!("r{number}"), &format!("tool-{number}"), json!({})))
        .chain([tool_rule("last", "read", json!({}))])
        .collect();
    let world = World::with(|conf| conf.set("routes.0.authorization.rules", rules));
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
    world.reader().call("purge", json!({})).assert_refused(403, "denied");
}
