//! In which ways is a request refused before anybody asks whether it is allowed?

use http::StatusCode;
use serde_json::{Value, json};

use super::Era;
use super::Revision;
use super::json::JsonError;

/// Why a request cannot be judged, and so goes nowhere.
///
/// The codes are those of JSON-RPC 2.0 §5.1 and MCP 2026-07-28 (Base Protocol, "Error Codes"). No variant carries
/// request data into [`RequestError::public_message`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name` or `Mcp-Param-*` does not say what the body says.
    #[error("{}", .0.text())]
    HeaderMismatch(HeaderFault),
    /// `params` lacks what the method needs.
    #[error("{}", .0.text())]
    InvalidParams(ParamFault),
    /// JSON, but no JSON-RPC 2.0 message that a client may send here.
    #[error("{}", .0.text())]
    InvalidRequest(EnvelopeFault),
    /// The method is unknown to the era the request is spoken in.
    #[error("method not found")]
    MethodNotFound {
        /// The era, which decides the HTTP status: to a legacy client 404 means that its session is gone.
        era: Era,
    },
    /// No JSON, or JSON that two readers could read differently.
    #[error("{0}")]
    ParseError(JsonError),
    /// A revision that is not spoken here.
    #[error("unsupported protocol version")]
    UnsupportedVersion {
        /// What was asked for: visible ASCII, at most [`REQUESTED_VERSION_BYTES_MAX`] bytes.
        requested: Box<str>,
        /// What would have been understood of a request that is written like this one, oldest first.
        supported: &'static [Revision],
    },
}

impl RequestError {
    /// A refusal of the revision `requested`, which is cut and cleaned so that it can be shown. The client is told to
    /// choose one of `supported`.
    #[must_use]
    pub fn unsupported_version(requested: &str, supported: &'static [Revision]) -> Self {
        let clean = |char: char| if char.is_ascii_graphic() { char } else { '?' };
        let requested: String = requested.chars().take(REQUESTED_VERSION_BYTES_MAX).map(clean).collect();
        Self::UnsupportedVersion { requested: requested.into(), supported }
    }

    /// Word for metrics, audit and `data.reason`: one of a fixed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::HeaderMismatch(_) => "header_mismatch",
            Self::InvalidParams(_) => "invalid_params",
            Self::InvalidRequest(_) => "invalid_request",
            Self::MethodNotFound { .. } => "method_not_found",
            Self::ParseError(_) => "parse_error",
            Self::UnsupportedVersion { .. } => "unsupported_protocol_version",
        }
    }

    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::HeaderMismatch(_) => -32020,
            Self::InvalidParams(_) => -32602,
            Self::InvalidRequest(_) => -32600,
            Self::MethodNotFound { .. } => -32601,
            Self::ParseError(_) => -32700,
            Self::UnsupportedVersion { .. } => -32022,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodNotFound { era: Era::Modern } => StatusCode::NOT_FOUND,
            Self::MethodNotFound { era: Era::Legacy } => StatusCode::OK,
            Self::HeaderMismatch(_)
            | Self::InvalidParams(_)
            | Self::InvalidRequest(_)
            | Self::ParseError(_)
            | Self::UnsupportedVersion { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told: a fixed text, never request data.
    #[must_use]
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::HeaderMismatch(fault) => fault.text(),
            Self::InvalidParams(fault) => fault.text(),
            Self::InvalidRequest(fault) => fault.text(),
            Self::MethodNotFound { .. } => "method not found",
            Self::ParseError(error) => match error {
                JsonError::BadEscape
                | JsonError::ControlCharacter
                | JsonError::TrailingBytes
                | JsonError::Unexpected
                | JsonError::UnexpectedEnd => "the body is not JSON",
                JsonError::BadNumber => "a number is malformed or out of range",
                JsonError::DuplicateKey => "an object has the same key twice",
                JsonError::LoneSurrogate => "a string has half of a surrogate pair",
                JsonError::NotUtf8 => "the body is not UTF-8",
                JsonError::TooDeep => "the body is nested too deep",
                JsonError::VariantKey => "a key differs from a known one only in its letters' form",
            },
            Self::UnsupportedVersion { .. } => "unsupported protocol version",
        }
    }

    /// What MCP asks for in `error.data`: for an unsupported version `supported` (newest first) and `requested`
    /// (2026-07-28, Versioning, "Protocol Version Negotiation").
    #[must_use]
    pub fn data(&self) -> Option<Value> {
        match self {
            Self::UnsupportedVersion { requested, supported } => {
                let supported: Vec<&str> = supported.iter().rev().map(|revision| revision.as_str()).collect();
                Some(json!({ "supported": supported, "requested": requested }))
            }
            Self::HeaderMismatch(_)
            | Self::InvalidParams(_)
            | Self::InvalidRequest(_)
            | Self::MethodNotFound { .. }
            | Self::ParseError(_) => None,
        }
    }
}

/// Which header is at fault, and how (MCP 2026-07-28, Streamable HTTP, "Server Validation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFault {
    /// The header.
    pub header: McpHeader,
    /// What is wrong with it.
    pub problem: HeaderProblem,
}

/// The headers that mirror the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McpHeader {
    /// `Mcp-Method`.
    Method,
    /// `Mcp-Name`.
    Name,
    /// One of `Mcp-Param-*`.
    Param,
    /// `MCP-Protocol-Version`.
    ProtocolVersion,
}

/// What can be wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// Other characters than visible ASCII, space and tab, or a Base64 form that does not decode to UTF-8.
    Malformed,
    /// Required and not there.
    Missing,
    /// There more than once: readers of the first and of the last copy disagree.
    Repeated,
    /// Another value than the body's.
    Unlike,
}

impl HeaderFault {
    fn text(self) -> &'static str {
        macro_rules! texts {
            ($name:literal) => {
                match self.problem {
                    HeaderProblem::Malformed => concat!($name, " header is malformed"),
                    HeaderProblem::Missing => concat!($name, " header is missing"),
                    HeaderProblem::Repeated => concat!($name, " header is there more than once"),
                    HeaderProblem::Unlike => concat!($name, " header does not match the body"),
                }
            };
        }
        match self.header {
            McpHeader::Method => texts!("Mcp-Method"),
            McpHeader::Name => texts!("Mcp-Name"),
            McpHeader::Param => texts!("Mcp-Param"),
            McpHeader::ProtocolVersion => texts!("MCP-Protocol-Version"),
        }
    }
}

/// What is wrong with `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamFault {
    /// `arguments` is there and not an object.
    Arguments,
    /// `_meta` lacks the client's capabilities, or they are no object (2026-07-28).
    ClientCapabilities,
    /// `_meta` is there and not an object.
    Meta,
    /// `name` is missing, no string, empty, too long, or has control characters.
    Name,
    /// `params` is there and not an object.
    NotAnObject,
    /// `_meta` lacks the protocol version, or it is no string (2026-07-28).
    ProtocolVersion,
    /// `ref` names neither a prompt nor a resource.
    Ref,
    /// `notifications.resourceSubscriptions` is no list of URIs, or too long a one.
    Subscriptions,
    /// `taskId`, as [`ParamFault::Name`].
    TaskId,
    /// `uri`, as [`ParamFault::Name`].
    Uri,
}

impl ParamFault {
    fn text(self) -> &'static str {
        match self {
            Self::Arguments => "params.arguments is not an object",
            Self::ClientCapabilities => "params._meta lacks io.modelcontextprotocol/clientCapabilities",
            Self::Meta => "params._meta is not an object",
            Self::Name => "params.name is missing or malformed",
            Self::NotAnObject => "params is not an object",
            Self::ProtocolVersion => "params._meta lacks io.modelcontextprotocol/protocolVersion",
            Self::Ref => "params.ref is missing or malformed",
            Self::Subscriptions => "params.notifications is malformed",
            Self::TaskId => "params.taskId is missing or malformed",
            Self::Uri => "params.uri is missing or malformed",
        }
    }
}

/// What is wrong with the message around `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeFault {
    /// `id` is neither a string (of at most [`super::classify::ID_BYTES_MAX`] bytes) nor an integer of 64 bits.
    BadId,
    /// A batch without a message.
    BatchEmpty,
    /// A batch in a revision that has none.
    BatchNotSpoken,
    /// A batch with more messages than the limit.
    BatchTooLong,
    /// Two requests of a batch with one id.
    DuplicateId,
    /// `initialize` in a batch (2025-03-26, Lifecycle, "Initialization").
    InitializeInBatch,
    /// `result` or `error` beside `method`.
    MethodAndResult,
    /// Neither request, notification nor response.
    NotAMessage,
    /// `jsonrpc` is not "2.0".
    NotJsonRpc2,
    /// A method that wants no answer, with an id.
    NotificationWithId,
    /// A method that wants an answer, without an id.
    RequestWithoutId,
    /// A response in a revision whose servers ask nothing (2026-07-28).
    ResponseNotSpoken,
    /// A notification that the revision does not have.
    UnknownNotification,
    /// `MCP-Protocol-Version` more than once, or with characters no version has (before 2026-07-28).
    VersionHeader,
}

impl EnvelopeFault {
    fn text(self) -> &'static str {
        match self {
            Self::BadId => "id is neither a short string nor a 64-bit integer",
            Self::BatchEmpty => "the batch is empty",
            Self::BatchNotSpoken => "this protocol version has no batches",
            Self::BatchTooLong => "the batch is too long",
            Self::DuplicateId => "two requests of the batch have the same id",
            Self::InitializeInBatch => "initialize cannot be part of a batch",
            Self::MethodAndResult => "a message has either method or result",
            Self::NotAMessage => "the body is no JSON-RPC message",
            Self::NotJsonRpc2 => "jsonrpc is not \"2.0\"",
            Self::NotificationWithId => "a notification has no id",
            Self::RequestWithoutId => "a request needs an id",
            Self::ResponseNotSpoken => "this protocol version has no responses from clients",
            Self::UnknownNotification => "unknown notification",
            Self::VersionHeader => "MCP-Protocol-Version header is malformed or there more than once",
        }
    }
}

/// How much of an unsupported version is shown back.
pub const REQUESTED_VERSION_BYTES_MAX: usize = 64;
