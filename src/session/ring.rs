//! Which keys seal and open session ids?

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;

use crate::secret::Secret;

/// The session keys, derived once at start. The first one seals; every one opens, so keys are rotated by putting a new
/// one in front.
pub struct Ring {
    /// INVARIANT: at least one.
    keys: Vec<LessSafeKey>,
    /// In the same order.
    note_keys: Vec<LessSafeKey>,
    digest_key: hmac::Key,
}

impl Ring {
    /// Derives the keys (HKDF-SHA256, RFC 5869) from the 32-byte secrets of the configuration. `None` without a secret:
    /// no default key exists.
    #[must_use]
    pub fn derive(secrets: &[Secret<[u8; 32]>]) -> Option<Self> {
        let first = secrets.first()?;
        let keys = |purpose: &[u8]| -> Option<Vec<_>> {
            let key = |secret| Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &expand(secret, purpose)?).ok()?));
            secrets.iter().map(key).collect()
        };
        let (keys, note_keys) = (keys(b"session id")?, keys(b"note")?);
        Some(Self { keys, note_keys, digest_key: hmac::Key::new(hmac::HMAC_SHA256, &expand(first, b"audit digest")?) })
    }

    /// The key that seals.
    pub(super) fn sealing_key(&self) -> Option<&LessSafeKey> {
        self.keys.first()
    }

    /// Every key, the sealing one first.
    pub(super) fn opening_keys(&self) -> &[LessSafeKey] {
        &self.keys
    }

    /// Seals a note that somebody else keeps for us. `purpose` keeps notes of one kind from being taken for another's;
    /// `nonce` must come from a random number generator. `None` when there is no key.
    #[must_use]
    pub fn seal_note(&self, purpose: &'static str, nonce: [u8; NONCE_LEN], plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let key = self.note_keys.first()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose.as_bytes()), &mut sealed)
            .ok()?;
        Some(nonce.iter().copied().chain(sealed).collect())
    }

    /// Opens what [`Ring::seal_note`] has sealed for the same purpose.
    #[must_use]
    pub fn open_note(&self, purpose: &'static str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.note_keys.iter().find_map(|key| {
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut plain).ok()?;
            Some(opened.to_vec())
        })
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
