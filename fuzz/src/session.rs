//! Does a session id open for its own caller on its own route, and for nobody else?
//!
//! Input, one per line: issuer, subject, route, server, instance, upstream id; another issuer, subject, route. What
//! follows are changes to the sealed id, three bytes each: what to do, where, and with which byte.

use std::sync::LazyLock;

use portcullis::identity::Principal;
use portcullis::secret::Secret;
use portcullis::session::sealed::{ID_BYTES_MAX, UPSTREAM_ID_BYTES_MAX};
use portcullis::session::{Binding, Ring, Session, SessionError, open, seal};
use portcullis::time::UnixSeconds;

/// Seals, opens, and tries what must not open.
pub fn run(input: &[u8]) {
    let mut lines = input.splitn(10, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let mut text = || String::from_utf8_lossy(line()).into_owned();
    let alice = Principal { issuer: text().into(), subject: text().into() };
    let route = text();
    let session = Session {
        server: text().into(),
        instance: text().into(),
        upstream_id: text().into(),
        issued_at: UnixSeconds(1000),
        expires_at: UnixSeconds(2000),
    };
    let mallory = Principal { issuer: text().into(), subject: text().into() };
    let other_route = text();
    let changes = line();
    let nonce = nonce(input);
    let binding = Binding { principal: &alice, route: &route };
    // What the client holds is no id, whatever it is: nobody but us can make one.
    assert!(open(changes, binding, &OURS, NOW).is_err());

    let sealed = seal(&session, binding, nonce, &OURS);

    let upstream_id = session.upstream_id.as_bytes();
    let fits = session.server.len() <= 255
        && session.instance.len() <= 255
        && (1..=UPSTREAM_ID_BYTES_MAX).contains(&upstream_id.len())
        && upstream_id.iter().all(|byte| byte.is_ascii_graphic());
    assert_eq!(sealed.is_ok(), fits);
    let Ok(id) = sealed else { return };
    assert!(id.len() <= ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()));
    let id = id.as_bytes();

    assert_eq!(open(id, binding, &OURS, NOW).as_ref(), Ok(&session));
    assert_eq!(open(id, binding, &ROTATED, NOW).as_ref(), Ok(&session));
    assert_eq!(open(id, binding, &THEIRS, NOW), Err(SessionError::Forged));
    assert_eq!(open(id, binding, &OURS, session.expires_at), Err(SessionError::Expired));

    for (principal, other) in [(&mallory, &route), (&alice, &other_route), (&mallory, &other_route)] {
        let is_the_same = *principal == alice && *other == route;
        let expected = if is_the_same { Ok(session.clone()) } else { Err(SessionError::Forged) };
        assert_eq!(open(id, Binding { principal, route: other }, &OURS, NOW), expected);
    }

    let changed = change(id, changes);
    if changed != id {
        assert!(open(&changed, binding, &OURS, NOW).is_err(), "a changed id opens");
    }
}

/// Applies each change: replaces, flips, removes, inserts, or cuts.
fn change(id: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut id = id.to_vec();
    for change in changes.chunks_exact(3).take(64) {
        let at = usize::from(change[1]) * (id.len() + 1) / 256;
        match (change[0] % 5, id.get_mut(at)) {
            (0, Some(byte)) => *byte = change[2],
            (1, Some(byte)) => *byte ^= change[2],
            (2, Some(_)) => drop(id.remove(at)),
            (3, Some(_)) => id.truncate(at),
            _ => id.insert(at, change[2]),
        }
    }
    id
}

/// Not random: the same input must do the same again.
fn nonce(input: &[u8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (at, byte) in input.iter().enumerate() {
        nonce[at % 12] = byte.wrapping_add(u8::wrapping_mul(nonce[at % 12], 31));
    }
    nonce
}

const NOW: UnixSeconds = UnixSeconds(1500);

static OURS: LazyLock<Ring> = LazyLock::new(|| ring(&[1]));
static ROTATED: LazyLock<Ring> = LazyLock::new(|| ring(&[2, 1]));
static THEIRS: LazyLock<Ring> = LazyLock::new(|| ring(&[2, 3]));

fn ring(keys: &[u8]) -> Ring {
    let secrets: Vec<_> = keys.iter().map(|key| Secret::new([*key; 32])).collect();
    Ring::derive(&secrets).unwrap()
}
