//! Whose tokens? An issuer that exists as a file of keys, and signs before the measurement begins.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
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
        let keys = json!({ "keys": [
            { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": encode(&rsa.n), "e": encode(&rsa.e) },
            p256_jwk("p256", &self.p256),
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

/// An issuer that signs with a new key from time to time, and publishes the one before as well.
pub struct RotatingKeys {
    /// The newest first.
    keys: Mutex<Vec<RotatingKey>>,
    rotations: AtomicUsize,
    signed: AtomicUsize,
    exchanged: AtomicUsize,
    random: SystemRandom,
}

struct RotatingKey {
    kid: String,
    pair: EcdsaKeyPair,
}

impl RotatingKeys {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let keys = Mutex::new(vec![RotatingKey::new(0, &random)]);
        let (rotations, signed, exchanged) = Default::default();
        Self { keys, rotations, signed, exchanged, random }
    }

    /// Signs with a new key from here on.
    pub fn rotate(&self) {
        let number = self.rotations.fetch_add(1, Ordering::Relaxed) + 1;
        let mut keys = self.keys.lock().unwrap();
        keys.insert(0, RotatingKey::new(number, &self.random));
        keys.truncate(2);
    }

    /// A token that expires in so many seconds.
    pub fn token(&self, subject: usize, expires_in: i64) -> String {
        let number = self.signed.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let mut claims = claims(number);
        claims["sub"] = format!("agent-{subject}").into();
        claims["exp"] = (now + expires_in).into();
        let keys = self.keys.lock().unwrap();
        let RotatingKey { kid, pair } = &keys[0];
        let header = json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt" });
        let signed = format!("{}.{}", object(&header), object(&claims));
        let signature = pair.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    /// The JWK set.
    pub fn jwks(&self) -> String {
        let keys = self.keys.lock().unwrap();
        let keys: Vec<Value> = keys.iter().map(|key| p256_jwk(&key.kid, &key.pair)).collect();
        json!({ "keys": keys }).to_string()
    }

    pub fn rotations(&self) -> usize {
        self.rotations.load(Ordering::Relaxed)
    }

    pub fn signed(&self) -> usize {
        self.signed.load(Ordering::Relaxed)
    }

    /// Makes an exchanged token one of its own.
    pub fn next_exchange(&self) -> usize {
        self.exchanged.fetch_add(1, Ordering::Relaxed)
    }
}

impl RotatingKey {
    fn new(number: usize, random: &SystemRandom) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), random).unwrap();
        Self { kid: format!("key-{number}"), pair }
    }
}

fn p256_jwk(kid: &str, pair: &EcdsaKeyPair) -> Value {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": encode(x), "y": encode(y) })
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
