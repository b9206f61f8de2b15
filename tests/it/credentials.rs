//! With whose authority does a call go upstream? Never with the caller's own token.

use serde_json::{Value, json};

use crate::support::{Gateway, Idp, LEGACY, McpServer, World, poll_until, usual};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

fn exchanging(more: Value) -> World {
    World::exchanging(|conf| {
        let mut conf = conf;
        for (key, value) in more.as_object().unwrap() {
            conf.value["servers"][0]["credential"]["token_exchange"][key] = value.clone();
        }
        conf
    })
}

#[test]
fn the_exchange_asks_as_rfc_8693_says() {
    let world = exchanging(json!({
        "audience": ["tickets", "tickets-eu"], "resource": ["https://tickets.test/"], "scope": ["read", "write"],
        "requested_token_type": ACCESS_TOKEN,
    }));
    let token = world.reader_token().sign();
    world.gateway.caller(&token).call("read", json!({}));
    let exchanges = world.sts.exchanges();
    assert_eq!(exchanges.len(), 1);
    let exchange = &exchanges[0];
    assert_eq!(exchange.all("grant_type"), ["urn:ietf:params:oauth:grant-type:token-exchange"]);
    assert_eq!(exchange.all("subject_token"), [token.as_str()]);
    assert_eq!(exchange.all("subject_token_type"), [ACCESS_TOKEN]);
    assert_eq!(exchange.all("requested_token_type"), [ACCESS_TOKEN]);
    assert_eq!(exchange.all("audience"), ["tickets", "tickets-eu"]);
    assert_eq!(exchange.all("resource"), ["https://tickets.test/"]);
    assert_eq!(exchange.all("scope"), ["read write"]);
    assert_eq!(exchange.all("client_secret"), [""; 0]);
    // base64 of `portcullis:client-secret-value`
    assert_eq!(exchange.authorization.as_deref(), Some("Basic cG9ydGN1bGxpczpjbGllbnQtc2VjcmV0LXZhbHVl"));
}

#[test]
fn what_is_not_configured_is_not_sent() {
    let world = World::exchanging(|conf| conf);
    world.reader().call("read", json!({}));
    let exchange = world.sts.exchanges().remove(0);
    for field in ["resource", "scope", "requested_token_type", "actor_token"] {
        assert_eq!(exchange.one(field), None, "{field}");
    }
}

#[test]
fn the_client_can_authenticate_in_the_form() {
    let client = json!({ "id": "portcullis", "secret": { "file": "DIR/client.secret" }, "auth": "client_secret_post" });
    let world = exchanging(json!({ "client": client }));
    world.reader().call("read", json!({}));
    let exchange = world.sts.exchanges().remove(0);
    assert_eq!(exchange.one("client_id"), Some("portcullis"));
    assert_eq!(exchange.one("client_secret"), Some("client-secret-value"));
    assert_eq!(exchange.authorization, None);
}

#[test]
fn an_exchanged_token_serves_the_same_caller_again_and_nobody_else() {
    let world = World::exchanging(|conf| conf);
    let alice = world.reader();
    for _ in 0..3 {
        assert_eq!(alice.call("read", json!({})).status(), 200);
    }
    assert_eq!(world.sts.exchanges().len(), 1);
    assert_eq!(world.reader_named("bob").call("read", json!({})).status(), 200);
    assert_eq!(world.sts.exchanges().len(), 2);
    for seen in world.tickets.seen_of("tools/call") {
        assert!(world.sts.user_of(seen.bearer().unwrap()).is_some());
    }
    let users: Vec<_> = world
        .tickets
        .seen_of("tools/call")
        .iter()
        .map(|seen| world.sts.user_of(seen.bearer().unwrap()).unwrap())
        .collect();
    assert_eq!(users, ["alice", "alice", "alice", "bob"]);
}

#[test]
fn many_calls_at_once_cost_one_exchange() {
    let world = World::exchanging(|conf| conf);
    let caller = world.reader();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(caller.call("read", json!({})).status(), 200));
        }
    });
    assert_eq!(world.sts.exchanges().len(), 1);
}

#[test]
fn an_expired_exchanged_token_is_fetched_again() {
    let world = World::exchanging(|conf| conf);
    world.sts.amend(json!({ "expires_in": 1 }));
    let caller = world.reader();
    assert_eq!(caller.call("read", json!({})).status(), 200);
    poll_until("a second exchange", || {
        assert_eq!(caller.call("read", json!({})).status(), 200);
        (world.sts.exchanges().len() > 1).then_some(())
    });
}

/// RFC 8693 §2.2.1: `expires_in` is only recommended. Unbounded would be wrong, and so would be failing.
#[test]
fn answers_that_leave_out_what_is_optional_are_good() {
    for members in [json!({ "expires_in": null }), json!({ "issued_token_type": null })] {
        let world = World::exchanging(|conf| conf);
        world.sts.amend(members.clone());
        assert_eq!(world.reader().call("read", json!({})).status(), 200, "{members}");
    }
}

#[test]
fn answers_that_are_no_bearer_token_are_not_sent_as_one() {
    for members in [
        json!({ "token_type": "N_A" }),
        json!({ "token_type": "DPoP" }),
        json!({ "token_type": null }),
        json!({ "access_token": "a\r\nX-Injected: 1" }),
        json!({ "access_token": "" }),
        json!({ "access_token": 7 }),
    ] {
        let world = World::exchanging(|conf| conf);
        world.sts.amend(members.clone());
        let answer = world.reader().call("read", json!({}));
        assert_eq!((answer.status(), answer.reason().as_str()), (502, "exchange_failed"), "{members}");
        world.tickets.assert_saw_nothing();
    }
}

/// An issuer that hands the caller's own token back has exchanged nothing.
#[test]
fn the_callers_own_token_is_not_a_credential_even_from_the_exchange() {
    let world = World::exchanging(|conf| conf);
    let token = world.reader_token().sign();
    world.sts.amend(json!({ "access_token": token }));
    world.gateway.caller(&token).call("read", json!({})).assert_refused(502, "exchange_failed");
    world.tickets.assert_saw_nothing();
}

#[test]
fn a_refused_exchange_is_remembered_for_a_moment() {
    let world = World::exchanging(|conf| conf);
    world.sts.answer(400, json!({ "error": "invalid_target" }));
    let caller = world.reader();
    for _ in 0..5 {
        caller.call("read", json!({})).assert_refused(502, "exchange_failed");
    }
    assert_eq!(world.sts.exchanges().len(), 1);
}

#[test]
fn an_exchange_server_that_is_down_is_a_bad_gateway() {
    let world = World::exchanging(|conf| conf);
    world.sts.stop();
    let answer = world.reader().call("read", json!({}));
    assert_eq!(answer.status(), 502, "{}", answer.0);
    assert_eq!(answer.reason(), "exchange_failed");
    assert!(!answer.0.text().contains("127.0.0.1"), "{}", answer.0);
    world.tickets.assert_saw_nothing();
}

#[test]
fn a_caller_whose_token_the_exchange_refuses_is_told_to_get_another() {
    let world = World::exchanging(|conf| conf);
    world.sts.answer(400, json!({ "error": "invalid_grant" }));
    let answer = world.reader().call("read", json!({}));
    assert!(matches!(answer.status(), 401 | 502), "{}", answer.0);
    world.tickets.assert_saw_nothing();
}

#[test]
fn a_credential_the_server_refuses_is_exchanged_again_once() {
    let world = World::exchanging(|conf| conf);
    let caller = world.reader();
    assert_eq!(caller.call("read", json!({})).status(), 200);
    world.sts.revoke_all();
    world.tickets.forget();
    assert_eq!(caller.call("read", json!({ "again": true })).status(), 200);
    assert_eq!(world.sts.exchanges().len(), 2);
    let seen = world.tickets.seen_of("tools/call");
    assert_eq!(seen.len(), 2, "refused, then accepted");
    assert_ne!(seen[0].bearer(), seen[1].bearer());
    assert_eq!(seen[0].body, seen[1].body, "the very same call is sent again");
}

#[test]
fn a_server_that_refuses_every_credential_is_a_bad_gateway() {
    let world = World::exchanging(|conf| conf);
    world.tickets.on("tools/call", |_| {
        crate::support::Reply::json(401, &json!({ "secret": "internal" }))
            .with("www-authenticate", "Bearer realm=\"x\"")
    });
    let answer = world.reader().call("read", json!({}));
    answer.assert_refused(502, "upstream_protocol");
    assert_eq!(answer.header("www-authenticate"), None);
    assert!(!answer.0.to_string().contains("internal"), "{}", answer.0);
    assert_eq!(world.tickets.seen_of("tools/call").len(), 2);
    assert_eq!(world.sts.exchanges().len(), 2);
}

#[test]
fn a_refused_call_costs_no_exchange() {
    let world = World::exchanging(|conf| conf);
    world.reader().call("purge", json!({})).assert_refused(403, "denied");
    world.gateway.stranger().list().assert_refused(401, "missing_token");
    assert_eq!(world.sts.exchanges().len(), 0);
}

#[test]
fn a_session_uses_exchanged_tokens_too() {
    let world = World::exchanging(|conf| conf);
    let session = world.reader().initialize(LEGACY);
    session.call("read", json!({}));
    session.delete();
    for seen in world.tickets.seen() {
        assert!(seen.bearer().is_some_and(|token| token.starts_with("xchg-")), "{seen:#?}");
    }
}

#[test]
fn a_static_credential_is_the_same_for_everybody() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let credential = json!({ "static": { "header": "X-Api-Key", "secret": { "file": "DIR/api.key" } } });
    let conf = usual(&idp, &tickets).of_server("credential", credential).file("api.key", "key-123\n", 0o600);
    let gateway = Gateway::start(conf);
    let token = idp.token().scope("tickets:read").sign();
    gateway.caller(&token).header("X-Api-Key", "mine").call("read", json!({}));
    let seen = tickets.only("tools/call");
    let values: Vec<_> = seen.headers.get_all("x-api-key").iter().collect();
    assert_eq!(values, ["key-123"]);
    assert_eq!(seen.header("authorization"), None);
    assert!(!gateway.everything_written().contains("key-123"));
}

#[test]
fn without_a_credential_plan_the_server_sees_no_authorization() {
    let world = World::start();
    world.reader().call("read", json!({}));
    assert_eq!(world.tickets.only("tools/call").header("authorization"), None);
}

#[test]
fn claims_are_forwarded_in_headers_of_our_own_making() {
    let claims = json!({ "sub": "X-User-Id", "email": "X-User-Email" });
    let world = World::with(|conf| conf.of_server("forward_claims", claims));
    let caller = world.gateway.caller(world.reader_token().claim("email", "alice@corp.test"));
    caller.header("X-User-Id", "root").header("x-user-email", "root@corp.test").call("read", json!({}));
    let seen = world.tickets.only("tools/call");
    for (header, value) in [("x-user-id", "alice"), ("x-user-email", "alice@corp.test")] {
        assert_eq!(seen.headers.get_all(header).iter().collect::<Vec<_>>(), [value]);
    }
}

/// A claim is attacker-controlled text as far as headers go.
#[test]
fn a_claim_that_is_no_header_value_is_left_out_and_the_clients_copy_is_stripped_all_the_same() {
    let world = World::with(|conf| conf.of_server("forward_claims", json!({ "email": "X-User-Email" })));
    for claim in [json!("a\r\nX-Injected: 1"), json!({ "nested": true }), json!(["a"])] {
        world.tickets.forget();
        let caller = world.gateway.caller(world.reader_token().claim("email", claim.clone()));
        caller.header("X-User-Email", "root@corp.test").call("read", json!({}));
        for seen in world.tickets.seen() {
            assert_eq!(seen.header("x-injected"), None, "{claim}");
            assert_ne!(seen.header("x-user-email"), Some("root@corp.test"), "{claim}");
        }
    }
}

#[test]
fn headers_of_the_client_that_claim_something_do_not_go_upstream() {
    let world = World::start();
    let mut caller = world.reader();
    let claims = [
        "Cookie",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-User",
        "X-Real-IP",
        "Proxy-Authorization",
        "X-Auth-Subject",
    ];
    for name in claims {
        caller = caller.header(name, "spoofed-by-the-client");
    }
    assert_eq!(caller.call("read", json!({})).status(), 200);
    let seen = world.tickets.only("tools/call");
    assert!(!seen.everything().contains("spoofed-by-the-client"), "{seen:#?}");
}

#[test]
fn headers_of_the_server_that_concern_only_us_do_not_come_back() {
    let world = World::start();
    world.tickets.on_tool("read", |seen| {
        crate::support::Reply::result(seen, json!({ "content": [] }))
            .with("set-cookie", "sid=evil")
            .with("server", "evil/1")
            .with("www-authenticate", "Bearer evil")
            .with("access-control-allow-origin", "*")
    });
    let answer = world.reader().call("read", json!({}));
    assert_eq!(answer.status(), 200);
    for name in ["set-cookie", "www-authenticate", "access-control-allow-origin"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_ne!(answer.header("server"), Some("evil/1"));
}
