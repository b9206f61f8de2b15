//! An issuer for unit tests: keys that sign, their JWKs, and tokens with anything in them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use ring::signature::RSA_PKCS1_SHA384;
use ring::signature::RSA_PKCS1_SHA512;
use ring::signature::RSA_PSS_SHA256;
use ring::signature::RSA_PSS_SHA384;
use ring::signature::RSA_PSS_SHA512;
use ring::signature::RsaKeyPair;
use serde_json::Value;
use serde_json::json;

use crate::identity::Algorithm;
use crate::identity::UnverifiedToken;
use crate::identity::bearer;

/// A private key and the name it has in the JWK set.
pub(crate) struct TestKey {
    kid: &'static str,
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot set itself up should fail loudly")]
impl TestKey {
    /// A fresh key; the one RSA key is always the same, because ring makes none.
    pub(crate) fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let ecdsa = |curve| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
            Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &random).unwrap())
        };
        let pair = match algorithm {
            Algorithm::EdDSA => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
            }
            Algorithm::ES256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512 => Pair::Rsa(RsaKeyPair::from_pkcs8(TEST_ONLY_RSA).unwrap()),
        };
        Self { kid, algorithm, pair }
    }

    /// The public key with `kid`, `use` and `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ecdsa(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) }),
            Pair::Rsa(pair) => {
                let key: rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "n": encode(&key.n), "e": encode(&key.e) })
            }
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm.as_str().into();
        jwk
    }

    /// `{"keys":[…]}`
    pub(crate) fn jwks<'a>(keys: impl IntoIterator<Item = &'a Self>) -> Vec<u8> {
        let keys: Vec<Value> = keys.into_iter().map(Self::jwk).collect();
        json!({ "keys": keys }).to_string().into_bytes()
    }

    /// A token with the usual header for this key.
    pub(crate) fn sign(&self, claims: &Value) -> UnverifiedToken {
        self.sign_with(&json!({ "alg": self.algorithm.as_str(), "kid": self.kid, "typ": "at+jwt" }), claims)
    }

    /// A token with this very header.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> UnverifiedToken {
        self.sign_texts(&header.to_string(), &claims.to_string())
    }

    /// A token of these very texts.
    pub(crate) fn sign_texts(&self, header: &str, claims: &str) -> UnverifiedToken {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self.signature(signed.as_bytes());
        token(&format!("{signed}.{}", encode(&signature)))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa_padding: &dyn ring::signature::RsaEncoding = match self.algorithm {
            Algorithm::PS256 => &RSA_PSS_SHA256,
            Algorithm::PS384 => &RSA_PSS_SHA384,
            Algorithm::PS512 => &RSA_PSS_SHA512,
            Algorithm::RS384 => &RSA_PKCS1_SHA384,
            Algorithm::RS512 => &RSA_PKCS1_SHA512,
            Algorithm::RS256 | Algorithm::EdDSA | Algorithm::ES256 | Algorithm::ES384 => &RSA_PKCS1_SHA256,
        };
        match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(rsa_padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// The token of a request that presents `text`.
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
pub(crate) fn token(text: &str) -> UnverifiedToken {
    let mut head = HeaderMap::new();
    head.insert(AUTHORIZATION, format!("Bearer {text}").parse().unwrap());
    bearer::unverified_token(&head).unwrap()
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs nothing but test tokens: it is public.
const TEST_ONLY_RSA: &[u8] = include_bytes!("testdata/test-only-rsa-2048.pk8");
