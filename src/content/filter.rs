//! What becomes of one message? Every rule that applies to it, in one reading.

use std::sync::Arc;

use crate::mcp::json::Kind;
use crate::mcp::message::canonical_id;

use super::edit::{Edits, json_string};
use super::encoded;
use super::redact::Wanted;
use super::rule::{Action, GuardAction, Limit, Place, Protection, Rule, Threat, Threats};
use super::slots::{self, Counts, Slot};
use super::texts::{self, Channel, Part, Piece};
use super::tree::{Id, Tree};

/// Why an answer does not pass: an error that an agent can read comes in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It tries to give orders.
    Blocked,
    /// The external guard says so.
    BlockedOutside,
    /// It holds an image, audio or blob of a type that is not listed.
    Media,
    /// The external guard gave no verdict.
    NoVerdict,
    /// More bytes than may pass.
    TooLarge {
        /// What it has.
        found: usize,
        /// What it may have.
        limit: usize,
    },
    /// More items than may pass.
    TooMany {
        /// What it has.
        found: usize,
        /// What it may have.
        limit: usize,
    },
    /// The caller is not connected over TLS.
    Unencrypted,
    /// It cannot be read in one way only.
    Unreadable,
}

/// What one rule did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The rule.
    pub rule: Arc<str>,
    /// What: a word of a fixed set.
    pub action: &'static str,
    /// How often.
    pub count: u64,
}

/// Counts what rules do. A set of rules is a bit for each, by its place in the plan.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<(usize, &'static str, u64)>);

impl Tally {
    pub(super) fn add(&mut self, rule: usize, action: &'static str, count: u64) {
        match self.0.iter_mut().find(|(known, word, _)| (*known, *word) == (rule, action)) {
            Some((_, _, sum)) => *sum += count,
            None => self.0.push((rule, action, count)),
        }
    }

    fn add_all(&mut self, counts: Counts, rules: &[Arc<Rule>]) {
        for (rule, count) in counts {
            let is_drop = rules.get(rule).is_some_and(|rule| matches!(rule.action, Action::Drop(_)));
            self.add(rule, if is_drop { "dropped" } else { "redacted" }, count);
        }
    }

    /// What was counted since it was last asked.
    pub(super) fn take(&mut self, rules: &[Arc<Rule>]) -> Vec<Done> {
        let done = std::mem::take(&mut self.0).into_iter();
        done.filter_map(|(rule, action, count)| {
            let rule = Arc::clone(&rules.get(rule)?.name);
            Some(Done { rule, action, count })
        })
        .collect()
    }
}

/// What is known of who gets a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'p> {
    pub(super) rules: &'p [Arc<Rule>],
    /// Whether the caller is connected over TLS.
    pub(super) is_encrypted: bool,
    /// A word that no server can know, for what untrusted text is wrapped in.
    pub(super) nonce: &'p str,
}

/// What a message needs, but for texts that may go on in another message.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// What changes in the text of the message whatever comes next.
    pub(super) edits: Edits,
    /// The texts of the message that are read together with others.
    pub(super) slots: Vec<Slot>,
    /// What guards that only mark have found.
    marks: Threats,
}

impl<'p> Reader<'p> {
    /// Whether a rule of `set` is of this kind.
    fn each(self, set: u64) -> impl Iterator<Item = (usize, &'p Rule)> {
        let chosen = self.rules.iter().enumerate().filter(move |(nth, _)| set & (1 << nth) != 0);
        chosen.map(|(nth, rule)| (nth, &**rule))
    }

    /// Judges the answer to a request: `set` are the rules that apply to it.
    ///
    /// # Errors
    /// Why it does not pass.
    pub(super) fn answer(self, tree: &Tree<'_>, message: Id, set: u64, tally: &mut Tally) -> Result<Judged, Refusal> {
        let result = tree.member(message, "result");
        let error = tree.member(message, "error");
        let protection = |(_, rule): &(usize, &Rule)| {
            matches!(rule.action, Action::Protect(Protection::Encrypted | Protection::Sensitive))
        };
        if let Some((nth, _)) = self.each(set).find(protection).filter(|_| !self.is_encrypted && result.is_some()) {
            tally.add(nth, "refused", 1);
            return Err(Refusal::Unencrypted);
        }
        if let Some(result) = result {
            self.limit(tree, result, set, tally)?;
        }
        let mut pieces = Vec::new();
        if let Some(result) = result {
            pieces.extend(texts::of_result(tree, result));
        }
        if let Some(error) = error {
            pieces.extend(texts::of_error(tree, error));
        }
        let mut judged = self.texts(tree, pieces, set, tally)?;
        if let Some(result) = result {
            self.drop_from(tree, result, set, &mut judged.edits, tally);
        }
        // What lies across the items of one answer.
        let (mut together, alone): (Vec<Slot>, Vec<Slot>) =
            judged.slots.into_iter().partition(|slot| slot.piece.channel == Some(Channel::Content));
        let wanted = self.wanted_across(&together, set);
        slots::find_across(&mut together, &wanted);
        judged.slots = together;
        let mut counts = Counts::new();
        alone.into_iter().for_each(|slot| slot.settle(&mut judged.edits, &mut counts));
        tally.add_all(counts, self.rules);
        if let Some(top) = result.or(error).filter(|_| !judged.marks.is_empty()) {
            mark(tree, top, result.is_some(), judged.marks, &mut judged.edits);
        }
        Ok(judged)
    }

    /// Judges what the server says besides its answers. Something that is blocked says so in place of its texts.
    pub(super) fn told(self, tree: &Tree<'_>, message: Id, set: u64, tally: &mut Tally) -> Judged {
        let method = tree.member(message, "method").and_then(|id| tree.string(id)).unwrap_or_default();
        let Some(params) = tree.member(message, "params") else { return Judged::default() };
        let pieces = texts::of_told(tree, &method, params);
        let mut judged = match self.texts(tree, pieces.clone(), set, tally) {
            Ok(judged) => judged,
            Err(_refusal) => {
                let mut judged = Judged::default();
                for piece in pieces {
                    let text = match piece.part {
                        Part::Base64 => json_string(&encoded::encode(BLOCKED_TEXT)),
                        Part::String => json_string(BLOCKED_TEXT),
                        Part::Key | Part::Number => continue,
                    };
                    judged.edits.replace(tree.place(piece.id), text);
                }
                return judged;
            }
        };
        let (together, alone): (Vec<Slot>, Vec<Slot>) =
            judged.slots.into_iter().partition(|slot| slot.piece.channel.is_some());
        let mut counts = Counts::new();
        alone.into_iter().for_each(|slot| slot.settle(&mut judged.edits, &mut counts));
        tally.add_all(counts, self.rules);
        judged.slots = together;
        if !judged.marks.is_empty() {
            mark(tree, params, true, judged.marks, &mut judged.edits);
        }
        judged
    }

    /// Judges a text that is no JSON: an event of a kind that no client reads. None: nothing is in it.
    pub(super) fn plain(self, text: &str, set: u64, tally: &mut Tally) -> Option<Vec<u8>> {
        let wanted = Wanted::at(Place::Progress, self.rules, set);
        if wanted.is_empty() {
            return None;
        }
        let found = wanted.find(text);
        let mut edits = Edits::default();
        for found in &found {
            let matched = text.get(found.range.clone()).unwrap_or_default();
            edits.replace(found.range.clone(), wanted.replacement(found, matched));
            tally.add(found.rule, "redacted", 1);
        }
        (!edits.is_empty()).then(|| edits.apply(text.as_bytes()))
    }

    /// What is looked for across the texts of an answer. Where they are of several places, what all of them are looked
    /// through for.
    pub(super) fn wanted_across(self, slots: &[Slot], set: u64) -> Wanted<'p> {
        let mut places = slots.iter().map(|slot| slot.piece.place);
        let first = places.next().unwrap_or(Place::Text);
        let place = if places.any(|place| place == Place::Text) { Place::Text } else { first };
        Wanted::at(place, self.rules, set)
    }

    /// Puts down what is counted in `slots`.
    pub(super) fn settle(self, slots: Vec<Slot>, edits: &mut Edits, tally: &mut Tally) {
        let mut counts = Counts::new();
        slots.into_iter().for_each(|slot| slot.settle(edits, &mut counts));
        tally.add_all(counts, self.rules);
    }

    /// Looks through every text by itself.
    fn texts(self, tree: &Tree<'_>, pieces: Vec<Piece>, set: u64, tally: &mut Tally) -> Result<Judged, Refusal> {
        let wanted = Place::ALL.map(|place| (place, Wanted::at(place, self.rules, set)));
        let mut drops = Vec::new();
        for (nth, rule) in self.each(set) {
            if let Action::Drop(pointers) = &rule.action {
                drops.extend(pointers.iter().map(|pointer| (nth, pointer)));
            }
        }
        let guards = self.each(set).any(|(_, rule)| matches!(rule.action, Action::Guard(_)));
        let is_needed = !drops.is_empty() || guards || wanted.iter().any(|(_, wanted)| !wanted.is_empty());
        if !is_needed {
            return Ok(Judged::default());
        }
        let mut slots = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let mut slot = Slot::of(tree, piece);
            let wanted = wanted.iter().find(|(place, _)| *place == piece.place);
            if let Some((_, wanted)) = wanted {
                slot.find(wanted, &drops).map_err(|_two_readings| Refusal::Unreadable)?;
            }
            slots.push(slot);
        }
        slots::tell_apart(tree, &mut slots);
        let marks = if guards { self.guard(&mut slots, set, tally)? } else { Threats::default() };
        Ok(Judged { edits: Edits::default(), slots, marks })
    }

    /// Looks for what tries to give orders: in every text, and in all of them read one after another.
    fn guard(self, slots: &mut [Slot], set: u64, tally: &mut Tally) -> Result<Threats, Refusal> {
        let mut marks = Threats::default();
        for (nth, rule) in self.each(set) {
            let Action::Guard(guard) = &rule.action else { continue };
            let mut threats = Threats::default();
            let mut found: Vec<usize> = Vec::new();
            for (place, slot) in slots.iter().enumerate() {
                let seen = match slot.piece.part {
                    Part::Base64 if !guard.base64 => continue,
                    Part::Base64 => guard.look(&slot.text),
                    Part::Key | Part::Number | Part::String => {
                        guard.look(&slot.text).and_all(guard.look_into_base64(&slot.text))
                    }
                };
                if !seen.is_empty() {
                    threats = threats.and_all(seen);
                    found.push(place);
                }
            }
            let parts: Vec<(usize, &Slot)> =
                slots.iter().enumerate().filter(|(_, slot)| slot.piece.channel == Some(Channel::Content)).collect();
            if found.is_empty() && parts.len() > 1 && guard.threats.has(Threat::Instructions) {
                let joined: Vec<&str> = parts.iter().map(|(_, slot)| &*slot.text).collect();
                if guard.look(&joined.join(" ")).has(Threat::Instructions) {
                    threats = threats.with(Threat::Instructions);
                    found.extend(parts.iter().map(|(place, _)| *place));
                }
            }
            if found.is_empty() {
                continue;
            }
            let count = found.len() as u64;
            match guard.action {
                GuardAction::Block => {
                    tally.add(nth, "blocked", count);
                    return Err(Refusal::Blocked);
                }
                GuardAction::Flag => {
                    tally.add(nth, "flagged", count);
                    marks = marks.and_all(threats);
                }
                GuardAction::Wrap => {
                    tally.add(nth, "wrapped", count);
                    let word = format!("untrusted content {}", self.nonce);
                    for place in found {
                        let is_text = |slot: &&mut Slot| matches!(slot.piece.part, Part::Base64 | Part::String);
                        let slot = slots.get_mut(place).filter(is_text);
                        if let Some(slot) = slot {
                            slot.wrapped_in = Some(word.clone());
                        }
                    }
                }
            }
        }
        Ok(marks)
    }

    fn drop_from(self, tree: &Tree<'_>, result: Id, set: u64, edits: &mut Edits, tally: &mut Tally) {
        let Some(structured) = tree.member(result, "structuredContent") else { return };
        for (nth, rule) in self.each(set) {
            let Action::Drop(pointers) = &rule.action else { continue };
            let mut found = Vec::new();
            pointers.iter().for_each(|pointer| pointer.find(tree, structured, &mut found));
            found.sort_unstable();
            found.dedup();
            if !found.is_empty() {
                tally.add(nth, "dropped", found.len() as u64);
                slots::removals(tree, found).into_iter().for_each(|cut| edits.remove(cut));
            }
        }
    }

    fn limit(self, tree: &Tree<'_>, result: Id, set: u64, tally: &mut Tally) -> Result<(), Refusal> {
        for (nth, rule) in self.each(set) {
            let Action::Limit(limit) = &rule.action else { continue };
            if let Err(refusal) = within(limit, tree, result) {
                tally.add(nth, "limited", 1);
                return Err(refusal);
            }
        }
        Ok(())
    }
}

/// Which message an answer answers, as [`canonical_id`] writes it.
pub(super) fn id_of<'a>(tree: &Tree<'a>, message: Id) -> Option<std::borrow::Cow<'a, str>> {
    tree.member(message, "id").map(|id| canonical_id(tree.raw(id)))
}

/// Whether a message is an answer; none: it is neither answer nor anything a client reads.
pub(super) fn is_answer(tree: &Tree<'_>, message: Id) -> bool {
    tree.member(message, "result").is_some() || tree.member(message, "error").is_some()
}

fn within(limit: &Limit, tree: &Tree<'_>, result: Id) -> Result<(), Refusal> {
    let bytes = tree.raw(result).len();
    if let Some(limit) = limit.result_bytes.filter(|limit| bytes > *limit) {
        return Err(Refusal::TooLarge { found: bytes, limit });
    }
    let lists = ["content", "contents", "messages"].into_iter().filter_map(|list| tree.member(result, list));
    let items = lists.map(|list| tree.children(list).count()).max().unwrap_or_default();
    if let Some(limit) = limit.items.filter(|limit| items > *limit) {
        return Err(Refusal::TooMany { found: items, limit });
    }
    if let Some(media) = &limit.media {
        let may_pass = |id: Id| {
            let kind = tree.member(id, "type").and_then(|id| tree.string(id));
            let is_media = matches!(kind.as_deref(), Some("image" | "audio")) || tree.member(id, "blob").is_some();
            let kind = tree.member(id, "mimeType").and_then(|id| tree.string(id)).unwrap_or_default();
            !is_media || is_listed(&kind, media)
        };
        let structured = tree.member(result, "structuredContent").map(|id| tree.place(id));
        let objects = tree.within(result).filter(|id| tree.kind(*id) == Kind::Object);
        let mut content = objects.filter(|id| {
            let place = tree.place(*id);
            structured.as_ref().is_none_or(|data| place.start < data.start || place.end > data.end)
        });
        if !content.all(may_pass) {
            return Err(Refusal::Media);
        }
    }
    Ok(())
}

fn is_listed(kind: &str, media: &[Box<str>]) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.iter().any(|listed| match listed.strip_suffix('*') {
        Some(group) => kind.starts_with(group),
        None => **listed == *kind,
    })
}

/// Puts the mark into `_meta` of a result, or into `data` of an error.
fn mark(tree: &Tree<'_>, top: Id, is_result: bool, threats: Threats, edits: &mut Edits) {
    if tree.kind(top) != Kind::Object {
        return;
    }
    let words: Vec<String> = Threat::ALL
        .into_iter()
        .filter(|threat| threats.has(*threat))
        .map(|threat| format!("\"{}\"", threat.label()))
        .collect();
    let member = format!("\"{MARK}\":{{\"found\":[{}]}}", words.join(","));
    let holder = if is_result { "_meta" } else { "data" };
    let first_place = |id: Id| tree.place(id).start + 1;
    let comma = |id: Id| if tree.children(id).next().is_some() { "," } else { "" };
    match tree.member(top, holder) {
        Some(meta) if tree.kind(meta) == Kind::Object => {
            // A server's own mark of this name says nothing.
            let forged: Vec<Id> = tree.member(meta, MARK).into_iter().collect();
            let is_left = tree.children(meta).count() > forged.len();
            slots::removals(tree, forged).into_iter().for_each(|cut| edits.remove(cut));
            let comma = if is_left { "," } else { "" };
            edits.replace(first_place(meta)..first_place(meta), format!("{member}{comma}"));
        }
        Some(meta) if is_result => edits.replace(tree.place(meta), format!("{{{member}}}")),
        // What an error says in another form is left as it is; the audit record tells.
        Some(_) => {}
        None => {
            let text = format!("\"{holder}\":{{{member}}}{}", comma(top));
            edits.replace(first_place(top)..first_place(top), text);
        }
    }
}

/// The member of `_meta` that says what a guard has found.
pub const MARK: &str = "io.portcullis/guard";

const BLOCKED_TEXT: &str = "[blocked: this message tried to give orders]";
