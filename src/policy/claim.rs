//! Does a claim say what a rule asks for?

use serde_json::{Map, Value};

use super::rule::{ClaimKind, ClaimSpec};

/// One condition on one claim, ready to be asked.
#[derive(Debug)]
pub(super) struct ClaimTest {
    name: Box<str>,
    /// The name as a dotted path; one segment when it has no dots.
    path: Box<[Box<str>]>,
    kind: ClaimKind,
    /// INVARIANT: all of the JSON type that `kind` asks for.
    values: Box<[Value]>,
}

impl ClaimTest {
    /// Checks a condition. The error is the part of the condition that is wrong, as a key path, and what is.
    pub(super) fn compile(spec: &ClaimSpec) -> Result<Self, (String, String)> {
        if spec.name.is_empty() {
            return Err(("name".into(), "a claim name must not be empty".into()));
        }
        if spec.values.is_empty() {
            return Err(("values".into(), "without a value the condition never holds; list at least one".into()));
        }
        for (index, value) in spec.values.iter().enumerate() {
            let (fits, wanted) = match spec.kind {
                ClaimKind::Boolean => (value.is_boolean(), "true or false"),
                ClaimKind::Number => (value.is_number(), "a number"),
                ClaimKind::String | ClaimKind::StringArray => (value.is_string(), "a string"),
            };
            if !fits {
                return Err((format!("values[{index}]"), format!("must be {wanted}, as `type` says")));
            }
        }
        Ok(Self {
            name: spec.name.clone(),
            path: spec.name.split('.').map(Into::into).collect(),
            kind: spec.kind,
            values: spec.values.clone().into(),
        })
    }

    /// Whether the claims satisfy it. An absent claim, or one of another type, does not.
    pub(super) fn holds(&self, claims: &Map<String, Value>) -> bool {
        let Some(claim) = self.find(claims) else { return false };
        match (self.kind, claim) {
            (ClaimKind::Boolean, Value::Bool(_))
            | (ClaimKind::String, Value::String(_))
            | (ClaimKind::StringArray, Value::String(_)) => self.values.contains(claim),
            (ClaimKind::Number, Value::Number(_)) => self.values.iter().any(|value| same_number(value, claim)),
            (ClaimKind::StringArray, Value::Array(items)) => items.iter().any(|item| self.values.contains(item)),
            _ => false,
        }
    }

    /// The exact top-level name if the token has it, so that names with dots in them can be reached; else the path.
    fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        if let Some(claim) = claims.get(&*self.name) {
            return Some(claim);
        }
        let (first, rest) = self.path.split_first()?;
        rest.iter().try_fold(claims.get(&**first)?, |claim, segment| claim.as_object()?.get(&**segment))
    }
}

/// 1 and 1.0 are one number. Integers are compared as integers, since two of them may be the same `f64`.
fn same_number(left: &Value, right: &Value) -> bool {
    let integer = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left.as_f64() == right.as_f64(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn test(name: &str, kind: ClaimKind, values: &[Value]) -> ClaimTest {
        ClaimTest::compile(&ClaimSpec { name: name.into(), kind, values: values.to_vec() }).unwrap()
    }

    #[test]
    fn a_claim_holds_when_its_type_and_one_of_the_values_fit() {
        for (name, kind, values, claims, holds) in [
            ("t", ClaimKind::String, vec![json!("a"), json!("b")], json!({"t": "b"}), true),
            ("t", ClaimKind::String, vec![json!("a")], json!({"t": "A"}), false),
            ("t", ClaimKind::String, vec![json!("3")], json!({"t": 3}), false),
            ("t", ClaimKind::String, vec![json!("a")], json!({"t": ["a"]}), false),
            ("t", ClaimKind::String, vec![json!("a")], json!({}), false),
            ("t", ClaimKind::StringArray, vec![json!("a")], json!({"t": ["b", "a"]}), true),
            ("t", ClaimKind::StringArray, vec![json!("a")], json!({"t": "a"}), true),
            ("t", ClaimKind::StringArray, vec![json!("a")], json!({"t": []}), false),
            ("t", ClaimKind::Number, vec![json!(1)], json!({"t": 1.0}), true),
            ("t", ClaimKind::Number, vec![json!(1.5)], json!({"t": 1.5}), true),
            (
                "t",
                ClaimKind::Number,
                vec![json!(9_007_199_254_740_993_i64)],
                json!({"t": 9_007_199_254_740_992_i64}),
                false,
            ),
            ("t", ClaimKind::Number, vec![json!(1)], json!({"t": "1"}), false),
            ("t", ClaimKind::Boolean, vec![json!(true)], json!({"t": true}), true),
            ("t", ClaimKind::Boolean, vec![json!(true)], json!({"t": "true"}), false),
            ("a.b", ClaimKind::String, vec![json!("x")], json!({"a": {"b": "x"}}), true),
            ("a.b", ClaimKind::String, vec![json!("x")], json!({"a.b": "x"}), true),
            ("a.b", ClaimKind::String, vec![json!("x")], json!({"a.b": "y", "a": {"b": "x"}}), false),
            ("a.b", ClaimKind::String, vec![json!("x")], json!({"a": "x"}), false),
            ("https://acme.test/t", ClaimKind::String, vec![json!("x")], json!({"https://acme.test/t": "x"}), true),
        ] {
            let claims = claims.as_object().unwrap();
            assert_eq!(test(name, kind, &values).holds(claims), holds, "{name} {kind:?} {values:?} in {claims:?}");
        }
    }

    #[test]
    fn a_condition_that_cannot_hold_is_refused() {
        for (kind, values, part) in [
            (ClaimKind::String, vec![], "values"),
            (ClaimKind::String, vec![json!(3)], "values[0]"),
            (ClaimKind::StringArray, vec![json!("a"), json!(["b"])], "values[1]"),
            (ClaimKind::Number, vec![json!("3")], "values[0]"),
            (ClaimKind::Boolean, vec![json!("true")], "values[0]"),
        ] {
            let refused = ClaimTest::compile(&ClaimSpec { name: "t".into(), kind, values }).unwrap_err();
            assert_eq!(refused.0, part);
        }
    }
}
