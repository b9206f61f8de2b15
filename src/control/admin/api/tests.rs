//! Is the description true?

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::problem::TITLES;
use super::*;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// `GET /servers/{name}`, as both sides have it.
fn described() -> BTreeSet<String> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let calls = paths.iter().flat_map(|(path, calls)| {
        let methods = calls.as_object().unwrap().keys().filter(|key| *key != "parameters");
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    calls.collect()
}

#[test]
fn every_call_is_described_and_every_description_is_of_a_call() {
    let served: BTreeSet<String> = ENDPOINTS
        .iter()
        .map(|endpoint| format!("{} {}", endpoint.method, endpoint.path.strip_prefix("/api/v1").unwrap()))
        .collect();
    assert_eq!(described(), served);
}

#[test]
fn the_description_says_who_may_call() {
    let document = document();
    for endpoint in ENDPOINTS {
        let path = endpoint.path.strip_prefix("/api/v1").unwrap();
        let call = &document["paths"][path][endpoint.method.as_str().to_lowercase()];
        assert_eq!(call["x-access"], endpoint.access.label(), "{} {path}", endpoint.method);
        let is_open = call["security"].as_array().is_some_and(Vec::is_empty);
        assert_eq!(is_open, endpoint.access == Access::Stranger, "{path}");
    }
}

/// Invariant 6, for people: nothing is changed without a record.
#[test]
fn every_call_that_can_change_something_is_written_down_and_asks_who_calls() {
    for endpoint in ENDPOINTS {
        let is_read = endpoint.method == Method::GET;
        assert!(is_read || endpoint.event.is_some(), "{}", endpoint.path);
        assert!(is_read || endpoint.access != Access::Stranger, "{}", endpoint.path);
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, root: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref") {
                    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                    assert!(root.pointer(pointer).is_some(), "{pointer}");
                }
                members.values().for_each(|value| check(value, root));
            }
            Value::Array(items) => items.iter().for_each(|value| check(value, root)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    check(&document, &document);
}

#[test]
fn every_word_of_a_problem_is_described() {
    let document = document();
    let described: BTreeSet<&str> = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap().strip_prefix("urn:portcullis:problem:").unwrap())
        .collect();
    let known: BTreeSet<&str> = TITLES.iter().map(|(word, _title)| *word).collect();
    assert_eq!(described, known);
}
