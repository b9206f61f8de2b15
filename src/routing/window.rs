//! How many of the last requests have failed?

use std::time::{Duration, Instant};

/// Counts of what ended within the last while, in slots that are forgotten one after the other: a sum is of the whole time, or
/// up to a [`SLOTS`]th less.
#[derive(Debug)]
pub struct Window {
    slot: Duration,
    /// When the first slot began.
    since: Instant,
    /// The slot that is written to, counted from `since`.
    current: u64,
    slots: [Counts; SLOTS],
}

/// What ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of it.
    pub all: u32,
    /// What failed.
    pub failed: u32,
}

impl Window {
    /// An empty one over so long a time.
    #[must_use]
    pub fn new(over: Duration, now: Instant) -> Self {
        let slot = (over / SLOTS_U32).max(Duration::from_millis(1));
        Self { slot, since: now, current: 0, slots: [Counts::default(); SLOTS] }
    }

    /// Notes that one ended at `now`, and gives the sums with it. A time before the last one counts as that.
    pub fn note(&mut self, failed: bool, now: Instant) -> Counts {
        self.turn_to(now);
        if let Some(slot) = self.slots.get_mut(place_of(self.current)) {
            slot.all = slot.all.saturating_add(1);
            slot.failed = slot.failed.saturating_add(u32::from(failed));
        }
        self.sums()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots = [Counts::default(); SLOTS];
    }

    fn turn_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos() / self.slot.as_nanos().max(1);
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let steps = passed.saturating_sub(self.current);
        // After a whole round every slot is forgotten, however long it was.
        for step in 1..=steps.min(SLOTS as u64) {
            if let Some(slot) = self.slots.get_mut(place_of(self.current.saturating_add(step))) {
                *slot = Counts::default();
            }
        }
        self.current = self.current.max(passed);
    }

    fn sums(&self) -> Counts {
        self.slots.iter().fold(Counts::default(), |sum, slot| Counts {
            all: sum.all.saturating_add(slot.all),
            failed: sum.failed.saturating_add(slot.failed),
        })
    }
}

impl Counts {
    /// Whether more than this part has failed, of at least so many.
    #[must_use]
    pub fn exceed(self, rate: f64, at_least: u32) -> bool {
        self.all >= at_least.max(1) && f64::from(self.failed) > rate * f64::from(self.all)
    }
}

fn place_of(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or_default()
}

/// Into so many parts the time is cut.
pub const SLOTS: usize = 12;
const SLOTS_U32: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_past_is_forgotten() {
        let start = Instant::now();
        let mut window = Window::new(MINUTE, start);
        for _ in 0..10 {
            window.note(true, start);
        }
        assert_eq!(window.note(false, start + MINUTE / 2), Counts { all: 11, failed: 10 });
        assert_eq!(window.note(false, start + MINUTE), Counts { all: 2, failed: 0 });
        assert_eq!(window.note(true, start + 100 * MINUTE), Counts { all: 1, failed: 1 });
    }

    #[test]
    fn a_clock_that_stands_still_changes_nothing() {
        let start = Instant::now();
        let mut window = Window::new(MINUTE, start);
        window.note(false, start + MINUTE / 2);
        assert_eq!(window.note(true, start), Counts { all: 2, failed: 1 });
    }

    #[test]
    fn few_say_nothing() {
        assert!(!Counts { all: 9, failed: 9 }.exceed(0.05, 10));
        assert!(Counts { all: 10, failed: 1 }.exceed(0.05, 10));
        assert!(!Counts { all: 20, failed: 1 }.exceed(0.05, 10), "as many as are allowed are not too many");
        assert!(!Counts::default().exceed(0.0, 0));
    }
}
