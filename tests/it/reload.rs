//! What does a signal do?

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{LEGACY, World, poll_until};

/// logrotate renames the file and sends SIGHUP; records after that belong into a new one.
#[test]
fn sighup_reopens_the_audit_file() {
    let world = World::start();
    world.reader().call("read", json!({ "n": 1 }));
    world.gateway.audit(1);
    let (current, rotated) = (world.gateway.path("audit.jsonl"), world.gateway.path("audit.jsonl.1"));
    std::fs::rename(&current, &rotated).unwrap();
    world.gateway.signal("HUP");
    poll_until("the new file", || current.exists().then_some(()));
    let lines_before = std::fs::read_to_string(&rotated).unwrap().lines().count();
    world.reader().call("purge", json!({}));
    assert_eq!(world.gateway.audited()["status"], 403);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap().lines().count(), lines_before, "the old file grows no more");
}

#[test]
fn no_record_is_lost_while_files_rotate() {
    let world = World::start();
    let count = 300;
    let mut rotations = 0;
    for number in 0..count {
        assert_eq!(world.reader().call("read", json!({})).status(), 200);
        if number % 50 == 25 {
            rotations += 1;
            let rotated = world.gateway.path(&format!("audit.jsonl.{rotations}"));
            std::fs::rename(world.gateway.path("audit.jsonl"), rotated).unwrap();
            world.gateway.signal("HUP");
            poll_until("the new file", || world.gateway.path("audit.jsonl").exists().then_some(()));
        }
    }
    let records = || {
        let files = (1..=rotations).map(|n| format!("audit.jsonl.{n}")).chain(["audit.jsonl".to_owned()]);
        let text: String =
            files.map(|name| std::fs::read_to_string(world.gateway.path(&name)).unwrap_or_default()).collect();
        text.lines().filter(|line| line.contains("\"tools/call\"")).count()
    };
    poll_until("every record", || (records() >= count).then_some(()));
    assert_eq!(records(), count);
}

#[test]
fn sigterm_ends_the_process_and_every_record_is_written() {
    let mut world = World::start();
    for _ in 0..20 {
        world.reader().call("read", json!({}));
    }
    world.gateway.signal("TERM");
    poll_until("the process to end", || (!world.gateway.is_alive()).then_some(()));
    assert_eq!(world.gateway.audit(20).len(), 20);
}

/// An instance that was not looked at yet takes no work: what begins right after the reload must not find only such.
#[test]
fn a_reload_that_changes_a_server_fails_no_request() {
    let world = World::with_instances(2, |conf| conf);
    let session = world.reader().initialize(LEGACY);
    let path = world.gateway.path("portcullis.yaml");
    let heavier = std::fs::read_to_string(&path).unwrap();
    let lighter = heavier.replace(r#""weight": 1"#, r#""weight": 2"#);
    assert_ne!(heavier, lighter);
    let (stop, calls, caller) = (AtomicBool::new(false), AtomicUsize::new(0), world.reader());
    std::thread::scope(|scope| {
        let callers = [(); 4].map(|()| {
            scope.spawn(|| {
                let mut refused = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for answer in [caller.call("read", json!({})), session.call("read", json!({}))] {
                        calls.fetch_add(1, Ordering::Relaxed);
                        if answer.status() != 200 {
                            refused.push(answer.0.to_string());
                        }
                    }
                }
                refused
            })
        });
        for (generation, config) in (2..=7).zip([&lighter, &heavier].into_iter().cycle()) {
            std::fs::write(&path, config).unwrap();
            world.gateway.signal("HUP");
            let in_force = || world.gateway.metric("portcullis_config_generation", &[]) >= f64::from(generation);
            poll_until("the reload", || in_force().then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        let refused = callers.map(|caller| caller.join().unwrap()).concat();
        assert!(refused.is_empty(), "{} of {calls:?} calls: {:?}", refused.len(), refused.first());
    });
}
