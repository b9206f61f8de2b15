//! The files in `conf/` are what they say they are.

use std::collections::BTreeSet;

use super::*;
use crate::config::fields::without_positions;
use crate::config::read::known_keys;
use crate::config::yaml::{self, Kind, Node};

const COMPLETE: &str = include_str!("../../../conf/portcullis.yaml");

#[test]
fn both_files_are_in_order() {
    for text in [COMPLETE, MINIMAL] {
        read_shape(text, &|_| Vec::new()).unwrap_or_else(|problems| panic!("{}", shown(&problems)));
    }
}

#[test]
fn the_complete_file_has_every_key_that_the_reader_knows() {
    let mut written = BTreeSet::new();
    collect_keys(&yaml::parse(COMPLETE).unwrap(), "", &mut written);
    // The three sources of a secret stand once each, not once for every secret.
    let sources: BTreeSet<&str> = written.iter().filter_map(|key| secret_source(key)).collect();
    assert_eq!(sources, BTreeSet::from(["credential", "env", "file"]));

    let known = known_keys(COMPLETE);
    assert!(known.len() > 120, "the reader was stopped early: {} keys", known.len());
    let missing: Vec<&String> = known
        .iter()
        .filter(|key| !written.contains(*key) && secret_source(key).is_none())
        .filter(|key| subset_key(key).is_none_or(|of_a_rule| !written.contains(&of_a_rule)))
        .collect();
    // There is one store, so the other kind stands in a comment.
    assert_eq!(missing, ["store.postgres"]);
    assert!(COMPLETE.contains("  # postgres: { url: { credential: "));
}

/// A comment that ends in `Default: VALUE` tells what the program does without the key.
#[test]
fn every_default_in_the_comments_is_the_real_one() {
    let lines: Vec<&str> = COMPLETE.lines().collect();
    let mut checked = 0;
    for (nth, line) in lines.iter().enumerate() {
        let Some((before, default)) = line.split_once("Default: ").filter(|_| !line.trim_start().starts_with('#'))
        else {
            continue;
        };
        let indent = before.len() - before.trim_start().len();
        let key = before.trim_start().split_once(':').unwrap().0;
        let deeper = |line: &&&str| line.len() - line.trim_start().len() > indent;
        let end = nth + 1 + lines[nth + 1..].iter().take_while(deeper).count();
        let with = |replacement: Option<String>| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            lines.splice(nth..end, replacement);
            let text = lines.join("\n");
            let config = read(&text, &machine(), &|_| Vec::new());
            format!("{:?}", config.unwrap_or_else(|problems| panic!("{key}: {}", shown(&problems))))
        };

        let said = with(Some(format!("{}{key}: {default}", " ".repeat(indent))));
        assert_eq!(with(None), said, "line {}: the default of {key} is not {default}", nth + 1);
        checked += 1;
    }
    assert!(checked > 50, "only {checked} defaults found");
}

/// With every file and secret that the complete file names.
fn machine() -> Fake {
    let second_key = "Vd5QmWYWx1P0rVqz8dG3C3ZJbXnqL2uT6yKfE4oHsAk=";
    let (certificate, private_key) = certificate_and_key();
    let machine = Fake::new()
        .file("/run/credentials/session.key", 0o400, KEY)
        .file("/run/credentials/sts.secret", 0o400, "s3cr3t-of-the-test")
        .file("/etc/portcullis/previous-session.key", 0o600, second_key)
        .file("/run/credentials/admin-client.secret", 0o400, "s3cr3t-of-the-test")
        .file("/run/credentials/redis.url", 0o400, "rediss://gateway:s3cr3t-of-the-test@redis.internal:6379/0")
        .env("SAAS_API_TOKEN", "t0ken-of-the-test");
    let files = [
        ("tls/cert.pem", &*certificate),
        ("tls/key.pem", &*private_key),
        ("tls/clients.pem", &*certificate),
        ("saas/ca.pem", &*certificate),
        ("redis/ca.pem", &*certificate),
        ("saas/client.pem", &*certificate),
        ("saas/client.key", &*private_key),
        ("robots.jwks.json", "s3cr3t-of-the-test"),
        ("reader.token", "t0ken-of-the-reader"),
        ("content.key", second_key),
    ];
    let add = |machine: Fake, (name, text): (&str, &str)| machine.file(&format!("/etc/portcullis/{name}"), 0o600, text);
    files.into_iter().fold(machine, add)
}

fn secret_source(key: &str) -> Option<&str> {
    let (parent, last) = key.rsplit_once('.')?;
    let is_secret = parent.ends_with("secret") || parent == "session.keys[]" || parent == "budgets_store.redis.url";
    is_secret.then_some(last)
}

fn collect_keys(node: &Node, path: &str, into: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::List(items) => items.iter().for_each(|item| collect_keys(item, &format!("{path}[]"), into)),
        Kind::Map(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
                into.insert(without_positions(&path));
                collect_keys(value, &path, into);
            }
        }
        Kind::Flag(_) | Kind::Integer(_) | Kind::Null | Kind::Number(_) | Kind::Refused(_) | Kind::Text(_) => {}
    }
}

/// The same key under `to` of a rule: what may be said of instances stands there once, not wherever some are meant.
fn subset_key(key: &str) -> Option<String> {
    let places = ["servers[].default", "servers[].routing[].split[].to", "servers[].shadow.to"];
    let said = places.iter().find_map(|place| key.strip_prefix(place))?;
    Some(format!("servers[].routing[].to{said}"))
}
