//! Does every wait for a server, and for a client, end when its limit says?

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Caller, Gateway, Idp, LEGACY, Opened, RawServer, Reply, Then, World, conf, message_with_result, modern_message,
    open,
};

/// Longer than any limit that a test waits for, shorter than the kit's own patience.
const LONG: &str = "20s";

fn progress(step: u64) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1, "progress": step } })
}

fn world(first_byte: &str, idle: &str, total: &str) -> World {
    let timeouts = json!({ "first_byte": first_byte, "idle": idle, "total": total });
    World::with(|conf| conf.of_server("timeouts", timeouts))
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// A gateway in front of a server that is no [`World`]'s.
struct Raw {
    idp: Idp,
    gateway: Gateway,
}

impl Raw {
    fn start(address: SocketAddr, timeouts: Value) -> Self {
        let idp = Idp::start();
        let conf = conf().idp(&idp).server_at("raw", &[("r".into(), address)]).allow_all();
        let gateway = Gateway::start(conf.of_server("timeouts", timeouts));
        Self { idp, gateway }
    }

    fn caller(&self) -> Caller {
        self.gateway.caller(self.idp.token())
    }
}

/// A server that sends `first` in answer to anything, then `drip` every 100 ms for as long as it can.
fn dripping(first: &'static str, drip: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || drip_into(stream, first, drip));
        }
    });
    address
}

fn drip_into(mut stream: TcpStream, first: &str, drip: &str) {
    // A health check connects and says nothing.
    if !matches!(stream.read(&mut [0; 16 * 1024]), Ok(1..)) {
        return;
    }
    let mut sent = stream.write_all(first.as_bytes());
    while sent.is_ok() {
        pause(100);
        sent = stream.write_all(drip.as_bytes());
    }
}

/// Calls `read` with request id 77.
fn open_call(world: &World) -> Opened {
    let request = world.reader().modern_post(&modern_message(77, "tools/call", json!({ "name": "read" })));
    open(world.gateway.address(), &request)
}

#[track_caller]
fn assert_ends_with_a_timeout(answer: &mut Opened) {
    let mut last = None;
    while let Some(event) = answer.event() {
        last = Some(event.json());
    }
    let last = last.expect("a last event");
    assert_eq!(last["id"], 77, "{last}");
    assert_eq!(last["error"]["data"]["reason"], "upstream_timeout", "{last}");
    assert!(answer.finish(), "the stream ends properly");
}

#[track_caller]
fn assert_audited_as_timeout(gateway: &Gateway) {
    let record = gateway.audited();
    assert_eq!(record["reason"], "upstream_timeout", "{record}");
    assert_eq!(record["outcome"], "failed", "{record}");
}

#[track_caller]
fn assert_took(since: Instant, least_ms: u64, most_ms: u64) {
    let took = since.elapsed();
    assert!((least_ms..=most_ms).contains(&(took.as_millis() as u64)), "{took:?} is not {least_ms} to {most_ms} ms");
}

#[test]
fn first_byte_limits_the_wait_for_an_answer() {
    for idle in ["200ms", LONG] {
        let world = world("600ms", idle, LONG);
        world.tickets.answer_next("tools/call", Reply::Hang);
        let started = Instant::now();
        world.reader().call("read", json!({})).assert_refused(504, "upstream_timeout");
        assert_took(started, 600, 2500);
        assert_audited_as_timeout(&world.gateway);
    }
}

#[test]
fn first_byte_limits_the_wait_for_a_stream() {
    let world = world("600ms", LONG, LONG);
    let session = world.reader().initialize(LEGACY);
    world.tickets.answer_next("GET", Reply::Hang);
    session.try_get().assert_refused(504, "upstream_timeout");
}

#[test]
fn a_head_that_drips_is_no_answer() {
    let server = dripping("HTTP/1.1 200 OK\r\n", "x: y\r\n");
    let raw = Raw::start(server, json!({ "first_byte": "600ms" }));
    let started = Instant::now();
    raw.caller().call("read", json!({})).assert_refused(504, "upstream_timeout");
    assert_took(started, 600, 2500);
}

#[test]
fn idle_does_not_limit_the_wait_for_an_answer() {
    let server = RawServer::start(|request| {
        pause(900);
        let id = request.message["id"].clone();
        let message = json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [], "resultType": "complete" } });
        (RawServer::json(&message), Then::KeepAlive)
    });
    let raw = Raw::start(server.address(), json!({ "first_byte": LONG, "idle": "200ms" }));
    for _ in 0..2 {
        raw.caller().call("read", json!({})).result();
    }
    assert_eq!(server.seen()[1].earlier_on_connection, 1, "the connection is used again");
}

#[test]
fn first_byte_does_not_limit_the_silences_of_a_stream() {
    let world = world("300ms", LONG, LONG);
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = open_call(&world);
    for step in 1..=2 {
        pieces.event(&progress(step));
        assert_eq!(answer.event().unwrap().json(), progress(step));
        pause(900);
    }
    pieces.finish();
    assert!(answer.finish());
    assert_eq!(world.gateway.audited()["outcome"], "ok");
}

#[test]
fn idle_limits_each_silence_of_an_answer() {
    for first_byte in ["200ms", LONG] {
        let world = world(first_byte, "600ms", LONG);
        let pieces = world.tickets.stream_next("tools/call");
        let mut answer = open_call(&world);
        // Each event starts the silence anew.
        for step in 1..=3 {
            pause(350);
            pieces.event(&progress(step));
            assert_eq!(answer.event().unwrap().json(), progress(step));
        }
        let started = Instant::now();
        assert_ends_with_a_timeout(&mut answer);
        assert_took(started, 550, 2500);
        pieces.wait_until_abandoned();
        assert_audited_as_timeout(&world.gateway);
    }
}

#[test]
fn idle_ends_a_get_stream_without_a_word() {
    for first_byte in ["200ms", LONG] {
        let world = world(first_byte, "500ms", LONG);
        let session = world.reader().initialize(LEGACY);
        let pieces = world.tickets.stream_next("GET");
        let mut stream = session.get(None);
        pieces.event(&progress(1));
        assert_eq!(stream.event().unwrap().json(), progress(1));
        assert_eq!(stream.event(), None);
        assert!(stream.finish(), "the stream ends properly");
        pieces.wait_until_abandoned();
    }
}

#[test]
fn total_ends_an_answer_that_never_ends() {
    for first_byte in ["500ms", LONG] {
        let world = world(first_byte, "800ms", "1s");
        let pieces = world.tickets.stream_next("tools/call");
        let mut answer = open_call(&world);
        let started = Instant::now();
        let feeder = std::thread::spawn(move || {
            for step in 0..40 {
                pieces.event(&progress(step));
                pause(100);
            }
        });
        assert_ends_with_a_timeout(&mut answer);
        assert_took(started, 700, 2500);
        assert_audited_as_timeout(&world.gateway);
        feeder.join().unwrap();
    }
}

#[test]
fn total_ends_a_stream_that_is_silent() {
    let world = world(LONG, LONG, "1s");
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = open_call(&world);
    pieces.event(&progress(1));
    assert_ends_with_a_timeout(&mut answer);
}

#[test]
fn total_limits_the_wait_for_an_answer_too() {
    let world = world(LONG, LONG, "1s");
    world.tickets.answer_next("tools/call", Reply::Hang);
    world.reader().call("read", json!({})).assert_refused(504, "upstream_timeout");
}

/// The end of the connection ends such an answer, and it is the gateway that ended it.
#[test]
fn an_answer_of_unknown_length_that_is_cut_is_not_taken_for_whole() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let server = dripping(head, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n");
    let raw = Raw::start(server, json!({ "total": "1s" }));
    let answer = raw.caller().call("read", json!({}));
    let text = answer.0.text();
    assert!(text.contains("notifications/x") && text.contains("upstream_timeout"), "{text}");
    assert_audited_as_timeout(&raw.gateway);
}

#[test]
fn a_json_answer_that_stalls_becomes_an_error() {
    for first_byte in ["200ms", LONG] {
        let world = world(first_byte, "500ms", LONG);
        let (mut reply, pieces) = Reply::stream();
        if let Reply::Pieces { headers, .. } = &mut reply {
            *headers = vec![("content-type".into(), "application/json".into())];
        }
        world.tickets.answer_next("tools/call", reply);
        pieces.send("{\"jsonrpc\":\"2.0\",\"id\":77,");
        let mut answer = open_call(&world);
        assert!(answer.finish());
        let error: Value = serde_json::from_slice(&answer.received).unwrap();
        assert_eq!(error["id"], 77, "{error}");
        assert_eq!(error["error"]["data"]["reason"], "upstream_timeout", "{error}");
        assert_audited_as_timeout(&world.gateway);
    }
}

#[test]
fn an_answer_without_a_body_that_never_ends_does_not_hold_the_request() {
    let server = dripping("HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n");
    let raw = Raw::start(server, json!({ "total": "1s" }));
    let caller = raw.caller();
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let request = caller.post(notification.to_string()).header("MCP-Protocol-Version", LEGACY);
    assert_eq!(caller.send(&request).status(), 202);
    raw.gateway.audited();
}

/// An HTTP/2 connection is shared, so only Pingora's one limit for reads wakes a request: `first_byte` for a POST, `idle`
/// for a stream. What comes after `total` still ends it.
#[test]
fn over_http2_one_limit_serves_for_both() {
    let limits = json!({ "first_byte": "700ms", "idle": LONG, "total": LONG });
    let world = World::with(|conf| conf.of_server("timeouts", limits).of_server("http2", json!(true)));
    world.tickets.answer_next("tools/call", Reply::Hang);
    world.reader().call("read", json!({})).assert_refused(504, "upstream_timeout");
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = open_call(&world);
    pieces.event(&progress(1));
    assert_ends_with_a_timeout(&mut answer);
    world.reader().call("read", json!({})).result();
}

#[test]
fn over_http2_total_ends_a_stream_when_it_next_speaks() {
    let limits = json!({ "first_byte": LONG, "idle": LONG, "total": "1s" });
    let world = World::with(|conf| conf.of_server("timeouts", limits).of_server("http2", json!(true)));
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = open_call(&world);
    let feeder = std::thread::spawn(move || {
        for step in 0..25 {
            pieces.event(&progress(step));
            pause(100);
        }
    });
    assert_ends_with_a_timeout(&mut answer);
    feeder.join().unwrap();
}

/// Shutting a connection down must hit that one alone, however fast descriptors and pooled connections change hands.
#[test]
fn timeouts_disturb_no_other_request() {
    let server = RawServer::start(|request| {
        if request.message["params"]["name"] == "hang" {
            pause(3000);
        }
        let id = request.message["id"].clone();
        let message = json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [], "resultType": "complete" } });
        (RawServer::json(&message), Then::KeepAlive)
    });
    for idle in [LONG, "900ms"] {
        let timeouts = json!({ "first_byte": "1s", "idle": idle });
        let raw = Raw::start(server.address(), timeouts);
        let caller = raw.caller();
        let ends_at = Instant::now() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| {
                    while Instant::now() < ends_at {
                        caller.call("hang", json!({})).assert_refused(504, "upstream_timeout");
                    }
                });
            }
            for _ in 0..4 {
                scope.spawn(|| {
                    while Instant::now() < ends_at {
                        let sent = Instant::now();
                        let answer = caller.call("read", json!({}));
                        assert_eq!(answer.status(), 200, "after {:?}: {}", sent.elapsed(), answer.0);
                    }
                });
            }
        });
        let reused = server.seen().iter().filter(|request| request.earlier_on_connection > 0).count();
        assert!(reused > 50, "pooled connections are used again: {reused} times");
    }
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    for idle in ["300ms", LONG] {
        let limits = json!({ "first_byte": "1s", "idle": idle });
        let world = World::with(|conf| conf.of_server("timeouts", limits).set("limits.client_write_timeout", "800ms"));
        let pieces = world.tickets.stream_next("tools/call");
        let answer = open_call(&world);
        let filler = "x".repeat(64 * 1024);
        let event = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": filler } });
        // More than all buffers on the way hold.
        for _ in 0..512 {
            pieces.event(&event);
        }
        pieces.wait_until_abandoned();
        assert_eq!(world.gateway.audited()["outcome"], "aborted");
        drop(answer);
    }
}

/// While the client takes its time, the server cannot speak: that is not the server's silence.
#[test]
fn a_slow_client_is_not_taken_for_a_silent_server() {
    let world = world("10s", "300ms", LONG);
    // More than all buffers on the way hold.
    let noise = "data: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n".repeat(400_000);
    world.tickets.on_tool("read", move |seen| {
        let message = message_with_result(seen, json!({ "content": [] }));
        Reply::sse(format!("{noise}data: {message}\n\n"))
    });
    let mut answer = open_call(&world);
    pause(1200);
    assert!(answer.finish());
    let received = String::from_utf8_lossy(&answer.received);
    assert!(!received.contains("upstream_timeout"), "{}", &received[received.len() - 200..]);
    assert!(received.ends_with("}\n\n") && received.contains("\"result\""));
    assert_eq!(world.gateway.audited()["outcome"], "ok");
}
