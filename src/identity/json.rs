//! Is this JSON object the same for every reader? One that names a member twice is not.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a JSON object in which no member, at any depth, is named twice (RFC 7519 §4, RFC 8725 §3.10).
///
/// Libraries differ in whether the first or the last of two members counts, so a token with two `sub` is two callers.
/// Nesting is bounded by serde_json (128), length by the caller.
pub(super) fn strict_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let repeated = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(&repeated).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Err(_) if repeated.get() => Err(JsonError::DuplicateMember),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => {
            Err(JsonError::Malformed)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonError {
    /// A member is named twice in one object.
    DuplicateMember,
    /// Not one JSON object in UTF-8.
    Malformed,
}

/// Notes in its cell that a member was repeated, because serde's errors are only text.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                self.0.set(true);
                return Err(A::Error::custom("repeated member"));
            }
            let value = members.next_value_seed(self)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,null,true,"x\u00e9"],"b":{"c":{}},"n":18446744073709551615,"":1e3}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(strict_object(text.as_bytes()).map(Value::Object), Ok(expected));
    }

    #[test]
    fn refuses_a_repeated_member_at_any_depth_and_however_it_is_written() {
        for text in [
            r#"{"sub":"a","sub":"a"}"#,
            r#"{"sub":"a","\u0073ub":"b"}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1},{"b":1,"b":2}]}"#,
        ] {
            assert_eq!(strict_object(text.as_bytes()), Err(JsonError::DuplicateMember), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_object_in_utf_8() {
        let deep = [r#"{"a":"#.repeat(200), "1".into(), "}".repeat(200)].concat();
        for text in
            ["", "null", "[]", "\"x\"", "{} {}", "{}x", "{\"a\":1,}", "{a:1}", "\u{feff}{}", "{\"a\":1e999}", &deep]
        {
            assert_eq!(strict_object(text.as_bytes()), Err(JsonError::Malformed), "{text}");
        }
        assert_eq!(strict_object(b"{\"a\":\"\xff\"}"), Err(JsonError::Malformed));
        assert_eq!(strict_object(br#"{"a":"\ud800"}"#), Err(JsonError::Malformed));
    }
}
