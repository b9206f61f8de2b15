//! `sensitive` and `require_encryption`.

use super::*;
use crate::support::{Authority, PUBLIC_HOST, Request, TlsClient};

/// One gateway with two listeners: the first in clear text, the second over TLS.
fn both_listeners(authority: &Authority, rules: Value) -> World {
    let shown = authority.server(&[PUBLIC_HOST]);
    let tls = json!({ "certificate": "DIR/listen.pem", "private_key": "DIR/listen.key" });
    World::with(|conf| {
        conf.file("listen.pem", &shown.certificate, 0o644)
            .file("listen.key", &shown.key, 0o600)
            .set("listen", json!([{ "address": "LISTEN" }, { "address": "LISTEN", "tls": tls }]))
            .of_server("content", rules)
    })
}

fn call(world: &World) -> Request {
    world.reader().modern("tools/call", json!({ "name": "read", "arguments": { "of": "alice" } }))
}

/// The same gateway answers over TLS what it does not answer in clear text, whichever HTTP is spoken.
#[test]
fn the_answer_of_a_sensitive_tool_passes_on_the_tls_listener_alone() {
    for (rule, stored) in
        [(json!({ "sensitive": true }), "no-store, no-transform"), (json!({ "require_encryption": true }), "no-store")]
    {
        let authority = Authority::new("edge");
        let world = both_listeners(&authority, json!([rule]));
        answers(&world, text("salary 10"));
        let tls = world.gateway.second_address();
        let old = TlsClient::trusting(&authority);
        let old = Answer(old.send(tls, &call(&world).header("Host", PUBLIC_HOST)).expect("an answer over TLS"));
        let (version, new) =
            TlsClient::trusting(&authority).alpn(&["h2", "http/1.1"]).send_negotiated(tls, &call(&world));
        assert_eq!(version, reqwest::Version::HTTP_2);
        for answer in [old, Answer(new)] {
            assert_eq!(answer.result()["content"][0]["text"], "salary 10");
            assert_eq!(answer.header("cache-control"), Some(stored), "{}", answer.0);
        }
        for clear in [world.reader(), world.reader().h2c()] {
            let refused = clear.call("read", json!({ "of": "alice" }));
            refused.assert_refused(403, "encryption_required");
            assert_eq!(world.gateway.audited_as(&refused.request_id())["reason"], "encryption_required");
        }
        assert_eq!(world.tickets.seen_of("tools/call").len(), 2, "in clear text nothing is even called");
    }
}

#[test]
fn a_stream_of_a_sensitive_tool_passes_over_tls_and_is_stored_nowhere() {
    let authority = Authority::new("edge");
    let world = both_listeners(&authority, json!([{ "sensitive": true }]));
    world.tickets.on_tool("read", |seen| Reply::sse(format!("data: {}\n\n", message_with_result(seen, text("x")))));
    let client = TlsClient::trusting(&authority).alpn(&["h2", "http/1.1"]);
    let (version, answer) = client.send_negotiated(world.gateway.second_address(), &call(&world));
    let answer = Answer(answer);
    assert_eq!((version, answer.header("cache-control")), (reqwest::Version::HTTP_2, Some("no-store, no-transform")));
    assert_eq!(answer.result()["content"][0]["text"], "x");
    let record = world.gateway.audit(1)[0].clone();
    assert_eq!((&record["outcome"], &record["arguments"]), (&json!("ok"), &Value::Null), "{record}");
}

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
