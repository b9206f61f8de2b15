//! The main job: an authenticated, authorized call with an exchanged token, end to end, in every revision.

use rmcp::model::CallToolRequestParams;
use serde_json::json;

use crate::support::{Gateway, Idp, LEGACY, MODERN, REVISIONS, RmcpServer, Sts, World, conf, connect_rmcp, runtime};

#[test]
fn a_permitted_call_reaches_the_server_with_an_exchanged_token() {
    let world = World::exchanging(|conf| conf);
    let token = world.reader_token().sign();
    let answer = world.gateway.caller(&token).call("read", json!({ "id": 7 }));
    assert_eq!(answer.echoed()["arguments"], json!({ "id": 7 }));

    let seen = world.tickets.only("tools/call");
    let exchanged = seen.bearer().expect("a bearer token").to_owned();
    assert!(exchanged.starts_with("xchg-"));
    assert_eq!(world.sts.user_of(&exchanged).as_deref(), Some("alice"));
    assert!(!seen.everything().contains(&token));
}

#[test]
fn every_legacy_revision_calls_through_a_session() {
    let world = World::exchanging(|conf| conf);
    for revision in REVISIONS.into_iter().filter(|revision| *revision != MODERN) {
        let session = world.reader().initialize(revision);
        assert_eq!(session.list().names(), ["read"], "{revision}");
        let echoed = session.call("read", json!({ "revision": revision })).echoed();
        assert_eq!(echoed["arguments"]["revision"], revision);
        session.call("close", json!({})).assert_refused(403, "insufficient_scope");
        assert_eq!(session.delete().status(), 200, "{revision}");
    }
}

#[test]
fn the_sdk_client_works_through_the_gateway_in_both_eras() {
    let (idp, sts, server) = (Idp::start(), Sts::start(), RmcpServer::start());
    let conf = conf().idp(&idp).server_at("tools", &server.instances()).exchange(&sts, json!({}));
    let gateway = Gateway::start(conf.allow("tools", "add").allow("tools", "count").allow("tools", "credential"));
    let token = idp.token().scope("tools").sign();
    runtime().block_on(async {
        for revision in [LEGACY, MODERN] {
            let client = connect_rmcp(gateway.address(), "/mcp", &token, revision).await;
            let mut names: Vec<_> =
                client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name.to_string()).collect();
            names.sort();
            assert_eq!(names, ["add", "count", "credential"], "{revision}: `steps` is not granted, so it is hidden");

            let sum = CallToolRequestParams::new("add")
                .with_arguments(json!({ "a": 2, "b": 40 }).as_object().unwrap().clone());
            let result = client.call_tool(sum).await.unwrap();
            assert_eq!(result.content[0].as_text().unwrap().text, "42", "{revision}");
            let result = client.call_tool(CallToolRequestParams::new("credential")).await.unwrap();
            assert!(result.content[0].as_text().unwrap().text.starts_with("Bearer xchg-"), "{revision}");
            assert!(client.call_tool(CallToolRequestParams::new("steps")).await.is_err(), "{revision}");
            client.cancel().await.unwrap();
        }
    });
}

/// A counter that lives in the session: it counts on only when every call lands on the same instance.
#[test]
fn a_session_of_the_sdk_sticks_to_its_instance() {
    let (idp, server) = (Idp::start(), RmcpServer::start());
    let gateway = Gateway::start(conf().idp(&idp).server_at("tools", &server.instances()).allow_all());
    let token = idp.token().sign();
    runtime().block_on(async {
        let mut instances = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let client = connect_rmcp(gateway.address(), "/mcp", &token, LEGACY).await;
            for expected in 1..=3 {
                let result = client.call_tool(CallToolRequestParams::new("count")).await.unwrap();
                let text = result.content[0].as_text().unwrap().text.clone();
                let (instance, count) = text.split_once(' ').unwrap();
                assert_eq!(count, expected.to_string());
                instances.insert(instance.to_owned());
            }
            client.cancel().await.unwrap();
        }
        assert_eq!(instances.len(), 2, "new sessions are spread over the instances");
    });
}

/// What was judged is what is sent: numbers keep their digits, unknown fields stay.
#[test]
fn arguments_travel_byte_for_byte() {
    let world = World::start();
    let caller = world.reader();
    let arguments = r#"{ "n":12345678901234567890123, "x" : 1.0,"e":1E2,"ü":"\u00fc\/","deep":[[{}]] }"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"a-1","method":"tools/call","unknown":true,"params":{{"name":"read","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}},"x.test/y":9007199254740993}}}}}}"#
    );
    let request = caller.post(body.clone()).header("MCP-Protocol-Version", MODERN);
    let answer = caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
    assert_eq!(answer.json()["id"], "a-1");
    let sent = String::from_utf8(world.tickets.only("tools/call").body.to_vec()).unwrap();
    assert!(sent.contains(arguments), "{sent}");
    assert!(sent.contains("9007199254740993"), "{sent}");
}

#[test]
fn the_servers_path_and_not_the_route_goes_upstream() {
    let world = World::with(|conf| conf.of_server("path", json!("/inner/mcp")));
    world.reader().at("/mcp?debug=1").list();
    let seen = world.tickets.seen();
    assert!(seen.iter().all(|seen| seen.path == "/inner/mcp"), "{seen:#?}");
}

/// A tool that fails is an answer, not a failure of the gateway.
#[test]
fn an_error_from_the_tool_passes_through() {
    let world = World::start();
    world.tickets.on_tool("read", |seen| {
        let id = &seen.message["id"];
        let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32602, "message": "no such ticket" } });
        crate::support::Reply::json(200, &error)
    });
    let answer = world.reader().call("read", json!({}));
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["error"], json!({ "code": -32602, "message": "no such ticket" }));
}
