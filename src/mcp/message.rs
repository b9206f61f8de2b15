//! What was understood of a request? One reading of the body, kept together with the very bytes it was read from.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::json::{DEPTH_MAX, Kind, Reader};
use super::method::Method;
use super::revision::Revision;

/// A client's POST body, classified. What was judged is what is sent: [`McpRequest::body`] is the text the
/// messages were read from, and it was refused unless it can be read in only one way.
#[derive(Clone, Debug)]
pub struct McpRequest {
    /// The revision the request is spoken in.
    pub revision: Revision,
    /// Whether the messages came as a JSON array (2025-03-26 only).
    pub batch: bool,
    /// At least one message; exactly one unless `batch`.
    pub messages: Vec<Message>,
    /// The bytes that were read, and that go upstream.
    pub body: Bytes,
}

/// One JSON-RPC 2.0 message from a client.
#[derive(Clone, Debug)]
pub struct Message {
    /// Request, notification or response.
    pub kind: MessageKind,
    /// What the message is about, as rules name it.
    pub target: Target,
    /// The text of `params`, an object.
    pub params: Option<JsonText>,
    /// The text of `params.arguments` (tools and prompts), an object.
    pub arguments: Option<JsonText>,
    /// The text of `params._meta`, an object.
    pub meta: Option<JsonText>,
}

/// The three kinds of JSON-RPC message (JSON-RPC 2.0 §4, §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Wants no answer.
    Notification {
        /// What is told.
        method: Method,
    },
    /// Wants an answer with the same id.
    Request {
        /// Names the answer.
        id: RequestId,
        /// What is asked.
        method: Method,
    },
    /// Answers a request the server made (elicitation, sampling, roots).
    Response {
        /// The server's id.
        id: RequestId,
    },
}

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing that a rule could name by itself: lifecycle, lists, notifications, responses.
    None,
    /// A prompt, by name.
    Prompt(Arc<str>),
    /// A resource, by URI, or a template's URI in `completion/complete`.
    Resource(Arc<str>),
    /// A task, by its id.
    Task(Arc<str>),
    /// A tool, by name.
    Tool(Arc<str>),
}

/// A JSON-RPC id, kept as the client wrote it: a string or an integer, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Wraps the JSON text of an id. The classifier calls it after it has checked that it is a string or an integer.
    pub(crate) fn from_json(text: &str) -> Self {
        Self(text.into())
    }

    /// The JSON text, quotes included.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The JSON text in its one shortest form, so that equal ids have equal texts however they were escaped: 1 is 1,
    /// "1" is another id.
    #[must_use]
    pub fn canonical(&self) -> Cow<'_, str> {
        canonical_id(&self.0)
    }
}

/// The one shortest JSON text of an id as servers write it: strings without needless escapes, whole numbers such as
/// `1.0` or `1e0` as integers. Any other text stays as it is.
pub(crate) fn canonical_id(text: &str) -> Cow<'_, str> {
    match text.bytes().next() {
        Some(b'"') if text.contains('\\') => match serde_json::from_str::<String>(text) {
            Ok(id) => Cow::Owned(Value::from(id).to_string()),
            Err(_) => Cow::Borrowed(text),
        },
        Some(b'-' | b'0'..=b'9') if text.contains(['.', 'e', 'E']) || text == "-0" => match text.parse::<f64>() {
            // Below 2^53 the conversion is exact; no client's larger id comes back as a fraction.
            Ok(number) if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 => {
                Cow::Owned(format!("{}", number as i64))
            }
            Ok(_) | Err(_) => Cow::Borrowed(text),
        },
        Some(_) | None => Cow::Borrowed(text),
    }
}

/// A JSON value as text that was checked (valid UTF-8, one reading) and, when somebody asks, as a parsed value.
#[derive(Clone, Debug)]
pub struct JsonText {
    /// INVARIANT: valid JSON in valid UTF-8, without duplicate keys.
    text: Bytes,
    value: OnceLock<Value>,
    members: OnceLock<Members>,
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// A value that was parsed with all that is around it.
    Parsed(&'a Value),
    /// A number, a truth value or null.
    Scalar(Value),
    /// A string, where it stands in the text.
    Text(&'a str),
}

/// The members of an object, where they stand.
#[derive(Clone, Debug)]
enum Members {
    /// Not found in this way: see [`Members::of`].
    Elsewhere,
    Here(Vec<Member>),
}

/// A member as it stands in the text.
#[derive(Clone, Debug)]
struct Member {
    /// Without its quotes, and without escapes.
    key: Bytes,
    kind: Kind,
    /// With its quotes, if it is a string.
    value: Bytes,
    /// The value holds a backslash.
    escapes: bool,
}

impl JsonText {
    /// Wraps text that the classifier has checked.
    pub(crate) fn new(text: Bytes) -> Self {
        Self { text, value: OnceLock::new(), members: OnceLock::new() }
    }

    /// The bytes as the client sent them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// The parsed value, made on first use. Numbers that no `i64`, `u64` or finite `f64` holds read as null.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| serde_json::from_slice(&self.text).unwrap_or(Value::Null))
    }

    /// What [`JsonText::value`] has under `key`, if it is an object: without parsing or copying what nobody asks for.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<Part<'_>> {
        let parsed = || self.value().get(key).map(Part::Parsed);
        let Members::Here(members) = self.members.get_or_init(|| Members::of(&self.text)) else { return parsed() };
        let member = members.iter().find(|member| *member.key == *key.as_bytes())?;
        let text = std::str::from_utf8(&member.value).unwrap_or_default();
        match member.kind {
            Kind::String if !member.escapes => text.get(1..text.len().saturating_sub(1)).map(Part::Text),
            Kind::Array | Kind::Object | Kind::String => parsed(),
            Kind::Bool | Kind::Null | Kind::Number => {
                Some(Part::Scalar(serde_json::from_str(text).unwrap_or(Value::Null)))
            }
        }
    }
}

impl Members {
    /// Looks for them in an object with few members, whose keys have no escapes.
    fn of(text: &Bytes) -> Self {
        let mut members = Vec::with_capacity(MEMBERS_USUAL);
        let mut is_plain = true;
        let read = Reader::new(text, DEPTH_MAX).and_then(|mut reader| {
            reader.object(|reader, key| {
                let value = reader.skip()?;
                match key {
                    Cow::Borrowed(key) if members.len() < MEMBERS_MAX => members.push(Member {
                        key: text.slice_ref(key.as_bytes()),
                        kind: value.kind,
                        value: text.slice(value.start..value.end()),
                        escapes: value.text.contains('\\'),
                    }),
                    Cow::Borrowed(_) | Cow::Owned(_) => is_plain = false,
                }
                Ok(())
            })
        });
        if read.is_ok() && is_plain { Self::Here(members) } else { Self::Elsewhere }
    }
}

/// More than most calls have.
const MEMBERS_USUAL: usize = 8;

/// With more, looking through all of them for each question would take longer than parsing them once.
const MEMBERS_MAX: usize = 64;

impl Message {
    /// The method; none for a response.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        match self.kind {
            MessageKind::Notification { method } | MessageKind::Request { method, .. } => Some(method),
            MessageKind::Response { .. } => None,
        }
    }

    /// The id, when the message is a request (an answer will carry it).
    #[must_use]
    pub fn request_id(&self) -> Option<&RequestId> {
        match &self.kind {
            MessageKind::Request { id, .. } => Some(id),
            MessageKind::Notification { .. } | MessageKind::Response { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_value(part: Option<Part<'_>>) -> Option<Value> {
        part.map(|part| match part {
            Part::Parsed(value) => value.clone(),
            Part::Scalar(value) => value,
            Part::Text(text) => Value::from(text),
        })
    }

    #[test]
    fn a_member_is_what_the_parsed_value_has_under_its_key() {
        let many = format!("{{{}}}", (0..100).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(","));
        let texts = [
            r#"{"a":"plain","b":1.50,"c":[1,{"a":2}],"d":null,"e":true,"f":"\u0041\n","g":{"h":"i"},"":-0,"é":"ü"}"#,
            r#" { "a" : "x" , "\u0062" : 2 } "#,
            r#"{}"#,
            r#"[{"a":1}]"#,
            r#""a""#,
            &many,
        ];
        for text in texts {
            let json = JsonText::new(Bytes::copy_from_slice(text.as_bytes()));
            for key in ["a", "b", "c", "d", "e", "f", "g", "h", "", "é", "k7", "k99"] {
                assert_eq!(as_value(json.member(key)), json.value().get(key).cloned(), "{key} of {text}");
            }
        }
    }

    #[test]
    fn a_string_that_is_read_is_not_copied() {
        let json = JsonText::new(Bytes::from_static(br#"{"a":"text","b":[1]}"#));
        assert_eq!(json.member("a"), Some(Part::Text("text")));
        assert!(json.value.get().is_none(), "nothing was parsed");
        assert_eq!(json.member("b"), Some(Part::Parsed(&serde_json::json!([1]))));
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_string_makes_two_of_it(text in "\\PC{0,12}", key in "[a-c\"\\\\é]{0,3}") {
            let json = serde_json::json!({ key.clone(): text }).to_string();
            let json = JsonText::new(Bytes::from(json));
            prop_assert_eq!(as_value(json.member(&key)), json.value().get(&key).cloned());
        }
    }
}
