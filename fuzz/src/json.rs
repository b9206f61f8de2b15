//! How do other programs read a JSON text? A reading by `serde_json` in which nothing is lost: members keep their order,
//! and equal keys stay side by side.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// A JSON value with all members of its objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
    Scalar(Value),
}

/// Which member a program takes that asks for a key.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// It takes a key for another that differs only in its letters' form.
    pub folds: bool,
    /// Of several it takes the last.
    pub last: bool,
}

/// Careful and sloppy programs.
pub const HABITS: [Habit; 4] = [
    Habit { folds: false, last: false },
    Habit { folds: false, last: true },
    Habit { folds: true, last: false },
    Habit { folds: true, last: true },
];

impl Json {
    /// Reads a text as `serde_json` does.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Whether some object in it has a key twice.
    pub fn has_duplicates(&self) -> bool {
        match self {
            Self::Array(elements) => elements.iter().any(Self::has_duplicates),
            Self::Object(members) => {
                let mut keys: Vec<&str> = members.iter().map(|(key, _)| &**key).collect();
                keys.sort_unstable();
                keys.windows(2).any(|pair| pair[0] == pair[1])
                    || members.iter().any(|(_, value)| value.has_duplicates())
            }
            Self::Scalar(_) => false,
        }
    }

    /// What a program with this habit finds under `key`; none when this is no object.
    pub fn get(&self, key: &str, habit: Habit) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let wanted = fold(key);
        let mut found = members
            .iter()
            .filter(|(name, _)| if habit.folds { fold(name) == wanted } else { name == key })
            .map(|(_, value)| value);
        if habit.last { found.next_back() } else { found.next() }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Scalar(Value::String(text)) => Some(text),
            Self::Array(_) | Self::Object(_) | Self::Scalar(_) => None,
        }
    }

    /// The value as most programs hold it.
    pub fn value(&self) -> Value {
        match self {
            Self::Array(elements) => elements.iter().map(Self::value).collect(),
            Self::Object(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.clone(), value.value())).collect())
            }
            Self::Scalar(value) => value.clone(),
        }
    }
}

/// A key without what sloppy programs overlook: case, white space and control characters, and `_` and `-` between words.
pub fn fold(key: &str) -> String {
    let mut is_first = true;
    key.chars()
        .filter(|char| !char.is_control() && !char.is_whitespace())
        .filter(|char| std::mem::take(&mut is_first) || !matches!(char, '_' | '-'))
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}
