//! What has just happened? The last audit records, and who was seen in them: for people who look at the admin pages.
//!
//! Fed by the writer of the audit log after it has written, so that what is shown is on record. What is kept of a record is
//! its line and the few words that it is found by, so it takes no more memory here than in the log.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::audit::{Digest, Event, EventKind, Outcome, Stamp, cut};

/// The last records.
pub struct Recent {
    kept: Mutex<Kept>,
    news: broadcast::Sender<Arc<Recorded>>,
    records_max: usize,
}

/// A record that was written.
#[derive(Debug)]
pub struct Recorded {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Counts the records of this process.
    pub seq: u64,
    /// This gateway.
    pub gateway: Arc<str>,
    /// What it is found by.
    pub about: Box<About>,
    /// Its line, all but the beginning, as [`Event::write_rest`] writes it.
    pub rest: Box<[u8]>,
}

/// What a record is found and counted by. Whatever a client may have made long is cut as in the record; issuers and subjects
/// are whole, because something is done to whom they name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// What the record is about.
    pub event: EventKind,
    /// Names the request.
    pub request_id: Arc<str>,
    /// Who called.
    pub principal: Option<Who>,
    /// The name of the agent.
    pub agent: Option<Box<str>>,
    /// The server it was for.
    pub server: Option<Arc<str>>,
    /// The tools, prompts and resources it names: several in a batch.
    pub names: Vec<Arc<str>>,
    /// Recognizes the session.
    pub session: Option<Digest>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed.
    pub reason: Option<&'static str>,
}

/// Issuer and subject of a principal.
pub type Who = (Arc<str>, Arc<str>);

/// Which records somebody wants. Every part that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exact.
    pub request_id: Option<String>,
    /// The subject of the principal, exact.
    pub principal: Option<String>,
    /// The name of the tool, prompt or resource, exact.
    pub tool: Option<String>,
    /// `ok`, `refused`, `failed`, `aborted`.
    pub outcome: Option<String>,
    /// The event, or how it begins: `mcp.request`, `admin.`.
    pub event: Option<String>,
    /// The server, exact.
    pub server: Option<String>,
    /// The reason of a refusal, exact.
    pub reason: Option<String>,
    /// The agent, exact.
    pub agent: Option<String>,
}

/// Somebody, or some software, that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Milliseconds since 1970.
    pub first_ms: u64,
    /// Milliseconds since 1970.
    pub last_ms: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// The latest record.
    pub latest: Arc<Recorded>,
    /// Sessions, each with the time of its latest request.
    sessions: HashMap<Digest, u64>,
}

#[derive(Default)]
struct Kept {
    records: VecDeque<Arc<Recorded>>,
    agents: HashMap<Box<str>, Seen>,
    principals: HashMap<Who, Seen>,
}

impl Recent {
    /// Keeps `records_max` records, and as many agents and principals.
    #[must_use]
    pub fn new(records_max: usize) -> Self {
        let news = broadcast::Sender::new(NEWS_MAX);
        Self { kept: Mutex::default(), news, records_max: records_max.max(1) }
    }

    /// Takes in what was written.
    pub(super) fn push(&self, records: impl IntoIterator<Item = Arc<Recorded>>) {
        let mut kept = self.kept();
        for record in records {
            kept.note(&record, self.records_max);
            if kept.records.len() >= self.records_max {
                kept.records.pop_front();
            }
            kept.records.push_back(Arc::clone(&record));
            // Nobody listens: then nobody misses it.
            let _ = self.news.send(record);
        }
    }

    /// At most `limit` records that fit `filter`, the newest first; of those before the record `before`, when it is set.
    #[must_use]
    pub fn find(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Vec<Arc<Recorded>> {
        let kept = self.kept();
        let records = kept.records.iter().rev().filter(|record| before.is_none_or(|before| record.seq < before));
        records.filter(|record| filter.admits(&record.about)).take(limit).cloned().collect()
    }

    /// Every record from here on. Whoever reads too slowly loses some, and is told how many.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.news.subscribe()
    }

    /// The agents, the latest first.
    #[must_use]
    pub fn agents(&self) -> Vec<(Box<str>, Seen)> {
        let kept = self.kept();
        let mut agents: Vec<_> = kept.agents.iter().map(|(id, seen)| (id.clone(), seen.clone())).collect();
        agents.sort_by(|(a, one), (b, other)| other.last_ms.cmp(&one.last_ms).then_with(|| a.cmp(b)));
        agents
    }

    /// The principals (issuer and subject), the latest first.
    #[must_use]
    pub fn principals(&self) -> Vec<(Who, Seen)> {
        let kept = self.kept();
        let mut principals: Vec<_> = kept.principals.iter().map(|(who, seen)| (who.clone(), seen.clone())).collect();
        principals.sort_by(|(a, one), (b, other)| other.last_ms.cmp(&one.last_ms).then_with(|| a.cmp(b)));
        principals
    }

    /// No code panics while it holds this lock, and the maps are whole after every statement.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("records_max", &self.records_max).finish_non_exhaustive()
    }
}

impl Recorded {
    /// The record as it stands in the log, without the line end.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = Vec::with_capacity(BEGINNING_BYTES_USUAL + self.rest.len());
        Stamp { time_ms: self.time_ms, seq: self.seq, gateway: &self.gateway }.write_beginning(&mut line);
        line.extend_from_slice(&self.rest);
        line.pop();
        String::from_utf8(line).unwrap_or_default()
    }
}

impl About {
    /// Of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let alone = event.mcp.iter().filter_map(|mcp| mcp.name.as_ref());
        let in_batch = event.mcp.iter().flat_map(|mcp| &mcp.batch).filter_map(|message| message.name.as_ref());
        Self {
            event: event.event,
            request_id: bounded(&event.request_id),
            principal: event.principal.as_ref().map(|who| (Arc::clone(&who.issuer), Arc::clone(&who.subject))),
            agent: event.agent.as_ref().map(|agent| cut(&agent.agent).into()),
            server: event.server.clone(),
            names: alone.chain(in_batch).map(bounded).collect(),
            session: event.session,
            outcome: event.outcome,
            reason: event.reason,
        }
    }
}

/// A string as it stands in the record. The common case copies nothing.
fn bounded(text: &Arc<str>) -> Arc<str> {
    match cut(text) {
        Cow::Borrowed(_whole) => Arc::clone(text),
        Cow::Owned(cut) => cut.into(),
    }
}

impl Filter {
    /// Whether a record fits.
    #[must_use]
    pub fn admits(&self, about: &About) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| found == Some(wanted));
        let names_tool = |wanted: &str| about.names.iter().any(|name| **name == *wanted);
        is(&self.request_id, Some(&about.request_id))
            && is(&self.principal, about.principal.as_ref().map(|(_issuer, subject)| &**subject))
            && self.tool.as_deref().is_none_or(names_tool)
            && is(&self.outcome, Some(about.outcome.label()))
            && self.event.as_deref().is_none_or(|wanted| about.event.label().starts_with(wanted))
            && is(&self.server, about.server.as_deref())
            && is(&self.reason, about.reason)
            && is(&self.agent, about.agent.as_deref())
    }
}

impl Seen {
    /// Sessions used since `since_ms`.
    #[must_use]
    pub fn sessions_since(&self, since_ms: u64) -> usize {
        self.sessions.values().filter(|last_ms| **last_ms >= since_ms).count()
    }
}

impl Kept {
    fn note(&mut self, record: &Arc<Recorded>, entries_max: usize) {
        if !record.about.event.is_of_traffic() {
            return;
        }
        if let Some(who) = &record.about.principal {
            note(&mut self.principals, who.clone(), record, entries_max);
        }
        if let Some(name) = &record.about.agent {
            note(&mut self.agents, name.clone(), record, entries_max);
        }
    }
}

fn note<K: std::hash::Hash + Eq + Clone>(
    seen: &mut HashMap<K, Seen>,
    key: K,
    record: &Arc<Recorded>,
    entries_max: usize,
) {
    if seen.len() >= entries_max && !seen.contains_key(&key) {
        let oldest = seen.iter().min_by_key(|(_key, seen)| seen.last_ms).map(|(key, _seen)| key.clone());
        if let Some(oldest) = oldest {
            seen.remove(&oldest);
        }
    }
    let entry = seen.entry(key).or_insert_with(|| Seen {
        first_ms: record.time_ms,
        last_ms: record.time_ms,
        requests: 0,
        refused: 0,
        latest: Arc::clone(record),
        sessions: HashMap::new(),
    });
    entry.last_ms = record.time_ms;
    entry.requests += 1;
    entry.refused += u64::from(record.about.outcome == Outcome::Refused);
    entry.latest = Arc::clone(record);
    if let Some(session) = record.about.session {
        if entry.sessions.len() >= SESSIONS_MAX && !entry.sessions.contains_key(&session) {
            let oldest = entry.sessions.iter().min_by_key(|(_digest, last)| **last).map(|(digest, _last)| *digest);
            if let Some(oldest) = oldest {
                entry.sessions.remove(&oldest);
            }
        }
        entry.sessions.insert(session, record.time_ms);
    }
}

/// Bytes of the beginning of a usual line.
const BEGINNING_BYTES_USUAL: usize = 128;

/// Records that a slow reader may lag behind.
const NEWS_MAX: usize = 1024;

/// Sessions of one principal that are told apart.
const SESSIONS_MAX: usize = 64;

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::audit::event::STRING_BYTES_MAX;
    use crate::audit::{EventKind, Mcp, Message, Principal};

    fn record(seq: u64, subject: &str, tool: &str, outcome: Outcome) -> Arc<Recorded> {
        let event = Event {
            request_id: format!("r-{seq}").into(),
            principal: Some(Principal {
                issuer: "https://idp.test".into(),
                subject: subject.into(),
                client_id: None,
                token_id: None,
            }),
            mcp: Some(Mcp { name: Some(tool.into()), ..Mcp::default() }),
            outcome,
            ..Event::default()
        };
        recorded(seq, &event)
    }

    fn recorded(seq: u64, event: &Event) -> Arc<Recorded> {
        let mut rest = Vec::new();
        event.write_rest(&mut rest);
        let about = Box::new(About::of(event));
        Arc::new(Recorded { time_ms: seq * 1000, seq, gateway: "gw".into(), about, rest: rest.into() })
    }

    fn found(recent: &Recent, filter: Filter, before: Option<u64>, limit: usize) -> Vec<u64> {
        recent.find(&filter, before, limit).iter().map(|record| record.seq).collect()
    }

    #[test]
    fn the_newest_come_first_and_pages_go_back_in_time() {
        let recent = Recent::new(4);
        recent.push((1..=6).map(|seq| record(seq, "alice", "read", Outcome::Ok)));
        assert_eq!(found(&recent, Filter::default(), None, 2), [6, 5]);
        assert_eq!(found(&recent, Filter::default(), Some(5), 2), [4, 3]);
        assert_eq!(found(&recent, Filter::default(), Some(3), 2), [] as [u64; 0], "1 and 2 were let go");
    }

    #[test]
    fn every_part_of_a_filter_must_fit() {
        let recent = Recent::new(8);
        recent.push([
            record(1, "alice", "read", Outcome::Ok),
            record(2, "alice", "purge", Outcome::Refused),
            record(3, "bob", "purge", Outcome::Refused),
        ]);
        let of = |filter| found(&recent, filter, None, 10);
        let principal = Some("alice".to_owned());
        assert_eq!(of(Filter { principal: principal.clone(), ..Filter::default() }), [2, 1]);
        assert_eq!(of(Filter { tool: Some("purge".into()), principal, ..Filter::default() }), [2]);
        assert_eq!(of(Filter { outcome: Some("refused".into()), ..Filter::default() }), [3, 2]);
        assert_eq!(of(Filter { request_id: Some("r-3".into()), ..Filter::default() }), [3]);
        assert_eq!(of(Filter { event: Some("mcp.".into()), ..Filter::default() }), [3, 2, 1]);
        assert_eq!(of(Filter { event: Some("admin.".into()), ..Filter::default() }), [] as [u64; 0]);
    }

    #[test]
    fn principals_are_counted_and_bounded() {
        let recent = Recent::new(2);
        recent.push([
            record(1, "alice", "read", Outcome::Ok),
            record(2, "bob", "read", Outcome::Refused),
            record(3, "bob", "read", Outcome::Ok),
            record(4, "carol", "read", Outcome::Ok),
        ]);
        let principals = recent.principals();
        let names: Vec<&str> = principals.iter().map(|((_issuer, subject), _seen)| &**subject).collect();
        assert_eq!(names, ["carol", "bob"]);
        assert_eq!((principals[1].1.requests, principals[1].1.refused), (2, 1));
    }

    #[test]
    fn what_people_do_here_is_no_traffic() {
        let recent = Recent::new(2);
        let principal =
            Principal { issuer: "https://idp.test".into(), subject: "alice".into(), client_id: None, token_id: None };
        let event = Event { event: EventKind::ConfigReloaded, principal: Some(principal), ..Event::default() };
        recent.push([recorded(1, &event)]);
        assert!(recent.principals().is_empty());
        assert_eq!(recent.find(&Filter::default(), None, 9).len(), 1);
    }

    /// A client that writes long names must not fill the memory with what is kept for the pages.
    #[test]
    fn what_a_client_may_make_long_is_kept_as_short_as_in_the_log() {
        let long: Arc<str> = "x".repeat(1 << 20).into();
        let batch = vec![Message { name: Some(Arc::clone(&long)), ..Message::default() }];
        let mcp = Mcp { name: Some(Arc::clone(&long)), batch, ..Mcp::default() };
        let about = About::of(&Event { request_id: long, mcp: Some(mcp), ..Event::default() });
        assert_eq!(about.names.len(), 2);
        let kept = about.names.iter().chain([&about.request_id]);
        assert!(kept.clone().all(|text| text.len() <= STRING_BYTES_MAX), "{:?}", kept.map(|text| text.len()).max());
    }

    #[tokio::test]
    async fn whoever_listens_hears_what_comes() {
        let recent = Recent::new(2);
        recent.push([record(1, "alice", "read", Outcome::Ok)]);
        let mut news = recent.listen();
        recent.push([record(2, "alice", "read", Outcome::Ok)]);
        let heard = news.recv().await.unwrap();
        assert_eq!(heard.seq, 2);
        assert!(heard.line().contains(r#""request_id":"r-2""#), "{}", heard.line());
    }
}
