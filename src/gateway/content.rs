//! What do the rules about content make of an answer? Where they meet an exchange.

use std::cell::Cell;

use bytes::Bytes;
use http::HeaderMap;
use ring::rand::SecureRandom as _;

use crate::content::rule::Protection;
use crate::content::{Filter, Plan, Refusal, RuleSet, Unreadable};
use crate::mcp::sse::Piece;
use crate::mcp::{Message, RequestId};
use crate::policy::{Circumstances, Facts};
use crate::registry::Route;

use super::Shell;
use super::outside::Outside;
use super::pipeline::{Admitted, Ask, Who};
use super::placement::Seen;
use super::record::Record;
use super::rejection::Rejection;
use super::respond;

/// Refuses a call whose answer its caller could not be given: nothing of it goes upstream.
///
/// # Errors
/// [`Refusal::Unencrypted`].
pub(super) fn check(route: &Route, seen: &Seen<'_>, record: &mut Record) -> Result<(), Rejection> {
    let Some(plan) = &route.content else { return Ok(()) };
    if plan.protection(plan.all()).is_none() {
        return Ok(());
    }
    let facts = seen.facts(record);
    let each = seen.ask.messages().iter();
    let set =
        each.fold(RuleSet::default(), |set, message| set.with(rules_about(plan, route, seen.who, &facts, message)));
    match plan.protection(set) {
        Some(_) if !record.is_encrypted => Err(Rejection::Content(Refusal::Unencrypted)),
        Some(Protection::Sensitive) => {
            record.capture_nothing();
            Ok(())
        }
        Some(Protection::Encrypted) | None => Ok(()),
    }
}

/// What the events at hand are the last of.
#[derive(Clone, Copy, Debug)]
pub(super) struct IsLast {
    /// Nothing more comes.
    pub(super) of_stream: bool,
    /// Every request is answered.
    pub(super) of_answers: bool,
}

/// What sees the answer to one request.
pub(super) struct Filtering {
    /// The rules of our own.
    pub(super) filter: Option<Filter>,
    /// And those of others.
    pub(super) outside: Option<Outside>,
    /// Nobody may store it on the way.
    pub(super) is_sensitive: bool,
}

impl Filtering {
    /// For the answer to an admitted request; none when no rule is about it. `head` are the client's headers.
    ///
    /// # Errors
    /// [`Rejection::UpstreamProtocol`] when the system has no random numbers for what needs them.
    pub(super) fn of(
        shell: &Shell,
        admitted: &Admitted,
        head: &HeaderMap,
        record: &Record,
    ) -> Result<Option<Box<Self>>, Rejection> {
        let route = &admitted.route;
        let Some(plan) = &route.content else { return Ok(None) };
        let facts = &respond::facts_of(admitted, head, record);
        let who = Who { caller: &admitted.caller, token: &admitted.subject_token, agent: admitted.agent.as_ref() };
        let (asked, told) = match &admitted.ask {
            Ask::EndSession(_) => return Ok(None),
            Ask::OpenStream(_) => (None, exempted(plan, plan.all(), route, who, facts, None)),
            Ask::Messages(request) => {
                let rules = |message: &Message| {
                    let id = message.request_id()?.canonical().into();
                    Some((id, rules_about(plan, route, who, facts, message)))
                };
                (Some(request.messages.iter().filter_map(rules).collect()), RuleSet::default())
            }
        };
        let asked: Option<Vec<(Box<str>, RuleSet)>> = asked;
        let set = asked.iter().flatten().fold(told, |all, (_, set)| all.with(*set));
        let is_sensitive = plan.protection(set) == Some(Protection::Sensitive);
        if set.is_empty() {
            return Ok(None);
        }
        let mut nonce = [0; 8];
        if plan.wraps(set) {
            // A server that knew the words that its text is wrapped in could end them.
            shell.random.fill(&mut nonce).map_err(|_no_random_numbers| Rejection::UpstreamProtocol)?;
        }
        let nonce = format!("{:016x}", u64::from_be_bytes(nonce)).into();
        let outside = Outside::of(plan, set);
        let filter = Filter::new(plan, asked, told, record.is_encrypted, nonce);
        Ok((filter.is_some() || outside.is_some()).then(|| Box::new(Self { filter, outside, is_sensitive })))
    }

    /// Filters an answer that is whole. What a guard outside is asked about stays here, and nothing passes.
    ///
    /// # Errors
    /// [`Rejection::UpstreamProtocol`] when it cannot be read in one way only.
    pub(super) fn document(&mut self, shell: &Shell, record: &mut Record, whole: Bytes) -> Result<Bytes, Rejection> {
        let refused = Cell::new(None);
        let filtered = self.filter.as_mut().map_or(Ok(None), |filter| {
            filter.document(&whole, &|id, refusal| {
                refused.set(Some(refusal));
                in_its_place(record, id, refusal)
            })
        });
        self.note(shell, record, refused.get());
        let filtered = filtered.map_err(|_unreadable| Rejection::UpstreamProtocol)?;
        let passed = filtered.map_or(whole, Bytes::from);
        Ok(match &mut self.outside {
            Some(outside) => {
                outside.hold_document(passed);
                Bytes::new()
            }
            None => passed,
        })
    }

    /// Filters events; what may pass of them is added to `out`.
    ///
    /// # Errors
    /// As [`Filtering::document`]; `out` then holds what came before.
    pub(super) fn events(
        &mut self,
        shell: &Shell,
        record: &mut Record,
        pieces: Vec<Piece>,
        is_last: IsLast,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Rejection> {
        let refused = Cell::new(None);
        let filtered = pieces.into_iter().try_for_each(|piece| {
            let refuse = |id: &str, refusal| {
                refused.set(Some(refusal));
                in_its_place(record, id, refusal)
            };
            let waits = self.outside.as_ref().and_then(|outside| outside.holds_back(&piece));
            let mut passed = Vec::new();
            match &mut self.filter {
                Some(filter) => filter.event(piece, &refuse, &mut passed)?,
                None => passed.push(piece.raw),
            }
            match (waits, &mut self.outside) {
                (Some(answered), Some(outside)) => outside.hold_event(answered, passed),
                (_, _) => out.append(&mut passed),
            }
            Ok(())
        });
        if let (true, Ok(()), Some(filter)) = (is_last.of_stream, &filtered, &mut self.filter) {
            filter.end(out);
        }
        if let Some(outside) = self.outside.as_mut().filter(|outside| outside.has_answer())
            && (is_last.of_stream || is_last.of_answers)
        {
            outside.close(std::mem::take(out));
        }
        self.note(shell, record, refused.get());
        filtered.map_err(|_unreadable: Unreadable| Rejection::UpstreamProtocol)
    }

    /// Notes what the rules did.
    fn note(&mut self, shell: &Shell, record: &mut Record, refused: Option<Refusal>) {
        if let Some(refusal) = refused {
            record.refused(&Rejection::Content(refusal));
        }
        let done = self.filter.as_mut().map(Filter::take_done).unwrap_or_default();
        if done.is_empty() {
            return;
        }
        let path = record.route.as_ref().map(|route| &*route.config.path).unwrap_or_default();
        for one in &done {
            shell.metrics.content_filtered(path, &one.rule, one.action, one.count);
        }
        record.filtered(done);
    }
}

/// The error in the place of an answer.
fn in_its_place(record: &Record, id: &str, refusal: Refusal) -> Vec<u8> {
    Rejection::Content(refusal).body(Some(&RequestId::from_json(id)), &record.request_id).to_vec()
}

/// The rules about the answer to one message that hold for this caller.
fn rules_about(plan: &Plan, route: &Route, who: Who<'_>, facts: &Facts<'_>, message: &Message) -> RuleSet {
    let (Some(_), Some(method)) = (message.request_id(), message.method()) else { return RuleSet::default() };
    exempted(plan, plan.about(method, &message.target), route, who, facts, Some(message))
}

/// A condition without an answer exempts nobody.
fn exempted(
    plan: &Plan,
    set: RuleSet,
    route: &Route,
    who: Who<'_>,
    facts: &Facts<'_>,
    message: Option<&Message>,
) -> RuleSet {
    let about = Circumstances { caller: who.caller, server: route.server.name(), message, facts };
    plan.without_exempt(set, |unless| unless.holds(&about) == Ok(true))
}

/// Whether the text of an answer is in the one encoding that is read here: UTF-8, also when nothing is said.
pub(super) fn is_utf8(head: &HeaderMap) -> bool {
    let Some(media) = head.get(http::header::CONTENT_TYPE) else { return true };
    let parameters = media.as_bytes().split(|byte| *byte == b';').skip(1);
    parameters.into_iter().all(|parameter| {
        let mut halves = parameter.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        let value = halves.next().unwrap_or_default().trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        !name.eq_ignore_ascii_case(b"charset")
            || [&b"utf-8"[..], b"utf8", b"us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
    })
}
