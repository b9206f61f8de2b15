//! Which keys seal and open session ids?

use std::fmt;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;

use crate::secret::Secret;

/// The session keys, derived once at start. The first one seals; every one opens, so keys are rotated by putting a new
/// one in front.
pub struct Ring {
    /// INVARIANT: at least one.
    keys: Vec<LessSafeKey>,
    digest_key: hmac::Key,
}

impl Ring {
    /// Derives the keys (HKDF-SHA256, RFC 5869) from the 32-byte secrets of the configuration. `None` without a secret:
    /// no default key exists.
    #[must_use]
    pub fn derive(secrets: &[Secret<[u8; 32]>]) -> Option<Self> {
        let first = secrets.first()?;
        let keys: Option<Vec<_>> = secrets
            .iter()
            .map(|secret| Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &expand(secret, b"session id")?).ok()?)))
            .collect();
        Some(Self { keys: keys?, digest_key: hmac::Key::new(hmac::HMAC_SHA256, &expand(first, b"audit digest")?) })
    }

    /// The key that seals.
    pub(super) fn sealing_key(&self) -> Option<&LessSafeKey> {
        self.keys.first()
    }

    /// Every key, the sealing one first.
    pub(super) fn opening_keys(&self) -> &[LessSafeKey] {
        &self.keys
    }

    /// The key for digests in audit records (`session`, `arguments.hmac_sha256`): it ties records together without
    /// showing what was digested.
    #[must_use]
    pub fn digest_key(&self) -> &hmac::Key {
        &self.digest_key
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} keys)", self.keys.len())
    }
}

fn expand(secret: &Secret<[u8; 32]>, purpose: &[u8]) -> Option<[u8; 32]> {
    let pseudorandom_key = Salt::new(HKDF_SHA256, b"portcullis v1").extract(secret.expose());
    let mut key = [0; 32];
    pseudorandom_key.expand(&[purpose], Bytes32).ok()?.fill(&mut key).ok()?;
    Some(key)
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}
