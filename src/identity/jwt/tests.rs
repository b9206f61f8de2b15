//! Which tokens are believed. One test per known attack, named for what must happen.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up should fail loudly"
)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::testkit;
use crate::identity::testkit::TestKey;
use crate::identity::testkit::encode;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const ISSUER: &str = "https://idp.test";
const RESOURCE: &str = "https://mcp.test/mcp";
const ALL: [Algorithm; 9] = [
    Algorithm::EdDSA,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

#[test]
fn a_good_token_is_believed_with_every_algorithm() {
    for algorithm in ALL {
        let issuer = Issuer::with(algorithm);
        let caller = issuer.verify(&issuer.key.sign(&claims())).unwrap();
        assert_eq!(caller.principal(), &Principal { issuer: ISSUER.into(), subject: "alice".into() }, "{algorithm:?}");
    }
}

#[test]
fn the_proof_says_who_calls_with_what_and_until_when() {
    let issuer = Issuer::new();
    let caller = issuer.verify(&issuer.key.sign(&claims())).unwrap();
    assert_eq!(&**caller.issuer_name(), "corp");
    assert_eq!(caller.client_id().map(|id| &**id), Some("agent-1"));
    assert_eq!(caller.token_id().map(|id| &**id), Some("t-1"));
    assert_eq!(caller.scopes(), &Scopes::new(["read", "write"]));
    assert_eq!(caller.expires_at(), UnixSeconds(1_700_000_600));
    assert!(issuer.keys.contains(caller.key()));
    let mut expected = claims();
    expected.as_object_mut().unwrap().remove("scope");
    assert_eq!(caller.claims(), expected.as_object().unwrap());
}

#[test]
fn peeking_tells_issuer_and_key_and_believes_nothing() {
    let attacker = TestKey::new("evil", Algorithm::EdDSA);
    let token = attacker.sign(&claims());
    let unverified = peek(&token).unwrap();
    assert_eq!(
        (unverified.issuer(), unverified.kid(), unverified.algorithm()),
        (ISSUER, Some("evil"), Algorithm::EdDSA)
    );
    assert_eq!(format!("{unverified:?}"), "Unverified(…)");
}

// ── Signature and key ──────────────────────────────────────────────────────────────────────────────────────────────

/// RFC 8725 §2.1, §3.2.
#[test]
fn a_token_without_signature_is_refused_however_none_is_spelled() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let token = unsigned(&json!({ "alg": alg, "kid": "k1" }), "");
        assert_eq!(Issuer::new().verify(&token).unwrap_err(), AuthnError::UnsupportedAlgorithm, "{alg}");
    }
}

/// RFC 8725 §2.1: the public key, which everybody has, taken as an HMAC secret.
#[test]
fn a_public_key_is_never_a_shared_secret() {
    let issuer = Issuer::with(Algorithm::RS256);
    let jwk = issuer.key.jwk();
    for secret in [jwk["n"].as_str().unwrap().as_bytes(), jwk.to_string().as_bytes(), b""] {
        for alg in ["HS256", "HS384", "HS512"] {
            let signed = parts(&json!({ "alg": alg, "kid": "k1", "typ": "at+jwt" }), &claims());
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = ring::hmac::sign(&key, signed.as_bytes());
            let token = testkit::token(&format!("{signed}.{}", encode(tag.as_ref())));
            assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::UnsupportedAlgorithm);
        }
    }
}

#[test]
fn a_stripped_signature_is_refused() {
    let issuer = Issuer::new();
    let token = issuer.key.sign(&claims());
    let (signed, _) = token.as_str().rsplit_once('.').unwrap();
    assert_eq!(issuer.verify(&testkit::token(&format!("{signed}."))).unwrap_err(), AuthnError::BadSignature);
}

#[test]
fn claims_that_were_changed_are_refused_with_every_algorithm() {
    for algorithm in ALL {
        let issuer = Issuer::with(algorithm);
        let token = issuer.key.sign(&claims());
        let mut parts: Vec<&str> = token.as_str().split('.').collect();
        let changed = encode(claims_with("sub", json!("root")).to_string().as_bytes());
        parts[1] = &changed;
        assert_eq!(
            issuer.verify(&testkit::token(&parts.join("."))).unwrap_err(),
            AuthnError::BadSignature,
            "{algorithm:?}"
        );
    }
}

/// One RSA key, two algorithms: the signature of one is none of the other.
#[test]
fn an_rsa_signature_is_good_for_its_own_algorithm_only() {
    let mut issuer = Issuer::with(Algorithm::RS256);
    issuer.policy.algorithms = ALL.to_vec();
    let mut jwk = issuer.key.jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    issuer.keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    for (alg, expected) in [
        ("RS256", None),
        ("PS256", Some(AuthnError::BadSignature)),
        ("RS512", Some(AuthnError::BadSignature)),
        ("ES256", Some(AuthnError::UnknownKey)),
        ("EdDSA", Some(AuthnError::UnknownKey)),
    ] {
        let token = issuer.key.sign_with(&json!({ "alg": alg, "kid": "k1" }), &claims());
        assert_eq!(issuer.verify(&token).err(), expected, "{alg}");
    }
}

/// CVE-2022-21449: an ECDSA signature of zeros fits every message where r and s are not checked.
#[test]
fn an_ecdsa_signature_of_zeros_is_refused() {
    let issuer = Issuer::with(Algorithm::ES256);
    let signed = parts(&json!({ "alg": "ES256", "kid": "k1" }), &claims());
    for signature in [vec![0; 64], vec![0; 63], vec![], vec![0xff; 64]] {
        let token = testkit::token(&format!("{signed}.{}", encode(&signature)));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::BadSignature);
    }
}

#[test]
fn a_token_signed_by_an_attacker_under_the_name_of_a_known_key_is_refused() {
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::ES384] {
        let attacker = TestKey::new("k1", algorithm);
        assert_eq!(
            Issuer::with(algorithm).verify(&attacker.sign(&claims())).unwrap_err(),
            AuthnError::BadSignature,
            "{algorithm:?}"
        );
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let issuer = Issuer::new();
    for kid in ["1' OR 1=1--", "../../dev/null", "", "K1", "k1 ", "http://127.0.0.1/jwks"] {
        let token = issuer.key.sign_with(&json!({ "alg": "ES256", "kid": kid }), &claims());
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::UnknownKey, "{kid}");
    }
}

#[test]
fn a_token_without_kid_is_tried_with_the_keys_that_fit() {
    let issuer = Issuer::new();
    let other = TestKey::new("k0", Algorithm::ES256);
    let keys = KeySet::parse(&TestKey::jwks([&other, &issuer.key])).unwrap();
    let header = json!({ "alg": "ES256" });
    let believed = verify(&issuer.key.sign_with(&header, &claims()), &issuer.policy, &keys, RESOURCE, NOW).unwrap();
    assert!(keys.contains(believed.key()) && issuer.keys.contains(believed.key()));
    let attacker = TestKey::new("k1", Algorithm::ES256);
    assert_eq!(
        verify(&attacker.sign_with(&header, &claims()), &issuer.policy, &keys, RESOURCE, NOW).unwrap_err(),
        AuthnError::BadSignature
    );
}

/// RFC 8725 §3.1: a key is used with the algorithm it is for.
#[test]
fn an_rsa_key_for_pss_verifies_no_pkcs_1_signature() {
    let key = TestKey::new("k1", Algorithm::RS256);
    let mut jwk = key.jwk();
    jwk["alg"] = "PS256".into();
    let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let issuer = Issuer::with(Algorithm::RS256);
    assert_eq!(verify(&key.sign(&claims()), &issuer.policy, &keys, RESOURCE, NOW).unwrap_err(), AuthnError::UnknownKey);
}

#[test]
fn an_algorithm_the_issuer_may_not_use_is_refused_although_its_key_is_there() {
    let mut issuer = Issuer::with(Algorithm::RS256);
    issuer.policy.algorithms = vec![Algorithm::ES256, Algorithm::PS256];
    assert_eq!(issuer.verify(&issuer.key.sign(&claims())).unwrap_err(), AuthnError::UnsupportedAlgorithm);
}

/// RFC 8725 §3.10.
#[test]
fn a_key_in_the_header_is_never_taken() {
    let issuer = Issuer::new();
    let attacker = TestKey::new("k1", Algorithm::ES256);
    for (name, value) in [
        ("jwk", attacker.jwk()),
        ("jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", json!("https://evil.test/cert")),
        ("x5c", json!(["MIIB"])),
        ("jwk", Value::Null),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "k1" });
        header[name] = value;
        for key in [&attacker, &issuer.key] {
            assert_eq!(
                issuer.verify(&key.sign_with(&header, &claims())).unwrap_err(),
                AuthnError::KeyInHeader,
                "{name}"
            );
        }
    }
}

/// RFC 7515 §4.1.11.
#[test]
fn a_critical_extension_is_refused_whatever_it_is() {
    let issuer = Issuer::new();
    for crit in [json!(["x"]), json!(["b64"]), json!([]), json!("exp"), Value::Null] {
        let header = json!({ "alg": "ES256", "kid": "k1", "crit": crit, "x": 1, "b64": false });
        assert_eq!(
            issuer.verify(&issuer.key.sign_with(&header, &claims())).unwrap_err(),
            AuthnError::UnsupportedCritical
        );
    }
}

#[test]
fn only_a_token_that_lacks_a_key_of_this_issuer_is_a_reason_to_fetch_keys() {
    let issuer = Issuer::new();
    let newer = TestKey::new("k2", Algorithm::ES256);
    let lacks = |token: &UnverifiedToken| peek(token).unwrap().lacks_key(&issuer.policy, &issuer.keys);
    assert!(lacks(&newer.sign(&claims())));
    assert!(!lacks(&issuer.key.sign(&claims())));
    assert!(!lacks(&TestKey::new("k2", Algorithm::ES384).sign(&claims())));
    assert!(!lacks(&newer.sign(&claims_with("iss", json!("https://evil.test")))));
}

// ── Shape ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_not_a_signed_jwt_is_malformed() {
    let issuer = Issuer::new();
    let token = issuer.key.sign(&claims());
    let good = token.as_str();
    let (head, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    for text in [
        "opaque",
        "a.b",
        "..",
        &format!("{head}.{payload}"),
        &format!("{good}.{signature}"),
        &format!("{good}.{signature}.{signature}"),
        &format!("{good}="),
        &format!("{head}..{signature}"),
        &format!(".{payload}.{signature}"),
        &format!("{head}.{payload}.{signature}/"),
    ] {
        assert_eq!(issuer.verify(&testkit::token(text)).unwrap_err(), AuthnError::Malformed, "{text}");
    }
    for (header, payload) in [
        ("[]", "{}"),
        ("{}", "{}"),
        (r#"{"alg":1}"#, "{}"),
        (r#"{"alg":"ES256","kid":1}"#, "{}"),
        (r#"{"alg":"ES256","typ":null}"#, "{}"),
        (r#"{"alg":"ES256"}"#, "[]"),
        (r#"{"alg":"ES256"}"#, "\"eyJ\""),
        (r#"{"alg":"ES256"}"#, "{} {}"),
        (r#"{"alg":"ES256"}"#, r#"{"exp":1e999}"#),
    ] {
        let token = issuer.key.sign_texts(header, payload);
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::Malformed, "{header} {payload}");
    }
}

/// RFC 7515 §2: one signature has one spelling, so bits left over in its last character are zero.
#[test]
fn a_signature_spelled_another_way_is_malformed() {
    let issuer = Issuer::new();
    let token = issuer.key.sign(&claims()).as_str().to_owned();
    // 64 bytes are 85 whole characters and one that carries two bits: A, Q, g or w.
    let (last, other) = match token.chars().last() {
        Some('A') => ('A', 'B'),
        Some('Q') => ('Q', 'R'),
        Some('g') => ('g', 'h'),
        _ => ('w', 'x'),
    };
    let respelled = format!("{}{other}", token.strip_suffix(last).unwrap());
    assert_eq!(issuer.verify(&testkit::token(&respelled)).unwrap_err(), AuthnError::Malformed);
}

/// RFC 7519 §4: readers differ in which of two members counts.
#[test]
fn a_member_named_twice_is_refused_in_header_and_claims() {
    let issuer = Issuer::new();
    let header = r#"{"alg":"ES256","kid":"k1"}"#;
    let twice = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let deep = claims().to_string().replacen('{', r#"{"act":{"sub":"a","sub":"b"},"#, 1);
    let escaped = claims().to_string().replacen('{', r#"{"\u0073ub":"root","#, 1);
    for (header, claims) in [
        (header, twice),
        (header, deep),
        (header, escaped),
        (r#"{"alg":"none","alg":"ES256","kid":"k1"}"#, claims().to_string()),
        (r#"{"alg":"ES256","kid":"k0","kid":"k1"}"#, claims().to_string()),
    ] {
        let token = issuer.key.sign_texts(header, &claims);
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::DuplicateClaim, "{header} {claims}");
    }
}

#[test]
fn a_deeply_nested_token_is_refused_without_harm() {
    let issuer = Issuer::new();
    let deep = format!(r#"{{"iss":"{ISSUER}","a":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
    let token = issuer.key.sign_texts(r#"{"alg":"ES256","kid":"k1"}"#, &deep);
    assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::Malformed);
}

// ── Issuer and audience ────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_issuer_is_compared_exactly() {
    let issuer = Issuer::new();
    for iss in ["https://evil.test", "https://idp.test/", "https://IDP.test", "https://idp.test.evil.test", "idp.test"]
    {
        let token = issuer.key.sign(&claims_with("iss", json!(iss)));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::WrongIssuer, "{iss}");
    }
}

/// RFC 9068 §4: `aud` must name this server, or the token was meant for someone else.
#[test]
fn a_token_minted_for_another_server_is_refused() {
    let issuer = Issuer::new();
    for aud in [
        json!("https://other.test/mcp"),
        json!("https://mcp.test/mcp/"),
        json!("https://mcp.test"),
        json!("https://MCP.test/mcp"),
        json!("https://mcp.test/mcp2"),
        json!("https://mcp.test/mc"),
        json!("cli"),
        json!("*"),
        json!(""),
        json!([]),
        json!(["https://other.test/mcp", "account"]),
    ] {
        let token = issuer.key.sign(&claims_with("aud", aud.clone()));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::WrongAudience, "{aud}");
    }
}

#[test]
fn one_of_several_audiences_may_be_ours() {
    let issuer = Issuer::new();
    let token = issuer.key.sign(&claims_with("aud", json!(["https://other.test/", RESOURCE])));
    assert!(issuer.verify(&token).is_ok());
}

#[test]
fn configured_audiences_take_the_place_of_the_resource_identifier() {
    let mut issuer = Issuer::new();
    issuer.policy.audiences = vec!["api://tickets".into(), "tickets".into()];
    assert!(issuer.verify(&issuer.key.sign(&claims_with("aud", json!("tickets")))).is_ok());
    assert_eq!(issuer.verify(&issuer.key.sign(&claims())).unwrap_err(), AuthnError::WrongAudience);
}

#[test]
fn an_audience_that_is_no_text_is_refused_even_beside_ours() {
    let issuer = Issuer::new();
    for aud in [json!(1), json!({ "a": RESOURCE }), Value::Null, json!([RESOURCE, 1]), json!([[RESOURCE]])] {
        let token = issuer.key.sign(&claims_with("aud", aud.clone()));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::InvalidClaim, "{aud}");
    }
}

// ── Claims ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_claims_of_an_access_token_are_required() {
    let issuer = Issuer::new();
    for name in ["iss", "sub", "aud", "exp"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(issuer.verify(&issuer.key.sign(&claims)).unwrap_err(), AuthnError::MissingClaim, "{name}");
    }
}

#[test]
fn claims_of_another_type_are_refused() {
    let issuer = Issuer::new();
    for (name, value) in [
        ("iss", json!([ISSUER])),
        ("iss", Value::Null),
        ("iss", json!("")),
        ("sub", json!(1)),
        ("sub", json!(["alice"])),
        ("sub", json!("")),
        ("exp", json!("1700000600")),
        ("exp", Value::Null),
        ("exp", json!(true)),
        ("nbf", json!("0")),
        ("iat", json!({})),
        ("client_id", json!(7)),
        ("jti", json!(7)),
        ("scope", json!(7)),
        ("scope", json!({ "a": 1 })),
        ("scp", json!(["a", 1])),
    ] {
        let token = issuer.key.sign(&claims_with(name, value.clone()));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::InvalidClaim, "{name} {value}");
    }
}

#[test]
fn times_hold_to_the_second_with_the_leeway_of_the_issuer() {
    let issuer = Issuer::new();
    let now = NOW.0;
    let cases = [
        ("exp", json!(now - 29), None),
        ("exp", json!(now - 30), Some(AuthnError::Expired)),
        ("exp", json!(1_699_999_970.9), Some(AuthnError::Expired)),
        ("exp", json!(1_699_999_971.1), None),
        ("exp", json!(1.7e12), None),
        ("exp", json!(1e300), None),
        ("exp", json!(u64::MAX), None),
        ("exp", json!(0), Some(AuthnError::Expired)),
        ("exp", json!(-1), Some(AuthnError::Expired)),
        ("exp", json!(-1e300), Some(AuthnError::Expired)),
        ("nbf", json!(now + 30), None),
        ("nbf", json!(1_700_000_030.1), Some(AuthnError::NotYetValid)),
        ("nbf", json!(now + 31), Some(AuthnError::NotYetValid)),
        ("nbf", json!(now + 3600), Some(AuthnError::NotYetValid)),
        ("nbf", json!(1e300), Some(AuthnError::NotYetValid)),
        ("nbf", json!(-5), None),
        ("iat", json!(now + 30), None),
        ("iat", json!(now + 31), Some(AuthnError::NotYetValid)),
        ("iat", json!(0), None),
    ];
    for (name, value, expected) in cases {
        let token = issuer.key.sign(&claims_with(name, value.clone()));
        assert_eq!(issuer.verify(&token).err(), expected, "{name} {value}");
    }
}

#[test]
fn a_fraction_of_a_second_never_lengthens_a_token() {
    let issuer = Issuer::new();
    let caller = issuer.verify(&issuer.key.sign(&claims_with("exp", json!(1_700_000_600.9)))).unwrap();
    assert_eq!(caller.expires_at(), UnixSeconds(1_700_000_600));
}

#[test]
fn scopes_are_the_union_of_the_scope_claims_and_no_longer_claims() {
    let issuer = Issuer::new();
    let cases = [
        (json!("read write"), json!(null), vec!["read", "write"]),
        (json!("write  read "), json!(["admin", "read"]), vec!["admin", "read", "write"]),
        (json!(["a", "b"]), json!("c"), vec!["a", "b", "c"]),
        (json!(""), json!([]), vec![]),
        (json!(null), json!(null), vec![]),
        // An element is one scope: taken apart it would grant what the issuer did not.
        (json!(["read write"]), json!(null), vec!["read write"]),
        (json!("READ"), json!(null), vec!["READ"]),
    ];
    for (scope, scp, expected) in cases {
        let mut claims = claims_with("scope", scope.clone());
        claims["scp"] = scp.clone();
        let caller = issuer.verify(&issuer.key.sign(&claims)).unwrap();
        assert_eq!(caller.scopes(), &Scopes::new(expected), "{scope} {scp}");
        assert!(!caller.claims().contains_key("scope") && !caller.claims().contains_key("scp"));
    }
}

#[test]
fn azp_names_the_client_where_client_id_does_not() {
    let issuer = Issuer::new();
    let mut claims = claims_with("azp", json!("other"));
    assert_eq!(issuer.verify(&issuer.key.sign(&claims)).unwrap().client_id().map(|id| &**id), Some("agent-1"));
    claims.as_object_mut().unwrap().remove("client_id");
    assert_eq!(issuer.verify(&issuer.key.sign(&claims)).unwrap().client_id().map(|id| &**id), Some("other"));
}

// ── Kinds of tokens ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_access_token_says_so_in_any_spelling_of_the_media_type() {
    let issuer = Issuer::new();
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt", "JWT", "jwt", "application/jwt"] {
        let token = issuer.key.sign_with(&json!({ "alg": "ES256", "kid": "k1", "typ": typ }), &claims());
        assert!(issuer.verify(&token).is_ok(), "{typ}");
    }
    assert!(issuer.verify(&issuer.key.sign_with(&json!({ "alg": "ES256", "kid": "k1" }), &claims())).is_ok());
}

/// RFC 8725 §3.11.
#[test]
fn a_jwt_of_another_kind_is_no_access_token() {
    for types in [TokenTypes::AccessTokenOnly, TokenTypes::AnyButIdToken, TokenTypes::WithIdTokens] {
        let mut issuer = Issuer::new();
        issuer.policy.token_types = types;
        for typ in [
            "dpop+jwt",
            "logout+jwt",
            "secevent+jwt",
            "oauth-id-jag+jwt",
            "token-introspection+jwt",
            "application/logout+jwt",
            "oauth-authz-req+jwt",
            "entity-statement+jwt",
            "vc+sd-jwt",
            "id_token",
            "JOSE",
            "text/at+jwt",
            "at+jwt ",
            "",
        ] {
            let token = issuer.key.sign_with(&json!({ "alg": "ES256", "kid": "k1", "typ": typ }), &claims());
            assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::WrongType, "{typ}");
        }
        for (name, value) in [
            ("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} })),
            ("typ", json!("Refresh")),
            ("typ", json!("Offline")),
            ("typ", json!("Logout")),
            ("token_use", json!("refresh")),
        ] {
            let token = issuer.key.sign(&claims_with(name, value.clone()));
            assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::WrongType, "{name} {value}");
        }
    }
}

/// RFC 9068 §4 and §5: the same issuer signs both kinds with the same keys.
#[test]
fn an_id_token_is_no_access_token_unless_the_issuer_is_configured_so() {
    let jwt = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
    for (name, value) in [
        ("nonce", json!("n")),
        ("at_hash", json!("h")),
        ("c_hash", json!("h")),
        ("s_hash", json!("h")),
        ("typ", json!("ID")),
        ("typ", json!("id_token")),
        ("token_use", json!("id")),
    ] {
        let mut issuer = Issuer::new();
        let token = issuer.key.sign_with(&jwt, &claims_with(name, value.clone()));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::WrongType, "{name} {value}");
        issuer.policy.token_types = TokenTypes::WithIdTokens;
        assert!(issuer.verify(&token).is_ok(), "{name} {value}");
    }
}

#[test]
fn an_access_token_that_says_so_may_carry_a_nonce() {
    let issuer = Issuer::new();
    let jwt = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
    for (name, value) in [("typ", json!("Bearer")), ("token_use", json!("access"))] {
        let mut claims = claims_with("nonce", json!("n"));
        claims[name] = value;
        assert!(issuer.verify(&issuer.key.sign_with(&jwt, &claims)).is_ok(), "{name}");
    }
    assert!(issuer.verify(&issuer.key.sign(&claims_with("nonce", json!("n")))).is_ok());
}

#[test]
fn a_strict_issuer_takes_at_jwt_only() {
    let mut issuer = Issuer::new();
    issuer.policy.token_types = TokenTypes::AccessTokenOnly;
    assert!(issuer.verify(&issuer.key.sign(&claims())).is_ok());
    for header in [json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" }), json!({ "alg": "ES256", "kid": "k1" })] {
        assert_eq!(issuer.verify(&issuer.key.sign_with(&header, &claims())).unwrap_err(), AuthnError::WrongType);
    }
}

/// RFC 9449 §7.1, RFC 8705 §3: stolen without its key, such a token is worth nothing; taken as Bearer it would be.
#[test]
fn a_token_bound_to_a_key_of_its_sender_is_no_bearer_token() {
    let issuer = Issuer::new();
    for cnf in [json!({ "jkt": "x" }), json!({ "x5t#S256": "x" }), json!({}), Value::Null] {
        let token = issuer.key.sign(&claims_with("cnf", cnf.clone()));
        assert_eq!(issuer.verify(&token).unwrap_err(), AuthnError::SenderConstrained, "{cnf}");
    }
}

/// What an attacker wrote is answered by its signature, not by which of our claims it missed.
#[test]
fn the_signature_is_judged_before_the_claims() {
    let attacker = TestKey::new("k1", Algorithm::ES256);
    let mut claims = claims_with("exp", json!(0));
    claims["aud"] = json!("other");
    assert_eq!(Issuer::new().verify(&attacker.sign(&claims)).unwrap_err(), AuthnError::BadSignature);
}

proptest! {
    /// No bit of a token can be changed.
    #[test]
    fn a_token_with_any_character_changed_is_refused(position in 0..400_usize, replacement in "[A-Za-z0-9._-]") {
        let issuer = Issuer::with(Algorithm::EdDSA);
        let good = issuer.key.sign(&claims()).as_str().to_owned();
        let position = position % good.len();
        let mut changed = good.clone();
        changed.replace_range(position..=position, &replacement);
        prop_assume!(changed != good);
        prop_assert!(issuer.verify(&testkit::token(&changed)).is_err());
    }

    /// No text crashes the reader.
    #[test]
    fn any_text_is_read_or_refused(text in "[A-Za-z0-9._~+/-]{1,200}=*") {
        let _ = peek(&testkit::token(&text));
    }
}

/// An issuer with one key, `k1`.
struct Issuer {
    key: TestKey,
    keys: KeySet,
    policy: IssuerPolicy,
}

impl Issuer {
    fn new() -> Self {
        Self::with(Algorithm::ES256)
    }

    fn with(algorithm: Algorithm) -> Self {
        let key = TestKey::new("k1", algorithm);
        let keys = KeySet::parse(&TestKey::jwks([&key])).unwrap();
        let policy = IssuerPolicy {
            name: "corp".into(),
            issuer: ISSUER.into(),
            audiences: Vec::new(),
            algorithms: vec![algorithm],
            clock_leeway: Duration::from_secs(30),
            scope_claims: vec!["scope".into(), "scp".into()],
            token_types: TokenTypes::AnyButIdToken,
        };
        Self { key, keys, policy }
    }

    fn verify(&self, token: &UnverifiedToken) -> Result<Caller, AuthnError> {
        verify(token, &self.policy, &self.keys, RESOURCE, NOW)
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "alice", "aud": RESOURCE, "client_id": "agent-1", "jti": "t-1", "scope": "write read",
        "iat": NOW.0, "exp": NOW.0 + 600, "groups": ["it"],
    })
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn parts(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn unsigned(header: &Value, signature: &str) -> UnverifiedToken {
    testkit::token(&format!("{}.{signature}", parts(header, &claims())))
}
