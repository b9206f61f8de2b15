//! Which calls are made once more for comparison, and who ever sees that?

use serde_json::{Value, json};

use crate::support::{
    Conf, Gateway, Idp, LEGACY, McpServer, Reply, Seen, World, message_with_result, poll_until, usual,
};

/// `a` answers, `b` is the shadow. `read` and `close` are read-only by their own word, and only `read` may be repeated by the
/// operator's.
fn world(shadow: Value) -> World {
    filtered_world(shadow, json!([]))
}

/// With rules about what is answered.
fn filtered_world(shadow: Value, content: Value) -> World {
    let (idp, tickets) = (Idp::start(), McpServer::with_instances(2));
    tickets.on("tools/list", |seen: &Seen| {
        let tool = |name: &str, read_only: bool| {
            json!({ "name": name, "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": read_only } })
        };
        Reply::result(
            seen,
            json!({
                "tools": [tool("read", true), tool("close", true), tool("purge", false)],
                "ttlMs": 1, "cacheScope": "private",
            }),
        )
    });
    let conf = with_shadow(usual(&idp, &tickets), shadow).of_server("content", content);
    let gateway = Gateway::start(conf);
    World { idp, sts: crate::support::Sts::start(), tickets, gateway }
}

fn with_shadow(conf: Conf, shadow: Value) -> Conf {
    conf.set("servers.0.instances.0.version", "v1")
        .set("servers.0.instances.1.version", "v2")
        .of_server("default", json!({ "version": "v1" }))
        .of_server("shadow", shadow)
        .allow_all()
}

fn usual_shadow() -> Value {
    json!({ "to": { "version": "v2" }, "tools": ["read", "purge"] })
}

fn count(world: &World, result: &str) -> f64 {
    world.gateway.metric("portcullis_shadow_calls_total", &[&format!("result=\"{result}\"")])
}

fn texts(world: &World, a: &'static str, b: &'static str) {
    world.tickets.on_tool("read", move |seen| {
        let text = if seen.instance == "a" { a } else { b };
        Reply::result(seen, json!({ "content": [{ "type": "text", "text": text }] }))
    });
}

#[test]
fn a_call_is_compared_and_the_second_answer_goes_nowhere() {
    let world = world(usual_shadow());
    world.reader().list();
    texts(&world, "the same", "the same");
    let answer = world.reader().call("read", json!({ "q": 1 }));
    assert_eq!(answer.result()["content"][0]["text"], "the same");
    poll_until("the comparison", || (count(&world, "same") == 1.0).then_some(()));
    texts(&world, "of a", "of b, which nobody may see");
    let answer = world.reader().call("read", json!({ "q": 2 }));
    assert_eq!(answer.result()["content"][0]["text"], "of a");
    poll_until("the comparison", || (count(&world, "different") == 1.0).then_some(()));
    let calls: Vec<Seen> = world.tickets.seen_of("tools/call");
    assert_eq!(calls.len(), 4);
    for pair in [&calls[..2], &calls[2..]] {
        assert_eq!(pair[0].body, pair[1].body, "both are asked the same");
        for name in ["mcp-method", "mcp-name", "mcp-protocol-version", "x-request-id", "x-forwarded-for"] {
            assert_eq!(pair[0].header(name), pair[1].header(name), "{name}");
        }
        assert_ne!(pair[0].instance, pair[1].instance);
        assert_eq!(pair[1].bearer(), None, "no token of the client");
    }
    let told = poll_until("the audit records", || {
        let text = std::fs::read_to_string(world.gateway.path("audit.jsonl")).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told: Vec<Value> = records.filter(|record| record["event"] == "routing.shadowed").collect();
        (told.len() == 2).then_some(told)
    });
    assert_eq!((&told[0]["detail"], &told[1]["detail"]), (&json!("same"), &json!("different")));
    assert_eq!(told[1]["instance"], "b");
    assert!(!world.gateway.everything_written().contains("nobody may see"));
}

/// What the caller may see of an answer says nothing of whether two servers answer alike.
#[test]
fn filters_make_neither_like_answers_different_nor_different_ones_alike() {
    let world = filtered_world(usual_shadow(), json!([{ "redact": { "detect": ["email"] } }]));
    world.reader().list();
    texts(&world, "of alice@example.com", "of alice@example.com");
    let answer = world.reader().call("read", json!({ "q": 1 }));
    assert_eq!(answer.result()["content"][0]["text"], "of [redacted:email]");
    poll_until("the comparison", || (count(&world, "same") == 1.0).then_some(()));
    texts(&world, "of alice@example.com", "of bob@example.com");
    world.reader().call("read", json!({ "q": 2 })).result();
    poll_until("the comparison", || (count(&world, "different") == 1.0).then_some(()));
    // An answer that comes among events.
    world.tickets.on_tool("read", |seen| {
        let result = json!({ "content": [{ "type": "text", "text": "of alice@example.com" }] });
        let message = message_with_result(seen, result);
        Reply::sse(format!(": hello\n\ndata: {message}\n\n"))
    });
    world.reader().call("read", json!({ "q": 3 })).result();
    poll_until("the comparison", || (count(&world, "same") == 2.0).then_some(()));
}

/// Both must agree: the server that a tool only reads, and the operator that it may be called twice.
#[test]
fn nothing_is_called_twice_that_one_of_the_two_does_not_approve() {
    let world = world(usual_shadow());
    // Nobody has listed the tools: what is not known to be read-only is not repeated.
    world.reader().call("read", json!({})).result();
    world.reader().list();
    let token = world.idp.token().scope("tickets:read tickets:write");
    let caller = world.gateway.caller(token);
    caller.call("purge", json!({})).result();
    caller.call("close", json!({})).result();
    assert_eq!(count(&world, "not_read_only"), 2.0, "read before the list, and purge");
    assert!(world.tickets.seen_of("tools/call").iter().all(|seen| seen.instance == "a"));
    // A session is unknown to the other instance.
    let session = caller.initialize(LEGACY);
    session.call("read", json!({})).result();
    assert!(world.tickets.seen().iter().all(|seen| seen.instance == "a"));
}

#[test]
fn a_refused_call_is_not_made_by_the_shadow_either() {
    let world = world(usual_shadow());
    world.reader().list();
    world.tickets.forget();
    world.gateway.stranger().call("read", json!({})).assert_refused(401, "missing_token");
    world.tickets.assert_saw_nothing();
}

#[test]
fn an_ill_or_slow_shadow_holds_nobody_up() {
    let world = world(json!({ "to": { "version": "v2" }, "tools": ["read"], "concurrency": 1, "timeout": "1s" }));
    world.reader().list();
    world.tickets.on_tool("read", |seen| match seen.instance.as_str() {
        "a" => Reply::result(seen, json!({ "content": [] })),
        _ => Reply::Hang,
    });
    for _ in 0..5 {
        world.reader().call("read", json!({})).result();
    }
    assert!(count(&world, "busy") >= 1.0, "one at once");
    poll_until("its time to run out", || (count(&world, "failed") >= 1.0).then_some(()));
    world.tickets.instances[1].stop();
    poll_until("the shadow to be ill", || {
        world.reader().call("read", json!({})).result();
        (count(&world, "unhealthy") >= 1.0).then_some(())
    });
}
