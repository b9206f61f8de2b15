//! What limits a delegation? `max_duration` and `allowed_resources`; what else is asked for denies.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use super::DelegationError;
use crate::time::UnixSeconds;

/// The limits of one step, or of the delegation as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Constraints {
    /// The first second at which it is over.
    pub(super) until: Option<UnixSeconds>,
    /// What it reaches; `None`: everything.
    pub(super) resources: Option<Box<[Box<str>]>>,
}

impl Constraints {
    /// Reads the limits of what was delegated at `since`. Constraints named in `known` are left to the rules.
    pub(super) fn read(
        constraints: &Map<String, Value>,
        since: Option<UnixSeconds>,
        known: &[Box<str>],
    ) -> Result<Self, DelegationError> {
        let mut read = Self::default();
        for (name, value) in constraints {
            match name.as_str() {
                "max_duration" => {
                    let seconds = value.as_u64().ok_or(DelegationError::ConstraintMalformed)?;
                    // A duration from no known moment cannot be enforced.
                    let since = since.ok_or(DelegationError::ConstraintMalformed)?;
                    read.until = Some(since.plus(Duration::from_secs(seconds)));
                }
                "allowed_resources" => {
                    let list = value.as_array().ok_or(DelegationError::ConstraintMalformed)?;
                    let entries: Option<Box<[Box<str>]>> = list.iter().map(|it| it.as_str().map(Into::into)).collect();
                    read.resources = Some(entries.ok_or(DelegationError::ConstraintMalformed)?);
                }
                name if known.iter().any(|known| **known == *name) => {}
                _ => return Err(DelegationError::UnknownConstraint),
            }
        }
        Ok(read)
    }
}

/// Whether an entry of `allowed_resources` means `name`: it is the same, or a beginning of it followed by `*`.
pub(super) fn covers(entry: &str, name: &str) -> bool {
    entry.strip_suffix('*').map_or(entry == name, |start| name.starts_with(start))
}

/// Reads a claim or member that is an object, or is not there.
pub(super) fn object(value: Option<&Value>) -> Result<Map<String, Value>, DelegationError> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members.clone()),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(DelegationError::ConstraintMalformed)
        }
    }
}
