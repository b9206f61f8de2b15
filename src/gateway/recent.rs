//! What is remembered of the latest sessions, and no more of them than there is room for?

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use ring::digest::{SHA256, digest};

/// A value for each of so many session ids. Where there is room for no more, the one that came first goes: a table of which any
/// may go loses also the one that has just come.
pub(super) struct Recent<V> {
    values: DashMap<Fingerprint, V>,
    /// Every id in `values`, as they came, and some that are there no more. Held while ids come and go, never while one is looked
    /// for.
    order: Mutex<VecDeque<Fingerprint>>,
    /// Spares every request a look-up while there is nothing to find: to count `values` takes a lock for each of its parts.
    is_used: AtomicBool,
    entries_max: usize,
}

impl<V> Recent<V> {
    /// Room for `entries_max` values.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { values: DashMap::new(), order: Mutex::default(), is_used: AtomicBool::new(false), entries_max }
    }

    /// The value for `id`.
    pub(super) fn get(&self, id: &[u8]) -> Option<Ref<'_, Fingerprint, V>> {
        if self.is_empty() { None } else { self.values.get(&fingerprint(id)) }
    }

    /// Whether there is a value for `id`.
    pub(super) fn contains(&self, id: &[u8]) -> bool {
        !self.is_empty() && self.values.contains_key(&fingerprint(id))
    }

    /// Keeps `value` for `id`, in the place of an earlier one.
    pub(super) fn insert(&self, id: &[u8], value: V) {
        let id = fingerprint(id);
        let mut order = self.order();
        while self.values.len() >= self.entries_max
            && let Some(first) = order.pop_front()
        {
            self.values.remove(&first);
        }
        if self.values.insert(id, value).is_none() {
            order.push_back(id);
        }
        self.is_used.store(true, Ordering::Release);
        if order.len() > 2 * self.entries_max {
            order.retain(|id| self.values.contains_key(id));
        }
    }

    /// Forgets `id`.
    pub(super) fn remove(&self, id: &[u8]) {
        if !self.is_empty() {
            self.values.remove(&fingerprint(id));
        }
    }

    /// Forgets those that `wanted` says no to.
    pub(super) fn retain(&self, wanted: impl Fn(&V) -> bool) {
        let mut order = self.order();
        self.values.retain(|_id, value| wanted(value));
        order.retain(|id| self.values.contains_key(id));
        self.is_used.store(!order.is_empty(), Ordering::Release);
    }

    /// Whether there is certainly no value.
    fn is_empty(&self) -> bool {
        !self.is_used.load(Ordering::Acquire)
    }

    /// Nothing panics while it is held.
    fn order(&self) -> MutexGuard<'_, VecDeque<Fingerprint>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> fmt::Debug for Recent<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("len", &self.values.len()).field("entries_max", &self.entries_max).finish()
    }
}

/// The first half of a SHA-256.
type Fingerprint = [u8; 16];

/// Ids differ in length; a digest does not, and a dump of the table opens no session. Half of it is enough: ids are sealed, so
/// nobody can choose two with one fingerprint.
fn fingerprint(id: &[u8]) -> Fingerprint {
    let digest = digest(&SHA256, id);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_came_last_are_held() {
        let recent = Recent::new(8);
        for number in 0..1_000_u64 {
            recent.insert(&number.to_be_bytes(), number);
        }
        assert_eq!((recent.values.len(), recent.order().len()), (8, 8));
        assert!((992..1_000_u64).all(|number| recent.contains(&number.to_be_bytes())));
    }

    #[test]
    fn what_is_forgotten_makes_room_and_leaves_nothing_behind() {
        let recent = Recent::new(8);
        recent.insert(b"stays", 0);
        for number in 1..1_000_u64 {
            recent.insert(&number.to_be_bytes(), number);
            recent.remove(&number.to_be_bytes());
        }
        assert!(recent.contains(b"stays") && recent.order().len() <= 16);
        recent.retain(|number| *number > 0);
        assert!(!recent.contains(b"stays") && recent.order().is_empty() && recent.is_empty());
        recent.insert(b"comes", 1);
        assert!(recent.contains(b"comes") && !recent.is_empty());
    }

    #[test]
    fn an_id_that_comes_twice_is_held_once() {
        let recent = Recent::new(2);
        for number in 0..3 {
            recent.insert(b"v1.a", number);
        }
        recent.insert(b"v1.b", 3);
        assert_eq!((recent.contains(b"v1.b"), recent.order().len()), (true, 2));
        assert_eq!(recent.get(b"v1.a").map(|value| *value), Some(2));
    }
}
