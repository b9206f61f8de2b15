//! Do bodies of every size arrive whole, on both HTTP versions, on both sides?

use serde_json::json;

use crate::support::{Conf, MODERN, World, modern_message};

const SIZES: [usize; 5] = [1024, 64 * 1024, 64 * 1024 + 1, 100 * 1024, 4 * 1024 * 1024];

/// A call whose body is exactly `size` bytes.
fn call_of(size: usize) -> String {
    let empty = modern_message(1, "tools/call", json!({ "name": "read", "arguments": { "filler": "" } })).to_string();
    let filler: String = (0..size - empty.len()).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
    let body =
        modern_message(1, "tools/call", json!({ "name": "read", "arguments": { "filler": filler } })).to_string();
    assert_eq!(body.len(), size);
    body
}

fn every_size_arrives(http2_upstream: bool) {
    let world = World::with(|conf| conf.of_server("http2", json!(http2_upstream)));
    let expected = if http2_upstream { axum::http::Version::HTTP_2 } else { axum::http::Version::HTTP_11 };
    for (client, caller) in [("HTTP/1.1", world.reader()), ("h2c", world.reader().h2c())] {
        for size in SIZES {
            world.tickets.forget();
            let body = call_of(size);
            let request = caller.post(body.clone()).header("MCP-Protocol-Version", MODERN);
            let answer = caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
            assert_eq!(answer.status(), 200, "{client}, {size}: {:.500}", answer.0.text());
            let seen = world.tickets.only("tools/call");
            assert_eq!(seen.version, expected);
            assert!(seen.body == body, "{client}, {size}: {} bytes arrived, or other ones", seen.body.len());
            assert_eq!(seen.header("content-length"), Some(size.to_string().as_str()), "{client}, {size}");
            assert_eq!(seen.header("transfer-encoding"), None);
        }
    }
}

#[test]
fn every_size_arrives_over_http_1_upstream() {
    every_size_arrives(false);
}

#[test]
fn every_size_arrives_over_h2c_upstream() {
    every_size_arrives(true);
}

#[test]
fn one_byte_over_the_bound_is_refused_and_the_bound_is_not() {
    let world = World::start();
    let caller = world.reader();
    let post = |size| {
        let request = caller.post(call_of(size)).header("MCP-Protocol-Version", MODERN);
        caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"))
    };
    assert_eq!(post(4 * 1024 * 1024).status(), 200);
    let answer = post(4 * 1024 * 1024 + 1);
    assert_eq!(answer.status(), 413, "{:.500}", answer.0.text());
    assert_eq!(world.tickets.seen().len(), 1);
}

#[test]
fn an_empty_post_is_refused() {
    let world = World::start();
    let caller = world.reader();
    for caller in [caller.clone(), caller.h2c()] {
        caller.send(&caller.post("").header("MCP-Protocol-Version", MODERN)).assert_refused(400, "parse_error");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn up_to_64_kib_may_come_without_a_length() {
    let world = World::start();
    let caller = world.reader();
    for caller in [caller.clone(), caller.h2c()] {
        for size in [1024, 64 * 1024] {
            world.tickets.forget();
            let body = call_of(size);
            let request = caller.post(body.clone()).chunked().header("MCP-Protocol-Version", MODERN);
            let answer = caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
            assert_eq!(answer.status(), 200, "{size}: {:.500}", answer.0.text());
            assert!(world.tickets.only("tools/call").body == body);
        }
    }
}

#[test]
fn a_body_that_comes_in_tiny_pieces_arrives_whole() {
    let world = World::start();
    let caller = world.reader();
    let body = call_of(3000);
    let request = caller.post(body.clone()).header("MCP-Protocol-Version", MODERN);
    let bytes = caller.bytes(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
    let mut connection = caller.connect();
    bytes.chunks(7).for_each(|piece| connection.write(piece));
    assert_eq!(connection.response().unwrap().status, 200);
    assert!(world.tickets.only("tools/call").body == body);
}

/// RFC 9110 §10.1.1: a client may wait for `100 Continue` before it sends its body.
#[test]
fn expect_100_continue_is_answered() {
    let world = World::start();
    let caller = world.reader();
    let request = caller.modern("tools/call", json!({ "name": "read" })).header("Expect", "100-continue");
    let bytes = caller.bytes(&request);
    let end_of_head = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut connection = caller.connect();
    connection.write(&bytes[..end_of_head]);
    let interim = connection.line_of_interim();
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    connection.write(&bytes[end_of_head..]);
    assert_eq!(connection.response().unwrap().status, 200);
}

#[test]
fn several_requests_share_a_connection() {
    let world = World::start();
    let caller = world.reader();
    let mut connection = caller.connect();
    for round in 0..3 {
        let body = call_of(70_000);
        let request = caller.post(body).header("MCP-Protocol-Version", MODERN);
        let answer = connection.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
        assert_eq!(answer.status, 200, "{round}");
        // A refusal must not leave bytes behind that the next request trips over.
        let refused = connection.send(&caller.modern("tools/call", json!({ "name": "purge" })));
        assert_eq!(refused.status, 403, "{round}");
    }
}

#[test]
fn a_denied_call_of_any_size_sends_the_server_nothing() {
    let world = World::start();
    let caller = world.reader();
    for size in SIZES {
        let body = call_of(size).replace("\"read\"", "\"wipe\"");
        let request = caller.post(body).header("MCP-Protocol-Version", MODERN);
        let answer = caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "wipe"));
        answer.assert_refused(403, "denied");
    }
    world.tickets.assert_saw_nothing();
}

/// A bound of its own: the body must fit the configured one, not Pingora's.
#[test]
fn a_raised_bound_lets_larger_bodies_through() {
    let world = World::with(|conf: Conf| conf.set("limits.body_bytes", "8MiB"));
    let caller = world.reader();
    let request = caller.post(call_of(6 * 1024 * 1024)).header("MCP-Protocol-Version", MODERN);
    let answer = caller.send(&request.header("Mcp-Method", "tools/call").header("Mcp-Name", "read"));
    assert_eq!(answer.status(), 200, "{:.500}", answer.0.text());
}
