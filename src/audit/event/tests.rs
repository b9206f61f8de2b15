#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::line::{LIST_ITEMS_MAX, write_string};
use super::*;

/// The digests were made with another program: an auditor who has the key can check one.
#[test]
fn a_full_record_is_this_line() {
    assert_eq!(
        line(&full()),
        concat!(
            r#"{"time":"2026-07-28T12:34:56.789Z","seq":42,"gateway":"edge-1","request_id":"01J","#,
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","event":"mcp.request","client_ip":"2001:db8::7","#,
            r#""route":"/mcp","principal":{"issuer":"https://idp.test","subject":"alice","client_id":"agent-app","#,
            r#""token_id":"jti-1"},"agent":{"id":"planner","issuer":"https://idp.test","instance":"i-1","type":"assistant","#,
            r#""provider":"agents.test","model":"m-1","capabilities":["email:draft"],"delegator":"bob","#,
            r#""chain_assurance":"none","depth":1,"purpose":"answer mail","attestation":"unverified","#,
            r#""source":"access_token"},"server":"tickets","instance":"a","#,
            r#""session":"023b5342dcda90ffcdcb674d4c2fbc2e6b1e80cff8dad887ce8168abe61412d3","#,
            r#""mcp":{"revision":"2025-11-25","method":"tools/call","name":"search","id":7},"#,
            r#""arguments":{"hmac_sha256":"42f994df0173d854a61dd6fc36bc7b7708700957f6bf1b6e3ba12b6ab92d24c1"},"#,
            r#""decision":{"effect":"allow","rule":"readers","reason":"rule"},"#,
            r#""routing":{"rule":"canary","split":"v2","version":"v1","region":"eu\n","fell_back":true,"#,
            r#""failed_rule":"broken"},"#,
            r#""registry":{"kind":"tool","name":"send\n<script>","digest":"00ff","state":"approved","cause":"changed","#,
            r#""findings":2,"note":"looked at it"},"#,
            r#""credential":{"mode":"token_exchange","audience":["tickets"],"scope":"tickets:read","cached":true},"#,
            r#""budget":{"name":"per-person","limit":"calls"},"taint":"marked","#,
            r#""content":[{"rule":"pii","action":"redacted","count":3}],"#,
            r#""status":200,"outcome":"ok","reason":"upstream_protocol","detail":"not_json","duration_ms":12.345,"upstream_ms":11.000,"bytes_in":120,"#,
            r#""bytes_out":4096,"config_generation":3}"#,
            "\n"
        )
    );
}

#[test]
fn a_client_certificate_is_named_by_subject_and_digest() {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "robot\",\"status\":200");
    let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let certificate = Arc::new(ClientCertificate::read(&der).unwrap());
    let digest = certificate.digest().to_owned();
    let record = parse(&Event { client_certificate: Some(certificate), ..Event::default() });
    let subject = r#"CN=robot\"\,\"status\":200"#;
    assert_eq!(record["client_certificate"], json!({ "subject": subject, "digest": digest }));
    assert_eq!(record.get("status"), None);
}

#[test]
fn what_is_not_known_is_left_out() {
    let event = Event { request_id: "r".into(), event: EventKind::AuthRefused, status: Some(401), ..Event::default() };
    assert_eq!(
        line(&event),
        concat!(
            r#"{"time":"2026-07-28T12:34:56.789Z","seq":42,"gateway":"edge-1","request_id":"r","#,
            r#""event":"auth.refused","status":401,"outcome":"aborted","duration_ms":0.000,"bytes_in":0,"bytes_out":0,"#,
            r#""config_generation":0}"#,
            "\n"
        )
    );
}

#[test]
fn a_batch_names_every_message() {
    let event = Event {
        mcp: Some(Mcp {
            revision: Some(Revision::V2025_03_26),
            batch: vec![
                Message {
                    method: Some("tools/call".into()),
                    name: Some("purge".into()),
                    id: Some(RequestId::from_json("\"b\"")),
                    arguments: Some(Arguments { hmac_sha256: Digest::of_arguments(&key(), b"{}") }),
                    decision: Some(Decision { effect: Effect::Deny, rule: None, reason: "default" }),
                },
                Message { method: Some("notifications/initialized".into()), ..Message::default() },
            ],
            ..Mcp::default()
        }),
        ..Event::default()
    };
    let digest = Digest::of_arguments(&key(), b"{}").to_string();
    assert_eq!(
        parse(&event)["mcp"],
        json!({"revision": "2025-03-26", "batch": [
            {"method": "tools/call", "name": "purge", "id": "b", "arguments": {"hmac_sha256": digest},
             "decision": {"effect": "deny", "reason": "default"}},
            {"method": "notifications/initialized"},
        ]})
    );
}

/// Incident: ANSI and log injection through tool names.
#[test]
fn no_string_forges_a_line_or_moves_a_terminal() {
    let hostile = [
        "a\n{\"event\":\"mcp.request\",\"outcome\":\"ok\"}",
        "a\r\nb",
        "\"},\"principal\":{\"subject\":\"root",
        "\\\",\\u0000",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m",
        "\u{85}\u{2028}\u{2029}",
        "\u{7f}\u{8}\u{8}\u{8}",
        "\u{202e}gnp.exe",
        "zero\u{200b}width\u{feff}",
        "tag\u{e0041}\u{e007f}",
        "<script>|=,\t",
        "naïve 名前 🦀",
    ];
    for text in hostile {
        let event = Event {
            request_id: text.into(),
            trace_id: Some(text.into()),
            route: Some(text.into()),
            principal: Some(Principal {
                issuer: text.into(),
                subject: text.into(),
                client_id: Some(text.into()),
                token_id: Some(text.into()),
            }),
            agent: Some(agent(text)),
            mcp: Some(Mcp {
                method: Some(text.to_owned().into()),
                name: Some(text.into()),
                id: Some(RequestId::from_json(&serde_json::to_string(text).unwrap())),
                ..Mcp::default()
            }),
            ..full()
        };
        let line = line(&event);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.chars().all(|c| c == '\n' || !is_dangerous(c)), "{line:?}");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["request_id"], text);
        assert_eq!(parsed["trace_id"], text);
        assert_eq!(parsed["route"], text);
        assert_eq!(parsed["principal"]["subject"], text);
        assert_eq!(parsed["principal"]["client_id"], text);
        assert_eq!(parsed["agent"]["id"], text);
        assert_eq!(parsed["mcp"]["method"], text);
        assert_eq!(parsed["mcp"]["name"], text);
        assert_eq!(parsed["mcp"]["id"], text);
        assert_eq!(parsed["outcome"], "ok");
    }
}

#[test]
fn escapes_are_those_of_json() {
    let rows = [
        ("\u{1b}", r"\u001b"),
        ("\u{9b}", r"\u009b"),
        ("\u{7f}", r"\u007f"),
        ("\u{2028}", r"\u2028"),
        ("\u{e0041}", r"\udb40\udc41"),
        ("\n", r"\n"),
        ("\"", r#"\""#),
        ("\\", r"\\"),
        ("/é名🦀", "/é名🦀"),
        ("", ""),
        ("a\u{1b}b", r"a\u001bb"),
    ];
    for (text, written) in rows {
        let mut out = Vec::new();
        write_string(text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{written}\""), "{text:?}");
    }
}

#[test]
fn a_long_string_is_cut_at_a_character() {
    const KEPT: usize = STRING_BYTES_MAX - CUT_MARK.len();
    let rows = [
        ("x".repeat(STRING_BYTES_MAX), STRING_BYTES_MAX, false),
        ("x".repeat(STRING_BYTES_MAX + 1), KEPT, true),
        ("é".repeat(STRING_BYTES_MAX), KEPT, true),
        ("名".repeat(STRING_BYTES_MAX), KEPT - KEPT % 3, true),
        (format!("x{}", "🦀".repeat(STRING_BYTES_MAX)), KEPT - 3, true),
    ];
    for (text, kept, marked) in rows {
        let event = Event { request_id: text.as_str().into(), ..Event::default() };
        let parsed = parse(&event);
        let written = parsed["request_id"].as_str().unwrap();
        assert_eq!(written.ends_with(CUT_MARK), marked);
        let body = written.strip_suffix(CUT_MARK).unwrap_or(written);
        assert_eq!(body.len(), kept);
        assert!(text.starts_with(body));
    }
}

#[test]
fn a_record_of_the_worst_strings_is_bounded() {
    let worst = "\u{1b}".repeat(1 << 20);
    let event = Event {
        request_id: worst.as_str().into(),
        mcp: Some(Mcp {
            name: Some(worst.as_str().into()),
            id: Some(RequestId::from_json(&"9".repeat(1 << 20))),
            ..Mcp::default()
        }),
        act: None,
        credential: Some(Credential {
            mode: "token_exchange",
            audience: vec![worst.as_str().into(); 100].into(),
            scope: worst.as_str().into(),
            cached: false,
        }),
        ..Event::default()
    };
    let line = line(&event);
    assert!(line.len() < 256 * 1024, "{} bytes", line.len());
    let parsed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["credential"]["audience"].as_array().unwrap().len(), LIST_ITEMS_MAX);
}

#[test]
fn an_id_keeps_its_type() {
    let rows = [
        ("7", json!(7)),
        ("-7", json!(-7)),
        ("0", json!(0)),
        ("\"7\"", json!("7")),
        (r#""a\"b\u001b""#, json!("a\"b\u{1b}")),
        // Not what the classifier lets through, but no such text may break the line.
        ("007", json!("007")),
        ("-", json!("-")),
        ("", json!("")),
        ("1}", json!("1}")),
        ("1.5", json!("1.5")),
    ];
    for (text, written) in rows {
        let mcp = Mcp { id: Some(RequestId::from_json(text)), ..Mcp::default() };
        let event = Event { mcp: Some(mcp), ..Event::default() };
        assert_eq!(parse(&event)["mcp"]["id"], written, "{text}");
    }
}

#[test]
fn digests_depend_on_key_purpose_and_bytes() {
    let digest = Digest::of_arguments(&key(), b"{\"a\":1}");
    assert_eq!(digest, Digest::of_arguments(&key(), b"{\"a\":1}"));
    assert_ne!(digest, Digest::of_arguments(&key(), b"{\"a\": 1}"));
    assert_ne!(digest, Digest::of_session(&key(), b"{\"a\":1}"));
    let other = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[8; 32]);
    assert_ne!(digest, Digest::of_arguments(&other, b"{\"a\":1}"));
    let hex = digest.to_string();
    assert_eq!(hex.len(), 64);
    assert!(hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
}

#[test]
fn times_past_the_calendar_do_not_break_the_line() {
    for time_ms in [0, 1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
        let mut out = Vec::new();
        Stamp { time_ms, ..STAMP }.write_beginning(&mut out);
        Event::default().write_rest(&mut out);
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        assert!(parsed["time"].as_str().unwrap().ends_with('Z'), "{time_ms}");
    }
}

proptest! {
    #[test]
    fn a_time_is_that_of_the_calendar(time_ms in 0..253_402_300_800_000_u64) {
        let mut out = Vec::new();
        Stamp { time_ms, ..STAMP }.write_beginning(&mut out);
        let time = chrono::DateTime::from_timestamp_millis(time_ms as i64).unwrap();
        let time = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        prop_assert!(out.starts_with(format!("{{\"time\":\"{time}\",").as_bytes()), "{time}");
    }

    /// Any text comes back from the line as it went in, unless it was cut, and takes one line.
    #[test]
    fn any_text_parses_back(text in any::<String>()) {
        let event = Event { trace_id: Some(text.as_str().into()), ..Event::default() };
        let line = line(&event);
        prop_assert_eq!(line.matches('\n').count(), 1);
        prop_assert!(line.chars().all(|c| c == '\n' || !is_dangerous(c)));
        let parsed: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(parsed["trace_id"].as_str().unwrap(), text.as_str());
    }
}

const STAMP: Stamp<'static> = Stamp { time_ms: 1_785_242_096_789, seq: 42, gateway: "edge-1" };

fn key() -> ring::hmac::Key {
    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32])
}

fn line(event: &Event) -> String {
    let mut out = Vec::new();
    STAMP.write_beginning(&mut out);
    event.write_rest(&mut out);
    String::from_utf8(out).unwrap()
}

fn parse(event: &Event) -> Value {
    serde_json::from_str(&line(event)).unwrap()
}

fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn agent(name: &str) -> Arc<AgentIdentity> {
    let claims = json!({
        "agent_capabilities": ["email:draft"], "delegator_sub": "bob", "delegation_purpose": "answer mail",
    });
    Arc::new(AgentIdentity::for_test(name, &claims))
}

fn full() -> Event {
    Event {
        request_id: "01J".into(),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        event: EventKind::McpRequest,
        client_ip: Some("2001:db8::7".parse().unwrap()),
        client_certificate: None,
        route: Some("/mcp".into()),
        principal: Some(Principal {
            issuer: "https://idp.test".into(),
            subject: "alice".into(),
            client_id: Some("agent-app".into()),
            token_id: Some("jti-1".into()),
        }),
        agent: Some(agent("planner")),
        server: Some("tickets".into()),
        instance: Some("a".into()),
        session: Some(Digest::of_session(&key(), b"upstream-1")),
        mcp: Some(Mcp {
            revision: Some(Revision::V2025_11_25),
            method: Some("tools/call".into()),
            name: Some("search".into()),
            id: Some(RequestId::from_json("7")),
            batch: vec![],
        }),
        arguments: Some(Arguments { hmac_sha256: Digest::of_arguments(&key(), b"{}") }),
        decision: Some(Decision { effect: Effect::Allow, rule: Some("readers".into()), reason: "rule" }),
        routing: Some(Routing {
            rule: Some("canary".into()),
            split: Some("v2".into()),
            version: Some("v1".into()),
            region: Some("eu\n".into()),
            fell_back: true,
            failed_rule: Some("broken".into()),
        }),
        registry: Some(Box::new(Registry {
            kind: Some("tool"),
            name: Some("send\n<script>".into()),
            digest: Some("00ff".into()),
            state: Some("approved"),
            cause: Some("changed"),
            findings: 2,
            note: Some("looked at it".into()),
        })),
        act: None,
        credential: Some(Credential {
            mode: "token_exchange",
            audience: Arc::from(["tickets".into()]),
            scope: "tickets:read".into(),
            cached: true,
        }),
        budget: Some(Budget { name: "per-person".into(), limit: "calls" }),
        taint: Some("marked"),
        content: vec![Content { rule: "pii".into(), action: "redacted", count: 3 }],
        status: Some(200),
        outcome: Outcome::Ok,
        reason: Some("upstream_protocol"),
        detail: Some("not_json"),
        duration: Duration::from_micros(12_345),
        upstream: Some(Duration::from_millis(11)),
        bytes_in: 120,
        bytes_out: 4096,
        config_generation: 3,
    }
}

#[test]
fn what_somebody_did_is_told_with_target_and_words() {
    let act = Act {
        call: "POST /api/v1/sessions/revoke".into(),
        target: Some("alice".into()),
        action: None,
        note: Some("left\u{1b}[2J".into()),
        roles: Some("admin".into()),
    };
    let event =
        Event { event: EventKind::Admin(AdminEvent::SessionsRevoke), act: Some(Box::new(act)), ..Event::default() };
    let line = line(&event);
    let expected = concat!(
        r#""act":{"call":"POST /api/v1/sessions/revoke","target":"alice","#,
        r#""note":"left\u001b[2J","roles":"admin"}"#
    );
    assert!(line.contains(r#""event":"admin.sessions_revoke""#) && line.contains(expected), "{line}");
}
