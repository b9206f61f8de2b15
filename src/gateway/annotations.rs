//! Which arguments of a tool do `Mcp-Param-*` headers repeat?

use std::sync::Arc;

use dashmap::DashMap;
use http::HeaderMap;

use crate::mcp::param_headers::{ParamHeaders, check_param_headers};
use crate::mcp::{Message, Method, RequestError, Target};

/// The `x-mcp-header` annotations of tools (MCP 2026-07-28, Streamable HTTP), as learned from the lists that pass by. A
/// tool that no list has shown yet is not checked here; its server checks it in any case.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    by_server: DashMap<Arc<str>, DashMap<Box<str>, Arc<ParamHeaders>>>,
}

impl Annotations {
    /// Remembers what a list has said of a tool. A tool that has lost its annotations is forgotten.
    pub(super) fn learn(&self, server: &Arc<str>, tool: &str, annotated: Option<&ParamHeaders>) {
        let Some(annotated) = annotated.filter(|annotated| !annotated.is_empty()) else {
            if let Some(tools) = self.by_server.get(server) {
                tools.remove(tool);
            }
            return;
        };
        let tools = self.by_server.entry(Arc::clone(server)).or_default();
        if tools.contains_key(tool) || tools.len() < TOOLS_PER_SERVER_MAX {
            tools.insert(tool.into(), Arc::new(annotated.clone()));
        }
    }

    /// Holds the headers of a modern call against its arguments.
    ///
    /// # Errors
    /// [`RequestError::HeaderMismatch`].
    pub(super) fn check(&self, server: &str, message: &Message, head: &HeaderMap) -> Result<(), RequestError> {
        let Target::Tool(tool) = &message.target else { return Ok(()) };
        if message.method() != Some(Method::ToolsCall) {
            return Ok(());
        }
        let annotated = self.by_server.get(server).and_then(|tools| tools.get(&**tool).map(|found| Arc::clone(&found)));
        let Some(annotated) = annotated else { return Ok(()) };
        check_param_headers(head, &annotated, message.arguments.as_ref().map(|arguments| arguments.value()))
    }
}

/// Annotated tools remembered of one server.
const TOOLS_PER_SERVER_MAX: usize = 10_000;
