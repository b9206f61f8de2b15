//! WHAT do they ask? MCP revisions, strict JSON-RPC, `Mcp-*` headers, lists, the SSE codec.

// In reading order: words, then the request, then the answer.
pub mod message;
pub mod method;
pub mod revision;

mod keys;

pub mod json;

pub mod item;

mod envelope;

pub mod headers;

pub mod error;

pub mod classify;

pub mod param_headers;

pub mod listing;

pub mod sse;

pub mod list_stream;

pub use classify::{ClassifyLimits, Unclassified, bodyless_revision, classify};
pub use error::RequestError;
pub use item::ItemKind;
pub use list_stream::{ListStream, StreamError};
pub use listing::{Asked, Filtered, Keep, ListError, ListItem, filter_answer, tool_param_headers};
pub use message::{JsonText, McpRequest, Message, MessageKind, RequestId, Target};
pub use method::Method;
pub use param_headers::{ParamHeaderError, ParamHeaders, check_param_headers};
pub use revision::{Era, Revision};
