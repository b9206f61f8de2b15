//! What becomes of a session whose instance is gone?

use serde_json::{Value, json};

use crate::support::{Conf, Conversation, LEGACY, MODERN, Reply, Seen, World, poll_until};

fn world(change: impl FnOnce(Conf) -> Conf) -> World {
    World::with_instances(2, |conf| change(conf.of_server("on_instance_loss", json!("reinitialize")).allow_all()))
}

/// A session at instance `a`.
fn at_a(world: &World) -> Conversation {
    (0..6)
        .map(|_| world.reader().initialize(LEGACY))
        .find(|session| session.call("read", json!({})).echoed()["instance"] == "a")
        .expect("a session at a")
}

fn wait_until_gone(world: &World, instance: &str) {
    let label = format!("instance=\"{instance}\"");
    poll_until("the instance to be unhealthy", || {
        (world.gateway.metric("portcullis_instance_healthy", &[&label]) == 0.0).then_some(())
    });
}

fn events(world: &World, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(world.gateway.path("audit.jsonl")).unwrap_or_default();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["event"] == kind).collect()
}

fn handovers(world: &World, outcome: &str) -> f64 {
    world.gateway.metric("portcullis_session_handovers_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn the_client_goes_on_with_the_same_id_and_what_it_said_is_said_again() {
    let world = world(|conf| conf);
    let session = at_a(&world);
    session.request("logging/setLevel", json!({ "level": "warning" })).result();
    for uri in ["notes://1", "notes://2"] {
        session.request("resources/subscribe", json!({ "uri": uri })).result();
    }
    session.request("resources/unsubscribe", json!({ "uri": "notes://1" })).result();
    world.tickets.instances[0].stop();
    wait_until_gone(&world, "a");
    world.tickets.forget();
    let answer = session.call("read", json!({ "n": 1 }));
    assert_eq!(answer.echoed()["instance"], "b");
    let said: Vec<(String, Value)> =
        world.tickets.seen().iter().map(|seen| (seen.method().to_owned(), seen.message["params"].clone())).collect();
    let methods: Vec<&str> = said.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(
        methods,
        ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe", "tools/call"]
    );
    assert_eq!(said[0].1["clientInfo"]["name"], "test", "in the client's own words");
    assert_eq!(said[2].1, json!({ "level": "warning" }));
    assert_eq!(said[3].1, json!({ "uri": "notes://2" }), "what was taken back is not said again");
    // It is opened once, and stays.
    world.tickets.forget();
    for _ in 0..3 {
        assert_eq!(session.call("read", json!({})).echoed()["instance"], "b");
    }
    assert!(world.tickets.seen_of("initialize").is_empty());
    assert_eq!(handovers(&world, "ok"), 1.0);
    let told = poll_until("the audit record", || events(&world, "session.handed_over").pop());
    assert_eq!((&told["server"], &told["instance"], &told["outcome"]), (&json!("tickets"), &json!("b"), &json!("ok")));
    assert!(told["session"].as_str().is_some_and(|digest| digest.len() == 64));
    // And ends as any other.
    assert_eq!(session.delete().status(), 200);
    session.call("read", json!({})).assert_refused(404, "unknown_session");
}

/// A server that was started anew at the same address has forgotten its sessions, and carried nothing out.
#[test]
fn a_session_that_a_restarted_instance_has_forgotten_is_opened_anew() {
    let world = world(|conf| conf);
    let session = at_a(&world);
    world.tickets.instances[0].stop();
    world.tickets.instances[0].restart();
    poll_until("a to answer", || {
        let status = session.call("read", json!({})).status();
        assert!(matches!(status, 200 | 502), "{status}");
        (status == 200).then_some(())
    });
    assert_eq!(handovers(&world, "ok"), 1.0);
    assert_eq!(session.call("read", json!({})).status(), 200);
}

#[test]
fn requests_that_come_together_have_it_opened_once() {
    let world = world(|conf| conf);
    let session = at_a(&world);
    world.tickets.instances[0].stop();
    wait_until_gone(&world, "a");
    world.tickets.forget();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| session.call("read", json!({})).status())).collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), 200);
        }
    });
    assert_eq!(world.tickets.seen_of("initialize").len(), 1);
    assert_eq!(handovers(&world, "ok"), 1.0);
}

/// Incident row 7: another caller cannot have somebody's session opened for them.
#[test]
fn nobody_else_can_have_it_opened() {
    let world = world(|conf| conf);
    let session = at_a(&world);
    world.tickets.instances[0].stop();
    wait_until_gone(&world, "a");
    world.tickets.forget();
    let thief = world.reader_named("mallory").resume(LEGACY, Some(session.id()));
    thief.call("read", json!({})).assert_refused(404, "unknown_session");
    world.tickets.assert_saw_nothing();
}

/// Whoever is denied what they once said has it not said for them.
#[test]
fn what_cannot_be_opened_is_unknown() {
    let world = world(|conf| conf);
    let session = at_a(&world);
    world.tickets.on("initialize", |_seen: &Seen| Reply::text(500, "text/plain", "full"));
    world.tickets.instances[0].stop();
    wait_until_gone(&world, "a");
    world.tickets.forget();
    session.call("read", json!({})).assert_refused(404, "unknown_session");
    assert!(world.tickets.seen().iter().all(|seen| seen.method() == "initialize"), "the call itself went nowhere");
    assert_eq!(handovers(&world, "refused"), 1.0);
    let told = poll_until("the audit record", || events(&world, "session.handed_over").pop());
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("failed"), &json!("refused")));
}

#[test]
fn a_server_that_does_not_declare_it_loses_its_sessions() {
    let world = World::with_instances(2, |conf| conf.allow_all());
    let session = at_a(&world);
    world.tickets.instances[0].stop();
    wait_until_gone(&world, "a");
    world.tickets.forget();
    session.call("read", json!({})).assert_refused(404, "unknown_session");
    world.tickets.assert_saw_nothing();
    assert!(events(&world, "session.handed_over").is_empty());
}

#[test]
fn an_exchanged_credential_goes_with_what_is_said_again() {
    let (idp, sts) = (crate::support::Idp::start(), crate::support::Sts::start());
    let tickets = crate::support::McpServer::with_instances(2).tool("read").accepting(&sts);
    let conf = crate::support::usual(&idp, &tickets)
        .exchange(&sts, json!({}))
        .of_server("on_instance_loss", json!("reinitialize"))
        .of_server("forward_claims", json!({ "sub": "X-User-Id" }));
    let gateway = crate::support::Gateway::start(conf);
    let world = World { idp, sts, tickets, gateway };
    let session = at_a(&world);
    world.tickets.instances[0].stop();
    wait_until_gone(&world, "a");
    world.tickets.forget();
    assert_eq!(session.call("read", json!({})).echoed()["instance"], "b");
    let initialize = world.tickets.only("initialize");
    assert!(initialize.bearer().is_some());
    assert_eq!(initialize.header("x-user-id"), Some("alice"));
    assert_eq!(initialize.header("mcp-session-id"), None);
    assert!(!initialize.everything().contains(MODERN));
}
