//! Is this instance to be left alone for a while?
//!
//! ```text
//!             too many failures, or much slower than the others
//!    closed ────────────────────────────────────────────────────► open
//!       ▲                                                          │ open_for has passed
//!       │ so many probes have succeeded                            ▼
//!       └──────────────────────────────────────────────────── half-open ──► open again, when a probe fails
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::rule::{CircuitSpec, Slow};
use super::window::Window;

/// The circuit of one instance. While it is closed a request reads one flag on its way in.
#[derive(Debug)]
pub struct Breaker {
    spec: CircuitSpec,
    is_closed: AtomicBool,
    state: Mutex<State>,
    /// Of every instance of the pool.
    paces: Arc<[Pace]>,
    /// Which of them is this one.
    nth: usize,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Failures since the last success.
    in_a_row: u32,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    HalfOpen {
        /// Probes that have not ended.
        under_way: u32,
        succeeded: u32,
    },
    Open {
        until: Instant,
    },
}

/// How long an instance's answers take.
#[derive(Debug, Default)]
struct Pace {
    /// A mean in which the last answers count most, in microseconds.
    mean: AtomicU64,
    answers: AtomicU32,
}

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// The instance takes work.
    Closed,
    /// A few requests find out whether it does.
    HalfOpen,
    /// It is left alone.
    Open,
}

impl Circuit {
    /// Word for metrics, logs and the API.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Why a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too large a part of the last requests failed.
    ErrorRate,
    /// A probe failed.
    Probe,
    /// Its answers take much longer than those of the others.
    Slow,
}

impl Cause {
    /// Word for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::ErrorRate => "error_rate",
            Self::Probe => "probe",
            Self::Slow => "slow",
        }
    }
}

/// A change that somebody should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The instance takes work again.
    Closed,
    /// It is left alone.
    Opened(Cause),
}

/// How a request was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// As any other.
    Usual,
    /// To find out whether the instance works again.
    Probe,
}

/// How a request ended, as far as its instance is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It could not be reached, broke off, was too late, or its answer is none.
    Failed,
    /// Nothing is known: the client went away.
    Nothing,
    /// It answered.
    Succeeded {
        /// From sending the request to the head of the answer.
        took: Duration,
    },
}

impl Breaker {
    /// One for each of so many instances, which are held against one another.
    #[must_use]
    pub fn of_pool(spec: CircuitSpec, instances: usize, now: Instant) -> Vec<Self> {
        let paces: Arc<[Pace]> = (0..instances).map(|_| Pace::default()).collect();
        let breaker = |nth| Self {
            spec,
            is_closed: AtomicBool::new(true),
            state: Mutex::new(State {
                phase: Phase::Closed,
                in_a_row: 0,
                window: spec.errors.map(|errors| Window::new(errors.over, now)),
            }),
            paces: Arc::clone(&paces),
            nth,
        };
        (0..instances).map(breaker).collect()
    }

    /// Whether a request could be let in at `now`.
    #[must_use]
    pub fn lets_in(&self, now: Instant) -> bool {
        if self.is_closed.load(Ordering::Relaxed) {
            return true;
        }
        match self.state().phase {
            Phase::Closed => true,
            Phase::HalfOpen { under_way, succeeded } => under_way.saturating_add(succeeded) < self.spec.probes,
            Phase::Open { until } => now >= until,
        }
    }

    /// Lets a request in; `None` while the instance is left alone. [`Self::leave`] must be told how it ended.
    pub fn enter(&self, now: Instant) -> Option<Entry> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Some(Entry::Usual);
        }
        let mut state = self.state();
        match &mut state.phase {
            Phase::Closed => Some(Entry::Usual),
            Phase::HalfOpen { under_way, succeeded } => {
                if under_way.saturating_add(*succeeded) >= self.spec.probes {
                    return None;
                }
                *under_way += 1;
                Some(Entry::Probe)
            }
            Phase::Open { until } if now < *until => None,
            Phase::Open { .. } => {
                state.phase = Phase::HalfOpen { under_way: 1, succeeded: 0 };
                Some(Entry::Probe)
            }
        }
    }

    /// Notes how a request ended that was let in as `entry`. Says so when the circuit turns with it.
    pub fn leave(&self, entry: Entry, verdict: Verdict, now: Instant) -> Option<Turned> {
        match entry {
            Entry::Probe => self.probe_ended(verdict, now),
            Entry::Usual => self.usual_ended(verdict, now),
        }
    }

    /// Gives the place back of a request of which nothing is known.
    pub fn give_back(&self, entry: Entry) {
        if entry == Entry::Probe
            && let Phase::HalfOpen { under_way, .. } = &mut self.state().phase
        {
            *under_way = under_way.saturating_sub(1);
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn circuit(&self, now: Instant) -> Circuit {
        match self.state().phase {
            Phase::Closed => Circuit::Closed,
            Phase::Open { until } if now < until => Circuit::Open,
            Phase::HalfOpen { .. } | Phase::Open { .. } => Circuit::HalfOpen,
        }
    }

    fn probe_ended(&self, verdict: Verdict, now: Instant) -> Option<Turned> {
        self.give_back(Entry::Probe);
        let mut state = self.state();
        let Phase::HalfOpen { succeeded, .. } = &mut state.phase else { return None };
        match verdict {
            Verdict::Nothing => None,
            Verdict::Failed => {
                state.phase = Phase::Open { until: now + self.spec.open_for };
                Some(Turned::Opened(Cause::Probe))
            }
            Verdict::Succeeded { .. } => {
                *succeeded += 1;
                if *succeeded < self.spec.probes {
                    return None;
                }
                state.phase = Phase::Closed;
                state.in_a_row = 0;
                if let Some(window) = &mut state.window {
                    window.clear();
                }
                if let Some(pace) = self.paces.get(self.nth) {
                    pace.forget();
                }
                self.is_closed.store(true, Ordering::Relaxed);
                Some(Turned::Closed)
            }
        }
    }

    fn usual_ended(&self, verdict: Verdict, now: Instant) -> Option<Turned> {
        let failed = match verdict {
            Verdict::Failed => true,
            Verdict::Nothing => return None,
            Verdict::Succeeded { took } => {
                if let (Some(_), Some(pace)) = (self.spec.slow, self.paces.get(self.nth)) {
                    pace.note(took);
                }
                false
            }
        };
        let mut state = self.state();
        // It was let in before the circuit opened: what it says is old news.
        let Phase::Closed = state.phase else { return None };
        state.in_a_row = if failed { state.in_a_row.saturating_add(1) } else { 0 };
        let counts = state.window.as_mut().map(|window| window.note(failed, now));
        let too_many = self.spec.consecutive_failures.is_some_and(|most| state.in_a_row >= most);
        let too_often =
            counts.zip(self.spec.errors).is_some_and(|(counts, most)| counts.exceed(most.above, most.at_least));
        let cause = if too_many {
            Cause::ConsecutiveFailures
        } else if failed && too_often {
            Cause::ErrorRate
        } else if !failed && self.spec.slow.is_some_and(|slow| self.is_slow(slow)) {
            Cause::Slow
        } else {
            return None;
        };
        state.phase = Phase::Open { until: now + self.spec.open_for };
        self.is_closed.store(false, Ordering::Relaxed);
        Some(Turned::Opened(cause))
    }

    /// Held against the mean of the others that have answered; alone, nobody is slow.
    fn is_slow(&self, slow: Slow) -> bool {
        let Some(own) = self.paces.get(self.nth).and_then(|pace| pace.mean(slow.at_least)) else { return false };
        let others = self.paces.iter().enumerate().filter(|(nth, _)| *nth != self.nth);
        let others: Vec<u64> = others.filter_map(|(_, pace)| pace.mean(slow.at_least)).collect();
        let Ok(count @ 1..) = u64::try_from(others.len()) else { return false };
        let usual = others.iter().sum::<u64>() / count;
        let own = Duration::from_micros(own);
        own > slow.above && own > Duration::from_micros(usual).mul_f64(slow.times)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// Two answers at once may count as one: a mean is none the worse for it.
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / WEIGHT);
        let answers = self.answers.fetch_add(1, Ordering::Relaxed);
        let before = self.mean.load(Ordering::Relaxed);
        let mean = if answers == 0 { took } else { before - before / WEIGHT + took / WEIGHT };
        self.mean.store(mean, Ordering::Relaxed);
    }

    fn mean(&self, at_least: u32) -> Option<u64> {
        (self.answers.load(Ordering::Relaxed) >= at_least.max(1)).then(|| self.mean.load(Ordering::Relaxed))
    }

    fn forget(&self) {
        self.answers.store(0, Ordering::Relaxed);
    }
}

/// An answer counts for a 16th of the mean.
const WEIGHT: u64 = 16;

#[cfg(test)]
#[expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::rule::ErrorRate;
    use super::*;

    const SPEC: CircuitSpec = CircuitSpec {
        consecutive_failures: Some(3),
        errors: None,
        slow: None,
        open_for: Duration::from_secs(10),
        probes: 2,
    };
    const QUICK: Verdict = Verdict::Succeeded { took: Duration::from_millis(10) };

    fn one(spec: CircuitSpec, now: Instant) -> Breaker {
        Breaker::of_pool(spec, 1, now).pop().unwrap()
    }

    /// One usual request.
    fn ask(breaker: &Breaker, verdict: Verdict, now: Instant) -> Option<Turned> {
        let entry = breaker.enter(now).expect("the circuit is closed");
        breaker.leave(entry, verdict, now)
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = one(SPEC, now);
        assert_eq!(ask(&breaker, Verdict::Failed, now), None);
        assert_eq!(ask(&breaker, Verdict::Failed, now), None);
        assert_eq!(ask(&breaker, Verdict::Failed, now), Some(Turned::Opened(Cause::ConsecutiveFailures)));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let now = Instant::now();
        let breaker = one(SPEC, now);
        for _ in 0..10 {
            assert_eq!(ask(&breaker, Verdict::Failed, now), None);
            assert_eq!(ask(&breaker, Verdict::Failed, now), None);
            assert_eq!(ask(&breaker, QUICK, now), None);
        }
        assert_eq!(opened(now).circuit(now), Circuit::Open);
    }

    #[test]
    fn while_it_is_open_nobody_is_let_in() {
        let now = Instant::now();
        let breaker = opened(now);
        let almost = now + SPEC.open_for - Duration::from_millis(1);
        assert!(!breaker.lets_in(almost));
        assert_eq!(breaker.enter(almost), None);
    }

    #[test]
    fn it_closes_when_every_probe_has_succeeded() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + SPEC.open_for;
        assert_eq!(breaker.circuit(later), Circuit::HalfOpen);
        assert_eq!([breaker.enter(later), breaker.enter(later)], [Some(Entry::Probe); 2]);
        assert_eq!(breaker.enter(later), None, "no more than the probes that are wanted");
        assert_eq!(breaker.leave(Entry::Probe, QUICK, later), None);
        assert_eq!(breaker.leave(Entry::Probe, QUICK, later), Some(Turned::Closed));
        assert_eq!(breaker.enter(later), Some(Entry::Usual));
        assert_eq!(ask(&breaker, Verdict::Failed, later), None, "old failures are forgotten");
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + SPEC.open_for;
        breaker.enter(later).unwrap();
        assert_eq!(breaker.leave(Entry::Probe, Verdict::Failed, later), Some(Turned::Opened(Cause::Probe)));
        assert!(!breaker.lets_in(later + SPEC.open_for / 2));
        assert!(breaker.lets_in(later + SPEC.open_for));
    }

    /// A client that goes away must not keep the place of a probe for ever.
    #[test]
    fn a_probe_without_a_verdict_gives_its_place_back() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + SPEC.open_for;
        for _ in 0..10 {
            assert_eq!(breaker.enter(later), Some(Entry::Probe));
            assert_eq!(breaker.leave(Entry::Probe, Verdict::Nothing, later), None);
        }
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing() {
        let now = Instant::now();
        let breaker = one(SPEC, now);
        let entry = breaker.enter(now).unwrap();
        for _ in 0..3 {
            ask(&breaker, Verdict::Failed, now);
        }
        assert_eq!(breaker.leave(entry, QUICK, now), None);
        assert_eq!(breaker.circuit(now), Circuit::Open);
    }

    #[test]
    fn too_large_a_part_of_failures_opens_it() {
        let now = Instant::now();
        let errors = ErrorRate { above: 0.5, over: Duration::from_secs(30), at_least: 10 };
        let breaker = one(CircuitSpec { consecutive_failures: None, errors: Some(errors), ..SPEC }, now);
        for _ in 0..5 {
            assert_eq!(ask(&breaker, QUICK, now), None);
        }
        for _ in 0..5 {
            assert_eq!(ask(&breaker, Verdict::Failed, now), None);
        }
        assert_eq!(ask(&breaker, Verdict::Failed, now), Some(Turned::Opened(Cause::ErrorRate)));
    }

    #[test]
    fn an_instance_much_slower_than_the_others_is_left_alone() {
        let now = Instant::now();
        let slow = Slow { times: 3.0, above: Duration::from_millis(50), at_least: 20 };
        let pool = Breaker::of_pool(CircuitSpec { slow: Some(slow), ..SPEC }, 3, now);
        let took = |millis| Verdict::Succeeded { took: Duration::from_millis(millis) };
        for _ in 0..20 {
            assert_eq!(ask(&pool[0], took(20), now), None);
            assert_eq!(ask(&pool[1], took(30), now), None);
        }
        let turned: Vec<_> = (0..20).filter_map(|_| ask(&pool[2], took(200), now)).collect();
        assert_eq!(turned, [Turned::Opened(Cause::Slow)]);
        assert_eq!([pool[0].circuit(now), pool[1].circuit(now)], [Circuit::Closed; 2]);
    }

    #[test]
    fn an_instance_without_others_is_never_slow() {
        let now = Instant::now();
        let slow = Slow { times: 1.0, above: Duration::ZERO, at_least: 1 };
        let breaker = one(CircuitSpec { slow: Some(slow), ..SPEC }, now);
        for _ in 0..50 {
            assert_eq!(ask(&breaker, Verdict::Succeeded { took: Duration::from_secs(9) }, now), None);
        }
    }
}
