//! What must not happen over HTTP/2, frame by frame.

use std::time::Duration;

use serde_json::json;

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Ending, Frames, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, literal,
};
use crate::support::{MODERN, Reply, World, modern_message, poll_until};

/// Memory that may come and go by itself.
const NOISE_BYTES: usize = 48 << 20;

fn body() -> String {
    modern_message(1, "tools/list", json!({})).to_string()
}

/// The headers of a request to list tools, in the order that HTTP/2 wants.
fn headers<'a>(authorization: &'a str, length: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/mcp"),
        (":authority", "127.0.0.1"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", authorization),
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/list"),
        ("content-length", length),
    ]
}

fn bearer(world: &World) -> String {
    format!("Bearer {}", world.reader_token().sign())
}

#[track_caller]
fn assert_serves(world: &mut World) {
    assert!(world.gateway.is_alive());
    for caller in [world.reader(), world.reader().h2c()] {
        assert_eq!(caller.list().status(), 200);
    }
}

#[track_caller]
fn assert_grew_little(world: &World, before: usize) {
    let grown = || world.gateway.resident_bytes().saturating_sub(before);
    let what = format!("memory to stay near {} MiB", before >> 20);
    poll_until(&what, || (grown() < NOISE_BYTES).then_some(()));
}

/// Without this, the other tests could not tell a refusal from a mistake of their own.
#[test]
fn a_request_made_of_frames_is_answered() {
    let world = World::start();
    let (authorization, body) = (bearer(&world), body());
    let mut client = Frames::open(world.gateway.address());
    let length = body.len().to_string();
    client.send(HEADERS, END_HEADERS, 1, &block(&headers(&authorization, &length))).unwrap();
    client.send(DATA, END_STREAM, 1, body.as_bytes()).unwrap();
    assert_eq!(client.ending(1), Ending::Status(200));
    client.send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&headers("Bearer x", "0"))).unwrap();
    assert_eq!(client.ending(3), Ending::Status(401));
}

/// CVE-2023-44487: streams that are opened and reset at once, so that none of them counts.
#[test]
fn rapid_resets_cost_no_memory_and_stop_nobody() {
    let mut world = World::start();
    let (authorization, body) = (bearer(&world), body());
    let length = body.len().to_string();
    assert_serves(&mut world);
    let before = world.gateway.resident_bytes();
    let opened = block(&headers(&authorization, &length));
    for ends in [0, END_STREAM] {
        let mut client = Frames::open(world.gateway.address());
        for number in 0..20_000 {
            let stream = number * 2 + 1;
            let mut bytes = frame(HEADERS, END_HEADERS | ends, stream, &opened);
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            if client.write(&bytes).is_err() {
                break;
            }
        }
        assert_serves(&mut world);
    }
    assert_grew_little(&world, before);
}

/// The same with whole requests, which set off work at a server that takes its time.
#[test]
fn resets_of_whole_requests_do_not_pile_up_work() {
    let mut world = World::start();
    let (authorization, body) = (bearer(&world), body());
    let length = body.len().to_string();
    world.tickets.on_tool("read", |_| Reply::Hang);
    let before = world.gateway.resident_bytes();
    let call = modern_message(1, "tools/call", json!({ "name": "read" })).to_string();
    let length_of_call = call.len().to_string();
    let mut headers = headers(&authorization, &length);
    headers.retain(|(name, _)| !matches!(*name, "mcp-method" | "content-length"));
    headers.extend([("mcp-method", "tools/call"), ("mcp-name", "read"), ("content-length", &length_of_call)]);
    let opened = block(&headers);
    let mut client = Frames::open(world.gateway.address());
    for number in 0..3_000 {
        let stream = number * 2 + 1;
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &opened);
        bytes.extend(frame(DATA, END_STREAM, stream, call.as_bytes()));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        // The window of the connection is filled up as it is used.
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes()));
        if client.write(&bytes).is_err() {
            break;
        }
    }
    poll_until("the work to end", || (world.gateway.metric("portcullis_connections_active", &[]) < 8.0).then_some(()));
    assert_serves(&mut world);
    assert_grew_little(&world, before);
}

/// CVE-2024-27316 and others: a head that goes on and on.
#[test]
fn a_continuation_flood_ends_the_connection() {
    let mut world = World::start();
    assert_serves(&mut world);
    world.tickets.forget();
    let before = world.gateway.resident_bytes();
    for (what, piece, count) in [("large", vec![b'x'; 16_000], 20_000), ("empty", Vec::new(), 500_000)] {
        let mut client = Frames::open(world.gateway.address());
        // One header whose value never ends: no frame of it can be decoded alone.
        let mut first = block(&headers("Bearer x", "0"));
        first.extend([0, 3, b'x', b'-', b'y', 127, 0x80, 0x80, 0x80, 0x40]);
        client.send(HEADERS, END_STREAM, 1, &first).unwrap();
        let refused = (0..count).any(|_| client.send(CONTINUATION, 0, 1, &piece).is_err());
        assert!(refused, "{what}: the connection takes everything");
    }
    world.tickets.assert_saw_nothing();
    assert_serves(&mut world);
    assert_grew_little(&world, before);
}

/// CVE-2019-9512, CVE-2019-9515: frames that must be answered, from a client that reads no answers.
#[test]
fn floods_of_pings_and_settings_cost_no_memory_and_stop_nobody() {
    let mut world = World::start();
    assert_serves(&mut world);
    let before = world.gateway.resident_bytes();
    let ping = frame(PING, 0, 0, b"12345678").repeat(1000);
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(1000);
    let window = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(1000);
    let priority = frame(2, 0, 3, &[0, 0, 0, 0, 16]).repeat(1000);
    for flood in [ping, settings, window, priority] {
        let mut client = Frames::open(world.gateway.address());
        // It ends when the gateway closes, or reads no more because nobody takes its answers.
        let _held_back = (0..300).any(|_| client.write(&flood).is_err());
        assert_serves(&mut world);
        assert_grew_little(&world, before);
    }
}

/// CVE-2016-6581: a few bytes that unpack to a head of any size.
#[test]
fn a_header_bomb_is_refused() {
    let mut world = World::start();
    assert_serves(&mut world);
    let before = world.gateway.resident_bytes();
    let mut client = Frames::open(world.gateway.address());
    let mut bomb = block(&headers("Bearer x", "0"));
    bomb.extend(literal(0x40, b"x-bomb", &[b'a'; 4000]));
    // The newest entry of the dynamic table, again and again: 4,000 bytes for one.
    bomb.extend(vec![0x80 | 62; 12_000]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).unwrap();
    let ending = client.ending(1);
    assert!(!matches!(ending, Ending::Nothing | Ending::Status(200..=399)), "{ending:?}");
    assert_serves(&mut world);
    assert_grew_little(&world, before);
}

#[test]
fn a_head_over_its_bounds_is_refused() {
    let world = World::with(|conf| conf.set("limits.header_bytes", "8KiB").set("limits.header_count", 40));
    let long = "v".repeat(30_000);
    let many: Vec<(String, String)> = (0..60).map(|number| (format!("x-{number}"), "v".into())).collect();
    let one = vec![("x-long".to_owned(), long)];
    for (what, more) in [("many", many), ("long", one)] {
        let mut head: Vec<(&str, &str)> = headers("Bearer x", "0");
        head.extend(more.iter().map(|(name, value)| (&**name, &**value)));
        let mut client = Frames::open(world.gateway.address());
        let block = block(&head);
        let (first, rest) = block.split_at(block.len().min(16_000));
        client.send(HEADERS, END_STREAM | if rest.is_empty() { END_HEADERS } else { 0 }, 1, first).unwrap();
        if !rest.is_empty() {
            client.send(CONTINUATION, END_HEADERS, 1, rest).unwrap();
        }
        let ending = client.ending(1);
        assert!(matches!(ending, Ending::Status(431)), "{what}: {ending:?}");
    }
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let mut world = World::with(|conf| conf.set("limits.http2_streams", 10));
    let authorization = bearer(&world);
    let mut client = Frames::open(world.gateway.address());
    // Their bodies never come, so they stay.
    let opened = block(&headers(&authorization, "100"));
    for number in 0..11 {
        client.send(HEADERS, END_HEADERS, number * 2 + 1, &opened).unwrap();
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(client.ending(21), Ending::Reset(REFUSED_STREAM));
    assert_serves(&mut world);
}

/// RFC 9113 §8.3, §8.1.1: what is malformed is not passed on.
#[test]
fn a_malformed_request_reaches_nobody() {
    let world = World::start();
    let authorization = bearer(&world);
    let body = body();
    let length = body.len().to_string();
    let good = headers(&authorization, &length);
    let without = |name: &str| {
        let mut head = good.clone();
        head.retain(|(other, _)| *other != name);
        head
    };
    let with = |name: &'static str, value: &'static str| {
        let mut head = good.clone();
        head.push((name, value));
        head
    };
    let instead = |name: &str, value: &'static str| {
        let mut head = good.clone();
        head.iter_mut().filter(|(other, _)| *other == name).for_each(|(_, old)| *old = value);
        head
    };
    let cases = [
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("no scheme", without(":scheme")),
        ("no authority", without(":authority")),
        ("two paths", [vec![(":path", "/mcp")], good.clone()].concat()),
        ("two methods", [vec![(":method", "GET")], good.clone()].concat()),
        ("two authorities", [vec![(":authority", "evil.test")], good.clone()].concat()),
        ("a pseudo-header after the others", with(":path", "/mcp")),
        ("an unknown pseudo-header", [vec![(":token", "x")], good.clone()].concat()),
        ("the status of an answer", [vec![(":status", "200")], good.clone()].concat()),
        ("an empty path", instead(":path", "")),
        ("a path without a slash", instead(":path", "mcp")),
        ("a path with a line end", instead(":path", "/mcp HTTP/1.1\r\nx: y")),
        ("a whole URL for a path", instead(":path", "http://127.0.0.1/mcp")),
        ("userinfo", instead(":authority", "127.0.0.1@evil.test")),
        ("another authority", instead(":authority", "evil.test")),
        ("a Host that disagrees", with("host", "evil.test")),
        ("capital letters", with("X-Capital", "1")),
        ("a connection header", with("connection", "close")),
        ("a transfer coding", with("transfer-encoding", "chunked")),
        ("an upgrade", with("upgrade", "h2c")),
        ("a line end in a value", with("x-a", "b\r\nx-injected: 1")),
        ("NUL in a value", with("x-a", "b\0c")),
        ("a line end in a name", with("x-a\r\nx-b", "c")),
        ("a space in a name", with("x a", "c")),
        ("no name", with("", "c")),
        ("another length", instead("content-length", "5")),
        ("two lengths", with("content-length", "5")),
        ("no length", instead("content-length", "x")),
        ("CONNECT", [vec![(":method", "CONNECT"), (":authority", "127.0.0.1:22")], good[4..].to_vec()].concat()),
        ("CONNECT for a protocol", [vec![(":protocol", "websocket")], instead(":method", "CONNECT")].concat()),
        ("TRACE", instead(":method", "TRACE")),
    ];
    for (what, head) in cases {
        let mut client = Frames::open(world.gateway.address());
        client.send(HEADERS, END_HEADERS, 1, &block(&head)).unwrap();
        let _closed = client.send(DATA, END_STREAM, 1, body.as_bytes());
        let ending = client.ending(1);
        let is_refused = matches!(ending, Ending::Reset(_) | Ending::Closed(_) | Ending::Status(400..=499));
        assert!(is_refused, "{what}: {ending:?}");
    }
    world.tickets.assert_saw_nothing();
}

/// Frames that break the rules of the connection itself.
#[test]
fn a_broken_connection_is_closed() {
    let mut world = World::start();
    let get = block(&headers("Bearer x", "0"));
    let cases: [(&str, Vec<u8>); 9] = [
        ("a frame over the size", frame(DATA, 0, 1, &vec![0; 20_000])),
        ("DATA before HEADERS", frame(DATA, END_STREAM, 1, b"x")),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &get)),
        ("an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &get)),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &get)),
        ("a short PING", frame(PING, 0, 0, b"123")),
        ("a window past the end", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        ("a broken header block", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64])),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0])),
    ];
    for (what, bytes) in cases {
        let mut client = Frames::open(world.gateway.address());
        client.write(&bytes).unwrap();
        client.until_closed().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_serves(&mut world);
}

#[test]
fn malformed_requests_without_end_are_cut_off() {
    let world = World::start();
    let mut client = Frames::open(world.gateway.address());
    let mut head = headers("Bearer x", "0");
    head.iter_mut().filter(|(name, _)| *name == ":authority").for_each(|(_, value)| *value = "a@b");
    let block = block(&head);
    for number in 0..100 {
        if client.send(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block).is_err() {
            break;
        }
    }
    client.until_closed().expect("the connection ends");
}

/// `limits.request_body_timeout`, over HTTP/2 where Pingora has no limit of its own.
#[test]
fn a_body_that_drips_is_not_waited_for() {
    let world = World::with(|conf| conf.set("limits.request_body_timeout", "600ms"));
    let (authorization, body) = (bearer(&world), body());
    let length = body.len().to_string();
    let mut client = Frames::open(world.gateway.address());
    client.send(HEADERS, END_HEADERS, 1, &block(&headers(&authorization, &length))).unwrap();
    for byte in body.bytes().take(30) {
        let _closed = client.send(DATA, 0, 1, &[byte]);
        std::thread::sleep(Duration::from_millis(50));
    }
    let ending = client.ending(1);
    assert_eq!(ending, Ending::Status(408));
    world.tickets.assert_saw_nothing();
}

/// `limits.client_write_timeout`: a client that opens no window for an answer does not hold it for ever.
#[test]
fn a_client_that_takes_no_answer_is_given_up() {
    let world = World::with(|conf| conf.set("limits.client_write_timeout", "700ms"));
    let authorization = bearer(&world);
    world.tickets.on_tool("read", |seen| {
        let text = "x".repeat(1 << 20);
        let result = json!({ "content": [{ "type": "text", "text": text }] });
        Reply::json(200, &crate::support::message_with_result(seen, result))
    });
    let call = modern_message(1, "tools/call", json!({ "name": "read" })).to_string();
    let length = call.len().to_string();
    let mut head = headers(&authorization, &length);
    head.retain(|(name, _)| *name != "mcp-method");
    head.extend([("mcp-method", "tools/call"), ("mcp-name", "read")]);
    let mut client = Frames::silent(world.gateway.address());
    let preface = crate::support::frames::PREFACE;
    // A first window of no bytes at all.
    client.write(&[preface, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).unwrap();
    client.send(HEADERS, END_HEADERS, 1, &block(&head)).unwrap();
    client.send(DATA, END_STREAM, 1, call.as_bytes()).unwrap();
    assert_eq!(client.ending(1), Ending::Status(200), "the head needs no window");
    let record = world.gateway.audited();
    assert_eq!(record["outcome"], "aborted", "{record}");
}

/// Bodies nobody has read wait in the window of the connection, and no more than that.
#[test]
fn bodies_of_strangers_are_not_kept() {
    let mut world = World::start();
    assert_serves(&mut world);
    let before = world.gateway.resident_bytes();
    for _ in 0..20 {
        let mut client = Frames::open(world.gateway.address());
        let opened = block(&headers("Bearer x", "4000000"));
        for number in 0..50 {
            let stream = number * 2 + 1;
            if client.send(HEADERS, END_HEADERS, stream, &opened).is_err() {
                break;
            }
            let _refused = client.send(DATA, 0, stream, &[b'x'; 16_000]);
        }
        client.finish_writing();
    }
    assert_serves(&mut world);
    assert_grew_little(&world, before);
}

/// CVE-2019-9518: frames of nothing.
#[test]
fn empty_frames_without_end_are_cut_off() {
    let mut world = World::start();
    let authorization = bearer(&world);
    let mut client = Frames::open(world.gateway.address());
    client.send(HEADERS, END_HEADERS, 1, &block(&headers(&authorization, "100"))).unwrap();
    let empty = frame(DATA, 0, 1, &[]).repeat(1000);
    let _cut_off = (0..1000).any(|_| client.write(&empty).is_err());
    assert_serves(&mut world);
}
