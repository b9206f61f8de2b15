//! `external`: a guard outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::{RawServer, Then};

/// A guard that says this.
fn guard_saying(body: &str) -> Arc<RawServer> {
    let body = body.to_owned();
    Arc::new(RawServer::start(move |_request| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        (format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), Then::KeepAlive)
    }))
}

fn asking(guard: &RawServer, more: Value) -> Value {
    let mut external = json!({ "url": format!("http://{}/check", guard.address()), "deadline": "5s" });
    for (key, value) in more.as_object().unwrap() {
        external[key] = value.clone();
    }
    json!([{ "name": "dlp", "external": external }])
}

#[test]
fn an_answer_that_the_guard_blocks_does_not_pass() {
    let guard = guard_saying(r#"{"verdict":"block","why":"secret"}"#);
    let world = world(asking(&guard, json!({})));
    answers(&world, text("the plan"));
    for answer in [read(&world), world.reader().initialize(LEGACY).call("read", json!({}))] {
        let json = answer.json();
        assert_eq!(json["error"]["data"]["reason"], "content_blocked", "{json}");
        assert!(json["id"].is_u64() && !json.to_string().contains("plan"));
    }
    assert_eq!(done(&world, 4), json!([{ "rule": "dlp", "action": "blocked", "count": 1 }]));
}

#[test]
fn an_answer_that_the_guard_lets_passes_byte_for_byte_and_the_guard_saw_it() {
    let guard = guard_saying(r#"{"verdict":"pass"}"#);
    let world = world(asking(&guard, json!({})));
    let odd =
        "{ \"jsonrpc\":\"2.0\",\"id\":77,\"result\":{\"content\":[ {\"type\":\"text\",\"text\":\"\\u0061 plan\"}]} } ";
    answers_exactly(&world, odd);
    let request = world.reader().modern_post(&modern_message(77, "tools/call", json!({ "name": "read" })));
    assert_eq!(world.reader().send(&request).0.text(), odd);
    let question = guard.seen().remove(0).message;
    assert_eq!(question["asked"], json!([{ "method": "tools/call", "name": "read" }]));
    assert_eq!((&question["server"], &question["route"]), (&json!("tickets"), &json!("/mcp")));
    assert_eq!(question["principal"]["subject"], "alice");
    assert_eq!(question["answers"][0]["result"]["content"][0]["text"], "a plan");
    let record = world.gateway.audit(1)[0].clone();
    assert_eq!((&record["outcome"], &record["status"]), (&json!("ok"), &json!(200)), "{record}");
}

/// What our own rules hide, the guard does not see either.
#[test]
fn the_guard_does_not_see_what_was_redacted() {
    let guard = guard_saying(r#"{"verdict":"pass"}"#);
    let mut rules = asking(&guard, json!({}));
    rules.as_array_mut().unwrap().push(redacting()[0].clone());
    let world = world(rules);
    answers(&world, text("alice@example.com"));
    assert_eq!(read(&world).result()["content"][0]["text"], "[redacted:email]");
    assert!(!guard.seen()[0].message.to_string().contains("alice@"));
}

#[test]
fn a_streamed_answer_that_the_guard_blocks_does_not_pass() {
    let guard = guard_saying(r#"{"verdict":"block"}"#);
    let world = world(asking(&guard, json!({})));
    world.tickets.on_tool("read", |seen| {
        let message = message_with_result(seen, text("the plan"));
        Reply::sse(format!("data: {}\n\ndata: {message}\n\n", progress("half way")))
    });
    let answer = read(&world);
    assert!(answer.0.text().contains("half way") && !answer.0.text().contains("the plan"), "{}", answer.0);
    assert_eq!(answer.json()["error"]["data"]["reason"], "content_blocked");
}

#[test]
fn a_streamed_answer_that_the_guard_lets_passes_as_it_is() {
    let guard = guard_saying(r#"{"verdict":"pass"}"#);
    let world = world(asking(&guard, json!({})));
    let pieces = world.tickets.stream_next("tools/call");
    let request = world.reader().modern_post(&modern_message(9, "tools/call", json!({ "name": "read" })));
    let mut opened = crate::support::open(world.gateway.address(), &request);
    pieces.event(&progress("half way"));
    assert_eq!(opened.event().unwrap().json()["params"]["message"], "half way");
    pieces.send("id: 4\ndata: {\"jsonrpc\":\"2.0\",  \"id\":9,\"result\":{\"content\":[]}}\n\n");
    let event = opened.event().unwrap();
    assert_eq!(
        (event.id.as_deref(), &*event.data),
        (Some("4"), r#"{"jsonrpc":"2.0",  "id":9,"result":{"content":[]}}"#)
    );
    assert!(opened.finish(), "the stream ends with its answer");
}

#[test]
fn an_answer_without_a_verdict_does_not_pass() {
    let garbage = guard_saying("maybe");
    let failing = Arc::new(RawServer::start(|_request| {
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 18\r\n\r\n{\"verdict\":\"pass\"}".to_vec(), Then::Close)
    }));
    let silent = Arc::new(RawServer::start(|_request| {
        std::thread::sleep(crate::support::DEADLINE);
        (Vec::new(), Then::Close)
    }));
    for (guard, deadline) in [(&garbage, "5s"), (&failing, "5s"), (&silent, "200ms")] {
        let world = world(asking(guard, json!({ "deadline": deadline })));
        answers(&world, text("the plan"));
        let answer = read(&world);
        assert_eq!(answer.json()["error"]["data"]["reason"], "content_unchecked", "{}", answer.0);
        assert_eq!(done(&world, 1)[0]["action"], "no_verdict");
    }
}

#[test]
fn an_answer_without_a_verdict_passes_only_where_the_operator_says_so() {
    let garbage = guard_saying("maybe");
    let world = world(asking(&garbage, json!({ "on_failure": "pass" })));
    answers(&world, text("the plan"));
    assert_eq!(read(&world).result()["content"][0]["text"], "the plan");
    assert_eq!(done(&world, 1), json!([{ "rule": "dlp", "action": "passed_unchecked", "count": 1 }]));
}

/// A guard is called through the same rules as every other address of our own.
#[test]
fn a_guard_at_an_address_that_is_never_called_lets_nothing_pass() {
    let external = json!({ "url": "https://169.254.169.254/check", "deadline": "1s" });
    let world = world(json!([{ "name": "dlp", "external": external }]));
    answers(&world, text("the plan"));
    assert_eq!(read(&world).json()["error"]["data"]["reason"], "content_unchecked");
}

/// Each answer of a batch has its error.
#[test]
fn a_batch_that_the_guard_blocks_has_an_error_for_each_request() {
    let guard = guard_saying(r#"{"verdict":"block"}"#);
    let world = World::with(|conf| conf.allow_all().of_server("content", asking(&guard, json!({}))));
    let session = world.reader().initialize("2025-03-26");
    let call = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "read", "arguments": {} } });
    let answers = session.send(json!([call(1), call(2)])).json();
    let ids: Vec<Value> = answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(2)]);
    assert!(answers.as_array().unwrap().iter().all(|answer| answer["error"]["data"]["reason"] == "content_blocked"));
}

/// What nobody asks the guard about costs it no call.
#[test]
fn the_guard_is_not_asked_about_lists() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let guard = RawServer::start(move |_request| {
        counted.fetch_add(1, Ordering::SeqCst);
        (RawServer::json(&json!({ "verdict": "block" })), Then::KeepAlive)
    });
    let world = world(asking(&guard, json!({})));
    world.reader().list().result();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// What waits for a verdict is charged, and runs until it has come.
#[test]
fn an_answer_that_waited_for_the_guard_does_not_pass_uncounted() {
    let guard = guard_saying(r#"{"verdict":"pass"}"#);
    let budgets = json!([
        { "name": "much", "by": "principal", "bytes": "1KiB per hour" },
        { "name": "at-once", "by": "principal", "concurrency": 1 },
    ]);
    let world = World::with(|conf| conf.of_server("content", asking(&guard, json!({}))).set("budgets", budgets));
    let long = text(&"x".repeat(2000));
    answers(&world, long.clone());
    assert_eq!(read(&world).status(), 200);
    read(&world).assert_refused(429, "budget_exceeded");
    world.tickets.on_tool("read", move |seen| {
        let message = message_with_result(seen, long.clone());
        Reply::sse(format!("data: {message}\n\n"))
    });
    let other = world.reader_named("bob");
    assert_eq!(other.call("read", json!({})).status(), 200);
    other.call("read", json!({})).assert_refused(429, "budget_exceeded");
}
