//! What is inside a session id, and who may open it?
//!
//! ```text
//! v1. base64url( nonce 12 | sealed( issued 8 | expires 8 | len 1 server | len 1 instance | upstream id ) | tag 16 )
//! associated data: len 4 issuer | len 4 subject | len 4 route
//! ```

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use crate::identity::Principal;
use crate::time::UnixSeconds;

use super::ring::Ring;

/// A conversation with one instance of one server (revisions 2025-03-26 to 2025-11-25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The server.
    pub server: Box<str>,
    /// The instance that knows the session.
    pub instance: Box<str>,
    /// The id the instance gave: visible ASCII. Never shown to the client.
    pub upstream_id: Box<str>,
    /// When the id was sealed.
    pub issued_at: UnixSeconds,
    /// From when on the id is unknown.
    pub expires_at: UnixSeconds,
}

/// Whose session it is: what an id is bound to without carrying it.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The caller.
    pub principal: &'a Principal,
    /// The route's path: an id of one route is unknown on another (the route may allow what this one does not).
    pub route: &'a str,
}

/// Why an id does not open. To the client all are one answer: 404 `unknown_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It was sealed for us, but its time has passed.
    #[error("session id has expired")]
    Expired,
    /// No key opens it for this caller on this route: forged, damaged, someone else's, or sealed with a retired key.
    #[error("session id is not one of ours, or not the caller's")]
    Forged,
    /// It was too long, or not in the form of an id at all.
    #[error("session id is malformed")]
    Malformed,
}

impl SessionError {
    /// Word for the audit record: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
        }
    }
}

/// The upstream id was not fit to be sealed: empty, longer than [`UPSTREAM_ID_BYTES_MAX`], or not visible ASCII
/// (MCP 2025-11-25, "Session Management").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's session id is not visible ASCII of a reasonable length")]
pub struct Unsealable;

/// Seals a session into the id that the client sees: visible ASCII, at most [`ID_BYTES_MAX`] bytes.
///
/// `nonce` must come from a random number generator and never be used twice with the same key (random 96 bits allow
/// 2³² ids per key, NIST SP 800-38D §8.3).
///
/// # Errors
/// [`Unsealable`] when the upstream's id (or a configured name) does not fit.
pub fn seal(
    session: &Session,
    binding: Binding<'_>,
    nonce: [u8; NONCE_LEN],
    ring: &Ring,
) -> Result<String, Unsealable> {
    let upstream_id = session.upstream_id.as_bytes();
    if upstream_id.is_empty()
        || upstream_id.len() > UPSTREAM_ID_BYTES_MAX
        || !upstream_id.iter().all(|byte| (0x21..=0x7e).contains(byte))
    {
        return Err(Unsealable);
    }
    let mut plain = Vec::with_capacity(32 + session.server.len() + session.instance.len() + upstream_id.len());
    plain.extend_from_slice(&session.issued_at.0.to_be_bytes());
    plain.extend_from_slice(&session.expires_at.0.to_be_bytes());
    for name in [&session.server, &session.instance] {
        plain.push(u8::try_from(name.len()).map_err(|_too_long| Unsealable)?);
        plain.extend_from_slice(name.as_bytes());
    }
    plain.extend_from_slice(upstream_id);

    let key = ring.sealing_key().ok_or(Unsealable)?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated_data(binding)), &mut plain)
        .map_err(|_unspecified| Unsealable)?;

    let mut id = String::with_capacity(PREFIX.len() + (NONCE_LEN + plain.len()) * 4 / 3 + 4);
    id.push_str(PREFIX);
    let mut bytes = Vec::with_capacity(NONCE_LEN + plain.len());
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&plain);
    URL_SAFE_NO_PAD.encode_string(bytes, &mut id);
    Ok(id)
}

/// Opens an id made by [`seal`].
///
/// # Errors
/// [`SessionError::Malformed`] when it cannot be an id at all, [`SessionError::Forged`] when no key of `ring` opens it for
/// this caller and route, [`SessionError::Expired`] when `now` has reached the expiry inside.
pub fn open(id: &[u8], binding: Binding<'_>, ring: &Ring, now: UnixSeconds) -> Result<Session, SessionError> {
    if id.len() > ID_BYTES_MAX {
        return Err(SessionError::Malformed);
    }
    let encoded = id.strip_prefix(PREFIX.as_bytes()).ok_or(SessionError::Malformed)?;
    let mut bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_not_base64url| SessionError::Malformed)?;
    let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or(SessionError::Malformed)?;

    let associated_data = associated_data(binding);
    let try_key = |key: &LessSafeKey, in_out: &mut [u8]| {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.open_in_place(nonce, Aad::from(&associated_data), in_out).ok()?;
        Some(read(plain).ok_or(SessionError::Malformed))
    };
    // A failed attempt spoils the bytes, so all but the last have a copy.
    let (last, others) = ring.opening_keys().split_last().ok_or(SessionError::Forged)?;
    let session = others.iter().find_map(|key| try_key(key, &mut sealed.to_vec()));
    let session = session.or_else(|| try_key(last, sealed)).ok_or(SessionError::Forged)??;
    if now >= session.expires_at {
        return Err(SessionError::Expired);
    }
    Ok(session)
}

fn read(plain: &[u8]) -> Option<Session> {
    let (issued_at, rest) = plain.split_first_chunk::<8>()?;
    let (expires_at, rest) = rest.split_first_chunk::<8>()?;
    let (server, rest) = read_name(rest)?;
    let (instance, rest) = read_name(rest)?;
    Some(Session {
        server,
        instance,
        upstream_id: std::str::from_utf8(rest).ok()?.into(),
        issued_at: UnixSeconds(u64::from_be_bytes(*issued_at)),
        expires_at: UnixSeconds(u64::from_be_bytes(*expires_at)),
    })
}

fn read_name(bytes: &[u8]) -> Option<(Box<str>, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((std::str::from_utf8(name).ok()?.into(), rest))
}

/// Every part is preceded by its length, so that no two bindings give the same bytes.
fn associated_data(binding: Binding<'_>) -> Vec<u8> {
    let parts = [&*binding.principal.issuer, &*binding.principal.subject, binding.route];
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

const PREFIX: &str = "v1.";

/// The longest upstream session id that is sealed.
pub const UPSTREAM_ID_BYTES_MAX: usize = 512;

/// The longest id that is opened: two names of 255 bytes, an upstream id and the sealing, in base64url.
pub const ID_BYTES_MAX: usize = 1536;

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test should stop at the line that failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_sealed_session_opens_again_for_the_same_caller_and_route() {
        let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
        assert_eq!(open(id.as_bytes(), alice_on("/mcp", &alice()), &ring(1), NOW), Ok(session()));
    }

    #[test]
    fn an_id_shows_nothing_of_what_is_inside() {
        let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(id.strip_prefix(PREFIX).unwrap()).unwrap();
        for secret in ["upstream-1", "tickets", "alice"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is readable");
        }
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
    }

    /// Incident row 7 (CVE-2025-6515, CVE-2026-33946): a stolen id must be worth nothing to another caller.
    #[test]
    fn another_callers_id_does_not_open() {
        let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
        let bob = Principal { issuer: "https://idp.test".into(), subject: "bob".into() };
        let other_issuer = Principal { issuer: "https://other.test".into(), subject: "alice".into() };
        for thief in [&bob, &other_issuer] {
            let binding = Binding { principal: thief, route: "/mcp" };
            assert_eq!(open(id.as_bytes(), binding, &ring(1), NOW), Err(SessionError::Forged));
        }
    }

    #[test]
    fn an_id_from_another_route_does_not_open() {
        let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
        assert_eq!(open(id.as_bytes(), alice_on("/admin", &alice()), &ring(1), NOW), Err(SessionError::Forged));
    }

    #[test]
    fn an_id_expires_at_the_second_inside() {
        let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
        let at = |now| open(id.as_bytes(), alice_on("/mcp", &alice()), &ring(1), now);
        assert!(at(UnixSeconds(1999)).is_ok());
        assert_eq!(at(UnixSeconds(2000)), Err(SessionError::Expired));
    }

    #[test]
    fn a_rotated_key_still_opens_and_a_retired_one_does_not() {
        let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
        let rotated = Ring::derive(&[Secret::new([2; 32]), Secret::new([1; 32])]).unwrap();
        assert!(open(id.as_bytes(), alice_on("/mcp", &alice()), &rotated, NOW).is_ok());
        assert_eq!(open(id.as_bytes(), alice_on("/mcp", &alice()), &ring(2), NOW), Err(SessionError::Forged));
    }

    #[test]
    fn what_cannot_be_an_id_is_malformed() {
        let long = format!("v1.{}", "A".repeat(ID_BYTES_MAX));
        for id in ["", "v1.", "v2.AAAA", "v1.AAAA", "v1.!!!!", "1868a90c-7342-4f3a", "v1.AAAA====", &long] {
            let opened = open(id.as_bytes(), alice_on("/mcp", &alice()), &ring(1), NOW);
            assert_eq!(opened, Err(SessionError::Malformed), "{id}");
        }
    }

    #[test]
    fn an_upstream_id_that_is_not_visible_ascii_is_not_sealed() {
        for upstream_id in ["", "a b", "ü", "tab\t", &"x".repeat(UPSTREAM_ID_BYTES_MAX + 1)] {
            let session = Session { upstream_id: upstream_id.into(), ..session() };
            assert_eq!(seal(&session, alice_on("/mcp", &alice()), [7; 12], &ring(1)), Err(Unsealable));
        }
    }

    proptest! {
        #[test]
        fn opening_undoes_sealing(upstream_id in "[!-~]{1,512}", server in "[a-z]{1,40}", nonce: [u8; 12]) {
            let session = Session { upstream_id: upstream_id.into(), server: server.into(), ..session() };
            let id = seal(&session, alice_on("/mcp", &alice()), nonce, &ring(1)).unwrap();
            prop_assert!(id.len() <= ID_BYTES_MAX);
            prop_assert_eq!(open(id.as_bytes(), alice_on("/mcp", &alice()), &ring(1), NOW), Ok(session));
        }

        #[test]
        fn any_changed_byte_is_refused(at in 3_usize..80, flip in 1_u8..=255) {
            let id = seal(&session(), alice_on("/mcp", &alice()), [7; 12], &ring(1)).unwrap();
            let mut bytes = id.into_bytes();
            let at = 3 + at % (bytes.len() - 3);
            bytes[at] ^= flip;
            prop_assert!(open(&bytes, alice_on("/mcp", &alice()), &ring(1), NOW).is_err());
        }
    }

    const NOW: UnixSeconds = UnixSeconds(1500);

    fn session() -> Session {
        Session {
            server: "tickets".into(),
            instance: "a".into(),
            upstream_id: "upstream-1".into(),
            issued_at: UnixSeconds(1000),
            expires_at: UnixSeconds(2000),
        }
    }

    fn alice() -> Principal {
        Principal { issuer: "https://idp.test".into(), subject: "alice".into() }
    }

    fn alice_on<'a>(route: &'a str, principal: &'a Principal) -> Binding<'a> {
        Binding { principal, route }
    }

    fn ring(byte: u8) -> Ring {
        Ring::derive(&[Secret::new([byte; 32])]).unwrap()
    }
}
