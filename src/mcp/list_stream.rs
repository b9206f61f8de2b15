//! How does a list answer pass when it comes as a stream? Events with lists are filtered, all others stay byte for byte.

use bytes::Bytes;

use super::Era;
use super::Method;
use super::RequestId;
use super::listing::Asked;
use super::listing::Filtered;
use super::listing::Keep;
use super::listing::ListError;
use super::listing::filter_messages;
use super::sse::Piece;
use super::sse::Splitter;
use super::sse::SseError;

/// An SSE answer in which at least one list may come.
#[derive(Debug)]
pub struct ListStream {
    splitter: Splitter,
    /// Every request of the POST with whether it was answered; none for a GET stream.
    asked: Option<Vec<(RequestId, Method)>>,
    answered: Vec<bool>,
    era: Era,
}

/// Why a stream cannot go on. What was handed out before is good, and ends at an event boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// An event holds an answer that cannot be filtered.
    #[error(transparent)]
    List(#[from] ListError),
    /// The stream cannot be cut into events.
    #[error(transparent)]
    Sse(#[from] SseError),
}

impl StreamError {
    /// Word for metrics and the log: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::List(error) => error.label(),
            Self::Sse(SseError::EventTooLong) => "event_too_long",
        }
    }
}

impl ListStream {
    /// The answer to a POST with these requests (all of them, lists and others).
    #[must_use]
    pub fn answering(asked: Vec<(RequestId, Method)>, era: Era, event_bytes_max: usize) -> Self {
        let answered = vec![false; asked.len()];
        Self { splitter: Splitter::new(event_bytes_max), asked: Some(asked), answered, era }
    }

    /// A GET stream, which may replay answers to earlier requests (legacy revisions, "Resumability and Redelivery").
    #[must_use]
    pub fn replaying(event_bytes_max: usize) -> Self {
        Self { splitter: Splitter::new(event_bytes_max), asked: None, answered: Vec::new(), era: Era::Legacy }
    }

    /// Takes the next bytes and adds to `out` what can be sent on; [`super::sse::join`] makes one piece of it.
    ///
    /// # Errors
    /// [`StreamError`]; `out` then holds what came before the fault, and nothing more may be taken from the stream.
    pub fn push(&mut self, chunk: Bytes, keep: Keep<'_>, out: &mut Vec<Bytes>) -> Result<(), StreamError> {
        let mut pieces = Vec::new();
        let pushed = self.push_pieces(chunk, keep, &mut pieces);
        out.extend(pieces.into_iter().map(|piece| piece.raw));
        pushed
    }

    /// As [`ListStream::push`], with pieces that can be looked at again.
    ///
    /// # Errors
    /// As [`ListStream::push`].
    pub fn push_pieces(&mut self, chunk: Bytes, keep: Keep<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        self.splitter.push(chunk);
        while let Some(piece) = self.splitter.next_piece()? {
            out.extend(self.filter(piece, keep)?);
        }
        Ok(())
    }

    /// Ends the stream: judges an event without its end, too.
    ///
    /// # Errors
    /// [`StreamError::List`].
    pub fn finish(&mut self, keep: Keep<'_>, out: &mut Vec<Bytes>) -> Result<(), StreamError> {
        let mut pieces = Vec::new();
        let finished = self.finish_pieces(keep, &mut pieces);
        out.extend(pieces.into_iter().map(|piece| piece.raw));
        finished
    }

    /// As [`ListStream::finish`], with pieces that can be looked at again.
    ///
    /// # Errors
    /// As [`ListStream::finish`].
    pub fn finish_pieces(&mut self, keep: Keep<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let splitter = std::mem::replace(&mut self.splitter, Splitter::new(0));
        if let Some(piece) = splitter.finish() {
            out.extend(self.filter(piece, keep)?);
        }
        Ok(())
    }

    /// The requests without an answer so far. When the stream fails, each is owed an error event.
    pub fn unanswered(&self) -> impl Iterator<Item = &RequestId> {
        let asked = self.asked.iter().flatten();
        asked.zip(&self.answered).filter(|(_, answered)| !**answered).map(|((id, _), _)| id)
    }

    /// What to send for a piece; none for a second answer to the same request.
    fn filter(&mut self, piece: Piece, keep: Keep<'_>) -> Result<Option<Piece>, ListError> {
        let event = piece.event();
        let Some(data) = event.data.filter(|data| !data.is_empty()) else { return Ok(Some(piece)) };
        let is_message = event.name.is_none_or(|name| name.is_empty() || name == "message");
        // Clients pass over events of other types; those that do not would still need a JSON-RPC message in it.
        if !is_message && !matches!(data.trim_ascii_start(), [b'{' | b'[', ..]) {
            return Ok(Some(piece));
        }
        let asked = self.asked.as_ref().map_or(Asked::Earlier, |asked| Asked::These(asked));
        let outcome = filter_messages(asked, self.era, &data, keep)?;
        let mut repeated = false;
        for place in outcome.answered {
            if let Some(answered) = self.answered.get_mut(place) {
                repeated |= std::mem::replace(answered, true);
            }
        }
        if repeated {
            return Ok(None);
        }
        Ok(Some(match outcome.filtered {
            Filtered::Changed(data) => piece.changed(&data),
            Filtered::Unchanged => piece,
        }))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, reason = "a test may panic")]
mod tests;
