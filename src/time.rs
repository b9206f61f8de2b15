//! What time is it? Seconds since 1970 as a type, so that a duration is never taken for a date.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment in whole seconds since 1970-01-01T00:00:00Z (the unit of JWT `exp`, RFC 7519 §2 "NumericDate").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The moment `duration` later, cut to whole seconds; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// The moment `duration` earlier, cut to whole seconds; never before 1970.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_secs()))
    }

    /// How long until `later`; zero when that has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_secs(later.0.saturating_sub(self.0))
    }
}

/// A moment in microseconds since 1970-01-01T00:00:00Z: for what is counted many times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMicros(pub u64);

impl UnixMicros {
    /// The moment `duration` later; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl From<UnixSeconds> for UnixMicros {
    fn from(seconds: UnixSeconds) -> Self {
        Self(seconds.0.saturating_mul(1_000_000))
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The shell's clock. The core takes `now` as an argument and never reads one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The system's time; 1970 when its clock stands before that.
    #[must_use]
    pub fn now(self) -> UnixSeconds {
        UnixSeconds(since_1970().as_secs())
    }

    /// The same, finer.
    #[must_use]
    pub fn now_micros(self) -> UnixMicros {
        UnixMicros::default().plus(since_1970())
    }
}

fn since_1970() -> Duration {
    moved(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(not(debug_assertions))]
fn moved(now: Duration) -> Duration {
    now
}

/// A test moves the clock of the process it has started: the file that [`MOVED_BY`] names says by how many seconds, and is
/// read each time. A release build has none of this, so no environment moves the clock of a gateway that serves.
#[cfg(debug_assertions)]
fn moved(now: Duration) -> Duration {
    static FILE: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os(MOVED_BY)) else { return now };
    let seconds: Option<i64> = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let by = Duration::from_secs(seconds.unwrap_or_default().unsigned_abs());
    if seconds.is_some_and(i64::is_negative) { now.saturating_sub(by) } else { now.saturating_add(by) }
}

#[cfg(debug_assertions)]
const MOVED_BY: &str = "PORTCULLIS_TEST_CLOCK";
