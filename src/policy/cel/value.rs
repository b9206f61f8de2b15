//! What does an expression compute with? Values that borrow from the request wherever they can.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, TimeDelta};
use http::HeaderMap;
use serde_json::{Map, Value as Json};

use crate::identity::Scopes;

/// A CEL value. Cheap to clone: it holds scalars, references and shared pointers.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// A JSON array of the request.
    Array(&'a [Json]),
    Bool(bool),
    Bytes(Arc<[u8]>),
    Double(f64),
    Duration(TimeDelta),
    Headers(Headers<'a>),
    Int(i64),
    /// A list the expression has made.
    List(Arc<[Value<'a>]>),
    /// A map the expression has made, without duplicate keys.
    Map(Arc<[(Value<'a>, Value<'a>)]>),
    Null,
    /// A JSON object of the request.
    Object(&'a Map<String, Json>),
    Scopes(&'a Scopes),
    Text(Text<'a>),
    Timestamp(DateTime<FixedOffset>),
    /// A type, by name: what `type(x)` gives.
    Type(Arc<str>),
    UInt(u64),
}

/// A string of the request or of the expression's own making.
#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

/// The request's headers as `request.headers` or `request.headers_all`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers<'a> {
    pub(super) map: &'a HeaderMap,
    pub(super) values: HeaderValues,
}

/// Which values of a header are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderValues {
    All,
    First,
}

/// Anything that can be counted through.
#[derive(Clone, Copy)]
pub(super) enum Sequence<'v, 'a> {
    Json(&'a [Json]),
    Scopes(&'a Scopes),
    Values(&'v [Value<'a>]),
}

/// Anything with keys.
#[derive(Clone, Copy)]
pub(super) enum Mapping<'v, 'a> {
    Headers(Headers<'a>),
    Json(&'a Map<String, Json>),
    Values(&'v [(Value<'a>, Value<'a>)]),
}

/// A value that has no answer to what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absurd;

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Text::Borrowed(text))
    }

    /// Integers that fit are `int`, larger ones `uint`, everything else `double`: numbers of all three compare.
    pub(super) fn json(json: &'a Json) -> Self {
        match json {
            Json::Null | Json::Bool(_) | Json::Number(_) => Self::scalar(json),
            Json::String(text) => Self::text(text),
            Json::Array(items) => Self::Array(items),
            Json::Object(members) => Self::Object(members),
        }
    }

    /// As [`Value::json`], of a number, a truth value or null.
    pub(super) fn scalar(json: &Json) -> Self {
        match json {
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => {
                if let Some(int) = number.as_i64() {
                    Self::Int(int)
                } else if let Some(uint) = number.as_u64() {
                    Self::UInt(uint)
                } else {
                    Self::Double(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Json::Array(_) | Json::Null | Json::Object(_) | Json::String(_) => Self::Null,
        }
    }

    /// The same value, borrowing the texts it holds: spares literals the reference count.
    pub(super) fn borrowed(&'a self) -> Value<'a> {
        if let Self::Text(text) = self { Value::text(text.as_str()) } else { self.clone() }
    }

    pub(super) fn sequence(&self) -> Option<Sequence<'_, 'a>> {
        match self {
            Self::Array(items) => Some(Sequence::Json(items)),
            Self::List(items) => Some(Sequence::Values(items)),
            Self::Scopes(scopes) => Some(Sequence::Scopes(scopes)),
            Self::Bool(_)
            | Self::Bytes(_)
            | Self::Double(_)
            | Self::Duration(_)
            | Self::Headers(_)
            | Self::Int(_)
            | Self::Map(_)
            | Self::Null
            | Self::Object(_)
            | Self::Text(_)
            | Self::Timestamp(_)
            | Self::Type(_)
            | Self::UInt(_) => None,
        }
    }

    pub(super) fn mapping(&self) -> Option<Mapping<'_, 'a>> {
        match self {
            Self::Headers(headers) => Some(Mapping::Headers(*headers)),
            Self::Map(entries) => Some(Mapping::Values(entries)),
            Self::Object(members) => Some(Mapping::Json(members)),
            Self::Array(_)
            | Self::Bool(_)
            | Self::Bytes(_)
            | Self::Double(_)
            | Self::Duration(_)
            | Self::Int(_)
            | Self::List(_)
            | Self::Null
            | Self::Scopes(_)
            | Self::Text(_)
            | Self::Timestamp(_)
            | Self::Type(_)
            | Self::UInt(_) => None,
        }
    }

    /// What `type(x)` calls it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Array(_) | Self::List(_) | Self::Scopes(_) => "list",
            Self::Bool(_) => "bool",
            Self::Bytes(_) => "bytes",
            Self::Double(_) => "double",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Headers(_) | Self::Map(_) | Self::Object(_) => "map",
            Self::Int(_) => "int",
            Self::Null => "null_type",
            Self::Text(_) => "string",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::UInt(_) => "uint",
        }
    }

    /// How two values that have no parts relate. `None`: not of comparable types, or not a number.
    pub(super) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(left), Value::Text(right)) => Some(left.as_str().cmp(right.as_str())),
            (Self::Int(left), Value::Int(right)) => Some(left.cmp(right)),
            (Self::UInt(left), Value::UInt(right)) => Some(left.cmp(right)),
            (Self::Double(left), Value::Double(right)) => left.partial_cmp(right),
            (Self::Int(left), Value::UInt(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
            (Self::UInt(left), Value::Int(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
            (Self::Int(left), Value::Double(right)) => integer_against_double(i128::from(*left), *right),
            (Self::UInt(left), Value::Double(right)) => integer_against_double(i128::from(*left), *right),
            (Self::Double(left), Value::Int(right)) => {
                integer_against_double(i128::from(*right), *left).map(Ordering::reverse)
            }
            (Self::Double(left), Value::UInt(right)) => {
                integer_against_double(i128::from(*right), *left).map(Ordering::reverse)
            }
            (Self::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Self::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
            (Self::Duration(left), Value::Duration(right)) => Some(left.cmp(right)),
            (Self::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }

    /// How many bytes a comparison or search may have to look at.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) => text.as_str().len(),
            Self::Array(_)
            | Self::Bool(_)
            | Self::Double(_)
            | Self::Duration(_)
            | Self::Headers(_)
            | Self::Int(_)
            | Self::List(_)
            | Self::Map(_)
            | Self::Null
            | Self::Object(_)
            | Self::Scopes(_)
            | Self::Timestamp(_)
            | Self::Type(_)
            | Self::UInt(_) => 0,
        }
    }
}

/// Exact, as on one number line: `i64` and `u64` as `f64` would round above 2⁵³ and call different numbers equal.
fn integer_against_double(integer: i128, double: f64) -> Option<Ordering> {
    /// 2⁶⁴: every `i64` and `u64` is smaller, and every double below it converts to `i128` without loss.
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    if double.is_nan() {
        return None;
    }
    if double >= BEYOND {
        return Some(Ordering::Less);
    }
    if double <= -BEYOND {
        return Some(Ordering::Greater);
    }
    let whole = double.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "|whole| < 2^64, so the conversion is exact")]
    let ordering = integer.cmp(&(whole as i128));
    Some(ordering.then(0.0_f64.partial_cmp(&(double - whole))?))
}

/// `double` as an index or key, when it is a whole number.
pub(super) fn whole(double: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "a saturated result fails the comparison after it")]
    let int = double as i64;
    (integer_against_double(i128::from(int), double) == Some(Ordering::Equal)).then_some(int)
}

impl<'a> Sequence<'_, 'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Scopes(scopes) => scopes.len(),
            Self::Values(items) => items.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items) => items.get(index).map(Value::json),
            Self::Scopes(scopes) => scopes.get(index).map(Value::text),
            Self::Values(items) => items.get(index).cloned(),
        }
    }
}

impl<'a> Mapping<'_, 'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Headers(headers) => headers.map.keys_len(),
            Self::Json(members) => members.len(),
            Self::Values(entries) => entries.len(),
        }
    }

    /// The value under `key`, `None` when there is none.
    ///
    /// # Errors
    /// [`Absurd`] for a header that is not UTF-8: what it says is not for us to guess.
    pub(super) fn get(&self, key: &Value<'_>) -> Result<Option<Value<'a>>, Absurd> {
        match (self, key) {
            (Self::Json(members), Value::Text(key)) => Ok(members.get(key.as_str()).map(Value::json)),
            (Self::Headers(headers), Value::Text(key)) => headers.get(key.as_str()),
            (Self::Values(entries), key) => {
                Ok(entries.iter().find(|(known, _)| same_key(known, key)).map(|(_, value)| value.clone()))
            }
            (Self::Json(_) | Self::Headers(_), _) => Ok(None),
        }
    }

    pub(super) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Headers(headers) => headers.map.keys().map(|name| Value::text(name.as_str())).collect(),
            Self::Json(members) => members.keys().map(|key| Value::text(key)).collect(),
            Self::Values(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }
}

/// Map keys are strings, booleans and whole numbers; numbers match across types.
pub(super) fn same_key(left: &Value<'_>, right: &Value<'_>) -> bool {
    left.compare(right) == Some(Ordering::Equal)
}

impl<'a> Headers<'a> {
    /// Names are lower case, as HTTP/2 sends them and `http::HeaderMap` keeps them; a key in another case is not there.
    fn get(&self, name: &str) -> Result<Option<Value<'a>>, Absurd> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(None);
        }
        let text = |value: &'a http::HeaderValue| str::from_utf8(value.as_bytes()).map_err(|_| Absurd);
        match self.values {
            HeaderValues::First => self.map.get(name).map(|value| text(value).map(Value::text)).transpose(),
            HeaderValues::All if !self.map.contains_key(name) => Ok(None),
            HeaderValues::All => {
                let values: Result<Arc<[_]>, _> =
                    self.map.get_all(name).iter().map(|value| text(value).map(Value::text)).collect();
                values.map(|values| Some(Value::List(values)))
            }
        }
    }
}
