//! Can this text be read in only one way? A strict JSON reader over bytes, without recursion.
//!
//! Two programs that read one body differently are how a proxy is fooled: one keeps the first of two equal keys, the
//! other the last. So this reader refuses what readers disagree about, and the rest of the crate never reads a body in
//! another way first. Beyond the grammar of RFC 8259 it refuses duplicate keys in any object (compared after
//! unescaping), lone surrogates, a byte order mark, invalid UTF-8, numbers no `f64` holds, and nesting over a limit.
//!
//! The caller pulls: it walks the objects it knows with [`Reader::object`] and passes over everything else with
//! [`Reader::skip`], which checks all of it. Every byte is looked at once (twice counting the UTF-8 check), and nothing
//! is allocated for a key without escapes.

use std::borrow::Cow;

/// Why a text is not JSON that can be read in only one way. Where it went wrong is not told: it is request data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// An escape that RFC 8259 §7 does not have, or a `\u` without four hex digits.
    #[error("a string has an escape that JSON does not have")]
    BadEscape,
    /// A number outside the grammar of RFC 8259 §6, or larger than any `f64`.
    #[error("a number is malformed or out of range")]
    BadNumber,
    /// A control character in a string, not escaped.
    #[error("a string has a control character")]
    ControlCharacter,
    /// The same key twice in one object.
    #[error("an object has the same key twice")]
    DuplicateKey,
    /// Half of a surrogate pair as an escape (RFC 8259 §8.2).
    #[error("a string has half of a surrogate pair")]
    LoneSurrogate,
    /// Bytes that are not UTF-8 (RFC 8259 §8.1).
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// Arrays and objects nested over the limit.
    #[error("arrays and objects are nested too deep")]
    TooDeep,
    /// Something after the end of the value.
    #[error("something follows the value")]
    TrailingBytes,
    /// A character that cannot stand where it does.
    #[error("the text is not JSON")]
    Unexpected,
    /// The text stops in the middle.
    #[error("the text ends too early")]
    UnexpectedEnd,
    /// A key that a sloppy reader takes for one that MCP defines (`Method`, `paramſ`).
    #[error("a key differs from a known one only in its letters' form")]
    VariantKey,
}

/// The six kinds of JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[…]`
    Array,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
    /// A number of any size.
    Number,
    /// `{…}`
    Object,
    /// `"…"`
    String,
}

/// A value as it stands in the text. It was checked whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// What it is.
    pub kind: Kind,
    /// Where it begins, in bytes from the start of the text.
    pub start: usize,
    /// Its text, quotes and brackets included.
    pub text: &'a str,
}

impl<'a> Raw<'a> {
    /// Where it ends, in bytes from the start of the text.
    #[must_use]
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// The string it stands for; none when it is not a string.
    #[must_use]
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::String => Some(unescape(self.text)),
            Kind::Array | Kind::Bool | Kind::Null | Kind::Number | Kind::Object => None,
        }
    }
}

/// Reads one JSON text from front to back.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth_max: usize,
    /// The open arrays and objects, outermost first.
    open: Vec<Open>,
    /// The keys of all open objects, quotes included, each object's from its `keys_from` on.
    keys: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte. `depth_max` arrays and objects may be open at once; `[]` has depth 1.
    ///
    /// # Errors
    /// [`JsonError::NotUtf8`].
    pub fn new(bytes: &'a [u8], depth_max: usize) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
        // Room for what most messages have, so that nothing grows on the way.
        let (open, keys) = (Vec::with_capacity(OPEN_USUAL), Vec::with_capacity(KEYS_USUAL));
        Ok(Self { text, at: 0, depth_max, open, keys })
    }

    /// What the next value is, without reading it.
    ///
    /// # Errors
    /// When no value begins here.
    pub fn peek(&mut self) -> Result<Kind, JsonError> {
        match self.next_byte()? {
            b'"' => Ok(Kind::String),
            b'{' => Ok(Kind::Object),
            b'[' => Ok(Kind::Array),
            b't' | b'f' => Ok(Kind::Bool),
            b'n' => Ok(Kind::Null),
            b'-' | b'0'..=b'9' => Ok(Kind::Number),
            _ => Err(JsonError::Unexpected),
        }
    }

    /// Reads an object and gives each key (unescaped) to `member`, which must read the key's value.
    ///
    /// # Errors
    /// When the text is no object that can be read in only one way, or `member` says so.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), JsonError>,
    ) -> Result<Raw<'a>, JsonError> {
        if self.next_byte()? != b'{' {
            return Err(JsonError::Unexpected);
        }
        let start = self.at;
        self.begin()?;
        while let Some((key, escapes)) = self.next_key()? {
            let key = if escapes { unescape(key) } else { Cow::Borrowed(within_quotes(key)) };
            member(self, key)?;
        }
        self.raw(Kind::Object, start)
    }

    /// As [`Reader::object`], but gives each key as it stands in the text, quotes included.
    ///
    /// # Errors
    /// As [`Reader::object`].
    pub fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, Raw<'a>) -> Result<(), JsonError>,
    ) -> Result<Raw<'a>, JsonError> {
        if self.next_byte()? != b'{' {
            return Err(JsonError::Unexpected);
        }
        let start = self.at;
        self.begin()?;
        while let Some((text, _escapes)) = self.next_key()? {
            // A key is a slice of the text.
            let key = Raw { kind: Kind::String, start: text.as_ptr() as usize - self.text.as_ptr() as usize, text };
            member(self, key)?;
        }
        self.raw(Kind::Object, start)
    }

    /// Reads an array; `element` must read one value each time it is called.
    ///
    /// # Errors
    /// When the text is no array that can be read in only one way, or `element` says so.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<Raw<'a>, JsonError> {
        if self.next_byte()? != b'[' {
            return Err(JsonError::Unexpected);
        }
        let start = self.at;
        self.begin()?;
        while self.next_element()? {
            element(self)?;
        }
        self.raw(Kind::Array, start)
    }

    /// Reads one value of any kind, all that is in it included.
    ///
    /// # Errors
    /// When the text is no value that can be read in only one way.
    pub fn skip(&mut self) -> Result<Raw<'a>, JsonError> {
        self.next_byte()?;
        let start = self.at;
        let floor = self.open.len();
        let kind = self.begin()?;
        while self.open.len() > floor {
            let more = match self.open.last() {
                Some(Open { object: true, .. }) => self.next_key()?.is_some(),
                Some(_) => self.next_element()?,
                None => false,
            };
            if more {
                self.begin()?;
            }
        }
        self.raw(kind, start)
    }

    /// Checks that nothing but white space follows.
    ///
    /// # Errors
    /// [`JsonError::TrailingBytes`].
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.next_byte() {
            Ok(_) => Err(JsonError::TrailingBytes),
            Err(_) => Ok(()),
        }
    }

    /// Reads a scalar whole, or the opening bracket of an array or object.
    fn begin(&mut self) -> Result<Kind, JsonError> {
        let kind = self.peek()?;
        match kind {
            Kind::String => {
                self.string()?;
            }
            Kind::Number => self.number()?,
            Kind::Bool if self.byte(self.at) == Some(b't') => self.word("true")?,
            Kind::Bool => self.word("false")?,
            Kind::Null => self.word("null")?,
            Kind::Array | Kind::Object => {
                if self.open.len() >= self.depth_max {
                    return Err(JsonError::TooDeep);
                }
                let object = kind == Kind::Object;
                self.open.push(Open { object, empty: true, escapes: false, keys_from: self.keys.len() });
                self.at += 1;
            }
        }
        Ok(kind)
    }

    /// Reads the next key of the innermost object and its colon, or the object's end. The key keeps its quotes; beside it
    /// stands whether it has escapes.
    fn next_key(&mut self) -> Result<Option<(&'a str, bool)>, JsonError> {
        if !self.next_member(b'}')? {
            return Ok(None);
        }
        if self.next_byte()? != b'"' {
            return Err(JsonError::Unexpected);
        }
        let (key, escapes) = self.string()?;
        self.keys.push(key);
        if let Some(innermost) = self.open.last_mut() {
            innermost.escapes |= escapes;
        }
        if self.next_byte()? != b':' {
            return Err(JsonError::Unexpected);
        }
        self.at += 1;
        Ok(Some((key, escapes)))
    }

    /// Moves to the next element of the innermost array, or reads the array's end.
    fn next_element(&mut self) -> Result<bool, JsonError> {
        self.next_member(b']')
    }

    /// Reads the comma before the next member of the innermost array or object, or its closing bracket.
    fn next_member(&mut self, close: u8) -> Result<bool, JsonError> {
        let byte = self.next_byte()?;
        let Some(innermost) = self.open.last_mut() else { return Err(JsonError::Unexpected) };
        if byte == close {
            let closed = *innermost;
            self.at += 1;
            self.open.pop();
            if closed.object {
                let keys = self.keys.get_mut(closed.keys_from..).unwrap_or_default();
                if !all_differ(keys, closed.escapes) {
                    return Err(JsonError::DuplicateKey);
                }
                self.keys.truncate(closed.keys_from);
            }
            return Ok(false);
        }
        if innermost.empty {
            innermost.empty = false;
            return Ok(true);
        }
        if byte != b',' {
            return Err(JsonError::Unexpected);
        }
        self.at += 1;
        Ok(true)
    }

    /// Reads a string; says its text with quotes and whether it has escapes.
    fn string(&mut self) -> Result<(&'a str, bool), JsonError> {
        let start = self.at;
        let mut at = start + 1;
        let mut escapes = false;
        loop {
            at += plain_run(self.text.as_bytes().get(at..).unwrap_or_default());
            match self.byte(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    at = self.escape(at)?;
                }
                Some(_) => return Err(JsonError::ControlCharacter),
                None => return Err(JsonError::UnexpectedEnd),
            }
        }
        self.at = at + 1;
        let text = self.text.get(start..self.at).ok_or(JsonError::Unexpected)?;
        Ok((text, escapes))
    }

    /// Where the escape that begins at `at` ends. Surrogates count only as a whole pair.
    fn escape(&self, at: usize) -> Result<usize, JsonError> {
        match self.byte(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') => match self.hex4(at + 2)? {
                0xD800..=0xDBFF => {
                    if self.byte(at + 6) != Some(b'\\') || self.byte(at + 7) != Some(b'u') {
                        return Err(JsonError::LoneSurrogate);
                    }
                    match self.hex4(at + 8)? {
                        0xDC00..=0xDFFF => Ok(at + 12),
                        _ => Err(JsonError::LoneSurrogate),
                    }
                }
                0xDC00..=0xDFFF => Err(JsonError::LoneSurrogate),
                _ => Ok(at + 6),
            },
            Some(_) => Err(JsonError::BadEscape),
            None => Err(JsonError::UnexpectedEnd),
        }
    }

    fn hex4(&self, at: usize) -> Result<u32, JsonError> {
        let mut value = 0;
        for offset in 0..4 {
            let digit = self.byte(at + offset).ok_or(JsonError::UnexpectedEnd)?;
            value = value * 16 + char::from(digit).to_digit(16).ok_or(JsonError::BadEscape)?;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.byte(self.at) == Some(b'-') {
            self.at += 1;
        }
        match self.byte(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) => return Err(JsonError::BadNumber),
            None => return Err(JsonError::UnexpectedEnd),
        }
        if self.byte(self.at) == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut may_overflow = self.at - start > SURELY_FINITE_DIGITS;
        if let Some(b'e' | b'E') = self.byte(self.at) {
            may_overflow = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        // One reader makes 1e400 an infinity, the next an error. What `serde_json` cannot hold, rules cannot judge.
        let text = self.text.get(start..self.at).unwrap_or_default();
        if may_overflow && serde_json::from_str::<serde_json::Number>(text).is_err() {
            return Err(JsonError::BadNumber);
        }
        Ok(())
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        match rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len()) {
            0 if rest.is_empty() => Err(JsonError::UnexpectedEnd),
            0 => Err(JsonError::BadNumber),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else if word.as_bytes().starts_with(rest) {
            Err(JsonError::UnexpectedEnd)
        } else {
            Err(JsonError::Unexpected)
        }
    }

    /// Passes over white space (RFC 8259 §2) and looks at the byte behind it.
    fn next_byte(&mut self) -> Result<u8, JsonError> {
        loop {
            match self.byte(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(byte) => return Ok(byte),
                None => return Err(JsonError::UnexpectedEnd),
            }
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn raw(&self, kind: Kind, start: usize) -> Result<Raw<'a>, JsonError> {
        let text = self.text.get(start..self.at).ok_or(JsonError::Unexpected)?;
        Ok(Raw { kind, start, text })
    }
}

/// The string that a checked JSON string (quotes included) stands for; borrowed when it has no escapes.
#[must_use]
pub fn unescape(quoted: &str) -> Cow<'_, str> {
    let inner = within_quotes(quoted);
    if inner.as_bytes().contains(&b'\\') {
        // The text was checked, so this cannot fail; were it to, an empty string names nothing and matches no rule.
        Cow::Owned(serde_json::from_str(quoted).unwrap_or_default())
    } else {
        Cow::Borrowed(inner)
    }
}

fn within_quotes(quoted: &str) -> &str {
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
}

/// Whether a value is, as text, one JSON value that can be read in only one way.
///
/// # Errors
/// Why it is not.
pub fn check(bytes: &[u8], depth_max: usize) -> Result<(), JsonError> {
    let mut reader = Reader::new(bytes, depth_max)?;
    reader.skip()?;
    reader.end()
}

/// The deepest nesting that `serde_json` reads. Limits above it would let text through that rules cannot see.
pub const DEPTH_MAX: usize = 127;

/// An open array or object.
#[derive(Clone, Copy, Debug)]
struct Open {
    object: bool,
    /// No member yet, so none needs a comma before it.
    empty: bool,
    /// A key has escapes, so keys must be unescaped before they are compared.
    escapes: bool,
    keys_from: usize,
}

/// Whether no two keys (quotes included) stand for the same string. Large sets are sorted, so that no body makes this
/// quadratic, and no hash function has to withstand chosen keys. The order of `keys` is lost.
fn all_differ(keys: &mut [&str], escapes: bool) -> bool {
    if escapes {
        let mut plain: Vec<Cow<'_, str>> = keys.iter().map(|key| unescape(key)).collect();
        plain.sort_unstable();
        return plain.is_sorted_by(|one, next| one < next);
    }
    if keys.len() <= FEW_KEYS {
        return keys.iter().enumerate().all(|(count, key)| !keys.iter().take(count).any(|earlier| earlier == key));
    }
    keys.sort_unstable();
    keys.is_sorted_by(|one, next| one < next)
}

/// How many bytes from the front need no attention inside a string: not `"`, not `\`, not a control character.
fn plain_run(bytes: &[u8]) -> usize {
    // Most strings end within a few words; the blocks are for those that do not.
    let Some((begin, rest)) = bytes.split_at_checked(LONG_FROM) else { return plain_words(bytes) };
    let run = plain_words(begin);
    if run < LONG_FROM {
        return run;
    }
    let blocks = plain_blocks(rest);
    run + blocks + plain_words(rest.get(blocks..).unwrap_or_default())
}

/// As [`plain_run`], in whole blocks: no early end within one, so that the compiler looks at many bytes at once.
fn plain_blocks(bytes: &[u8]) -> usize {
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let plain = blocks.iter().take_while(|block| !block.iter().fold(false, |found, byte| found | special(*byte)));
    plain.count() * BLOCK
}

/// As [`plain_run`], in words.
fn plain_words(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut run = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // Exact for the lowest byte that hits, which is the first in the text; above it a borrow may lie.
        let hits = (word.wrapping_sub(EVERY_BYTE * 0x20) & !word)
            | zero_bytes(word ^ (EVERY_BYTE * u64::from(b'"')))
            | zero_bytes(word ^ (EVERY_BYTE * u64::from(b'\\')));
        let hits = hits & (EVERY_BYTE * 0x80);
        if hits != 0 {
            return run + hits.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    run + rest.iter().position(special).unwrap_or(rest.len())
}

/// Sets the top bit of each byte that is zero (and maybe of some above the lowest such).
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EVERY_BYTE) & !word
}

const OPEN_USUAL: usize = 8;

const KEYS_USUAL: usize = 16;

/// A string longer than this is read in blocks.
const LONG_FROM: usize = 32;

const BLOCK: usize = 64;

const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;

/// Up to this many keys, comparing each with each is cheaper than sorting.
const FEW_KEYS: usize = 16;

/// No number of so many characters without an exponent reaches the largest `f64` (1.8e308).
const SURELY_FINITE_DIGITS: usize = 300;

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may panic")]
mod tests;
