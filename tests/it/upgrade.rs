//! Does the gateway come and go without anybody noticing?

use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LEGACY, World, poll_until};

/// Two upgrades and a reload in the middle of work: no request fails, no session is lost.
#[test]
fn no_request_and_no_session_is_lost_over_upgrades() {
    let mut world = World::with_instances(2, |conf| conf.set("server.grace_period_seconds", 20));
    let session = world.reader().initialize(LEGACY);
    let instance = session.call("read", json!({})).echoed()["instance"].clone();
    let (stop, calls, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (caller, first) = (world.reader(), world.gateway.pid());

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = caller.call("read", json!({ "n": 1 }));
                    calls.fetch_add(1, Ordering::Relaxed);
                    if answer.status() != 200 {
                        failures.lock().unwrap().push(answer.0.to_string());
                    }
                }
            });
        }
        for _ in 0..2 {
            let before = world.gateway.pid();
            let output = world.gateway.upgrade();
            assert_eq!(output.code, Some(0), "{output:?}");
            assert_ne!(world.gateway.pid(), before, "{output:?}");
            world.gateway.signal_serving("HUP");
            let answer = session.call("read", json!({}));
            assert_eq!(answer.echoed()["instance"], instance, "the session moved: {}", answer.0);
        }
        poll_until("the first process to end", || {
            (!std::path::Path::new(&format!("/proc/{first}")).exists() || !world.gateway.is_alive()).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    let failures = failures.into_inner().unwrap();
    assert!(calls.load(Ordering::Relaxed) > 100);
    assert!(
        failures.is_empty(),
        "{} of {} failed: {:?}",
        failures.len(),
        calls.load(Ordering::Relaxed),
        failures.first()
    );
}

#[test]
fn a_stream_that_is_open_during_an_upgrade_gets_every_event() {
    let world = World::with(|conf| conf.set("server.grace_period_seconds", 30));
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    let progress = |step: u64| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1, "progress": step } });
    pieces.event(&progress(1));
    assert_eq!(answer.event().unwrap().json(), progress(1));
    let output = world.gateway.upgrade();
    assert_eq!(output.code, Some(0), "{output:?}");
    for step in 2..=4 {
        pieces.event(&progress(step));
        assert_eq!(answer.event().unwrap().json(), progress(step));
    }
    assert_eq!(world.reader().list().status(), 200, "the successor serves meanwhile");
    pieces.finish();
    assert!(answer.finish());
}

/// What is still open when the grace period ends is told so: an agent reads an error instead of waiting for ever.
#[test]
fn a_stream_that_outlives_the_grace_period_is_ended_with_an_error() {
    let world = World::with(|conf| conf.set("server.grace_period_seconds", 3));
    let pieces = world.tickets.stream_next("tools/call");
    let mut answer = world.reader().open("tools/call", json!({ "name": "read" }));
    pieces.event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1 } }));
    answer.event().unwrap();
    let output = world.gateway.upgrade();
    assert_eq!(output.code, Some(0), "{output:?}");
    let error: Value = answer.event().expect("an error event").json();
    assert!(error["error"]["data"]["reason"].is_string(), "{error}");
    assert!(answer.finish());
}

#[test]
fn a_bad_configuration_replaces_nobody() {
    let mut world = World::start();
    let before = world.gateway.pid();
    let path = world.gateway.path("portcullis.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}\nnonsense: true\n")).unwrap();
    let output = world.gateway.upgrade();
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(output.stderr.contains("nonsense"), "{output:?}");
    assert_eq!(world.gateway.pid(), before);
    assert_eq!(world.reader().list().status(), 200);
    assert!(world.gateway.is_alive());
}

/// Pingora goes on to its end after SIGQUIT even if nobody has taken its sockets over: an outage by one wrong command.
#[test]
fn a_lone_sigquit_does_not_end_the_service() {
    let mut world = World::start();
    world.gateway.signal("QUIT");
    poll_until("the refusal to be logged", || world.gateway.log().contains("SIGQUIT").then_some(()));
    assert_eq!(world.reader().list().status(), 200);
    assert!(world.gateway.is_alive());
}

/// systemd counts a message of any process of the unit; the process that it names in `WATCHDOG_PID` at a reload is the
/// command, not the successor.
#[test]
fn the_service_manager_hears_who_serves_and_that_it_works() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = |wanted: &str| {
        let mut bytes = [0; 512];
        loop {
            let length = manager.recv(&mut bytes).unwrap_or_else(|error| panic!("waiting for {wanted}: {error}"));
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if message.contains(wanted) {
                return message;
            }
        }
    };
    let world = World::with(|conf| {
        conf.env("NOTIFY_SOCKET", socket.to_str().unwrap()).env("WATCHDOG_USEC", "400000").env("WATCHDOG_PID", "1")
    });
    assert_eq!(heard("READY=1").lines().next(), Some(format!("MAINPID={}", world.gateway.pid()).as_str()));

    let output = world.gateway.upgrade();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(heard("READY=1").lines().next(), Some(format!("MAINPID={}", world.gateway.pid()).as_str()));
    // The first process was named by no `WATCHDOG_PID` of its own and has said nothing so far.
    heard("WATCHDOG=1");
    heard("WATCHDOG=1");
}

#[test]
fn an_idle_process_does_not_sleep_through_its_grace_period() {
    let mut world = World::with(|conf| conf.set("server.grace_period_seconds", 600));
    assert_eq!(world.reader().list().status(), 200);
    let asked = Instant::now();
    world.gateway.signal("TERM");
    poll_until("readiness to turn", || (world.gateway.try_admin("/readyz") != Some(200)).then_some(()));
    poll_until("the process to end", || (!world.gateway.is_alive()).then_some(()));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

/// A removed route or rule is gone for the next request; open sessions of what stays are not touched.
#[test]
fn a_changed_file_takes_effect_without_a_signal() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
    let path = world.gateway.path("portcullis.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replace("tickets:read", "tickets:other");
    assert_ne!(changed, text);
    std::fs::write(&path, changed).unwrap();
    poll_until("the new rules", || (world.reader().call("read", json!({})).status() == 403).then_some(()));
    assert_eq!(session.list().status(), 200);
}
