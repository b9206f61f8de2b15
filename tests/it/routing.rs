//! Where does a request go, and what when that place is gone?

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Conf, Gateway, Idp, LEGACY, McpServer, RawServer, Reply, Then, World, conf, poll_until, usual};

fn share_by_instance(tickets: &McpServer) -> BTreeMap<String, usize> {
    let mut share = BTreeMap::new();
    for seen in tickets.seen() {
        *share.entry(seen.instance).or_default() += 1;
    }
    share
}

fn healthy(world: &World, instance: &str) -> f64 {
    world.gateway.metric("portcullis_instance_healthy", &[&format!("instance=\"{instance}\"")])
}

#[test]
fn modern_requests_are_balanced_by_weight() {
    let world = World::with_instances(2, |conf| conf.set("servers.0.instances.0.weight", 3));
    for _ in 0..40 {
        assert_eq!(world.reader().call("read", json!({})).status(), 200);
    }
    let share = share_by_instance(&world.tickets);
    assert_eq!(share.values().sum::<usize>(), 40);
    assert!((26..=34).contains(&share["a"]), "weight 3 to 1: {share:?}");
}

#[test]
fn new_work_goes_elsewhere_at_once_when_an_instance_is_down() {
    // Health checks are too slow to help here: only the refused connection tells.
    let slow = json!({ "interval": "1h", "timeout": "1s" });
    let world = World::with_instances(2, |conf| conf.of_server("health", slow));
    world.tickets.instances[0].stop();
    for _ in 0..10 {
        let answer = world.reader().call("read", json!({}));
        assert_eq!(answer.echoed()["instance"], "b");
    }
    assert_eq!(world.tickets.seen().len(), 10, "nothing was executed twice");
}

/// A request that belongs to an instance which is gone is never sent to another one.
#[test]
fn a_session_of_a_dead_instance_is_not_moved() {
    let world = World::with_instances(2, |conf| conf);
    let sessions: Vec<_> = (0..4).map(|_| world.reader().initialize(LEGACY)).collect();
    let (on_a, on_b): (Vec<_>, Vec<_>) =
        sessions.iter().partition(|session| session.call("read", json!({})).echoed()["instance"] == "a");
    assert!(!on_a.is_empty() && !on_b.is_empty());
    world.tickets.instances[0].stop();
    world.tickets.forget();
    poll_until("404 for the dead instance's sessions", || {
        let status = on_a[0].call("read", json!({})).status();
        assert!(status == 404 || status == 502, "{status}");
        (status == 404).then_some(())
    });
    assert_eq!(on_a[0].get(None).status, 404);
    assert_eq!(world.tickets.seen().len(), 0, "another instance got a request of a dead instance's session");
    assert_eq!(on_b[0].call("read", json!({})).echoed()["instance"], "b");
}

#[test]
fn an_instance_that_comes_back_gets_work_again() {
    let world = World::with_instances(2, |conf| conf);
    world.tickets.instances[0].stop();
    poll_until("a to be unhealthy", || (healthy(&world, "a") == 0.0).then_some(()));
    assert_eq!(world.gateway.admin("/readyz").status, 200, "one healthy instance is enough");
    world.tickets.instances[0].restart();
    poll_until("a to be healthy", || (healthy(&world, "a") == 1.0).then_some(()));
    poll_until("work on a", || (world.reader().call("read", json!({})).echoed()["instance"] == "a").then_some(()));
}

#[test]
fn readiness_ends_when_no_instance_is_left() {
    let world = World::start();
    world.tickets.instances[0].stop();
    poll_until("readiness to end", || (world.gateway.admin("/readyz").status == 503).then_some(()));
    assert_eq!(world.gateway.admin("/healthz").status, 200, "alive is not ready");
}

#[test]
fn an_http_health_check_asks_for_its_path() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    tickets.on("GET", |seen| match seen.path.as_str() {
        "/healthz" => Reply::text(200, "text/plain", "ok"),
        _ => Reply::json(405, &json!({})),
    });
    let health = json!({ "interval": "200ms", "timeout": "1s", "unhealthy_after": 1, "http": { "path": "/healthz" } });
    let gateway = Gateway::start(usual(&idp, &tickets).of_server("health", health));
    assert!(!tickets.seen_of("GET").is_empty());
    tickets.on("GET", |_| Reply::text(500, "text/plain", "ill"));
    poll_until("the instance to turn unhealthy", || {
        (gateway.metric("portcullis_instance_healthy", &["instance=\"a\""]) == 0.0).then_some(())
    });
}

/// Two routes, two servers: a call never ends up behind the other path.
#[test]
fn each_route_leads_to_its_own_server() {
    let (idp, tickets, wiki) = (Idp::start(), McpServer::start().tool("read"), McpServer::start().tool("read"));
    let gateway = Gateway::start(usual(&idp, &tickets).server("wiki", &wiki).allow_all());
    let token = idp.token().scope("tickets:read");
    let wiki_token = token.clone().audience("https://mcp.example.test/wiki");
    assert_eq!(gateway.caller(wiki_token.clone()).at("/wiki").call("read", json!({})).status(), 200);
    tickets.assert_saw_nothing();
    gateway.caller(wiki_token).call("read", json!({})).assert_refused(401, "invalid_token");
    gateway.caller(token.clone()).at("/wiki").call("read", json!({})).assert_refused(401, "invalid_token");
    assert_eq!(gateway.caller(token).call("read", json!({})).status(), 200);
    assert_eq!((tickets.seen().len(), wiki.seen().len()), (1, 1));
}

/// A server that closes a kept-alive connection just as the next request comes: every second request on a connection gets no
/// answer.
fn flaky() -> RawServer {
    RawServer::start(|request| match request.earlier_on_connection {
        0 => {
            let result = match request.message["method"].as_str() {
                Some("tools/list") => {
                    json!({ "tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private" })
                }
                _ => json!({ "content": [], "resultType": "complete" }),
            };
            let answer = json!({ "jsonrpc": "2.0", "id": request.message["id"], "result": result });
            (RawServer::json(&answer), Then::KeepAlive)
        }
        _ => (Vec::new(), Then::Close),
    })
}

fn flaky_gateway(idp: &Idp, server: &RawServer) -> Gateway {
    let conf: Conf = conf().idp(idp).server_at("tickets", &[("a".into(), server.address())]).allow_all();
    // One worker, so that the second request meets the pooled connection of the first.
    Gateway::start(conf.set("server.threads", 1))
}

#[test]
fn a_harmless_request_on_a_stale_connection_is_sent_again() {
    let idp = Idp::start();
    let server = flaky();
    let gateway = flaky_gateway(&idp, &server);
    let caller = gateway.caller(idp.token());
    for round in 0..6 {
        let answer = caller.list();
        assert_eq!(answer.status(), 200, "round {round}: {}", answer.0);
    }
}

/// The server may have carried it out before the connection broke.
#[test]
fn a_tool_call_on_a_stale_connection_is_never_sent_twice() {
    let idp = Idp::start();
    let server = flaky();
    let gateway = flaky_gateway(&idp, &server);
    let caller = gateway.caller(idp.token());
    let calls = 10;
    for call in 0..calls {
        let answer = caller.call("pay", json!({ "call": call }));
        assert!(answer.status() == 200 || answer.status() == 502, "{}", answer.0);
    }
    for call in 0..calls {
        let times = server.seen().iter().filter(|seen| seen.message["params"]["arguments"]["call"] == call).count();
        assert_eq!(times, 1, "call {call} was sent {times} times");
    }
}
