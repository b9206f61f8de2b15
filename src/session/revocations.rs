//! Whose sessions has somebody ended from outside?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::identity::Principal;
use crate::time::UnixSeconds;

/// Principals whose sessions were ended, each with the moment up to which. What was opened later is not concerned.
///
/// Bounded, and never short of an entry that could still matter: when it is full of those, it takes no more.
#[derive(Debug)]
pub struct Revocations {
    until: DashMap<Principal, Revoked>,
    entries_max: usize,
    /// Spares every request a look-up while there is nothing to find.
    is_used: AtomicBool,
}

/// When a principal's sessions were ended.
#[derive(Clone, Copy, Debug)]
pub struct Revoked {
    /// By the calendar, for sealed ids.
    pub at: UnixSeconds,
    /// By the clock of this process, for what is open.
    pub instant: Instant,
}

/// As many principals as may be are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many principals as may be are remembered")]
pub struct RevocationsFull;

impl Revocations {
    /// Remembers at most `entries_max` principals.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { until: DashMap::new(), entries_max, is_used: AtomicBool::new(false) }
    }

    /// Ends every session of `principal` that was opened up to `at`, and what is open at `instant`.
    ///
    /// # Errors
    /// [`RevocationsFull`].
    pub fn revoke(&self, principal: &Principal, at: UnixSeconds, instant: Instant) -> Result<(), RevocationsFull> {
        if self.until.len() >= self.entries_max && !self.until.contains_key(principal) {
            self.until.retain(|_principal, revoked| revoked.at.plus(SESSION_TTL_MAX) > at);
            if self.until.len() >= self.entries_max {
                return Err(RevocationsFull);
            }
        }
        self.until.insert(principal.clone(), Revoked { at, instant });
        self.is_used.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether a session of `principal` that was opened at `opened_at` was ended. Within one second the order is not
    /// known; then it was.
    #[must_use]
    pub fn ended(&self, principal: &Principal, opened_at: UnixSeconds) -> bool {
        self.of(principal).is_some_and(|revoked| opened_at <= revoked.at)
    }

    /// Whether something of `principal` that is open since `opened` has to end.
    #[must_use]
    pub fn ended_open(&self, principal: &Principal, opened: Instant) -> bool {
        self.of(principal).is_some_and(|revoked| opened <= revoked.instant)
    }

    /// When the sessions of `principal` were ended last.
    #[must_use]
    pub fn of(&self, principal: &Principal) -> Option<Revoked> {
        if !self.is_used.load(Ordering::Acquire) {
            return None;
        }
        self.until.get(principal).map(|revoked| *revoked)
    }

    /// Whether nobody's were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_used.load(Ordering::Acquire)
    }
}

/// The longest `session.ttl` that can be configured: a session opened before then has ended by itself.
const SESSION_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn principal(subject: &str) -> Principal {
        Principal { issuer: "https://idp.test".into(), subject: subject.into() }
    }

    #[test]
    fn what_was_open_is_ended_and_what_comes_later_is_not() {
        let revocations = Revocations::new(2);
        let now = Instant::now();
        let alice = principal("alice");
        assert!(!revocations.ended(&alice, UnixSeconds(10)));
        revocations.revoke(&alice, UnixSeconds(10), now).unwrap();
        assert!(revocations.ended(&alice, UnixSeconds(10)));
        assert!(!revocations.ended(&alice, UnixSeconds(11)));
        assert!(revocations.ended_open(&alice, now));
        assert!(!revocations.ended_open(&alice, now + Duration::from_nanos(1)));
        assert!(!revocations.ended(&principal("bob"), UnixSeconds(1)));
    }

    /// An entry that is dropped would open sessions again that somebody has ended.
    #[test]
    fn when_it_is_full_it_takes_no_more_and_forgets_only_what_cannot_matter() {
        let revocations = Revocations::new(1);
        let now = Instant::now();
        revocations.revoke(&principal("alice"), UnixSeconds(10), now).unwrap();
        assert_eq!(revocations.revoke(&principal("bob"), UnixSeconds(20), now), Err(RevocationsFull));
        revocations.revoke(&principal("alice"), UnixSeconds(30), now).unwrap();
        let later = UnixSeconds(30).plus(SESSION_TTL_MAX);
        revocations.revoke(&principal("bob"), later, now).unwrap();
        assert!(!revocations.ended(&principal("alice"), UnixSeconds(10)));
    }
}
