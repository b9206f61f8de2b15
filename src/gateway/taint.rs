//! Has whoever asks read what anybody may have written? Marks that stay for a while. Experimental.

use dashmap::DashMap;
use http::HeaderMap;

use crate::identity::crypto::sha256;
use crate::policy::Circumstances;
use crate::policy::budget::Asked;
use crate::policy::taint::{Context, Taint};
use crate::registry::Route;
use crate::session::Session;
use crate::time::UnixSeconds;

use super::Shell;
use super::pipeline::SESSION_ID;
use super::placement::Seen;
use super::record::Record;
use super::rejection::Rejection;

/// Who is marked, and until when.
///
/// Bounded, and never short of a mark that still counts: when it is full of those, it takes no more, and what would have
/// to be marked is refused.
#[derive(Debug)]
pub(super) struct Marks {
    until: DashMap<Mark, UnixSeconds>,
    marks_max: usize,
}

/// Names a context: a digest, so that a dump of the table tells of nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; 16]);

/// What a taint has to do with a request, in the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Its context is marked from here on.
    Marked,
    /// Its context is marked, and somebody has agreed all the same.
    Waived,
}

impl Touch {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::Waived => "waived",
        }
    }
}

/// Refuses what carries something out of a context that has read untrusted content, and marks the context of what reads
/// such: before it has, so that no call slips in between.
///
/// # Errors
/// [`Rejection::Tainted`]; [`Rejection::TaintFull`] when there is no room for one more mark.
pub(super) fn check(
    shell: &Shell,
    route: &Route,
    session: Option<&Session>,
    seen: &Seen<'_>,
    record: &Record,
) -> Result<Option<Touch>, Rejection> {
    let Some(taint) = &route.taint else { return Ok(None) };
    let messages = seen.ask.messages();
    let (is_source, is_sink) = (taint.has_source(messages), taint.has_sink(messages));
    if !is_source && !is_sink {
        return Ok(None);
    }
    let facts = seen.facts(record);
    let asked = &seen.asked(route, &facts);
    let mut touch = None;
    let now = asked.facts.now;
    let mark = mark_of(taint, session.is_some(), asked);
    // What comes in and goes out in one batch has met as well.
    if is_sink && (is_source || shell.marks.has(mark, now)) {
        let Asked { caller, server, messages, facts } = *asked;
        let mut sinks = messages.iter().filter(|message| taint.has_sink(std::slice::from_ref(message)));
        let is_waived =
            sinks.all(|message| taint.is_waived(&Circumstances { caller, server, message: Some(message), facts }));
        if !is_waived {
            return Err(Rejection::Tainted);
        }
        touch = Some(Touch::Waived);
    }
    if is_source {
        if !shell.marks.insert(mark, now.plus(taint.ttl), now) {
            return Err(Rejection::TaintFull);
        }
        touch = touch.or(Some(Touch::Marked));
    }
    Ok(touch)
}

/// Forgets the mark of a session that its caller has ended.
pub(super) fn session_ended(shell: &Shell, route: &Route, session_id: &[u8]) {
    if route.taint.as_ref().is_some_and(|taint| taint.context == Context::Session) {
        shell.marks.until.remove(&mark_of_session(session_id));
    }
}

fn mark_of(taint: &Taint, has_session: bool, asked: &Asked<'_>) -> Mark {
    let headers: &HeaderMap = asked.facts.headers;
    match (taint.context, headers.get(SESSION_ID)) {
        (Context::Session, Some(id)) if has_session => mark_of_session(id.as_bytes()),
        (Context::Caller | Context::Session, _) => {
            let principal = asked.caller.principal();
            let agent = asked.facts.agent.map_or(("", ""), |agent| (&agent.issuer, &agent.agent));
            digest("caller", &[&principal.issuer, &principal.subject, agent.0, agent.1])
        }
    }
}

fn mark_of_session(id: &[u8]) -> Mark {
    digest("session", &[&String::from_utf8_lossy(id)])
}

fn digest(kind: &str, parts: &[&str]) -> Mark {
    let mut text = kind.as_bytes().to_vec();
    for part in parts {
        text.extend((part.len() as u64).to_be_bytes());
        text.extend(part.as_bytes());
    }
    Mark(sha256(&text).first_chunk().copied().unwrap_or_default())
}

impl Marks {
    /// Keeps at most `marks_max`.
    pub(super) fn new(marks_max: usize) -> Self {
        Self { until: DashMap::new(), marks_max }
    }

    fn has(&self, mark: Mark, now: UnixSeconds) -> bool {
        self.until.get(&mark).is_some_and(|until| *until > now)
    }

    /// False when there is no room.
    fn insert(&self, mark: Mark, until: UnixSeconds, now: UnixSeconds) -> bool {
        if self.until.len() >= self.marks_max && !self.until.contains_key(&mark) {
            self.forget_expired(now);
            if self.until.len() >= self.marks_max {
                return false;
            }
        }
        self.until.insert(mark, until);
        true
    }

    /// Forgets what counts no longer.
    pub(super) fn forget_expired(&self, now: UnixSeconds) {
        self.until.retain(|_mark, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(100);

    #[test]
    fn a_mark_counts_until_its_time_is_over() {
        let marks = Marks::new(8);
        let mark = digest("caller", &["a"]);
        assert!(marks.insert(mark, UnixSeconds(110), NOW));
        assert!(marks.has(mark, UnixSeconds(109)) && !marks.has(mark, UnixSeconds(110)));
        assert!(!marks.has(digest("session", &["a"]), NOW));
    }

    /// A mark that is dropped would open a way out.
    #[test]
    fn a_full_table_takes_no_more_and_forgets_only_what_counts_no_longer() {
        let marks = Marks::new(1);
        let (first, second) = (digest("caller", &["a"]), digest("caller", &["b"]));
        assert!(marks.insert(first, UnixSeconds(110), NOW));
        assert!(!marks.insert(second, UnixSeconds(120), UnixSeconds(109)));
        assert!(marks.insert(first, UnixSeconds(111), UnixSeconds(109)));
        assert!(marks.insert(second, UnixSeconds(120), UnixSeconds(111)));
        assert!(!marks.has(first, UnixSeconds(111)));
    }
}
