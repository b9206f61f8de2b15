//! Whose token is believed, and for how long?

use serde_json::{Value, json};

use crate::support::{Alg, Conf, Gateway, Idp, McpServer, Token, World, poll_until, usual};

/// An issuer whose keys are fetched again as often as a configuration may ask: every ten seconds, and at most once a second
/// for an unknown key.
fn with_quick_keys(idp: &Idp, tickets: &McpServer) -> Conf {
    usual(idp, tickets).set("issuers.0.jwks_refresh", "10s").set("issuers.0.jwks_cooldown", "1s")
}

fn status(gateway: &Gateway, token: impl Into<String>) -> u16 {
    gateway.caller(token).list().status()
}

#[test]
fn every_configured_algorithm_is_believed() {
    let world = World::start();
    for alg in [Alg::Rs256, Alg::Es256, Alg::EdDsa] {
        assert_eq!(status(&world.gateway, world.reader_token().alg(alg)), 200, "{alg:?}");
    }
}

#[test]
fn an_algorithm_that_is_not_configured_is_not_believed() {
    let world = World::with(|conf| conf.set("issuers.0.algorithms", json!(["ES256"])));
    assert_eq!(status(&world.gateway, world.reader_token().alg(Alg::Es256)), 200);
    let answer = world.gateway.caller(world.reader_token().alg(Alg::Rs256)).list();
    answer.assert_refused(401, "invalid_token");
}

/// Each of these is a token somebody tried on somebody's gateway.
#[test]
fn tokens_that_are_not_good_are_refused() {
    let world = World::start();
    let idp = &world.idp;
    let token = || world.reader_token();
    let duplicate_sub = |text: String| format!(r#"{},"sub":"root"}}"#, text.trim_end_matches('}'));
    let tokens: Vec<(&str, String)> = vec![
        ("alg none", token().unsigned()),
        ("signature stripped", token().signature_stripped()),
        ("HS256 with the public key", token().hs256_with_the_public_key()),
        ("an attacker's key under our kid", token().signed_by_an_attacker().header("kid", "ec-1").sign()),
        ("an attacker's key under another kid", token().signed_by_an_attacker().header("kid", "x' OR 1=1").sign()),
        ("a key in the header", token().header("jwk", json!({ "kty": "oct", "k": "AA" })).sign()),
        ("a key's URL in the header", token().header("jku", "http://127.0.0.1:1/jwks").sign()),
        ("a certificate's URL in the header", token().header("x5u", "http://127.0.0.1:1/x").sign()),
        ("an unknown critical header", token().header("crit", json!(["b64"])).header("b64", false).sign()),
        ("expired", token().expires_in(-120).sign()),
        ("without expiry", token().without("exp").sign()),
        ("expiry as text", token().claim("exp", "9999999999").sign()),
        ("not yet valid", token().claim("nbf", 99_999_999_999_i64).sign()),
        ("another audience", token().audience("https://mcp.example.test/other").sign()),
        ("audience with a slash more", token().audience("https://mcp.example.test/mcp/").sign()),
        ("without audience", token().without("aud").sign()),
        ("another issuer", token().claim("iss", "https://evil.test").sign()),
        ("issuer with a slash more", token().claim("iss", format!("{}/", idp.issuer())).sign()),
        ("without issuer", token().without("iss").sign()),
        ("without subject", token().without("sub").sign()),
        ("two subjects", token().payload(duplicate_sub).sign()),
        ("an ID token by its nonce", token().typ("JWT").claim("nonce", "n").sign()),
        ("an ID token by its at_hash", token().typ("JWT").claim("at_hash", "h").sign()),
        ("another kind of JWT", token().typ("dpop+jwt").sign()),
        ("ES256 said, RS256 done", token().header("alg", "ES256").sign()),
        ("not a JWT", "abc.def.ghi".into()),
        ("opaque", "abcdef".into()),
        ("five parts", "a.b.c.d.e".into()),
    ];
    for (what, token) in tokens {
        let answer = world.gateway.caller(token).list();
        assert_eq!(answer.status(), 401, "{what}: {}", answer.0);
        assert_eq!(answer.reason(), "invalid_token", "{what}");
        answer.assert_refused(401, "invalid_token");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn tokens_that_are_good_are_believed() {
    let world = World::start();
    let token = || world.reader_token();
    let tokens: Vec<(&str, Token)> = vec![
        ("audience among others", token().audience(json!(["https://other.test", "https://mcp.example.test/mcp"]))),
        ("type JWT", token().typ("JWT")),
        ("type with its prefix", token().typ("application/at+jwt")),
        ("type of another case", token().typ("AT+JWT")),
        ("without type", token().without_header("typ")),
        ("without key id", token().without_header("kid")),
        ("expired within the leeway", token().expires_in(-5)),
        ("scopes in scp, as a list", token().without("scope").claim("scp", json!(["tickets:read"]))),
    ];
    for (what, token) in tokens {
        let answer = world.gateway.caller(token).call("read", json!({}));
        assert_eq!(answer.status(), 200, "{what}: {}", answer.0);
    }
}

#[test]
fn an_id_token_is_believed_only_where_the_configuration_says_so() {
    let world = World::with(|conf| conf.set("issuers.0.accept_id_tokens", true));
    assert_eq!(status(&world.gateway, world.reader_token().typ("JWT").claim("nonce", "n")), 200);
}

#[test]
fn the_scheme_counts_in_any_case_but_the_token_stands_in_the_header_only() {
    let world = World::start();
    let token = world.reader_token().sign();
    for scheme in ["bearer", "BEARER", "Bearer"] {
        let caller = world.gateway.stranger().header("Authorization", &format!("{scheme} {token}"));
        assert_eq!(caller.list().status(), 200, "{scheme}");
    }
    let query = world.gateway.stranger().at(&format!("/mcp?access_token={token}")).list();
    query.assert_refused(401, "missing_token");
    assert!(!world.gateway.everything_written().contains(&token), "a token from a query was written down");
}

/// RFC 6750 §2: a client uses one method, once. Which of two would count is a guess nobody should make.
#[test]
fn two_authorization_headers_are_malformed() {
    let world = World::start();
    let token = world.reader_token().sign();
    let answer = world.gateway.caller(&token).header("Authorization", "Bearer other").list();
    assert_eq!(answer.status(), 400, "{}", answer.0);
    world.tickets.assert_saw_nothing();
}

#[test]
fn a_new_key_is_fetched_when_a_token_names_it() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let gateway = Gateway::start(with_quick_keys(&idp, &tickets));
    let kid = idp.add_key();
    poll_until("the new key to be believed", || (status(&gateway, idp.token().signed_by(&kid)) == 200).then_some(()));
}

#[test]
fn a_removed_key_ends_the_tokens_it_signed() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let gateway = Gateway::start(with_quick_keys(&idp, &tickets));
    let (doomed, other) = (idp.token().alg(Alg::Es256).sign(), idp.token().sign());
    assert_eq!(status(&gateway, &doomed), 200);
    idp.remove_key("ec-1");
    poll_until("the token to be refused", || (status(&gateway, &doomed) == 401).then_some(()));
    assert_eq!(status(&gateway, &other), 200);
}

#[test]
fn the_last_good_keys_serve_while_the_issuer_is_down() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let gateway = Gateway::start(with_quick_keys(&idp, &tickets));
    idp.stop();
    poll_until("a refresh that failed", || {
        let failed: f64 = gateway
            .metrics()
            .lines()
            .filter(|line| line.starts_with("portcullis_jwks_refreshes_total") && !line.contains("\"ok\""))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum();
        (failed > 0.0).then_some(())
    });
    assert_eq!(status(&gateway, idp.token()), 200);
}

#[test]
fn an_issuer_that_is_down_at_the_start_is_found_when_it_comes_up() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    idp.stop();
    let gateway = Gateway::start_unready(with_quick_keys(&idp, &tickets));
    assert_eq!(gateway.admin("/readyz").status, 503);
    gateway.caller(idp.token()).list().assert_refused(401, "invalid_token");
    idp.start_again();
    poll_until("readiness", || (gateway.admin("/readyz").status == 200).then_some(()));
    assert_eq!(status(&gateway, idp.token()), 200);
}

/// OpenID Connect Discovery §4.3: the `issuer` in the metadata must be the one it was fetched for.
#[test]
fn metadata_of_another_issuer_is_not_believed() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    idp.claim_to_be("https://evil.test");
    let gateway = Gateway::start_unready(with_quick_keys(&idp, &tickets));
    assert_eq!(gateway.admin("/readyz").status, 503);
    gateway.caller(idp.token()).list().assert_refused(401, "invalid_token");
}

#[test]
fn one_bad_key_does_not_spoil_the_set() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    for junk in [
        json!({ "kty": "RSA", "kid": "broken", "n": "!!", "e": "AQAB" }),
        json!({ "kty": "oct", "kid": "secret", "k": "AAAA" }),
        json!({ "kty": "XYZ" }),
        json!("not even an object"),
        json!({ "kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQAB", "e": "AQAB" }),
    ] {
        idp.publish(junk);
    }
    let gateway = Gateway::start(usual(&idp, &tickets));
    assert_eq!(status(&gateway, idp.token()), 200);
}

/// A flood of made-up key ids must not become a flood at the issuer.
#[test]
fn unknown_key_ids_cost_one_fetch_per_cooldown() {
    let world = World::start();
    let before = world.idp.jwks_fetches();
    for number in 0..50 {
        let token = world.idp.token().signed_by_an_attacker().header("kid", format!("made-up-{number}"));
        assert_eq!(status(&world.gateway, token), 401);
    }
    assert!(world.idp.jwks_fetches() <= before + 1, "{} fetches", world.idp.jwks_fetches() - before);
}

#[test]
fn keys_can_come_from_a_url_or_a_file() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let address = idp.issuer().strip_prefix("http://").unwrap().parse().unwrap();
    let set = crate::support::send(address, &crate::support::Request::get("/jwks")).text();
    let url = usual(&idp, &tickets).set("issuers.0.jwks", json!({ "url": idp.jwks_url() }));
    let file = usual(&idp, &tickets).set("issuers.0.jwks", json!({ "file": "DIR/keys.json" }));
    for conf in [url, file.file("keys.json", &set, 0o644)] {
        let gateway = Gateway::start(conf);
        assert_eq!(status(&gateway, idp.token()), 200);
    }
}

#[test]
fn several_issuers_can_vouch_on_one_route_each_for_its_own() {
    let (corp, partner, tickets) = (Idp::start(), Idp::start(), McpServer::start().tool("read"));
    let conf = usual(&corp, &tickets).issuer("partner", &partner, json!({ "audiences": ["api://partner"] }));
    let gateway = Gateway::start(conf);
    assert_eq!(status(&gateway, corp.token()), 200);
    assert_eq!(status(&gateway, partner.token().audience("api://partner")), 200);
    assert_eq!(status(&gateway, partner.token()), 401, "the partner's audience is its own");
    let forged = partner.token().audience("api://partner").claim("iss", corp.issuer());
    assert_eq!(status(&gateway, forged), 401, "a partner's key does not vouch for corp");
}

#[test]
fn an_issuer_that_a_route_does_not_name_is_not_believed_there() {
    let (corp, partner, tickets) = (Idp::start(), Idp::start(), McpServer::start().tool("read"));
    let conf = usual(&corp, &tickets).issuer("partner", &partner, json!({})).of_route("issuers", json!(["corp"]));
    let gateway = Gateway::start(conf);
    assert_eq!(status(&gateway, corp.token()), 200);
    gateway.caller(partner.token()).list().assert_refused(401, "invalid_token");
}

#[test]
fn the_audit_record_names_the_principal_by_issuer_and_subject() {
    let world = World::start();
    let token = world.reader_token().claim("jti", "token-7").claim("client_id", "agent-9");
    world.gateway.caller(token).call("read", json!({}));
    let record = world.gateway.audited();
    let expected = json!({
        "issuer": world.idp.issuer(), "subject": "alice", "client_id": "agent-9", "token_id": "token-7",
    });
    assert_eq!(record["principal"], expected);
    assert_eq!(record["agent"], Value::Null);
}
