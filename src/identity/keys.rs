//! Which keys may have signed a token of this issuer?

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::identity::Algorithm;
use crate::identity::crypto;

/// The usable keys of a JWK set (RFC 7517 §5), ready to verify with.
///
/// One bad key never costs the others: keys that cannot be used are left out and reported by [`KeySet::skipped`]. A set
/// that holds no usable key is a set too, because an issuer may publish an empty one to withdraw every key.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<SkippedKey>,
}

impl KeySet {
    /// Reads a JWK set and prepares its keys.
    ///
    /// Left out are keys for encryption (`use`, `key_ops`), symmetric keys, unknown types and curves, RSA keys under 2048
    /// bits, keys whose `alg` we do not verify or that does not fit their type, keys published with their private half,
    /// and everything past the first [`KEYS_MAX`].
    ///
    /// # Errors
    /// [`KeySetError::Malformed`] when it is not a JSON object with an array `keys`.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Jwks<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }

        let jwks: Jwks<'_> = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let mut set = Self::default();
        for (index, jwk) in jwks.keys.into_iter().enumerate() {
            if index >= KEYS_MAX {
                set.skipped.push(SkippedKey { index, kid: None, reason: SkipReason::TooMany });
                break;
            }
            match Key::read(jwk.get()) {
                Ok(key) => set.keys.push(key),
                Err((kid, reason)) => set.skipped.push(SkippedKey { index, kid, reason }),
            }
        }
        Ok(set)
    }

    /// Whether a key of this set could verify a token with this header: if not, the issuer may have a newer set.
    #[must_use]
    pub fn knows(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(kid, algorithm).next().is_some()
    }

    /// Whether the key with this thumbprint is in the set. What a key that left had signed is not believed any more.
    #[must_use]
    pub fn contains(&self, thumbprint: &str) -> bool {
        self.keys.iter().any(|key| *key.thumbprint == *thumbprint)
    }

    /// Whether both sets hold the same keys under the same names, in any order.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        let within = |these: &Self, those: &Self| these.keys.iter().all(|key| those.keys.iter().any(|it| it.is(key)));
        within(self, other) && within(other, self)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that were left out.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// The keys a signature may be tried with.
    ///
    /// A token that names a key is tried with the keys of that name, one that names none with every key that fits its
    /// algorithm; at most [`TRIES_MAX`] of them, so that a token cannot make us check a whole set of signatures.
    pub(super) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        self.keys
            .iter()
            .filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
            .filter(move |key| key.fits(algorithm))
            .take(TRIES_MAX)
    }
}

/// One public key.
#[derive(Clone)]
pub(super) struct Key {
    kid: Option<Box<str>>,
    /// RFC 7638, SHA-256, base64url.
    thumbprint: Box<str>,
    kind: KeyKind,
    /// `alg` of the JWK: the only algorithm the key may be used with.
    algorithm: Option<Algorithm>,
    material: DecodingKey,
}

impl Key {
    /// Whether `signature` over `message` was made with this key.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.fits(algorithm) && crypto::verify(algorithm, &self.material, message, signature)
    }

    pub(super) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// A key is used with one algorithm only when it says so, and never outside its type and curve (RFC 8725 §3.1).
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind == KeyKind::of(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }

    fn is(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint && self.kid == other.kid && self.algorithm == other.algorithm
    }

    fn read(json: &str) -> Result<Self, (Option<Box<str>>, SkipReason)> {
        let jwk: Jwk = serde_json::from_str(json).map_err(|_| (None, SkipReason::Malformed))?;
        let kid = jwk.kid.as_deref().map(Into::into);
        Self::from_jwk(jwk).map_err(|reason| (kid, reason))
    }

    fn from_jwk(jwk: Jwk) -> Result<Self, SkipReason> {
        if jwk.public_key_use.is_some_and(|it| it != "sig") {
            return Err(SkipReason::NotForSignatures);
        }
        if jwk.key_ops.is_some_and(|operations| !operations.iter().any(|it| it == "verify")) {
            return Err(SkipReason::NotForSignatures);
        }
        let (kind, thumbprint, material) = match jwk.kty.as_str() {
            "EC" => read_ec(jwk.crv.as_deref(), jwk.x.as_deref(), jwk.y.as_deref())?,
            "OKP" => read_okp(jwk.crv.as_deref(), jwk.x.as_deref())?,
            "RSA" => read_rsa(jwk.n.as_deref(), jwk.e.as_deref())?,
            _ => return Err(SkipReason::UnsupportedType),
        };
        // RFC 7518 §6.2.2, §6.3.2: `d` is the private key. Whoever can read the set can sign with it.
        if jwk.d.is_some() {
            return Err(SkipReason::PrivateKey);
        }
        let algorithm = match jwk.alg.as_deref() {
            None => None,
            Some(name) => Some(Algorithm::parse(name).ok_or(SkipReason::UnsupportedAlgorithm)?),
        };
        if algorithm.is_some_and(|it| KeyKind::of(it) != kind) {
            return Err(SkipReason::WrongAlgorithm);
        }
        Ok(Self { kid: jwk.kid.map(Into::into), thumbprint, kind, algorithm, material })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A key of the set that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// Its `kid`, where it could be read.
    pub kid: Option<Box<str>>,
    /// Why it is not used.
    pub reason: SkipReason,
}

/// Why a key of a JWK set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// A member is missing, repeated, or not what RFC 7518 §6 says.
    Malformed,
    /// `use` is not `sig`, or `key_ops` lacks `verify` (RFC 7517 §4.2, §4.3).
    NotForSignatures,
    /// The private half is published with it.
    PrivateKey,
    /// More keys than [`KEYS_MAX`]; this one and all after it.
    TooMany,
    /// An RSA key of less than 2048 bits (RFC 7518 §3.3), of more than 8192, or with an exponent nobody uses.
    UnsafeSize,
    /// Its `alg` is none that we verify.
    UnsupportedAlgorithm,
    /// A curve other than P-256, P-384 and Ed25519.
    UnsupportedCurve,
    /// A type other than EC, OKP and RSA; a symmetric key (`oct`) above all.
    UnsupportedType,
    /// Its `alg` is for keys of another type or curve.
    WrongAlgorithm,
}

impl SkipReason {
    /// Word for logs: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotForSignatures => "not_for_signatures",
            Self::PrivateKey => "private_key",
            Self::TooMany => "too_many",
            Self::UnsafeSize => "unsafe_size",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::UnsupportedCurve => "unsupported_curve",
            Self::UnsupportedType => "unsupported_type",
            Self::WrongAlgorithm => "wrong_algorithm",
        }
    }
}

/// Why something is not a JWK set at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON object with an array `keys` (RFC 7517 §5).
    #[error("not a JWK set")]
    Malformed,
}

/// Keys read of one set. Issuers publish a handful; the largest known publish some dozen.
pub const KEYS_MAX: usize = 64;
/// Signatures checked for one token.
pub const TRIES_MAX: usize = 4;

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// What kind of key an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Ed25519,
    P256,
    P384,
    Rsa,
}

impl KeyKind {
    fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EdDSA => Self::Ed25519,
            Algorithm::ES256 => Self::P256,
            Algorithm::ES384 => Self::P384,
            Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512 => Self::Rsa,
        }
    }
}

/// The members of a JWK that matter here (RFC 7517 §4, RFC 7518 §6). A member of another type than this fails the key.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    public_key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<IgnoredAny>,
}

type Material = (KeyKind, Box<str>, DecodingKey);

fn read_ec(crv: Option<&str>, x: Option<&str>, y: Option<&str>) -> Result<Material, SkipReason> {
    let (kind, curve, width) = match crv {
        Some("P-256") => (KeyKind::P256, "P-256", 32),
        Some("P-384") => (KeyKind::P384, "P-384", 48),
        Some(_) => return Err(SkipReason::UnsupportedCurve),
        None => return Err(SkipReason::Malformed),
    };
    let (x, y) = (decode(x)?, decode(y)?);
    // RFC 7518 §6.2.1.2: both coordinates have the full width of the curve.
    if x.len() != width || y.len() != width {
        return Err(SkipReason::Malformed);
    }
    let thumbprint =
        thumbprint(&format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, encode(&x), encode(&y)));
    // SEC 1 §2.3.3: an uncompressed point.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Ok((kind, thumbprint, DecodingKey::from_ec_der(&point)))
}

fn read_okp(crv: Option<&str>, x: Option<&str>) -> Result<Material, SkipReason> {
    match crv {
        Some("Ed25519") => {}
        Some(_) => return Err(SkipReason::UnsupportedCurve),
        None => return Err(SkipReason::Malformed),
    }
    let x = decode(x)?;
    if x.len() != 32 {
        return Err(SkipReason::Malformed);
    }
    let thumbprint = thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(&x)));
    Ok((KeyKind::Ed25519, thumbprint, DecodingKey::from_ed_der(&x)))
}

fn read_rsa(n: Option<&str>, e: Option<&str>) -> Result<Material, SkipReason> {
    let (n, e) = (decode(n)?, decode(e)?);
    // RFC 7518 §6.3.1.1 asks for the fewest octets, some issuers prepend the sign octet of their big integers; ring refuses it.
    let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
    let (Some(n_first), Some(n_last)) = (n.first(), n.last()) else { return Err(SkipReason::Malformed) };
    let bits = n.len() * 8 - n_first.leading_zeros() as usize;
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(SkipReason::UnsafeSize);
    }
    // What ring verifies with: an odd modulus, and an odd exponent of 3 or more in at most 33 bits.
    if e.len() > 5 {
        return Err(SkipReason::UnsafeSize);
    }
    let exponent = e.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    if n_last % 2 == 0 || exponent % 2 == 0 {
        return Err(SkipReason::Malformed);
    }
    if !(3..1 << 33).contains(&exponent) {
        return Err(SkipReason::UnsafeSize);
    }
    let thumbprint = thumbprint(&format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n)));
    Ok((KeyKind::Rsa, thumbprint, DecodingKey::from_rsa_raw_components(n, e)))
}

/// RFC 7638 §3: the required members in lexicographic order, no white space, SHA-256.
fn thumbprint(canonical: &str) -> Box<str> {
    encode(&crypto::sha256(canonical.as_bytes())).into()
}

fn decode(text: Option<&str>) -> Result<Vec<u8>, SkipReason> {
    text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(SkipReason::Malformed)
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
