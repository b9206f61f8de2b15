//! `sensitive` and `require_encryption`.

use super::*;

#[test]
fn a_sensitive_tool_is_not_called_for_somebody_in_clear_text() {
    for rule in
        [json!({ "tools": ["read"], "sensitive": true }), json!({ "tools": ["read"], "require_encryption": true })]
    {
        let world = World::with(|conf| conf.allow_all().of_server("content", json!([rule])));
        read(&world).assert_refused(403, "encryption_required");
        world.tickets.assert_saw_nothing();
        world.reader().call("close", json!({})).result();
    }
}

/// The word of a client about its own connection does not count; that of a trusted proxy does.
#[test]
fn nobody_but_a_trusted_proxy_says_that_a_client_is_encrypted() {
    let rules = json!([{ "name": "care", "sensitive": true }]);
    let untrusting = world(rules.clone());
    let claims = untrusting.reader().header("X-Forwarded-Proto", "https");
    claims.call("read", json!({})).assert_refused(403, "encryption_required");

    let trusting = World::with(|conf| conf.set("trusted_proxies", json!(["127.0.0.1/32"])).of_server("content", rules));
    read(&trusting).assert_refused(403, "encryption_required");
    let answer = trusting.reader().header("X-Forwarded-Proto", "https").call("read", json!({ "a": 1 }));
    answer.result();
    assert!(answer.header("cache-control").unwrap().contains("no-store"), "{}", answer.0);
    let record = trusting.gateway.audit(2).last().unwrap().clone();
    assert_eq!((&record["outcome"], &record["arguments"]), (&json!("ok"), &Value::Null), "{record}");
}

#[test]
fn a_streamed_answer_of_a_sensitive_tool_is_stored_nowhere() {
    let rules = json!([{ "sensitive": true }]);
    let world = World::with(|conf| conf.set("trusted_proxies", json!(["127.0.0.1/32"])).of_server("content", rules));
    world.tickets.on_tool("read", |seen| Reply::sse(format!("data: {}\n\n", message_with_result(seen, text("x")))));
    let answer = world.reader().header("X-Forwarded-Proto", "https").call("read", json!({}));
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"), "{}", answer.0);
}

/// The answer of a call over TLS may be asked for again in clear text.
#[test]
fn a_replayed_answer_does_not_pass_in_clear_text() {
    let world = world(json!([{ "tools": ["pay"], "sensitive": true }]));
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("GET");
    let mut stream = session.get(Some("event-41"));
    pieces.event(&json!({ "jsonrpc": "2.0", "id": 3, "result": text("salary 10") }));
    let error = stream.event().unwrap().json();
    assert_eq!(
        (&error["id"], &error["error"]["data"]["reason"]),
        (&json!(3), &json!("encryption_required")),
        "{error}"
    );
    assert!(!String::from_utf8_lossy(&stream.received).contains("salary"));
}
