//! WHAT do they ask? MCP revisions, strict JSON-RPC, `Mcp-*` headers, lists, the SSE codec.

pub mod revision;

pub mod method;

pub mod message;

pub mod json;
mod keys;

pub mod error;
pub mod headers;

pub mod classify;
mod envelope;

pub use classify::{ClassifyLimits, Unclassified, classify};
pub use error::RequestError;
pub use message::{JsonText, McpRequest, Message, MessageKind, RequestId, Target};
pub use method::Method;
pub use revision::{Era, Revision};
