//! Does the gateway come and go without anybody noticing?

use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Conf, LEGACY, World, poll_until};

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

#[test]
fn the_service_manager_hears_that_the_gateway_serves_and_works() {
    let manager = ServiceManager::start();
    let world = World::with(|conf| manager.of(conf).env("WATCHDOG_USEC", "400000"));
    assert_eq!(manager.heard("READY=1"), format!("MAINPID={}\nREADY=1\n", world.gateway.pid()));
    manager.heard("WATCHDOG=1");
    manager.heard("WATCHDOG=1");
}

/// systemd 252 tells `WATCHDOG_USEC` to ExecStart= and not to ExecReload=, and kills a successor that gives no sign of life.
#[test]
fn a_successor_gives_signs_of_life_without_being_told_how_often() {
    let manager = ServiceManager::start();
    // Nobody watches the first process: it gives none, so that all that are heard are the successor's.
    let world = World::with(|conf| manager.of(conf));
    manager.heard("READY=1");
    let output = world.gateway.upgrade();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(manager.heard("READY=1"), format!("MAINPID={}\nREADY=1\n", world.gateway.pid()));
    manager.heard("WATCHDOG=1");
    manager.heard("WATCHDOG=1");
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

/// Listens where systemd would.
struct ServiceManager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
}

impl ServiceManager {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { directory, socket }
    }

    fn of(&self, conf: Conf) -> Conf {
        conf.env("NOTIFY_SOCKET", self.directory.path().join("notify").to_str().unwrap())
    }

    /// The next message with `wanted` in it; others before it are passed over.
    fn heard(&self, wanted: &str) -> String {
        let mut bytes = [0; 512];
        loop {
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("waiting for {wanted}: {error}"));
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if message.contains(wanted) {
                return message;
            }
        }
    }
}
