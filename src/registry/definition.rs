//! What does a server say of one of its things, and is that what it said before?
//!
//! Two definitions are the same when their canonical JSON is: order of keys, white space, escapes and the spelling of
//! numbers do not count, everything else does.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

use ring::digest::SHA256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mcp::ItemKind;
use crate::mcp::json::{DEPTH_MAX, JsonError, Kind, Reader};

/// One thing of one server: its kind and the name that the server gives it (for resources the URI, for templates the URI
/// template). At most [`NAME_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemKey {
    /// What it is.
    #[serde(with = "kind_label")]
    pub kind: ItemKind,
    /// What its server calls it; data of a stranger.
    pub name: Box<str>,
}

/// SHA-256 of a canonical definition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A whole definition in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    key: ItemKey,
    text: Box<str>,
    digest: Digest,
}

/// Why a list item is no definition. Such an item is never shown and cannot be approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// Not JSON that can be read in only one way.
    #[error("{0}")]
    Json(JsonError),
    /// A name over [`NAME_BYTES_MAX`].
    #[error("its name is too long")]
    NameTooLong,
    /// Without a name.
    #[error("it has no name")]
    NoName,
    /// Not an object.
    #[error("it is no object")]
    NotAnObject,
    /// More bytes than the bound.
    #[error("it is too large")]
    TooLarge,
}

impl ItemKey {
    /// A key of borrowed parts.
    #[must_use]
    pub fn new(kind: ItemKind, name: &str) -> Self {
        Self { kind, name: name.into() }
    }
}

impl Definition {
    /// Reads a list item of `kind`: `text` is its JSON object as it stands in the list, at most `bytes_max` long.
    ///
    /// Of a resource `size` and `annotations.lastModified` are left out: they tell of its content, and change with it.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn read(kind: ItemKind, text: &str, bytes_max: usize) -> Result<Self, DefinitionError> {
        if text.len() > bytes_max {
            return Err(DefinitionError::TooLarge);
        }
        let mut reader = Reader::new(text.as_bytes(), DEPTH_MAX).map_err(DefinitionError::Json)?;
        if reader.peek().map_err(DefinitionError::Json)? != Kind::Object {
            return Err(DefinitionError::NotAnObject);
        }
        let mut name = None;
        let mut members = Vec::new();
        let read = reader.object(|reader, member| {
            let mut canonical = String::new();
            if member == kind.name_member() && reader.peek()? == Kind::String {
                let raw = reader.skip()?;
                let value = raw.as_str().unwrap_or_default();
                write_string(&value, &mut canonical);
                name = Some(Box::<str>::from(value));
            } else if kind == ItemKind::Resource && member == "annotations" && reader.peek()? == Kind::Object {
                write_object(reader, &mut canonical, &|member, kind, text| {
                    member == "lastModified" && kind == Kind::String && is_timestamp(text)
                })?;
            } else {
                let is_size = kind == ItemKind::Resource && member == "size" && reader.peek()? == Kind::Number;
                write_value(reader, &mut canonical)?;
                if is_size {
                    return Ok(());
                }
            }
            members.push((member, canonical));
            Ok(())
        });
        read.and_then(|_| reader.end()).map_err(DefinitionError::Json)?;
        let name = name.filter(|name| !name.is_empty()).ok_or(DefinitionError::NoName)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(DefinitionError::NameTooLong);
        }
        let mut canonical = String::with_capacity(text.len());
        write_members(members, &mut canonical);
        Ok(Self { key: ItemKey { kind, name }, digest: Digest::of(canonical.as_bytes()), text: canonical.into() })
    }

    /// What it defines.
    #[must_use]
    pub fn key(&self) -> &ItemKey {
        &self.key
    }

    /// Its canonical JSON (RFC 8785).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is recognized by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        // SHA-256 has 32 bytes.
        for (to, from) in digest.iter_mut().zip(ring::digest::digest(&SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Self(digest)
    }

    /// The digest with this text: 64 lower-case hex digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let is_lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != 64 || !hex.as_bytes().iter().all(is_lower_hex) {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    /// Lower-case hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&hex).ok_or_else(|| serde::de::Error::custom("not a SHA-256 digest in hex"))
    }
}

/// Writes JSON in canonical form (RFC 8785): keys sorted by UTF-16 code units, no white space, numbers and strings as
/// ECMAScript writes them.
///
/// RFC 8785 asks for numbers that an IEEE double holds. A whole number that none does keeps its digits here, so that two
/// different ones never become the same.
///
/// # Errors
/// When the text is no JSON that can be read in only one way.
pub fn canonical(text: &str) -> Result<String, JsonError> {
    let mut reader = Reader::new(text.as_bytes(), DEPTH_MAX)?;
    let mut out = String::with_capacity(text.len());
    write_value(&mut reader, &mut out)?;
    reader.end()?;
    Ok(out)
}

/// The longest name, URI or URI template of an item.
pub const NAME_BYTES_MAX: usize = 2048;

/// (De)serializes a kind by its label.
pub mod kind_label {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::mcp::ItemKind;

    /// By its label.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(kind: &ItemKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.label())
    }

    /// From its label.
    ///
    /// # Errors
    /// When no kind has this label.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ItemKind, D::Error> {
        let label = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        ItemKind::named(&label).ok_or_else(|| serde::de::Error::custom("no kind of item"))
    }
}

/// Nesting is bounded by the reader, so this recursion is.
fn write_value(reader: &mut Reader<'_>, out: &mut String) -> Result<(), JsonError> {
    match reader.peek()? {
        Kind::Object => write_object(reader, out, &|_, _, _| false),
        Kind::Array => {
            out.push('[');
            let mut is_first = true;
            reader.array(|reader| {
                if !std::mem::take(&mut is_first) {
                    out.push(',');
                }
                write_value(reader, out)
            })?;
            out.push(']');
            Ok(())
        }
        Kind::String => {
            write_string(&reader.skip()?.as_str().unwrap_or_default(), out);
            Ok(())
        }
        Kind::Number => {
            write_number(reader.skip()?.text, out);
            Ok(())
        }
        Kind::Bool | Kind::Null => {
            out.push_str(reader.skip()?.text);
            Ok(())
        }
    }
}

/// Leaves out the members that `is_left_out` names, by key, kind and canonical text.
fn write_object(
    reader: &mut Reader<'_>,
    out: &mut String,
    is_left_out: &dyn Fn(&str, Kind, &str) -> bool,
) -> Result<(), JsonError> {
    let mut members = Vec::new();
    reader.object(|reader, member| {
        let kind = reader.peek()?;
        let mut canonical = String::new();
        write_value(reader, &mut canonical)?;
        if !is_left_out(&member, kind, &canonical) {
            members.push((member, canonical));
        }
        Ok(())
    })?;
    write_members(members, out);
    Ok(())
}

fn write_members(mut members: Vec<(Cow<'_, str>, String)>, out: &mut String) {
    // RFC 8785 §3.2.3.
    members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    out.push('{');
    for (nth, (member, value)) in members.iter().enumerate() {
        if nth > 0 {
            out.push(',');
        }
        write_string(member, out);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
}

/// RFC 8785 §3.2.2.2.
fn write_string(value: &str, out: &mut String) {
    out.push('"');
    for char in value.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            // Writing to a string cannot fail.
            '\0'..='\u{1f}' => drop(write!(out, "\\u{:04x}", u32::from(char))),
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// RFC 8785 §3.2.2.3.
fn write_number(text: &str, out: &mut String) {
    // The reader has checked the grammar and that a double holds it.
    let number: f64 = text.parse().unwrap_or_default();
    let is_whole = !text.contains(['.', 'e', 'E']);
    if is_whole && text.len() > 15 && text.parse::<i128>().map_or(true, |whole| exact(number) != Some(whole)) {
        out.push_str(text);
        return;
    }
    out.push_str(ryu_js::Buffer::new().format(number));
}

/// The whole number that a double is; none beyond ±2^120, where `i128` ends soon.
#[expect(clippy::cast_possible_truncation, reason = "the range was checked, and the number is whole")]
fn exact(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 2_f64.powi(120)).then_some(number as i128)
}

/// Whether a JSON string holds nothing but what dates and times are written with, so that nothing can hide in it.
fn is_timestamp(quoted: &str) -> bool {
    let inner = quoted.trim_matches('"');
    inner.len() <= 40 && inner.bytes().all(|byte| byte.is_ascii_digit() || b"TtZz:+-. ".contains(&byte))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests;
