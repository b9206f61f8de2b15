//! What must not happen to a gateway with too many connections, or with clients that only hold them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, PING, PREFACE, SETTINGS, block, frame};
use crate::support::{
    Authority, Connection, DEADLINE, LEGACY, PUBLIC_HOST, Request, TlsClient, World, modern_message, open, poll_until,
    send_raw,
};

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Whether the other side has closed, without waiting.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let closed = match stream.peek(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    closed
}

/// Reads to the end of the connection, while `drip` is written again and again; returns how long that took.
#[track_caller]
fn closes_in(mut stream: TcpStream, drip: &[u8]) -> Duration {
    let started = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return started.elapsed(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                assert!(started.elapsed() < DEADLINE, "the connection is still open");
                let _gone = stream.write_all(drip);
            }
            Err(_reset) => return started.elapsed(),
        }
    }
}

fn world_with_head_timeout(timeout: &str) -> World {
    World::with(|conf| conf.set("limits.request_head_timeout", timeout))
}

/// Slowloris, and its patient relatives: whoever brings no whole request in time is let go, however many bytes come.
#[test]
fn a_client_without_a_request_does_not_stay() {
    let world = world_with_head_timeout("800ms");
    let address = world.gateway.address();
    let get = "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let half_a_head = frame(HEADERS, 0, 1, &block(&[(":method", "GET")]));
    let cases: [(&str, &[u8], &[u8]); 10] = [
        ("nothing", b"", b""),
        ("one byte", b"G", b""),
        ("the first bytes of HTTP/2", b"PRI * HTTP/2.0\r\n", b""),
        ("a request line", get.as_bytes(), b""),
        ("headers that drip", get.as_bytes(), b"X-A: b\r\n"),
        ("a header that drips", get.as_bytes(), b"x"),
        ("empty lines", b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", b"\r\n"),
        ("HTTP/2 without a stream", &hello, b""),
        ("HTTP/2 with pings", &hello, &frame(PING, 0, 0, b"12345678")),
        ("HTTP/2 with half a head", &[hello.clone(), half_a_head].concat(), b""),
    ];
    std::thread::scope(|scope| {
        for (what, first, drip) in cases {
            scope.spawn(move || {
                let mut stream = connect(address);
                stream.write_all(first).unwrap();
                let took = closes_in(stream, drip);
                assert!(took >= Duration::from_millis(700), "{what}: closed after {took:?}");
            });
        }
    });
    assert_eq!(world.reader().list().status(), 200);
    world.gateway.audit(1);
}

/// Pingora lets a connection that has carried one request wait for ever.
#[test]
fn a_connection_that_was_used_once_does_not_stay_either() {
    let world = world_with_head_timeout("800ms");
    let address = world.gateway.address();
    let good = world.reader().modern("tools/list", json!({})).bytes(address);
    let refused = world.reader().modern("tools/call", json!({ "name": "purge" })).bytes(address);
    let half = b"GET /mcp HTTP/1.1\r\nHost: a\r\n";
    std::thread::scope(|scope| {
        for (what, request) in [("answered", &good), ("refused", &refused)] {
            for (how, next, drip) in [
                ("idle", &b""[..], &b""[..]),
                ("with half a head", half, b""),
                ("with a head that drips", half, b"X: y\r\n"),
            ] {
                scope.spawn(move || {
                    let mut stream = connect(address);
                    stream.write_all(request).unwrap();
                    assert!(stream.read(&mut [0; 16 * 1024]).unwrap() > 0);
                    stream.write_all(next).unwrap();
                    let took = closes_in(stream, drip);
                    assert!(took >= Duration::from_millis(600), "{what}, {how}: closed after {took:?}");
                });
            }
        }
    });
}

#[test]
fn nobody_stays_by_stopping_after_the_handshake_of_tls() {
    let authority = Authority::new("edge");
    let identity = authority.server(&[PUBLIC_HOST]);
    let world = World::with(|conf| {
        let conf = conf
            .file("listen.pem", &identity.certificate, 0o644)
            .file("listen.key", &identity.key, 0o600)
            .set("limits.request_head_timeout", "800ms");
        let tls = json!({ "certificate": "DIR/listen.pem", "private_key": "DIR/listen.key" });
        conf.set("listen", json!([{ "address": "LISTEN", "tls": tls }]))
    });
    let request = Request::get("/mcp").header("Host", PUBLIC_HOST);
    for protocols in [&["http/1.1"][..], &["h2"], &[]] {
        let client = TlsClient::trusting(&authority).alpn(protocols);
        let mut connection = client.connect(world.gateway.address()).unwrap();
        let started = Instant::now();
        assert!(connection.until_closed(), "{protocols:?}");
        assert!(started.elapsed() >= Duration::from_millis(600), "{protocols:?}: {:?}", started.elapsed());
    }
    let mut used = TlsClient::trusting(&authority).connect(world.gateway.address()).unwrap();
    assert_eq!(used.send(&request).unwrap().status, 401);
    assert!(used.until_closed());
}

/// The limit is for heads: what has begun may take as long as its own limits allow.
#[test]
fn neither_a_slow_body_nor_a_long_answer_is_cut_by_the_limit_on_heads() {
    let world = world_with_head_timeout("500ms");
    let address = world.gateway.address();
    let pieces = world.tickets.stream_next("tools/call");
    let request = world.reader().modern_post(&modern_message(7, "tools/call", json!({ "name": "read" })));
    let bytes = request.bytes(address);
    let mut connection = Connection::open(address);
    let (head, body) = bytes.split_at(bytes.len() - request.body.len());
    connection.write(head);
    for piece in body.chunks(body.len() / 4 + 1) {
        std::thread::sleep(Duration::from_millis(300));
        connection.write(piece);
    }
    let feeder = std::thread::spawn(move || {
        for step in 0..5 {
            pieces.event(
                &json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progress": step } }),
            );
            std::thread::sleep(Duration::from_millis(250));
        }
        pieces.finish();
    });
    let answer = connection.response().expect("an answer");
    feeder.join().unwrap();
    assert_eq!(answer.text().matches("notifications/progress").count(), 5, "{answer}");
    assert_eq!(world.gateway.audited()["outcome"], "ok");
    // And the same connection serves again, with a fresh limit.
    let again = connection.send(&world.reader().modern("tools/list", json!({})));
    assert_eq!(again.status, 200);
}

/// A session's GET stream over HTTP/2 is silent for long, and its connection is not idle.
#[test]
fn an_open_stream_keeps_its_http2_connection() {
    let world = world_with_head_timeout("400ms");
    let session = world.reader().initialize(LEGACY);
    let pieces = world.tickets.stream_next("GET");
    let authorization = format!("Bearer {}", world.reader_token().sign());
    let head = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/mcp"),
        (":authority", "127.0.0.1"),
        ("accept", "text/event-stream"),
        ("authorization", &authorization),
        ("mcp-protocol-version", LEGACY),
        ("mcp-session-id", session.id()),
    ];
    let mut client = Frames::open(world.gateway.address());
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&head)).unwrap();
    pieces.event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} }));
    assert_eq!(client.ending(1), crate::support::frames::Ending::Status(200));
    std::thread::sleep(Duration::from_millis(1500));
    pieces.event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "still here" } }));
    poll_until("the event", || {
        let frame = client.read().unwrap().expect("the connection is open");
        String::from_utf8_lossy(&frame.payload).contains("still here").then_some(())
    });
    // With the stream gone, the connection goes too.
    client.send(crate::support::frames::RST_STREAM, 0, 1, &8_u32.to_be_bytes()).unwrap();
    client.until_closed().expect("the connection ends");
}

/// Ten thousand, or what this machine's limit on open files allows: then the test says so, and holds the same bounds.
#[test]
fn idle_connections_neither_cost_much_memory_nor_stop_others() {
    crate::support::prepare();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let allowed: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    // The other tests of this process need some too.
    let by_files = allowed.saturating_sub(4000);
    let by_memory = free_memory_bytes() / 2 / IDLE_BYTES_MAX;
    let count = by_files.min(by_memory).clamp(100, 10_000);
    if count < 10_000 {
        eprintln!(
            "── ONLY {count} IDLE CONNECTIONS INSTEAD OF 10000: open files allow {by_files}, memory {by_memory} ──"
        );
    }
    let mut world = World::with(|conf| conf.set("limits.request_head_timeout", "10m"));
    let address = world.gateway.address();
    assert_eq!(world.reader().list().status(), 200);
    let before = world.gateway.resident_bytes();
    let idle: Vec<TcpStream> = (0..count)
        .map(|nth| {
            let mut stream = connect(address);
            // Some say nothing, some half a head.
            if nth % 2 == 0 {
                stream.write_all(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n").unwrap();
            }
            stream
        })
        .collect();
    let active = || world.gateway.metric("portcullis_connections_active", &[]);
    poll_until("everybody to be in", || (active() as usize >= count).then_some(()));
    let each = world.gateway.resident_bytes().saturating_sub(before) / count;
    assert!(each < IDLE_BYTES_MAX, "{each} bytes for each of {count} idle connections");
    assert!(idle.iter().all(|stream| !is_closed(stream)));
    for _ in 0..20 {
        assert_eq!(world.reader().call("read", json!({})).status(), 200);
    }
    drop(idle);
    poll_until("everybody to be gone", || ((active() as usize) < 100).then_some(()));
    assert!(world.gateway.is_alive());
    eprintln!("{count} idle connections: {each} bytes each");
}

#[test]
fn more_connections_than_allowed_are_closed_and_those_inside_are_served() {
    let world = World::with(|conf| conf.set("limits.connections", 20));
    let address = world.gateway.address();
    let mut inside = world.reader().connect();
    let list = || world.reader().modern("tools/list", json!({}));
    assert_eq!(inside.send(&list()).status, 200);
    let others: Vec<TcpStream> = (0..19).map(|_| connect(address)).collect();
    poll_until("all places to be taken", || {
        (world.gateway.metric("portcullis_connections_active", &[]) == 20.0).then_some(())
    });
    for _ in 0..5 {
        let took = closes_in(connect(address), b"");
        assert!(took < DEADLINE);
    }
    assert!(others.iter().all(|stream| !is_closed(stream)));
    assert_eq!(inside.send(&list()).status, 200, "who is in is served");
    assert_eq!(world.gateway.admin("/readyz").status, 200, "the operator gets in");
    assert!(world.gateway.metric("portcullis_connections_refused_total", &[]) >= 5.0);
    assert!(world.gateway.log().contains("No more connections are let in"), "{}", world.gateway.log());
    drop(others);
    poll_until("a place", || send_raw(address, &list().bytes(address)).filter(|answer| answer.status == 200));
}

/// With no file descriptor left, nobody new gets in; nothing breaks, nothing spins, and afterwards all is as before.
#[test]
fn a_gateway_without_file_descriptors_recovers() {
    let mut world = World::start();
    let session = world.reader().initialize(LEGACY);
    assert_eq!(session.call("read", json!({})).status(), 200);
    let pieces = world.tickets.stream_next("tools/call");
    let call = world.reader().modern_post(&modern_message(7, "tools/call", json!({ "name": "read" })));
    let mut stream = open(world.gateway.address(), &call);
    let event = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
    pieces.event(&event);
    assert!(stream.event().is_some());

    if !world.gateway.limit_open_files(world.gateway.open_files() + 20) {
        eprintln!("── THE LIMIT ON OPEN FILES CANNOT BE CHANGED HERE (prlimit): NOT TESTED ──");
        return;
    }
    let address = world.gateway.address();
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    poll_until("the descriptors to run out", || world.gateway.log().contains("Too many open files").then_some(()));
    let before = world.gateway.cpu_time();
    std::thread::sleep(Duration::from_secs(3));
    let used = world.gateway.cpu_time() - before;
    assert!(used < Duration::from_millis(1500), "{used:?} of CPU time in three seconds of waiting");
    assert!(world.gateway.is_alive());
    pieces.event(&event);
    assert!(stream.event().is_some(), "what is open goes on");

    drop(crowd);
    poll_until("service", || {
        let bytes = world.reader().modern("tools/list", json!({})).bytes(address);
        send_raw(address, &bytes).filter(|answer| answer.status == 200)
    });
    assert_eq!(session.call("read", json!({})).status(), 200, "the session lives: its instance was never at fault");
    pieces.finish();
}

fn free_memory_bytes() -> usize {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = memory.lines().find(|line| line.starts_with("MemAvailable:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// What a connection without a request may cost. Most of it is the read buffer of 64 KiB that Pingora gives each: nobody
/// writes to it, but where the system hands out huge pages it is resident all the same.
const IDLE_BYTES_MAX: usize = 128 << 10;
