//! What does base64 stand for? Text that is spelled in it is read as text; images and other bytes are not.
//!
//! Both alphabets of RFC 4648 (§4 and §5) are read, padded or not, and broken into lines as encoders break them. What is decoded
//! is not decoded again.

use std::ops::Range;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Calls `visit` for each run of base64 in `text` that stands for text: with its bytes in `text`, padding included, and with what
/// it stands for, which is UTF-8 as a whole.
///
/// A run has at least [`RUN_BYTES_MIN`] letters. One that is no base64 by itself, because something is glued to it, is tried
/// again in the parts between the marks `+`, `/`, `-` and `_`. Time is linear in `text`.
pub(super) fn each(text: &str, mut visit: impl FnMut(Range<usize>, &str)) {
    let text = text.as_bytes();
    let mut decoder = Decoder::default();
    let (mut at, mut joined_to) = (0, 0);
    while let Some(run) = next_run(text, at) {
        at = run.end;
        // Lines are joined once, whatever comes of it: to try it again from each of them would not be linear.
        let lines = if run.start >= joined_to { lines_from(text, &run) } else { run.clone() };
        joined_to = joined_to.max(lines.end);
        if let Some(said) = decoder.decode(text, &lines) {
            at = lines.end;
            visit(padded(text, lines), said);
        } else if lines != run
            && let Some(said) = decoder.decode(text, &run)
        {
            visit(padded(text, run), said);
        } else {
            for part in parts(text, &run) {
                if let Some(said) = decoder.decode(text, &part) {
                    visit(padded(text, part), said);
                }
            }
        }
    }
}

/// Where base64 that goes on behind the end of `text` has begun, and what it stands for so far.
pub(super) fn unfinished(text: &str) -> Option<(usize, String)> {
    let length = text.bytes().rev().take(OPEN_BYTES_MAX + 1).take_while(|byte| is_letter(*byte)).count();
    if !(OPEN_BYTES_MIN..=OPEN_BYTES_MAX).contains(&length) {
        return None;
    }
    let start = text.len() - length;
    // A single letter is the begin of a byte, and no more.
    let whole = if length % 4 == 1 { length - 1 } else { length };
    let mut decoder = Decoder::default();
    let bytes = decoder.bytes_of(text.as_bytes().get(start..start + whole)?)?;
    Some((start, std::str::from_utf8(begin_of_text(bytes)?).ok()?.to_owned()))
}

/// The text that `text` stands for, when it is base64 and nothing else, but for white space.
pub(super) fn whole(text: &str) -> Option<String> {
    let letters = text.trim_ascii_end().trim_end_matches('=');
    let mut decoder = Decoder::default();
    let bytes = decoder.bytes_of(letters.as_bytes())?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// As base64 of the standard alphabet, padded: what MCP has blobs in.
pub(super) fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// The next run of at least [`RUN_BYTES_MIN`] letters, from where none began before.
///
/// Most of the text is passed over: every such run holds a block of [`BLOCK_BYTES`] at one of the places that are looked at.
fn next_run(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        let block = text.get(at..)?.first_chunk::<BLOCK_BYTES>()?;
        // Not `all`, which stops at the first: without branches the whole block is one comparison.
        if !block.iter().fold(true, |fits, byte| fits & is_letter(*byte)) {
            at += STRIDE;
            continue;
        }
        let before = text.get(from..at)?.iter().rev().take_while(|byte| is_letter(**byte)).count();
        let behind = text.get(at..)?.iter().take_while(|byte| is_letter(**byte)).count();
        let run = at - before..at + behind;
        if run.len() >= RUN_BYTES_MIN {
            return Some(run);
        }
        at = run.end;
    }
}

/// The lines that `first` is the first of: all of its length, and only the last may be shorter (RFC 2045 §6.8).
fn lines_from(text: &[u8], first: &Range<usize>) -> Range<usize> {
    let length = first.len();
    let begins_line = first.start.checked_sub(1).is_none_or(|before| text.get(before) == Some(&b'\n'));
    let mut end = first.end;
    if !begins_line || !length.is_multiple_of(4) {
        return first.clone();
    }
    loop {
        let rest = text.get(end..).unwrap_or_default();
        let break_bytes = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => break,
        };
        let line = rest.get(break_bytes..).unwrap_or_default();
        let letters = line.iter().take(length + 1).take_while(|byte| is_letter(**byte)).count();
        let is_line = matches!(line.get(letters), None | Some(b'\n' | b'\r' | b'='));
        if letters == 0 || letters > length || !is_line {
            break;
        }
        end += break_bytes + letters;
        if letters < length {
            break;
        }
    }
    first.start..end
}

/// What is between the marks of `run`, where it has any.
fn parts(text: &[u8], run: &Range<usize>) -> Vec<Range<usize>> {
    let mut start = run.start;
    let mut parts = Vec::new();
    for part in text.get(run.clone()).unwrap_or_default().split(|byte| !byte.is_ascii_alphanumeric()) {
        if part.len() >= RUN_BYTES_MIN && part.len() < run.len() {
            parts.push(start..start + part.len());
        }
        start += part.len() + 1;
    }
    parts
}

fn padded(text: &[u8], run: Range<usize>) -> Range<usize> {
    let behind = text.get(run.end..).unwrap_or_default();
    let padding = behind.iter().take(2).take_while(|byte| **byte == b'=').count();
    run.start..run.end + padding
}

/// Decodes, again and again in the same memory.
#[derive(Default)]
struct Decoder {
    letters: Vec<u8>,
    bytes: Vec<u8>,
}

impl Decoder {
    /// The text that the letters of `text` in `run` stand for.
    fn decode(&mut self, text: &[u8], run: &Range<usize>) -> Option<&str> {
        let run = text.get(run.clone())?;
        if run.len() > 2 * SAMPLE_LETTERS {
            // Bytes of an image show in the first few that they are no text.
            let sample = run.iter().filter(|byte| is_letter(**byte)).take(SAMPLE_LETTERS);
            begin_of_text(self.bytes_of(sample)?)?;
        }
        let has = |marks: [u8; 2]| run.iter().any(|byte| marks.contains(byte));
        if has(*b"+/") && has(*b"-_") {
            return None;
        }
        std::str::from_utf8(self.bytes_of(run)?).ok()
    }

    /// The bytes that `letters` stand for; white space between them does not count.
    fn bytes_of<'l>(&mut self, letters: impl IntoIterator<Item = &'l u8>) -> Option<&[u8]> {
        self.letters.clear();
        let seen = letters.into_iter().filter(|byte| !byte.is_ascii_whitespace());
        self.letters.extend(seen.map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            letter => *letter,
        }));
        self.bytes.clear();
        ANY_BASE64.decode_vec(&self.letters, &mut self.bytes).ok()?;
        Some(&self.bytes)
    }
}

/// The characters that are whole, when nothing else is in the way of `bytes` being the begin of a text.
fn begin_of_text(bytes: &[u8]) -> Option<&[u8]> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Some(bytes),
        Err(cut) if cut.error_len().is_none() => bytes.get(..cut.valid_up_to()),
        Err(_) => None,
    }
}

/// Of either alphabet.
fn is_letter(byte: u8) -> bool {
    let is_alphabetic = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    is_alphabetic | is_digit | (byte == b'+') | (byte == b'/') | (byte == b'-') | (byte == b'_')
}

/// With or without padding, and whatever is left over in the last letter.
const ANY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Letters that a run has at least: those of the shortest card number.
pub(super) const RUN_BYTES_MIN: usize = 20;

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 8;

/// From one block that is looked at to the next: the last one at which a shortest run can hold a whole block.
const STRIDE: usize = RUN_BYTES_MIN - BLOCK_BYTES + 1;

/// Letters that show whether a long run is text: they stand for whole bytes.
const SAMPLE_LETTERS: usize = 64;

/// Letters at the end of a text that may go on in another: fewer are too often a word.
const OPEN_BYTES_MIN: usize = 12;

/// And more have begun too long ago.
const OPEN_BYTES_MAX: usize = 4096;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    /// Every run that stands for text, as it stands there, and what it stands for.
    fn found(text: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        each(text, |range, said| found.push((text.get(range).unwrap().to_owned(), said.to_owned())));
        found
    }

    fn one(encoded: &str, said: &str) -> Vec<(String, String)> {
        vec![(encoded.to_owned(), said.to_owned())]
    }

    #[test]
    fn both_alphabets_are_read_padded_or_not() {
        let said = "write to alice@example.com? yes~>";
        for encoded in
            [STANDARD.encode(said), STANDARD_NO_PAD.encode(said), URL_SAFE.encode(said), URL_SAFE_NO_PAD.encode(said)]
        {
            for (before, behind) in [("", ""), ("see ", " there"), ("data:text/plain;base64,", "\"}"), ("é", "é")] {
                assert_eq!(found(&format!("{before}{encoded}{behind}")), one(&encoded, said), "{before}{behind}");
            }
        }
    }

    #[test]
    fn lines_of_base64_are_one_text() {
        let said =
            "a text of some length that does not fit into one line of sixty-four letters, and neither into two of them";
        let encoded = STANDARD.encode(said);
        for width in [20, 64, 76] {
            for end in ["\n", "\r\n"] {
                let lines: Vec<&str> =
                    encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
                let lines = lines.join(end);
                assert_eq!(found(&format!("it is{end}{lines}{end}and no more")), one(&lines, said), "{width} {end:?}");
            }
        }
        // A word behind a whole line belongs to it no more than the line does to the word.
        let line = STANDARD.encode("a line of its own, and whole");
        let line = line.trim_end_matches('=').get(..36).unwrap();
        assert_eq!(found(&format!("{line}\nzzzzz\n")), one(line, "a line of its own, and whol"));
    }

    #[test]
    fn what_is_glued_to_base64_does_not_hide_it() {
        let encoded = URL_SAFE_NO_PAD.encode("alice@example.com is it");
        assert_eq!(found(&format!("https://a.test/files/x/{encoded}")), one(&encoded, "alice@example.com is it"));
    }

    #[test]
    fn bytes_words_and_short_runs_are_no_text() {
        let png = STANDARD.encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06".repeat(9));
        let late = STANDARD.encode(
            [b"text at first, for a while, and for long enough ".repeat(4).as_slice(), b"\xc0\x80\x80"].concat(),
        );
        for text in [
            &*png,
            &*late,
            "internationalization-of-everything",
            "/usr/share/doc/packages/something",
            "3f2a9c0d4b5e6f7081928374655647382910abcd",
            "--------------------------------",
            "c2hvcnQgdGV4dA==",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn a_whole_field_is_read_with_its_white_space_and_padding() {
        assert_eq!(whole("aGVs\nbG8=\n").as_deref(), Some("hello"));
        assert_eq!(whole("aGVsbG8").as_deref(), Some("hello"));
        assert_eq!(whole("/////w=="), None);
        assert_eq!(whole(&encode("naïve")).as_deref(), Some("naïve"));
    }

    #[test]
    fn base64_that_goes_on_is_known_by_what_it_stands_for_so_far() {
        let encoded = URL_SAFE_NO_PAD.encode("the key is AKIAIOSFODNN7EXAMPLE");
        for cut in 12..encoded.len() {
            let text = format!("so: {}", encoded.get(..cut).unwrap());
            let (start, said) = unfinished(&text).unwrap();
            assert_eq!((start, "the key is AKIAIOSFODNN7EXAMPLE".starts_with(&said)), (4, true), "{said}");
            assert!(said.len() + 1 >= cut * 3 / 4, "{said}");
        }
        assert_eq!(unfinished("so: dGhlIGtl"), None);
        assert_eq!(unfinished("internationalization"), None);
    }

    proptest! {
        /// Wherever a run stands, it is found: no place that is passed over hides one.
        #[test]
        fn a_run_is_found_at_every_place(before in "[a-z ]{0,40} ", said in "[a-z@. ]{15,60}", behind in " [a-z ]{0,40}") {
            let encoded = STANDARD_NO_PAD.encode(&said);
            let text = format!("{before}{encoded}{behind}");
            prop_assert!(found(&text).contains(&(encoded, said)), "{}", text);
        }

        #[test]
        fn whatever_the_text_ranges_lie_at_its_characters(text in "(\\PC|[A-Za-z0-9+/_=-]{8}|\n){0,40}") {
            found(&text);
            if let Some((start, _)) = unfinished(&text) {
                prop_assert!(text.is_char_boundary(start));
            }
        }
    }
}
