#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pingora::upstreams::peer::HttpPeer;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mcp::{ClassifyLimits, McpRequest, Revision, classify};
use crate::routing::breaker::Breaker;
use crate::routing::breaker::Verdict;
use crate::routing::instance::Health;
use crate::routing::rule::CircuitSpec;
use crate::routing::subset::{Subset, Traits};
use crate::time::UnixSeconds;

#[test]
fn the_first_rule_that_matches_decides() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us"), ("c", "v3", "us")]);
    let router = router(
        vec![
            rule("staff", Some(r#""staff" in claims.groups"#), Way::To(version("v3"))),
            rule("large", Some("request.bytes > 1000"), Way::To(version("v2"))),
            rule("everybody", None, Way::To(version("v1"))),
        ],
        &pool,
    );
    let staff = caller(json!({ "groups": ["staff"] }));
    let others = caller(json!({ "groups": [] }));
    assert_eq!(place(&router, &staff, 2000, None), ("c".into(), Some("staff".into())));
    assert_eq!(place(&router, &others, 2000, None), ("b".into(), Some("large".into())));
    assert_eq!(place(&router, &others, 10, None), ("a".into(), Some("everybody".into())));
}

#[test]
fn what_no_rule_is_about_goes_to_the_default() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us")]);
    let spec = RoutingSpec {
        rules: vec![rule("eu", Some(r#"request.region == "eu""#), Way::To(region("eu")))],
        default: Some(version("v2")),
    };
    let router = Router::compile("tickets".into(), spec, &pool, Instant::now()).unwrap();
    assert_eq!(place(&router, &caller(json!({})), 1, None), ("b".into(), None));
    assert_eq!(place(&router, &caller(json!({})), 1, Some("eu")), ("a".into(), Some("eu".into())));
}

#[test]
fn a_condition_that_errs_does_not_match_and_is_told() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us")]);
    let rules = vec![
        rule("broken", Some("claims.missing == 1"), Way::To(version("v2"))),
        rule("rest", None, Way::To(version("v1"))),
    ];
    let router = router(rules, &pool);
    let choice = choose(&router, &caller(json!({})), 1, None).unwrap();
    assert_eq!(&*choice.instance.id, "a");
    assert_eq!(router.failed_rule(choice.path).map(|name| &**name), Some("broken"));
}

/// A strict rule keeps requests in. One that cannot be asked must not let them out.
#[test]
fn a_strict_rule_that_errs_refuses() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us")]);
    let eu = RuleSpec { strict: true, ..rule("eu", Some(r#"claims.home == "eu""#), Way::To(region("eu"))) };
    let router = router(vec![eu], &pool);
    assert!(matches!(choose(&router, &caller(json!({})), 1, None), Err(NoPlace::Strict(_))));
    assert_eq!(place(&router, &caller(json!({ "home": "us" })), 1, None).1, None);
}

#[test]
fn a_rule_about_tools_is_about_their_calls_alone() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us")]);
    let search = RuleSpec { tools: vec!["search*".into()], ..rule("search", None, Way::To(version("v2"))) };
    let spec = RoutingSpec { rules: vec![search], default: Some(version("v1")) };
    let router = Router::compile("tickets".into(), spec, &pool, Instant::now()).unwrap();
    let of = |request: &McpRequest| {
        let caller = caller(json!({}));
        let facts = facts(1, None);
        let asked = Asked { caller: &caller, messages: &request.messages, facts: &facts, now: Instant::now() };
        router.choose(&asked).unwrap().instance.id.to_string()
    };
    assert_eq!(of(&call("search_all")), "b");
    assert_eq!(of(&call("close")), "a");
    assert_eq!(of(&message("tools/list", json!({}))), "a");
}

#[test]
fn a_subset_without_a_healthy_instance_falls_back_and_a_strict_one_does_not() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us")]);
    let lenient = router(vec![rule("eu", None, Way::To(region("eu")))], &pool);
    let strict = router(vec![RuleSpec { strict: true, ..rule("eu", None, Way::To(region("eu"))) }], &pool);
    turn(&pool, "a", Health::Unhealthy);
    let choice = choose(&lenient, &caller(json!({})), 1, None).unwrap();
    assert_eq!((&*choice.instance.id, choice.path.fell_back), ("b", true));
    assert!(matches!(choose(&strict, &caller(json!({})), 1, None), Err(NoPlace::Strict(_))));
    turn(&pool, "b", Health::Unhealthy);
    assert!(matches!(choose(&lenient, &caller(json!({})), 1, None), Err(NoPlace::Unhealthy(_))));
}

#[test]
fn a_session_stays_unless_a_strict_rule_leads_elsewhere() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "us")]);
    let eu = |strict| RuleSpec { strict, ..rule("eu", Some(r#"request.region == "eu""#), Way::To(region("eu"))) };
    let outside = pool.iter().find(|instance| &*instance.id == "b").unwrap();
    let stays = |strict: bool, region: Option<&str>| {
        let (caller, facts) = (caller(json!({})), facts(1, region));
        let asked = Asked { caller: &caller, messages: &[], facts: &facts, now: Instant::now() };
        router(vec![eu(strict)], &pool).let_stay(&asked, outside).is_ok()
    };
    assert!(stays(false, Some("eu")));
    assert!(stays(true, Some("us")));
    assert!(!stays(true, Some("eu")), "a strict rule holds for sessions, too");
}

#[test]
fn weights_choose_inside_a_subset() {
    let mut pool = pool(&[("a", "v1", "eu"), ("b", "v1", "eu"), ("c", "v2", "eu")]);
    for (instance, weight) in pool.iter_mut().zip([3, 1, 1]) {
        *instance = Arc::new(instance_of(&instance.id, "v1", "eu").being(instance.traits.clone(), weight));
        instance.resolved("127.0.0.1:1".parse().unwrap());
    }
    let router = router(vec![rule("v1", None, Way::To(version("v1")))], &pool);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..400 {
        *shares.entry(place(&router, &caller(json!({})), 1, None).0).or_default() += 1;
    }
    assert!((296..=304).contains(&shares["a"]) && shares.len() == 2, "{shares:?}");
}

#[test]
fn a_side_that_fails_too_often_closes_once_and_its_requests_go_to_the_first() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "eu")]);
    let router = router(vec![canary(50, 50)], &pool);
    let now = Instant::now();
    let closed: Vec<SideState> = (0..40)
        .filter_map(|nth| {
            let choice = choose(&router, &caller_named(&format!("user-{nth}"), json!({})), 1, None).unwrap();
            router.ended(choice.path, &*choice.instance.id == "b", now)
        })
        .collect();
    assert_eq!(closed, [SideState { rule: "canary".into(), to: "v2".into(), weight: 50, closed: true }]);
    for nth in 0..1000 {
        assert_eq!(placed_principal(&router, nth), "a");
    }
    router.reopen();
    assert!((0..1000).any(|nth| placed_principal(&router, nth) == "b"));
}

#[test]
fn one_side_is_opened_again_and_no_other() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "eu"), ("c", "v2", "us")]);
    let other = RuleSpec { name: "other".into(), ..canary(0, 1) };
    let router = router(vec![RuleSpec { tools: vec!["read".into()], ..other }, canary(0, 1)], &pool);
    let now = Instant::now();
    let fail = |rule: usize| {
        let path = Path { rule: Some(rule), side: Some(1), ..Path::default() };
        (0..100).filter_map(|_| router.ended(path, true, now)).count()
    };
    assert_eq!((fail(0), fail(1)), (1, 1));
    let is_closed = || router.splits().iter().map(|side| side.closed).collect::<Vec<_>>();
    assert_eq!(is_closed(), [false, true, false, true]);
    for (rule, to) in [("canary", "v3"), ("nothing", "v2")] {
        assert_eq!(router.reopen_side(rule, to), None, "{rule} {to}");
    }
    let found = router.reopen_side("canary", "v2").unwrap();
    assert_eq!(found, SideState { rule: "canary".into(), to: "v2".into(), weight: 1, closed: true });
    assert_eq!(is_closed(), [false, true, false, false]);
    assert!(!router.reopen_side("canary", "v2").unwrap().closed);
    assert_eq!(fail(1), 1, "it may close again");
}

#[test]
fn the_first_side_never_closes() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "eu")]);
    let router = router(vec![canary(50, 50)], &pool);
    for nth in 0..100 {
        let choice = choose(&router, &caller_named(&format!("user-{nth}"), json!({})), 1, None).unwrap();
        assert_eq!(router.ended(choice.path, &*choice.instance.id == "a", Instant::now()), None);
    }
}

#[test]
fn a_closed_side_stays_closed_in_the_next_snapshot_with_the_same_rules() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v2", "eu")]);
    let before = router(vec![canary(0, 1)], &pool);
    for _ in 0..10 {
        let choice = choose(&before, &caller(json!({})), 1, None).unwrap();
        before.ended(choice.path, true, Instant::now());
    }
    let is_closed = |router: &Router| router.splits().iter().any(|side| side.closed);
    assert!(is_closed(&before));
    let (same, other) = (router(vec![canary(0, 1)], &pool), router(vec![canary(1, 1)], &pool));
    same.take_over(&before);
    other.take_over(&before);
    assert_eq!((is_closed(&same), is_closed(&other)), (true, false));
}

#[test]
fn an_instance_that_is_left_alone_gets_no_work() {
    let spec = CircuitSpec {
        consecutive_failures: Some(1),
        errors: None,
        slow: None,
        open_for: Duration::from_secs(10),
        probes: 1,
    };
    let now = Instant::now();
    let guarded = Breaker::of_pool(spec, 2, now).into_iter().zip(["a", "b"]).map(|(breaker, id)| {
        let instance = instance_of(id, "v1", "eu").guarded_by(breaker);
        instance.resolved("127.0.0.1:1".parse().unwrap());
        Arc::new(instance)
    });
    let pool: Vec<Arc<Instance>> = guarded.collect();
    let router = router(Vec::new(), &pool);
    let at = |now| {
        let (caller, facts) = (caller(json!({})), facts(1, None));
        router.choose(&Asked { caller: &caller, messages: &[], facts: &facts, now }).unwrap()
    };
    let mut turn = std::iter::repeat_with(|| at(now)).find(|choice| &*choice.instance.id == "a").unwrap().turn.unwrap();
    assert!(turn.end(Verdict::Failed, now).is_some());
    assert!((0..50).all(|_| &*at(now).instance.id == "b"));
    let later = now + spec.open_for;
    let probes: Vec<Choice> = (0..50).map(|_| at(later)).filter(|choice| &*choice.instance.id == "a").collect();
    assert_eq!(probes.len(), 1, "one probe at once");
}

#[test]
fn a_principal_is_always_on_one_side_and_the_split_is_within_one_percent() {
    let pool = pool(&[("a", "v1", "eu"), ("b", "v1", "eu"), ("c", "v2", "eu"), ("d", "v2", "eu")]);
    let router = router(vec![canary(90, 10)], &pool);
    let side = |nth| if matches!(&*placed_principal(&router, nth), "a" | "b") { "v1" } else { "v2" };
    const PRINCIPALS: u64 = 100_000;
    let second = (0..PRINCIPALS).filter(|nth| side(*nth) == "v2").count();
    let share = second as f64 / PRINCIPALS as f64;
    assert!((share - 0.1).abs() < 0.01, "{share}");
    for nth in 0..1000 {
        assert_eq!(placed_principal(&router, nth), placed_principal(&router, nth));
    }
}

#[test]
fn removing_an_instance_moves_only_its_own_principals() {
    let all = pool(&[("a", "v1", "eu"), ("b", "v1", "eu"), ("c", "v2", "eu"), ("d", "v2", "eu")]);
    let left: Vec<_> = all.iter().filter(|instance| &*instance.id != "c").cloned().collect();
    let (before, after) = (router(vec![canary(50, 50)], &all), router(vec![canary(50, 50)], &left));
    let mut moved = 0;
    for nth in 0..20_000 {
        let (was, is) = (placed_principal(&before, nth), placed_principal(&after, nth));
        match &*was {
            "c" => {
                moved += 1;
                assert_eq!(is, "d", "they stay on their side");
            }
            _ => assert_eq!(was, is),
        }
    }
    assert!(moved > 4_000, "{moved}");
    // The same when it is only ill.
    turn(&all, "c", Health::Unhealthy);
    for nth in 0..2_000 {
        assert_eq!(placed_principal(&before, nth), placed_principal(&after, nth));
    }
}

proptest! {
    /// Whoever is healthy, whatever is asked: what a strict rule keeps in one region is never elsewhere.
    #[test]
    fn a_strict_region_never_leaks(
        healthy in prop::collection::vec(any::<bool>(), 6),
        regions in prop::collection::vec(prop::sample::select(vec!["eu", "us", "ap"]), 6),
        asked_from in prop::sample::select(vec!["eu", "us", "ap"]),
        subject in "[a-z]{1,8}",
        sticky: bool,
        split: bool,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let instances: Vec<_> = names.iter().zip(&regions).map(|(name, region)| (*name, "v1", *region)).collect();
        let pool = pool(&instances);
        for (name, healthy) in names.iter().zip(&healthy) {
            turn(&pool, name, if *healthy { Health::Healthy } else { Health::Unhealthy });
        }
        let strict = |of: &'static str| {
            let when = format!(r#"request.region == "{of}""#);
            let way = if split {
                let labels = Subset { instances: vec!["a".into(), "b".into(), "c".into()], ..region(of) };
                let sides = vec![SideSpec { to: region(of), weight: 1 }, SideSpec { to: labels, weight: 3 }];
                Way::Split { sides, abort_when: None }
            } else {
                Way::To(region(of))
            };
            RuleSpec { strict: true, sticky, ..rule(of, Some(&when), way) }
        };
        let router = router(vec![strict("eu"), strict("us"), strict("ap")], &pool);
        let caller = caller_named(&subject, json!({}));
        for _ in 0..5 {
            match choose(&router, &caller, 1, Some(asked_from)) {
                Ok(choice) => {
                    prop_assert_eq!(choice.instance.traits.region.as_deref(), Some(asked_from));
                    let again = router.choose_again(choice.path, caller.principal(), Instant::now());
                    let again = again.expect("it still takes work");
                    prop_assert_eq!(again.instance.traits.region.as_deref(), Some(asked_from));
                }
                Err(no_place) => {
                    prop_assert!(matches!(no_place, NoPlace::Strict(_)));
                    let any = regions.iter().zip(&healthy).any(|(region, healthy)| *healthy && *region == asked_from);
                    prop_assert!(!any, "there was a place");
                }
            }
        }
    }
}

fn canary(first: u32, second: u32) -> RuleSpec {
    let sides = vec![SideSpec { to: version("v1"), weight: first }, SideSpec { to: version("v2"), weight: second }];
    let abort_when =
        AbortWhen { error_rate_above: 0.05, over: Duration::from_secs(60), at_least: 5, tool_errors: false };
    let way = Way::Split { sides, abort_when: Some(abort_when) };
    RuleSpec { sticky: true, ..rule("canary", None, way) }
}

fn rule(name: &str, when: Option<&str>, way: Way) -> RuleSpec {
    RuleSpec { name: name.into(), when: when.map(Into::into), tools: Vec::new(), way, strict: false, sticky: false }
}

fn version(version: &str) -> Subset {
    Subset { version: Some(version.into()), ..Subset::default() }
}

fn region(region: &str) -> Subset {
    Subset { region: Some(region.into()), ..Subset::default() }
}

fn instance_of(id: &str, version: &str, region: &str) -> Instance {
    let peer = HttpPeer::new("127.0.0.1:1", false, String::new());
    let traits = Traits { version: Some(version.into()), region: Some(region.into()), ..Traits::default() };
    Instance::new(id.into(), HeaderValue::from_static("a"), peer).being(traits, 1)
}

fn pool(instances: &[(&str, &str, &str)]) -> Vec<Arc<Instance>> {
    let instance = |(id, version, region): &(&str, &str, &str)| {
        let instance = instance_of(id, version, region);
        instance.resolved("127.0.0.1:1".parse().unwrap());
        Arc::new(instance)
    };
    instances.iter().map(instance).collect()
}

fn turn(pool: &[Arc<Instance>], id: &str, health: Health) {
    pool.iter().find(|instance| *instance.id == *id).unwrap().turned(health);
}

fn router(rules: Vec<RuleSpec>, pool: &[Arc<Instance>]) -> Router {
    Router::compile("tickets".into(), RoutingSpec { rules, default: None }, pool, Instant::now()).unwrap()
}

fn caller(claims: Value) -> Caller {
    Caller::for_test(&[], claims.as_object().unwrap().clone())
}

fn caller_named(subject: &str, claims: Value) -> Caller {
    caller(claims).named_for_test(subject, "")
}

fn facts(bytes: usize, region: Option<&str>) -> Facts<'_> {
    static HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Facts {
        now: UnixSeconds(1_000_000),
        http_method: "POST",
        host: "mcp.test",
        path: "/mcp",
        headers: &HEADERS,
        client_ip: None,
        client_certificate: None,
        agent: None,
        server_identity: None,
        body_bytes: bytes,
        region,
        revision: Revision::V2025_11_25,
    }
}

fn message(method: &str, params: Value) -> McpRequest {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut headers = HeaderMap::new();
    headers.insert("mcp-protocol-version", HeaderValue::from_static("2025-11-25"));
    classify(&headers, body.into(), &ClassifyLimits { json_depth: 16, batch_messages: 5 }).unwrap()
}

fn call(tool: &str) -> McpRequest {
    message("tools/call", json!({ "name": tool, "arguments": {} }))
}

fn choose(router: &Router, caller: &Caller, bytes: usize, region: Option<&str>) -> Result<Choice, NoPlace> {
    let request = call("read");
    let facts = facts(bytes, region);
    router.choose(&Asked { caller, messages: &request.messages, facts: &facts, now: Instant::now() })
}

fn place(router: &Router, caller: &Caller, bytes: usize, region: Option<&str>) -> (String, Option<String>) {
    let choice = choose(router, caller, bytes, region).unwrap();
    (choice.instance.id.to_string(), router.rule(choice.path).map(ToString::to_string))
}

fn placed_principal(router: &Router, nth: u64) -> String {
    let caller = caller_named(&format!("user-{nth}"), json!({}));
    let facts = facts(1, None);
    let asked = Asked { caller: &caller, messages: &[], facts: &facts, now: Instant::now() };
    router.choose(&asked).unwrap().instance.id.to_string()
}
