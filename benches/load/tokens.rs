//! Whose tokens? An issuer that exists as a file of keys, and signs before the measurement begins.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

/// What the gateway is called in `aud`.
pub const AUDIENCE: &str = "https://mcp.bench.test/mcp";

/// `iss`.
pub const ISSUER: &str = "https://idp.bench.test";

/// Signs with RS256 and ES256.
pub struct Signer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    random: SystemRandom,
}

/// An algorithm of the issuer.
#[derive(Clone, Copy)]
pub enum Signature {
    Es256,
    Rs256,
}

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap();
        Self { rsa: RsaKeyPair::from_pkcs8(TEST_ONLY_RSA).unwrap(), p256, random }
    }

    /// Writes the public keys as a JWK set.
    pub fn write_jwks(&self, path: &Path) {
        let rsa: rsa::PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let (x, y) = self.p256.public_key().as_ref()[1..].split_at(32);
        let keys = json!({ "keys": [
            { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": encode(&rsa.n), "e": encode(&rsa.e) },
            { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "p256", "x": encode(x), "y": encode(y) },
        ] });
        std::fs::write(path, keys.to_string()).unwrap();
    }

    /// An access token as identity providers make them; `number` makes it one of its own.
    pub fn token(&self, signature: Signature, number: usize) -> String {
        let (alg, kid) = match signature {
            Signature::Es256 => ("ES256", "p256"),
            Signature::Rs256 => ("RS256", "rsa"),
        };
        let signed =
            format!("{}.{}", object(&json!({ "alg": alg, "kid": kid, "typ": "at+jwt" })), object(&claims(number)));
        let bytes = match signature {
            Signature::Es256 => self.p256.sign(&self.random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Signature::Rs256 => {
                let mut bytes = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.random, signed.as_bytes(), &mut bytes).unwrap();
                bytes
            }
        };
        format!("{signed}.{}", encode(&bytes))
    }
}

fn claims(number: usize) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({
        "iss": ISSUER, "sub": "9b2f6c0e-51a7-4d0c-8f39-2f5a4f3f8c11", "aud": AUDIENCE,
        "iat": now - 5, "nbf": now - 5, "exp": now + 24 * 3600, "jti": format!("bench-{number}"),
        "client_id": "agent-7", "scope": "openid profile mcp:use echo:call",
        "name": "Alice Example", "email": "alice@example.com", "groups": ["staff", "engineering"], "tenant": "example",
    })
}

fn object(value: &Value) -> String {
    encode(value.to_string().as_bytes())
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs nothing but test tokens: it is public.
const TEST_ONLY_RSA: &[u8] = include_bytes!("../../src/identity/testdata/test-only-rsa-2048.pk8");
