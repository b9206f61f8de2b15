//! What does the command line do?

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::{Conf, Gateway, Idp, McpServer, Output, SESSION_KEY, portcullis, usual, write};

fn checked(conf: &Conf, more: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let conf = conf.clone().set("listen", json!([{ "address": "127.0.0.1:18080" }]));
    let file = write(&conf, directory.path());
    portcullis(&[&["check", "--config", file.to_str().unwrap()], more].concat())
}

fn good() -> Conf {
    usual(&Idp::start(), &McpServer::start())
}

#[test]
fn check_accepts_a_good_configuration() {
    let output = checked(&good(), &[]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn check_reports_every_problem_with_its_key_path_and_line() {
    let bad = good()
        .set("servers.0.timeouts", json!({ "connect": "soon" }))
        .set("limits", json!({ "body_bytes": "4 elephants" }))
        .set("routes.0.servers", json!(["no-such-server"]))
        .set("routes.0.authorization.rules.0.when", "args.x ==")
        .set("unknown_key", 1);
    let output = checked(&bad, &[]);
    assert_eq!(output.code, Some(64), "{output:?}");
    let told = output.stdout + &output.stderr;
    for path in [
        "servers[0].timeouts.connect",
        "limits.body_bytes",
        "routes[0].servers",
        "routes[0].authorization.rules[0].when",
        "unknown_key",
    ] {
        assert!(told.contains(path), "{path} in:\n{told}");
    }
    assert!(told.to_ascii_lowercase().contains("line") || told.contains(".yaml:"), "a line number in:\n{told}");
}

#[test]
fn check_of_a_file_that_is_not_there_or_not_yaml_is_64() {
    assert_eq!(portcullis(&["check", "--config", "/no/such/file.yaml"]).code, Some(64));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    for text in ["", "a: [", "- 1", "a: 1\na: 2\n", "\u{0}"] {
        std::fs::write(&file, text).unwrap();
        let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(output.code, Some(64), "{text:?}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
    }
}

#[test]
fn run_refuses_a_bad_configuration_and_opens_no_port() {
    let output = Gateway::start_refused(good().set("unknown_key", 1));
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(output.stderr.contains("unknown_key"), "{output:?}");
}

/// A gateway without its listener would be alive, ready, and of no use to anybody.
#[test]
fn run_ends_at_once_when_an_address_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, value) in [
        ("listen", json!([{ "address": address }])),
        ("metrics", json!({ "address": address })),
        ("admin", json!({ "address": address })),
    ] {
        let output = Gateway::start_refused(good().set(key, value));
        assert_eq!(output.code, Some(70), "{key}: {output:?}");
        assert!(output.stderr.contains(&address), "{key}: {output:?}");
    }
}

#[test]
fn run_refuses_a_session_key_that_is_missing_short_or_readable_by_the_world() {
    let missing = good().set("session.keys", json!([{ "file": "DIR/no-such.key" }]));
    let none = good().set("session.keys", json!([]));
    let short = good().file("session.key", "c2hvcnQ=", 0o600);
    let readable = good().file("session.key", SESSION_KEY, 0o644);
    for (what, conf) in [("missing", missing), ("none", none), ("short", short), ("readable", readable)] {
        let output = Gateway::start_refused(conf);
        assert_eq!(output.code, Some(64), "{what}: {output:?}");
        assert!(output.stderr.contains("session.keys"), "{what}: {output:?}");
        assert!(!output.stderr.contains("MDEyMzQ1"), "a key in a message: {output:?}");
    }
}

#[test]
fn a_secret_written_into_the_file_is_refused_and_not_repeated() {
    let conf = good().set("session.keys", json!([SESSION_KEY]));
    let output = checked(&conf, &[]);
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(!(output.stdout + &output.stderr).contains("MDEyMzQ1Njc4"), "the secret was repeated");
}

#[test]
fn secrets_can_come_from_the_environment_by_name_only() {
    let conf = good().set("session.keys", json!([{ "env": "PORTCULLIS_TEST_NO_SUCH_VARIABLE" }]));
    let output = checked(&conf, &[]);
    assert_eq!(output.code, Some(64), "{output:?}");
    let told = output.stdout + &output.stderr;
    assert!(told.contains("PORTCULLIS_TEST_NO_SUCH_VARIABLE"), "{told}");
}

#[test]
fn check_without_secrets_judges_a_file_on_another_machine() {
    let conf = good().set("session.keys", json!([{ "file": "/etc/portcullis/no-such.key" }]));
    assert_eq!(checked(&conf, &[]).code, Some(64));
    assert_eq!(checked(&conf, &["--no-secrets"]).code, Some(0));
}

#[test]
fn keygen_makes_a_new_32_byte_key_each_time_that_a_gateway_takes() {
    let keys: Vec<String> = (0..2).map(|_| portcullis(&["keygen"]).stdout).collect();
    assert_ne!(keys[0], keys[1]);
    for key in &keys {
        assert_eq!(STANDARD.decode(key.trim()).unwrap().len(), 32);
    }
    let output = checked(&good().file("session.key", &keys[0], 0o600), &[]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn a_wrong_command_line_explains_itself() {
    for arguments in [&[][..], &["fly"], &["run"], &["run", "--config"]] {
        let output = portcullis(arguments);
        assert!(matches!(output.code, Some(2 | 64)), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("--help"), "{arguments:?}: {output:?}");
    }
    assert_eq!(portcullis(&["--help"]).code, Some(0));
    assert!(portcullis(&["--version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

/// The README's demonstration is a test of itself.
#[cfg(feature = "demo")]
#[test]
fn the_demo_holds_its_own_self_check() {
    let output = portcullis(&["demo", "--listen", "127.0.0.1:0", "--once"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let last = output.stdout.lines().rev().find(|line| line.contains("self-check:")).expect("a verdict").to_owned();
    let words: Vec<&str> = last.split_whitespace().collect();
    let (held, all) = (words[words.len() - 5], words[words.len() - 3]);
    assert_eq!(held, all, "{last}");
}
