//! May what anybody may have written lead to something going out? Experimental.

use serde_json::{Value, json};

use crate::support::{Caller, Conf, LEGACY, MovedClock, World};

fn with_taint(conf: Conf, more: Value) -> Conf {
    let mut taint = json!({
        "untrusted_sources": [{ "server": "tickets", "tool": "re*" }],
        "sinks": [{ "tool": "close" }],
    });
    for (key, value) in more.as_object().unwrap() {
        taint[key] = value.clone();
    }
    conf.allow_all().set("taint", taint)
}

fn world(more: Value) -> World {
    World::with(|conf| with_taint(conf, more))
}

fn call(caller: &Caller, tool: &str) -> u16 {
    caller.call(tool, json!({})).status()
}

/// GitHub MCP toxic flow (May 2025): what stands in a public issue has the agent carry private data out.
#[test]
fn who_has_read_untrusted_content_may_send_nothing_out() {
    let world = world(json!({}));
    let alice = world.reader();
    assert_eq!(call(&alice, "close"), 200, "nothing was read yet");
    let source = alice.call("read", json!({}));
    assert_eq!(source.status(), 200);
    world.tickets.forget();
    let refused = alice.call("close", json!({}));
    refused.assert_refused(403, "tainted_context");
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("untrusted content"));
    world.tickets.assert_saw_nothing();
    assert_eq!(call(&alice, "purge"), 200, "what is no sink goes on");
    assert_eq!(call(&world.reader_named("bob"), "close"), 200, "another's context is clean");

    assert_eq!(world.gateway.audited_as(&source.request_id())["taint"], "marked");
    assert_eq!(world.gateway.audited_as(&refused.request_id())["reason"], "tainted_context");
}

/// The mark is set before the content comes, so nothing slips in between; and a call that is refused reads nothing.
#[test]
fn a_source_that_was_refused_marks_nobody() {
    let world = World::with(|conf| {
        let deny = json!({
            "name": "no", "action": "deny", "target": { "tools": [{ "server": "tickets", "tool": "read" }] },
        });
        with_taint(conf, json!({})).rule(deny)
    });
    let alice = world.gateway.caller(world.idp.token());
    assert_eq!(call(&alice, "read"), 403);
    assert_eq!(call(&alice, "close"), 200);
}

#[test]
fn an_approval_lets_it_through_and_is_recorded() {
    let world = world(json!({ "unless": r#""egress:approved" in scopes"# }));
    assert_eq!(call(&world.reader(), "read"), 200);
    assert_eq!(call(&world.reader(), "close"), 403);
    let approved = world.gateway.caller(world.idp.token().scope("tickets:read egress:approved"));
    let answer = approved.call("close", json!({}));
    assert_eq!(answer.status(), 200);
    assert_eq!(world.gateway.audited_as(&answer.request_id())["taint"], "waived");
}

#[test]
fn a_mark_is_over_when_its_time_is() {
    let Some(clock) = MovedClock::new() else { return };
    let world = World::with(|conf| clock.of(with_taint(conf, json!({ "ttl": "10m" }))));
    let alice = world.gateway.caller(world.reader_token().expires_in(86_400));
    assert_eq!(call(&alice, "read"), 200);
    clock.ahead(590);
    assert_eq!(call(&alice, "close"), 403);
    clock.ahead(601);
    assert_eq!(call(&alice, "close"), 200);
}

#[test]
fn an_agent_has_a_context_of_its_own() {
    let world = World::with(|conf| {
        let agents = json!({ "access_tokens": [{ "issuer": "corp", "claims": ["act"] }] });
        with_taint(conf, json!({})).set("agents", agents).of_route("agents", json!("optional"))
    });
    let acting = |agent: &str| world.gateway.caller(world.reader_token().claim("act", json!({ "sub": agent })));
    assert_eq!(call(&acting("crawler"), "read"), 200);
    assert_eq!(call(&acting("crawler"), "close"), 403);
    assert_eq!(call(&acting("helper"), "close"), 200);
    assert_eq!(call(&world.reader(), "close"), 200);
}

#[test]
fn a_session_is_a_context_where_that_is_said_and_ends_with_it() {
    let world = world(json!({ "context": "session" }));
    let (first, second) = (world.reader().initialize(LEGACY), world.reader().initialize(LEGACY));
    assert_eq!(first.call("read", json!({})).status(), 200);
    first.call("close", json!({})).assert_refused(403, "tainted_context");
    assert_eq!(second.call("close", json!({})).status(), 200);
    assert_eq!(first.delete().status(), 200);
    assert_eq!(world.reader().initialize(LEGACY).call("close", json!({})).status(), 200);
    // Without a session the caller is the context.
    assert_eq!(call(&world.reader(), "close"), 200);
    assert_eq!(call(&world.reader(), "read"), 200);
    assert_eq!(call(&world.reader(), "close"), 403);
}

#[test]
fn what_comes_in_and_goes_out_in_one_batch_has_met() {
    let world = world(json!({}));
    let session = world.reader().initialize("2025-03-26");
    let message =
        |id: u64, tool: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool } });
    session.send(json!([message(1, "close"), message(2, "read")])).assert_refused(403, "tainted_context");
}

/// A mark that makes room for another would open a way out.
#[test]
fn a_full_table_refuses_the_source_and_forgets_nobody() {
    let world = World::with(|conf| with_taint(conf, json!({})).set("limits.taint_marks", 1));
    assert_eq!(call(&world.reader(), "read"), 200);
    world.reader_named("bob").call("read", json!({})).assert_refused(503, "taint_unavailable");
    assert_eq!(call(&world.reader(), "close"), 403);
    assert_eq!(call(&world.reader_named("bob"), "close"), 200);
}
