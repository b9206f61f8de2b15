#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::detect::{Detector, Detectors};
use super::rule::{About, Action, Places, Redact, Replacement};
use super::*;
use crate::mcp::sse::{Splitter, message_event};
use crate::mcp::{Method, Target};
use std::sync::Arc;

fn redacting() -> Arc<Plan> {
    let redact = Redact {
        detectors: Detectors::of(&Detector::ALL),
        patterns: Box::new([rule::Pattern::new("ticket", r"TICKET-\d{6}").unwrap()]),
        with: Replacement::Text("<{kind}>".into()),
        places: Places::ALL,
        base64: true,
    };
    let rule = Rule { name: "r".into(), about: About::default(), unless: None, action: Action::Redact(redact) };
    Plan::new(&[Arc::new(rule)], &[]).unwrap()
}

fn filter(plan: &Arc<Plan>) -> Filter {
    Filter::new(plan, None, plan.all(), true, "nonce".into()).unwrap()
}

fn never(_id: &str, refusal: Refusal) -> Vec<u8> {
    unreachable!("{refusal:?}")
}

/// One of each kind, none of which is part of the words around it.
const SECRETS: [&str; 9] = [
    "alice.cooper@example.com",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "078-05-1120",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_aB3dE5gH7jK9aB3dE5gH7jK9aB3dE5gH7jK9",
    "+49 30 1234567",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.c2ln",
    "TICKET-123456",
];

/// How much of a secret may show when it is cut at its worst place: the part that gives nothing away.
const SHOWN_MAX: usize = 14;

fn cuts() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (0..SECRETS.len(), proptest::collection::vec(0..60_usize, 0..4))
}

/// Pieces of "before SECRET after", cut at these places.
fn pieces(secret: usize, cuts: &[usize]) -> Vec<String> {
    let text = format!("before {} after", SECRETS.get(secret).unwrap());
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| text.get(*pair.first().unwrap()..*pair.last().unwrap()).unwrap().to_owned()).collect()
}

fn longest_shown(secret: &str, text: &str) -> usize {
    let lengths = (1..=secret.len()).rev();
    let shows = |length: &usize| {
        secret.as_bytes().windows(*length).any(|part| text.contains(std::str::from_utf8(part).unwrap()))
    };
    lengths.into_iter().find(shows).unwrap_or_default()
}

fn progress(message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "message": message, "progress": 1 } })
}

/// What a client reads of a stream of these messages.
fn streamed(messages: &[Value]) -> Vec<Value> {
    let plan = redacting();
    let mut filter = filter(&plan);
    let mut splitter = Splitter::new(1 << 20);
    for message in messages {
        splitter.push(message_event(message.to_string().as_bytes()).into());
    }
    let mut out: Vec<Bytes> = Vec::new();
    while let Some(piece) = splitter.next_piece().unwrap() {
        filter.event(piece, &never, &mut out).unwrap();
    }
    filter.end(&mut out);
    let mut splitter = Splitter::new(1 << 20);
    splitter.push(out.concat().into());
    let mut read = Vec::new();
    while let Some(piece) = splitter.next_piece().unwrap() {
        read.push(serde_json::from_slice(&piece.event().data.unwrap()).unwrap());
    }
    read
}

proptest! {
    /// However a secret is cut into content items, read one after another they do not show it.
    #[test]
    fn a_secret_cut_into_items_does_not_pass((secret, cuts) in cuts()) {
        let items: Vec<Value> = pieces(secret, &cuts).iter().map(|text| json!({ "type": "text", "text": text })).collect();
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": items } }).to_string();
        let plan = redacting();
        let changed = filter(&plan).document(answer.as_bytes(), &never).unwrap().unwrap();
        let answer: Value = serde_json::from_slice(&changed).unwrap();
        let items = answer.pointer("/result/content").unwrap().as_array().unwrap();
        let read: String = items.iter().map(|item| item.get("text").unwrap().as_str().unwrap()).collect();
        let secret = SECRETS.get(secret).unwrap();
        prop_assert!(!read.contains(secret), "{}", read);
        prop_assert!(longest_shown(secret, &read) <= SHOWN_MAX, "{}", read);
        prop_assert!(read.starts_with("before ") && read.ends_with(" after"), "{}", read);
    }

    /// However a secret is cut into progress messages, they do not show it, and none is lost or comes out of order.
    #[test]
    fn a_secret_cut_into_events_does_not_pass((secret, cuts) in cuts(), answered in any::<bool>()) {
        let mut messages: Vec<Value> = pieces(secret, &cuts).iter().map(|text| progress(text)).collect();
        if answered {
            messages.push(json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } }));
        }
        let read = streamed(&messages);
        prop_assert_eq!(read.len(), messages.len());
        let texts = read.iter().filter_map(|message| message.pointer("/params/message")?.as_str());
        let read: String = texts.collect();
        let secret = SECRETS.get(secret).unwrap();
        prop_assert!(!read.contains(secret), "{}", read);
        prop_assert!(longest_shown(secret, &read) <= SHOWN_MAX, "{}", read);
        prop_assert!(read.starts_with("before "), "{}", read);
    }

    /// Whatever the text, an answer stays JSON with the same shape, and what is found is gone for good.
    #[test]
    fn whatever_the_text_an_answer_stays_what_it_is(text in "(\\PC|[0-9 @.:-]|AKIA|eyJ|\\{|\"|\\\\){0,40}") {
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [{ "type": "text", "text": text }], "structuredContent": { "a": [text, 1] } } });
        let plan = redacting();
        let changed = filter(&plan).document(answer.to_string().as_bytes(), &never);
        if let Ok(Some(changed)) = changed {
            let changed: Value = serde_json::from_slice(&changed).unwrap();
            prop_assert!(changed.pointer("/result/content/0/text").unwrap().is_string());
            prop_assert_eq!(changed.pointer("/result/structuredContent/a/1"), Some(&json!(1)));
        }
    }
}

#[test]
fn what_waits_is_bounded_and_taken_out_beyond() {
    let plan = redacting();
    let mut filter = filter(&plan);
    let mut out = Vec::new();
    let mut splitter = Splitter::new(1 << 20);
    splitter.push(message_event(progress("card 4111 1111 1111").to_string().as_bytes()).into());
    let other = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }).to_string();
    for _ in 0..HELD_EVENTS_MAX {
        splitter.push(message_event(other.as_bytes()).into());
    }
    while let Some(piece) = splitter.next_piece().unwrap() {
        filter.event(piece, &never, &mut out).unwrap();
    }
    let text = String::from_utf8(out.concat()).unwrap();
    assert_eq!(out.len(), HELD_EVENTS_MAX + 1);
    assert!(text.contains("card [redacted]") && !text.contains("4111"), "{text}");
    assert_eq!(filter.take_done(), [Done { rule: "r".into(), action: "redacted", count: 1 }]);
}

#[test]
fn lists_and_the_beginning_of_a_session_are_not_content() {
    let plan = redacting();
    for method in [Method::ToolsList, Method::Initialize, Method::Ping, Method::ServerDiscover] {
        assert!(plan.about(method, &Target::None).is_empty(), "{method:?}");
    }
    assert!(!plan.about(Method::ToolsCall, &Target::Tool("t".into())).is_empty());
}

/// A client may take it for the one, another for the other.
#[test]
fn what_is_request_and_answer_at_once_is_refused() {
    let plan = redacting();
    let both = br#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#;
    assert_eq!(filter(&plan).document(both, &never), Err(Unreadable));
}
