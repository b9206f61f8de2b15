//! What must not happen over HTTP/1: requests and answers whose end two parsers may see at different places, and messages
//! that come at the wrong time.
//!
//! The gateway writes every request to a server anew from what it has judged, so nothing can be smuggled through it. What is
//! held here is that nobody, in front of it or behind it, gets two messages where another sees one.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{
    Caller, Connection, Framing, Gateway, Idp, MODERN, RawServer, Request, Then, World, conf, modern_message,
    poll_until,
};

fn good_body() -> String {
    modern_message(1, "tools/list", json!({})).to_string()
}

/// A head up to its framing, with a good token.
fn head(world: &World) -> String {
    let token = world.reader_token().sign();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/list\r\n"
    )
}

/// A world that lets go of a connection, or of a body, that brings nothing more.
fn world() -> World {
    World::with(|conf| conf.set("limits.request_head_timeout", "700ms").set("limits.request_body_timeout", "700ms"))
}

/// Every status on a connection after `bytes` were written, until the gateway closes it. Our half stays open: a client that
/// ends it counts as gone, and gets no answer to anything.
fn statuses(world: &World, bytes: &[u8]) -> Vec<u16> {
    let mut connection = Connection::open(world.gateway.address());
    connection.write(bytes);
    std::iter::from_fn(|| connection.response().map(|answer| answer.status)).collect()
}

#[test]
fn no_odd_framing_makes_two_requests_of_one() {
    let mut world = world();
    let (head, body) = (head(&world), good_body());
    let length = body.len();
    // What a front end may take for the body of the first request, and we must not take for a second one.
    let smuggled = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    let chunked = |size_line: &str| format!("{size_line}\r\n{body}\r\n0\r\n\r\n");
    let cases: Vec<(&str, String)> = vec![
        ("both framings", format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("TE then CL", format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}")),
        ("two lengths", format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("a length list", format!("{head}Content-Length: 0, {}\r\n\r\n{smuggled}", smuggled.len())),
        ("a hexadecimal length", format!("{head}Content-Length: 0x0\r\n\r\n{smuggled}")),
        ("a length with a sign", format!("{head}Content-Length: +0\r\n\r\n{smuggled}")),
        ("a length with a space inside", format!("{head}Content-Length: 0 0\r\n\r\n{smuggled}")),
        ("a length that overflows", format!("{head}Content-Length: 18446744073709551616\r\n\r\n{smuggled}")),
        ("an empty length", format!("{head}Content-Length: \r\n\r\n{smuggled}")),
        ("a space before the colon", format!("{head}Content-Length : 0\r\n\r\n{smuggled}")),
        ("a tab before the colon", format!("{head}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("identity", format!("{head}Transfer-Encoding: identity\r\n\r\n{smuggled}")),
        ("chunked not last", format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}")),
        ("an unknown coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "two codings in two headers",
            format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("a quoted coding", format!("{head}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a vertical tab in a coding", format!("{head}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a folded length", format!("{head}Content-Length:\r\n 0\r\n\r\n{smuggled}")),
        ("a folded coding", format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("two hosts", format!("{head}Host: evil.test\r\nContent-Length: 0\r\n\r\n{smuggled}")),
        (
            "HTTP/1.0 with a coding",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}").replacen("/1.1", "/1.0", 1),
        ),
        ("another HTTP", format!("{head}Content-Length: 0\r\n\r\n{smuggled}").replacen("HTTP/1.1", "HTTP/1.9", 1)),
        ("a huge chunk size", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked("fffffffffffffffff"))),
        (
            "a chunk size with a sign",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&format!("+{length:x}"))),
        ),
        (
            "a chunk size with 0x",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&format!("0x{length:x}"))),
        ),
        ("no chunk size", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked(""))),
        (
            "a chunk longer than its size",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&format!("{:x}", length - 3))),
        ),
        (
            "a chunk without its line end",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}0\r\n\r\n"),
        ),
        (
            "an endless chunk extension",
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{}",
                chunked(&format!("{length:x};{}", "e".repeat(2 << 20)))
            ),
        ),
        ("a line end in a header name", format!("{head}X\nY: 1\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a bare CR in a value", format!("{head}X: a\rContent-Length: 0\r\n\r\n{smuggled}")),
    ];
    for (what, bytes) in cases {
        let statuses = statuses(&world, bytes.as_bytes());
        assert!(statuses.len() <= 1, "{what}: {statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 400..=499 | 501 | 505)), "{what}: {statuses:?}");
    }
    world.tickets.assert_saw_nothing();
    assert!(world.gateway.is_alive());
    assert_eq!(world.reader().list().status(), 200);
}

/// What every parser reads alike is no reason to refuse: chunk extensions, trailers, the same length twice.
#[test]
fn lawful_framing_of_the_unusual_kind_is_read() {
    let world = world();
    let (head, body) = (head(&world), good_body());
    let length = body.len();
    for (what, rest) in [
        ("a chunk extension", format!("Transfer-Encoding: chunked\r\n\r\n{length:x};a=b\r\n{body}\r\n0\r\n\r\n")),
        ("leading zeros", format!("Transfer-Encoding: chunked\r\n\r\n000{length:X}\r\n{body}\r\n0\r\n\r\n")),
        ("a capital coding", format!("Transfer-Encoding: Chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")),
    ] {
        world.tickets.forget();
        assert_eq!(statuses(&world, format!("{head}{rest}").as_bytes()), [200], "{what}");
        assert_eq!(world.tickets.only("tools/list").body, body, "{what}");
    }
}

/// RFC 9110 §6.5: a trailer is no header, whatever it is called.
#[test]
fn a_trailer_is_no_header() {
    let world = world();
    let token = world.reader_token().sign();
    let stranger = head(&world).replacen("Authorization", "X-Nothing", 1);
    let body = good_body();
    let trailers =
        format!("Authorization: Bearer {token}\r\nHost: evil.test\r\nMcp-Method: tools/call\r\nContent-Length: 7\r\n");
    let rest = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len());
    let refused = statuses(&world, format!("{stranger}{rest}").as_bytes());
    assert!(matches!(refused[..], [401] | [400]), "{refused:?}");
    world.tickets.assert_saw_nothing();
    // With a good head they change nothing: the request is refused or passed on as if they were not there.
    let answered = statuses(&world, format!("{}{rest}", head(&world)).as_bytes());
    assert!(matches!(answered[..], [200] | [400]), "{answered:?}");
    for seen in world.tickets.seen() {
        assert!(!seen.everything().contains(&token) && !seen.everything().contains("evil.test"), "{seen:#?}");
        assert_eq!(seen.body, body);
    }
}

#[test]
fn a_target_in_absolute_form_names_the_host() {
    let world = world();
    let (head, body) = (head(&world), good_body());
    let framing = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let with = |target: &str, host: &str| {
        let head = head.replacen("POST /mcp", &format!("POST {target}"), 1).replacen("Host: 127.0.0.1", host, 1);
        statuses(&world, format!("{head}{framing}").as_bytes())
    };
    for (target, host) in [
        ("http://evil.test/mcp", "Host: 127.0.0.1"),
        ("http://127.0.0.1/mcp", "Host: evil.test"),
        ("http://evil.test/mcp", "Host: evil.test"),
        ("http://127.0.0.1@evil.test/mcp", "Host: 127.0.0.1"),
        ("http://127.0.0.1:99999/mcp", "Host: 127.0.0.1"),
        ("http:///mcp", "Host: 127.0.0.1"),
        ("//127.0.0.1/mcp", "Host: 127.0.0.1"),
        ("file:///mcp", "Host: 127.0.0.1"),
        ("*", "Host: 127.0.0.1"),
        ("127.0.0.1:80", "Host: 127.0.0.1"),
        ("/mcp", "X-No-Host: 1"),
        ("/mcp", "Host:"),
        ("/mcp", "Host: 127.0.0.1, evil.test"),
        ("/mcp", "Host: 127.0.0.1 evil.test"),
        ("/mcp", "Host: 127.0.0.1/evil"),
    ] {
        let statuses = with(target, host);
        assert!(matches!(statuses[..], [] | [400..=404]), "{target}, {host}: {statuses:?}");
    }
    world.tickets.assert_saw_nothing();
    assert_eq!(with("http://127.0.0.1/mcp", "Host: 127.0.0.1"), [200]);
}

#[test]
fn a_request_line_without_end_is_refused() {
    let mut world = world();
    for target in
        [format!("/mcp?{}", "q".repeat(100 << 10)), format!("/{}", "x".repeat(100 << 10)), "/".repeat(2 << 20)]
    {
        let bytes = Request::get(&target).bytes(world.gateway.address());
        let statuses = statuses(&world, &bytes);
        assert!(matches!(statuses[..], [] | [400 | 404 | 405 | 414 | 431]), "{statuses:?}");
    }
    let method = Request::new(&"M".repeat(100 << 10), "/mcp").bytes(world.gateway.address());
    let statuses = statuses(&world, &method);
    assert!(matches!(statuses[..], [] | [400 | 405 | 431]), "{statuses:?}");
    assert!(world.gateway.is_alive());
    world.tickets.assert_saw_nothing();
}

#[test]
fn methods_that_make_a_proxy_do_something_else_do_nothing() {
    let world = world();
    let token = world.reader_token().sign();
    let auth = format!("Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n");
    for (line, expected) in [
        ("CONNECT 127.0.0.1:22 HTTP/1.1", 405),
        ("CONNECT /mcp HTTP/1.1", 405),
        ("TRACE /mcp HTTP/1.1", 405),
        ("TRACK /mcp HTTP/1.1", 405),
        ("PUT /mcp HTTP/1.1", 405),
        ("PATCH /mcp HTTP/1.1", 405),
        ("PURGE /mcp HTTP/1.1", 405),
        ("post /mcp HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 404),
    ] {
        let statuses = statuses(&world, format!("{line}\r\n{auth}\r\n").as_bytes());
        assert!(statuses == [expected] || statuses == [400], "{line}: {statuses:?}");
    }
    world.tickets.assert_saw_nothing();
}

/// `limits.header_count` and `limits.header_bytes`; over 256 headers, or 1 MiB, Pingora refuses before anybody is asked.
#[test]
fn a_flood_of_headers_is_refused() {
    let mut world = world();
    let with = |count: usize, bytes: usize| {
        let headers: String = (0..count).map(|nth| format!("X-{nth}: {}\r\n", "v".repeat(bytes))).collect();
        let bytes = format!("GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        statuses(&world, bytes.as_bytes())
    };
    assert_eq!(with(100, 10), [401], "so many are fine");
    assert_eq!(with(130, 1), [431]);
    assert_eq!(with(250, 1), [431]);
    assert_eq!(with(100, 1000), [431]);
    for (count, bytes) in [(300, 1), (5000, 1), (2, 1 << 20), (1, 3 << 20)] {
        let statuses = with(count, bytes);
        assert!(matches!(statuses[..], [] | [400] | [431]), "{count} of {bytes}: {statuses:?}");
    }
    assert!(world.gateway.is_alive());
    world.tickets.assert_saw_nothing();
}

/// RFC 9112 §9.3.2: requests one after the other without waiting. A refused one must not turn into part of the next.
#[test]
fn a_refused_request_does_not_shift_those_behind_it() {
    let world = world();
    let (head, body) = (head(&world), good_body());
    let good = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let stranger = good.replacen("Authorization", "X-Nothing", 1);
    let purge = {
        let body = modern_message(2, "tools/call", json!({ "name": "purge", "arguments": {} })).to_string();
        let head = head.replacen("Mcp-Method: tools/list", "Mcp-Method: tools/call\r\nMcp-Name: purge", 1);
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    for (what, first, status) in [
        ("a stranger", stranger.clone(), 401),
        ("a denied call", purge.clone(), 403),
        ("another path", good.replacen("/mcp", "/nothing", 1), 404),
        ("another type", good.replacen("application/json\r\n", "text/plain\r\n", 1), 415),
    ] {
        world.tickets.forget();
        let statuses = statuses(&world, format!("{first}{good}").as_bytes());
        // Whoever does not wait may be cut off after the first answer, but never gets another one than their own.
        assert!(statuses == [status] || statuses == [status, 200], "{what}: {statuses:?}");
        assert!(world.tickets.seen().len() < statuses.len(), "{what}");
    }
    // The body of a refused request is never read as a request.
    world.tickets.forget();
    let inside =
        format!("{}Content-Length: {}\r\n\r\n{good}", stranger.split("Content-Length").next().unwrap(), good.len());
    let mut connection = Connection::open(world.gateway.address());
    connection.write(inside.as_bytes());
    assert_eq!(connection.response().unwrap().status, 401);
    connection.write(stranger.as_bytes());
    let second = connection.response().map(|answer| answer.status);
    assert!(matches!(second, None | Some(401)), "{second:?}");
    world.tickets.assert_saw_nothing();
}

/// A stranger's endless body is not read for ever, and not kept.
#[test]
fn a_refused_body_without_end_is_cut_off() {
    let world = World::with(|conf| conf.set("limits.request_body_timeout", "600ms"));
    let mut request = world.gateway.stranger().modern("tools/list", json!({}));
    request.framing = Framing::NoBody;
    let head = request.header("Content-Length", "1073741824").bytes(world.gateway.address());
    let mut connection = Connection::open(world.gateway.address());
    connection.write(&head);
    assert_eq!(connection.response().unwrap().status, 401);
    poll_until("the connection to be closed", || {
        connection.write(b"x");
        connection.is_closed().then_some(())
    });
}

// ── Servers ──

/// Writes an answer around a body.
type Writer = Box<dyn Fn(&str) -> String + Send + Sync>;

struct Behind {
    idp: Idp,
    gateway: Gateway,
    server: RawServer,
}

fn behind(answer: impl Fn(usize, &Value) -> (Vec<u8>, Then) + Send + Sync + 'static) -> Behind {
    let idp = Idp::start();
    let count = AtomicUsize::new(0);
    let server = RawServer::start(move |request| answer(count.fetch_add(1, Ordering::Relaxed), &request.message));
    let timeouts = json!({ "first_byte": "2s", "idle": "2s", "total": "5s" });
    let conf = conf().idp(&idp).server_at("raw", &[("r".into(), server.address())]).allow_all();
    let gateway = Gateway::start(conf.of_server("timeouts", timeouts));
    Behind { idp, gateway, server }
}

impl Behind {
    fn caller(&self) -> Caller {
        self.gateway.caller(self.idp.token())
    }
}

fn result(message: &Value, text: &str) -> String {
    let content = json!([{ "type": "text", "text": text }]);
    json!({ "jsonrpc": "2.0", "id": message["id"], "result": { "content": content, "resultType": "complete" } })
        .to_string()
}

fn ok_head(framing: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n")
}

/// Interim answers are for us, and say nothing to a client.
#[test]
fn interim_answers_of_a_server_are_not_passed_on() {
    let world = behind(|_, message| {
        let body = result(message, "final");
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </evil>\r\nSet-Cookie: a=b\r\n\r\n";
        let head = ok_head(&format!("Content-Length: {}\r\n", body.len()));
        (format!("{interim}{head}{body}").into_bytes(), Then::KeepAlive)
    });
    for _ in 0..2 {
        let caller = world.caller();
        let mut connection = caller.connect();
        connection.write(&caller.bytes(&caller.modern("tools/call", json!({ "name": "read" }))));
        let line = connection.line_of_interim();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    }
}

#[test]
fn interim_answers_without_end_are_no_answer() {
    let world = behind(|_, _| ("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200_000).into_bytes(), Then::KeepAlive));
    let answer = world.caller().call("read", json!({}));
    assert!(matches!(answer.status(), 502 | 504), "{}", answer.0);
}

/// A tunnel that nobody asked for.
#[test]
fn a_server_that_switches_protocols_unasked_is_refused() {
    let mut world = behind(|_, message| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        (format!("{switch}{}", result(message, "tunnel")).into_bytes(), Then::KeepAlive)
    });
    for upgrade in [None, Some("websocket")] {
        let mut caller = world.caller();
        if let Some(protocol) = upgrade {
            caller = caller.header("Connection", "Upgrade").header("Upgrade", protocol);
        }
        let answer = caller.call("read", json!({}));
        assert!(matches!(answer.status(), 502 | 504), "{upgrade:?}: {}", answer.0);
        assert!(!answer.0.text().contains("tunnel"), "{upgrade:?}: {}", answer.0);
    }
    assert!(world.gateway.is_alive());
}

/// RFC 9112 §6.3, §7.1: answers whose end is in doubt.
#[test]
fn an_answer_with_two_ends_is_not_passed_on() {
    let cases: Vec<(&str, Writer)> = vec![
        (
            "two lengths",
            Box::new(|body| {
                format!("{}{body}", ok_head(&format!("Content-Length: 5\r\nContent-Length: {}\r\n", body.len())))
            }),
        ),
        (
            "a length list",
            Box::new(|body| format!("{}{body}", ok_head(&format!("Content-Length: 5, {}\r\n", body.len())))),
        ),
        ("a negative length", Box::new(|body| format!("{}{body}", ok_head("Content-Length: -1\r\n")))),
        (
            "a huge chunk",
            Box::new(|body| {
                format!("{}fffffffffffffffff\r\n{body}\r\n0\r\n\r\n", ok_head("Transfer-Encoding: chunked\r\n"))
            }),
        ),
        (
            "no chunk size",
            Box::new(|body| format!("{}\r\n{body}\r\n0\r\n\r\n", ok_head("Transfer-Encoding: chunked\r\n"))),
        ),
        (
            "a chunk over its size",
            Box::new(|body| format!("{}5\r\n{body}\r\n0\r\n\r\n", ok_head("Transfer-Encoding: chunked\r\n"))),
        ),
        ("an unknown coding", Box::new(|body| format!("{}{body}", ok_head("Transfer-Encoding: gzip\r\n")))),
        (
            "NUL in a header",
            Box::new(|body| format!("{}{body}", ok_head(&format!("X: a\0b\r\nContent-Length: {}\r\n", body.len())))),
        ),
        ("no status", Box::new(|body| format!("HTTP/1.1 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))),
        ("another protocol", Box::new(|_| "SSH-2.0-OpenSSH_9.2\r\n".to_owned())),
    ];
    for (what, write) in cases {
        let world = behind(move |_, message| (write(&result(message, "in doubt")).into_bytes(), Then::Close));
        let answer = world.caller().call("read", json!({}));
        let json = answer.0.json();
        assert!(json["error"]["data"]["reason"].is_string(), "{what}: {}", answer.0);
    }
}

/// Response queue poisoning: what a server sends beyond its answer must not answer the next request.
#[test]
fn an_answer_too_many_answers_nobody() {
    let world = behind(|nth, message| {
        let body = result(message, &format!("answer {nth}"));
        let whole = format!("{}{body}", ok_head(&format!("Content-Length: {}\r\n", body.len())));
        let forged = json!({ "jsonrpc": "2.0", "id": 2, "result": { "content": [{ "type": "text", "text": "forged" }], "resultType": "complete" } }).to_string();
        let extra = format!("{}{forged}", ok_head(&format!("Content-Length: {}\r\n", forged.len())));
        (format!("{whole}{extra}").into_bytes(), Then::KeepAlive)
    });
    let caller = world.caller();
    for id in [1, 2, 2, 2] {
        let message = modern_message(id, "tools/call", json!({ "name": "read" }));
        let answer = caller.send(&caller.modern_post(&message));
        assert!(!answer.0.text().contains("forged"), "{}", answer.0);
        assert_eq!(answer.status(), 200, "{}", answer.0);
    }
    assert!(
        world.server.seen().iter().all(|request| request.earlier_on_connection == 0),
        "no such connection is used again"
    );
}

/// A server that answers the head, with the body still on its way: the answer counts, the connection does not.
#[test]
fn an_answer_before_the_body_was_sent_is_passed_on() {
    let idp = Idp::start();
    let server = early_bird();
    let conf = conf().idp(&idp).server_at("raw", &[("r".into(), server)]).allow_all();
    let mut gateway = Gateway::start(conf.of_server("timeouts", json!({ "first_byte": "3s", "idle": "3s" })));
    let caller = gateway.caller(idp.token());
    for size in [10, 1 << 20, 3 << 20] {
        let arguments = json!({ "filler": "x".repeat(size) });
        let answer = caller.call("read", arguments);
        // The server's own refusal, or ours when the connection broke before that could be read.
        assert!(matches!(answer.status(), 413 | 502), "{size}: {}", answer.0);
        assert!(answer.0.json()["error"].is_object(), "{}", answer.0);
    }
    assert!(gateway.is_alive());
}

/// Answers 413 to every head, and closes without reading the body.
fn early_bird() -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"too large"}}"#;
                let answer = format!(
                    "HTTP/1.1 413 Payload Too Large\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    address
}

/// Trailers of a server are not passed on, whatever they are called.
#[test]
fn trailers_of_a_server_are_not_passed_on() {
    let world = behind(|_, message| {
        let body = result(message, "fine");
        let trailers = "Set-Cookie: a=b\r\nMcp-Session-Id: evil\r\nContent-Length: 5\r\n";
        let head = ok_head("Transfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n");
        (format!("{head}{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len()).into_bytes(), Then::KeepAlive)
    });
    for _ in 0..2 {
        let answer = world.caller().call("read", json!({}));
        let shown = answer.0.to_string();
        assert!(!shown.contains("Set-Cookie") && !shown.contains("evil") && !shown.contains("a=b"), "{shown}");
        assert!(matches!(answer.status(), 200 | 502), "{shown}");
    }
}

/// The client leaves before its answer; the server is let go, and nobody else notices.
#[test]
fn a_client_that_leaves_early_takes_nobody_with_it() {
    let mut world = World::start();
    let caller = world.reader();
    for _ in 0..50 {
        let mut connection = caller.connect();
        connection.write(&caller.bytes(&caller.modern("tools/call", json!({ "name": "read" }))));
        drop(connection);
        let bytes = caller.bytes(&caller.modern("tools/list", json!({})));
        let mut connection = caller.connect();
        connection.write(&bytes[..bytes.len() - 10]);
        drop(connection);
    }
    assert_eq!(caller.list().status(), 200);
    assert!(world.gateway.is_alive());
    poll_until("the connections to be gone", || {
        (world.gateway.metric("portcullis_connections_active", &[]) <= 2.0).then_some(())
    });
}
