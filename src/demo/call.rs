//! How is one MCP request sent by hand? A description that can be printed as a `curl` line and sent as it was printed.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use serde_json::json;

/// One HTTP POST to the gateway.
#[derive(Clone, Debug)]
pub struct Call {
    headers: Vec<(&'static str, String)>,
    body: Value,
}

/// Who sends a call. In a `curl` line the token is a shell variable, so that the line can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender<'a> {
    /// No token at all.
    Nobody,
    /// A sample user.
    User {
        /// The name of the shell variable.
        variable: &'a str,
        /// The token in it.
        token: &'a str,
    },
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// HTTP header.
    pub headers: reqwest::header::HeaderMap,
    /// The JSON-RPC messages of the body in order: one in a JSON body, any number in an SSE body, none in an empty one.
    pub messages: Vec<Value>,
}

impl Call {
    /// A request in the way of 2026-07-28: complete in itself, with the headers that must agree with the body.
    #[must_use]
    pub fn modern(method: &str, mut params: Value) -> Self {
        // `clientInfo` may be left out (2026-07-28, Base Protocol, `_meta`), which keeps the printed lines short.
        let meta = [("protocolVersion", json!(MODERN)), ("clientCapabilities", json!({}))];
        let mut headers = vec![("MCP-Protocol-Version", MODERN.to_owned()), ("Mcp-Method", method.to_owned())];
        if let Some(name) = params.get("name").and_then(Value::as_str) {
            headers.push(("Mcp-Name", name.to_owned()));
        }
        if let Some(params) = params.as_object_mut() {
            let own = params.entry("_meta").or_insert_with(|| json!({}));
            if let Some(own) = own.as_object_mut() {
                own.extend(meta.map(|(key, value)| (format!("io.modelcontextprotocol/{key}"), value)));
            }
        }
        Self { headers, body: request(method, params) }
    }

    /// `tools/call` in the way of 2026-07-28.
    #[must_use]
    pub fn modern_tool(tool: &str, arguments: Value) -> Self {
        Self::modern("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// The first message of a session (2025-11-25, Lifecycle).
    #[must_use]
    pub fn initialize() -> Self {
        let params = json!({
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": { "name": "portcullis-demo", "version": env!("CARGO_PKG_VERSION") },
        });
        Self { headers: Vec::new(), body: request("initialize", params) }
    }

    /// The notification that ends the handshake.
    #[must_use]
    pub fn initialized(session: &str) -> Self {
        let method = "notifications/initialized";
        Self { headers: of_session(session), body: json!({ "jsonrpc": "2.0", "method": method }) }
    }

    /// A request in a session.
    #[must_use]
    pub fn in_session(session: &str, method: &str, params: Value) -> Self {
        Self { headers: of_session(session), body: request(method, params) }
    }

    /// `tools/call` in a session.
    #[must_use]
    pub fn tool_in_session(session: &str, tool: &str, arguments: Value) -> Self {
        Self::in_session(session, "tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// A line for a POSIX shell. `options` are those of `curl`, for example `-si` to see the answer's header.
    #[must_use]
    pub fn curl(&self, options: &str, url: &str, sender: Sender<'_>) -> String {
        let mut line = format!("curl {options} {url}");
        if let Sender::User { variable, .. } = sender {
            line.push_str(&format!(" -H \"Authorization: Bearer ${variable}\""));
        }
        for (name, value) in [("Content-Type", "application/json"), ("Accept", ACCEPT)] {
            line.push_str(&format!(" -H '{name}: {value}'"));
        }
        for (name, value) in &self.headers {
            // Double quotes where the value is a shell variable.
            let quote = if value.starts_with('$') { '"' } else { '\'' };
            line.push_str(&format!(" -H {quote}{name}: {value}{quote}"));
        }
        line.push_str(&format!(" -d '{}'", self.body.to_string().replace('\'', r"'\''")));
        line
    }

    /// Sends it and reads the whole answer, for at most [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// Those of HTTP, and a body that is not what its `Content-Type` says.
    pub async fn send(&self, http: &reqwest::Client, url: &str, sender: Sender<'_>) -> Result<Answer, CallError> {
        let mut post =
            http.post(url).timeout(ANSWER_TIMEOUT).header("accept", ACCEPT).header("content-type", "application/json");
        if let Sender::User { token, .. } = sender {
            post = post.bearer_auth(token);
        }
        for (name, value) in &self.headers {
            post = post.header(*name, value);
        }
        let response = post.body(self.body.to_string()).send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.text().await?;
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let messages = if body.is_empty() {
            Vec::new()
        } else if kind.starts_with("text/event-stream") {
            events(&body)?
        } else {
            vec![serde_json::from_str(&body).map_err(|_| CallError::Body)?]
        };
        Ok(Answer { status, headers, messages })
    }
}

/// Why there is no answer to look at.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Neither JSON nor a stream of it.
    #[error("the body is not JSON")]
    Body,
    /// No answer, or not all of it.
    #[error("no answer: {0}")]
    Http(#[from] reqwest::Error),
}

impl Answer {
    /// A header as text; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `result` of the answer; null when there is none.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.messages.last().and_then(|message| message.get("result")).unwrap_or(&Value::Null)
    }

    /// `structuredContent` of a tool's result; null when there is none.
    #[must_use]
    pub fn structured(&self) -> &Value {
        self.result().get("structuredContent").unwrap_or(&Value::Null)
    }

    /// `error.data.reason` of a refusal; empty when there is none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.messages.last().and_then(|message| message.pointer("/error/data/reason")?.as_str()).unwrap_or_default()
    }

    /// Names in `result.tools`, sorted.
    #[must_use]
    pub fn tool_names(&self) -> Vec<&str> {
        let tools = self.result().get("tools").and_then(Value::as_array);
        let mut names: Vec<&str> = tools.into_iter().flatten().filter_map(|tool| tool.get("name")?.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

const ACCEPT: &str = "application/json, text/event-stream";
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn of_session(session: &str) -> Vec<(&'static str, String)> {
    vec![("MCP-Protocol-Version", LEGACY.to_owned()), ("Mcp-Session-Id", session.to_owned())]
}

/// The `data` of each event as JSON, priming events without data left out (WHATWG HTML §9.2.6).
fn events(body: &str) -> Result<Vec<Value>, CallError> {
    let mut messages = Vec::new();
    for event in body.replace("\r\n", "\n").split("\n\n") {
        let data: Vec<&str> =
            event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        let data = data.join("\n");
        if !data.is_empty() {
            messages.push(serde_json::from_str(&data).map_err(|_| CallError::Body)?);
        }
    }
    Ok(messages)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn prints_a_line_that_a_shell_reads_back() {
        let call = Call::tool_in_session("$SESSION", "echo", json!({ "text": "it's" }));
        let line = call.curl("-s", "http://127.0.0.1:8080/mcp", Sender::User { variable: "ALICE", token: "secret" });
        assert_eq!(
            line,
            "curl -s http://127.0.0.1:8080/mcp -H \"Authorization: Bearer $ALICE\" \
             -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
             -H 'MCP-Protocol-Version: 2025-11-25' -H \"Mcp-Session-Id: $SESSION\" \
             -d '{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"arguments\":{\"text\":\"it'\\''s\"},\
             \"name\":\"echo\"}}'"
        );
    }

    /// 2026-07-28, Streamable HTTP: the headers repeat method and name, and `_meta` the revision.
    #[test]
    fn a_modern_call_says_the_same_in_headers_and_body() {
        let call = Call::modern_tool("echo", json!({ "text": "x" }));
        let headers: Vec<(&str, &str)> = call.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(
            headers,
            [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "echo")]
        );
        let meta = call.body.pointer("/params/_meta").unwrap();
        assert_eq!(meta.get("io.modelcontextprotocol/protocolVersion"), Some(&json!("2026-07-28")));
        assert_eq!(meta.get("io.modelcontextprotocol/clientCapabilities"), Some(&json!({})));
    }

    #[test]
    fn a_modern_call_keeps_its_own_meta() {
        let call = Call::modern("tools/call", json!({ "name": "slow", "_meta": { "progressToken": 1 } }));
        assert_eq!(call.body.pointer("/params/_meta/progressToken"), Some(&json!(1)));
    }

    #[test]
    fn reads_events_with_and_without_data() {
        let body = "id: 0\nretry: 3000\ndata:\n\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: keep-alive\n\ndata: {\"b\":2}\n\n";
        assert_eq!(events(body).unwrap(), [json!({ "a": 1 }), json!({ "b": 2 })]);
        assert!(matches!(events("data: {\n\n"), Err(CallError::Body)));
    }
}
