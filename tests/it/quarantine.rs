//! The kill switch: does it stop at once, everywhere, and for as long as it should?

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Browser, Caller, Conf, Gateway, Idp, LEGACY, McpServer, MovedClock, Output, World, poll_until, portcullis,
    postgres, usual, with_sign_in,
};

fn with_socket(conf: Conf) -> Conf {
    conf.set("server.control_sock", "DIR/control.sock")
}

fn world() -> World {
    World::with(|conf| with_socket(conf.allow_all()))
}

/// `portcullis quarantine` for this gateway.
fn quarantine(gateway: &Gateway, words: &[&str]) -> Output {
    let config = gateway.path("portcullis.yaml");
    portcullis(&[&["quarantine", "--config", config.to_str().unwrap()], words].concat())
}

#[track_caller]
fn stop(gateway: &Gateway, words: &[&str]) {
    let output = quarantine(gateway, words);
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// The records of an event, once there are so many.
fn records(gateway: &Gateway, event: &str, count: usize) -> Vec<Value> {
    let path = gateway.path("audit.jsonl");
    poll_until(&format!("{count} records of {event}"), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = all.filter(|record| record["event"] == event).collect();
        (found.len() >= count).then_some(found)
    })
}

#[test]
fn a_stopped_principal_gets_nothing_until_it_is_lifted() {
    let world = world();
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
    world.tickets.forget();
    stop(&world.gateway, &["--principal", "alice", "--why", "token stolen"]);
    for answer in [world.reader().call("read", json!({})), world.reader().list(), world.reader().try_initialize(LEGACY)]
    {
        answer.assert_refused(403, "quarantined_caller");
        assert_eq!(answer.json()["error"]["data"]["detail"], "principal");
    }
    world.tickets.assert_saw_nothing();
    assert_eq!(world.reader_named("bob").call("read", json!({})).status(), 200);
    let listed = quarantine(&world.gateway, &["--list"]);
    assert!(listed.stdout.contains("principal alice") && listed.stdout.contains("token stolen"), "{listed:?}");
    stop(&world.gateway, &["--principal", "alice", "--lift"]);
    assert_eq!(world.reader().call("read", json!({})).status(), 200);

    let set = records(&world.gateway, "quarantine.set", 1).remove(0);
    assert_eq!(set["act"]["target"], "principal alice");
    assert_eq!(set["act"]["note"], "token stolen");
    assert_eq!(set["act"]["call"], "portcullis quarantine");
    assert!(set["act"]["action"].as_str().unwrap().starts_with("local user "));
    records(&world.gateway, "quarantine.lifted", 1);
    let refused = world.gateway.audit(5).into_iter().find(|record| record["reason"] == "quarantined_caller").unwrap();
    assert_eq!((&refused["detail"], &refused["principal"]["subject"]), (&json!("principal"), &json!("alice")));
}

#[test]
fn a_principal_of_another_issuer_is_somebody_else() {
    let world = world();
    stop(&world.gateway, &["--principal", "alice", "--issuer", "https://elsewhere.test"]);
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
    stop(&world.gateway, &["--principal", "alice", "--issuer", &world.idp.issuer()]);
    world.reader().call("read", json!({})).assert_refused(403, "quarantined_caller");
}

#[test]
fn a_stopped_agent_gets_nothing_whoever_it_acts_for() {
    let world = World::with(|conf| {
        let agents = json!({ "access_tokens": [{ "issuer": "corp", "claims": ["act"] }] });
        with_socket(conf.allow_all()).set("agents", agents).of_route("agents", json!("optional"))
    });
    let acting = |agent: &str, subject: &str| {
        world.gateway.caller(world.reader_token().subject(subject).claim("act", json!({ "sub": agent })))
    };
    assert_eq!(acting("crawler", "alice").call("read", json!({})).status(), 200);
    stop(&world.gateway, &["--agent", "crawler"]);
    for subject in ["alice", "bob"] {
        let refused = acting("crawler", subject).call("read", json!({}));
        refused.assert_refused(403, "quarantined_caller");
        assert_eq!(refused.json()["error"]["data"]["detail"], "agent");
        assert_eq!(acting("helper", subject).call("read", json!({})).status(), 200);
    }
    assert_eq!(world.reader().call("read", json!({})).status(), 200, "without an agent");
}

#[test]
fn a_stopped_tool_is_called_by_nobody_and_hidden_from_lists() {
    let world = world();
    assert_eq!(world.reader().list().names(), ["read", "close", "purge"]);
    stop(&world.gateway, &["--tool", "close", "--server", "tickets"]);
    stop(&world.gateway, &["--tool", "purge", "--server", "elsewhere"]);
    world.reader().call("close", json!({})).assert_refused(403, "tool_stopped");
    assert_eq!(world.reader().list().names(), ["read", "purge"]);
    assert_eq!(world.reader().call("purge", json!({})).status(), 200);
    assert_eq!(world.tickets.seen_of("tools/call").len(), 1);
}

#[test]
fn open_streams_end_within_a_second() {
    for words in [&["--principal", "alice"][..], &["--tool", "read"]] {
        let world = world();
        let pieces = world.tickets.stream_next("tools/call");
        let mut stream = world.reader().open("tools/call", json!({ "name": "read", "arguments": {} }));
        let event = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
        pieces.event(&event);
        stream.event().unwrap();
        let session = world.reader_named("bob").initialize(LEGACY);
        let silent = world.tickets.stream_next("GET");
        let mut others = session.get(None);
        silent.event(&event);
        others.event().unwrap();

        stop(&world.gateway, words);
        let began = Instant::now();
        let error = stream.event().expect("a last event").json();
        let took = began.elapsed();
        let reason = error["error"]["data"]["reason"].as_str().unwrap().to_owned();
        assert!(["quarantined_caller", "tool_stopped"].contains(&&*reason), "{error}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        stream.finish();
        pieces.wait_until_abandoned();
        // What is not stopped goes on.
        silent.event(&event);
        assert_eq!(others.event().unwrap().json(), event);
    }
}

#[test]
fn a_quarantine_for_a_while_ends_by_itself() {
    let Some(clock) = MovedClock::new() else { return };
    let world = World::with(|conf| clock.of(with_socket(conf.allow_all())));
    let call = || world.gateway.caller(world.reader_token().expires_in(86_400)).call("read", json!({}));
    stop(&world.gateway, &["--principal", "alice", "--for", "1h"]);
    call().assert_refused(403, "quarantined_caller");
    clock.ahead(3590);
    call().assert_refused(403, "quarantined_caller");
    clock.ahead(3601);
    assert_eq!(call().status(), 200);
    let expired = records(&world.gateway, "quarantine.expired", 1).remove(0);
    assert_eq!(expired["act"]["target"], "principal alice");
    assert!(quarantine(&world.gateway, &["--list"]).stdout.contains("nothing is stopped"));
}

#[test]
fn the_socket_is_its_owners_alone_and_takes_no_nonsense() {
    use std::io::{Read as _, Write as _};

    let world = world();
    let socket = world.gateway.path("control.sock");
    let about = std::fs::symlink_metadata(&socket).unwrap();
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    for nonsense in ["\n", "{}\n", "[1]\n", "{\"stop\":{\"stopped\":{\"planet\":{\"name\":\"x\"}}}}\n", "\u{0}\n"] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("{\"refused\":\"not understood"), "{nonsense:?}: {answer}");
    }
    assert_eq!(quarantine(&world.gateway, &["--principal", ""]).code, Some(70));
    assert_eq!(quarantine(&world.gateway, &["--principal", "nobody", "--lift"]).code, Some(70));
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
}

/// Somebody else on the machine, who has got past the mode of the file.
#[test]
fn another_users_process_is_not_listened_to() {
    if !is_root() {
        eprintln!("!!! NOT TESTED: only root can be another user !!!");
        return;
    }
    let world = world();
    let socket = world.gateway.path("control.sock");
    std::fs::set_permissions(world.gateway.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    // Perl is part of every Debian.
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; \
                  print $s qq({\"stop\":{\"stopped\":{\"principal\":{\"subject\":\"alice\"}}}}\\n); $s->flush; print scalar <$s>";
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "/usr/bin/perl", "-e", script])
        .arg(&socket)
        .output();
    let Ok(output) = output.map_err(|error| eprintln!("!!! NOT TESTED: {error} !!!")) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("only the user of the gateway"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_command_without_a_gateway_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis.yaml");
    std::fs::write(&file, "server: { threads: 1 }\n").unwrap();
    let output = portcullis(&["quarantine", "--config", file.to_str().unwrap(), "--list"]);
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(output.stderr.contains("server.control_sock must be set"), "{output:?}");
    let socket = directory.path().join("nobody.sock");
    let output = portcullis(&["quarantine", "--socket", socket.to_str().unwrap(), "--list"]);
    assert_eq!(output.code, Some(70), "{output:?}");
}

/// The API does the same, and only for admins.
#[test]
fn an_admin_stops_and_lets_go_over_the_api() {
    let world = World::with(|conf| with_socket(with_sign_in(conf.allow_all())));
    let signed_in = |name: &str, groups: &[&str]| Browser::signed_in(&world.gateway, &world.idp, name, groups);
    let mut admin = signed_in("root-rita", &["admins"]);
    let wish =
        json!({ "stopped": { "principal": { "subject": "alice" } }, "for_seconds": 3600, "reason": "laptop stolen" });
    for groups in [&["viewers"][..], &["auditors"], &["approvers"]] {
        let mut somebody = signed_in("somebody", groups);
        assert_eq!(somebody.get("/api/v1/quarantines").status, 403);
        assert_eq!(somebody.post("/api/v1/quarantines", &wish).status, 403);
    }
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
    let stopped = admin.post("/api/v1/quarantines", &wish);
    assert_eq!(stopped.status, 200, "{stopped}");
    assert_eq!(stopped.json()["is_kept"], false, "there is no store");
    world.reader().call("read", json!({})).assert_refused(403, "quarantined_caller");
    let listed = admin.get("/api/v1/quarantines").json();
    assert_eq!(listed["items"][0]["stopped"], json!({ "principal": { "subject": "alice" } }));
    assert_eq!(listed["items"][0]["reason"], "laptop stolen");
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    let delete = admin.writing_by("DELETE", &format!("/api/v1/quarantines/{id}"), &Value::Null);
    assert_eq!(admin.send(delete).status, 200);
    assert_eq!(world.reader().call("read", json!({})).status(), 200);
    let again = admin.writing_by("DELETE", &format!("/api/v1/quarantines/{id}"), &Value::Null);
    assert_eq!(admin.send(again).status, 404);

    for bad in [
        json!({ "stopped": { "principal": { "subject": "alice" } }, "reason": " " }),
        json!({ "stopped": { "principal": { "subject": "" } }, "reason": "r" }),
        json!({ "stopped": { "planet": { "name": "x" } }, "reason": "r" }),
        json!({ "stopped": { "tool": { "name": "x" } }, "reason": "r", "for_seconds": 0 }),
    ] {
        assert_eq!(admin.post("/api/v1/quarantines", &bad).status, 400, "{bad}");
    }
    let set = records(&world.gateway, "quarantine.set", 1).remove(0);
    assert_eq!((&set["principal"]["subject"], &set["act"]["note"]), (&json!("root-rita"), &json!("laptop stolen")));
    let asked = records(&world.gateway, "admin.quarantine_set", 4);
    assert_eq!(asked.iter().filter(|record| record["outcome"] == "ok").count(), 1);
}

/// Another gateway on the same store, under load of nothing: within a second, its open streams too.
fn holds_at_every_gateway(store: Value, files: &[(&str, &str)]) {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    let conf = files.iter().fold(usual(&idp, &tickets), |conf, (name, text)| conf.file(name, text, 0o600));
    let conf = with_socket(conf.allow_all()).set("store", store);
    let (here, there) = (Gateway::start(conf.clone()), Gateway::start(conf.clone()));
    let call = |gateway: &Gateway| gateway.caller(idp.token().scope("tickets:read")).call("read", json!({}));
    assert_eq!((call(&here).status(), call(&there).status()), (200, 200));
    let pieces = tickets.stream_next("tools/call");
    let stream = there.caller(idp.token().scope("tickets:read"));
    let mut stream = stream.open("tools/call", json!({ "name": "read", "arguments": {} }));
    pieces.event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} }));
    stream.event().unwrap();

    let output = quarantine(&here, &["--principal", "alice"]);
    let began = Instant::now();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!output.stdout.contains("this process alone"), "{output:?}");
    poll_until("the other gateway to stop her", || (call(&there).status() == 403).then_some(()));
    let new_requests = began.elapsed();
    assert_eq!(stream.event().expect("a last event").json()["error"]["data"]["reason"], "quarantined_caller");
    let streams = began.elapsed();
    assert!(new_requests < Duration::from_secs(1) && streams < Duration::from_secs(1), "{new_requests:?} {streams:?}");

    // It survives a restart.
    drop(there);
    let restarted = Gateway::start(conf);
    call(&restarted).assert_refused(403, "quarantined_caller");
    // And is lifted everywhere, from anywhere.
    stop(&restarted, &["--principal", "alice", "--lift"]);
    poll_until("the first gateway to let her go", || (call(&here).status() == 200).then_some(()));
}

/// Each way, for everything that can be stopped: at another gateway too, open streams too, and written down.
#[test]
fn no_way_to_stop_leaves_anything_running_at_another_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    let conf = with_socket(with_sign_in(usual(&idp, &tickets).allow_all()))
        .set("agents", json!({ "access_tokens": [{ "issuer": "corp", "claims": ["act"] }] }))
        .of_route("agents", json!("optional"))
        .set("store", json!({ "sqlite": directory.path().join("registry.db") }));
    let (here, there) = (Gateway::start(conf.clone()), Gateway::start(conf));
    let mut admin = Browser::signed_in(&here, &idp, "rita", &["admins"]);
    let stopped = || there.caller(idp.token().subject("alice").claim("act", json!({ "sub": "crawler" })));
    let other = there.caller(idp.token().subject("bob").claim("act", json!({ "sub": "helper" })));
    let event = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
    let open = |caller: &Caller, tool: &str| {
        let pieces = tickets.stream_next("tools/call");
        let mut stream = caller.open("tools/call", json!({ "name": tool, "arguments": {} }));
        pieces.event(&event);
        assert_eq!(stream.event().unwrap().json(), event);
        (stream, pieces)
    };
    let rows = [
        (
            &["--principal", "alice"][..],
            json!({ "principal": { "subject": "alice" } }),
            "principal alice",
            "quarantined_caller",
        ),
        (&["--agent", "crawler"], json!({ "agent": { "name": "crawler" } }), "agent crawler", "quarantined_caller"),
        (
            &["--tool", "close", "--server", "tickets"],
            json!({ "tool": { "name": "close", "server": "tickets" } }),
            "tool close",
            "tool_stopped",
        ),
    ];
    let mut set = 0;
    for (words, wish, target, reason) in rows {
        for over_api in [false, true] {
            let row = format!("{target}, over the API: {over_api}");
            let (mut stream, pieces) = open(&stopped(), "close");
            let (mut bystander, goes_on) = open(&other, "read");
            if over_api {
                let answer = admin.post("/api/v1/quarantines", &json!({ "stopped": wish, "reason": "a drill" }));
                assert_eq!((answer.status, &answer.json()["is_kept"]), (200, &json!(true)), "{row}: {answer}");
            } else {
                stop(&here, &[words, &["--why", "a drill"]].concat());
            }
            let began = Instant::now();
            assert_eq!(stream.event().expect("a last event").json()["error"]["data"]["reason"], reason, "{row}");
            stopped().call("close", json!({})).assert_refused(403, reason);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "{row}: {took:?}");
            stream.finish();
            pieces.wait_until_abandoned();
            goes_on.event(&event);
            assert_eq!(bystander.event().unwrap().json(), event, "{row}");

            set += 1;
            let record = records(&here, "quarantine.set", set).remove(set - 1);
            assert!(record["act"]["target"].as_str().unwrap().starts_with(target), "{row}: {record}");
            assert_eq!(record["act"]["note"], "a drill", "{row}");
            let subject = record["principal"]["subject"].as_str();
            assert_eq!(subject, over_api.then_some("rita"), "{row}: {record}");
            stop(&here, &[words, &["--lift"]].concat());
            poll_until("it to be let go", || (stopped().call("close", json!({})).status() == 200).then_some(()));
        }
    }
    records(&here, "admin.quarantine_set", 3);
}

#[test]
fn it_holds_at_every_gateway_on_a_shared_file_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    holds_at_every_gateway(json!({ "sqlite": directory.path().join("registry.db") }), &[]);
}

#[test]
fn it_holds_at_every_gateway_on_postgresql_and_survives_a_restart() {
    let Some(store) = postgres::Server::start() else { return };
    let url = json!({ "postgres": { "url": { "file": "DIR/store.url" } }, "poll": "60s" });
    holds_at_every_gateway(url, &[("store.url", &store.url())]);
}

/// The store is away when it matters most: it holds here at once, and is written when the store is back.
#[test]
fn it_holds_while_the_store_is_away_and_is_written_later() {
    let Some(mut store) = postgres::Server::start() else { return };
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read").tool("close"));
    let conf = with_socket(usual(&idp, &tickets).allow_all())
        .file("store.url", &store.url(), 0o600)
        .set("store", json!({ "postgres": { "url": { "file": "DIR/store.url" } } }));
    let gateway = Gateway::start(conf.clone());
    let call = |gateway: &Gateway| gateway.caller(idp.token().scope("tickets:read")).call("read", json!({}));
    assert_eq!(call(&gateway).status(), 200);
    store.stop();
    let output = quarantine(&gateway, &["--principal", "alice"]);
    assert!(output.code == Some(0) && output.stdout.contains("this process alone"), "{output:?}");
    call(&gateway).assert_refused(403, "quarantined_caller");
    store.resume();
    let other = Gateway::start(conf);
    poll_until("the other gateway to know", || (call(&other).status() == 403).then_some(()));
}

/// Without a store, the successor asks its predecessor.
#[test]
fn it_outlives_an_upgrade_without_a_store() {
    let world = world();
    stop(&world.gateway, &["--principal", "alice", "--why", "before the upgrade"]);
    let output = world.gateway.upgrade();
    assert_eq!(output.code, Some(0), "{output:?}");
    world.reader().call("read", json!({})).assert_refused(403, "quarantined_caller");
    poll_until("the successor to take orders", || {
        let output = quarantine(&world.gateway, &["--principal", "alice", "--lift"]);
        (output.code == Some(0)).then_some(())
    });
    poll_until("her to be let go", || (world.reader().call("read", json!({})).status() == 200).then_some(()));
}
