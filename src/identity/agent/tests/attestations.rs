//! Attestations: honest, forged, lifted, stale.

use super::*;

const ATTESTER: &str = "https://attester.test";

/// What `agent_attestation` comes to when an attester vouches with these claims.
fn judged(claims: Value, around: Value, providers: &[&str], nonce: NonceRule, by: Option<&TestKey>) -> VerifiedAgent {
    let honest = TestKey::new("attester", Algorithm::ES256);
    let (policy, keys) = (policy(ATTESTER), keys(&honest));
    let mut whole = json!({ "iss": ATTESTER, "sub": "drafter-7", "iat": NOW.0 - 60, "eat_nonce": "nonce-0001" });
    merge(&mut whole, &claims);
    let header = json!({ "alg": "ES256", "kid": "attester", "typ": "application/eat+jwt" });
    let token = by.unwrap_or(&honest).sign_with(&header, &whole);
    let mut attestation = json!({ "format": "urn:ietf:params:oauth:token-type:eat", "token": token.as_str() });
    merge(&mut attestation, &around);
    let providers: Vec<Box<str>> = providers.iter().map(|it| (*it).into()).collect();
    let trusted = Trusted { policy: &policy, keys: &keys };
    let attester = Attester { trusted, providers: &providers, max_age: Duration::from_secs(3600), nonce };
    World::new().verify_trusting(&agent(&json!({ "agent_attestation": attestation })), &[attester], NOW).unwrap()
}

fn verdict(claims: Value, around: Value) -> (&'static str, Option<&'static str>) {
    let attestation = judged(claims, around, &["agents.test"], NonceRule::Required, None).identity.attestation;
    (attestation.label(), attestation.detail())
}

#[test]
fn an_attester_that_is_configured_vouches_for_its_agents() {
    let verified = judged(json!({}), json!({}), &["agents.test"], NonceRule::Required, None);
    assert_eq!(verified.identity.attestation, Attestation::Verified);
    assert_eq!(verified.identity.fields()["attestation"], "verified");
    assert_eq!(verified.nonce, Some(SeenNonce { attester: ATTESTER.into(), nonce: "nonce-0001".into() }));
    assert!(verified.signed_by.iter().any(|it| *it.issuer == *ATTESTER));
    for claims in [
        json!({ "sub": "drafter" }),
        json!({ "sub": "x", "ueid": "drafter-7" }),
        json!({ "aud": MCP }),
        json!({ "eat_nonce": ["nonce-0001", "nonce-0002"] }),
        json!({ "eat_nonce": null, "nonce": "nonce-0001" }),
    ] {
        assert_eq!(verdict(claims.clone(), json!({})), ("verified", None), "{claims}");
    }
    assert_eq!(verdict(json!({}), json!({ "nonce": "nonce-0001" })), ("verified", None));
}

#[test]
fn an_attestation_that_is_not_good_says_why() {
    for (claims, around, why) in [
        (json!({ "iat": NOW.0 - 3600 }), json!({}), "stale"),
        (json!({ "iat": NOW.0 + 31 }), json!({}), "stale"),
        (json!({ "iat": null }), json!({}), "stale"),
        (json!({ "exp": NOW.0 - 31 }), json!({}), "stale"),
        (json!({ "nbf": NOW.0 + 31 }), json!({}), "stale"),
        (json!({ "iss": STRANGER }), json!({}), "untrusted_attester"),
        (json!({ "sub": "other-agent" }), json!({}), "wrong_subject"),
        (json!({ "sub": null }), json!({}), "wrong_subject"),
        (json!({ "aud": "https://other.test/mcp" }), json!({}), "wrong_subject"),
        (json!({ "eat_nonce": null }), json!({}), "nonce_missing"),
        (json!({ "eat_nonce": "short" }), json!({}), "nonce_wrong"),
        (json!({ "eat_nonce": "x".repeat(89) }), json!({}), "nonce_wrong"),
        (json!({ "eat_nonce": 12_345_678 }), json!({}), "malformed"),
        (json!({}), json!({ "nonce": "another-nonce" }), "nonce_wrong"),
        (json!({}), json!({ "token": "x" }), "malformed"),
        (json!({}), json!({ "token": null }), "malformed"),
        (json!({}), json!({ "format": null }), "malformed"),
    ] {
        assert_eq!(verdict(claims.clone(), around.clone()), ("failed", Some(why)), "{claims} {around}");
    }
    let forger = TestKey::new("attester", Algorithm::ES256);
    let forged = judged(json!({}), json!({}), &[], NonceRule::Required, Some(&forger));
    assert_eq!(forged.identity.attestation, Attestation::Failed(AttestationError::WrongSignature));
    let of_another_provider = judged(json!({}), json!({}), &["elsewhere.test"], NonceRule::Required, None);
    let untrusted = Attestation::Failed(AttestationError::UntrustedAttester);
    assert_eq!(of_another_provider.identity.attestation, untrusted);
}

#[test]
fn a_form_that_nobody_reads_here_is_unverified_and_not_failed() {
    assert_eq!(verdict(json!({}), json!({ "format": "TPM2-Quote" })), ("unverified", None));
    let nobody_to_ask = World::new().verify(&agent(&json!({ "agent_attestation": { "format": "eat", "token": "x" } })));
    assert_eq!(nobody_to_ask.unwrap().identity.attestation, Attestation::Unverified);
}

#[test]
fn an_attestation_may_go_without_a_nonce_where_that_is_configured() {
    let verified = judged(json!({ "eat_nonce": null }), json!({}), &[], NonceRule::Optional, None);
    assert_eq!((verified.identity.attestation, verified.nonce), (Attestation::Verified, None));
}

#[test]
fn the_verification_ends_when_the_attestation_grows_stale() {
    let verified = judged(json!({ "iat": NOW.0 - 3500 }), json!({}), &[], NonceRule::Required, None);
    assert_eq!(verified.valid_until, UnixSeconds(NOW.0 + 100));
}
