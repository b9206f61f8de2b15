//! Which token does the caller present? The one Bearer token of the one `Authorization` header, not yet believed.

use std::fmt;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::identity::crypto;

/// Takes the Bearer token out of a request head.
///
/// Only the `Authorization` header is read: a token in the query or the body is no token (RFC 9700 §4.3.2; MCP authorization,
/// "Token Requirements"). The scheme is matched in any case (RFC 9110 §11.1) and the token must be a `b64token` (RFC 6750
/// §2.1) of at most [`TOKEN_BYTES_MAX`] bytes.
///
/// The token shares the head's memory: nothing is copied.
///
/// # Errors
/// [`BearerError::Missing`] without the header, with an empty one or with another scheme; [`BearerError::Repeated`] with two
/// headers, whatever they hold; [`BearerError::Malformed`] and [`BearerError::TooLong`] for what cannot be a token.
pub fn unverified_token(head: &HeaderMap) -> Result<UnverifiedToken, BearerError> {
    let mut headers = head.get_all(AUTHORIZATION).iter();
    let value = headers.next().ok_or(BearerError::Missing)?;
    // Two headers are two callers: whichever we took, something behind or in front of us could take the other.
    if headers.next().is_some() {
        return Err(BearerError::Repeated);
    }

    let bytes = value.as_bytes();
    let (scheme, rest) = match bytes.iter().position(|byte| *byte == b' ') {
        Some(end) => bytes.split_at(end),
        None => (bytes, [].as_slice()),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(BearerError::Missing);
    }
    // RFC 9110 §11.4: one or more spaces between scheme and token.
    let token = without_leading_spaces(rest);
    if token.is_empty() {
        return Err(BearerError::Missing);
    }
    read(value, bytes.len() - token.len())
}

/// Takes the token out of the header `name`, which holds it alone, without a scheme. `None`: there is no such header.
///
/// The token is a `b64token` (RFC 6750 §2.1) of at most [`TOKEN_BYTES_MAX`] bytes and shares the head's memory.
///
/// # Errors
/// [`BearerError::Missing`] when the header is empty, [`BearerError::Repeated`] with two of them, whatever they hold;
/// [`BearerError::Malformed`] and [`BearerError::TooLong`] for what cannot be a token.
pub fn unverified_token_in(head: &HeaderMap, name: &HeaderName) -> Result<Option<UnverifiedToken>, BearerError> {
    let mut headers = head.get_all(name).iter();
    let Some(value) = headers.next() else { return Ok(None) };
    if headers.next().is_some() {
        return Err(BearerError::Repeated);
    }
    if value.is_empty() {
        return Err(BearerError::Missing);
    }
    read(value, 0).map(Some)
}

/// Reads the token that stands in `value` from byte `start` on.
fn read(value: &HeaderValue, start: usize) -> Result<UnverifiedToken, BearerError> {
    let token = value.as_bytes().get(start..).unwrap_or_default();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(BearerError::TooLong);
    }
    if !is_b64token(token) {
        return Err(BearerError::Malformed);
    }
    Ok(UnverifiedToken { start, digest: TokenDigest(crypto::sha256(token)), value: value.clone() })
}

/// Takes a token that came in the body of an issuer's answer, such as an ID token.
///
/// # Errors
/// [`BearerError::Missing`], [`BearerError::Malformed`] and [`BearerError::TooLong`].
pub fn token_of_answer(text: &str) -> Result<UnverifiedToken, BearerError> {
    if text.is_empty() {
        return Err(BearerError::Missing);
    }
    if text.len() > TOKEN_BYTES_MAX {
        return Err(BearerError::TooLong);
    }
    if !is_b64token(text.as_bytes()) {
        return Err(BearerError::Malformed);
    }
    let value = HeaderValue::from_str(text).map_err(|_checked| BearerError::Malformed)?;
    Ok(UnverifiedToken { start: 0, digest: TokenDigest(crypto::sha256(text.as_bytes())), value })
}

/// A Bearer token as it came. Nothing in it is believed, and it is never printed.
///
/// It has no way into a credential for an upstream but as the subject token of an exchange (RFC 8693 §2.1).
#[derive(Clone)]
pub struct UnverifiedToken {
    /// The whole header value.
    value: HeaderValue,
    /// INVARIANT: from here on `value` is a `b64token`, so ASCII and not empty.
    start: usize,
    /// Made once, because three caches ask for it.
    digest: TokenDigest,
}

impl UnverifiedToken {
    /// The token itself, to verify it or to exchange it. Every call of this is a place to look at in a review.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Never empty: what fails here was refused by `unverified_token`.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// SHA-256 of the token: what caches are keyed by, so that they hold nothing that could be presented.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }

    fn as_bytes(&self) -> &[u8] {
        self.value.as_bytes().get(self.start..).unwrap_or_default()
    }
}

impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnverifiedToken(…)")
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// Why a request head holds no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BearerError {
    /// Not a `b64token` (RFC 6750 §2.1): 401 `invalid_token`, which covers malformed tokens (§3.1).
    #[error("the bearer token has characters that no token has")]
    Malformed,
    /// No `Authorization` header, an empty one, or another scheme: 401 with a challenge that names no error (RFC 6750 §3.1).
    #[error("no bearer token was presented")]
    Missing,
    /// More than one `Authorization` header: 400 `invalid_request`.
    #[error("more than one Authorization header")]
    Repeated,
    /// Longer than [`TOKEN_BYTES_MAX`]: 401 `invalid_token`.
    #[error("the bearer token is too long")]
    TooLong,
}

impl BearerError {
    /// Word for metrics and audit: one of a fixed set, never data from the request.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Missing => "missing_token",
            Self::Repeated => "repeated_authorization",
            Self::TooLong => "too_long",
        }
    }
}

/// Bytes of a token. Issuers that put group lists into tokens reach a few KiB; what is longer does not fit the header limits
/// of most servers anyway.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

fn without_leading_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
    bytes.get(spaces..).unwrap_or_default()
}

/// `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = token.get(..token.len() - padding).unwrap_or_default();
    // Without an early end, so that the compiler looks at many bytes at once: nearly every token is good to its end.
    !body.is_empty() && body.iter().fold(true, |good, byte| good & is_b64token_byte(*byte))
}

fn is_b64token_byte(byte: u8) -> bool {
    let is_within = |first: u8, last: u8| byte.wrapping_sub(first) <= last - first;
    // `-`, `.` and `/` are neighbours.
    is_within(b'a', b'z')
        | is_within(b'A', b'Z')
        | is_within(b'0', b'9')
        | is_within(b'-', b'/')
        | (byte == b'_')
        | (byte == b'~')
        | (byte == b'+')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_characters_of_a_b64token_pass() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_b64token_byte(byte), expected, "{byte:#04x}");
        }
    }

    #[test]
    fn the_scheme_is_matched_in_any_case_and_after_any_number_of_spaces() {
        for value in ["Bearer abc.d-e_f", "bearer abc.d-e_f", "BEARER   abc.d-e_f"] {
            assert_eq!(unverified_token(&head(&[value])).unwrap().as_str(), "abc.d-e_f", "{value}");
        }
    }

    #[test]
    fn what_is_not_one_bearer_token_is_refused() {
        let long = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1));
        let cases: &[(&[&str], BearerError)] = &[
            (&[], BearerError::Missing),
            (&[""], BearerError::Missing),
            (&["Bearer"], BearerError::Missing),
            (&["Bearer "], BearerError::Missing),
            (&["Basic YWxpY2U6c2VjcmV0"], BearerError::Missing),
            (&["DPoP abc"], BearerError::Missing),
            (&["Bearerabc"], BearerError::Missing),
            (&["Bearer\tabc"], BearerError::Missing),
            (&["abc.def.ghi"], BearerError::Missing),
            (&["Bearer abc", "Bearer abc"], BearerError::Repeated),
            (&["Basic YQ==", "Bearer abc"], BearerError::Repeated),
            (&["Bearer abc def"], BearerError::Malformed),
            (&["Bearer abc, Bearer def"], BearerError::Malformed),
            (&["Bearer \tabc"], BearerError::Malformed),
            (&["Bearer \"abc\""], BearerError::Malformed),
            (&["Bearer a=b"], BearerError::Malformed),
            (&["Bearer =="], BearerError::Malformed),
            (&["Bearer abc;x"], BearerError::Malformed),
            (&[&long], BearerError::TooLong),
        ];
        for (values, expected) in cases {
            assert_eq!(unverified_token(&head(values)).unwrap_err(), *expected, "{values:?}");
        }
        let mut latin = HeaderMap::new();
        latin.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer abc\xff").unwrap());
        assert_eq!(unverified_token(&latin).unwrap_err(), BearerError::Malformed);
    }

    #[test]
    fn a_token_in_a_header_of_its_own_stands_alone_in_it() {
        let name = HeaderName::from_static("x-agent-token");
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["abc.def.ghi"], Ok(Some("abc.def.ghi".to_owned()))),
            (&[""], Err(BearerError::Missing)),
            (&["abc", "abc"], Err(BearerError::Repeated)),
            (&["Bearer abc"], Err(BearerError::Malformed)),
            (&["abc, def"], Err(BearerError::Malformed)),
            (&[&long], Err(BearerError::TooLong)),
        ] {
            let mut head = HeaderMap::new();
            for value in values {
                head.append(&name, HeaderValue::from_str(value).unwrap());
            }
            let read = unverified_token_in(&head, &name).map(|token| token.map(|token| token.as_str().to_owned()));
            assert_eq!(read, expected, "{values:?}");
        }
    }

    #[test]
    fn the_longest_token_is_accepted_and_padding_may_end_it() {
        let longest = format!("Bearer {}==", "a".repeat(TOKEN_BYTES_MAX - 2));
        assert_eq!(unverified_token(&head(&[&longest])).unwrap().as_str().len(), TOKEN_BYTES_MAX);
    }

    #[test]
    fn the_digest_is_the_sha_256_of_the_token_alone() {
        let token = unverified_token(&head(&["bEARER  abc"])).unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03,
            0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
        ];
        assert_eq!(token.digest().as_bytes(), &abc);
    }

    #[test]
    fn a_token_and_its_digest_are_never_printed() {
        let token = unverified_token(&head(&["Bearer abc"])).unwrap();
        assert_eq!(format!("{token:?} {:?}", token.digest()), "UnverifiedToken(…) TokenDigest(…)");
    }

    fn head(values: &[&str]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for value in values {
            head.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        head
    }
}
