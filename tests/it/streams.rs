//! Do streams flow, event by event, and end when they should?

use rmcp::model::CallToolRequestParams;
use serde_json::{Value, json};

use crate::support::{
    Conf, Event, Gateway, Idp, LEGACY, McpServer, RawServer, Reply, Request, RmcpServer, Then, World, conf,
    connect_rmcp, poll_until, runtime, usual,
};

fn progress(step: u64) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1, "progress": step } })
}

#[test]
fn events_arrive_one_by_one_while_the_stream_is_open() {
    let world = World::start();
    let pieces = world.tickets.stream_next("tools/call");
    let caller = world.reader();
    let mut answer = caller.open("tools/call", json!({ "name": "read", "arguments": {} }));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    // Each event is waited for before the next one is sent, so a gateway that held one back would hang here.
    for step in 1..=3 {
        pieces.event(&progress(step));
        assert_eq!(answer.event().unwrap().json(), progress(step));
    }
    pieces.finish();
    assert!(answer.finish());
}

#[test]
fn a_stream_passes_byte_for_byte() {
    let world = World::start();
    let noise = ": hi\nretry: 10\nid: 1\ndata:\n\n:keep\n\nfoo: bar\nid: 2\nevent: message\n";
    let multi_line = "data: {\ndata: \"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
    for line_end in ["\n", "\r\n", "\r"] {
        let answer = r#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"complete","content":[],"text":"é世"}}"#;
        let stream = format!("{noise}{multi_line}data\n\ndata:{answer}\n\n").replace('\n', line_end);
        let template = stream.clone();
        world.tickets.on_tool("read", move |seen| Reply::sse(template.replace("ID", &seen.message["id"].to_string())));
        world.tickets.forget();
        let answer = world.reader().call("read", json!({}));
        let id = world.tickets.only("tools/call").message["id"].to_string();
        assert_eq!(answer.0.text(), stream.replace("ID", &id));
    }
}

#[test]
fn characters_split_over_packets_stay_whole() {
    let world = World::start();
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    let event = format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "method": "x", "params": { "t": "é世🎉" } }));
    for byte in event.bytes() {
        pieces.send(vec![byte]);
    }
    pieces.finish();
    assert!(answer.finish());
    assert_eq!(String::from_utf8(answer.received).unwrap(), event);
}

#[test]
fn a_client_that_leaves_ends_the_stream_at_the_server() {
    let world = World::start();
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    pieces.event(&progress(1));
    answer.event().unwrap();
    drop(answer);
    pieces.wait_until_abandoned();
    assert_eq!(world.gateway.audit(1).len(), 1);
    poll_until("no stream to be counted", || {
        (world.gateway.metric("portcullis_streams_active", &[]) == 0.0).then_some(())
    });
}

#[test]
fn the_get_stream_of_a_session_flows_and_carries_last_event_id() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("GET");
    let mut stream = session.get(Some("event-41"));
    assert_eq!(stream.status, 200);
    assert_eq!(world.tickets.only("GET").header("last-event-id"), Some("event-41"));
    pieces.send("id: event-42\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
    let event = stream.event().unwrap();
    assert_eq!(event.id.as_deref(), Some("event-42"));
    drop(stream);
    pieces.wait_until_abandoned();
}

/// MCP 2025-11-25, Transports, "Sending Messages to the Server": a server may close its stream before the answer, once the
/// client has an event id to come back with (conformance suite, server-sse-polling). That is no failure, and the answer comes
/// on the stream that resumes.
#[test]
fn a_stream_that_the_server_closes_before_the_answer_ends_clean_and_resumes() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("tools/call");
    let mut call = session.open("tools/call", json!({ "name": "read", "arguments": {} }));
    let priming = "id: 0/0\nretry: 500\ndata:\n\n";
    pieces.send(priming);
    assert_eq!(call.event().expect("the priming event, at once").id.as_deref(), Some("0/0"));
    pieces.finish();
    assert!(call.finish(), "a clean end");
    assert_eq!(String::from_utf8(call.received).unwrap(), priming, "no error event of the gateway's own");

    let id = world.tickets.only("tools/call").message["id"].clone();
    let pieces = world.tickets.stream_next("GET");
    let mut resumed = session.get(Some("0/0"));
    assert_eq!(world.tickets.only("GET").header("last-event-id"), Some("0/0"));
    pieces.event(&json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } }));
    assert_eq!(resumed.event().unwrap().json()["id"], id);
    pieces.finish();
    assert!(resumed.finish());
    let outcomes: Vec<_> = world.gateway.audit(4).iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok"; 4]);
}

/// A call must end with an answer, so that no agent waits for ever.
#[test]
fn a_server_that_dies_mid_stream_becomes_an_error_event_with_the_requests_id() {
    let world = World::start();
    let pieces = world.tickets.stream_next("tools/call");
    let caller = world.reader();
    let request = caller.modern_post(&crate::support::modern_message(77, "tools/call", json!({ "name": "read" })));
    let mut answer = crate::support::open(world.gateway.address(), &request);
    pieces.event(&progress(1));
    answer.event().unwrap();
    pieces.die();
    let error = answer.event().expect("a last event").json();
    assert_eq!(error["id"], 77);
    assert_eq!(error["error"]["data"]["reason"], "upstream_unreachable", "{error}");
    assert!(answer.finish(), "the stream ends properly");
}

#[test]
fn half_an_event_is_not_passed_on_as_a_whole_one() {
    let world = World::start();
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    pieces.send("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"resu");
    pieces.die();
    answer.finish();
    let text = String::from_utf8(answer.received).unwrap();
    let last = Event::all(&text).last().cloned().expect("an event");
    let data = last.data.lines().last().unwrap_or_default().to_owned();
    let json: Value = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(json["error"].is_object(), "{text}");
}

#[test]
fn a_stream_that_stays_silent_is_ended_with_an_error() {
    let timeouts = json!({ "first_byte": "500ms", "idle": "500ms" });
    let world = World::with(|conf| conf.of_server("timeouts", timeouts));
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    pieces.event(&progress(1));
    answer.event().unwrap();
    let error = answer.event().expect("an error event").json();
    assert_eq!(error["error"]["data"]["reason"], "upstream_timeout", "{error}");
    assert!(answer.finish());
}

#[test]
fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let world = World::start();
    let (mut reply, pieces) = Reply::stream();
    if let Reply::Pieces { headers, .. } = &mut reply {
        *headers = vec![("content-type".into(), "application/json".into())];
    }
    world.tickets.answer_next("tools/call", reply);
    pieces.send("{\"jsonrpc\":\"2.0\",\"id\":1,");
    pieces.die();
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    let whole = answer.finish();
    assert!(!whole || answer.status == 502, "status {}, {:?}", answer.status, answer.received);
}

/// A result that nobody changes needs no chunks: its length is known before it has come.
#[test]
fn a_result_keeps_its_length() {
    let world = World::start();
    let answer = world.reader().call("read", json!({ "text": "x".repeat(100_000) }));
    assert_eq!(answer.header("content-length"), Some(answer.0.body.len().to_string().as_str()));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.echoed()["arguments"]["text"].as_str().map(str::len), Some(100_000));
}

#[test]
fn an_answer_that_breaks_off_before_its_length_is_an_error_the_agent_can_read() {
    let (_server, gateway, request) = breaking_off_before(4000);
    let answer = crate::support::send(gateway.address(), &request);
    assert_eq!((answer.status, answer.body.len()), (200, 4000), "{answer}");
    let error = answer.json();
    assert_eq!(error["id"], 78);
    assert_eq!(error["error"]["data"]["reason"], "upstream_unreachable", "{error}");
}

/// The reason fits into it, and nothing more.
#[test]
fn a_short_answer_that_cannot_be_passed_on_becomes_a_short_error() {
    let (_server, gateway, request) = breaking_off_before(120);
    let error = crate::support::send(gateway.address(), &request).json();
    let expected = json!({ "code": 502, "message": "upstream_unreachable" });
    assert_eq!((&error["id"], &error["error"]), (&json!(78), &expected));
}

/// No error fits into it: its length is not promised to the client.
#[test]
fn an_answer_without_room_for_an_error_does_not_break_off() {
    let (_server, gateway, request) = breaking_off_before(40);
    let answer = crate::support::send(gateway.address(), &request);
    assert_eq!((answer.header("content-length"), answer.json()["id"].as_i64()), (None, Some(78)));
    assert_eq!(answer.json()["error"]["data"]["reason"], "upstream_unreachable", "{answer}");
}

/// A server that promises an answer of this length and closes before the end of it, a gateway, and a request.
fn breaking_off_before(length: usize) -> (RawServer, Gateway, Request) {
    let idp = Idp::start();
    let server = RawServer::start(move |_request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        (format!("{head}{{\"jsonrpc\":\"2.0\",").into_bytes(), Then::Close)
    });
    let instance = json!([{ "id": "raw", "url": format!("http://{}", server.address()) }]);
    let conf = usual(&idp, &McpServer::start()).allow_all().of_server("instances", instance);
    let gateway = Gateway::start(conf);
    let call = crate::support::modern_message(78, "tools/call", json!({ "name": "read" }));
    let request = gateway.caller(idp.token()).modern_post(&call);
    (server, gateway, request)
}

#[test]
fn compression_is_not_asked_for() {
    let world = World::start();
    world.reader().header("Accept-Encoding", "gzip, deflate, br").call("read", json!({}));
    assert_eq!(world.tickets.only("tools/call").header("accept-encoding"), None);
}

#[test]
fn an_event_over_its_bound_ends_the_stream_with_an_error_the_agent_can_read() {
    let world = World::with(|conf| conf.set("limits.sse_event_bytes", "64KiB"));
    let pieces = world.tickets.stream_next("tools/list");
    let mut answer = world.reader().open("tools/list", json!({}));
    pieces.send("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[{\"name\":\"");
    for _ in 0..16 {
        pieces.send("a".repeat(16 * 1024));
    }
    drop(pieces);
    answer.finish();
    let text = String::from_utf8_lossy(&answer.received).into_owned();
    assert!(text.len() < 128 * 1024, "{} bytes came through", text.len());
    assert!(answer.status == 502 || text.contains("upstream_protocol"), "{}: {text:.300}", answer.status);
}

/// 2 MiB is a big answer, not a hostile one (teleport#67000 dropped such at 1 MiB without a word).
#[test]
fn a_large_honest_answer_passes() {
    let text = "x".repeat(2 << 20);
    for stream in [false, true] {
        let world = World::start();
        let text = text.clone();
        world.tickets.on_tool("read", move |seen| {
            let result = json!({ "content": [{ "type": "text", "text": text }] });
            let message = crate::support::message_with_result(seen, result);
            if stream { Reply::sse(format!("data: {message}\n\n")) } else { Reply::json(200, &message) }
        });
        let result = world.reader().call("read", json!({})).result();
        assert_eq!(result["content"][0]["text"].as_str().unwrap().len(), 2 << 20);
    }
}

#[test]
fn the_sdks_progress_arrives_through_the_gateway() {
    let (idp, server) = (Idp::start(), RmcpServer::start());
    let conf: Conf = conf().idp(&idp).server_at("tools", &server.instances()).allow_all();
    let gateway = Gateway::start(conf);
    let token = idp.token().sign();
    runtime().block_on(async {
        let client = connect_rmcp(gateway.address(), "/mcp", &token, LEGACY).await;
        let result = client.call_tool(CallToolRequestParams::new("steps")).await.unwrap();
        assert_eq!(result.content[0].as_text().unwrap().text, "done");
        client.cancel().await.unwrap();
    });
    let session = gateway.caller(&token).initialize(LEGACY);
    let mut answer =
        session.open("tools/call", json!({ "name": "steps", "arguments": {}, "_meta": { "progressToken": "p" } }));
    let mut steps = Vec::new();
    while let Some(event) = answer.event() {
        if event.data.is_empty() {
            continue;
        }
        let json = event.json();
        if json["method"] == "notifications/progress" {
            steps.push(json["params"]["progress"].as_f64().unwrap());
        }
    }
    assert_eq!(steps, [1.0, 2.0, 3.0]);
}

/// 2025-era servers ask the client things in the stream of a call; the answer comes as a POST of its own.
#[test]
fn a_servers_question_and_the_clients_answer_pass_through() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = session.open("tools/call", json!({ "name": "read", "arguments": {} }));
    let question =
        json!({ "jsonrpc": "2.0", "id": "s1", "method": "elicitation/create", "params": { "message": "?" } });
    pieces.event(&question);
    assert_eq!(answer.event().unwrap().json(), question);
    let reply = json!({ "jsonrpc": "2.0", "id": "s1", "result": { "action": "accept", "content": {} } });
    assert_eq!(session.send(reply.clone()).status(), 202);
    assert_eq!(world.tickets.seen().last().unwrap().message, reply);
    pieces.finish();
    assert!(answer.finish());
}
