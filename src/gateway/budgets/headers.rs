//! How is a caller told what is left? `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};

use crate::policy::budget::meter::Left;
use crate::policy::budget::{Charge, LimitKind};

/// Both header fields.
#[derive(Clone, Debug)]
pub(crate) struct RateHeaders {
    policy: HeaderValue,
    limit: HeaderValue,
}

impl RateHeaders {
    /// For these charges, with what is left of each. None when there is nothing to tell.
    ///
    /// Each limit is a policy of its own, named `BUDGET:LIMIT`: `"agents:calls";q=1000;w=86400`, and what is left of it
    /// `"agents:calls";r=37;t=4711`. What a loop has left is not told beforehand: it is for one call of many.
    pub(super) fn new(charges: &[Charge], left: &[Left]) -> Option<Self> {
        let told = charges.iter().zip(left).filter(|(charge, _left)| charge.limit.kind != LimitKind::Repeat);
        Self::write(told.map(|(charge, left)| (charge, *left)))
    }

    /// For the one charge that was too much.
    pub(super) fn exceeded(charge: &Charge, retry_after_seconds: u64) -> Option<Self> {
        let reset = retry_after_seconds.saturating_mul(1_000_000);
        Self::write(std::iter::once((charge, Left { remaining: 0, reset })))
    }

    fn write<'c>(told: impl Iterator<Item = (&'c Charge, Left)>) -> Option<Self> {
        let (mut policy, mut limit) = (String::with_capacity(64), String::with_capacity(64));
        for (charge, left) in told.take(POLICIES_MAX) {
            let (name, kind, meter) = (&charge.budget.name, charge.limit.kind.label(), charge.limit.meter);
            let comma = if policy.is_empty() { "" } else { ", " };
            // Names hold nothing that a structured field's string has to escape (RFC 9651 §3.3.3). Writing to a String
            // cannot fail.
            let _ = write!(policy, "{comma}\"{name}:{kind}\";q={}", meter.most().min(INTEGER_MAX));
            if let Some(unit) = unit_of(charge.limit.kind) {
                let _ = write!(policy, ";qu=\"{unit}\"");
            }
            if let Some(window) = meter.window() {
                let _ = write!(policy, ";w={}", seconds(window));
            }
            let _ = write!(limit, "{comma}\"{name}:{kind}\";r={}", left.remaining.min(INTEGER_MAX));
            if left.reset > 0 {
                let _ = write!(limit, ";t={}", seconds(left.reset));
            }
        }
        if policy.is_empty() {
            return None;
        }
        Some(Self { policy: HeaderValue::from_str(&policy).ok()?, limit: HeaderValue::from_str(&limit).ok()? })
    }

    /// Names and values.
    pub(crate) fn fields(&self) -> [(HeaderName, HeaderValue); 2] {
        [(RATELIMIT_POLICY, self.policy.clone()), (RATELIMIT, self.limit.clone())]
    }
}

/// What a policy counts, where it is not requests.
fn unit_of(kind: LimitKind) -> Option<&'static str> {
    match kind {
        LimitKind::Bytes => Some("content-bytes"),
        LimitKind::Concurrency => Some("concurrent-requests"),
        LimitKind::Calls | LimitKind::Rate | LimitKind::Repeat => None,
    }
}

/// Whole seconds, rounded up: whoever waits that long does not come too early.
pub(super) fn seconds(micros: u64) -> u64 {
    micros.div_ceil(1_000_000)
}

/// Limits that are told of one request: a header has its bound too.
const POLICIES_MAX: usize = 16;

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
