//! What may who see and do through the admin API, and what is written down of it?

use serde_json::{Value, json};

use crate::support::{
    Api, Browser, Conf, Gateway, Idp, LEGACY, Request, Response, World, poll_until, send, with_sign_in,
};

fn world() -> World {
    World::with(with_sign_in)
}

fn browser(world: &World, role: &str) -> Browser {
    Browser::signed_in(&world.gateway, &world.idp, &format!("{role}-ann"), &[&format!("{role}s")])
}

fn problem(answer: &Response) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
    answer.json()["type"].as_str().unwrap().strip_prefix("urn:portcullis:problem:").unwrap().to_owned()
}

/// The records whose event begins so, once there are at least `count`.
fn records(gateway: &Gateway, event: &str, count: usize) -> Vec<Value> {
    let path = gateway.path("audit.jsonl");
    poll_until(&format!("{count} records {event}"), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let found: Vec<Value> =
            records.into_iter().filter(|record: &Value| record["event"].as_str().unwrap().starts_with(event)).collect();
        (found.len() >= count).then_some(found)
    })
}

/// A template with something in every place.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/")
}

fn methods(call: &(String, String, String)) -> Request {
    Request::new(&call.0, &format!("/api/v1{}", filled(&call.1)))
}

/// There is no unauthenticated write anywhere, nor anything else but health.
#[test]
fn without_signing_in_there_is_nothing_but_health() {
    let world = world();
    let admin = world.gateway.admin_address();
    for call in Api::read().calls() {
        for body in ["", "{}"] {
            let request = methods(&call).header("Content-Type", "application/json");
            let answer = send(admin, &if call.0 == "GET" { request } else { request.body(body) });
            let expected = if call.2 == "everybody" { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{call:?}: {answer}");
            Api::read().check(&call.0, &format!("/api/v1{}", filled(&call.1)), &answer);
        }
        for method in ["PUT", "DELETE", "PATCH", "POST", "OPTIONS"] {
            let answer = send(admin, &Request::new(method, &format!("/api/v1{}", filled(&call.1))).body("{}"));
            assert!(matches!(answer.status, 401 | 403 | 404 | 405), "{method} {call:?}: {answer}");
        }
    }
    assert_eq!(send(admin, &Request::get("/api/v1/nothing")).status, 404);
}

#[test]
fn every_call_takes_its_role_and_no_other_does() {
    let world = world();
    let roles = ["viewer", "auditor", "approver", "admin"];
    for role in roles {
        let mut browser = browser(&world, role);
        for call in Api::read().calls().iter().filter(|call| call.0 == "GET" && !call.1.contains("stream")) {
            let answer = browser.send({
                let request = methods(call);
                request.header("Cookie", &format!("__Host-portcullis={}", browser.cookies["__Host-portcullis"]))
            });
            let may = match call.2.as_str() {
                "admin" => role == "admin",
                "auditor or admin" => matches!(role, "auditor" | "admin"),
                _ => true,
            };
            assert_eq!(answer.status == 403, !may, "{role} {call:?}: {answer}");
        }
        let answer = browser.post("/api/v1/sessions/revoke", &json!({ "issuer": "i", "subject": "s", "reason": "r" }));
        assert_eq!(answer.status, if role == "admin" { 200 } else { 403 }, "{role}: {answer}");
    }
    let refused = records(&world.gateway, "admin.sessions_revoke", 4);
    let outcomes: Vec<_> = refused.iter().map(|record| record["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["refused", "refused", "refused", "ok"]);
    assert_eq!(refused[0]["reason"], "forbidden");
    assert_eq!(refused[0]["principal"]["subject"], "viewer-ann");
    assert_eq!(refused[3]["act"]["target"], "s of i");
    assert_eq!(refused[3]["act"]["note"], "r");
    assert_eq!(refused[3]["act"]["roles"], "admin");
}

/// A browser sends cookies with whatever any page makes it send.
#[test]
fn a_write_comes_from_our_page_or_is_refused() {
    let world = world();
    let admin = world.gateway.admin_address();
    let browser = browser(&world, "admin");
    let target = "/api/v1/sessions/revoke";
    let body = json!({ "issuer": "i", "subject": "s", "reason": "r" });
    let honest = browser.writing(target, &body);
    let token = honest.headers.iter().find(|(name, _)| name == "X-CSRF-Token").unwrap().1.clone();
    assert_eq!(send(admin, &honest).status, 200);
    let plain = || browser.request("POST", target).header("Content-Type", "application/json").body(body.to_string());
    let origin = browser.origin();
    for (what, request, word) in [
        ("no token", plain().header("Origin", &origin), "csrf_token"),
        ("another's token", plain().header("Origin", &origin).header("X-CSRF-Token", "x"), "csrf_token"),
        ("no origin", plain().header("X-CSRF-Token", &token), "foreign_origin"),
        (
            "another origin",
            plain().header("X-CSRF-Token", &token).header("Origin", "http://evil.example"),
            "foreign_origin",
        ),
        ("a null origin", plain().header("X-CSRF-Token", &token).header("Origin", "null"), "foreign_origin"),
        (
            "another port",
            plain().header("X-CSRF-Token", &token).header("Origin", "http://127.0.0.1:1"),
            "foreign_origin",
        ),
    ] {
        let answer = send(admin, &request);
        assert_eq!((answer.status, problem(&answer)), (403, word.to_owned()), "{what}");
    }
}

/// DNS rebinding: a page that has its own name resolve to this machine.
#[test]
fn a_foreign_host_gets_nothing() {
    let world = world();
    let admin = world.gateway.admin_address();
    let browser = browser(&world, "admin");
    for path in ["/", "/app.js", "/signin", "/signin/callback", "/api/v1/me", "/api/v1/health", "/healthz", "/status"] {
        let answer = send(admin, &browser.request("GET", path).header("Host", "evil.example"));
        assert_eq!(answer.status, 403, "{path}: {answer}");
    }
}

#[test]
fn every_answer_tells_browsers_what_they_may_not_do() {
    let world = world();
    let admin = world.gateway.admin_address();
    for path in ["/", "/app.js", "/app.css", "/signin", "/api/v1/me", "/api/v1/health", "/healthz", "/nothing"] {
        let answer = send(admin, &Request::get(path));
        let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{path}: {answer}"));
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        let asset = matches!(path, "/" | "/app.js" | "/app.css");
        assert_eq!(answer.header("cache-control"), Some(if asset { "no-cache" } else { "no-store" }), "{path}");
    }
    let page = send(admin, &Request::get("/"));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let again = send(admin, &Request::get("/").header("If-None-Match", page.header("etag").unwrap()));
    assert_eq!((again.status, again.body.len()), (304, 0));
    let small = send(admin, &Request::get("/app.js").header("Accept-Encoding", "gzip, br"));
    assert_eq!((small.header("content-encoding"), small.header("vary")), (Some("gzip"), Some("accept-encoding")));
    let whole = send(admin, &Request::get("/app.js"));
    assert_eq!(whole.header("content-encoding"), None);
    assert!(small.body.len() * 2 < whole.body.len(), "{} of {} bytes", small.body.len(), whole.body.len());
    assert_ne!(small.header("etag"), whole.header("etag"), "a cache must not take one for the other");
}

#[test]
fn without_sign_in_there_is_health_and_nothing_else() {
    let world = World::start();
    let admin = world.gateway.admin_address();
    assert_eq!(send(admin, &Request::get("/healthz")).text(), "alive\n");
    for path in ["/", "/signin", "/signin/callback", "/api/v1/me", "/api/v1/health", "/app.js"] {
        let answer = send(admin, &Request::get(path));
        assert_eq!((answer.status, answer.header("set-cookie")), (404, None), "{path}: {answer}");
    }
}

#[test]
fn the_numbers_are_those_of_the_traffic() {
    let world = world();
    world.reader().call("read", json!({}));
    world.reader().call("purge", json!({}));
    let mut browser = browser(&world, "viewer");
    let overview = poll_until("the numbers", || {
        let overview = browser.get("/api/v1/overview").json();
        (overview["requests"]["ok"] == 1 && overview["requests"]["refused"] == 1).then_some(overview)
    });
    assert_eq!(overview["denials"]["denied"], 1);
    assert_eq!(overview["instances"][0], json!({ "server": "tickets", "instance": "a", "healthy": true }));
    assert_eq!(overview["latency"]["count"], 2);
    // What the charts show of the time before somebody looked; noted every five seconds.
    let history = poll_until("two samples", || {
        let history = browser.get("/api/v1/overview/history").json();
        (history["items"].as_array().unwrap().len() >= 2).then_some(history)
    });
    let last = history["items"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["requests"]["refused"], &last["latency"]["count"]), (&json!(1), &json!(2)));
    let instances = browser.get("/api/v1/instances").json();
    assert_eq!(instances["items"][0]["id"], "a");
}

#[test]
fn a_refusal_is_found_by_its_request_id_with_the_rule_that_decided() {
    let world = World::with(|conf| {
        with_sign_in(conf).rule(json!({
            "name": "no-purge", "action": "deny", "target": { "tools": [{ "server": "tickets", "tool": "purge" }] },
        }))
    });
    let refused = world.reader().call("purge", json!({}));
    world.reader().call("read", json!({}));
    world.gateway.audit(2);
    let mut browser = browser(&world, "auditor");
    let id = refused.request_id();
    let found = poll_until("the record", || {
        let found = browser.get(&format!("/api/v1/audit?request_id={id}")).json();
        (!found["items"].as_array().unwrap().is_empty()).then_some(found)
    });
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(found["items"][0]["decision"]["rule"], "no-purge");
    assert_eq!(found["items"][0]["request_id"], id.as_str());

    let all = |query: &str, browser: &mut Browser| browser.get(&format!("/api/v1/audit?{query}")).json();
    assert_eq!(all("outcome=refused&event=mcp.", &mut browser)["items"].as_array().unwrap().len(), 1);
    assert_eq!(all("principal=alice", &mut browser)["items"].as_array().unwrap().len(), 2);
    let first = all("principal=alice&limit=1", &mut browser);
    let second = all(&format!("principal=alice&limit=1&after={}", first["next"].as_str().unwrap()), &mut browser);
    assert_eq!(
        (&first["items"][0]["mcp"]["name"], &second["items"][0]["mcp"]["name"]),
        (&json!("read"), &json!("purge"))
    );
    assert_eq!(second["next"], Value::Null);
    for query in ["limit=0", "limit=9999", "nothing=1", "after=x"] {
        assert_eq!(browser.get(&format!("/api/v1/audit?{query}")).status, 400, "{query}");
    }
}

#[test]
fn the_audit_stream_delivers_what_fits_its_filter_and_ends_with_the_session() {
    let world = world();
    let mut browser = browser(&world, "auditor");
    let mut stream = browser.open("/api/v1/audit/stream?event=mcp.&outcome=refused");
    assert_eq!((stream.status, stream.header("content-type")), (200, Some("text/event-stream")));
    world.reader().call("read", json!({}));
    let refused = world.reader().call("purge", json!({}));
    let event = stream.event().expect("an event");
    assert_eq!(event.json()["request_id"], refused.request_id().as_str());
    assert_eq!(event.id, Some(event.json()["seq"].to_string()));
    assert_eq!(browser.post("/api/v1/signout", &json!({})).status, 200);
    while let Some(event) = stream.event() {
        assert_eq!(event.data, "", "only keep-alives until the end");
    }
}

/// Control characters arrive as data, not as what they do to a terminal or a page.
#[test]
fn what_people_write_comes_back_escaped() {
    let world = world();
    let note = "\u{1b}[2J\u{202e}\u{7}<script>alert(1)</script>";
    let wish = json!({ "issuer": "i", "subject": note, "reason": note });
    assert_eq!(browser(&world, "admin").post("/api/v1/sessions/revoke", &wish).status, 200);
    let mut browser = browser(&world, "auditor");
    let answer = poll_until("the record", || {
        let answer = browser.get("/api/v1/audit?event=admin.sessions_revoke");
        (!answer.json()["items"].as_array().unwrap().is_empty()).then_some(answer)
    });
    assert!(answer.body.iter().all(|byte| *byte >= b' '), "{answer}");
    assert!(!answer.text().contains('\u{202e}') && answer.text().contains("\\u202e"), "{answer}");
    assert_eq!(answer.json()["items"][0]["act"]["note"], note);
}

#[test]
fn sessions_are_counted_and_ended_with_what_is_open() {
    let world = world();
    let alice = world.reader().initialize(LEGACY);
    let bob = world.reader_named("bob").initialize(LEGACY);
    assert_eq!((alice.list().status(), bob.list().status()), (200, 200));
    let mut browser = browser(&world, "admin");
    let seen = poll_until("alice's session to be seen", || {
        let seen = browser.get("/api/v1/sessions").json();
        let alice = seen["items"].as_array().unwrap().iter().find(|one| one["subject"] == "alice").cloned();
        alice.filter(|alice| alice["sessions"] == 1)
    });
    assert_eq!((&seen["issuer"], &seen["revoked_at"]), (&json!(world.idp.issuer()), &Value::Null));

    let wish = json!({ "issuer": world.idp.issuer(), "subject": "alice", "reason": "laptop stolen" });
    assert_eq!(browser.post("/api/v1/sessions/revoke", &wish).status, 200);
    alice.list().assert_refused(404, "unknown_session");
    assert_eq!(bob.list().status(), 200, "another's session stays");
    let seen = browser.get("/api/v1/sessions").json();
    let alices = seen["items"].as_array().unwrap().iter().find(|one| one["subject"] == "alice").unwrap().clone();
    assert_eq!(alices["sessions"], 0);
    assert!(alices["revoked_at"].is_string());
    // Ids carry whole seconds: within the second of the revocation a new one counts as an old one.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(world.reader().initialize(LEGACY).list().status(), 200);
}

#[test]
fn open_streams_of_somebody_whose_sessions_are_ended_end() {
    for http2 in [false, true] {
        let world = World::with(|conf| with_sign_in(conf).of_server("http2", json!(http2)));
        let mut browser = browser(&world, "admin");
        let pieces = world.tickets.stream_next("tools/call");
        let mut alices = world.reader().open("tools/call", json!({ "name": "read", "arguments": {} }));
        let note =
            json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": 1 } });
        pieces.event(&note);
        assert_eq!(alices.event().unwrap().json(), note);
        let wish = json!({ "issuer": world.idp.issuer(), "subject": "alice", "reason": "laptop stolen" });
        assert_eq!(browser.post("/api/v1/sessions/revoke", &wish).status, 200);
        if http2 {
            // A connection that many share is not cut: its stream ends when it next speaks.
            pieces.event(&note);
        }
        let id = alices.header("x-request-id").unwrap().to_owned();
        alices.finish();
        let record = world.gateway.audited_as(&id);
        assert_eq!(
            (&record["outcome"], &record["reason"]),
            (&json!("refused"), &json!("unknown_session")),
            "{record:#}"
        );
        assert_eq!(world.reader().call("close", json!({})).status(), 403, "who asks later is asked for scopes as ever");
    }
}

#[test]
fn the_policy_explains_what_an_agent_may_do() {
    let fleet = Idp::start();
    let rules = |conf: Conf, agents: Value| {
        let conf = with_sign_in(conf).issuer("fleet", &fleet, json!({}));
        let conf = conf.set("agents", json!({ "issuers": [{ "issuer": "fleet" }] }));
        // Left out, the route looks for no agent, and no rule of its own may ask for one.
        if agents.is_null() {
            return conf;
        }
        conf.of_route("agents", agents).rule(json!({
            "name": "drafters", "source": { "agent": { "capabilities": ["email:draft"] } },
            "target": { "tools": [{ "server": "tickets", "tool": "purge" }] }, "when": "agent.depth == 1",
        }))
    };
    let question = |agent: Value| json!({ "route": "/mcp", "claims": { "sub": "alice" }, "tools": { "purge": null }, "agent": agent });
    let drafter = json!({
        "agent": "drafter", "type": "assistant", "provider": "agents.test", "capabilities": ["email:draft"],
        "attestation": "verified",
    });
    let itself = json!({ "agent": "alice", "capabilities": ["email:draft"] });
    for (agents, agent, word, verdict) in [
        (json!("optional"), drafter.clone(), "considered", "allow"),
        (json!("optional"), json!({ "agent": "reader" }), "considered", "deny"),
        (json!("optional"), itself, "considered", "deny"),
        (json!("optional"), Value::Null, "none", "deny"),
        (json!("required"), Value::Null, "missing", "deny"),
        (Value::Null, drafter.clone(), "ignored", "deny"),
    ] {
        let world = World::with(|conf| rules(conf, agents.clone()));
        let answer = browser(&world, "viewer").post("/api/v1/policy/explain", &question(agent.clone()));
        assert_eq!(answer.status, 200, "{answer}");
        let answer = answer.json();
        let purge = answer["tools"].as_array().unwrap().iter().find(|one| one["tool"] == "purge").unwrap();
        assert_eq!((&answer["agent"], &purge["verdict"]), (&json!(word), &json!(verdict)), "{agents}: {agent}");
    }
    let world = World::with(|conf| rules(conf, json!("optional")));
    for wrong in [json!({}), json!({ "agent": "a", "surprise": 1 }), json!({ "agent": "a", "attestation": "failed" })] {
        assert_eq!(browser(&world, "viewer").post("/api/v1/policy/explain", &question(wrong)).status, 400);
    }
}

#[test]
fn the_policy_explains_itself_rule_by_rule() {
    let world = World::with(|conf| {
        with_sign_in(conf).rule(json!({
            "name": "polite", "source": { "jwt": { "claims": [{ "name": "team", "type": "string", "values": ["blue"] }] } },
            "target": { "tools": [{ "server": "tickets", "tool": "purge", "when": "args.sure == true" }] },
        }))
    });
    let mut browser = browser(&world, "viewer");
    let mut ask = |question: Value| {
        let answer = browser.post("/api/v1/policy/explain", &question);
        assert_eq!(answer.status, 200, "{answer}");
        let tools = answer.json()["tools"].as_array().unwrap().clone();
        move |tool: &str| tools.iter().find(|one| one["tool"] == tool).unwrap().clone()
    };
    let reader = ask(json!({ "route": "/mcp", "claims": { "scope": "tickets:read", "team": "blue" } }));
    assert_eq!((&reader("read")["verdict"], &reader("read")["rule"]), (&json!("allow"), &json!("allow-read")));
    assert_eq!((&reader("close")["verdict"], &reader("close")["rule"]), (&json!("deny"), &Value::Null));
    let purge = reader("purge");
    assert_eq!((&purge["verdict"], &purge["effect"]), (&json!("depends"), &json!("deny")));
    assert_eq!(purge["depends_on"], json!([{ "rule": "polite", "effect": "allow" }]));
    let sure = ask(json!({
        "route": "/mcp", "claims": { "team": "blue" }, "tools": { "purge": { "sure": true }, "close": {} },
    }));
    assert_eq!((&sure("purge")["verdict"], &sure("purge")["rule"]), (&json!("allow"), &json!("polite")));
    assert_eq!(sure("close")["missing_scopes"], json!(["tickets:write"]));

    for (question, status) in [
        (json!({ "route": "/nowhere" }), 404),
        (json!({ "rout": "/mcp" }), 400),
        (json!({ "route": "/mcp", "tools": { "purge": [1] } }), 400),
        (json!([]), 400),
    ] {
        assert_eq!(browser.post("/api/v1/policy/explain", &question).status, status, "{question}");
    }
}

#[test]
fn the_configuration_is_shown_checked_and_read_again() {
    let world = world();
    let mut browser = browser(&world, "admin");
    let config = browser.get("/api/v1/config");
    assert_eq!(config.header("etag"), Some("\"1\""));
    assert_eq!(
        config.json()["document"]["admin"]["sign_in"]["client"]["secret"]["file"]
            .as_str()
            .map(|path| path.ends_with("/admin.secret")),
        Some(true)
    );
    assert!(!config.text().contains("adm1n-client-value"), "{config}");

    let checked = browser
        .post("/api/v1/config/check", &json!({ "yaml": "listen: 1\nissuers: [{ issuer: { file: /etc/shadow } }]" }));
    assert_eq!(checked.json()["ok"], false);
    let paths: Vec<Value> =
        checked.json()["problems"].as_array().unwrap().iter().map(|problem| problem["path"].clone()).collect();
    assert!(paths.contains(&json!("listen")) && paths.contains(&json!("public_url")), "{paths:?}");
    assert!(!checked.text().contains("root:"), "nothing is read for a caller");

    let no_tag = browser.post("/api/v1/config/reload", &json!({}));
    assert_eq!((no_tag.status, problem(&no_tag)), (428, "precondition_required".to_owned()));
    let stale = browser.post_with("/api/v1/config/reload", &json!({}), &[("If-Match", "\"9\"")]);
    assert_eq!((stale.status, problem(&stale)), (412, "precondition_failed".to_owned()));
    let applied = browser.post_with("/api/v1/config/reload", &json!({}), &[("If-Match", "\"1\"")]);
    assert_eq!((applied.status, &applied.json()["generation"]), (200, &json!(2)), "{applied}");

    let path = world.gateway.path("portcullis.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"threads\": 2", "\"threads\": \"many\"")).unwrap();
    let refused = poll_until("the file to be read by nobody else", || {
        let answer = browser.post_with("/api/v1/config/reload", &json!({}), &[("If-Match", "\"2\"")]);
        (answer.status != 503).then_some(answer)
    });
    assert_eq!((refused.status, problem(&refused)), (422, "invalid_config".to_owned()));
    assert_eq!(refused.json()["problems"][0]["path"], "server.threads");
    let outcomes: Vec<Value> =
        records(&world.gateway, "admin.config_reload", 4).iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("refused"), json!("refused"), json!("ok"), json!("refused")]);
}

#[test]
fn bodies_are_read_strictly_and_not_without_end() {
    let world = World::with(|conf| with_sign_in(conf).set("admin.body_bytes", "1KiB"));
    let mut browser = browser(&world, "viewer");
    let long = json!({ "route": "x".repeat(2000) });
    let answer = browser.post("/api/v1/policy/explain", &long);
    assert_eq!((answer.status, problem(&answer)), (413, "too_large".to_owned()));
    let mut typed = browser.writing("/api/v1/policy/explain", &json!({ "route": "/mcp" }));
    typed.headers.retain(|(name, _)| name != "Content-Type");
    let answer = browser.send(typed.header("Content-Type", "text/plain"));
    assert_eq!((answer.status, problem(&answer)), (415, "unsupported_media_type".to_owned()));
    let mut twice = browser.writing("/api/v1/policy/explain", &json!({}));
    twice.body = br#"{"route":"/mcp","route":"/other"}"#.to_vec();
    assert_eq!(browser.send(twice).status, 400);
}
