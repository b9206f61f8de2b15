//! Which instance does a request go to, by who asks, what, how much, and from where?

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    Browser, Caller, Conf, Gateway, Idp, LEGACY, McpServer, Reply, Seen, World, mmdb, poll_until, usual, with_sign_in,
};

/// Three instances: `a` is v1 in the EU, `b` v2 in the EU with much memory, `c` v2 in the US.
fn world(rules: Value) -> World {
    world_with(rules, |conf| conf)
}

fn world_with(rules: Value, change: impl FnOnce(Conf) -> Conf) -> World {
    World::with_instances(3, |conf| change(with_traits(conf).of_server("routing", rules)))
}

fn with_traits(conf: Conf) -> Conf {
    conf.set("servers.0.instances.0.version", "v1")
        .set("servers.0.instances.0.region", "eu")
        .set("servers.0.instances.1.version", "v2")
        .set("servers.0.instances.1.region", "eu")
        .set("servers.0.instances.1.labels", json!({ "memory": "high" }))
        .set("servers.0.instances.2.version", "v2")
        .set("servers.0.instances.2.region", "us")
}

/// With what says where callers are, in their claim `region`.
fn with_region(conf: Conf) -> Conf {
    conf.set("region", json!({ "claim": "region" }))
}

fn from(world: &World, region: &str) -> Caller {
    world.gateway.caller(world.reader_token().claim("region", region))
}

#[track_caller]
fn instance(caller: &Caller) -> String {
    caller.call("read", json!({})).echoed()["instance"].as_str().unwrap().to_owned()
}

/// How many of so many calls went where.
fn shares(caller: &Caller, calls: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        *shares.entry(instance(caller)).or_default() += 1;
    }
    shares
}

#[test]
fn staff_go_to_the_beta_and_nobody_else_does() {
    let world = world(json!([
        { "name": "internal-beta", "when": r#""staff" in claims.groups"#, "to": { "instances": ["c"] } },
        { "name": "everybody", "to": { "version": "v1" } },
    ]));
    let staff = world.gateway.caller(world.reader_token().claim("groups", json!(["staff"])));
    let others = world.gateway.caller(world.reader_token().claim("groups", json!(["sales"])));
    for _ in 0..5 {
        assert_eq!((instance(&staff).as_str(), instance(&others).as_str()), ("c", "a"));
    }
    let record = world.gateway.audit(10).remove(0);
    assert_eq!(record["routing"], json!({ "rule": "internal-beta", "version": "v2" }));
    let decided = |rule: &str| {
        let rule = format!("rule=\"{rule}\"");
        world.gateway.metric("portcullis_routing_decisions_total", &[&rule, "result=\"placed\""])
    };
    assert_eq!((decided("internal-beta"), decided("everybody")), (5.0, 5.0));
}

/// A caller without the claim is not staff: a condition that has no answer does not match, and that is told.
#[test]
fn a_condition_without_an_answer_does_not_match() {
    let world = world(json!([
        { "name": "internal-beta", "when": r#""staff" in claims.groups"#, "to": { "instances": ["c"] } },
        { "name": "everybody", "to": { "version": "v1" } },
    ]));
    assert_eq!(instance(&world.reader()), "a");
    let routing = world.gateway.audited()["routing"].clone();
    assert_eq!(routing, json!({ "rule": "everybody", "version": "v1", "failed_rule": "internal-beta" }));
    let labels = ["rule=\"internal-beta\"", "result=\"error\""];
    assert_eq!(world.gateway.metric("portcullis_routing_decisions_total", &labels), 1.0);
}

#[test]
fn large_requests_go_where_there_is_memory() {
    let world = world_with(
        json!([{ "name": "large", "when": "request.bytes > 262144", "to": { "labels": { "memory": "high" } } }]),
        |conf| conf.of_server("default", json!({ "version": "v1" })),
    );
    let large = world.reader().call("read", json!({ "text": "x".repeat(300_000) }));
    assert_eq!(large.echoed()["instance"], "b");
    assert_eq!(instance(&world.reader()), "a");
}

#[test]
fn calls_of_some_tools_go_elsewhere() {
    let world = world_with(json!([{ "name": "reads", "tools": ["re*"], "to": { "instances": ["b"] } }]), |conf| {
        conf.of_server("default", json!({ "version": "v1" }))
    });
    assert_eq!(instance(&world.reader()), "b");
    let writer = world.gateway.caller(world.idp.token().scope("tickets:write"));
    assert_eq!(writer.call("close", json!({})).echoed()["instance"], "a");
    world.reader().list();
    assert_eq!(world.tickets.only("tools/list").instance, "a");
}

/// Incident row 17: data of one region is not sent to another because the first is down.
#[test]
fn a_strict_region_never_leaks() {
    let world = world_with(
        json!([{ "name": "eu", "when": r#"request.region == "eu""#, "to": { "region": "eu" }, "strict": true }]),
        with_region,
    );
    let european = from(&world, "eu");
    let shares = shares(&european, 30);
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["a", "b"], "{shares:?}");
    world.tickets.instances[0].stop();
    world.tickets.instances[1].stop();
    world.tickets.forget();
    // Before and after the health checks have turned.
    for _ in 0..10 {
        european.call("read", json!({})).assert_refused(503, "no_instance_in_region");
    }
    poll_until("both to be unhealthy", || {
        let healthy = world.gateway.metric("portcullis_instance_healthy", &[]);
        (healthy == 1.0).then_some(())
    });
    european.call("read", json!({})).assert_refused(503, "no_instance_in_region");
    world.tickets.assert_saw_nothing();
    assert_eq!(instance(&from(&world, "us")), "c", "others are served");
    let record = world.gateway.audit(42).pop().unwrap();
    assert_eq!(record["routing"], json!({ "version": "v2", "region": "us" }));
    let labels = ["rule=\"eu\"", "result=\"refused\""];
    assert!(world.gateway.metric("portcullis_routing_decisions_total", &labels) >= 1.0);
}

#[test]
fn a_rule_that_is_not_strict_falls_back() {
    let world = world_with(
        json!([{ "name": "us", "when": r#"request.region == "us""#, "to": { "region": "us" } }]),
        with_region,
    );
    assert_eq!(instance(&from(&world, "us")), "c");
    world.tickets.instances[2].stop();
    let elsewhere = instance(&from(&world, "us"));
    assert!(elsewhere == "a" || elsewhere == "b", "{elsewhere}");
    let routing = world.gateway.audit(2).pop().unwrap()["routing"].clone();
    assert_eq!((&routing["rule"], &routing["fell_back"]), (&json!("us"), &json!(true)));
}

/// A strict rule is no ladder: what cannot be judged stays in.
#[test]
fn a_strict_rule_whose_condition_errs_refuses() {
    let world = world(json!([
        { "name": "home", "when": r#"claims.home == "eu""#, "to": { "region": "eu" }, "strict": true },
    ]));
    world.reader().call("read", json!({})).assert_refused(503, "no_instance_in_region");
    world.tickets.assert_saw_nothing();
}

#[test]
fn a_session_stays_where_it_is_and_a_strict_rule_refuses_it_there() {
    let world = world_with(
        json!([
            { "name": "large", "when": "request.bytes > 4096", "to": { "instances": ["b"] } },
            { "name": "close", "tools": ["close"], "to": { "instances": ["b"] }, "strict": true },
            { "name": "rest", "to": { "instances": ["c"] } },
        ]),
        |conf| conf,
    );
    let token = world.idp.token().scope("tickets:read tickets:write");
    let session = world.gateway.caller(token).initialize(LEGACY);
    assert_eq!(session.call("read", json!({})).echoed()["instance"], "c");
    let large = session.call("read", json!({ "text": "x".repeat(8_000) }));
    assert_eq!(large.echoed()["instance"], "c", "no rule moves a session");
    session.call("close", json!({})).assert_refused(503, "no_instance_in_region");
    assert!(world.tickets.seen().iter().all(|seen| seen.tool() != Some("close")));
    assert_eq!(session.call("read", json!({})).status(), 200, "the session goes on");
}

fn canary(weights: [u32; 2]) -> Value {
    json!([{
        "name": "canary", "sticky": "principal",
        "split": [
            { "to": { "version": "v1" }, "weight": weights[0] },
            { "to": { "version": "v2" }, "weight": weights[1] },
        ],
        "abort_when": { "error_rate_above": 0.05, "over": "60s", "at_least": 20 },
    }])
}

#[test]
fn the_same_caller_stays_on_one_side_of_a_canary() {
    let world = world(canary([50, 50]));
    let mut on_v2 = 0;
    for number in 0..60 {
        let caller = world.reader_named(&format!("user-{number}"));
        let shares = shares(&caller, 4);
        assert_eq!(shares.len(), 1, "user-{number} changed places: {shares:?}");
        on_v2 += usize::from(!shares.contains_key("a"));
    }
    assert!((15..=45).contains(&on_v2), "{on_v2} of 60 on v2");
    let routing = world.gateway.audit(240).pop().unwrap()["routing"].clone();
    assert_eq!(routing["rule"], "canary");
    assert_eq!(routing["split"], routing["version"]);
}

/// The version that fails loses its share by itself, and everybody hears of it; reading the configuration again opens it.
#[test]
fn a_canary_that_fails_is_closed_and_a_reload_opens_it_again() {
    let world = World::with_instances(3, |conf| with_sign_in(with_traits(conf).of_server("routing", canary([0, 1]))));
    let failing = |seen: &Seen| match seen.instance.as_str() {
        "a" => Reply::result(seen, json!({ "content": [{ "type": "text", "text": r#"{"instance":"a"}"# }] })),
        _ => Reply::text(500, "text/plain", "broken"),
    };
    world.tickets.on_tool("read", failing);
    let mut failed = 0;
    while world.reader().call("read", json!({})).status() != 200 {
        failed += 1;
        assert!(failed <= 20, "it should have been closed");
    }
    assert_eq!(failed, 20, "not before there were enough");
    assert_eq!(shares(&world.reader(), 20).keys().collect::<Vec<_>>(), ["a"]);
    let side = ["rule=\"canary\"", "to=\"v2\""];
    assert_eq!(world.gateway.metric("portcullis_routing_split_closed", &side), 1.0);
    assert_eq!(world.gateway.metric("portcullis_routing_splits_aborted_total", &side), 1.0);
    let event = poll_until("the audit record", || event(&world.gateway, "routing.split_aborted"));
    assert_eq!(event["routing"], json!({ "rule": "canary", "split": "v2" }));
    assert_eq!(event["server"], "tickets");
    let mut browser = Browser::signed_in(&world.gateway, &world.idp, "ann", &["admins"]);
    let splits = |browser: &mut Browser| {
        let page = browser.get("/api/v1/instances").json();
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|item| (item["id"].clone(), item["splits"][0].clone())).collect::<Vec<_>>()
    };
    let closed = splits(&mut browser);
    assert_eq!(closed[0].1, json!({ "rule": "canary", "to": "v1", "weight": 0, "closed": false }));
    assert_eq!(closed[1].1, json!({ "rule": "canary", "to": "v2", "weight": 1, "closed": true }));
    world.gateway.signal("HUP");
    poll_until("the split to be open", || {
        (world.gateway.metric("portcullis_routing_split_closed", &side) == 0.0).then_some(())
    });
    assert_eq!(splits(&mut browser)[1].1["closed"], false);
    assert_ne!(world.reader().call("read", json!({})).status(), 200, "it is tried again");
}

/// Whoever has repaired it says so, and why, and everything else stays as it is.
#[test]
fn an_admin_has_a_closed_side_tried_again_and_nobody_else_does() {
    let world = World::with_instances(3, |conf| with_sign_in(with_traits(conf).of_server("routing", canary([0, 1]))));
    world.tickets.on_tool("read", |seen: &Seen| match seen.instance.as_str() {
        "a" => Reply::result(seen, json!({ "content": [{ "type": "text", "text": r#"{"instance":"a"}"# }] })),
        _ => Reply::text(500, "text/plain", "broken"),
    });
    let signed_in = |name: &str, groups: &[&str]| Browser::signed_in(&world.gateway, &world.idp, name, groups);
    let mut admin = signed_in("rita", &["admins"]);
    let wish = json!({ "server": "tickets", "rule": "canary", "to": "v2", "reason": "the release was rolled back" });
    let reopen = |browser: &mut Browser, wish: &Value| browser.post("/api/v1/splits/reopen", wish);
    let early = reopen(&mut admin, &wish);
    assert_eq!((early.status, &early.json()["type"]), (409, &json!("urn:portcullis:problem:conflict")), "{early}");
    while world.reader().call("read", json!({})).status() != 200 {}
    let side = ["rule=\"canary\"", "to=\"v2\""];
    let closed = || world.gateway.metric("portcullis_routing_split_closed", &side);
    assert_eq!(closed(), 1.0);
    for groups in ["viewers", "auditors", "approvers"] {
        assert_eq!(reopen(&mut signed_in("somebody", &[groups]), &wish).status, 403, "{groups}");
    }
    for (key, value, status) in [
        ("server", json!("nobody"), 404),
        ("rule", json!("nothing"), 404),
        ("to", json!("v3"), 404),
        ("reason", json!(" "), 400),
        ("more", json!(1), 400),
    ] {
        let mut bad = wish.clone();
        bad[key] = value;
        assert_eq!(reopen(&mut admin, &bad).status, status, "{key}");
    }
    assert_eq!(closed(), 1.0, "nothing of it counted");
    let generation = || world.gateway.metric("portcullis_config_generation", &[]);
    let before = generation();

    let reopened = reopen(&mut admin, &wish);
    assert_eq!(reopened.status, 200, "{reopened}");
    assert_eq!(
        reopened.json(),
        json!({ "server": "tickets", "rule": "canary", "to": "v2", "weight": 1, "closed": false })
    );
    assert_eq!((closed(), generation()), (0.0, before), "the configuration is the same");
    let page = admin.get("/api/v1/instances?server=tickets").json();
    assert!(page["items"].as_array().unwrap().iter().all(|one| one["splits"][0]["closed"] == false), "{page:#}");
    assert_ne!(world.reader().call("read", json!({})).status(), 200, "it is tried again");
    // What failed before is forgotten: it closes again after as many as it did at first.
    let failed = (1..).take_while(|_| world.reader().call("read", json!({})).status() != 200).count();
    assert_eq!((failed, closed()), (19, 1.0));

    let text = std::fs::read_to_string(world.gateway.path("audit.jsonl")).unwrap();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done: Vec<Value> = records
        .filter(|record| record["event"] == "admin.split_reopen" && record["outcome"] == "ok")
        .map(|record| json!([record["principal"]["subject"], record["act"]["target"], record["act"]["note"]]))
        .collect();
    assert_eq!(done, [json!(["rita", "v2 of rule canary of server tickets", "the release was rolled back"])]);
}

/// The caller is served elsewhere, and the side has failed all the same.
#[test]
fn a_side_that_cannot_be_reached_has_failed() {
    let mut rules = canary([0, 1]);
    rules[0]["abort_when"] = json!({ "error_rate_above": 0, "at_least": 1 });
    // Health checks are too slow to help here: only the refused connection tells.
    let slow = json!({ "interval": "1h", "timeout": "1s" });
    let world = world_with(rules, |conf| conf.of_server("health", slow));
    world.tickets.instances[1].stop();
    world.tickets.instances[2].stop();
    assert_eq!(instance(&world.reader()), "a");
    let side = ["rule=\"canary\"", "to=\"v2\""];
    assert_eq!(world.gateway.metric("portcullis_routing_split_closed", &side), 1.0);
}

/// JSON-RPC errors of the server count as failures, and mistakes of the client do not.
#[test]
fn errors_inside_answers_close_a_canary_and_clients_mistakes_do_not() {
    let world = world(canary([0, 1]));
    let error = |code: i64| {
        move |seen: &Seen| {
            let error = json!({ "code": code, "message": "no" });
            Reply::json(200, &json!({ "jsonrpc": "2.0", "id": seen.message["id"], "error": error }))
        }
    };
    world.tickets.on_tool("read", error(-32602));
    for _ in 0..40 {
        world.reader().call("read", json!({}));
    }
    let closed = || world.gateway.metric("portcullis_routing_split_closed", &["rule=\"canary\"", "to=\"v2\""]);
    assert_eq!(closed(), 0.0);
    world.tickets.on_tool("read", error(-32603));
    for _ in 0..40 {
        world.reader().call("read", json!({}));
    }
    poll_until("the split to close", || (closed() == 1.0).then_some(()));
}

fn event(gateway: &Gateway, kind: &str) -> Option<Value> {
    let text = std::fs::read_to_string(gateway.path("audit.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|record| record["event"] == kind)
}

fn by_region() -> Value {
    json!([
        { "name": "eu", "when": r#"request.region == "eu""#, "to": { "instances": ["a"] } },
        { "name": "us", "when": r#"request.region == "us""#, "to": { "instances": ["c"] } },
        { "name": "nowhere", "when": "request.region == null", "to": { "instances": ["b"] } },
    ])
}

/// Anybody can send a header. Only what a trusted proxy sends says where a caller is.
#[test]
fn a_region_header_counts_from_a_trusted_proxy_only() {
    let region = json!({ "header": "X-Region", "claim": "region" });
    let trusting = |proxies: Value| {
        world_with(by_region(), |conf| conf.set("trusted_proxies", proxies).set("region", region.clone()))
    };
    let world = trusting(json!(["127.0.0.0/8"]));
    assert_eq!(instance(&world.reader().header("X-Region", "us")), "c");
    assert_eq!(instance(&from(&world, "eu").header("X-Region", "us")), "a", "the claim comes first");
    assert_eq!(instance(&world.reader().header("X-Region", "us").header("X-Region", "eu")), "b", "two are none");
    assert_eq!(instance(&world.reader()), "b");
    let world = trusting(json!(["10.0.0.0/8"]));
    assert_eq!(instance(&world.reader().header("X-Region", "us")), "b", "a stranger's header says nothing");
    let seen = world.tickets.seen().pop().unwrap();
    assert_eq!(seen.header("x-region"), None, "and does not travel on");
}

#[test]
fn networks_say_where_a_caller_is() {
    let world = world_with(by_region(), |conf| {
        conf.set("trusted_proxies", json!(["127.0.0.0/8"])).set(
            "region",
            json!({ "networks": [
                { "network": "10.0.0.0/8", "region": "us" },
                { "network": "10.1.0.0/16", "region": "eu" },
            ] }),
        )
    });
    let at = |ip: &str| instance(&world.reader().header("X-Forwarded-For", ip));
    assert_eq!([at("10.1.2.3"), at("10.2.3.4"), at("192.0.2.1")], ["a", "c", "b"]);
}

/// The order of the sources, and the database as the last of them.
#[test]
fn the_database_is_asked_last_and_swapped_while_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("country.mmdb");
    let write = |bytes: &[u8]| {
        let next = directory.path().join("next");
        std::fs::write(&next, bytes).unwrap();
        std::fs::rename(&next, &file).unwrap();
    };
    write(&mmdb(&[("192.0.2.0/24", "DE", "EU"), ("198.51.100.0/24", "CA", "NA"), ("203.0.113.0/24", "JP", "AS")]));
    let world = world_with(by_region(), |conf| {
        conf.set("trusted_proxies", json!(["127.0.0.0/8"])).set(
            "region",
            json!({
                "networks": [{ "network": "198.51.100.7/32", "region": "eu" }],
                "maxmind": {
                    "file": file.to_str().unwrap(), "countries": { "DE": "eu" }, "continents": { "NA": "us" },
                },
            }),
        )
    });
    let at = |ip: &str| instance(&world.reader().header("X-Forwarded-For", ip));
    assert_eq!([at("192.0.2.9"), at("198.51.100.9"), at("203.0.113.9"), at("8.8.8.8")], ["a", "c", "b", "b"]);
    assert_eq!(at("198.51.100.7"), "a", "the table of networks comes first");
    let readings = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        world.gateway.metric("portcullis_region_database_reloads_total", &[&outcome])
    };
    write(&mmdb(&[("8.8.8.0/24", "DE", "EU")]));
    poll_until("the other database", || (at("8.8.8.8") == "a").then_some(()));
    assert_eq!(at("192.0.2.9"), "b");
    let (applied, refused) = (readings("applied"), readings("refused"));
    write(b"not a database");
    poll_until("the broken one to be seen", || (readings("refused") > refused).then_some(()));
    assert_eq!((at("8.8.8.8").as_str(), readings("applied")), ("a", applied), "the last good one stays");
    world.gateway.signal("HUP");
    poll_until("the reload", || (world.gateway.metric("portcullis_config_generation", &[]) == 2.0).then_some(()));
    assert_eq!(at("8.8.8.8"), "a", "also when the configuration is read again");
}

#[test]
fn without_a_usable_database_nothing_starts() {
    let (idp, tickets) = (Idp::start(), McpServer::start());
    let maxmind = json!({ "maxmind": { "file": "DIR/broken.mmdb", "countries": { "DE": "eu" } } });
    let conf = usual(&idp, &tickets).file("broken.mmdb", "not a database", 0o644).set("region", maxmind);
    let ended = Gateway::start_refused(conf);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("region.maxmind"), "{}", ended.stderr);
}
