//! Who does the arithmetic? ring, and nothing else in this process.
//!
//! `jsonwebtoken` 11 links no crypto library of its own and panics at first use unless one was named. [`RING`] is that one:
//! it verifies RSA (PKCS #1 v1.5 and PSS), ECDSA and Ed25519 signatures and knows neither HMAC nor signing, so no caller of
//! the library can be talked into taking a public key for a shared secret (RFC 8725 §2.1).

use jsonwebtoken::DecodingKey;
use jsonwebtoken::DecodingKeyKind;
use jsonwebtoken::crypto::CryptoProvider;
use jsonwebtoken::crypto::JwtVerifier;
use jsonwebtoken::crypto::KeyUtils;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::signature;
use ring::digest;
use ring::signature as ring_signature;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::UnparsedPublicKey;

use crate::identity::Algorithm;

/// Whether `signature` over `message` is by the owner of `key`.
///
/// A key of another kind than `algorithm` needs is no owner: the answer is no, never an attempt.
#[must_use]
pub fn verify(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    use jsonwebtoken::AlgorithmFamily as Family;
    match (algorithm, key.family(), key.kind()) {
        (Algorithm::EdDSA, Family::Ed, DecodingKeyKind::SecretOrDer(key)) => {
            UnparsedPublicKey::new(&ring_signature::ED25519, key).verify(message, signature).is_ok()
        }
        (Algorithm::ES256, Family::Ec, DecodingKeyKind::SecretOrDer(key)) => {
            UnparsedPublicKey::new(&ring_signature::ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
        }
        (Algorithm::ES384, Family::Ec, DecodingKeyKind::SecretOrDer(key)) => {
            UnparsedPublicKey::new(&ring_signature::ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
        }
        (_, Family::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let Some(parameters) = rsa_parameters(algorithm) else { return false };
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
        }
        _ => false,
    }
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Names [`RING`] as the provider of every use of `jsonwebtoken` in this process. Calling it again changes nothing.
pub fn install() {
    // An error says that one is installed. Verification here goes to ring directly, so it cannot be another's arithmetic.
    let _ = RING.install_default();
}

/// ring as `jsonwebtoken` wants it.
pub static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| {
        let known = known(*algorithm).ok_or(ErrorKind::UnsupportedAlgorithm)?;
        Ok(Box::new(RingVerifier { algorithm: *algorithm, known, key: key.clone() }))
    },
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
        compute_digest: |bytes, hash| {
            let algorithm = match hash {
                ThumbprintHash::SHA256 => &digest::SHA256,
                ThumbprintHash::SHA384 => &digest::SHA384,
                ThumbprintHash::SHA512 => &digest::SHA512,
                _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
            };
            Ok(digest::digest(algorithm, bytes).as_ref().to_vec())
        },
    },
};

/// One key and one algorithm: what `jsonwebtoken` asks a provider for.
struct RingVerifier {
    algorithm: jsonwebtoken::Algorithm,
    known: Algorithm,
    key: DecodingKey,
}

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        if verify(self.known, &self.key, message, signature) { Ok(()) } else { Err(signature::Error::new()) }
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.algorithm
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static ring_signature::RsaParameters> {
    match algorithm {
        Algorithm::PS256 => Some(&ring_signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&ring_signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&ring_signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::RS256 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::EdDSA | Algorithm::ES256 | Algorithm::ES384 => None,
    }
}

fn known(algorithm: jsonwebtoken::Algorithm) -> Option<Algorithm> {
    use jsonwebtoken::Algorithm as Theirs;
    match algorithm {
        Theirs::EdDSA => Some(Algorithm::EdDSA),
        Theirs::ES256 => Some(Algorithm::ES256),
        Theirs::ES384 => Some(Algorithm::ES384),
        Theirs::PS256 => Some(Algorithm::PS256),
        Theirs::PS384 => Some(Algorithm::PS384),
        Theirs::PS512 => Some(Algorithm::PS512),
        Theirs::RS256 => Some(Algorithm::RS256),
        Theirs::RS384 => Some(Algorithm::RS384),
        Theirs::RS512 => Some(Algorithm::RS512),
        Theirs::HS256 | Theirs::HS384 | Theirs::HS512 | _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
mod tests {
    use jsonwebtoken::Validation;
    use jsonwebtoken::jwk::Jwk;
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::identity::testkit::TestKey;

    /// The library's own way through the provider gives the same answer as ours.
    #[test]
    fn jsonwebtoken_verifies_with_ring_once_it_is_installed() {
        install();
        install();
        let key = TestKey::new("k", Algorithm::ES256);
        let token = key.sign(&json!({ "exp": 4_000_000_000_u64, "sub": "alice" }));
        let jwk: Jwk = serde_json::from_value(key.jwk()).unwrap();
        let decoded = jsonwebtoken::decode::<Value>(
            token.as_str(),
            &DecodingKey::from_jwk(&jwk).unwrap(),
            &Validation::new(jsonwebtoken::Algorithm::ES256),
        );
        assert_eq!(decoded.unwrap().claims.get("sub"), Some(&json!("alice")));
    }

    #[test]
    fn the_provider_has_no_shared_secrets() {
        let secret = DecodingKey::from_secret(b"secret");
        for algorithm in
            [jsonwebtoken::Algorithm::HS256, jsonwebtoken::Algorithm::HS384, jsonwebtoken::Algorithm::HS512]
        {
            assert!((RING.verifier_factory)(&algorithm, &secret).is_err());
        }
        assert!(!verify(Algorithm::ES256, &secret, b"message", b"signature"));
    }

    /// RFC 7638 §3.1.
    #[test]
    fn the_provider_makes_thumbprints() {
        let digest = (RING.key_utils.compute_digest)(b"abc", ThumbprintHash::SHA256).unwrap();
        assert_eq!(digest, sha256(b"abc"));
    }
}
