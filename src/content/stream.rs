//! What becomes of an answer that comes event by event, where something may be split over two of them?
//!
//! Every event is judged whole. What is joined: the progress messages of one stream, one after another; its log messages,
//! likewise; and the content of an answer with the progress and log messages before it. An event whose text ends with what
//! may be the begin of something ([`super::detect::open_end`]) is kept back until what follows shows what it is: the next
//! message of its kind, the answer, or the end of the stream. Events behind it wait with it, so that none overtakes another;
//! comments (keep-alives) pass. How much is kept back is bounded ([`HELD_EVENTS_MAX`], [`HELD_BYTES_MAX`]); over it, and where
//! waiting would never end (a question to the user, a stream that ends without its answer), what had begun is taken out.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::mcp::sse::Piece;

use super::edit::Edits;
use super::filter;
use super::plan::{Filter, Refuse, Unreadable, messages};
use super::redact::Wanted;
use super::rule::Place;
use super::slots::{self, Neighbour, Slot};
use super::texts::Channel;
use super::tree::Tree;

/// What is known of the events that came so far.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Events that are kept back, oldest first.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The end of what has passed, of each channel.
    passed: [String; 2],
}

/// An event that is kept back.
#[derive(Debug)]
struct Held {
    piece: Piece,
    data: Bytes,
    edits: Edits,
    slots: Vec<Slot>,
    /// It may hold the begin of something.
    is_open: bool,
}

const CHANNELS: [Channel; 2] = [Channel::Log, Channel::Progress];

impl Filter {
    /// Takes the next event, and adds to `out` what may pass.
    ///
    /// # Errors
    /// [`Unreadable`]; then `out` holds what came before.
    pub fn event(&mut self, piece: Piece, refuse: Refuse<'_>, out: &mut Vec<Bytes>) -> Result<(), Unreadable> {
        let event = piece.event();
        let Some(data) = event.data.filter(|data| !data.is_empty()) else {
            // A comment, or an event that only carries an id. An id must not come before those of events that wait.
            if event.id.is_none() || self.stream.held.is_empty() {
                out.push(piece.raw);
            } else {
                self.hold(
                    Held { piece, data: Bytes::new(), edits: Edits::default(), slots: Vec::new(), is_open: false },
                    out,
                );
            }
            return Ok(());
        };
        let is_message = event.name.is_none_or(|name| name.is_empty() || name == "message");
        if !is_message && !matches!(data.trim_ascii_start(), [b'{' | b'[', ..]) {
            let text = std::str::from_utf8(&data).map_err(|_| Unreadable)?;
            let changed = self.plain(text);
            let piece = changed.map_or_else(|| piece.clone(), |data| piece.changed(&data));
            self.hold(
                Held { piece, data: Bytes::new(), edits: Edits::default(), slots: Vec::new(), is_open: false },
                out,
            );
            return Ok(());
        }
        let tree = Tree::read(&data).map_err(|_strict| Unreadable)?;
        let mut held = Held { piece, data: data.clone(), edits: Edits::default(), slots: Vec::new(), is_open: false };
        let (mut answers, mut asks, mut content) = (false, false, Vec::new());
        for message in messages(&tree) {
            if filter::is_answer(&tree, message) {
                answers = true;
                content.extend(self.answer(&tree, message, &mut held.edits, refuse)?);
            } else {
                asks |= tree.member(message, "id").is_some();
                held.slots.extend(self.told(&tree, message, &mut held.edits));
            }
        }
        if answers {
            self.join_answer(&mut content);
            self.settle(content, &mut held.edits);
        }
        self.hold(held, out);
        if answers {
            // What has not gone on by the answer was nothing.
            self.release_all(out);
        } else if asks {
            self.close_open();
            self.release_all(out);
        }
        Ok(())
    }

    /// The stream has ended. What had begun may go on in a stream that resumes this one, so it does not pass.
    pub fn end(&mut self, out: &mut Vec<Bytes>) {
        self.close_open();
        self.release_all(out);
    }

    /// Puts an event behind those that wait, joins its texts with theirs, and lets go of what need not wait.
    fn hold(&mut self, held: Held, out: &mut Vec<Bytes>) {
        let has_texts = !held.slots.is_empty();
        if !has_texts && self.stream.held.is_empty() {
            self.pass(held, out);
            return;
        }
        self.stream.held_bytes += held.piece.raw.len();
        self.stream.held.push_back(held);
        if has_texts {
            for channel in CHANNELS {
                self.join(channel);
            }
        }
        if self.stream.held.len() > HELD_EVENTS_MAX || self.stream.held_bytes > HELD_BYTES_MAX {
            self.close_open();
        }
        while self.stream.held.front().is_some_and(|held| !held.is_open) {
            self.pass_first(out);
        }
    }

    /// Looks through the texts of a channel, read one after another: what has passed, what waits, what has come.
    fn join(&mut self, channel: Channel) {
        let rules = &self.plan.rules;
        let wanted = Wanted::at(Place::Progress, rules, self.told.0);
        if wanted.is_empty() {
            return;
        }
        let before = self.stream.passed.get(place_of(channel)).cloned().unwrap_or_default();
        let mut texts = vec![Joined::Passed(before)];
        for held in &mut self.stream.held {
            let of_channel = held.slots.iter_mut().filter(|slot| slot.piece.channel == Some(channel));
            texts.extend(of_channel.map(|slot| {
                slot.forget_across();
                Joined::Slot(slot)
            }));
        }
        slots::find_across(&mut texts, &wanted);
        let whole: String = texts.iter().map(Neighbour::text).collect();
        let open = open_end(&wanted, &whole);
        let lengths: Vec<usize> = texts.iter().map(|text| text.text().len()).collect();
        drop(texts);
        let mut ends = lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        });
        // That of what has passed.
        ends.next();
        for held in &mut self.stream.held {
            let of_channel = held.slots.iter().filter(|slot| slot.piece.channel == Some(channel)).count();
            if of_channel == 0 {
                continue;
            }
            let end = ends.by_ref().take(of_channel).last().unwrap_or_default();
            let other_is_open = held.slots.iter().any(|slot| slot.piece.channel != Some(channel)) && held.is_open;
            held.is_open = other_is_open || open.is_some_and(|open| open < end);
        }
    }

    /// Joins the content of an answer with what was said before it.
    fn join_answer(&mut self, content: &mut [Slot]) {
        if content.is_empty() {
            return;
        }
        let wanted = Wanted::at(Place::Progress, &self.plan.rules, self.told.0);
        if wanted.is_empty() {
            return;
        }
        for channel in CHANNELS {
            let before = self.stream.passed.get(place_of(channel)).cloned().unwrap_or_default();
            let held = self.stream.held.iter_mut().flat_map(|held| &mut held.slots);
            let mut texts = vec![Joined::Passed(before)];
            texts.extend(held.filter(|slot| slot.piece.channel == Some(channel)).map(Joined::Slot));
            if texts.iter().all(|text| text.text().is_empty()) {
                continue;
            }
            texts.extend(content.iter_mut().map(Joined::Slot));
            slots::find_across(&mut texts, &wanted);
        }
    }

    /// Takes out what has begun in events that wait, and lets them wait no longer.
    fn close_open(&mut self) {
        let wanted = Wanted::at(Place::Progress, &self.plan.rules, self.told.0);
        for channel in CHANNELS {
            let mut texts: Vec<&mut Slot> = Vec::new();
            for held in self.stream.held.iter_mut().filter(|held| held.is_open) {
                texts.extend(held.slots.iter_mut().filter(|slot| slot.piece.channel == Some(channel)));
            }
            let before = self.stream.passed.get(place_of(channel)).map_or("", String::as_str);
            let whole: String = std::iter::once(before).chain(texts.iter().map(|slot| &*slot.text)).collect();
            let Some(open) = open_end(&wanted, &whole) else { continue };
            let mut begin = before.len();
            for slot in texts {
                let end = begin + slot.text.len();
                let range: Range<usize> = open.max(begin)..end;
                if let (false, Some(rule)) = (range.is_empty(), wanted.first_rule()) {
                    slot.close(range.start - begin..range.end - begin, rule);
                }
                begin = end;
            }
        }
        self.stream.held.iter_mut().for_each(|held| held.is_open = false);
    }

    fn release_all(&mut self, out: &mut Vec<Bytes>) {
        while !self.stream.held.is_empty() {
            self.pass_first(out);
        }
    }

    fn pass_first(&mut self, out: &mut Vec<Bytes>) {
        if let Some(held) = self.stream.held.pop_front() {
            self.stream.held_bytes = self.stream.held_bytes.saturating_sub(held.piece.raw.len());
            self.pass(held, out);
        }
    }

    /// Lets an event go, as it is in the end.
    fn pass(&mut self, held: Held, out: &mut Vec<Bytes>) {
        let Held { piece, data, mut edits, slots, .. } = held;
        for slot in &slots {
            let place = CHANNELS.iter().position(|channel| slot.piece.channel == Some(*channel));
            if let Some(passed) = place.and_then(|place| self.stream.passed.get_mut(place)) {
                passed.push_str(&slot.text);
                let from = passed.len().saturating_sub(slots::REACH_BYTES);
                let from = (from..=passed.len()).find(|at| passed.is_char_boundary(*at)).unwrap_or_default();
                passed.drain(..from);
            }
        }
        self.settle(slots, &mut edits);
        out.push(if edits.is_empty() { piece.raw } else { piece.changed(&edits.apply(&data)).raw });
    }
}

/// A text that is read together with others.
enum Joined<'s> {
    /// The end of what has passed: nothing can be changed in it any more.
    Passed(String),
    Slot(&'s mut Slot),
}

impl Neighbour for Joined<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Passed(text) => text,
            Self::Slot(slot) => &slot.text,
        }
    }

    fn take_share(&mut self, range: Range<usize>, text: String, rule: Option<usize>) {
        if let Self::Slot(slot) = self {
            slot.take_share(range, text, rule);
        }
    }
}

/// Where something has begun that may go on; none when it is part of what was found already.
fn open_end(wanted: &Wanted<'_>, text: &str) -> Option<usize> {
    let open = wanted.open_end(text)?;
    let is_found = wanted.find(text).iter().any(|found| found.range.start <= open && found.range.end == text.len());
    (!is_found).then_some(open)
}

fn place_of(channel: Channel) -> usize {
    CHANNELS.iter().position(|known| *known == channel).unwrap_or_default()
}

/// Events that are kept back at most.
pub const HELD_EVENTS_MAX: usize = 32;

/// Bytes of them.
pub const HELD_BYTES_MAX: usize = 256 * 1024;
