//! How does a record become a line that ends where we end it? JSON of our own making: every key is ours, every string is cut
//! and escaped.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::mcp::RequestId;

/// Writes one JSON object. Keys are ours and need no escape. Writing to a `Vec` cannot fail.
///
/// What takes a key is put in place by the compiler where it is called, so that the key is a few moves instead of copies of
/// a length that is found out each time: a line has some forty keys.
pub(super) struct Object<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, key: &'static str, value: impl fmt::Display) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    /// A string that holds nothing to escape.
    #[inline(always)]
    pub(super) fn plain(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    #[inline(always)]
    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        write_number(value, 1, self.out);
    }

    /// Milliseconds with three decimals.
    pub(super) fn millis(&mut self, key: &'static str, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.key(key);
        write_number(micros / 1000, 1, self.out);
        self.out.push(b'.');
        write_number(micros % 1000, 3, self.out);
    }

    /// An RFC 3339 time in UTC with milliseconds. Past the year 9999, which RFC 3339 does not have: 1970.
    pub(super) fn time(&mut self, key: &'static str, unix_ms: u64) {
        let unix_ms = if unix_ms < YEAR_10000_MS { unix_ms } else { 0 };
        let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
        let (year, month, day) = date_of(days);
        self.key(key);
        let parts = [
            (b'"', year, 4),
            (b'-', month, 2),
            (b'-', day, 2),
            (b'T', ms / 3_600_000, 2),
            (b':', ms / 60_000 % 60, 2),
            (b':', ms / 1000 % 60, 2),
            (b'.', ms % 1000, 3),
        ];
        for (mark, number, digits) in parts {
            self.out.push(mark);
            write_number(number, digits, self.out);
        }
        self.out.extend_from_slice(b"Z\"");
    }

    /// An address, whose text holds nothing to escape.
    pub(super) fn address(&mut self, key: &'static str, ip: IpAddr) {
        self.key(key);
        self.out.push(b'"');
        match ip {
            IpAddr::V4(ip) => {
                for (index, octet) in ip.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(b'.');
                    }
                    write_number(u64::from(octet), 1, self.out);
                }
            }
            IpAddr::V6(ip) => drop(write!(self.out, "{ip}")),
        }
        self.out.push(b'"');
    }

    #[inline(always)]
    pub(super) fn string(&mut self, key: &'static str, value: &str) {
        self.key(key);
        write_string(value, self.out);
    }

    /// A word of ours, which holds nothing to escape.
    #[inline(always)]
    pub(super) fn label(&mut self, key: &'static str, value: &'static str) {
        self.plain(key, value.as_bytes());
    }

    #[inline(always)]
    pub(super) fn optional_label(&mut self, key: &'static str, value: Option<&'static str>) {
        if let Some(value) = value {
            self.label(key, value);
        }
    }

    /// A word of ours, or whatever else the client sent in its place.
    pub(super) fn method(&mut self, method: Option<&Cow<'static, str>>) {
        match method {
            Some(Cow::Borrowed(method)) => self.label("method", method),
            Some(Cow::Owned(method)) => self.string("method", method),
            None => {}
        }
    }

    #[inline(always)]
    pub(super) fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    /// A list of at most [`LIST_ITEMS_MAX`] strings, left out when empty.
    pub(super) fn strings<'v>(&mut self, key: &'static str, values: impl Iterator<Item = &'v str>) {
        let mut values = values.take(LIST_ITEMS_MAX).peekable();
        if values.peek().is_none() {
            return;
        }
        self.key(key);
        self.out.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write_string(value, self.out);
        }
        self.out.push(b']');
    }

    #[inline(always)]
    pub(super) fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut object = Object::begin(self.out);
        write(&mut object);
        object.end();
    }

    /// A list of objects, left out when empty. Its caller bounds it: a batch has at most `limits.batch_messages`.
    pub(super) fn objects<T>(&mut self, key: &'static str, values: &[T], write: impl Fn(&T, &mut Object<'_>)) {
        if values.is_empty() {
            return;
        }
        self.key(key);
        self.out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut object = Object::begin(self.out);
            write(value, &mut object);
            object.end();
        }
        self.out.push(b']');
    }

    /// A JSON-RPC id: a number stays one, a string is read and written again, because the client's own spelling of it
    /// may hold what we escape.
    pub(super) fn request_id(&mut self, key: &'static str, id: Option<&RequestId>) {
        let Some(text) = id.map(RequestId::as_json) else { return };
        if is_integer(text) {
            self.raw(key, text);
        } else {
            match serde_json::from_str::<Cow<'_, str>>(text) {
                Ok(string) => self.string(key, &string),
                Err(_) => self.string(key, text),
            }
        }
    }
}

/// Whether `text` is a JSON integer (RFC 8259 §6) of a bounded length.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    (1..=ID_DIGITS_MAX).contains(&digits.len()) && !leading_zero && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes a number, with zeros in front where it has fewer digits than asked for.
fn write_number(number: u64, digits_min: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let (mut left, mut count) = (number, 0);
    for digit in digits.iter_mut().rev() {
        if left == 0 && count >= digits_min {
            break;
        }
        *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        count += 1;
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Writes a JSON string, cut and escaped as [`Event::write_rest`](super::Event::write_rest) says.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    let text = cut(text);
    out.push(b'"');
    // Nearly every text is plain, and that is quickly seen of many bytes at once.
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        if !needs_escape(character) {
            continue;
        }
        out.extend_from_slice(text.get(plain_from..at).unwrap_or_default().as_bytes());
        plain_from = at + character.len_utf8();
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.extend_from_slice(text.get(plain_from..).unwrap_or_default().as_bytes());
    out.push(b'"');
}

fn needs_escape(character: char) -> bool {
    match character {
        '"' | '\\' => true,
        ' '..='~' => false,
        // C0, DEL, C1 (ESC and CSI move cursors and retitle windows).
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
        '\u{ad}' | '\u{61c}' | '\u{180e}' => true,
        // Zero-width characters and marks, line and paragraph separators (which JavaScript takes for line ends),
        // bidirectional embeddings, overrides and isolates, invisible operators.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        // Byte order mark, interlinear annotations, tags and variation selectors supplement.
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// A text of at most [`STRING_BYTES_MAX`]: itself, or as many whole characters as fit with [`CUT_MARK`].
#[must_use]
pub fn cut(text: &str) -> Cow<'_, str> {
    const KEPT: usize = STRING_BYTES_MAX - CUT_MARK.len();
    if text.len() <= STRING_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    // A character has at most four bytes, so one of the four places is a border.
    let kept = (KEPT - 3..=KEPT).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    Cow::Owned(format!("{kept}{CUT_MARK}"))
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01. By Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March there, so that the leap day is the last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// Bytes of any string, before escapes; a longer one is cut and ends in [`CUT_MARK`].
pub const STRING_BYTES_MAX: usize = 1024;

/// Stands at the end of a string that was cut.
pub const CUT_MARK: &str = "…[cut]";

pub(super) const LIST_ITEMS_MAX: usize = 32;

const DAY_MS: u64 = 86_400_000;

/// 10000-01-01T00:00:00Z.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// Digits of an `i128`, more than any client counts to.
const ID_DIGITS_MAX: usize = 39;
