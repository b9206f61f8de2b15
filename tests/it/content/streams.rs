//! What is split over packets and events.

use super::*;

/// Opens a streamed call of `read` and gives what feeds it.
fn streamed(world: &World) -> (crate::support::Opened, impl Fn(&str), impl FnOnce(Value)) {
    let pieces = std::rc::Rc::new(world.tickets.stream_next("tools/call"));
    let request = world.reader().modern_post(&modern_message(9, "tools/call", json!({ "name": "read" })));
    let opened = crate::support::open(world.gateway.address(), &request);
    let feed = std::rc::Rc::clone(&pieces);
    let say = move |message: &str| feed.event(&progress(message));
    let answer = move |mut result: Value| {
        result["resultType"] = "complete".into();
        pieces.event(&json!({ "jsonrpc": "2.0", "id": 9, "result": result }));
    };
    (opened, say, answer)
}

fn message_of(event: Option<crate::support::Event>) -> String {
    event.expect("an event").json()["params"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_secret_split_over_two_chunks_does_not_pass() {
    let world = world(redacting());
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    let event = format!("data: {}\n\n", progress("write to alice@example.com, please"));
    for byte in event.bytes() {
        pieces.send(vec![byte]);
    }
    assert_eq!(message_of(answer.event()), "write to [redacted:email], please");
    drop(pieces);
    answer.finish();
    assert!(!String::from_utf8_lossy(&answer.received).contains("alice"));
}

#[test]
fn a_secret_split_over_two_events_does_not_pass() {
    let world = world(redacting());
    let token = token();
    let (begin, end) = token.split_at(22);
    let (mut opened, say, answer) = streamed(&world);
    say(&format!("using {begin}"));
    say(&format!("{end} from now on"));
    answer(text("done"));
    assert_eq!(message_of(opened.event()), "using [redacted:github_token]");
    assert_eq!(message_of(opened.event()), " from now on");
    assert_eq!(opened.event().unwrap().json()["result"]["content"][0]["text"], "done");
    drop(say);
    opened.finish();
    assert_eq!(done(&world, 1)[0], json!({ "rule": "pii", "action": "redacted", "count": 1 }));
}

#[test]
fn a_secret_split_over_many_events_does_not_pass() {
    let world = world(redacting());
    let (mut opened, say, answer) = streamed(&world);
    for part in ["4111 1111 ", "1111", " 11", "11 is it"] {
        say(part);
    }
    answer(text("done"));
    let messages: Vec<String> = (0..4).map(|_| message_of(opened.event())).collect();
    assert_eq!(messages, ["[redacted:card]", "", "", " is it"]);
}

/// What follows shows that it is none; then the event passes as it came.
#[test]
fn what_only_looked_like_the_begin_of_a_secret_passes_as_it_is() {
    let world = world(redacting());
    let (mut opened, say, answer) = streamed(&world);
    say("copied 4200000");
    say("of 9000000 bytes");
    answer(text("done"));
    assert_eq!(message_of(opened.event()), "copied 4200000");
    assert_eq!(message_of(opened.event()), "of 9000000 bytes");
    assert_eq!(opened.event().unwrap().json()["result"]["content"][0]["text"], "done");
    drop(say);
    opened.finish();
    assert_eq!(done(&world, 1), Value::Null);
}

#[test]
fn an_event_that_ends_with_nothing_suspicious_is_not_kept_back() {
    let world = world(redacting());
    let (mut opened, say, answer) = streamed(&world);
    for step in ["step 1 of 3", "step 2 of 3: alice", "50.5"] {
        say(step);
        assert_eq!(message_of(opened.event()), step);
    }
    answer(text("done"));
    opened.event().unwrap();
}

/// A comment tells a client that the server is alive.
#[test]
fn keep_alives_pass_while_an_event_waits() {
    let world = world(redacting());
    let pieces = world.tickets.stream_next("tools/call");
    let request = world.reader().modern_post(&modern_message(9, "tools/call", json!({ "name": "read" })));
    let mut opened = crate::support::open(world.gateway.address(), &request);
    pieces.event(&progress("card 4111 1111 1111"));
    pieces.send(": still here\n\n");
    assert_eq!(opened.event().unwrap().data, "", "a comment has none");
    assert!(String::from_utf8_lossy(&opened.received).contains(": still here"));
    assert!(!String::from_utf8_lossy(&opened.received).contains("4111"));
    pieces.event(&json!({ "jsonrpc": "2.0", "id": 9, "result": { "content": [], "resultType": "complete" } }));
    drop(pieces);
    opened.finish();
    assert!(String::from_utf8_lossy(&opened.received).contains("4111 1111 1111"), "it was nothing");
}

#[test]
fn a_secret_that_begins_in_progress_and_ends_in_the_answer_does_not_pass() {
    let world = world(redacting());
    let (mut opened, say, answer) = streamed(&world);
    say("the card is 4111 1111 1111 ");
    answer(text("1111, charged"));
    assert_eq!(message_of(opened.event()), "the card is [redacted:card]");
    assert_eq!(opened.event().unwrap().json()["result"]["content"][0]["text"], ", charged");
}

#[test]
fn a_secret_split_over_two_log_messages_does_not_pass() {
    let world = world(redacting());
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("tools/call");
    let mut opened = session.open("tools/call", json!({ "name": "read", "arguments": {} }));
    let log = |data: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": { "line": data } } });
    pieces.event(&log("from alice@exam"));
    pieces.event(&log("ple.com today"));
    let line = |event: Option<crate::support::Event>| event.unwrap().json()["params"]["data"]["line"].clone();
    assert_eq!(line(opened.event()), "from [redacted:email]");
    assert_eq!(line(opened.event()), " today");
}

/// What ends a stream before its answer may go on in the one that resumes it.
#[test]
fn the_begin_of_a_secret_does_not_pass_at_the_end_of_a_stream() {
    let world = world(redacting());
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("GET");
    let mut stream = session.get(None);
    pieces.event(&progress("card 4111 1111 1111 111"));
    pieces.finish();
    stream.finish();
    let text = String::from_utf8_lossy(&stream.received).into_owned();
    assert!(text.contains("card [redacted]") && !text.contains("4111"), "{text}");
}

#[test]
fn a_secret_on_a_get_stream_does_not_pass() {
    let world = world(redacting());
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("GET");
    let mut stream = session.get(Some("event-41"));
    pieces.event(&progress("alice@example.com"));
    assert_eq!(message_of(stream.event()), "[redacted:email]");
    // An answer to a request that was made on another stream.
    pieces.event(&json!({ "jsonrpc": "2.0", "id": 3, "result": text("bob@example.com") }));
    assert_eq!(stream.event().unwrap().json()["result"]["content"][0]["text"], "[redacted:email]");
}

/// Of a replayed answer nobody knows the tool, so rules about tools apply, whichever they name.
#[test]
fn a_secret_in_a_replayed_answer_does_not_pass_for_want_of_the_tools_name() {
    let world = world(json!([{ "name": "pii", "tools": ["pay*"], "redact": { "detect": ["email"] } }]));
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("GET");
    let mut stream = session.get(Some("event-41"));
    pieces.event(&json!({ "jsonrpc": "2.0", "id": 3, "result": text("bob@example.com") }));
    assert_eq!(stream.event().unwrap().json()["result"]["content"][0]["text"], "[redacted:email]");
}

/// Clients pass over events of other types; those that do not must not find a secret there.
#[test]
fn a_secret_in_an_event_of_another_type_does_not_pass() {
    let world = world(redacting());
    let pieces = world.tickets.stream_next("tools/call");
    let mut opened = world.reader().open("tools/call", json!({ "name": "read" }));
    pieces.send("event: note\ndata: alice@example.com\n\n");
    assert_eq!(opened.event().unwrap().data, "[redacted:email]");
}

/// A question waits for its answer, so nothing in front of it waits any longer.
#[test]
fn a_question_does_not_wait_behind_the_begin_of_a_secret() {
    let world = world(redacting());
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("tools/call");
    let mut opened = session.open("tools/call", json!({ "name": "read", "arguments": {} }));
    pieces.event(&progress("card 4111 1111 1111 11"));
    let question = json!({
        "jsonrpc": "2.0", "id": "s1", "method": "elicitation/create",
        "params": { "message": "is it alice@example.com?", "requestedSchema": { "type": "object", "properties": {} } },
    });
    pieces.event(&question);
    assert_eq!(message_of(opened.event()), "card [redacted]");
    assert_eq!(opened.event().unwrap().json()["params"]["message"], "is it [redacted:email]?");
}
