//! The description of the admin API, and whether an answer is what it says.

use serde_json::Value;

use super::Response;

/// The document.
pub struct Api(Value);

impl Api {
    /// As it stands in the source: the gateway serves the same.
    pub fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../../src/control/admin/api/openapi.json")).unwrap())
    }

    /// Every call: method, path template, and who may.
    pub fn calls(&self) -> Vec<(String, String, String)> {
        let paths = self.0["paths"].as_object().unwrap();
        let calls = paths.iter().flat_map(|(path, calls)| {
            calls.as_object().unwrap().iter().map(move |(method, call)| {
                (method.to_uppercase(), path.clone(), call["x-access"].as_str().unwrap().to_owned())
            })
        });
        calls.collect()
    }

    /// Fails unless the answer has a described status, type and form.
    #[track_caller]
    pub fn check(&self, method: &str, target: &str, answer: &Response) {
        let path = target.split('?').next().unwrap().strip_prefix("/api/v1").unwrap();
        let Some(call) = self.call(method, path) else { panic!("{method} {path} is not described") };
        let status = answer.status.to_string();
        let described = self.resolved(&call["responses"][&status]);
        assert!(described.is_object(), "{method} {path} answers {status}, which is not described: {answer}");
        let essence = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let schema = &described["content"][essence]["schema"];
        assert!(schema.is_object(), "{method} {path} {status} answers {essence}, which is not described: {answer}");
        if essence.ends_with("json") {
            self.hold(schema, &answer.json(), &format!("{method} {path} {status}"));
        }
        if described["headers"]["ETag"].is_object() {
            assert!(answer.header("etag").is_some(), "{method} {path}: no ETag");
        }
    }

    fn call(&self, method: &str, path: &str) -> Option<&Value> {
        let fits = |template: &str| {
            let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
        };
        let mut found = self.0["paths"].as_object()?.iter().filter(|(template, _)| fits(template));
        found.find_map(|(_, calls)| calls.get(method.to_lowercase()))
    }

    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                self.resolved(self.0.pointer(&reference[1..]).expect("a reference that leads somewhere"))
            }
            None => value,
        }
    }

    /// The part of JSON Schema that the document uses; an unknown keyword is a failure, so that nothing goes unchecked.
    #[track_caller]
    fn hold(&self, schema: &Value, value: &Value, place: &str) {
        let schema = self.resolved(schema);
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "type" => {
                    let types: Vec<&str> = rule.as_array().map_or_else(
                        || vec![rule.as_str().unwrap()],
                        |types| types.iter().map(|one| one.as_str().unwrap()).collect(),
                    );
                    assert!(types.iter().any(|one| is_a(value, one)), "{place}: {value} is not {types:?}");
                }
                "enum" => assert!(rule.as_array().unwrap().contains(value), "{place}: {value} is not one of {rule}"),
                "anyOf" => {
                    let holds = |schema: &Value| {
                        let (schema, value) = (schema.clone(), value.clone());
                        std::panic::catch_unwind(|| self.hold(&schema, &value, place)).is_ok()
                    };
                    let nullable = rule.as_array().unwrap();
                    assert!(
                        value.is_null() && nullable.iter().any(|one| one["type"] == "null")
                            || nullable.iter().filter(|one| one["type"] != "null").any(holds),
                        "{place}: {value} is none of {rule}"
                    );
                }
                "required" => {
                    for name in rule.as_array().unwrap().iter().filter(|_| value.is_object()) {
                        assert!(value.get(name.as_str().unwrap()).is_some(), "{place}: {name} is missing in {value}");
                    }
                }
                "properties" => {
                    for (name, schema) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            self.hold(schema, value, &format!("{place}.{name}"));
                        }
                    }
                }
                "additionalProperties" => {
                    let known = schema["properties"].as_object();
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if known.is_some_and(|known| known.contains_key(name)) {
                            continue;
                        }
                        assert!(rule.is_object(), "{place}: {name} is not described");
                        self.hold(rule, value, &format!("{place}.{name}"));
                    }
                }
                "items" => {
                    for (nth, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.hold(rule, value, &format!("{place}[{nth}]"));
                    }
                }
                "minimum" => assert!(value.as_f64() >= rule.as_f64(), "{place}: {value} is under {rule}"),
                "format" if rule == "date-time" && value.is_string() => {
                    let text = value.as_str().unwrap();
                    assert!(text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T', "{place}: {text}");
                }
                "format" | "description" | "default" => {}
                other => panic!("{place}: nobody checks {other}"),
            }
        }
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("no type {other}"),
    }
}
