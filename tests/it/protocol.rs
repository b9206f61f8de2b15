//! What do they ask? MCP of four revisions, as the gateway must read it.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{LEGACY, MODERN, REVISIONS, World, legacy_message, modern_message};

#[test]
fn notifications_are_accepted_without_a_body() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    let answer = session.notify("notifications/roots/list_changed");
    assert_eq!((answer.status(), answer.0.body.len()), (202, 0), "{}", answer.0);
    assert_eq!(
        world.tickets.only("notifications/roots/list_changed").header("mcp-session-id").map(|id| &id[..9]),
        Some("upstream-")
    );
}

/// The TypeScript client closes a subscription by a notification without the headers that mirror it.
#[test]
fn a_modern_cancellation_without_mirrored_headers_is_accepted() {
    let world = World::start();
    let caller = world.reader();
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let answer = caller.send(&caller.post(body.to_string()).header("MCP-Protocol-Version", MODERN));
    assert_eq!(answer.status(), 202, "{}", answer.0);
}

#[test]
fn a_name_may_be_mirrored_in_its_base64_form() {
    let world = World::start();
    let caller = world.reader();
    let encoded = base64::engine::general_purpose::STANDARD.encode("read");
    let message = modern_message(1, "tools/call", json!({ "name": "read" }));
    let mut request = caller.modern_post(&message);
    request.headers.retain(|(name, _)| name != "Mcp-Name");
    let answer = caller.send(&request.header("Mcp-Name", &format!("=?base64?{encoded}?=")));
    assert_eq!(answer.status(), 200, "{}", answer.0);
}

#[test]
fn unknown_param_headers_are_forwarded() {
    let world = World::start();
    let answer = world.reader().header("Mcp-Param-Region", "eu").call("read", json!({ "region": "eu" }));
    assert_eq!(answer.status(), 200, "{}", answer.0);
    let seen = world.tickets.only("tools/call");
    assert_eq!(seen.header("mcp-param-region"), Some("eu"));
    assert_eq!(seen.header("mcp-method"), Some("tools/call"));
    assert_eq!(seen.header("mcp-name"), Some("read"));
    assert_eq!(seen.header("mcp-protocol-version"), Some(MODERN));
}

#[test]
fn the_revision_of_a_session_goes_upstream() {
    let world = World::start();
    for revision in ["2025-06-18", LEGACY] {
        world.tickets.forget();
        world.reader().initialize(revision).list();
        assert_eq!(world.tickets.only("tools/list").header("mcp-protocol-version"), Some(revision));
    }
}

/// 2025-11-25, Transports: a server that gets no version and cannot tell it otherwise assumes 2025-03-26.
#[test]
fn a_legacy_request_without_a_version_is_2025_03_26() {
    let world = World::start();
    let session = world.reader().initialize("2025-03-26");
    session.call("read", json!({}));
    let records = world.gateway.audit(3);
    let call = records.iter().find(|record| record["mcp"]["method"] == "tools/call").unwrap();
    assert_eq!(call["mcp"]["revision"], "2025-03-26");
}

#[test]
fn a_batch_of_2025_03_26_is_authorized_message_by_message() {
    let world = World::start();
    let session = world.reader().initialize("2025-03-26");
    let call = |tool: &str| legacy_message("tools/call", json!({ "name": tool, "arguments": {} }));
    let answer = session.send(json!([call("read"), call("read")]));
    assert_eq!(answer.status(), 200, "{}", answer.0);
    assert_eq!(answer.json().as_array().map(Vec::len), Some(2));

    world.tickets.forget();
    let answer = session.send(json!([call("read"), call("purge")]));
    assert_eq!(answer.status(), 403, "{}", answer.0);
    let too_long: Vec<Value> = (0..51).map(|_| call("read")).collect();
    session.send(json!(too_long)).assert_refused(400, "invalid_request");
    session.send(json!([])).assert_refused(400, "invalid_request");
    world.tickets.assert_saw_nothing();
}

#[test]
fn a_list_inside_a_batch_is_filtered() {
    let world = World::start();
    let session = world.reader().initialize("2025-03-26");
    let answer = session.send(json!([legacy_message("tools/list", json!({})), legacy_message("ping", json!({}))]));
    assert_eq!(answer.status(), 200, "{}", answer.0);
    assert!(!answer.0.text().contains("purge"), "{}", answer.0);
}

#[test]
fn ids_come_back_as_they_were_sent() {
    let world = World::start();
    let caller = world.reader();
    for id in [json!(0), json!(-7), json!(9_007_199_254_740_993_i64), json!(""), json!("1"), json!("ü\"\\")] {
        for (tool, status) in [("read", 200), ("purge", 403)] {
            let mut message = modern_message(1, "tools/call", json!({ "name": tool }));
            message["id"] = id.clone();
            let answer = caller.send(&caller.modern_post(&message));
            assert_eq!(answer.status(), status, "{}", answer.0);
            assert_eq!(answer.json()["id"], id, "{tool}");
        }
    }
}

/// A legacy server in front of a probing client: the answer must tell the client to fall back, not that we are broken.
#[test]
fn a_modern_probe_of_a_legacy_server_gets_the_servers_own_answer() {
    let world = World::start();
    world.tickets.on("server/discover", |_| {
        let error = json!({ "code": -32000, "message": "Bad Request: Server not initialized" });
        crate::support::Reply::json(400, &json!({ "jsonrpc": "2.0", "id": null, "error": error }))
    });
    let answer = world.reader().request("server/discover", json!({}));
    assert_eq!(answer.status(), 400, "{}", answer.0);
    assert_eq!(answer.json()["error"]["code"], -32000, "{}", answer.0);
}

/// Servers on the Python SDK (1.x) refuse before they read the id, and answer to the id `server-error`. A client that
/// probes must learn that it was refused (4xx: go on with `initialize`), not that the gateway is broken (502).
#[test]
fn a_refusal_that_answers_nobody_keeps_its_status_and_nothing_else() {
    let world = World::start();
    for (status, method) in [(400, "server/discover"), (406, "tools/list"), (404, "server/discover")] {
        world.tickets.on(method, move |_| {
            let error = json!({ "code": -32600, "message": "Bad Request: Missing session ID" });
            crate::support::Reply::json(status, &json!({ "jsonrpc": "2.0", "id": "server-error", "error": error }))
        });
        let caller = world.reader();
        let answer = caller.send(&caller.modern_post(&modern_message(7, method, json!({}))));
        assert_eq!(answer.status(), status, "{}", answer.0);
        assert_eq!(answer.json()["id"], 7, "{}", answer.0);
        assert_eq!(answer.json()["error"]["code"], status, "{}", answer.0);
        assert!(!answer.0.to_string().contains("server-error"), "{}", answer.0);
    }
}

#[test]
fn the_audit_record_names_revision_method_tool_and_id() {
    let world = World::start();
    let message = modern_message(42, "tools/call", json!({ "name": "read" }));
    let caller = world.reader();
    caller.send(&caller.modern_post(&message));
    let expected = json!({ "revision": MODERN, "method": "tools/call", "name": "read", "id": 42 });
    let mut mcp = world.gateway.audited()["mcp"].clone();
    // The id may be kept as JSON text or as the value itself.
    if mcp["id"] == "42" {
        mcp["id"] = json!(42);
    }
    assert_eq!(mcp, expected);
}

#[test]
fn every_supported_revision_can_be_negotiated() {
    let world = World::start();
    for revision in REVISIONS.into_iter().filter(|revision| *revision != MODERN) {
        assert_eq!(world.reader().initialize(revision).list().status(), 200, "{revision}");
    }
}

/// MCP 2026-07-28, Streamable HTTP, "Schema Extension": what a list has said of a tool's arguments is held against the
/// headers of its calls. A header that no annotation names is nobody's business and passes on.
#[test]
fn a_param_header_must_say_what_the_argument_says() {
    let world = World::start();
    let call = |headers: &[(&str, &str)]| {
        let params = json!({ "name": "read", "arguments": { "region": "eu" } });
        let request = world.reader().modern("tools/call", params);
        world.reader().send(&headers.iter().fold(request, |request, (name, value)| request.header(name, value)))
    };
    assert_eq!(call(&[("Mcp-Param-Region", "us")]).status(), 200, "no list has named the header yet");

    let schema =
        json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
    let list = modern_message(7001, "tools/list", json!({}));
    let tools = json!([{ "name": "read", "inputSchema": schema }]);
    let result = json!({ "resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private" });
    world.tickets.answer_next(
        "tools/list",
        crate::support::Reply::json(200, &json!({ "jsonrpc": "2.0", "id": 7001, "result": result })),
    );
    assert_eq!(world.reader().send(&world.reader().modern_post(&list)).status(), 200);

    world.tickets.forget();
    for headers in [&[("Mcp-Param-Region", "us")][..], &[]] {
        let answer = call(headers);
        assert_eq!((answer.status(), answer.reason().as_str()), (400, "header_mismatch"), "{}", answer.0);
        assert_eq!(answer.json()["error"]["code"], -32020);
    }
    world.tickets.assert_saw_nothing();
    assert_eq!(call(&[("Mcp-Param-Region", "eu"), ("Mcp-Param-Other", "x")]).status(), 200);
    let seen = world.tickets.only("tools/call");
    assert_eq!((seen.header("mcp-param-region"), seen.header("mcp-param-other")), (Some("eu"), Some("x")));
}
