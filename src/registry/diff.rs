//! What is different between two definitions?

use serde::Serialize;
use serde_json::Value;

/// One place where two definitions differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// A JSON Pointer (RFC 6901).
    pub pointer: String,
    /// What became of it.
    pub what: What,
    /// What stood there before; none when nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What stands there after; none when nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is only in the second.
    Added,
    /// It is another.
    Changed,
    /// It is only in the first.
    Removed,
}

/// Every place where `before` and `after` differ, in the order of keys; at most [`CHANGES_MAX`]. Both are canonical
/// definitions, and what cannot be read counts as null.
#[must_use]
pub fn diff(before: &str, after: &str) -> Vec<Change> {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut changes = Vec::new();
    compare(&read(before), &read(after), &mut String::new(), &mut changes);
    changes
}

/// The most changes that are told.
pub const CHANGES_MAX: usize = 1000;

fn compare(before: &Value, after: &Value, pointer: &mut String, changes: &mut Vec<Change>) {
    if before == after || changes.len() >= CHANGES_MAX {
        return;
    }
    let length = pointer.len();
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                step(before.get(key), after.get(key), pointer, changes);
                pointer.truncate(length);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for nth in 0..before.len().max(after.len()) {
                pointer.push_str(&format!("/{nth}"));
                step(before.get(nth), after.get(nth), pointer, changes);
                pointer.truncate(length);
            }
        }
        _ => note(What::Changed, Some(before), Some(after), pointer, changes),
    }
}

fn step(before: Option<&Value>, after: Option<&Value>, pointer: &mut String, changes: &mut Vec<Change>) {
    match (before, after) {
        (Some(before), Some(after)) => compare(before, after, pointer, changes),
        (Some(_), None) => note(What::Removed, before, None, pointer, changes),
        (None, Some(_)) => note(What::Added, None, after, pointer, changes),
        (None, None) => {}
    }
}

fn note(what: What, before: Option<&Value>, after: Option<&Value>, pointer: &str, changes: &mut Vec<Change>) {
    if changes.len() < CHANGES_MAX {
        changes.push(Change { pointer: pointer.into(), what, before: before.cloned(), after: after.cloned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_every_place_that_differs() {
        let before = r#"{"name":"a","description":"x","inputSchema":{"required":["a"],"properties":{"a~/b":1}}}"#;
        let after =
            r#"{"name":"a","description":"y","inputSchema":{"required":["a","b"],"properties":{}},"annotations":{}}"#;
        let changes: Vec<String> = diff(before, after)
            .into_iter()
            .map(|change| format!("{} {:?} {:?} {:?}", change.pointer, change.what, change.before, change.after))
            .collect();
        let expected = [
            "/annotations Added None Some(Object {})",
            "/description Changed Some(String(\"x\")) Some(String(\"y\"))",
            "/inputSchema/properties/a~0~1b Removed Some(Number(1)) None",
            "/inputSchema/required/1 Added None Some(String(\"b\"))",
        ];
        assert_eq!(changes, expected);
        assert_eq!(diff(before, before), []);
    }

    #[test]
    fn the_number_of_changes_is_bounded() {
        let long = format!("[{}]", vec!["1"; CHANGES_MAX * 2].join(","));
        let other = format!("[{}]", vec!["2"; CHANGES_MAX * 2].join(","));
        assert_eq!(diff(&long, &other).len(), CHANGES_MAX);
    }
}
