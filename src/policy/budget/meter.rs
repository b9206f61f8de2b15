//! What is left of one limit, and when is there more? A few numbers in, a verdict out.

use crate::time::UnixMicros;

/// One limit of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// So many at once.
    Concurrency {
        /// At least 1.
        most: u64,
    },
    /// So much in a window that opens with the first use and, once it is over, with the next use after it.
    Quota {
        /// At least 1.
        most: u64,
        /// Length of the window in microseconds, at least 1.
        window: u64,
    },
    /// So many at once, and then one more each interval: the generic cell rate algorithm.
    Rate {
        /// At least 1.
        burst: u64,
        /// Microseconds, at least 1.
        interval: u64,
    },
}

/// What is remembered of one limit for one key. What the numbers mean depends on the [`Meter`] that wrote them; all zero is
/// a limit of which nothing was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Rate: when all of the burst is there again. Quota: when the window opened. In microseconds since 1970.
    at: u64,
    /// Quota: what was used in the window. Concurrency: how many there are.
    used: u64,
}

/// What is left after a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Of the limit's own unit.
    pub remaining: u64,
    /// Microseconds until all of it is there again; zero when time brings nothing back.
    pub reset: u64,
}

/// There is not enough left; nothing was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Microseconds until the same may be asked again. No promise: others may ask, too.
    pub retry_after: u64,
}

impl Meter {
    /// Uses `cost` of the limit at `now`; the cell afterwards, and what is left. Without cost it is only asked whether
    /// anything is left at all.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn spend(self, cell: Cell, cost: u64, now: UnixMicros) -> Result<(Cell, Left), Exceeded> {
        let now = now.0;
        match self {
            Self::Concurrency { most } => {
                let used = cell.used.saturating_add(cost);
                if used > most {
                    return Err(Exceeded { retry_after: CONCURRENCY_RETRY_AFTER });
                }
                Ok((Cell { at: 0, used }, Left { remaining: most - used, reset: 0 }))
            }
            Self::Quota { most, window } => {
                let Cell { at, used } = opened(cell, window, now);
                let reset = at.saturating_add(window).saturating_sub(now);
                if used.saturating_add(cost.max(1)) > most {
                    return Err(Exceeded { retry_after: reset });
                }
                let used = used.saturating_add(cost);
                Ok((Cell { at, used }, Left { remaining: most - used, reset }))
            }
            Self::Rate { burst, interval } => {
                let whole = burst.saturating_mul(interval);
                // A clock that was set back does not make anybody wait longer than a whole burst takes.
                let from = cell.at.clamp(now, now.saturating_add(whole));
                let until = from.saturating_add(cost.saturating_mul(interval));
                let ahead = until - now;
                if ahead > whole {
                    return Err(Exceeded { retry_after: (ahead - whole).min(whole) });
                }
                let left = Left { remaining: (whole - ahead) / interval.max(1), reset: ahead };
                Ok((Cell { at: until, used: 0 }, left))
            }
        }
    }

    /// What becomes of `cell` when `amount` was used that nobody asked for beforehand: bytes of an answer that has come. It
    /// may be more than was left.
    #[must_use]
    pub fn charge(self, cell: Cell, amount: u64, now: UnixMicros) -> Cell {
        match self {
            Self::Concurrency { .. } | Self::Rate { .. } => cell,
            Self::Quota { window, .. } => {
                let Cell { at, used } = opened(cell, window, now.0);
                Cell { at, used: used.saturating_add(amount) }
            }
        }
    }

    /// What becomes of `cell` when one of those that are counted at once has ended.
    #[must_use]
    pub fn release(self, cell: Cell, cost: u64) -> Cell {
        match self {
            Self::Concurrency { .. } => Cell { at: 0, used: cell.used.saturating_sub(cost) },
            Self::Quota { .. } | Self::Rate { .. } => cell,
        }
    }

    /// From when on `cell` is as good as none; the end of time while something runs.
    #[must_use]
    pub fn idle_at(self, cell: Cell) -> UnixMicros {
        UnixMicros(match self {
            Self::Concurrency { .. } if cell.used > 0 => u64::MAX,
            Self::Concurrency { .. } => 0,
            Self::Quota { window, .. } => cell.at.saturating_add(window),
            Self::Rate { .. } => cell.at,
        })
    }

    /// How much of the limit `cell` has used up at `now`, in thousandths: [`USED_UP`] when nothing is left.
    #[must_use]
    pub fn used_up(self, cell: Cell, now: UnixMicros) -> u16 {
        if self.spend(cell, 1, now).is_err() {
            return USED_UP;
        }
        let (used, most) = match self {
            Self::Concurrency { most } => (cell.used, most),
            Self::Quota { most, window } => (opened(cell, window, now.0).used, most),
            Self::Rate { burst, interval } => (cell.at.saturating_sub(now.0), burst.saturating_mul(interval)),
        };
        let part = u128::from(used) * u128::from(USED_UP) / u128::from(most.max(1));
        u16::try_from(part).unwrap_or(USED_UP).min(USED_UP - 1)
    }

    /// How much there is in all.
    #[must_use]
    pub fn most(self) -> u64 {
        match self {
            Self::Concurrency { most } | Self::Quota { most, .. } => most,
            Self::Rate { burst, .. } => burst,
        }
    }

    /// Microseconds in which all of it comes back; `None` when time brings nothing back.
    #[must_use]
    pub fn window(self) -> Option<u64> {
        match self {
            Self::Concurrency { .. } => None,
            Self::Quota { window, .. } => Some(window),
            Self::Rate { burst, interval } => Some(burst.saturating_mul(interval)),
        }
    }
}

/// The window that is open at `now`: the one in `cell`, or a fresh one.
fn opened(cell: Cell, window: u64, now: u64) -> Cell {
    if now >= cell.at.saturating_add(window) {
        return Cell { at: now, used: 0 };
    }
    // A clock that was set back does not make the window longer.
    Cell { at: cell.at.min(now), used: cell.used }
}

/// All of a limit, in thousandths.
pub const USED_UP: u16 = 1000;

/// When somebody else ends is not known; a second is soon enough to ask again and late enough not to be a flood.
const CONCURRENCY_RETRY_AFTER: u64 = 1_000_000;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const T0: UnixMicros = UnixMicros(1_700_000_000 * SECOND);

    fn after(micros: u64) -> UnixMicros {
        UnixMicros(T0.0 + micros)
    }

    /// Spends one after the other, and says what was left after each, or how long to wait.
    fn story(meter: Meter, uses: &[(u64, u64)]) -> Vec<Result<u64, u64>> {
        let mut cell = Cell::default();
        let spent = uses.iter().map(|(at, cost)| match meter.spend(cell, *cost, after(*at)) {
            Ok((next, left)) => {
                cell = next;
                Ok(left.remaining)
            }
            Err(exceeded) => Err(exceeded.retry_after),
        });
        spent.collect()
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_one_each_interval() {
        let rate = Meter::Rate { burst: 2, interval: SECOND };
        let seen = story(rate, &[(0, 1), (0, 1), (0, 1), (SECOND - 1, 1), (SECOND, 1), (10 * SECOND, 1)]);
        assert_eq!(seen, [Ok(1), Ok(0), Err(SECOND), Err(1), Ok(0), Ok(1)]);
    }

    #[test]
    fn a_quota_opens_with_the_first_use_and_again_when_it_is_over() {
        let quota = Meter::Quota { most: 2, window: 10 * SECOND };
        let seen =
            story(quota, &[(5, 1), (6, 1), (7, 1), (10 * SECOND + 4, 1), (10 * SECOND + 5, 1), (11 * SECOND, 1)]);
        assert_eq!(seen, [Ok(1), Ok(0), Err(10 * SECOND - 2), Err(1), Ok(1), Ok(0)]);
    }

    #[test]
    fn so_many_at_once_until_one_of_them_ends() {
        let meter = Meter::Concurrency { most: 1 };
        let (running, left) = meter.spend(Cell::default(), 1, T0).unwrap();
        assert_eq!(left, Left { remaining: 0, reset: 0 });
        assert_eq!(meter.spend(running, 1, after(1)), Err(Exceeded { retry_after: SECOND }));
        assert_eq!(meter.idle_at(running), UnixMicros(u64::MAX));
        let ended = meter.release(running, 1);
        assert_eq!(meter.idle_at(ended), UnixMicros(0));
        assert!(meter.spend(ended, 1, after(1)).is_ok());
    }

    #[test]
    fn what_nobody_asked_for_may_overdraw_a_quota_and_then_nothing_is_left() {
        let bytes = Meter::Quota { most: 100, window: SECOND };
        let (cell, left) = bytes.spend(Cell::default(), 0, T0).unwrap();
        assert_eq!(left.remaining, 100);
        let cell = bytes.charge(cell, 250, after(1));
        assert_eq!(bytes.spend(cell, 0, after(2)), Err(Exceeded { retry_after: SECOND - 2 }));
        assert!(bytes.spend(cell, 0, after(SECOND)).is_ok());
    }

    #[test]
    fn what_is_used_up_comes_back_with_the_window_and_the_refill() {
        let (calls, rate) =
            (Meter::Quota { most: 4, window: 10 * SECOND }, Meter::Rate { burst: 4, interval: 10 * SECOND });
        for meter in [calls, rate] {
            let mut cell = Cell::default();
            let used = [250, 500, 750, USED_UP].map(|_| {
                cell = meter.spend(cell, 1, T0).unwrap().0;
                meter.used_up(cell, T0)
            });
            assert_eq!(used, [250, 500, 750, USED_UP], "{meter:?}");
            let later = if meter == calls { 0 } else { 750 };
            assert_eq!(meter.used_up(cell, after(10 * SECOND)), later, "{meter:?}");
        }
        let wide = Meter::Quota { most: 1_000_000, window: SECOND };
        let almost = wide.charge(Cell::default(), 999_999, T0);
        assert_eq!([wide.used_up(almost, T0), wide.used_up(wide.charge(almost, 5, T0), T0)], [999, USED_UP]);
    }

    #[test]
    fn a_use_larger_than_the_limit_is_never_let_through() {
        assert_eq!(story(Meter::Rate { burst: 2, interval: SECOND }, &[(0, 3)]), [Err(SECOND)]);
        assert_eq!(story(Meter::Quota { most: 2, window: SECOND }, &[(0, 3)]), [Err(SECOND)]);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_longer_than_the_limit_says() {
        let early = UnixMicros(T0.0 - 3600 * SECOND);
        for meter in [Meter::Rate { burst: 1, interval: SECOND }, Meter::Quota { most: 1, window: SECOND }] {
            let (cell, _left) = meter.spend(Cell::default(), 1, T0).unwrap();
            let Exceeded { retry_after } = meter.spend(cell, 1, early).unwrap_err();
            assert!(retry_after <= SECOND, "{meter:?} {retry_after}");
        }
    }

    proptest! {
        /// Whatever is asked when: a rate lets through no more than its burst and what has come back since the beginning.
        #[test]
        fn no_rate_is_overdrawn(
            burst in 1_u64..20,
            interval in 1_u64..5_000_000,
            uses in proptest::collection::vec((0_u64..3_000_000, 1_u64..4), 1..60),
        ) {
            let meter = Meter::Rate { burst, interval };
            let (mut cell, mut now, mut through) = (Cell::default(), 0, 0);
            for (pause, cost) in uses {
                now += pause;
                if let Ok((next, left)) = meter.spend(cell, cost, after(now)) {
                    cell = next;
                    through += cost;
                    prop_assert!(left.remaining <= burst);
                }
                prop_assert!(through <= burst + now / interval);
            }
        }

        /// A window holds no more than the quota, and a refusal says when the same will be let through.
        #[test]
        fn no_quota_is_overdrawn_and_the_wait_is_right(
            most in 1_u64..20,
            window in 1_u64..5_000_000,
            uses in proptest::collection::vec((0_u64..3_000_000, 1_u64..4), 1..60),
        ) {
            let meter = Meter::Quota { most, window };
            let (mut cell, mut now) = (Cell::default(), 0);
            for (pause, cost) in uses {
                now += pause;
                match meter.spend(cell, cost, after(now)) {
                    Ok((next, left)) => {
                        prop_assert!(next.used <= most && left.remaining == most - next.used);
                        cell = next;
                    }
                    Err(exceeded) => {
                        prop_assert!(exceeded.retry_after <= window);
                        let later = after(now + exceeded.retry_after);
                        prop_assert_eq!(meter.spend(cell, cost, later).is_ok(), cost <= most);
                    }
                }
            }
        }
    }
}
