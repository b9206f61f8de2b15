//! Where requests go, as the file says it.

use super::*;
use crate::routing::rule::{AbortWhen, RuleSpec, SideSpec, Way};
use crate::routing::subset::Subset;

/// [`BASE`] with two instances, and more keys of the server, the first in line 13.
fn with(keys: &str) -> String {
    let instances = "    instances:
      - { url: http://10.0.0.1:9101, id: a, version: v1, region: eu, labels: { memory: high } }
      - { url: http://10.0.0.2:9101, id: b, version: v2, weight: 3 }
";
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    BASE.replacen("    instances: [{ url: http://10.0.0.1:9101 }]\n", &format!("{instances}{keys}"), 1)
}

fn version(version: &str) -> Subset {
    Subset { version: Some(version.into()), ..Subset::default() }
}

#[test]
fn rules_of_a_server_are_read_in_order() {
    let config = read_good(&with(
        r#"routing:
  - { name: staff, when: '"staff" in claims.groups', tools: [search*], to: { version: v2 } }
  - { name: eu, when: 'request.region == "eu"', to: { region: eu, labels: { memory: high } }, strict: true }
  - name: canary
    split: [{ to: { version: v1 }, weight: 90 }, { to: { version: v2 }, weight: 10 }]
    sticky: principal
    abort_when: { error_rate_above: 0.05, over: 30s, at_least: 5 }
  - { to: { instances: [a, b] } }
default: { version: v1 }"#,
    ));
    let routing = config.servers[0].routing.as_deref().unwrap();
    assert_eq!(routing.default, Some(version("v1")));
    let plain =
        |name: &str, way| RuleSpec { name: name.into(), when: None, tools: vec![], way, strict: false, sticky: false };
    let eu =
        Subset { region: Some("eu".into()), labels: [("memory".into(), "high".into())].into(), ..Subset::default() };
    let sides = vec![SideSpec { to: version("v1"), weight: 90 }, SideSpec { to: version("v2"), weight: 10 }];
    let abort_when =
        AbortWhen { error_rate_above: 0.05, over: Duration::from_secs(30), at_least: 5, tool_errors: false };
    let any = Subset { instances: vec!["a".into(), "b".into()], ..Subset::default() };
    let expected = [
        RuleSpec {
            when: Some(r#""staff" in claims.groups"#.into()),
            tools: vec!["search*".into()],
            ..plain("staff", Way::To(version("v2")))
        },
        RuleSpec { when: Some(r#"request.region == "eu""#.into()), strict: true, ..plain("eu", Way::To(eu)) },
        RuleSpec { sticky: true, ..plain("canary", Way::Split { sides, abort_when: Some(abort_when) }) },
        plain("rule-4", Way::To(any)),
    ];
    assert_eq!(routing.rules, expected);
}

#[test]
fn what_a_routing_rule_cannot_say_is_refused() {
    let rows = [
        (
            "routing: [{ to: { version: v3 } }]",
            "13:17: servers[0].routing[0].to: no instance is like this; give one of the instances this version, region and labels",
        ),
        (
            "routing: [{ to: { region: eu, version: v2 } }]",
            "13:17: servers[0].routing[0].to: no instance is like this; give one of the instances this version, region and labels",
        ),
        (
            "routing: [{ to: { instances: [c] } }]",
            "13:23: servers[0].routing[0].to.instances: there is no instance \"c\"; known: a, b",
        ),
        (
            "routing: [{ to: {} }]",
            "13:17: servers[0].routing[0].to: names nothing; name at least one of instances, version, region and labels",
        ),
        (
            "routing: [{ split: [{ to: { version: v1 }, weight: 0 }, { to: { version: v2 }, weight: 0 }] }]",
            "13:17: servers[0].routing[0].split: has weights of 0 only; give at least one side a weight of 1 or more",
        ),
        (
            "routing: [{ split: [{ to: { version: v1 }, weight: 1 }] }]",
            "13:17: servers[0].routing[0].split: has fewer than two sides; name two or more, or write to",
        ),
        (
            "routing: [{ split: [{ to: { version: v1 }, weight: 1 }, { to: { version: v1 }, weight: 2 }] }]",
            "13:63: servers[0].routing[0].split[1].to: is the same as that of side 0; each must be different",
        ),
        (
            "routing: [{ name: x, to: { version: v1 } }, { name: x, to: { version: v2 } }]",
            "13:57: servers[0].routing[1].name: \"x\" is given twice, first in line 13; each must be different",
        ),
        (
            "routing: [{ to: { version: v1 }, split: [] }]",
            "13:15: servers[0].routing[0]: says more than one thing; give exactly one of to, split\n",
        ),
        (
            "routing: [{ to: { version: v1 }, abort_when: { error_rate_above: 0.1 } }]",
            "13:38: servers[0].routing[0].abort_when: there is no split that could end; write split instead of to, or leave it out",
        ),
        (
            "routing: [{ to: { version: v1 }, sticky: session }]",
            "13:46: servers[0].routing[0].sticky: \"session\" is not known here; write one of principal",
        ),
        (
            "routing: [{ to: { version: v1 }, strickt: true }]",
            "13:38: servers[0].routing[0]: unknown key \"strickt\"; did you mean strict?",
        ),
        (
            "routing: [{ to: { version: v1 }, tools: [a*b] }]",
            "13:46: servers[0].routing[0].tools[0]: \"a*b\" has a * before its end; only a * at the end matches anything",
        ),
        ("routing: []", "13:5: servers[0].routing: is an empty list; name at least one rule, or leave it out"),
        (
            "default: { version: v9 }",
            "13:5: servers[0].default: no instance is like this; give one of the instances this version, region and labels",
        ),
        (
            "circuit: { open_for: 5s }",
            "13:5: servers[0].circuit: would never open; name consecutive_failures, error_rate or slow, or leave circuit out",
        ),
        (
            "circuit: { error_rate: { above: 1.5 } }",
            "13:37: servers[0].circuit.error_rate.above: 1.5 is out of bounds; write a number from 0 to 1",
        ),
        (
            "on_instance_loss: move",
            "13:23: servers[0].on_instance_loss: \"move\" is not known here; write one of not_found, reinitialize",
        ),
        (
            "shadow: { to: { version: v2 }, tools: [] }",
            "13:36: servers[0].shadow.tools: is an empty list; name at least one",
        ),
        (
            "health: { mcp: true, http: { path: /healthz } }",
            "13:20: servers[0].health.mcp: http asks already; keep one of the two",
        ),
    ];
    let differ: Vec<String> = rows
        .iter()
        .map(|(keys, says)| (read_bad(&with(keys), &Fake::new()), says.trim_end()))
        .filter(|(report, says)| report != says)
        .map(|(report, says)| format!("said: {report}\nnot:  {says}\n"))
        .collect();
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
}

#[test]
fn a_condition_that_does_not_compile_is_reported_at_its_place() {
    let report = read_bad(&with("routing: [{ when: 'request.bites > 1', to: { version: v1 } }]"), &Fake::new());
    assert!(report.starts_with("13:23: servers[0].routing[0].when: "), "{report}");
    assert!(report.contains("request.bites"), "{report}");
}

#[test]
fn regions_come_from_somewhere_and_a_header_from_somebody_trusted() {
    let says = |section: &str| read_bad(&format!("{BASE}region: {section}\n"), &Fake::new());
    assert_eq!(
        says("{ header: X-Region }"),
        "15:19: region.header: nobody is trusted to send it; name the proxies in trusted_proxies"
    );
    assert_eq!(says("{}"), "15:1: region: names nothing; name claim, header, networks or maxmind, or leave region out");
    assert_eq!(
        says("{ maxmind: { file: /x.mmdb } }"),
        "15:11: region.maxmind: gives no code a region; write countries: { DE: eu } or continents: { EU: eu }"
    );
    assert_eq!(
        says("{ maxmind: { file: /x.mmdb, countries: { de: eu } } }"),
        "15:54: region.maxmind.countries.de: \"de\" is no code; write two capital letters, e.g. DE"
    );
    assert!(says("{ networks: [{ network: 10.0.0.0/8 }] }").contains("region.networks[0].region: is missing"));
}
