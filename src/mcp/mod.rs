//! WHAT do they ask? MCP revisions, strict JSON-RPC, `Mcp-*` headers, lists, the SSE codec.

pub mod message;
pub mod method;
pub mod revision;

pub use message::{JsonText, McpRequest, Message, MessageKind, RequestId, Target};
pub use method::Method;
pub use revision::{Era, Revision};
