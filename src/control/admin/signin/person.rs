//! Who has signed in? What is kept of them for as long as their session lasts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::Principal;

/// What the issuer says of a person. Groups are of the moment they signed in; what they may do with them is of the moment
/// they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Person {
    pub(in super::super) issuer: Box<str>,
    pub(in super::super) subject: Box<str>,
    /// What to call them; data of the issuer.
    pub(in super::super) name: Option<Box<str>>,
    /// Of the claim that roles go by.
    pub(in super::super) groups: Vec<Box<str>>,
    /// Of the claim that approvals go by.
    pub(in super::super) approval_groups: Vec<Box<str>>,
}

impl Person {
    /// Of verified claims.
    pub(in super::super) fn of(
        principal: &Principal,
        claims: &Map<String, Value>,
        role_claim: &str,
        approval_claim: &str,
    ) -> Self {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let name = text("name").or_else(|| text("preferred_username")).or_else(|| text("email"));
        Self {
            issuer: (&*principal.issuer).into(),
            subject: (&*principal.subject).into(),
            name: name.map(|name| name.chars().take(NAME_CHARS_MAX).collect::<String>().into()),
            groups: groups(claims, role_claim),
            approval_groups: groups(claims, approval_claim),
        }
    }
}

/// The strings of a claim: an exact top-level name if there is one, else a dotted path; one string is a list of one.
fn groups(claims: &Map<String, Value>, name: &str) -> Vec<Box<str>> {
    let found = claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, step| value.get(step))
    });
    match found {
        Some(Value::String(group)) => vec![group.as_str().into()],
        Some(Value::Array(groups)) => {
            groups.iter().take(GROUPS_MAX).filter_map(Value::as_str).map(Into::into).collect()
        }
        _ => Vec::new(),
    }
}

const NAME_CHARS_MAX: usize = 128;
const GROUPS_MAX: usize = 1000;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_are_found_by_name_or_path() {
        let claims = json!({
            "groups": ["a", 1, "b"], "https://x.test/groups": ["c"], "realm": { "roles": ["d"] }, "team": "e",
        });
        let claims = claims.as_object().unwrap();
        for (claim, expected) in [
            ("groups", vec!["a", "b"]),
            ("https://x.test/groups", vec!["c"]),
            ("realm.roles", vec!["d"]),
            ("team", vec!["e"]),
            ("realm", vec![]),
            ("realm.roles.0", vec![]),
            ("nothing", vec![]),
        ] {
            let found = groups(claims, claim);
            assert_eq!(found.iter().map(|group| &**group).collect::<Vec<_>>(), expected, "{claim}");
        }
    }
}
