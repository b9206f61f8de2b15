//! Which of some instances takes this request?

use std::sync::Arc;
use std::time::Instant;

use super::hash::{by_weight, rendezvous};
use super::instance::{Instance, Turn};
use super::pool::BEGINNINGS_MAX;
use super::subset::Subset;

/// The instances that a subset means, with their shares.
#[derive(Debug)]
pub struct Members(Box<[Arc<Instance>]>);

/// How one of several equals is chosen.
#[derive(Clone, Copy, Debug)]
pub enum Draw {
    /// Anyhow: this number is a draw.
    Any(u64),
    /// Always the same for this principal, as long as it takes work: its hash.
    Sticky(u64),
}

impl Members {
    /// Those of `all` that `subset` means; `None`: all of them.
    #[must_use]
    pub fn of(subset: Option<&Subset>, all: &[Arc<Instance>]) -> Self {
        let means =
            |instance: &&Arc<Instance>| subset.is_none_or(|subset| subset.takes_in(&instance.id, &instance.traits));
        Self(all.iter().filter(means).cloned().collect())
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(&self, instance: &Arc<Instance>) -> bool {
        self.0.iter().any(|member| Arc::ptr_eq(member, instance))
    }

    /// Every one.
    #[must_use]
    pub fn all(&self) -> &[Arc<Instance>] {
        &self.0
    }

    /// Whether one of them takes new work at `now`.
    #[must_use]
    pub fn take_work(&self, now: Instant) -> bool {
        self.0.iter().any(|member| member.takes_new_work(now))
    }

    /// One that takes new work at `now`, by weight, with its turn where it has a circuit; `None` when none takes any.
    #[must_use]
    pub fn pick(&self, draw: Draw, now: Instant) -> Option<(Arc<Instance>, Option<Turn>)> {
        let share = |member: &Arc<Instance>| if member.takes_new_work(now) { member.weight } else { 0 };
        // Another request may have taken the last place of an instance that is being tried out.
        (0..BEGINNINGS_MAX).find_map(|_| {
            let nth = match draw {
                Draw::Any(draw) => by_weight(draw, self.0.iter().map(share)),
                Draw::Sticky(key) => {
                    rendezvous(key, "instance", self.0.iter().map(|member| (&*member.id, share(member))))
                }
            };
            let instance = self.0.get(nth?)?;
            let turn = instance.begin(now).ok()?;
            Some((Arc::clone(instance), turn))
        })
    }
}
