//! What was understood of a request? One reading of the body, kept together with the very bytes it was read from.

use std::borrow::Cow;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

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
    Prompt(Box<str>),
    /// A resource, by URI, or a template's URI in `completion/complete`.
    Resource(Box<str>),
    /// A task, by its id.
    Task(Box<str>),
    /// A tool, by name.
    Tool(Box<str>),
}

/// A JSON-RPC id, kept as the client wrote it: a string or an integer, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

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
}

impl JsonText {
    /// Wraps text that the classifier has checked.
    pub(crate) fn new(text: Bytes) -> Self {
        Self { text, value: OnceLock::new() }
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
}

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
