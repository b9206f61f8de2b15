//! What does a caller see of a tool instance that is killed at once, as by the kernel when memory runs out?

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Conf, Gateway, Idp, LEGACY, McpServer, Reply, conf, poll_until};

/// Every call has a number of its own, and each instance writes down which it has carried out.
#[test]
fn new_work_goes_on_within_one_health_interval_and_nothing_is_done_twice() {
    let (mut a, b) = (ToolProcess::start(), ToolProcess::start());
    let idp = Idp::start();
    let gateway = Gateway::start(in_front_of(&idp, &[("a", &a), ("b", &b)]));
    let caller = gateway.caller(idp.token());
    let next = AtomicU64::new(1);
    let (calls, is_enough) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let made = || calls.lock().unwrap().len();
    let mut killed = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let begun = Instant::now();
                    let answer = caller.call("work", json!({ "number": number }));
                    let status = answer.status();
                    if status == 200 {
                        assert_eq!(answer.result()["structuredContent"]["number"], number, "another call's answer");
                    }
                    calls.lock().unwrap().push(Call { number, begun, status });
                    if is_enough.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        poll_until("work on both", || (made() > 200 && !a.done().is_empty() && !b.done().is_empty()).then_some(()));
        a.kill();
        killed = Instant::now();
        poll_until("an interval to pass", || (killed.elapsed() > 2 * HEALTH_INTERVAL).then_some(()));
        let soon = made();
        poll_until("more work", || (made() > soon + 200).then_some(()));
        is_enough.store(true, Ordering::Relaxed);
    });

    let calls = calls.into_inner().unwrap();
    let (done_by_a, done_by_b) = (a.done(), b.done());
    let times = |number: u64| done_by_a.iter().chain(&done_by_b).filter(|done| **done == number).count();
    for call in &calls {
        assert!(times(call.number) <= 1, "{call:?} was carried out {} times", times(call.number));
        match call.status {
            200 => assert_eq!(times(call.number), 1, "{call:?} was answered, but by whom?"),
            // It was on its way when its instance died: whether it was carried out is not known, so it is not repeated.
            502 => assert!(call.begun < killed + HEALTH_INTERVAL, "{call:?} failed {:?} later", call.begun - killed),
            status => panic!("{status} for {call:?}"),
        }
    }
    assert!(calls.iter().filter(|call| call.begun > killed).count() > 200);
}

/// It may have been carried out, and another instance would carry it out again.
#[test]
fn a_call_that_was_under_way_fails_and_is_not_repeated() {
    let (mut a, idp) = (ToolProcess::start(), Idp::start());
    let gateway = Gateway::start(in_front_of(&idp, &[("a", &a)]));
    let caller = gateway.caller(idp.token());
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| caller.call("work", json!({ "number": 7, "hang": true })));
        poll_until("the call to be under way", || (a.done() == [7]).then_some(()));
        a.kill();
        answer.join().unwrap().assert_refused(502, "upstream_unreachable");
    });
    assert_eq!(a.done(), [7]);
}

/// The client learns that it must open a new session: nobody else knows what its instance knew.
#[test]
fn the_sessions_of_the_killed_instance_end_and_those_of_the_others_go_on() {
    let (mut a, b) = (ToolProcess::start(), ToolProcess::start());
    let idp = Idp::start();
    let gateway = Gateway::start(in_front_of(&idp, &[("a", &a), ("b", &b)]));
    let caller = gateway.caller(idp.token());
    let sessions: Vec<_> = (0..6).map(|_| caller.initialize(LEGACY)).collect();
    for (number, session) in (1_u64..).zip(&sessions) {
        assert_eq!(session.call("work", json!({ "number": number })).status(), 200);
    }
    let (on_a, on_b): (Vec<_>, Vec<_>) =
        (1_u64..).zip(&sessions).partition(|(number, _session)| a.done().contains(number));
    assert!(!on_a.is_empty() && !on_b.is_empty());

    a.kill();
    poll_until("404 for the sessions of the killed one", || {
        let answers = on_a.iter().map(|(number, session)| session.call("work", json!({ "number": number + 100 })));
        answers.map(|answer| answer.status()).all(|status| status == 404).then_some(())
    });
    for (number, session) in &on_b {
        assert_eq!(session.call("work", json!({ "number": number + 200 })).status(), 200);
    }
    assert!(b.done().iter().all(|number| *number <= 6 || *number > 200), "{:?}", b.done());
    let again = caller.initialize(LEGACY);
    assert_eq!(again.call("work", json!({ "number": 300 })).status(), 200);
    assert!(b.done().contains(&300));
}

#[derive(Debug)]
struct Call {
    number: u64,
    begun: Instant,
    status: u16,
}

fn in_front_of(idp: &Idp, tools: &[(&str, &ToolProcess)]) -> Conf {
    let instances: Vec<_> = tools.iter().map(|(id, tool)| ((*id).to_owned(), tool.address)).collect();
    let interval = format!("{}ms", HEALTH_INTERVAL.as_millis());
    let health = json!({ "interval": interval, "timeout": interval, "unhealthy_after": 1, "healthy_after": 1 });
    conf().idp(idp).server_at("tickets", &instances).of_server("health", health).allow_all()
}

/// A tool server in a process of its own.
struct ToolProcess {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl ToolProcess {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["killed::tool_process", "--exact", "--ignored", "--test-threads=1"])
            .env(TOOL_DIRECTORY, directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let address = poll_until("the tool process", || {
            fs::read_to_string(directory.path().join("address")).ok()?.strip_suffix('\n')?.parse().ok()
        });
        Self { child, address, directory }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The numbers of the calls it has carried out, or has begun to.
    fn done(&self) -> Vec<u64> {
        let text = fs::read_to_string(journal(self.directory.path())).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for ToolProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test: what a [`ToolProcess`] runs. This binary is at hand, and has a tool server in it.
#[test]
#[ignore = "runs as a process of its own, until it is killed"]
fn tool_process() {
    let Some(directory) = std::env::var_os(TOOL_DIRECTORY).map(PathBuf::from) else { return };
    let server = McpServer::start().tool("work");
    let done = fs::File::options().append(true).create(true).open(journal(&directory)).unwrap();
    let done = Mutex::new(done);
    server.on_tool("work", move |seen| {
        let arguments = &seen.message["params"]["arguments"];
        let number = &arguments["number"];
        writeln!(done.lock().unwrap(), "{number}").unwrap();
        if arguments["hang"] == true {
            return Reply::Hang;
        }
        Reply::result(seen, json!({ "content": [], "structuredContent": { "number": number } }))
    });
    fs::write(directory.join("address"), format!("{}\n", server.instances[0].address())).unwrap();
    // Who started it kills it; should that be forgotten, it ends by itself.
    std::thread::sleep(Duration::from_secs(300));
}

fn journal(directory: &Path) -> PathBuf {
    directory.join("done")
}

const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Names the directory of a [`ToolProcess`] to it.
const TOOL_DIRECTORY: &str = "PORTCULLIS_TEST_TOOL_DIRECTORY";
