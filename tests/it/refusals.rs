//! How does the gateway say no? One test for each row of the contract's table of refusals.

use serde_json::{Value, json};

use crate::support::{
    Caller, Conf, Framing, Gateway, Idp, LEGACY, MODERN, RawServer, Reply, Request, Then, World, legacy_message,
    modern_message, poll_until, send_raw, usual,
};

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// A modern POST whose body is written by hand and whose headers are those of a call of `read`.
fn hand_written(caller: &Caller, body: impl Into<Vec<u8>>) -> Request {
    let request = caller.post(body).header("MCP-Protocol-Version", MODERN);
    request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read")
}

fn meta() -> String {
    json!({ VERSION_KEY: MODERN, CAPABILITIES_KEY: {} }).to_string()
}

#[test]
fn parse_error_for_what_is_not_json_or_can_be_read_two_ways() {
    let world = World::start();
    let caller = world.reader();
    let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params}}}}}"#);
    let meta = meta();
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let bodies: &[(&str, Vec<u8>)] = &[
        ("empty", Vec::new()),
        ("cut off", br#"{"jsonrpc":"2.0","id":1,"#.to_vec()),
        ("invalid UTF-8", [call("").as_bytes(), b"\xff"].concat()),
        ("invalid UTF-8 in a string", b"{\"jsonrpc\":\"2.0\",\"id\":\"\xc3\x28\",\"method\":\"tools/list\"}".to_vec()),
        ("a second document", format!("{} {{}}", call("")).into_bytes()),
        ("a trailing comma", b"{\"jsonrpc\":\"2.0\",}".to_vec()),
        ("NaN", br#"{"jsonrpc":"2.0","id":NaN}"#.to_vec()),
        ("name twice", call(&format!(r#""name":"read","name":"purge","_meta":{meta}"#)).into_bytes()),
        (
            "name twice, once escaped",
            call(&format!(r#""name":"read","na\u006de":"purge","_meta":{meta}"#)).into_bytes(),
        ),
        (
            "a key twice in arguments",
            call(&format!(r#""name":"read","arguments":{{"p":1,"p":2}},"_meta":{meta}"#)).into_bytes(),
        ),
        ("a key of another case", call(&format!(r#""name":"read","Name":"purge","_meta":{meta}"#)).into_bytes()),
        ("a known key of another case alone", br#"{"jsonrpc":"2.0","id":1,"Method":"tools/list"}"#.to_vec()),
        (
            "method and Method",
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{}}"#.to_vec(),
        ),
        // U+017F folds to s.
        ("a key that folds to params", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"param\u{17f}\":{}}".into()),
        ("too deep", call(&format!(r#""name":"read","arguments":{{"a":{deep}}},"_meta":{meta}"#)).into_bytes()),
    ];
    for (what, body) in bodies {
        let answer = caller.send(&hand_written(&caller, body.clone()));
        assert_eq!(answer.status(), 400, "{what}: {}", answer.0);
        assert_eq!(answer.reason(), "parse_error", "{what}: {}", answer.0);
        answer.assert_refused(400, "parse_error");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn invalid_request_for_what_is_not_json_rpc() {
    let world = World::start();
    let caller = world.reader();
    let bodies = [
        json!({ "id": 1, "method": "tools/list" }),
        json!({ "jsonrpc": "1.0", "id": 1, "method": "tools/list" }),
        json!({ "jsonrpc": 2.0, "id": 1, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": null, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": 1.5, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": {}, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": [1], "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": true, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": 1 }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": 7 }),
        json!("tools/list"),
        json!(null),
        json!([]),
        json!([modern_message(1, "tools/list", json!({})), modern_message(2, "tools/list", json!({}))]),
    ];
    for body in bodies {
        let request = caller.post(body.to_string()).header("MCP-Protocol-Version", MODERN);
        let answer = caller.send(&request.header("Mcp-Method", "tools/list"));
        assert_eq!(answer.status(), 400, "{body}: {}", answer.0);
        assert_eq!(answer.reason(), "invalid_request", "{body}: {}", answer.0);
        answer.assert_refused(400, "invalid_request");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn invalid_request_for_a_batch_where_the_revision_has_none() {
    let world = World::start();
    for revision in ["2025-06-18", LEGACY] {
        let session = world.reader().initialize(revision);
        world.tickets.forget();
        let answer = session.send(json!([legacy_message("ping", json!({})), legacy_message("ping", json!({}))]));
        answer.assert_refused(400, "invalid_request");
        world.tickets.assert_saw_nothing();
    }
}

#[test]
fn header_mismatch_when_headers_and_body_disagree() {
    let world = World::start();
    let caller = world.reader();
    let message = modern_message(7, "tools/call", json!({ "name": "read", "arguments": {} }));
    let honest = || caller.modern_post(&message);
    let without = |name: &str| {
        let mut request = honest();
        request.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        request
    };
    let with = |name: &str, value: &str| without(name).header(name, value);
    let cases = [
        ("Mcp-Method missing", without("Mcp-Method")),
        ("Mcp-Method unlike the body", with("Mcp-Method", "tools/list")),
        ("Mcp-Method of another case", with("Mcp-Method", "Tools/Call")),
        ("Mcp-Name missing", without("Mcp-Name")),
        ("Mcp-Name unlike the body", with("Mcp-Name", "purge")),
        ("Mcp-Name of another case", with("Mcp-Name", "Read")),
        ("Mcp-Name twice", honest().header("Mcp-Name", "purge")),
        ("Mcp-Method twice", honest().header("Mcp-Method", "tools/list")),
        ("MCP-Protocol-Version missing", without("MCP-Protocol-Version")),
        ("MCP-Protocol-Version unlike the body", with("MCP-Protocol-Version", LEGACY)),
    ];
    for (what, request) in cases {
        let answer = caller.send(&request);
        assert_eq!((answer.status(), answer.reason().as_str()), (400, "header_mismatch"), "{what}: {}", answer.0);
        answer.assert_refused(400, "header_mismatch");
        assert_eq!(answer.json()["id"], 7, "{what}");
    }
    world.tickets.assert_saw_nothing();
    assert_eq!(caller.send(&honest()).status(), 200);
}

#[test]
fn unsupported_protocol_version_lists_the_supported_ones() {
    let world = World::start();
    let caller = world.reader();
    let request = caller.post(legacy_message("tools/list", json!({})).to_string());
    for version in ["2024-11-05", "garbage"] {
        let answer = caller.send(&request.clone().header("MCP-Protocol-Version", version));
        answer.assert_refused(400, "unsupported_protocol_version");
        let supported = answer.json()["error"]["data"]["supported"].clone();
        assert_eq!(supported, json!(["2025-03-26", "2025-06-18", LEGACY, MODERN]));
    }
    world.tickets.assert_saw_nothing();
}

/// Conformance suite, `server-stateless`: the list is what a client chooses from for its next try, so of a request with
/// `_meta` it holds only what can be spoken with `_meta`, and nothing that a server behind the gateway does not list.
#[test]
fn unsupported_protocol_version_of_a_stateless_request_lists_what_is_spoken_statelessly() {
    let world = World::start();
    let caller = world.reader();
    for version in ["2099-01-01", "v999.0.0", LEGACY] {
        let mut message = modern_message(1, "tools/list", json!({}));
        message["params"]["_meta"][VERSION_KEY] = version.into();
        let request = caller.post(message.to_string()).header("MCP-Protocol-Version", version);
        let answer = caller.send(&request.header("Mcp-Method", "tools/list"));
        answer.assert_refused(400, "unsupported_protocol_version");
        let data = answer.json()["error"]["data"].clone();
        assert_eq!((&data["supported"], &data["requested"]), (&json!([MODERN]), &json!(version)));
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn invalid_params_when_meta_is_missing_or_params_are_malformed() {
    let world = World::start();
    let caller = world.reader();
    let meta = json!({ VERSION_KEY: MODERN, CAPABILITIES_KEY: {} });
    let cases = [
        json!({ "name": "read" }),
        json!({ "name": "read", "_meta": { VERSION_KEY: MODERN } }),
        json!({ "name": "read", "arguments": [1], "_meta": meta }),
        json!({ "name": "read", "arguments": "x", "_meta": meta }),
    ];
    for params in cases {
        let body = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params });
        let answer = caller.send(&hand_written(&caller, body.to_string()));
        assert_eq!((answer.status(), answer.reason().as_str()), (400, "invalid_params"), "{params}: {}", answer.0);
        answer.assert_refused(400, "invalid_params");
        assert_eq!(answer.json()["id"], 3);
    }
    let session = caller.initialize(LEGACY);
    world.tickets.forget();
    for params in [json!({}), json!({ "name": 7 }), json!({ "name": "read", "arguments": [] })] {
        session.request("tools/call", params).assert_refused(400, "invalid_params");
    }
    world.tickets.assert_saw_nothing();
}

/// 2026-07-28, `SubscriptionFilter`: what nobody can read is malformed, not forbidden.
#[test]
fn invalid_params_for_a_subscription_filter_that_cannot_be_read() {
    let world = World::start();
    let caller = world.reader();
    let many: Vec<String> = (0..1001).map(|n| format!("test://{n}")).collect();
    for params in [
        json!({}),
        json!({ "notifications": [] }),
        json!({ "notifications": { "resourceSubscriptions": "test://1" } }),
        json!({ "notifications": { "resourceSubscriptions": ["test://1", 7] } }),
        json!({ "notifications": { "resourceSubscriptions": many } }),
    ] {
        caller.request("subscriptions/listen", params).assert_refused(400, "invalid_params");
    }
    world.tickets.assert_saw_nothing();
}

/// To a legacy client 404 would mean that its session is gone.
#[test]
fn method_not_found_is_404_to_a_modern_and_200_to_a_legacy_client() {
    let world = World::start();
    let caller = world.reader();
    for method in ["no/such", "initialize", "ping", "tools/Call"] {
        caller.request(method, json!({})).assert_refused(404, "method_not_found");
    }
    let session = caller.initialize(LEGACY);
    world.tickets.forget();
    for method in ["no/such", "server/discover", "subscriptions/listen"] {
        session.request(method, json!({})).assert_refused(200, "method_not_found");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn missing_token_is_challenged_without_an_error_code() {
    let world = World::start();
    let stranger = world.gateway.stranger();
    let with = |value: &str| stranger.clone().header("Authorization", value);
    for caller in [stranger.clone(), with("Basic YWxpY2U6c2VjcmV0"), with("Bearer"), with("")] {
        let answer = caller.list();
        answer.assert_refused(401, "missing_token");
        assert!(answer.challenge().starts_with("Bearer "), "{}", answer.0);
        assert_eq!(answer.challenge_parameter("error"), None);
        let metadata = "https://mcp.example.test/.well-known/oauth-protected-resource/mcp";
        assert_eq!(answer.challenge_parameter("resource_metadata").as_deref(), Some(metadata));
        assert!(answer.challenge_parameter("scope").is_some(), "{}", answer.0);
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn invalid_token_says_in_a_fixed_word_what_is_wrong() {
    let world = World::start();
    let token = || world.reader_token();
    for (token, detail) in [
        (token().expires_in(-3600).sign(), "expired"),
        (token().audience("https://wiki.test/mcp").sign(), "wrong_audience"),
        (token().signed_by_an_attacker().header("kid", "ec-1").sign(), "bad_signature"),
    ] {
        let answer = world.gateway.caller(token).list();
        answer.assert_refused(401, "invalid_token");
        assert_eq!(answer.json()["error"]["data"]["detail"], detail);
        assert_eq!(answer.challenge_parameter("error").as_deref(), Some("invalid_token"));
        assert!(answer.challenge_parameter("resource_metadata").is_some());
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn insufficient_scope_names_every_scope_the_call_needs() {
    let world = World::start();
    let answer = world.reader().call("close", json!({}));
    answer.assert_refused(403, "insufficient_scope");
    assert_eq!(answer.challenge_parameter("error").as_deref(), Some("insufficient_scope"));
    assert_eq!(answer.challenge_parameter("scope").as_deref(), Some("tickets:write"));
    assert!(answer.challenge_parameter("resource_metadata").is_some());
    assert!(answer.challenge_parameter("error_description").is_some());
    world.tickets.assert_saw_nothing();
}

#[test]
fn denied_names_no_rule_to_the_caller_but_to_the_audit_log() {
    let deny = json!({ "name": "secret-rule", "action": "deny", "target": { "tools": [{ "tool": "purge" }] } });
    let world = World::with(|conf| conf.rule(deny));
    let answer = world.reader().call("purge", json!({}));
    answer.assert_refused(403, "denied");
    assert_eq!(answer.header("www-authenticate"), None);
    assert!(!answer.0.to_string().contains("secret-rule"), "{}", answer.0);
    let record = world.gateway.audited_as(&answer.request_id());
    assert_eq!(record["decision"]["rule"], "secret-rule");
    assert_eq!(record["decision"]["effect"], "deny");
    world.tickets.assert_saw_nothing();
}

#[test]
fn forbidden_host_and_origin_are_refused_before_anything_is_parsed() {
    let world = World::start();
    let caller = world.reader();
    for (header, value, reason) in [
        ("Host", "evil.example", "forbidden_host"),
        ("Host", "mcp.example.test.evil.example", "forbidden_host"),
        ("Host", "127.0.0.1.nip.io", "forbidden_host"),
        ("Host", "", "forbidden_host"),
        ("Origin", "https://evil.example", "forbidden_origin"),
        ("Origin", "null", "forbidden_origin"),
        ("Origin", "http://127.0.0.1.nip.io", "forbidden_origin"),
        ("Origin", "http://localhost.evil.example", "forbidden_origin"),
        ("Origin", "https://mcp.example.test.evil.example", "forbidden_origin"),
    ] {
        let answer = caller.send(&caller.post("not json").header(header, value));
        assert_eq!((answer.status(), answer.reason().as_str()), (403, reason), "{header}: {value}: {}", answer.0);
        answer.assert_refused(403, reason);
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn unknown_session_for_an_id_nobody_gave_out() {
    let world = World::start();
    for id in ["v1.AAAA", "upstream-a-1", "", "v2.x", "v1.", &format!("v1.{}", "A".repeat(400))] {
        let session = world.reader().resume(LEGACY, Some(id));
        session.list().assert_refused(404, "unknown_session");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn no_route_for_any_other_path() {
    let world = World::start();
    for path in ["/", "/mcp/", "/MCP", "/mcp/x", "/%6dcp", "/mcp;a", "//mcp"] {
        let answer = world.reader().at(path).list();
        assert_eq!((answer.status(), answer.reason().as_str()), (404, "no_route"), "{path}: {}", answer.0);
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn method_not_allowed_names_the_methods_that_are() {
    let world = World::start();
    let caller = world.reader();
    for method in ["PUT", "PATCH", "TRACE"] {
        let answer = caller.send(&caller.bare(method));
        assert_eq!(answer.status(), 405, "{method}: {}", answer.0);
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST")), "{method}: {}", answer.0);
    }
    world.tickets.assert_saw_nothing();
}

/// 2026-07-28 has no GET stream and no DELETE.
#[test]
fn method_not_allowed_for_get_and_delete_of_a_modern_client() {
    let world = World::start();
    let caller = world.reader().header("MCP-Protocol-Version", MODERN);
    for method in ["GET", "DELETE"] {
        let answer = caller.send(&caller.bare(method).header("Accept", "text/event-stream"));
        assert_eq!(answer.status(), 405, "{method}: {}", answer.0);
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn not_acceptable_without_both_answer_types() {
    let world = World::start();
    let caller = world.reader();
    for accept in ["text/html", "application/json", "text/event-stream"] {
        let mut request = caller.modern("tools/list", json!({}));
        request.headers.retain(|(name, _)| name != "Accept");
        caller.send(&request.header("Accept", accept)).assert_refused(406, "not_acceptable");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn body_timeout_for_a_body_that_does_not_arrive() {
    let world = World::with(|conf| conf.set("limits.request_body_timeout", "300ms"));
    let caller = world.reader();
    let whole = caller.bytes(&caller.modern("tools/list", json!({})));
    let mut connection = caller.connect();
    connection.write(&whole[..whole.len() - 20]);
    let answer = connection.response().expect("an answer");
    assert_eq!(answer.status, 408, "{answer}");
    world.tickets.assert_saw_nothing();
}

#[test]
fn length_required_above_64_kib() {
    let world = World::start();
    let caller = world.reader();
    let filler = "x".repeat(64 * 1024);
    let request = caller.modern("tools/call", json!({ "name": "read", "arguments": { "x": filler } })).chunked();
    for caller in [caller.clone(), caller.h2c()] {
        let answer = caller.send(&request);
        answer.assert_refused(411, "length_required");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn body_too_large_before_the_body_is_read() {
    let world = World::with(|conf| conf.set("limits.body_bytes", "64KiB"));
    let caller = world.reader();
    let mut request = caller.modern("tools/list", json!({}));
    request.framing = Framing::NoBody;
    let head = caller.bytes(&request.header("Content-Length", "1073741824"));
    let answer = send_raw(world.gateway.address(), &head).expect("an answer");
    assert_eq!(answer.status, 413, "{answer}");
    world.tickets.assert_saw_nothing();
}

#[test]
fn unsupported_media_type_for_anything_but_plain_json() {
    let world = World::start();
    let caller = world.reader();
    let without_type = || {
        let mut request = caller.modern("tools/list", json!({}));
        request.headers.retain(|(name, _)| name != "Content-Type");
        request
    };
    for request in [
        without_type(),
        without_type().header("Content-Type", "text/plain"),
        without_type().header("Content-Type", "application/jsonp"),
        caller.modern("tools/list", json!({})).header("Content-Encoding", "gzip"),
    ] {
        caller.send(&request).assert_refused(415, "unsupported_media_type");
    }
    let fine = without_type().header("Content-Type", "application/json; charset=utf-8");
    assert_eq!(caller.send(&fine).status(), 200);
    assert_eq!(world.tickets.seen().len(), 1);
}

#[test]
fn headers_too_large_over_the_bound() {
    let world = World::start();
    let answer = world.reader().header("X-Big", &"a".repeat(100 * 1024)).list();
    assert_eq!(answer.status(), 431, "{}", answer.0);
    world.tickets.assert_saw_nothing();
}

#[test]
fn upstream_unreachable_when_the_server_breaks_off() {
    let idp = Idp::start();
    let server = RawServer::start(|_| (Vec::new(), Then::Close));
    let gateway = Gateway::start(raw_conf(&idp, &server));
    let answer = gateway.caller(idp.token()).call("read", json!({}));
    answer.assert_refused(502, "upstream_unreachable");
    assert!(!answer.0.to_string().contains(&server.address().to_string()), "{}", answer.0);
}

#[test]
fn upstream_protocol_never_with_the_upstreams_body() {
    let world = World::with(Conf::allow_all);
    let replies: [fn() -> Reply; 4] = [
        || Reply::text(200, "text/html", "<html>internal secret</html>"),
        || Reply::text(307, "text/plain", "internal secret").with("location", "http://127.0.0.1:1/steal"),
        || Reply::text(500, "text/plain", "stack trace: internal secret"),
        || Reply::json(200, &json!("internal secret")).with("content-encoding", "gzip"),
    ];
    for reply in replies {
        world.tickets.answer_next("tools/call", reply());
        let answer = world.reader().call("read", json!({}));
        answer.assert_refused(502, "upstream_protocol");
        assert!(!answer.0.to_string().contains("internal secret"), "{}", answer.0);
        assert_eq!(answer.header("location"), None);
    }
}

#[test]
fn exchange_failed_when_no_credential_can_be_had() {
    for (status, body) in [
        (400, json!({ "error": "invalid_target", "error_description": "internal secret" })),
        (401, json!({ "error": "invalid_client" })),
        (200, json!({ "token_type": "Bearer" })),
        (200, json!("internal secret")),
    ] {
        let world = World::exchanging(|conf| conf);
        world.sts.answer(status, &body);
        let answer = world.reader().call("read", json!({}));
        answer.assert_refused(502, "exchange_failed");
        assert!(!answer.0.to_string().contains("internal secret"), "{}", answer.0);
        world.tickets.assert_saw_nothing();
        assert_eq!(world.sts.exchanges().len(), 1, "a 4xx is never tried again");
    }
}

#[test]
fn no_healthy_instance_when_every_one_is_down() {
    let world = World::start();
    world.tickets.instances[0].stop();
    poll_until("the instance to turn unhealthy", || {
        (world.gateway.metric("portcullis_instance_healthy", &["server=\"tickets\""]) == 0.0).then_some(())
    });
    world.reader().call("read", json!({})).assert_refused(503, "no_healthy_instance");
}

/// A pipe that nobody reads stands for a disk that takes nothing more.
#[test]
fn audit_unavailable_when_nothing_more_can_be_recorded() {
    let pipe = tempfile::tempdir().unwrap();
    let path = pipe.path().join("audit.pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // For reading and writing, a pipe opens without waiting for the other side (fifo(7)).
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let world = World::with(|conf| {
        conf.set("audit.file", path.to_str().unwrap()).set("audit.queue", 4).set("audit.on_full", "refuse")
    });
    let caller = world.reader();
    let refused = (0..2000).map(|_| caller.call("read", json!({}))).find(|answer| answer.status() != 200);
    refused.expect("the queue fills up").assert_refused(503, "audit_unavailable");
    let done = world.tickets.seen_of("tools/call").len();

    // Once the pipe is read, the gateway works again, and every call that was carried out is on record.
    let text = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let sink = std::sync::Arc::clone(&text);
    std::thread::spawn(move || {
        use std::io::BufRead as _;
        for line in std::io::BufReader::new(reader).lines().map_while(Result::ok) {
            *sink.lock().unwrap() += &(line + "\n");
        }
    });
    let recorded = || {
        let text = text.lock().unwrap().clone();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["status"] == 200).count()
    };
    poll_until("the records of what was done", || (recorded() >= done).then_some(()));
    assert_eq!(recorded(), done);
    assert_eq!(caller.call("read", json!({})).status(), 200);
}

#[test]
fn upstream_timeout_when_no_answer_comes() {
    let world = World::with(|conf| conf.of_server("timeouts", json!({ "first_byte": "300ms" })));
    world.tickets.answer_next("tools/call", Reply::Hang);
    world.reader().call("read", json!({})).assert_refused(504, "upstream_timeout");
    assert_eq!(world.tickets.seen_of("tools/call").len(), 1, "a tool call that was sent is never sent again");
}

#[test]
fn exchange_timeout_when_the_exchange_server_hangs() {
    let world = World::exchanging(|conf| conf.set("servers.0.credential.token_exchange.timeout", "300ms"));
    world.sts.hang();
    world.reader().call("read", json!({})).assert_refused(504, "exchange_timeout");
    world.tickets.assert_saw_nothing();
}

/// A notification gets no JSON-RPC answer, but it is refused all the same, without an id.
#[test]
fn a_refused_notification_has_a_null_id() {
    let world = World::start();
    let answer = world.gateway.stranger().resume(LEGACY, None).notify("notifications/initialized");
    answer.assert_refused(401, "missing_token");
    assert_eq!(answer.json()["id"], Value::Null);
}

fn raw_conf(idp: &Idp, server: &RawServer) -> Conf {
    let nobody = crate::support::McpServer::start();
    let conf = usual(idp, &nobody).allow_all();
    let instance = json!([{ "id": "raw", "url": format!("http://{}", server.address()) }]);
    conf.of_server("instances", instance)
}
