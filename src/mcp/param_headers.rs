//! Which arguments must the headers repeat? `x-mcp-header` annotations of a tool's `inputSchema` (2026-07-28).

use std::collections::HashSet;

use http::HeaderMap;
use http::header::HeaderName;
use serde_json::Map;
use serde_json::Value;

use super::error::HeaderFault;
use super::error::HeaderProblem;
use super::error::McpHeader;
use super::error::RequestError;
use super::headers;

/// The `Mcp-Param-*` headers of one tool, each with the argument it repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamHeaders {
    /// INVARIANT: names are distinct, paths are not empty.
    mirrors: Box<[Mirror]>,
}

/// One annotated argument.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    header: HeaderName,
    /// The keys that lead to the value in `arguments`.
    path: Box<[Box<str>]>,
}

/// Why an annotation makes a tool's definition invalid (2026-07-28, Streamable HTTP, "Schema Extension").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamHeaderError {
    /// The annotation is not a field name (`1*tchar`).
    #[error("x-mcp-header is not a header name")]
    NotAName,
    /// The annotated property is no string, integer or boolean.
    #[error("x-mcp-header stands at a property that is no string, integer or boolean")]
    NotPrimitive,
    /// The annotation stands where no chain of `properties` leads.
    #[error("x-mcp-header stands outside the chain of properties")]
    NotReachable,
    /// Two annotations have the same name, case aside.
    #[error("two x-mcp-header have the same name")]
    Repeated,
    /// More than [`PARAM_HEADERS_MAX`] annotations.
    #[error("too many x-mcp-header")]
    TooMany,
}

impl ParamHeaders {
    /// Reads the annotations of an `inputSchema`.
    ///
    /// # Errors
    /// [`ParamHeaderError`]; a client must then leave the tool out of its list.
    pub fn from_schema(input_schema: &Value) -> Result<Self, ParamHeaderError> {
        let Some(root) = input_schema.as_object() else { return Ok(Self::default()) };
        if root.contains_key(ANNOTATION) {
            return Err(ParamHeaderError::NotReachable);
        }
        let mut found = Found::default();
        found.walk(root, &mut Vec::new(), Reach::Static)?;
        Ok(Self { mirrors: found.mirrors.into() })
    }

    /// Whether no argument is annotated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mirrors.is_empty()
    }
}

/// Holds the `Mcp-Param-*` headers of a modern `tools/call` against its arguments (`None`: it has none).
///
/// A value that is absent or null must have no header, every other one must have it; integers are compared as numbers
/// (`42.0` is `42`). Headers that the tool does not define are ignored (2026-07-28, "Server Behavior for Custom
/// Headers").
///
/// # Errors
/// [`RequestError::HeaderMismatch`].
pub fn check_param_headers(
    head: &HeaderMap,
    params: &ParamHeaders,
    arguments: Option<&Value>,
) -> Result<(), RequestError> {
    let check = |mirror: &Mirror| {
        let value = arguments
            .and_then(|arguments| mirror.path.iter().try_fold(arguments, |value, key| value.as_object()?.get(&**key)));
        let value = value.filter(|value| !value.is_null());
        let header = headers::single(head, &mirror.header)?;
        match (header, value) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(HeaderProblem::Missing),
            // Whoever routes by the header would take it for an argument that the server never sees.
            (Some(_), None) => Err(HeaderProblem::Unlike),
            (Some(header), Some(value)) if says(&headers::decode(header)?, value) => Ok(()),
            (Some(_), Some(_)) => Err(HeaderProblem::Unlike),
        }
    };
    params
        .mirrors
        .iter()
        .try_for_each(check)
        .map_err(|problem| RequestError::HeaderMismatch(HeaderFault { header: McpHeader::Param, problem }))
}

/// How many annotations one tool may have.
pub const PARAM_HEADERS_MAX: usize = 64;

/// The key of an annotation in a schema.
pub(super) const ANNOTATION: &str = "x-mcp-header";

/// Whether a decoded header says what the argument says.
fn says(header: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => header == text,
        Value::Bool(true) => header == "true",
        Value::Bool(false) => header == "false",
        Value::Number(number) => {
            // As JSON numbers, so that neither "+1", " 1", "0x1" nor "inf" count.
            if header.trim() != header {
                return false;
            }
            let Ok(header) = serde_json::from_str::<serde_json::Number>(header) else { return false };
            match (whole(number), whole(&header)) {
                (Some(one), Some(other)) => one == other,
                (None, None) => number.as_f64() == header.as_f64() && number.as_f64().is_some_and(is_exact),
                (Some(_), None) | (None, Some(_)) => false,
            }
        }
        Value::Array(_) | Value::Null | Value::Object(_) => false,
    }
}

/// The integer a number stands for, when what was read still tells: also `42.0`, but no fraction, and nothing so large
/// that its neighbour is read as the same number.
fn whole(number: &serde_json::Number) -> Option<i128> {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    integer
        .or_else(|| number.as_f64().filter(|float| float.fract() == 0.0 && is_exact(*float)).map(|float| float as i128))
}

/// Below 2^53 no two integers are read as one number.
fn is_exact(float: f64) -> bool {
    float.abs() < 9_007_199_254_740_992.0
}

/// Whether a schema can be reached from the root by `properties` alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Dynamic,
    Static,
}

#[derive(Default)]
struct Found {
    mirrors: Vec<Mirror>,
    names: HashSet<HeaderName>,
}

impl Found {
    /// Looks at one schema and all below it. The depth is bounded by that of the JSON reader.
    fn walk<'s>(
        &mut self,
        schema: &'s Map<String, Value>,
        path: &mut Vec<&'s str>,
        reach: Reach,
    ) -> Result<(), ParamHeaderError> {
        for (keyword, value) in schema {
            match keyword.as_str() {
                ANNOTATION if reach == Reach::Dynamic => return Err(ParamHeaderError::NotReachable),
                ANNOTATION => self.annotate(schema, value, path)?,
                "properties" => {
                    for (name, property) in value.as_object().into_iter().flatten() {
                        path.push(name);
                        self.descend(property, path, reach)?;
                        path.pop();
                    }
                }
                // The keys are names, not keywords.
                "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => {
                    for property in value.as_object().into_iter().flat_map(Map::values) {
                        self.descend(property, path, Reach::Dynamic)?;
                    }
                }
                // Values of the described data, not schemas.
                "const" | "default" | "enum" | "examples" => {}
                _ => self.descend(value, path, Reach::Dynamic)?,
            }
        }
        Ok(())
    }

    fn descend<'s>(&mut self, value: &'s Value, path: &mut Vec<&'s str>, reach: Reach) -> Result<(), ParamHeaderError> {
        match value {
            Value::Object(schema) => self.walk(schema, path, reach),
            Value::Array(schemas) => schemas.iter().try_for_each(|schema| self.descend(schema, path, Reach::Dynamic)),
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    fn annotate(
        &mut self,
        schema: &Map<String, Value>,
        annotation: &Value,
        path: &[&str],
    ) -> Result<(), ParamHeaderError> {
        let name = annotation.as_str().filter(|name| !name.is_empty()).ok_or(ParamHeaderError::NotAName)?;
        // `HeaderName` takes exactly the characters of a field name (RFC 9110 §5.1) and folds their case.
        let header = HeaderName::try_from(format!("{}{name}", headers::PARAM_PREFIX));
        let header = header.map_err(|_| ParamHeaderError::NotAName)?;
        let Some("boolean" | "integer" | "string") = schema.get("type").and_then(Value::as_str) else {
            return Err(ParamHeaderError::NotPrimitive);
        };
        if self.mirrors.len() == PARAM_HEADERS_MAX {
            return Err(ParamHeaderError::TooMany);
        }
        if !self.names.insert(header.clone()) {
            return Err(ParamHeaderError::Repeated);
        }
        self.mirrors.push(Mirror { header, path: path.iter().map(|key| Box::from(*key)).collect() });
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_annotations_along_chains_of_properties() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "options": { "type": "object", "properties": { "limit": { "type": "integer", "x-mcp-header": "Limit" } } },
            "x-mcp-header": { "type": "string", "default": { "x-mcp-header": 1 } },
            "free": { "enum": [{ "x-mcp-header": "no annotation" }] },
        }});

        let params = ParamHeaders::from_schema(&schema).unwrap();

        let found: Vec<_> =
            params.mirrors.iter().map(|mirror| (mirror.header.as_str(), mirror.path.join("/"))).collect();
        assert_eq!(found.len(), 2);
        assert!(found.contains(&("mcp-param-region", "region".to_owned())));
        assert!(found.contains(&("mcp-param-limit", "options/limit".to_owned())));
    }

    #[test]
    fn a_schema_without_annotations_has_none() {
        for schema in [json!({}), json!(true), json!({ "type": "object", "properties": { "a": true } })] {
            assert_eq!(ParamHeaders::from_schema(&schema), Ok(ParamHeaders::default()));
        }
    }

    #[test]
    fn an_invalid_annotation_makes_the_tool_invalid() {
        use ParamHeaderError::*;
        let property = |property: Value| json!({ "properties": { "a": property } });
        let annotated = || json!({ "type": "string", "x-mcp-header": "A" });
        for (schema, error) in [
            (property(json!({ "type": "string", "x-mcp-header": "" })), NotAName),
            (property(json!({ "type": "string", "x-mcp-header": 1 })), NotAName),
            (property(json!({ "type": "string", "x-mcp-header": "a b" })), NotAName),
            (property(json!({ "type": "string", "x-mcp-header": "a:b" })), NotAName),
            (property(json!({ "type": "string", "x-mcp-header": "a\r\nb" })), NotAName),
            (property(json!({ "type": "string", "x-mcp-header": "é" })), NotAName),
            (property(json!({ "type": "number", "x-mcp-header": "A" })), NotPrimitive),
            (property(json!({ "type": "object", "x-mcp-header": "A" })), NotPrimitive),
            (property(json!({ "x-mcp-header": "A" })), NotPrimitive),
            (json!({ "type": "string", "x-mcp-header": "A" }), NotReachable),
            (property(json!({ "items": annotated() })), NotReachable),
            (property(json!({ "oneOf": [annotated()] })), NotReachable),
            (property(json!({ "items": { "properties": { "b": annotated() } } })), NotReachable),
            (json!({ "$defs": { "default": annotated() } }), NotReachable),
            (json!({ "if": { "properties": { "a": annotated() } } }), NotReachable),
            (json!({ "additionalProperties": annotated() }), NotReachable),
            (
                json!({ "properties": {
                    "a": { "type": "string", "x-mcp-header": "Same" },
                    "b": { "properties": { "c": { "type": "string", "x-mcp-header": "sAME" } } },
                }}),
                Repeated,
            ),
        ] {
            assert_eq!(ParamHeaders::from_schema(&schema), Err(error), "{schema}");
        }
        let many: Map<String, Value> = (0..=PARAM_HEADERS_MAX)
            .map(|number| (format!("p{number}"), json!({ "type": "string", "x-mcp-header": format!("P{number}") })))
            .collect();
        assert_eq!(ParamHeaders::from_schema(&json!({ "properties": many })), Err(TooMany));
    }

    /// Row M15 of the hostile inputs and the table of 2026-07-28, "Server Behavior for Custom Headers".
    #[test]
    fn headers_must_repeat_the_arguments() {
        use HeaderProblem::*;
        let params = ParamHeaders::from_schema(&json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "properties": { "limit": { "type": "integer", "x-mcp-header": "Limit" } } },
            "flag": { "type": "boolean", "x-mcp-header": "Flag" },
        }}))
        .unwrap();
        for (headers, arguments, outcome) in [
            (vec![("mcp-param-region", "eu")], json!({ "region": "eu" }), Ok(())),
            (vec![("mcp-param-region", "us")], json!({ "region": "eu" }), Err(Unlike)),
            (vec![("mcp-param-region", "EU")], json!({ "region": "eu" }), Err(Unlike)),
            (vec![], json!({ "region": "eu" }), Err(Missing)),
            (vec![], json!({ "region": null }), Ok(())),
            (vec![], json!({}), Ok(())),
            (vec![("mcp-param-region", "eu")], json!({}), Err(Unlike)),
            (vec![("mcp-param-region", "null")], json!({ "region": null }), Err(Unlike)),
            (vec![("mcp-param-region", "eu"), ("mcp-param-region", "eu")], json!({ "region": "eu" }), Err(Repeated)),
            (vec![("mcp-param-region", "=?base64?5LiW?=")], json!({ "region": "世" }), Ok(())),
            (vec![("mcp-param-region", "=?base64?5LiW")], json!({ "region": "世" }), Err(Unlike)),
            (vec![("mcp-param-region", "=?base64?***?=")], json!({ "region": "世" }), Err(Malformed)),
            (vec![("mcp-param-region", "")], json!({ "region": "" }), Ok(())),
            (vec![("mcp-param-region", "1")], json!({ "region": 1 }), Ok(())),
            (vec![("mcp-param-region", "[]")], json!({ "region": [] }), Err(Unlike)),
            (vec![("mcp-param-limit", "42")], json!({ "deep": { "limit": 42 } }), Ok(())),
            (vec![("mcp-param-limit", "42.0")], json!({ "deep": { "limit": 42 } }), Ok(())),
            (vec![("mcp-param-limit", "42")], json!({ "deep": { "limit": 42.0 } }), Ok(())),
            (vec![("mcp-param-limit", "43")], json!({ "deep": { "limit": 42 } }), Err(Unlike)),
            (vec![("mcp-param-limit", "+42")], json!({ "deep": { "limit": 42 } }), Err(Unlike)),
            (
                vec![("mcp-param-limit", "9007199254740993")],
                json!({ "deep": { "limit": 9_007_199_254_740_992_u64 } }),
                Err(Unlike),
            ),
            (
                vec![("mcp-param-limit", "9007199254740992.0")],
                json!({ "deep": { "limit": 9_007_199_254_740_993_u64 } }),
                Err(Unlike),
            ),
            // Found by fuzzing: beyond 64 bits several integers are read as one number.
            (
                vec![("mcp-param-limit", "18446744073709551616")],
                serde_json::from_str(r#"{"deep":{"limit":18446744073709551617}}"#).unwrap(),
                Err(Unlike),
            ),
            (vec![("mcp-param-limit", "18446744073709551615")], json!({ "deep": { "limit": u64::MAX } }), Ok(())),
            (vec![("mcp-param-limit", "0.5")], json!({ "deep": { "limit": 0.5 } }), Ok(())),
            (vec![("mcp-param-limit", "4.2e1")], json!({ "deep": { "limit": 42 } }), Ok(())),
            (vec![("mcp-param-limit", "42")], json!({ "deep.limit": 42 }), Err(Unlike)),
            (vec![("mcp-param-limit", "42")], json!({ "deep": [42] }), Err(Unlike)),
            (vec![("mcp-param-flag", "true")], json!({ "flag": true }), Ok(())),
            (vec![("mcp-param-flag", "True")], json!({ "flag": true }), Err(Unlike)),
            (vec![("mcp-param-foo", "x"), ("mcp-param-foo", "y")], json!({}), Ok(())),
        ] {
            let mut head = HeaderMap::new();
            for (name, value) in &headers {
                head.append(*name, HeaderValue::from_static(value));
            }
            let outcome = outcome
                .map_err(|problem| RequestError::HeaderMismatch(HeaderFault { header: McpHeader::Param, problem }));
            assert_eq!(check_param_headers(&head, &params, Some(&arguments)), outcome, "{headers:?} {arguments}");
        }
        assert_eq!(check_param_headers(&HeaderMap::new(), &params, None), Ok(()));
    }
}
