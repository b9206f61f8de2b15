//! What a JWK set may hold, and what of it is used.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up should fail loudly"
)]

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::identity::testkit::TestKey;

const EVERY_ALGORITHM: [Algorithm; 9] = [
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
fn every_algorithm_has_usable_keys() {
    for algorithm in EVERY_ALGORITHM {
        let set = parse(&json!({ "keys": [TestKey::new("k", algorithm).jwk()] }));
        assert_eq!((set.len(), set.skipped()), (1, [].as_slice()), "{algorithm:?}");
        for other in EVERY_ALGORITHM {
            assert_eq!(set.knows(Some("k"), other), other == algorithm, "{algorithm:?} {other:?}");
        }
    }
}

#[test]
fn a_key_without_alg_serves_every_algorithm_of_its_type() {
    let mut jwk = TestKey::new("k", Algorithm::RS256).jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    let set = parse(&json!({ "keys": [jwk] }));
    assert!(set.knows(Some("k"), Algorithm::PS512));
    assert!(!set.knows(Some("k"), Algorithm::ES256));
}

#[test]
fn ed25519_is_the_fully_specified_name_of_eddsa() {
    let mut jwk = TestKey::new("k", Algorithm::EdDSA).jwk();
    jwk["alg"] = "Ed25519".into();
    assert!(parse(&json!({ "keys": [jwk] })).knows(Some("k"), Algorithm::EdDSA));
}

#[test]
fn keys_that_cannot_be_used_are_skipped_and_cost_the_others_nothing() {
    let good = TestKey::new("good", Algorithm::ES256).jwk();
    let rsa = TestKey::new("r", Algorithm::RS256).jwk();
    let cases = [
        (with(&good, "use", json!("enc")), SkipReason::NotForSignatures),
        (with(&good, "use", json!(["sig"])), SkipReason::Malformed),
        (with(&good, "key_ops", json!(["encrypt"])), SkipReason::NotForSignatures),
        (with(&good, "key_ops", json!([])), SkipReason::NotForSignatures),
        (with(&good, "kty", json!("oct")), SkipReason::UnsupportedType),
        (with(&good, "kty", json!("AKP")), SkipReason::UnsupportedType),
        (with(&good, "kty", Value::Null), SkipReason::Malformed),
        (with(&good, "crv", json!("P-521")), SkipReason::UnsupportedCurve),
        (with(&good, "crv", json!("secp256k1")), SkipReason::UnsupportedCurve),
        (with(&good, "crv", Value::Null), SkipReason::Malformed),
        (with(&good, "x", json!("AAAA")), SkipReason::Malformed),
        (with(&good, "x", json!("!")), SkipReason::Malformed),
        (with(&good, "y", Value::Null), SkipReason::Malformed),
        (with(&good, "alg", json!("HS256")), SkipReason::UnsupportedAlgorithm),
        (with(&good, "alg", json!("none")), SkipReason::UnsupportedAlgorithm),
        (with(&good, "alg", json!("ES512")), SkipReason::UnsupportedAlgorithm),
        (with(&good, "alg", json!("RS256")), SkipReason::WrongAlgorithm),
        (with(&good, "alg", json!("ES384")), SkipReason::WrongAlgorithm),
        (with(&good, "d", json!("AAAA")), SkipReason::PrivateKey),
        (with(&rsa, "n", json!(encode(&[0xff; 128]))), SkipReason::UnsafeSize),
        (with(&rsa, "n", json!(encode(&[&[0x7f][..], &[0xff; 255]].concat()))), SkipReason::UnsafeSize),
        (with(&rsa, "n", json!(encode(&[0xff; 1025]))), SkipReason::UnsafeSize),
        (with(&rsa, "n", json!(encode(&[0xfe; 256]))), SkipReason::Malformed),
        (with(&rsa, "n", json!("")), SkipReason::Malformed),
        (with(&rsa, "e", json!("AQ")), SkipReason::UnsafeSize),
        (with(&rsa, "e", json!("AAAA")), SkipReason::Malformed),
        (with(&rsa, "e", json!(encode(&[1; 6]))), SkipReason::UnsafeSize),
        (json!({ "kty": "OKP", "crv": "X25519", "x": encode(&[1; 32]) }), SkipReason::UnsupportedCurve),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&[1; 31]) }), SkipReason::Malformed),
        (json!({ "kty": "oct", "k": "AAAA", "alg": "HS256" }), SkipReason::UnsupportedType),
        (json!("key"), SkipReason::Malformed),
        (Value::Null, SkipReason::Malformed),
    ];
    for (bad, reason) in cases {
        let set = parse(&json!({ "keys": [bad, good] }));
        assert_eq!(set.len(), 1, "{bad}");
        assert!(set.knows(Some("good"), Algorithm::ES256), "{bad}");
        let skipped: Vec<_> = set.skipped().iter().map(|it| (it.index, it.reason)).collect();
        assert_eq!(skipped, [(0, reason)], "{bad}");
    }
}

#[test]
fn a_skipped_key_is_named() {
    let encryption = with(&TestKey::new("enc-1", Algorithm::RS256).jwk(), "use", json!("enc"));
    let set = parse(&json!({ "keys": [encryption] }));
    assert_eq!(
        set.skipped(),
        [SkippedKey { index: 0, kid: Some("enc-1".into()), reason: SkipReason::NotForSignatures }]
    );
}

#[test]
fn a_key_that_names_a_member_twice_is_skipped() {
    let jwk = TestKey::new("k", Algorithm::EdDSA).jwk().to_string().replacen('{', "{\"kid\":\"other\",", 1);
    let set = KeySet::parse(format!("{{\"keys\":[{jwk}]}}").as_bytes()).unwrap();
    assert_eq!(set.skipped().iter().map(|it| it.reason).collect::<Vec<_>>(), [SkipReason::Malformed]);
}

#[test]
fn an_empty_set_is_a_set() {
    let set = parse(&json!({ "keys": [] }));
    assert_eq!((set.len(), set.is_empty()), (0, true));
}

#[test]
fn what_is_no_set_is_refused() {
    for text in
        ["", "[]", "{}", "null", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":[]"#, r#"{"keys":[],"keys":[]}"#]
    {
        assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), KeySetError::Malformed, "{text}");
    }
}

#[test]
fn no_more_keys_are_read_than_the_bound() {
    let jwk = TestKey::new("k", Algorithm::EdDSA).jwk();
    let set = parse(&json!({ "keys": vec![jwk; KEYS_MAX + 100] }));
    assert_eq!(set.len(), KEYS_MAX);
    assert_eq!(set.skipped(), [SkippedKey { index: KEYS_MAX, kid: None, reason: SkipReason::TooMany }]);
}

#[test]
fn a_token_without_kid_is_tried_with_a_few_fitting_keys_only() {
    let keys: Vec<Value> = (0..10).map(|_| TestKey::new("k", Algorithm::ES256).jwk()).collect();
    let set = parse(&json!({ "keys": keys }));
    assert_eq!(set.candidates(None, Algorithm::ES256).count(), TRIES_MAX);
    assert_eq!(set.candidates(Some("k"), Algorithm::ES256).count(), TRIES_MAX);
    assert_eq!(set.candidates(None, Algorithm::EdDSA).count(), 0);
    assert_eq!(set.candidates(Some("other"), Algorithm::ES256).count(), 0);
}

/// RFC 7638 §3.1: the example there, here with the zero octet in front of `n` that some issuers send.
#[test]
fn the_identity_of_a_key_is_its_rfc_7638_thumbprint() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj\
             hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ\
             vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK\
             nqDKgw";
    let padded = encode(&[&[0], URL_SAFE_NO_PAD.decode(n).unwrap().as_slice()].concat());
    for n in [n, &padded] {
        let set =
            parse(&json!({ "keys": [{ "kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29" }] }));
        assert!(set.contains("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
        assert!(!set.contains("2011-04-29"));
    }
}

/// RFC 8037 appendix A.3.
#[test]
fn the_thumbprint_of_an_ed25519_key_is_that_of_rfc_8037() {
    let set = parse(
        &json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }),
    );
    assert!(set.contains("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
}

#[test]
fn sets_are_the_same_when_keys_and_names_are_whatever_their_order() {
    let (a, b) = (TestKey::new("a", Algorithm::ES256).jwk(), TestKey::new("b", Algorithm::EdDSA).jwk());
    let set = parse(&json!({ "keys": [a, b] }));
    assert!(set.same_keys(&parse(&json!({ "keys": [b, a] }))));
    assert!(!set.same_keys(&parse(&json!({ "keys": [a] }))));
    assert!(!parse(&json!({ "keys": [a] })).same_keys(&set));
    assert!(!set.same_keys(&parse(&json!({ "keys": [with(&a, "kid", json!("c")), b] }))));
    assert!(!set.same_keys(&parse(&json!({ "keys": [with(&a, "alg", Value::Null), b] }))));
}

fn parse(jwks: &Value) -> KeySet {
    KeySet::parse(jwks.to_string().as_bytes()).unwrap()
}

fn with(jwk: &Value, member: &str, value: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk[member] = value;
    jwk
}
