//! What may a caller see? Lists are filtered by the rules that decide the calls.

use serde_json::{Value, json};

use crate::support::{LEGACY, MODERN, Reply, World};

#[test]
fn a_list_shows_only_what_the_caller_may_use() {
    let world = World::start();
    assert_eq!(world.reader().list().names(), ["read"]);
    let both = world.idp.token().scope("tickets:write tickets:read");
    assert_eq!(world.gateway.caller(both).list().names(), ["read", "close"]);
    assert_eq!(world.gateway.caller(world.idp.token()).list().names(), [""; 0]);
    assert_eq!(world.reader().initialize(LEGACY).list().names(), ["read"]);
}

/// With arguments unknown, a tool is hidden only when every call would be denied.
#[test]
fn a_tool_with_a_rule_on_its_arguments_is_shown() {
    let rule = json!({ "target": { "tools": [{ "tool": "purge", "when": "args.count < 3" }] } });
    let world = World::with(|conf| conf.rule(rule));
    assert_eq!(world.reader().list().names(), ["read", "purge"]);
}

/// An answer that depends on who asks must not be shared, whatever the server said (2026-07-28, Caching).
#[test]
fn a_filtered_list_is_private_to_a_modern_caller() {
    let world = World::start();
    assert_eq!(world.reader().list().result()["cacheScope"], "private");
    let session = world.reader().initialize(LEGACY);
    assert_eq!(session.list().result().get("cacheScope"), None, "a legacy list has no such member");
}

#[test]
fn a_list_in_an_event_stream_is_filtered_however_it_is_cut() {
    let world = World::start();
    let list = json!({ "tools": [{ "name": "read", "inputSchema": {} }, { "name": "purge", "inputSchema": {} }] });
    for size in [1, 7, 4096] {
        let pieces = world.tickets.stream_next("tools/list");
        let caller = world.reader();
        let request = caller.modern_post(&crate::support::modern_message(5, "tools/list", json!({})));
        let mut answer = crate::support::open(world.gateway.address(), &request);
        let mut result = list.clone();
        result["resultType"] = "complete".into();
        let message = json!({ "jsonrpc": "2.0", "id": 5, "result": result });
        let stream = format!(": comment\n\nid: 9\ndata: {message}\n\n");
        for piece in stream.as_bytes().chunks(size) {
            pieces.send(piece.to_vec());
        }
        pieces.finish();
        assert!(answer.finish());
        let text = String::from_utf8(answer.received).unwrap();
        assert!(!text.contains("purge"), "{size}: {text}");
        let events = crate::support::Event::all(&text);
        let last = events.iter().rfind(|event| !event.data.is_empty()).unwrap();
        assert_eq!(last.id.as_deref(), Some("9"));
        assert_eq!(last.json()["result"]["tools"], json!([{ "name": "read", "inputSchema": {} }]));
    }
}

#[test]
fn a_long_list_is_filtered_and_keeps_its_order_and_its_cursor() {
    let rule = json!({ "target": { "tools": [{ "tool": "ok-*" }] } });
    let world = World::with(|conf| conf.rule(rule));
    let description = "d".repeat(2000);
    let tools: Vec<Value> = (0..500)
        .map(|n| {
            let kind = if n % 2 == 0 { "ok" } else { "no" };
            json!({ "name": format!("{kind}-{n}"), "description": description, "inputSchema": { "x": 1.0 } })
        })
        .collect();
    world.tickets.on("tools/list", move |seen| {
        Reply::result(seen, json!({ "tools": tools, "nextCursor": "page-2", "ttlMs": 5, "cacheScope": "public" }))
    });
    let answer = world.reader().list();
    let expected: Vec<String> = (0..500).filter(|n| n % 2 == 0).map(|n| format!("ok-{n}")).collect();
    assert_eq!(answer.names(), expected);
    assert_eq!(answer.result()["nextCursor"], "page-2");
    assert_eq!(answer.result()["ttlMs"], 5);
    assert!(answer.0.text().contains(r#""x":1.0"#), "a definition that stays is not rewritten");
}

#[test]
fn prompts_resources_and_templates_are_filtered_too() {
    let rules = [
        json!({ "target": { "prompts": [{ "prompt": "summary" }] } }),
        json!({ "target": { "resources": [{ "uri": "ticket://open/*" }] } }),
    ];
    let [prompt, resource] = rules;
    let idp = crate::support::Idp::start();
    let tickets = crate::support::McpServer::start()
        .prompt("summary")
        .prompt("secret")
        .resource("ticket://open/1")
        .resource("ticket://closed/1");
    let conf = crate::support::usual(&idp, &tickets).rule(prompt).rule(resource);
    let gateway = crate::support::Gateway::start(conf);
    let caller = gateway.caller(idp.token());
    assert_eq!(caller.request("prompts/list", json!({})).names(), ["summary"]);
    assert_eq!(caller.request("resources/list", json!({})).names(), ["ticket://open/1"]);
    assert_eq!(caller.request("resources/templates/list", json!({})).names(), ["ticket://open/1"]);
}

/// A list that cannot be understood cannot be filtered, so it is not shown.
#[test]
fn a_list_that_cannot_be_read_is_not_passed_on() {
    let world = World::start();
    let replies: [fn() -> Reply; 5] = [
        || {
            Reply::text(
                200,
                "application/json",
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[{\"name\":\"purge\"",
            )
        },
        || Reply::text(200, "application/json", "purge"),
        || Reply::json(200, &json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": "purge" } })),
        || {
            let twice = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"purge"}]}}"#;
            Reply::text(200, "application/json", twice)
        },
        || Reply::text(200, "application/json", "purge").with("content-encoding", "gzip"),
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        world.tickets.answer_next("tools/list", reply());
        let answer = world.reader().list();
        assert!(!answer.0.text().contains("purge"), "{number}: {}", answer.0);
        answer.assert_refused(502, "upstream_protocol");
    }
}

/// Hiding is not authorization: what is hidden is refused as well.
#[test]
fn what_is_hidden_cannot_be_called() {
    let world = World::start();
    for (tool, status) in [("read", 200), ("close", 403), ("purge", 403)] {
        assert_eq!(world.reader().call(tool, json!({})).status(), status, "{tool}");
    }
}

#[test]
fn an_error_answer_to_a_list_passes() {
    let world = World::start();
    world.tickets.on("tools/list", |seen| {
        let error = json!({ "code": -32603, "message": "out of order" });
        Reply::json(200, &json!({ "jsonrpc": "2.0", "id": seen.message["id"], "error": error }))
    });
    assert_eq!(world.reader().list().json()["error"]["code"], -32603);
}

#[test]
fn a_discovery_answer_passes() {
    let world = World::start();
    assert_eq!(world.reader().request("server/discover", json!({})).result()["supportedVersions"], json!([MODERN]));
}
