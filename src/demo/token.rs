//! How is a sample token made and checked? ES256 with a key that lives as long as the process.
//!
//! This is the other side of what `identity` does: it is written against the RFCs alone and shares no code with it, so
//! that the demo and the gateway cannot be wrong in the same way.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::SecureRandom as _;
use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_FIXED;
use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::KeyPair as _;
use ring::signature::UnparsedPublicKey;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::time::UnixSeconds;

/// Signs tokens, and checks the ones it has signed.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `exp` has passed, or there is none.
    #[error("the token has expired")]
    Expired,
    /// Not signed by this key, or not a compact JWS at all (RFC 7515 §7.1).
    #[error("the token was not signed by this issuer")]
    Foreign,
    /// `aud` names somebody else.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `iss` is not the expected issuer.
    #[error("the token names another issuer")]
    WrongIssuer,
    /// Not an access token (RFC 9068 §2.1).
    #[error("the token is not an access token")]
    WrongType,
}

/// The system's random source or the key generator failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

impl SigningKey {
    /// Makes a fresh P-256 key; its id is its RFC 7638 thumbprint.
    ///
    /// # Errors
    /// [`NoRandomness`] when the system's random source fails.
    pub fn generate() -> Result<Self, NoRandomness> {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| NoRandomness)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .map_err(|_| NoRandomness)?;
        let (x, y) = coordinates(&pair);
        // RFC 7638 §3.2: the required members in lexical order, without white space.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let key_id = encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        Ok(Self { pair, key_id, random })
    }

    /// The public half as a JWK set (RFC 7517 §5, RFC 7518 §6.2.1).
    #[must_use]
    pub fn jwks(&self) -> Value {
        let (x, y) = coordinates(&self.pair);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.key_id, "use": "sig", "alg": "ES256",
        }] })
    }

    /// Signs `claims` as an access token: compact JWS, `typ` `at+jwt` (RFC 9068 §2.1).
    ///
    /// # Errors
    /// [`NoRandomness`]: ECDSA needs a nonce.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, NoRandomness> {
        self.sign_as("at+jwt", claims)
    }

    /// Signs `claims` as an ID token (OpenID Connect Core §2).
    ///
    /// # Errors
    /// [`NoRandomness`]: ECDSA needs a nonce.
    pub fn sign_id(&self, claims: &Map<String, Value>) -> Result<String, NoRandomness> {
        self.sign_as("JWT", claims)
    }

    fn sign_as(&self, kind: &str, claims: &Map<String, Value>) -> Result<String, NoRandomness> {
        let header = json!({ "alg": "ES256", "typ": kind, "kid": self.key_id }).to_string();
        let payload = Value::Object(claims.clone()).to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).map_err(|_| NoRandomness)?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// Believes `unverified_token` and returns its claims: signed by this key as ES256, an access token, from `issuer`,
    /// for `audience` (a string or a list with it), not expired at `now`.
    ///
    /// # Errors
    /// One [`TokenError`] each; the signature is checked before any claim is looked at.
    pub fn verify(
        &self,
        unverified_token: &str,
        issuer: &str,
        audience: &str,
        now: UnixSeconds,
    ) -> Result<Map<String, Value>, TokenError> {
        let (signed, signature) = unverified_token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let header = object(header).ok_or(TokenError::Foreign)?;
        let names_this_key = text(&header, "alg") == Some("ES256") && text(&header, "kid") == Some(&self.key_id);
        if !names_this_key {
            return Err(TokenError::Foreign);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Foreign)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Foreign)?;
        if text(&header, "typ") != Some("at+jwt") {
            return Err(TokenError::WrongType);
        }
        let claims = object(payload).ok_or(TokenError::Foreign)?;
        if text(&claims, "iss") != Some(issuer) {
            return Err(TokenError::WrongIssuer);
        }
        let for_audience = match claims.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one == audience),
            _ => false,
        };
        if !for_audience {
            return Err(TokenError::WrongAudience);
        }
        if claims.get("exp").and_then(Value::as_u64).is_none_or(|expires_at| expires_at <= now.0) {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

/// Claims of a token that nobody has checked, for showing; `None` when it is not a JWT.
#[must_use]
pub fn unverified_claims(token: &str) -> Option<Map<String, Value>> {
    object(token.split('.').nth(1)?)
}

/// SHA-256 of a token in hexadecimal: tells two tokens apart without showing either.
#[must_use]
pub fn fingerprint(token: &str) -> String {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `BYTES` random bytes as unpadded base64url: a password, a client secret, a `jti`.
///
/// # Errors
/// [`NoRandomness`] when the system's random source fails.
pub fn random_text<const BYTES: usize>() -> Result<String, NoRandomness> {
    Ok(encode(&random_bytes::<BYTES>()?))
}

/// `BYTES` random bytes.
///
/// # Errors
/// [`NoRandomness`] when the system's random source fails.
pub fn random_bytes<const BYTES: usize>() -> Result<[u8; BYTES], NoRandomness> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The affine coordinates in base64url. ring gives the uncompressed point: 0x04, x, y (SEC 1 §2.3.3), 32 bytes each.
fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    let point = pair.public_key().as_ref();
    let (x, y) = point.split_at_checked(1).map_or((point, point), |(_, rest)| rest.split_at(rest.len() / 2));
    (encode(x), encode(y))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const ISSUER: &str = "http://127.0.0.1:1";
    const AUDIENCE: &str = "http://127.0.0.1:2/mcp";
    const NOW: UnixSeconds = UnixSeconds(1_000);

    #[test]
    fn believes_what_it_has_signed() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&claims()).unwrap();
        assert_eq!(key.verify(&token, ISSUER, AUDIENCE, NOW), Ok(claims()));
    }

    #[test]
    fn believes_a_token_for_several_audiences() {
        let key = SigningKey::generate().unwrap();
        let mut several = claims();
        several.insert("aud".into(), json!(["https://other.test", AUDIENCE]));
        let token = key.sign(&several).unwrap();
        assert_eq!(key.verify(&token, ISSUER, AUDIENCE, NOW), Ok(several));
    }

    #[test]
    fn refuses_each_token_for_its_own_reason() {
        let key = SigningKey::generate().unwrap();
        let with = |name: &str, value: Value| {
            let mut changed = claims();
            changed.insert(name.into(), value);
            key.sign(&changed).unwrap()
        };
        let table = [
            ("another key's", SigningKey::generate().unwrap().sign(&claims()).unwrap(), TokenError::Foreign),
            ("unsigned", unsigned(), TokenError::Foreign),
            ("no JWT", "opaque".to_owned(), TokenError::Foreign),
            ("an ID token", key.sign_as("JWT", &claims()).unwrap(), TokenError::WrongType),
            ("another issuer's", with("iss", json!("http://127.0.0.1:9")), TokenError::WrongIssuer),
            ("for somebody else", with("aud", json!("http://127.0.0.1:2/mcp/")), TokenError::WrongAudience),
            ("for nobody", with("aud", Value::Null), TokenError::WrongAudience),
            ("expired this second", with("exp", json!(1_000)), TokenError::Expired),
            ("without end", with("exp", Value::Null), TokenError::Expired),
        ];
        for (name, token, reason) in table {
            assert_eq!(key.verify(&token, ISSUER, AUDIENCE, NOW), Err(reason), "{name}");
        }
    }

    #[test]
    fn refuses_a_token_with_one_changed_claim() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let mut changed = claims();
        changed.insert("sub".into(), json!("bob"));
        let forged = format!("{}.{}.{}", parts[0], encode(Value::Object(changed).to_string().as_bytes()), parts[2]);
        assert_eq!(key.verify(&forged, ISSUER, AUDIENCE, NOW), Err(TokenError::Foreign));
    }

    #[test]
    fn publishes_a_p256_key_under_the_id_in_its_tokens() {
        let key = SigningKey::generate().unwrap();
        let jwks = key.jwks();
        let token = key.sign(&claims()).unwrap();
        let header = object(token.split('.').next().unwrap()).unwrap();
        assert_eq!(jwks["keys"][0]["kid"], header["kid"]);
        for coordinate in ["x", "y"] {
            let bytes = URL_SAFE_NO_PAD.decode(jwks["keys"][0][coordinate].as_str().unwrap()).unwrap();
            assert_eq!(bytes.len(), 32, "{coordinate}");
        }
        assert_eq!(jwks["keys"][0].get("d"), None);
    }

    fn claims() -> Map<String, Value> {
        let Value::Object(claims) = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": 1_001 }) else {
            return Map::new();
        };
        claims
    }

    fn unsigned() -> String {
        let header = encode(br#"{"alg":"none","typ":"at+jwt"}"#);
        format!("{header}.{}.", encode(Value::Object(claims()).to_string().as_bytes()))
    }
}
