//! Where does one event end and the next begin? Server-Sent Events (WHATWG HTML §9.2), piece by piece, byte for byte.
//!
//! [`Splitter`] cuts a stream into pieces that can be sent on by themselves: whole events, and between them comments and
//! blank lines at once, so that a keep-alive is never held back. Glued together the pieces are the stream.

use std::ops::Range;

use bytes::Buf as _;
use bytes::Bytes;
use bytes::BytesMut;

use super::RequestId;

/// A part of a stream that can be sent on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes as they came.
    pub raw: Bytes,
    /// Whether the byte order mark of the stream stands in front.
    begins_stream: bool,
}

/// What a client reads in a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last `event:` field, which names the type; none means `message`.
    pub name: Option<Bytes>,
    /// The last `id:` field.
    pub id: Option<Bytes>,
    /// The `data:` fields, joined by LF; none when there is no such field (then clients dispatch nothing).
    pub data: Option<Bytes>,
}

impl Piece {
    /// Reads the fields. A piece without any (a comment, a blank line) gives the empty event.
    #[must_use]
    pub fn event(&self) -> Event {
        let mut event = Event::default();
        for line in self.lines() {
            let value = || self.raw.slice(line.value.clone());
            match line.field {
                b"event" => event.name = Some(value()),
                b"id" => event.id = Some(value()),
                b"data" => {
                    event.data = Some(match event.data.take() {
                        None => value(),
                        Some(before) => [&before[..], &value()].join(&b'\n').into(),
                    });
                }
                _ => {}
            }
        }
        event
    }

    /// The same event with other data; its other lines stay as they are. Without a `data` field it stays whole.
    #[must_use]
    pub fn with_data(&self, data: &[u8]) -> Vec<u8> {
        let mut changed = Vec::with_capacity(self.raw.len() + data.len());
        let mut written = false;
        let mut at = 0;
        // A line that ends with CR must not come to stand before a bare LF: together they would be one line end, and
        // the event would have lost its blank line.
        let append = |changed: &mut Vec<u8>, kept: &[u8]| {
            if changed.ends_with(b"\r") && kept.starts_with(b"\n") {
                changed.push(b'\n');
            }
            changed.extend_from_slice(kept);
        };
        for line in self.lines().filter(|line| line.field == b"data") {
            append(&mut changed, self.raw.get(at..line.whole.start).unwrap_or_default());
            at = line.whole.end;
            if !written {
                written = true;
                let end: &[u8] = if line.end.is_empty() { b"\n" } else { line.end };
                // A line end inside the data would end the field, or, doubled, the event.
                for part in data.split(|byte| *byte == b'\n' || *byte == b'\r') {
                    changed.extend_from_slice(b"data: ");
                    changed.extend_from_slice(part);
                    changed.extend_from_slice(end);
                }
            }
        }
        append(&mut changed, self.raw.get(at..).unwrap_or_default());
        changed
    }

    /// [`Piece::with_data`] as a piece.
    #[must_use]
    pub fn changed(&self, data: &[u8]) -> Self {
        Self { raw: self.with_data(data).into(), begins_stream: self.begins_stream }
    }

    fn lines(&self) -> Lines<'_> {
        let at = if self.begins_stream && self.raw.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Lines { raw: &self.raw, at }
    }
}

/// Cuts a stream into [`Piece`]s. [`Splitter::push`] a chunk, then take [`Splitter::next_piece`] until there is none.
#[derive(Debug)]
pub struct Splitter {
    event_bytes_max: usize,
    /// What came and is not yet looked at.
    unread: Bytes,
    /// The begin of an event whose end is still to come.
    held: BytesMut,
    boundary: Boundary,
    begins_stream: bool,
}

/// A stream that cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event is longer than the limit.
    #[error("an event is too long")]
    EventTooLong,
}

impl Splitter {
    /// Starts at the begin of a stream. An event may have `event_bytes_max` bytes, all its lines counted.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            unread: Bytes::new(),
            held: BytesMut::new(),
            boundary: Boundary::default(),
            begins_stream: true,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.unread.is_empty() {
            self.unread = chunk;
        } else {
            self.unread = [&self.unread[..], &chunk].concat().into();
        }
    }

    /// The next piece, when it is whole. Not copied when it lies inside one chunk.
    ///
    /// # Errors
    /// [`SseError::EventTooLong`]; the stream cannot be read further.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, SseError> {
        let (length, is_whole) = match self.boundary.advance(&self.unread) {
            Some(length) => (length, true),
            None => (self.unread.len(), false),
        };
        if self.held.len() + length > self.event_bytes_max {
            return Err(SseError::EventTooLong);
        }
        let part = self.unread.split_to(length);
        if !is_whole {
            self.held.extend_from_slice(&part);
            return Ok(None);
        }
        let raw = if self.held.is_empty() {
            part
        } else {
            self.held.extend_from_slice(&part);
            self.held.split().freeze()
        };
        Ok(Some(self.piece(raw)))
    }

    /// Ends the stream: what was held back, an event without its end. Clients that keep to the standard drop it, others
    /// do not, so it must be judged like an event.
    #[must_use]
    pub fn finish(mut self) -> Option<Piece> {
        self.held.extend_from_slice(&self.unread);
        if self.held.is_empty() {
            return None;
        }
        let raw = self.held.split().freeze();
        Some(self.piece(raw))
    }

    /// Whether nothing is held back: every byte that came was handed out in a piece.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.held.is_empty() && self.unread.is_empty()
    }

    fn piece(&mut self, raw: Bytes) -> Piece {
        Piece { raw, begins_stream: std::mem::take(&mut self.begins_stream) }
    }
}

/// Follows a stream that passes by and knows whether it stands between two events, where an event may be put in.
#[derive(Clone, Debug, Default)]
pub struct Boundary {
    line: Line,
    /// The event has a line already.
    in_event: bool,
    /// The last byte was CR, so an LF belongs to the same line end.
    after_cr: bool,
}

/// What is known of the line that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    Comment,
    #[default]
    Empty,
    Field,
}

impl Boundary {
    /// Sees the next bytes of the stream.
    pub fn watch(&mut self, mut bytes: &[u8]) {
        while let Some(length) = self.advance(bytes) {
            bytes.advance(length);
        }
    }

    /// Whether all events so far have ended, and no line is begun.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        !self.in_event && self.line == Line::Empty
    }

    /// Reads to the next boundary; says how many bytes lead there, or none when it is not among `bytes`.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if std::mem::take(&mut self.after_cr) && *byte == b'\n' {
                at += 1;
                if self.is_at_boundary() {
                    // The line end came in two chunks, and its first half has already ended the piece.
                    return Some(at);
                }
                continue;
            }
            if *byte != b'\n' && *byte != b'\r' {
                if self.line == Line::Empty {
                    self.line = if *byte == b':' { Line::Comment } else { Line::Field };
                }
                at += line_run(bytes.get(at..).unwrap_or_default());
                continue;
            }
            at += 1;
            self.after_cr = *byte == b'\r';
            // A blank line ends an event; between events, blank lines and comments stand for themselves.
            match std::mem::take(&mut self.line) {
                Line::Empty => self.in_event = false,
                Line::Field => self.in_event = true,
                Line::Comment => {}
            }
            if !self.in_event {
                if self.after_cr && bytes.get(at) == Some(&b'\n') {
                    self.after_cr = false;
                    at += 1;
                }
                return Some(at);
            }
        }
        None
    }
}

/// A whole event of type `message` with this JSON text.
#[must_use]
pub fn message_event(json: &[u8]) -> Vec<u8> {
    let empty = Piece { raw: Bytes::from_static(b"event: message\ndata\n\n"), begins_stream: false };
    empty.with_data(json)
}

/// A whole event that ends a request with a JSON-RPC error. `message` is shown to the client: a fixed text.
#[must_use]
pub fn error_event(id: &RequestId, code: i32, message: &str) -> Vec<u8> {
    let message = serde_json::Value::from(message);
    let id = id.as_json();
    message_event(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#).as_bytes())
}

/// Glues pieces together; one alone is not copied.
#[must_use]
pub fn join(pieces: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([piece]) => piece,
        Err(pieces) => pieces.concat().into(),
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One line of a piece that is neither blank nor a comment.
struct FieldLine<'a> {
    field: &'a [u8],
    /// The place of the value: behind the colon and one space.
    value: Range<usize>,
    /// The place of the line, its end included.
    whole: Range<usize>,
    /// CR LF, LF, CR, or nothing at the end of a stream.
    end: &'a [u8],
}

struct Lines<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = FieldLine<'a>;

    fn next(&mut self) -> Option<FieldLine<'a>> {
        loop {
            let start = self.at;
            let rest = self.raw.get(start..).filter(|rest| !rest.is_empty())?;
            let length = line_run(rest);
            let (line, after) = rest.split_at_checked(length)?;
            let end = match after {
                [b'\r', b'\n', ..] => 2,
                [_, ..] => 1,
                [] => 0,
            };
            self.at = start + length + end;
            let colon = line.iter().position(|byte| *byte == b':');
            let field = line.get(..colon.unwrap_or(length))?;
            if field.is_empty() {
                continue;
            }
            let value = match colon {
                None => length,
                Some(colon) if line.get(colon + 1) == Some(&b' ') => colon + 2,
                Some(colon) => colon + 1,
            };
            return Some(FieldLine {
                field,
                value: start + value..start + length,
                whole: start..self.at,
                end: after.get(..end)?,
            });
        }
    }
}

/// How many bytes from the front are neither CR nor LF.
fn line_run(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut run = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let zero_bytes = |word: u64| word.wrapping_sub(EVERY_BYTE) & !word & (EVERY_BYTE * 0x80);
        let hits =
            zero_bytes(word ^ (EVERY_BYTE * u64::from(b'\n'))) | zero_bytes(word ^ (EVERY_BYTE * u64::from(b'\r')));
        if hits != 0 {
            return run + hits.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    run + rest.iter().position(|byte| *byte == b'\n' || *byte == b'\r').unwrap_or(rest.len())
}

const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, reason = "a test may panic")]
mod tests;
