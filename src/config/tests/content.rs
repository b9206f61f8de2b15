//! `content`: good rules, and the words about bad ones.

use super::*;
use crate::content::rule::{Action, Protection, Replacement};

fn with_rules(rules: &str) -> String {
    BASE.replacen("    credential: none\n", &format!("    credential: none\n    content:\n{rules}"), 1)
}

#[test]
fn rules_of_servers_and_routes_are_read_in_order() {
    let text = with_rules(
        "      - redact: { detect: [email] }\n      - { name: pay, tools: [pay_*], sensitive: true }\n      - { require_encryption: true }\n",
    );
    let text = format!("{text}    content: [{{ limit: {{ items: 3 }} }}]\n");
    let config = read_good(&text);
    let server = &config.servers.first().unwrap().content;
    let names: Vec<&str> = server.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["rule-1", "pay", "rule-3"]);
    let redact = &server.first().unwrap().action;
    assert!(
        matches!(redact, Action::Redact(redact) if matches!(&redact.with, Replacement::Text(text) if **text == *"[redacted:{kind}]"))
    );
    assert!(matches!(server.get(1).unwrap().action, Action::Protect(Protection::Sensitive)));
    assert!(matches!(server.get(2).unwrap().action, Action::Protect(Protection::Encrypted)));
    assert!(
        matches!(&config.routes.first().unwrap().content.first().unwrap().action, Action::Limit(limit) if limit.items == Some(3))
    );
}

#[test]
fn every_problem_of_a_rule_is_told_with_its_key() {
    let mut differ = Vec::new();
    for (rules, says) in [
        (
            "      - {}\n",
            "11:9: servers[0].content[0]: says nothing; give exactly one of redact, drop, limit, guard, sensitive, require_encryption, external",
        ),
        (
            "      - { redact: { detect: [e-mail] } }\n",
            "11:30: servers[0].content[0].redact.detect[0]: \"e-mail\" is not known here; write one of aws_key, card, email, github_token, google_key, iban, ip, jwt, phone, private_key, slack_token, us_ssn",
        ),
        (
            "      - { redact: {} }\n",
            "11:11: servers[0].content[0].redact: looks for nothing; name detectors under detect, or expressions under patterns",
        ),
        (
            "      - { redact: { patterns: [{ name: x, regex: '\\d*' }] } }\n",
            "11:50: servers[0].content[0].redact.patterns[0].regex: the expression matches the empty text, which is everywhere; correct the expression (syntax of the Rust crate regex)",
        ),
        (
            "      - { redact: { patterns: [{ name: x, regex: '(' }] } }\n",
            "11:50: servers[0].content[0].redact.patterns[0].regex: unclosed group; correct the expression (syntax of the Rust crate regex)",
        ),
        (
            "      - { redact: { detect: [ip], replace: x, mask: {} } }\n",
            "11:11: servers[0].content[0].redact: says more than once what comes in place; give one of replace, mask and hash",
        ),
        (
            "      - { redact: { detect: [ip], in: [body] } }\n",
            "11:40: servers[0].content[0].redact.in[0]: \"body\" is not known here; write one of error, progress, resource, structured, text",
        ),
        (
            "      - { redact: { detect: [ip], base64: twice } }\n",
            "11:43: servers[0].content[0].redact.base64: must be true or false, not a string; write one of the two without quotes",
        ),
        (
            "      - { redact: { detect: [ip], hash: { secret: { env: SHORT } } } }\n",
            "11:43: servers[0].content[0].redact.hash.secret: the secret has less than 22 characters; make one with portcullis keygen",
        ),
        (
            "      - { drop: [salary] }\n",
            "11:18: servers[0].content[0].drop[0]: \"salary\": a pointer begins with /; the whole value cannot be dropped; write a JSON Pointer below structuredContent, e.g. /employees/*/salary",
        ),
        (
            "      - { limit: {} }\n",
            "11:11: servers[0].content[0].limit: bounds nothing; give result_bytes, items or media",
        ),
        (
            "      - { limit: { media: [png] } }\n",
            "11:28: servers[0].content[0].limit.media[0]: \"png\" is not a media type; write one like image/png or audio/*",
        ),
        (
            "      - { guard: { hosts: [a/b], action: stop } }\n",
            "11:28: servers[0].content[0].guard.hosts[0]: \"a/b\" is not a host; write a host like docs.example.com, or *.example.com for all below it\n11:42: servers[0].content[0].guard.action: \"stop\" is not known here; write one of block, flag, wrap",
        ),
        (
            "      - { sensitive: false }\n",
            "11:22: servers[0].content[0].sensitive: says that nothing is done; write true, or leave the rule out",
        ),
        (
            "      - { tools: [a*b], sensitive: true }\n",
            "11:19: servers[0].content[0].tools[0]: \"a*b\" has a * before its end; write a whole name, or the beginning of names and *",
        ),
        (
            "      - { external: { url: http://dlp.test, deadline: 1h } }\n",
            "11:28: servers[0].content[0].external.url: \"http://dlp.test\" is not protected on its way; write an https URL; http is for loopback hosts, and for plain_http_hosts\n11:55: servers[0].content[0].external.deadline: 1h is out of bounds; write a duration from 50ms to 30s",
        ),
        (
            "      - { unless: 'args.x == 1', sensitive: true }\n",
            "11:19: servers[0].content[0].unless: it may read scopes, claims, principal, agent and tool, nothing else; write a condition about the caller, e.g. '\"pii:read\" in scopes'",
        ),
        (
            "      - { name: a, sensitive: true }\n      - { name: a, sensitive: true }\n",
            "12:17: servers[0].content[1].name: \"a\" is given twice, first in line 11; each must be different",
        ),
        (
            "      - { sensitve: true }\n",
            "11:11: servers[0].content[0]: unknown key \"sensitve\"; did you mean sensitive?",
        ),
    ] {
        let said = read_bad(&with_rules(rules), &Fake::new().env("SHORT", "sh0rt-but-real"));
        if said != says {
            differ.push(format!("said: {said}\nnot:  {says}\n"));
        }
    }
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
}

#[test]
fn more_rules_than_a_plan_holds_are_refused() {
    let rules = "      - { sensitive: true }\n".repeat(33);
    let says = "10:5: servers[0].content: has more than 32 rules; put what belongs together into one rule";
    assert_eq!(read_bad(&with_rules(&rules), &Fake::new()), says);
}
