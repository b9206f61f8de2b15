//! When is an instance left alone, how does it come back, and what may be asked twice?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Gateway, Idp, LEGACY, McpServer, RawServer, Reply, Seen, Then, World, conf, message_with_result, poll_until, usual,
};

fn circuit(world: &World, instance: &str) -> f64 {
    world.gateway.metric("portcullis_circuit_open", &[&format!("instance=\"{instance}\"")])
}

/// Health checks that are too slow to help.
fn slow_checks() -> Value {
    json!({ "interval": "1h", "timeout": "1s" })
}

/// What `read` answers at instance `a` while it is ill, and always elsewhere.
fn ill_at_a(world: &World, is_ill: &Arc<AtomicBool>) {
    let is_ill = Arc::clone(is_ill);
    world.tickets.on_tool("read", move |seen: &Seen| {
        if seen.instance == "a" && is_ill.load(Ordering::Relaxed) {
            return Reply::text(500, "text/plain", "ill");
        }
        let text = json!({ "instance": seen.instance }).to_string();
        Reply::result(seen, json!({ "content": [{ "type": "text", "text": text }] }))
    });
}

#[test]
fn an_instance_that_fails_is_left_alone_and_tried_out_again() {
    let settings = json!({ "consecutive_failures": 3, "open_for": "1s", "probes": 1 });
    let world = World::with_instances(2, |conf| conf.of_server("circuit", settings).of_server("health", slow_checks()));
    let is_ill = Arc::new(AtomicBool::new(true));
    ill_at_a(&world, &is_ill);
    let failures = (0..40).filter(|_| world.reader().call("read", json!({})).status() != 200).count();
    assert!((3..=8).contains(&failures), "{failures} of 40 reached the ill instance");
    assert!(world.gateway.log().contains("is left alone"));
    let opened = world.gateway.metric("portcullis_circuits_opened_total", &["instance=\"a\""]);
    assert!(opened >= 1.0, "{opened}");
    is_ill.store(false, Ordering::Relaxed);
    poll_until("work on a", || {
        let answer = world.reader().call("read", json!({}));
        (answer.status() == 200 && answer.echoed()["instance"] == "a").then_some(())
    });
    assert_eq!(circuit(&world, "a"), 0.0);

    // Whoever reads the audit log sees why requests went elsewhere, and since when they do not.
    let turns = poll_until("both records", || {
        let turns = records(&world.gateway, "routing.circuit_");
        turns.iter().any(|record| record["event"] == "routing.circuit_closed").then_some(turns)
    });
    for record in &turns {
        let (seq, generation) = (record["seq"].as_u64(), record["config_generation"].as_u64());
        assert!(seq > Some(0) && generation == Some(1), "{record}");
        assert_eq!(
            (&record["server"], &record["instance"], &record["outcome"]),
            (&json!("tickets"), &json!("a"), &json!("ok"))
        );
        for bystander in ["request_id", "trace_id", "principal", "route", "mcp", "client_ip", "status"] {
            assert_eq!(record.get(bystander), None, "{bystander} in {record}");
        }
    }
    let words: Vec<(&str, Option<&str>)> =
        turns.iter().map(|record| (record["event"].as_str().unwrap(), record["reason"].as_str())).collect();
    assert_eq!(words.first(), Some(&("routing.circuit_opened", Some("consecutive_failures"))));
    assert_eq!(words.last(), Some(&("routing.circuit_closed", None)));
    let probes = words.iter().skip(1).take(words.len() - 2);
    assert!(probes.clone().all(|word| *word == ("routing.circuit_opened", Some("probe"))), "{words:?}");
}

/// The records whose event begins so, in order.
fn records(gateway: &Gateway, event: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(gateway.path("audit.jsonl")).unwrap_or_default();
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|record| record["event"].as_str().unwrap().starts_with(event)).collect()
}

/// While nothing is open, a session that belongs there fails fast; it is not moved, and goes on afterwards.
#[test]
fn a_session_waits_for_its_instance() {
    let settings = json!({ "consecutive_failures": 2, "open_for": "1s" });
    let world = World::with_instances(2, |conf| conf.of_server("circuit", settings).of_server("health", slow_checks()));
    let is_ill = Arc::new(AtomicBool::new(false));
    ill_at_a(&world, &is_ill);
    let session = (0..4)
        .map(|_| world.reader().initialize(LEGACY))
        .find(|session| session.call("read", json!({})).echoed()["instance"] == "a")
        .expect("a session at a");
    is_ill.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        session.call("read", json!({})).assert_refused(502, "upstream_protocol");
    }
    world.tickets.forget();
    session.call("read", json!({})).assert_refused(503, "no_healthy_instance");
    world.tickets.assert_saw_nothing();
    is_ill.store(false, Ordering::Relaxed);
    poll_until("the session to go on", || (session.call("read", json!({})).status() == 200).then_some(()));
    assert!(world.tickets.seen().iter().all(|seen| seen.instance == "a"), "it was not moved");
}

#[test]
fn an_instance_much_slower_than_the_others_is_left_alone() {
    let settings = json!({ "slow": { "times": 5, "above": "100ms", "at_least": 5 }, "open_for": "1h" });
    let world = World::with_instances(3, |conf| conf.of_server("circuit", settings));
    world.tickets.on_tool("read", |seen| {
        if seen.instance == "c" {
            std::thread::sleep(Duration::from_millis(700));
        }
        Reply::result(seen, json!({ "content": [] }))
    });
    poll_until("c to be left alone", || {
        world.reader().call("read", json!({}));
        (circuit(&world, "c") == 1.0).then_some(())
    });
    assert_eq!((circuit(&world, "a"), circuit(&world, "b")), (0.0, 0.0));
    world.tickets.forget();
    for _ in 0..10 {
        world.reader().call("read", json!({}));
    }
    assert!(world.tickets.seen().iter().all(|seen| seen.instance != "c"));
}

/// Breaks the connection at the first call of each tool, and answers the second.
fn breaks_first() -> RawServer {
    let calls = AtomicUsize::new(0);
    RawServer::start(move |request| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            return (Vec::new(), Then::Close);
        }
        let result = json!({ "content": [], "resultType": "complete" });
        let answer = json!({ "jsonrpc": "2.0", "id": request.message["id"], "result": result });
        (RawServer::json(&answer), Then::KeepAlive)
    })
}

/// The server may have carried a call out before its connection broke: only what the operator calls idempotent is repeated.
#[test]
fn what_is_not_marked_is_never_asked_twice() {
    for (idempotent, status, times) in [(json!(["read*"]), 200, 2), (json!(["pay"]), 502, 1), (json!([]), 502, 1)] {
        let idp = Idp::start();
        let server = breaks_first();
        let address = server.address();
        let conf = conf().idp(&idp).server_at("tickets", &[("a".into(), address)]).allow_all();
        let gateway =
            Gateway::start(conf.of_server("health", slow_checks()).of_server("idempotent", idempotent.clone()));
        let answer = gateway.caller(idp.token()).call("read_all", json!({}));
        assert_eq!(answer.status(), status, "{idempotent}: {}", answer.0);
        let calls = server.seen().iter().filter(|seen| seen.message["method"] == "tools/call").count();
        assert_eq!(calls, times, "{idempotent}");
    }
}

/// A port that is open is no MCP server: with `mcp: true` an instance must answer as one.
#[test]
fn an_mcp_health_check_speaks_either_era_in_the_gateways_own_name() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let health = json!({ "interval": "200ms", "timeout": "2s", "unhealthy_after": 1, "mcp": true });
    let secret = json!({ "static": { "secret": { "file": "DIR/own.token" }, "prefix": "Bearer " } });
    let conf = usual(&idp, &tickets)
        .file("own.token", "the-gateways-own", 0o600)
        .of_server("credential", secret)
        .of_server("health", health);
    let gateway = Gateway::start(conf);
    let healthy = || gateway.metric("portcullis_instance_healthy", &["instance=\"a\""]);
    poll_until("a modern probe", || (!tickets.seen_of("server/discover").is_empty()).then_some(()));
    assert_eq!(tickets.seen_of("server/discover").pop().unwrap().bearer(), Some("the-gateways-own"));
    assert_eq!(healthy(), 1.0);
    // It speaks the older revisions only.
    tickets.on("server/discover", |seen| {
        let error = json!({ "code": -32601, "message": "Method not found" });
        Reply::json(400, &json!({ "jsonrpc": "2.0", "id": seen.message["id"], "error": error }))
    });
    poll_until("a legacy probe", || (!tickets.seen_of("ping").is_empty()).then_some(()));
    assert_eq!(healthy(), 1.0);
    poll_until("the end of its session", || (!tickets.seen_of("DELETE").is_empty()).then_some(()));
    // It listens, and does not answer a ping.
    tickets.on("ping", |_seen| Reply::text(500, "text/plain", "stuck"));
    poll_until("the instance to turn unhealthy", || (healthy() == 0.0).then_some(()));
    tickets.on("ping", |seen| Reply::json(200, &message_with_result(seen, json!({}))));
    poll_until("the instance to be healthy again", || (healthy() == 1.0).then_some(()));
}
