//! Which session ids has their caller ended before they expired?

use dashmap::DashMap;
use ring::digest::{SHA256, digest};

use crate::time::UnixSeconds;

/// Ended session ids, until they would have expired by themselves. It is a courtesy, not the truth: the server forgets
/// the session too, so an id that is dropped here early still ends in a 404.
#[derive(Debug)]
pub(crate) struct Revoked {
    until: DashMap<Fingerprint, UnixSeconds>,
    entries_max: usize,
}

impl Revoked {
    /// Remembers at most `entries_max` ids.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { until: DashMap::new(), entries_max }
    }

    /// Whether this id was ended.
    pub(crate) fn contains(&self, id: &[u8]) -> bool {
        !self.until.is_empty() && self.until.contains_key(&fingerprint(id))
    }

    /// Forgets ids that have expired by themselves.
    pub(crate) fn forget_expired(&self, now: UnixSeconds) {
        self.until.retain(|_id, until| *until > now);
    }

    /// Ends an id that would expire at `expires_at`. When full, the expired go first, then any.
    pub(crate) fn insert(&self, id: &[u8], expires_at: UnixSeconds, now: UnixSeconds) {
        if self.until.len() >= self.entries_max {
            self.forget_expired(now);
        }
        if self.until.len() >= self.entries_max {
            let any = self.until.iter().next().map(|entry| *entry.key());
            if let Some(any) = any {
                self.until.remove(&any);
            }
        }
        self.until.insert(fingerprint(id), expires_at);
    }
}

/// The first half of a SHA-256.
pub(super) type Fingerprint = [u8; 16];

/// Ids differ in length; a digest does not, and a dump of the table opens no session. Half of it is enough: ids are sealed, so
/// nobody can choose two with one fingerprint.
pub(super) fn fingerprint(id: &[u8]) -> Fingerprint {
    let digest = digest(&SHA256, id);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_id_stays_ended_and_others_do_not() {
        let revoked = Revoked::new(8);
        revoked.insert(b"v1.a", UnixSeconds(100), UnixSeconds(1));
        assert!(revoked.contains(b"v1.a"));
        assert!(!revoked.contains(b"v1.b"));
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let revoked = Revoked::new(8);
        revoked.insert(b"v1.a", UnixSeconds(100), UnixSeconds(1));
        revoked.insert(b"v1.b", UnixSeconds(200), UnixSeconds(1));
        revoked.forget_expired(UnixSeconds(100));
        assert_eq!((revoked.contains(b"v1.a"), revoked.contains(b"v1.b")), (false, true));
        assert_eq!(revoked.until.len(), 1);
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let revoked = Revoked::new(8);
        for number in 0..100_u64 {
            revoked.insert(&number.to_be_bytes(), UnixSeconds(number + 10), UnixSeconds(number));
        }
        assert!(revoked.until.len() <= 8);
        assert!(revoked.contains(&99_u64.to_be_bytes()));
    }
}
