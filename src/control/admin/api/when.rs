//! How is a moment written? RFC 3339 in UTC.

use chrono::{DateTime, SecondsFormat};

use crate::time::UnixSeconds;

/// With whole seconds.
pub(super) fn seconds(at: UnixSeconds) -> String {
    text(at.0.saturating_mul(1000), SecondsFormat::Secs)
}

/// With milliseconds.
pub(super) fn millis(ms: u64) -> String {
    text(ms, SecondsFormat::Millis)
}

fn text(ms: u64, format: SecondsFormat) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(format, true)
}
