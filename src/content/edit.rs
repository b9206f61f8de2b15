//! How is a text changed in a few places, and nowhere else?

use std::ops::Range;

/// Changes to one text.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<Edit>);

#[derive(Debug)]
struct Edit {
    place: Range<usize>,
    text: Vec<u8>,
}

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts `text` in the place of what stands there.
    pub(super) fn replace(&mut self, place: Range<usize>, text: impl Into<Vec<u8>>) {
        self.0.push(Edit { place, text: text.into() });
    }

    /// Takes away what stands there.
    pub(super) fn remove(&mut self, place: Range<usize>) {
        self.replace(place, Vec::new());
    }

    /// All changes of both.
    pub(super) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// The changed text. Of two changes where one lies inside the other, the outer one counts; of two that overlap, the second
    /// takes away what it reaches beyond the first.
    pub(super) fn apply(mut self, text: &[u8]) -> Vec<u8> {
        // What is only put in comes before what is changed at the same place, and the outer of two before the inner.
        self.0.sort_by_key(|edit| (edit.place.start, !edit.place.is_empty(), std::cmp::Reverse(edit.place.end)));
        let mut changed = Vec::with_capacity(text.len() + 64);
        let mut at = 0;
        for edit in self.0 {
            if edit.place.start < at {
                at = at.max(edit.place.end);
                continue;
            }
            changed.extend_from_slice(text.get(at..edit.place.start).unwrap_or_default());
            changed.extend_from_slice(&edit.text);
            at = edit.place.end;
        }
        changed.extend_from_slice(text.get(at..).unwrap_or_default());
        changed
    }
}

/// A string as JSON text.
pub(super) fn json_string(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_else(|_infallible| b"\"\"".to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_places_change() {
        let mut edits = Edits::default();
        edits.replace(4..5, "Y");
        edits.replace(2..6, "-");
        edits.remove(8..9);
        edits.replace(0..0, "^");
        assert_eq!(edits.apply(b"0123456789"), b"^01-679");
        let mut edits = Edits::default();
        edits.replace(1..5, "-");
        edits.replace(3..7, "+");
        assert_eq!(edits.apply(b"0123456789"), b"0-789");
    }
}
