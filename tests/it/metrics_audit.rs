//! What happened? Numbers and records, complete, and without anything that must not be written down.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Gateway, LEGACY, Reply, World, modern_message, poll_until, random_word};

#[test]
fn every_request_ends_in_exactly_one_record() {
    let world = World::exchanging(|conf| conf);
    let caller = world.reader();
    let malformed = caller.send(&caller.post("{").header("MCP-Protocol-Version", "2026-07-28"));
    let session = caller.initialize(LEGACY);
    let statuses = vec![
        malformed.status(),
        200,
        202,
        caller.call("read", json!({})).status(),
        caller.call("close", json!({})).status(),
        world.gateway.stranger().list().status(),
        caller.clone().at("/nowhere").list().status(),
        caller.send(&caller.bare("PUT")).status(),
        caller.clone().header("Origin", "https://evil.example").list().status(),
        session.list().status(),
        session.try_get().status(),
        session.delete().status(),
        session.list().status(),
    ];
    let records = world.gateway.audit(statuses.len());
    let mut recorded: Vec<u64> = records.iter().map(|record| record["status"].as_u64().unwrap()).collect();
    let mut expected: Vec<u64> = statuses.into_iter().map(u64::from).collect();
    recorded.sort_unstable();
    expected.sort_unstable();
    assert_eq!(recorded, expected);
    let ids: BTreeSet<&str> = records.iter().map(|record| record["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), records.len(), "each has an id of its own");
}

#[test]
fn a_call_is_recorded_with_who_what_where_and_how() {
    let world = World::exchanging(|conf| conf.of_route("scopes_supported", json!([])));
    let caller = world.reader().header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    caller.send(&caller.modern_post(&modern_message(
        9,
        "tools/call",
        json!({ "name": "read", "arguments": { "a": 1 } }),
    )));
    let record = world.gateway.audited();
    assert_eq!(record["event"], "mcp.request");
    assert_eq!(record["route"], "/mcp");
    assert_eq!(record["server"], "tickets");
    assert_eq!(record["instance"], "a");
    assert_eq!(record["client_ip"], "127.0.0.1");
    assert_eq!(record["principal"]["subject"], "alice");
    assert_eq!(record["decision"]["effect"], "allow");
    assert_eq!(record["decision"]["rule"], "allow-read");
    assert_eq!(record["credential"]["mode"], "token_exchange");
    assert_eq!(record["credential"]["cached"], false);
    assert_eq!(record["status"], 200);
    assert_eq!(record["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(record["duration_ms"].is_number() && record["upstream_ms"].is_number(), "{record:#}");
    assert!(record["bytes_in"].as_u64().unwrap() > 0 && record["bytes_out"].as_u64().unwrap() > 0);
    assert!(record["arguments"]["hmac_sha256"].as_str().is_some_and(|digest| digest.len() >= 32), "{record:#}");
    assert!(record["time"].as_str().unwrap().ends_with('Z'), "{record:#}");
    for field in ["seq", "gateway", "config_generation", "outcome"] {
        assert!(record.get(field).is_some(), "{field} in {record:#}");
    }
}

#[test]
fn records_are_numbered_without_a_gap() {
    let world = World::start();
    for _ in 0..5 {
        world.reader().list();
    }
    world.gateway.audit(5);
    let text = std::fs::read_to_string(world.gateway.path("audit.jsonl")).unwrap();
    let numbers: Vec<u64> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn failed_authentications_are_records_with_the_cause() {
    let world = World::start();
    let answer = world.gateway.caller(world.reader_token().expires_in(-3600)).list();
    let record = world.gateway.audited_as(&answer.request_id());
    assert_eq!(record["event"], "auth.refused");
    assert_eq!(record["status"], 401);
    assert!(record.to_string().contains("expired"), "{record:#}");
    assert_eq!(record["principal"], Value::Null, "an unverified token names nobody");
}

#[test]
fn the_session_is_recorded_as_a_digest() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    session.list();
    let records = world.gateway.audit(3);
    let listed = records.iter().find(|record| record["mcp"]["method"] == "tools/list").unwrap();
    let digest = listed["session"].as_str().expect("a digest");
    assert!(!digest.contains("v1.") && !session.id().contains(digest));
    assert!(!world.gateway.everything_written().contains(session.id()));
}

/// Callers' tokens, exchanged tokens, the client secret, the session key, raw arguments: not one byte of them, anywhere.
#[test]
fn no_secret_is_written_anywhere() {
    let world = World::exchanging(|conf| conf);
    let (good, expired) = (world.reader_token().sign(), world.reader_token().expires_in(-3600).sign());
    let argument = random_word();
    let session = world.gateway.caller(&good).initialize(LEGACY);
    session.call("read", json!({ "secret": argument }));
    world.gateway.caller(&good).call("purge", json!({ "secret": argument }));
    world.gateway.caller(&expired).list();
    world.gateway.stranger().header("Authorization", &format!("Basic {good}")).list();
    world.gateway.stranger().at(&format!("/mcp?token={good}")).list();
    world.sts.answer(400, json!({ "error": "invalid_request", "echo": good }));
    world.reader_named("bob").call("read", json!({}));
    world.gateway.audit(8);

    let written = world.gateway.everything_written();
    let mut secrets = vec![good.clone(), expired.clone(), argument, "client-secret-value".into(), session.id().into()];
    secrets.push("MDEyMzQ1Njc4OWFiY2RlZkZFRENCQTk4NzY1NDMyMTA".into());
    secrets.extend(world.tickets.seen().iter().filter_map(|seen| seen.bearer().map(str::to_owned)));
    // A signature alone is as telling as the whole token.
    secrets.extend([good, expired].iter().map(|token| token.rsplit_once('.').unwrap().1.to_owned()));
    assert!(secrets.iter().any(|secret| secret.starts_with("xchg-")));
    for secret in secrets {
        assert!(!written.contains(&secret), "written down: {secret}");
    }
}

#[test]
fn a_long_call_is_visible_while_it_runs() {
    let world = World::with(|conf| conf.set("audit.open_after", "300ms"));
    let pieces = world.tickets.stream_next("tools/call");
    let answer = world.reader().open("tools/call", json!({ "name": "read", "arguments": {} }));
    pieces.send(": open\n\n");
    let opened = poll_until("the notice", || {
        let text = std::fs::read_to_string(world.gateway.path("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|r| r["event"] == "mcp.opened")
    });
    assert_eq!(opened["principal"]["subject"], "alice");
    assert_eq!(world.gateway.metric("portcullis_streams_active", &[]), 1.0);
    drop((pieces, answer));
    assert_eq!(world.gateway.audited()["request_id"], opened["request_id"]);
}

#[test]
fn requests_decisions_and_calls_are_counted() {
    let world = World::exchanging(|conf| conf);
    let caller = world.reader();
    for tool in ["read", "read", "close", "purge", "never-heard-of"] {
        caller.call(tool, json!({}));
    }
    world.gateway.stranger().list();
    let metric = |name: &str, labels: &[&str]| world.gateway.metric(name, labels);
    poll_until("all six requests to be counted", || {
        (metric("portcullis_requests_total", &["route=\"/mcp\""]) == 6.0).then_some(())
    });
    assert_eq!(metric("portcullis_authorizations_total", &["decision=\"allow\""]), 2.0);
    assert_eq!(metric("portcullis_authorizations_total", &["decision=\"deny\"", "reason=\"insufficient_scope\""]), 1.0);
    assert_eq!(metric("portcullis_authorizations_total", &["decision=\"deny\"", "reason=\"denied\""]), 2.0);
    assert_eq!(metric("portcullis_tool_calls_total", &["server=\"tickets\"", "tool=\"read\""]), 2.0);
    assert_eq!(metric("portcullis_token_exchanges_total", &["server=\"tickets\""]), 1.0);
    assert_eq!(metric("portcullis_request_duration_seconds_count", &["route=\"/mcp\""]), 6.0);
    assert_eq!(metric("portcullis_authentications_total", &["issuer=\"corp\"", "result=\"ok\""]), 5.0);
    assert!(metric("portcullis_audit_records_total", &[]) >= 6.0);
    assert_eq!(metric("portcullis_instance_healthy", &["server=\"tickets\"", "instance=\"a\""]), 1.0);
}

/// Every metric of the contract exists from the start or after its first event, under its name and labels.
#[test]
fn every_metric_of_the_contract_exists() {
    let world = World::exchanging(|conf| conf);
    let session = world.reader().initialize(LEGACY);
    session.call("read", json!({}));
    session.call("read", json!({}));
    session.delete();
    world.gateway.audit(5);
    let text = world.gateway.metrics();
    for (name, labels) in [
        ("requests_total", "route,method,outcome"),
        ("request_duration_seconds_count", "route,method"),
        ("gateway_duration_seconds_count", "route"),
        ("authentications_total", "issuer,result"),
        ("authorizations_total", "route,decision,reason"),
        ("tool_calls_total", "server,tool,outcome"),
        ("tool_call_duration_seconds_count", "server,tool"),
        ("token_exchanges_total", "server,outcome"),
        ("token_exchange_duration_seconds_count", "server"),
        ("token_cache_total", "cache,result"),
        ("sessions_total", "event"),
        ("streams_active", ""),
        ("instance_healthy", "server,instance"),
        ("jwks_refreshes_total", "issuer,outcome"),
        ("audit_records_total", "sink"),
        ("audit_queue_records", ""),
        ("config_generation", ""),
    ] {
        let full = format!("portcullis_{name}");
        let line = text.lines().find(|line| line.starts_with(&full) && line[full.len()..].starts_with(['{', ' ']));
        let line = line.unwrap_or_else(|| panic!("no {full}"));
        let found: BTreeSet<&str> = match line.split_once('{') {
            Some((_, rest)) => {
                rest.rsplit_once('}').unwrap().0.split(',').map(|l| l.split('=').next().unwrap()).collect()
            }
            None => BTreeSet::new(),
        };
        assert_eq!(found, labels.split(',').filter(|label| !label.is_empty()).collect(), "{line}");
    }
}

/// Labels come from configuration or a closed set: a caller cannot make new time series.
#[test]
fn a_caller_cannot_add_labels() {
    let world = World::with(crate::support::Conf::allow_all);
    let caller = world.reader_named("somebody-special");
    let odd = random_word();
    caller.call(&odd, json!({}));
    caller.request(&format!("method/{odd}"), json!({}));
    caller.clone().at(&format!("/{odd}")).list();
    caller.send(&caller.bare("BREW"));
    caller.initialize(LEGACY);
    world.gateway.audit(5);
    let metrics = world.gateway.metrics();
    assert!(!metrics.contains(&odd), "request data in a label");
    assert!(!metrics.contains("somebody-special"), "a user in a label");
    assert!(!metrics.contains("BREW"));
    assert_eq!(world.gateway.metric("portcullis_tool_calls_total", &["tool=\"other\""]), 1.0);
}

#[test]
fn audit_can_go_to_standard_output() {
    let world = World::with(|conf| conf.set("audit", json!({ "stdout": true })));
    world.reader().list();
    poll_until("a record on standard output", || {
        let text = std::fs::read_to_string(world.gateway.path("stdout.log")).unwrap();
        text.lines().any(|line| line.contains("\"mcp.request\"")).then_some(())
    });
}

/// From a proxy that is not trusted, X-Forwarded-For is only what somebody says.
#[test]
fn the_clients_address_comes_from_a_trusted_proxy_only() {
    let untrusted = World::start();
    untrusted.reader().header("X-Forwarded-For", "203.0.113.9").list();
    assert_eq!(untrusted.gateway.audited()["client_ip"], "127.0.0.1");

    let trusted = World::with(|conf| conf.set("trusted_proxies", json!(["127.0.0.0/8", "10.0.0.0/8"])));
    trusted.reader().header("X-Forwarded-For", "198.51.100.1, 203.0.113.9, 10.0.0.7").list();
    assert_eq!(trusted.gateway.audited()["client_ip"], "203.0.113.9");
    let forwarded = trusted.tickets.only("tools/list").header("x-forwarded-for").unwrap_or_default().to_owned();
    assert!(!forwarded.contains("198.51"), "hearsay went upstream: {forwarded}");
}

/// The answer that a failed call gives and the record agree on its id.
#[test]
fn a_server_failure_is_recorded_with_its_cause() {
    let world = World::start();
    world.tickets.answer_next("tools/call", Reply::text(200, "text/html", "<p>"));
    let answer = world.reader().call("read", json!({}));
    let record = world.gateway.audited_as(&answer.request_id());
    assert_eq!(record["status"], 502);
    assert_eq!(record["decision"]["effect"], "allow", "it was allowed; the server failed");
    assert!(record.to_string().contains("upstream_protocol"), "{record:#}");
}

#[test]
fn nothing_but_metrics_is_served_beside_the_data_plane() {
    let gateway: Gateway = World::start().gateway;
    for (address, path) in [(gateway.metrics_address(), "/mcp"), (gateway.admin_address(), "/mcp")] {
        let answer = crate::support::send(address, &crate::support::Request::get(path));
        assert_eq!(answer.status, 404, "{address}{path}: {answer}");
    }
    assert_eq!(gateway.stranger().at("/metrics").list().status(), 404);
    assert_eq!(gateway.stranger().at("/readyz").list().status(), 404);
}
