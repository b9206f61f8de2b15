//! What must not happen. Each test is named for it and says where it happened to somebody.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Caller, Conf, Event, Gateway, Idp, LEGACY, MODERN, McpServer, REVISIONS, RawRequest, RawServer, Reply, Request,
    Then, World, legacy_message, modern_message, poll_until, random_word, runtime, send, send_raw, usual,
};

/// CVE-2025-49596, CVE-2025-66414 and others: a page of a foreign site rebinds its name to a loopback address.
#[test]
fn a_foreign_page_cannot_reach_any_listener_by_rebinding() {
    let world = World::start();
    for address in [world.gateway.address(), world.gateway.admin_address(), world.gateway.metrics_address()] {
        for path in ["/mcp", "/readyz", "/healthz", "/status", "/metrics"] {
            for host in ["evil.example", "127.0.0.1.nip.io", "localhost.evil.example", "127.0.0.1@evil.example"] {
                let bytes = Request::get(path).header("Host", host).bytes(address);
                let status = send_raw(address, &bytes).map_or(0, |answer| answer.status);
                // A host with userinfo is no host: Pingora answers 400, or nothing, before anybody else is asked. The admin
                // listener is asked itself.
                let expected: &[u16] = if host.contains('@') { &[0, 400, 403] } else { &[403] };
                assert!(expected.contains(&status), "Host: {host} at {address}{path}: {status}");
            }
            for origin in ["https://evil.example", "null", "http://127.0.0.1.nip.io"] {
                let answer = send(address, &Request::get(path).header("Origin", origin));
                assert_eq!(answer.status, 403, "Origin: {origin} at {address}{path}: {answer}");
            }
        }
    }
    world.tickets.assert_saw_nothing();
}

/// CVE-2025-6515, CVE-2026-33946: a session id is not a ticket for whoever holds it.
#[test]
fn a_stolen_session_id_is_worth_nothing_to_another_user() {
    let world = World::start();
    let alice = world.reader().initialize(LEGACY);
    let mallory = world.reader_named("mallory").resume(LEGACY, Some(alice.id()));
    world.tickets.forget();
    assert_eq!(mallory.call("read", json!({})).status(), 404);
    assert_eq!(mallory.get(None).status, 404);
    assert_eq!(mallory.delete().status(), 404);
    world.tickets.assert_saw_nothing();
    assert_eq!(alice.call("read", json!({})).status(), 200, "the owner does not notice");
}

/// An answer to the question that a server asked somebody else.
#[test]
fn nobody_answers_for_another_user() {
    let world = World::start();
    let alice = world.reader().initialize(LEGACY);
    world.tickets.forget();
    let mallory = world.reader_named("mallory").resume(LEGACY, Some(alice.id()));
    let answer = mallory.send(json!({ "jsonrpc": "2.0", "id": "s1", "result": { "action": "accept" } }));
    assert_eq!(answer.status(), 404, "{}", answer.0);
    world.tickets.assert_saw_nothing();
}

/// CVE-2026-25536: with the same JSON-RPC id, one client got another's answer.
#[test]
fn a_thousand_clients_with_the_same_id_get_their_own_answers() {
    // A thousand exchanges at once on a machine that also runs everything else: give them time.
    let world = World::exchanging(|conf| conf.set("servers.0.credential.token_exchange.timeout", "60s"));
    let callers: Vec<(String, Caller)> = (0..1000)
        .map(|number| {
            let token = world.reader_token().subject(&format!("user-{number}")).sign();
            (format!("mark-{number}-{}", random_word()), world.gateway.caller(token))
        })
        .collect();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/mcp", world.gateway.address());
    let answers = runtime().block_on(async {
        let mut tasks = Vec::new();
        for (mark, caller) in &callers {
            let message = modern_message(1, "tools/call", json!({ "name": "read", "arguments": { "mark": mark } }));
            let request = caller.modern_post(&message);
            let mut post = client.post(&url).body(request.body.clone());
            for (name, value) in &request.headers {
                post = post.header(name, value);
            }
            tasks.push(tokio::spawn(async move {
                let answer = post.timeout(Duration::from_secs(60)).send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            }));
        }
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers
    });
    for ((mark, _), (status, text)) in callers.iter().zip(answers) {
        assert_eq!(status, 200, "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        let echo: Value = serde_json::from_str(json["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(echo["arguments"]["mark"], *mark);
    }
    // And upstream each call carried the credential of its own user.
    let users: HashMap<String, String> =
        callers.iter().enumerate().map(|(number, (mark, _))| (mark.clone(), format!("user-{number}"))).collect();
    let seen = world.tickets.seen_of("tools/call");
    assert_eq!(seen.len(), 1000);
    for seen in seen {
        let mark = seen.message["params"]["arguments"]["mark"].as_str().unwrap();
        assert_eq!(world.sts.user_of(seen.bearer().unwrap()).as_ref(), users.get(mark));
    }
}

/// CVE-2026-27896: a body that a proxy and a server read differently.
#[test]
fn a_body_with_two_readings_never_reaches_the_server() {
    let world = World::start();
    let caller = world.reader();
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let bodies = [
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{{"name":"purge",{meta}}}}}"#
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list","params":{{"name":"purge",{meta}}}}}"#
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read",{meta}}},"params":{{"name":"purge"}}}}"#
        ),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read","name":"purge",{meta}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read","NAME":"purge",{meta}}}}}"#),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read",{meta}}},"param{}":{{"name":"purge"}}}}"#,
            '\u{17f}'
        ),
        // U+212A, the Kelvin sign, folds to k.
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read","arguments":{{"a":1}},"argument{}":{{"a":2}},{meta}}}}}"#,
            '\u{17f}'
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read","arguments":{{"path":"/ok","path":"/etc/shadow"}},{meta}}}}}"#
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read","arguments":{{"a":{{"b":1,"\u0062":2}}}},{meta}}}}}"#
        ),
        format!(
            "\u{feff}{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"purge\",{meta}}}}}"
        ),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"rea\ud800d",{meta}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1e400,"method":"tools/call","params":{{"name":"read",{meta}}}}}"#),
        format!(
            r#"{{"jsonrpc":"2.0","id":"{}","method":"tools/call","params":{{"name":"read",{meta}}}}}"#,
            "i".repeat(1 << 20)
        ),
    ];
    for body in bodies {
        let request = caller.post(body.clone()).header("MCP-Protocol-Version", MODERN);
        let answer = caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
        assert_eq!(answer.status(), 400, "{body:.300}: {}", answer.0);
    }
    world.tickets.assert_saw_nothing();
}

/// 2026-07-28 mirrors the body in headers: whoever routes by the one and authorizes by the other is lost.
#[test]
fn headers_never_decide_what_a_body_asks() {
    let world = World::start();
    let caller = world.reader();
    let message = modern_message(1, "tools/call", json!({ "name": "purge", "arguments": {} }));
    let post = |headers: &[(&str, &str)]| {
        let mut request = caller.post(message.to_string()).header("MCP-Protocol-Version", MODERN);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        caller.send(&request)
    };
    let method = ("Mcp-Method", "tools/call");
    for headers in [
        vec![method, ("Mcp-Name", "read")],
        vec![method, ("Mcp-Name", "purge"), ("Mcp-Name", "read")],
        vec![method, ("Mcp-Name", "read"), ("Mcp-Name", "purge")],
        vec![method, ("Mcp-Name", "purge, read")],
        vec![method, ("Mcp-Name", "=?base64?cmVhZA==?=")],
        vec![method, ("Mcp-Name", "=?base64?cHVyZ2UNCg==?=")],
        vec![("Mcp-Method", "tools/list"), ("Mcp-Name", "purge")],
        vec![("Mcp-Name", "purge")],
        vec![],
    ] {
        let answer = post(&headers);
        assert_eq!((answer.status(), answer.reason().as_str()), (400, "header_mismatch"), "{headers:?}: {}", answer.0);
    }
    // A legacy version in the header does not lead the policy to read the headers.
    let legacy = legacy_message("tools/call", json!({ "name": "purge", "arguments": {} }));
    let request = caller.post(legacy.to_string()).header("MCP-Protocol-Version", LEGACY).header("Mcp-Name", "read");
    caller.send(&request.header("Mcp-Method", "tools/list")).assert_refused(403, "denied");
    world.tickets.assert_saw_nothing();
}

/// CVE-2026-11719: an old version in the header skipped the scopes of a tool.
#[test]
fn no_version_header_opens_a_door() {
    let world = World::start();
    let caller = world.reader();
    let sessions: Vec<_> = REVISIONS
        .into_iter()
        .filter(|revision| *revision != MODERN)
        .map(|revision| caller.initialize(revision).id().to_owned())
        .collect();
    world.tickets.forget();
    for version in REVISIONS.into_iter().chain(["2024-11-05", "1999-01-01", "garbage", "", "2025-11-25 "]) {
        for id in &sessions {
            let conversation = caller.clone().header("Mcp-Session-Id", id).header("MCP-Protocol-Version", version);
            for message in [
                legacy_message("tools/call", json!({ "name": "purge", "arguments": {} })),
                modern_message(1, "tools/call", json!({ "name": "purge", "arguments": {} })),
            ] {
                let answer = conversation.send(&conversation.post(message.to_string()));
                assert!(matches!(answer.status(), 400 | 403), "{version}: {}", answer.0);
            }
        }
    }
    world.tickets.assert_saw_nothing();
}

/// GHSA-g53w-w6mj-hrpp: an internal header from outside was believed.
#[test]
fn a_header_from_outside_is_never_authority() {
    let claims = json!({ "sub": "X-User-Id" });
    let world = World::with(|conf| conf.of_server("forward_claims", claims));
    let mut stranger = world.gateway.stranger();
    let names = [
        "X-User-Id",
        "X-Forwarded-User",
        "X-Auth-Request-User",
        "X-Portcullis-Subject",
        "X-Portcullis-Session",
        "Forwarded",
        "X-Original-Url",
        "X-Rewrite-Url",
        "X-Http-Method-Override",
        "X-Forwarded-Host",
        "X-Mcp-Server",
        "X-Mcp-Instance",
    ];
    for name in names {
        stranger = stranger.header(name, "root");
    }
    stranger.list().assert_refused(401, "missing_token");
    world.tickets.assert_saw_nothing();
}

/// GHSA-g53w-w6mj-hrpp: the same default key in every installation.
#[test]
fn a_sample_key_does_not_start() {
    let (idp, tickets) = (Idp::start(), McpServer::start());
    for sample in ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "changeme", "", "c2hvcnQ="] {
        let output = Gateway::start_refused(usual(&idp, &tickets).file("session.key", sample, 0o600));
        assert_eq!(output.code, Some(64), "{sample}: {output:?}");
        assert!(output.stderr.contains("session.keys"), "{sample}: {output:?}");
    }
}

/// Obot ≤ 0.21.0, CVE-2026-33032 and others: one path, one method, one kind of token was not checked.
#[test]
fn no_route_method_or_token_gets_by_the_one_point_of_authorization() {
    let (idp, tickets, wiki) = (Idp::start(), McpServer::start().tool("read"), McpServer::start().tool("read"));
    let gateway = Gateway::start(usual(&idp, &tickets).server("wiki", &wiki));
    let resource = |path: &str| format!("https://mcp.example.test{path}");
    for path in ["/mcp", "/wiki"] {
        let token = || idp.token().audience(resource(path));
        let tokens = [
            ("none", None),
            ("another audience", Some(token().audience("https://other.test").sign())),
            ("expired", Some(token().expires_in(-3600).sign())),
            ("unsigned", Some(token().unsigned())),
        ];
        for (what, bad) in tokens {
            let caller = bad.map_or_else(|| gateway.stranger(), |token| gateway.caller(token)).at(path);
            for request in [
                caller.modern("tools/call", json!({ "name": "read" })),
                caller.post(legacy_message("initialize", json!({})).to_string()),
                caller.bare("GET").header("Accept", "text/event-stream"),
                caller.bare("DELETE").header("Mcp-Session-Id", "v1.x"),
            ] {
                let answer = caller.send(&request);
                assert_eq!(answer.status(), 401, "{path}, {what}, {}: {}", request.method, answer.0);
            }
        }
        gateway.caller(token()).at(path).call("read", json!({}));
    }
    tickets.assert_saw_nothing();
    wiki.assert_saw_nothing();
}

/// The specification forbids token passthrough; a token for another resource is not for us.
#[test]
fn a_clients_token_never_goes_upstream_in_any_form() {
    let world = World::exchanging(|conf| conf);
    let token = world.reader_token().sign();
    let caller = world.gateway.caller(&token);
    let session = caller.initialize(LEGACY);
    session.call("read", json!({}));
    session.try_get();
    session.delete();
    caller.call("read", json!({}));
    caller.list();
    assert!(world.tickets.seen().len() >= 7);
    for seen in world.tickets.seen() {
        assert!(!seen.everything().contains(&token), "{seen:#?}");
    }
    let elsewhere = world.reader_token().audience("https://wiki.test/mcp");
    world.gateway.caller(elsewhere).call("read", json!({})).assert_refused(401, "invalid_token");
}

/// Asana, June 2025: one customer was answered from another's cache.
#[test]
fn nothing_cached_for_one_caller_serves_another() {
    let (corp, partner, sts) = (Idp::start(), Idp::start(), crate::support::Sts::start());
    let tickets = McpServer::start().tool("read").accepting(&sts);
    let conf = usual(&corp, &tickets).issuer("partner", &partner, json!({})).exchange(&sts, json!({}));
    let gateway = Gateway::start(conf);
    // The same subject at two issuers, with the same call: two people.
    let corp_token = corp.token().scope("tickets:read").sign();
    let partner_token = partner.token().scope("tickets:read").sign();
    for _ in 0..2 {
        assert_eq!(gateway.caller(&corp_token).call("read", json!({ "same": 1 })).status(), 200);
        assert_eq!(gateway.caller(&partner_token).call("read", json!({ "same": 1 })).status(), 200);
    }
    let subjects: Vec<String> =
        sts.exchanges().iter().map(|exchange| exchange.one("subject_token").unwrap().to_owned()).collect();
    assert_eq!(subjects, [corp_token, partner_token]);
    let bearers: std::collections::BTreeSet<_> =
        tickets.seen_of("tools/call").iter().map(|seen| seen.bearer().unwrap().to_owned()).collect();
    assert_eq!(bearers.len(), 2);
}

/// A hostile server must not make the gateway grow, hang or fall.
#[test]
fn a_hostile_answer_ends_in_a_clear_error_and_costs_no_memory() {
    let mut world = World::with(|conf| conf.set("limits.list_bytes", "1MiB").set("limits.sse_event_bytes", "1MiB"));
    let before = {
        world.reader().list();
        world.gateway.resident_bytes()
    };
    let deep = "[".repeat(200_000);
    let replies: Vec<(&str, Reply)> = vec![
        ("a huge list", Reply::text(200, "application/json", vec![b'a'; 64 << 20])),
        ("a deep list", Reply::text(200, "application/json", format!("{{\"result\":{{\"tools\":{deep}"))),
        ("a huge event", Reply::sse([b"data: ".as_slice(), &vec![b'a'; 64 << 20]].concat())),
        ("a compressed answer nobody asked for", Reply::json(200, &json!({})).with("content-encoding", "gzip")),
        ("a huge header", Reply::json(200, &json!({})).with("x-big", &"h".repeat(2 << 20))),
    ];
    for (what, reply) in replies {
        world.tickets.answer_next("tools/list", reply);
        let mut answer = world.reader().open("tools/list", json!({}));
        answer.finish();
        let text = String::from_utf8_lossy(&answer.received).into_owned();
        assert!(text.len() < 4 << 20, "{what}: {} bytes came through", text.len());
        let json: Option<Value> = match answer.header("content-type") {
            Some("text/event-stream") => Event::all(&text).last().map(Event::json),
            _ => serde_json::from_str(&text).ok(),
        };
        let reason = json.map(|json| json["error"]["data"]["reason"].clone());
        assert!(reason.as_ref().is_some_and(Value::is_string), "{what}: {} {text:.300}", answer.status);
    }
    assert!(world.gateway.is_alive());
    assert_eq!(world.reader().list().status(), 200);
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "grown by {} MiB", grown >> 20);
}

/// Names and arguments with line ends, escapes and markup: they are data in every log.
#[test]
fn nobody_forges_a_line_in_a_log() {
    let world = World::start();
    let caller = world.reader();
    let names = [
        "a\nb",
        "x\r\n{\"event\":\"mcp.request\",\"request_id\":\"forged\",\"decision\":{\"effect\":\"allow\"}}",
        "\u{1b}[2J\u{1b}[31m",
        "<script>alert(1)</script>",
        "a|b=c",
        "\u{202e}gnp",
        "\u{0}",
        "\u{2028}",
    ];
    for name in names {
        let message = modern_message(1, "tools/call", json!({ "name": name, "arguments": { name: name } }));
        let encoded = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(name)
        };
        let request = caller.post(message.to_string()).header("MCP-Protocol-Version", MODERN);
        let request = request.header("Mcp-Method", "tools/call").header("Mcp-Name", &format!("=?base64?{encoded}?="));
        assert!(matches!(caller.send(&request).status(), 400 | 403), "{name:?}");
    }
    let records = world.gateway.audit(names.len());
    assert_eq!(records.len(), names.len());
    assert!(records.iter().all(|record| record["request_id"] != "forged"));
    let text = std::fs::read_to_string(world.gateway.path("audit.jsonl")).unwrap();
    assert!(
        text.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()),
        "a raw control character in the audit log"
    );
    assert!(!world.gateway.log().contains("\u{1b}[2J"), "an escape sequence in the process log");
}

/// CVE-2026-26118, CVE-2026-44430: a name or number for the metadata service of the cloud, which hands out the machine's own
/// credentials.
#[test]
fn no_spelling_of_a_metadata_address_is_called() {
    let (idp, tickets) = (Idp::start(), McpServer::start());
    let hosts = [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "100.100.100.200",
        "0.0.0.0",
        "[::]",
    ];
    let mut conf = usual(&idp, &tickets);
    for (nth, host) in hosts.iter().enumerate() {
        let jwks =
            json!({ "issuer": format!("https://idp-{nth}.test"), "jwks": { "url": format!("https://{host}/keys") } });
        conf = conf.issuer(&format!("evil-{nth}"), &idp, jwks);
    }
    let gateway = Gateway::start_unready(conf);
    for (nth, host) in hosts.iter().enumerate() {
        poll_until(&format!("the refusal to call {host}"), || {
            let log = gateway.log();
            let told = log.lines().find(|line| line.contains(&format!("issuer=evil-{nth} ")))?;
            assert!(told.contains("forbidden_address"), "{host}: {told}");
            Some(())
        });
    }
    assert_eq!(gateway.caller(idp.token().scope("tickets:read")).call("read", json!({})).status(), 200);
}

/// A redirect would take our request, and what it carries, to wherever the other side likes.
#[test]
fn a_redirect_of_our_own_calls_is_not_followed() {
    let (idp, tickets, trap) = (Idp::start(), McpServer::start(), McpServer::start());
    let location = format!("http://{}/", trap.instances[0].address());
    let redirect = move |_: &RawRequest| {
        let head = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        (head.into_bytes(), Then::Close)
    };
    let server = RawServer::start(redirect);
    let client = json!({ "id": "portcullis", "secret": { "file": "DIR/client.secret" } });
    let endpoint = format!("http://{}/token", server.address());
    let exchange = json!({ "token_exchange": { "token_endpoint": endpoint, "client": client } });
    let keys =
        json!({ "issuer": "https://other.test", "jwks": { "url": format!("http://{}/keys", server.address()) } });
    let conf = usual(&idp, &tickets).file("client.secret", "a-secret-value", 0o600).of_server("credential", exchange);
    let gateway = Gateway::start_unready(conf.issuer("other", &idp, keys));
    let answer = gateway.caller(idp.token().scope("tickets:read")).call("read", json!({}));
    answer.assert_refused(502, "exchange_failed");
    poll_until("the keys to be asked for", || (server.seen().len() >= 2).then_some(()));
    trap.assert_saw_nothing();
    tickets.assert_saw_nothing();
}

/// RFC 9112 §6.1, §11.2: two readings of where a body ends are a way to smuggle a second request.
#[test]
fn a_request_that_two_parsers_frame_differently_is_refused() {
    let mut world = World::with(|conf| conf.set("limits.request_body_timeout", "1s"));
    let caller = world.reader();
    let body = modern_message(1, "tools/list", json!({})).to_string();
    let length = body.len();
    let token = world.reader_token().sign();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/list\r\n"
    );
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let cases = [
        ("both framings", format!("{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}")),
        ("two lengths", format!("{head}Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{body}")),
        ("a length list", format!("{head}Content-Length: {length}, 5\r\n\r\n{body}")),
        ("a negative length", format!("{head}Content-Length: -1\r\n\r\n{body}")),
        ("a signed length", format!("{head}Content-Length: +{length}\r\n\r\n{body}")),
        ("a space before the colon", format!("{head}Transfer-Encoding : chunked\r\n\r\n{chunked}")),
        ("an unknown coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n{chunked}")),
        ("an overflowing chunk", format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{body}")),
        ("a folded header", format!("{head}X-A: b\r\n c\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("CR in a value", format!("{head}X-A: b\rX-Injected: 1\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("NUL in a value", format!("{head}X-A: b\0c\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "absolute form for another authority",
            format!("{head}Content-Length: {length}\r\n\r\n{body}").replacen("/mcp", "http://169.254.169.254/mcp", 1),
        ),
        ("a cut body", format!("{head}Content-Length: {}\r\n\r\n{body}", length + 100)),
    ];
    for (what, bytes) in cases {
        let mut connection = caller.connect();
        connection.write(bytes.as_bytes());
        let status = connection.response().map_or(0, |answer| answer.status);
        assert!(matches!(status, 400..=499 | 501 | 505), "{what}: {status}");
    }
    world.tickets.assert_saw_nothing();
    assert!(world.gateway.is_alive());
    assert_eq!(caller.list().status(), 200);
}

/// An upgraded connection would be a tunnel past every check.
#[test]
fn no_upgrade_opens_a_tunnel() {
    let world = World::start();
    for protocol in ["websocket", "h2c"] {
        let caller = world.reader().header("Connection", "Upgrade").header("Upgrade", protocol);
        let answer = caller.list();
        assert_ne!(answer.status(), 101, "{protocol}");
    }
    for seen in world.tickets.seen() {
        assert_eq!(seen.header("upgrade"), None);
        assert_ne!(seen.header("connection"), Some("Upgrade"));
    }
}

/// RFC 9110 §7.6.1: `Connection` names headers that a proxy removes; it must not remove ours.
#[test]
fn a_connection_header_cannot_strip_what_the_gateway_adds() {
    let world = World::exchanging(|conf| conf.of_server("forward_claims", json!({ "sub": "X-User-Id" })));
    let caller = world.reader().header("Connection", "close, Authorization, X-User-Id, Mcp-Session-Id, Content-Type");
    let answer = caller.call("read", json!({}));
    assert!(matches!(answer.status(), 200 | 400), "{}", answer.0);
    for seen in world.tickets.seen() {
        assert!(seen.bearer().is_some_and(|token| token.starts_with("xchg-")));
        assert_eq!(seen.header("x-user-id"), Some("alice"));
    }
}

/// A redirect is the server's way to send our credential somewhere else.
#[test]
fn a_redirect_is_neither_followed_nor_passed_on() {
    let (world, trap) = (World::exchanging(Conf::allow_all), McpServer::start());
    let location = format!("http://{}/steal", trap.instances[0].address());
    for status in [301, 302, 307, 308] {
        let reply = Reply::text(status, "text/plain", "").with("location", &location);
        world.tickets.answer_next("tools/call", reply);
        let answer = world.reader().call("read", json!({}));
        answer.assert_refused(502, "upstream_protocol");
        assert_eq!(answer.header("location"), None);
    }
    trap.assert_saw_nothing();
}

/// A path is compared as it was sent; whatever could be read as another path is none of ours.
#[test]
fn no_spelling_of_a_path_reaches_another_route() {
    let world = World::start();
    for path in ["/mcp/../mcp", "/mcp%2f", "/mcp%00", "/./mcp", "/x/../mcp", "/mcp\\", "/%2e/mcp", "mcp"] {
        let request = world.reader().at(path).modern("tools/list", json!({}));
        let status = send_raw(world.gateway.address(), &request.bytes(world.gateway.address())).map_or(0, |a| a.status);
        assert!(matches!(status, 0 | 400 | 404), "{path}: {status}");
    }
    world.tickets.assert_saw_nothing();
}

/// A slow client holds its own connection, not the gateway.
#[test]
fn slow_clients_do_not_stop_others() {
    let world = World::start();
    let caller = world.reader();
    let bytes = caller.bytes(&caller.modern("tools/list", json!({})));
    let mut slow: Vec<_> = (0..50).map(|_| caller.connect()).collect();
    for connection in &mut slow {
        connection.write(&bytes[..bytes.len() / 2]);
    }
    assert_eq!(caller.list().status(), 200);
    drop(slow);
    poll_until("the gateway to serve on", || (caller.list().status() == 200).then_some(()));
}
