//! Which conversation? Sealed ids: whose they are, where they lead, and when they end.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis::identity::Principal;
use portcullis::secret::Secret;
use portcullis::session::{self, Binding, Ring, Session};
use portcullis::time::UnixSeconds;
use serde_json::json;

use crate::support::{
    Answer, Conversation, Gateway, Idp, LEGACY, McpServer, Reply, SESSION_KEY, World, poll_until, usual,
};

/// What a caller can tell two refusals apart by: every byte but the request's own name and id, and the time.
fn telling(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let own = ["date", "x-request-id", "content-length"];
    let headers = answer.0.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect();
    let id = format!("\"id\":{}", answer.json()["id"]);
    let body = answer.0.text().replace(&answer.request_id(), "").replace(&id, "");
    (answer.status(), headers, body)
}

#[test]
fn the_client_never_sees_the_servers_session_id() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    assert!(session.id().starts_with("v1."), "{}", session.id());
    assert!(session.id().bytes().all(|byte| byte.is_ascii_graphic()) && session.id().len() <= 512);
    let upstream = session.call("read", json!({})).echoed()["session"].as_str().unwrap().to_owned();
    assert!(upstream.starts_with("upstream-a-"));
    assert!(!session.id().contains(&upstream));
    for seen in world.tickets.seen() {
        assert!(!seen.everything().contains(session.id()), "our id went upstream: {seen:#?}");
    }
}

#[test]
fn a_session_sticks_to_its_instance_on_post_get_and_delete() {
    let world = World::with_instances(3, |conf| conf);
    world.tickets.on("GET", |_| Reply::sse("data: {}\n\n"));
    let sessions: Vec<Conversation> = (0..6).map(|_| world.reader().initialize(LEGACY)).collect();
    let mut instances = BTreeSet::new();
    for session in &sessions {
        world.tickets.forget();
        session.call("read", json!({}));
        session.call("read", json!({}));
        assert!(session.get(None).finish());
        assert_eq!(session.delete().status(), 200);
        let seen: BTreeSet<String> = world.tickets.seen().into_iter().map(|seen| seen.instance).collect();
        assert_eq!(seen.len(), 1, "one session was seen by {seen:?}");
        assert_eq!(world.tickets.seen().len(), 4);
        instances.extend(seen);
    }
    assert!(instances.len() > 1, "new sessions are spread");
}

#[test]
fn a_session_outlives_a_restart_of_the_gateway() {
    let (idp, tickets) = (Idp::start(), McpServer::with_instances(2).tool("read"));
    let first = Gateway::start(usual(&idp, &tickets));
    let token = idp.token().scope("tickets:read").sign();
    let session = first.caller(&token).initialize(LEGACY);
    let upstream = session.call("read", json!({})).echoed()["session"].clone();
    drop(first);
    let second = Gateway::start(usual(&idp, &tickets));
    let resumed = second.caller(&token).resume(LEGACY, Some(session.id()));
    assert_eq!(resumed.call("read", json!({})).echoed()["session"], upstream);
}

#[test]
fn an_older_key_still_opens_what_it_sealed() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let first = Gateway::start(usual(&idp, &tickets));
    let token = idp.token().scope("tickets:read").sign();
    let session = first.caller(&token).initialize(LEGACY);
    drop(first);
    let new_key = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    let rotated = |keys| usual(&idp, &tickets).file("new.key", new_key, 0o600).set("session.keys", keys);
    let both = Gateway::start(rotated(json!([{ "file": "DIR/new.key" }, { "file": "DIR/session.key" }])));
    assert_eq!(both.caller(&token).resume(LEGACY, Some(session.id())).list().status(), 200);
    drop(both);
    let new_only = Gateway::start(rotated(json!([{ "file": "DIR/new.key" }])));
    new_only.caller(&token).resume(LEGACY, Some(session.id())).list().assert_refused(404, "unknown_session");
}

/// The same answer for an id that is unknown, forged, expired, revoked or somebody else's, on POST, GET and DELETE: a caller
/// who guesses learns nothing.
#[test]
fn ids_that_are_not_the_callers_are_all_alike() {
    let world = World::start();
    let alice = world.reader().initialize(LEGACY);
    let revoked = world.reader().initialize(LEGACY);
    assert_eq!(revoked.delete().status(), 200);
    let mut flipped = alice.id().to_owned().into_bytes();
    let place = flipped.len() - 5;
    flipped[place] = if flipped[place] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let nonsense = format!("v1.{}", "A".repeat(alice.id().len() - 3));
    let expired = sealed_by_hand(&world, UnixSeconds(1_000_000_000));
    let attempts = [
        ("unknown", world.reader().resume(LEGACY, Some("v1.unknown"))),
        ("nonsense", world.reader().resume(LEGACY, Some(&nonsense))),
        ("forged", world.reader().resume(LEGACY, Some(&flipped))),
        ("revoked", revoked),
        ("expired", world.reader().resume(LEGACY, Some(&expired))),
        ("bob's attempt", world.reader_named("bob").resume(LEGACY, Some(alice.id()))),
    ];
    world.tickets.forget();
    for how in ["POST", "GET", "DELETE"] {
        let mut first = None;
        for (what, session) in &attempts {
            let answer = match how {
                "POST" => session.list(),
                "GET" => session.try_get(),
                _ => session.delete(),
            };
            assert_eq!(answer.status(), 404, "{how}, {what}: {}", answer.0);
            let told = telling(&answer);
            assert_eq!(&told, first.get_or_insert_with(|| told.clone()), "{how}, {what}");
        }
    }
    world.tickets.assert_saw_nothing();
}

/// The control for the one above: the same id, made by hand, is good until its time is over.
#[test]
fn an_id_is_good_until_it_expires() {
    let world = World::start();
    let id = sealed_by_hand(&world, UnixSeconds(u64::from(u32::MAX)));
    // The server has never heard of this session, so the 404 is the server's word and reaches it.
    world.reader().resume(LEGACY, Some(&id)).list();
    assert_eq!(world.tickets.only("tools/list").header("mcp-session-id"), Some("upstream-a-by-hand"));
}

/// An id for alice on `/mcp` as the gateway itself would seal it: nobody waits an hour for an id to expire.
fn sealed_by_hand(world: &World, expires_at: UnixSeconds) -> String {
    let key: [u8; 32] = STANDARD.decode(SESSION_KEY).unwrap().try_into().unwrap();
    let ring = Ring::derive(&[Secret::new(key)]).unwrap();
    let session = Session {
        server: "tickets".into(),
        instance: "a".into(),
        upstream_id: "upstream-a-by-hand".into(),
        issued_at: UnixSeconds(900_000_000),
        expires_at,
    };
    let principal = Principal { issuer: world.idp.issuer().into(), subject: "alice".into() };
    session::seal(&session, Binding { principal: &principal, route: "/mcp" }, [7; 12], &ring).unwrap()
}

#[test]
fn an_id_from_another_route_is_unknown() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let conf = usual(&idp, &tickets).server("other", &tickets).of_route("path", json!("/other"));
    let gateway = Gateway::start(conf);
    let token = idp.token().audience(json!(["https://mcp.example.test/mcp", "https://mcp.example.test/other"])).sign();
    let session = gateway.caller(&token).initialize(LEGACY);
    assert_eq!(session.list().status(), 200);
    gateway
        .caller(&token)
        .at("/other")
        .resume(LEGACY, Some(session.id()))
        .list()
        .assert_refused(404, "unknown_session");
}

/// Same subject, another issuer: another person.
#[test]
fn an_id_of_the_same_subject_at_another_issuer_is_unknown() {
    let (corp, partner, tickets) = (Idp::start(), Idp::start(), McpServer::start().tool("read"));
    let gateway = Gateway::start(usual(&corp, &tickets).issuer("partner", &partner, json!({})));
    let session = gateway.caller(corp.token()).initialize(LEGACY);
    let impostor = gateway.caller(partner.token()).resume(LEGACY, Some(session.id()));
    impostor.list().assert_refused(404, "unknown_session");
}

#[test]
fn delete_ends_the_session_here_and_at_the_server() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    assert_eq!(session.delete().status(), 200);
    assert_eq!(world.tickets.seen_of("DELETE").len(), 1);
    world.tickets.forget();
    session.list().assert_refused(404, "unknown_session");
    world.tickets.assert_saw_nothing();
}

/// The server has forgotten the session, so the client must hear 404 and initialize again.
#[test]
fn a_session_the_server_has_forgotten_is_404() {
    let world = World::start();
    let session = world.reader().initialize(LEGACY);
    world.tickets.instances[0].stop();
    world.tickets.instances[0].restart();
    let answer = poll_until("an answer from the restarted server", || {
        let answer = session.list();
        (answer.status() == 404).then_some(answer)
    });
    assert!(!answer.0.to_string().contains("upstream-"), "{}", answer.0);
    assert_eq!(world.reader().initialize(LEGACY).list().status(), 200);
}

#[test]
fn a_modern_request_has_no_session() {
    let world = World::start();
    let answer = world.reader().header("Mcp-Session-Id", "v1.whatever").call("read", json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.0);
    assert_eq!(answer.header("mcp-session-id"), None);
    assert_eq!(world.tickets.only("tools/call").header("mcp-session-id"), None);
}

#[test]
fn a_modern_answer_brings_no_session_id() {
    let world = World::start();
    world
        .tickets
        .on_tool("read", |seen| Reply::result(seen, json!({ "content": [] })).with("mcp-session-id", "upstream-leak"));
    assert_eq!(world.reader().call("read", json!({})).header("mcp-session-id"), None);
}

#[test]
fn a_server_without_sessions_gets_none() {
    let world = World::start();
    world.tickets.on("initialize", |seen| {
        let version = seen.message["params"]["protocolVersion"].clone();
        Reply::result(seen, json!({ "protocolVersion": version, "capabilities": {}, "serverInfo": {} }))
    });
    let answer = world.reader().try_initialize(LEGACY);
    assert_eq!(answer.status(), 200, "{}", answer.0);
    assert_eq!(answer.header("mcp-session-id"), None);
}
