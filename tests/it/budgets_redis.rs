//! Do several gateways count together, and each for itself while Redis is away?

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Authority, Conf, Gateway, Idp, McpServer, Redis, TlsFront, poll_until, portcullis, usual, write};

/// Two gateways on one Redis, in front of one server.
struct Pair {
    idp: Idp,
    tickets: McpServer,
    gateways: [Gateway; 2],
    redis: Redis,
}

impl Pair {
    fn start(budget: Value) -> Option<Self> {
        let redis = Redis::start()?;
        let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
        let conf = counting_together(usual(&idp, &tickets), &redis).set("budgets", json!([budget]));
        let gateways = [Gateway::start(conf.clone()), Gateway::start(conf)];
        let pair = Self { idp, tickets, gateways, redis };
        pair.wait_until_together();
        Some(pair)
    }

    fn call(&self, gateway: usize, subject: &str) -> u16 {
        let token = self.idp.token().scope("tickets:read").subject(subject);
        self.gateways[gateway].caller(token).call("read", json!({})).status()
    }

    fn wait_until_together(&self) {
        for gateway in &self.gateways {
            poll_until("the gateway to reach Redis", || {
                gateway.log().contains("budgets are counted together").then_some(())
            });
        }
    }

    fn fallbacks(&self, gateway: usize) -> f64 {
        self.gateways[gateway].metric("portcullis_budget_store_fallbacks_total", &[])
    }
}

fn counting_together(conf: Conf, redis: &Redis) -> Conf {
    conf.file("redis.url", &redis.url(), 0o600)
        .set("budgets_store", json!({ "redis": { "url": { "file": "DIR/redis.url" }, "timeout": "2s" } }))
}

#[test]
fn calls_at_one_gateway_count_at_the_other() {
    let Some(pair) = Pair::start(json!({ "name": "b", "by": "principal", "calls": "3 per day" })) else { return };
    let statuses: Vec<u16> = (0..5).map(|nth| pair.call(nth % 2, "alice")).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!((pair.call(0, "bob"), pair.tickets.seen_of("tools/call").len()), (200, 4));
    assert_eq!((pair.fallbacks(0), pair.fallbacks(1)), (0.0, 0.0));
    // Nobody's name stands there, and everything goes by itself.
    let keys = pair.redis.ask("KEYS *");
    assert!(keys.contains("{portcullis:budgets}:") && !keys.contains("alice"), "{keys}");
    let key = keys.lines().find(|line| line.starts_with('{')).unwrap();
    let ttl: i64 =
        pair.redis.ask(&format!("TTL {key}")).trim_start_matches(':').lines().next().unwrap().parse().unwrap();
    assert!((86_000..=86_401).contains(&ttl), "{ttl}");
}

#[test]
fn every_kind_of_limit_is_counted_together() {
    let limits = [
        ("rate", json!({ "burst": 2, "refill": "1 per hour" })),
        ("calls", json!("2 per hour")),
        ("repeat", json!("2 per hour")),
    ];
    for (kind, limit) in limits {
        let mut budget = json!({ "name": "b", "by": "principal" });
        budget[kind] = limit;
        let Some(pair) = Pair::start(budget) else { return };
        let statuses: Vec<u16> = (0..3).map(|nth| pair.call(nth % 2, "alice")).collect();
        assert_eq!(statuses, [200, 200, 429], "{kind}");
    }
}

#[test]
fn bytes_at_one_gateway_count_at_the_other() {
    let Some(pair) = Pair::start(json!({ "name": "b", "bytes": "100B per hour" })) else { return };
    assert_eq!(pair.call(0, "alice"), 200);
    // They are told behind the answer.
    poll_until("the other gateway to know", || (pair.call(1, "alice") == 429).then_some(()));
}

#[test]
fn calls_at_once_are_counted_together_and_end_together() {
    let Some(pair) = Pair::start(json!({ "name": "b", "by": "principal", "concurrency": 1 })) else { return };
    let pieces = pair.tickets.stream_next("tools/call");
    let caller = pair.gateways[0].caller(pair.idp.token().scope("tickets:read").subject("alice"));
    let mut stream = caller.open("tools/call", json!({ "name": "read", "arguments": {} }));
    pieces.event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} }));
    stream.event().unwrap();
    assert_eq!((pair.call(1, "alice"), pair.call(1, "bob")), (429, 200));
    pieces.finish();
    stream.finish();
    poll_until("the call to have ended everywhere", || (pair.call(1, "alice") == 200).then_some(()));
}

/// A call that takes longer than a lease of thirty seconds would be forgotten if its gateway did not say that it goes on.
#[test]
fn a_call_that_goes_on_is_extended() {
    let Some(pair) = Pair::start(json!({ "name": "b", "concurrency": 1 })) else { return };
    let pieces = pair.tickets.stream_next("tools/call");
    let caller = pair.gateways[0].caller(pair.idp.token().scope("tickets:read"));
    let mut stream = caller.open("tools/call", json!({ "name": "read", "arguments": {} }));
    pieces.event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} }));
    stream.event().unwrap();
    let expiry = || {
        let keys = pair.redis.ask("KEYS *");
        let key = keys.lines().find(|line| line.starts_with('{')).unwrap().to_owned();
        let range = pair.redis.ask(&format!("ZRANGE {key} 0 -1 WITHSCORES"));
        range.lines().filter_map(|line| line.parse::<f64>().ok()).fold(0.0, f64::max)
    };
    let first = expiry();
    assert!(first > 1_700_000_000_000.0, "{first}");
    poll_until("the call to be extended", || (expiry() >= first + 1000.0).then_some(()));
    assert_eq!(pair.call(1, "bob"), 429);
}

#[test]
fn a_call_refused_together_has_used_nothing() {
    let Some(redis) = Redis::start() else { return };
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    let budgets = json!([
        { "name": "wide", "calls": "3 per day" }, { "name": "narrow", "by": "principal", "calls": "1 per day" },
    ]);
    let gateway = Gateway::start(counting_together(usual(&idp, &tickets), &redis).set("budgets", budgets));
    poll_until("the gateway to reach Redis", || gateway.log().contains("budgets are counted together").then_some(()));
    let call = |subject: &str| {
        gateway.caller(idp.token().scope("tickets:read").subject(subject)).call("read", json!({})).status()
    };
    assert_eq!([call("alice"), call("alice"), call("alice")], [200, 429, 429]);
    assert_eq!([call("bob"), call("carol"), call("dave")], [200, 200, 429]);
}

/// Redis away: local limits, counted, said once; and nobody fails for it.
#[test]
fn while_redis_is_away_each_gateway_counts_for_itself() {
    let Some(mut pair) = Pair::start(json!({ "name": "b", "by": "principal", "calls": "2 per day" })) else { return };
    pair.redis.stop();
    // The first may still be sent to a connection that is just breaking.
    for gateway in [0, 1] {
        let statuses: Vec<u16> = (0..3).map(|_| pair.call(gateway, "alice")).collect();
        assert_eq!(statuses, [200, 200, 429]);
        assert!(pair.fallbacks(gateway) >= 3.0);
        let log = pair.gateways[gateway].log();
        assert_eq!(log.matches("counts its budgets for itself").count(), 1, "{log}");
        assert!(!log.contains("n0t-a-sample-value"), "no password in the log");
    }
    pair.redis.resume();
    for gateway in &pair.gateways {
        poll_until("the gateway to be back", || {
            (gateway.log().matches("Connected to Redis").count() == 2).then_some(())
        });
    }
    // Redis has forgotten everything: it begins anew, together.
    let statuses: Vec<u16> = (0..3).map(|nth| pair.call(nth % 2, "bob")).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

/// A Redis that hangs costs one request its patience, and not every one.
#[test]
fn a_redis_that_does_not_answer_holds_up_nobody_for_long() {
    let Some(redis) = Redis::start() else { return };
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    let conf = counting_together(usual(&idp, &tickets), &redis)
        .set("budgets_store.redis.timeout", "300ms")
        .set("budgets", json!([{ "name": "b", "by": "principal", "calls": "100 per day" }]));
    let gateway = Gateway::start(conf);
    poll_until("the gateway to reach Redis", || gateway.log().contains("budgets are counted together").then_some(()));
    redis.freeze();
    let began = Instant::now();
    let caller = gateway.caller(idp.token().scope("tickets:read"));
    for _ in 0..20 {
        assert_eq!(caller.call("read", json!({})).status(), 200);
    }
    let took = began.elapsed();
    redis.go_on();
    // Twenty that each waited would take six seconds.
    assert!(took < Duration::from_secs(4), "{took:?}");
    let reasons = gateway.metric("portcullis_budget_store_fallbacks_total", &["reason=\"timeout\""]);
    assert!(reasons >= 1.0);
}

/// The password of Redis goes over TLS, to whom the operator trusts and nobody else.
#[test]
fn redis_is_reached_over_tls_and_an_impostor_is_not() {
    let Some(redis) = Redis::start() else { return };
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    for (authority, trusted) in [(&ours, true), (&theirs, false)] {
        let front = TlsFront::start(redis.address(), &authority.server(&["127.0.0.1"]), None);
        let conf = counting_together(usual(&idp, &tickets), &redis)
            .file("redis.url", &Redis::url_behind(&front), 0o600)
            .file("redis-ca.pem", ours.pem(), 0o644)
            .set("budgets_store.redis.ca", "DIR/redis-ca.pem")
            .set("budgets", json!([{ "name": "b", "calls": "100 per day" }]));
        let gateway = Gateway::start(conf);
        let said = if trusted { "Connected to Redis" } else { "Redis cannot be reached" };
        poll_until(said, || gateway.log().contains(said).then_some(()));
        let caller = gateway.caller(idp.token().scope("tickets:read"));
        assert_eq!(caller.call("read", json!({})).status(), 200);
        assert_eq!(gateway.metric("portcullis_budget_store_fallbacks_total", &[]) == 0.0, trusted);
        assert_eq!(front.accepted() > 0, trusted);
    }
}

/// A slip in the URL is told before anything is served, and not by counting alone; and its password by nobody.
#[test]
fn a_url_that_is_none_is_refused_with_its_key() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    for url in [
        "http://:n0t-a-sample-value@127.0.0.1:6379/0",
        "redis://:n0t-a-sample-value@127.0.0.1:port/0",
        "redis://:n0t-a-sample-value@127.0.0.1:6379/first",
        "redis://",
        "127.0.0.1:6379",
    ] {
        let conf = usual(&idp, &tickets)
            .file("redis.url", url, 0o600)
            .set("budgets_store", json!({ "redis": { "url": { "file": "DIR/redis.url" } } }));
        let directory = tempfile::tempdir().unwrap();
        let file = write(&conf.clone().set("listen", json!([{ "address": "127.0.0.1:18081" }])), directory.path());
        let checked = portcullis(&["check", "--config", file.to_str().unwrap()]);
        for output in [checked, Gateway::start_refused(conf)] {
            assert_eq!(output.code, Some(64), "{url}: {output:?}");
            let told = output.stdout + &output.stderr;
            assert!(told.contains("budgets_store.redis.url: the secret is no Redis URL"), "{url}: {told}");
            assert!(!told.contains("n0t-a-sample-value"), "{url}: {told}");
        }
    }
    let good = usual(&idp, &tickets)
        .file("redis.url", "rediss://user:n0t-a-sample-value@redis.example.test:6380/7", 0o600)
        .set("budgets_store", json!({ "redis": { "url": { "file": "DIR/redis.url" } } }))
        .set("listen", json!([{ "address": "127.0.0.1:18081" }]));
    let directory = tempfile::tempdir().unwrap();
    let file = write(&good, directory.path());
    assert_eq!(portcullis(&["check", "--config", file.to_str().unwrap()]).code, Some(0));
}

/// A gateway starts and serves while Redis is not there yet.
#[test]
fn a_gateway_starts_without_redis_and_finds_it_later() {
    let Some(mut redis) = Redis::start() else { return };
    redis.stop();
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    let conf = counting_together(usual(&idp, &tickets), &redis)
        .set("budgets", json!([{ "name": "b", "by": "principal", "calls": "100 per day" }]));
    let gateway = Gateway::start(conf);
    let call = || gateway.caller(idp.token().scope("tickets:read")).call("read", json!({})).status();
    assert_eq!(call(), 200);
    redis.resume();
    poll_until("the gateway to reach Redis", || gateway.log().contains("budgets are counted together").then_some(()));
    assert_eq!(call(), 200);
    assert!(redis.ask("KEYS *").contains("{portcullis:budgets}:"));
}
