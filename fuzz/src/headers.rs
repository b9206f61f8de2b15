//! Do the `Mcp-*` headers say exactly what the body says?
//!
//! Input, one per line: value of `Mcp-Name`; the tool's name; value of `Mcp-Param-V`; the argument `v` as JSON; what
//! follows is an `inputSchema`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use portcullis::mcp::classify::NAME_BYTES_MAX;
use portcullis::mcp::json::{self, DEPTH_MAX};
use portcullis::mcp::{ClassifyLimits, ParamHeaders, Target, check_param_headers, classify};
use serde_json::{Value, json};

const LIMITS: ClassifyLimits = ClassifyLimits { json_depth: DEPTH_MAX, batch_messages: 50 };

/// Compares with a reading of its own, and the numbers digit by digit.
pub fn run(input: &[u8]) {
    let mut lines = input.splitn(5, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (name_header, name, param_header, argument, schema) = (next(), next(), next(), next(), next());
    if let Ok(name) = std::str::from_utf8(name) {
        name_header_repeats_the_name(name_header, name);
    }
    if let Ok(argument) = std::str::from_utf8(argument) {
        param_header_repeats_the_argument(param_header, argument);
    }
    any_schema_is_read_or_refused(schema);
}

fn name_header_repeats_the_name(header: &[u8], name: &str) {
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": name, "arguments": {}, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let mut head = HeaderMap::new();
    head.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
    head.insert("mcp-method", HeaderValue::from_static("tools/call"));
    head.insert("mcp-name", value);

    let request = classify(&head, Bytes::from(body), &LIMITS);

    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    let repeats = meaning(header).as_deref() == Some(name);
    assert_eq!(request.is_ok(), is_name && repeats);
    if let Ok(request) = request {
        assert_eq!(request.messages[0].target, Target::Tool(name.into()));
    }
}

fn param_header_repeats_the_argument(header: &[u8], argument: &str) {
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    if json::check(argument.as_bytes(), DEPTH_MAX - 2).is_err() {
        return;
    }
    let schema = json!({ "properties": { "v": { "type": "string", "x-mcp-header": "V" } } });
    let params = ParamHeaders::from_schema(&schema).unwrap();
    let arguments: Value = serde_json::from_str(&format!("{{\"v\":{argument}}}")).unwrap();
    let with = HeaderMap::from_iter([(http::HeaderName::from_static("mcp-param-v"), value)]);

    let accepted = check_param_headers(&with, &params, Some(&arguments)).is_ok();

    let absent = arguments["v"].is_null();
    assert_eq!(check_param_headers(&HeaderMap::new(), &params, Some(&arguments)).is_ok(), absent);
    let said = meaning(header);
    match (&arguments["v"], said) {
        (Value::Null | Value::Array(_) | Value::Object(_), _) | (_, None) => assert!(!accepted),
        (Value::String(text), Some(said)) => assert_eq!(accepted, *text == said),
        (Value::Bool(value), Some(said)) => assert_eq!(accepted, value.to_string() == said),
        (Value::Number(number), Some(said)) => {
            let (argument, said) = (argument.trim_matches([' ', '\t', '\r']), said.as_str());
            if is_plain_integer(argument) && is_plain_integer(said) && accepted {
                assert_eq!(argument, said, "another integer");
            }
            if argument == said && number.as_f64().is_some_and(|number| number.abs() < 9e15) {
                assert!(accepted, "the same number");
            }
            if accepted {
                assert_eq!(number.as_f64(), said.parse().ok());
            }
        }
    }
}

fn any_schema_is_read_or_refused(schema: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(schema) else { return };
    let Ok(params) = ParamHeaders::from_schema(&schema) else { return };
    let annotations = schema.to_string().matches("\"x-mcp-header\":").count();
    assert!(params.is_empty() || annotations > 0);
    // Arguments that lack every annotated one need no header.
    assert_eq!(check_param_headers(&HeaderMap::new(), &params, None), Ok(()));
}

/// What a header stands for (2026-07-28, Streamable HTTP, "Value Encoding"); none when it stands for nothing.
fn meaning(header: &[u8]) -> Option<String> {
    if !header.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return None;
    }
    let text = std::str::from_utf8(header).ok()?.trim_matches([' ', '\t']);
    let Some(inner) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(text.to_owned());
    };
    let bytes = STANDARD.decode(inner).ok()?;
    // Canonical: there is no other text for the same bytes.
    assert_eq!(STANDARD.encode(&bytes), inner);
    String::from_utf8(bytes).ok()
}

/// As JSON writes integers: no sign but `-`, no leading zero, no fraction, no exponent.
fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').filter(|digits| *digits != "0").unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
}
