//! An MCP client of few words: one method per thing an agent does, in the words of either era.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Answer, Connection, Opened, Request, open, send, send_h2c};

/// The newest legacy revision.
pub const LEGACY: &str = "2025-11-25";
/// The modern revision.
pub const MODERN: &str = "2026-07-28";
/// Every supported revision, oldest first.
pub const REVISIONS: [&str; 4] = ["2025-03-26", "2025-06-18", LEGACY, MODERN];

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Somebody who calls. Speaks the modern revision, over HTTP/1.1, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Caller {
    address: SocketAddr,
    path: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
    h2c: bool,
}

impl Caller {
    pub fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, path: "/mcp".into(), token, headers: Vec::new(), h2c: false }
    }

    /// On another route.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// With one more header on every request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Over HTTP/2 in clear text.
    #[must_use]
    pub fn h2c(mut self) -> Self {
        self.h2c = true;
        self
    }

    /// Calls a tool, modern.
    pub fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Lists tools, modern.
    pub fn list(&self) -> Answer {
        self.request("tools/list", json!({}))
    }

    /// Sends a modern request.
    pub fn request(&self, method: &str, params: Value) -> Answer {
        self.send(&self.modern(method, params))
    }

    /// Sends a modern request and reads its answer piece by piece.
    pub fn open(&self, method: &str, params: Value) -> Opened {
        open(self.address, &self.modern(method, params))
    }

    /// A modern request with everything the revision asks for.
    pub fn modern(&self, method: &str, params: Value) -> Request {
        let body = modern_message(NEXT_ID.fetch_add(1, Ordering::Relaxed), method, params);
        self.modern_post(&body)
    }

    /// A modern POST of this message, with the headers that mirror it.
    pub fn modern_post(&self, message: &Value) -> Request {
        let mut request = self.post(message.to_string()).header("MCP-Protocol-Version", MODERN);
        if let Some(method) = message["method"].as_str() {
            request = request.header("Mcp-Method", method);
        }
        let params = &message["params"];
        if let Some(name) = params["name"].as_str().or_else(|| params["uri"].as_str()) {
            request = request.header("Mcp-Name", name);
        }
        request
    }

    /// A POST with the headers every client sends.
    pub fn post(&self, body: impl Into<Vec<u8>>) -> Request {
        self.dress(
            Request::new("POST", &self.path)
                .header("Content-Type", "application/json")
                .header("Accept", "application/json, text/event-stream")
                .body(body),
        )
    }

    /// A request of any HTTP method, with the token.
    pub fn bare(&self, method: &str) -> Request {
        self.dress(Request::new(method, &self.path))
    }

    fn dress(&self, mut request: Request) -> Request {
        if let Some(token) = &self.token {
            request = request.header("Authorization", &format!("Bearer {token}"));
        }
        request.headers.extend(self.headers.iter().cloned());
        request
    }

    /// Sends a request written by hand.
    pub fn send(&self, request: &Request) -> Answer {
        Answer(if self.h2c { send_h2c(self.address, request) } else { send(self.address, request) })
    }

    /// The bytes of a request as HTTP/1.1.
    pub fn bytes(&self, request: &Request) -> Vec<u8> {
        request.bytes(self.address)
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Opens a session in a legacy revision.
    pub fn initialize(&self, revision: &str) -> Conversation {
        let answer = self.try_initialize(revision);
        let protocol = answer.result()["protocolVersion"].as_str().unwrap().to_owned();
        assert_eq!(protocol, revision);
        let id = answer.header("mcp-session-id").map(str::to_owned);
        let conversation = Conversation { caller: self.clone(), revision: revision.into(), id };
        assert_eq!(conversation.notify("notifications/initialized").status(), 202);
        conversation
    }

    /// Asks for a session in a legacy revision.
    pub fn try_initialize(&self, revision: &str) -> Answer {
        let params = json!({
            "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        self.send(&self.post(legacy_message("initialize", params).to_string()))
    }

    /// A legacy conversation under an id that the test chose.
    pub fn resume(&self, revision: &str, id: Option<&str>) -> Conversation {
        Conversation { caller: self.clone(), revision: revision.into(), id: id.map(str::to_owned) }
    }
}

/// A legacy session from the client's side.
#[derive(Clone, Debug)]
pub struct Conversation {
    caller: Caller,
    revision: String,
    id: Option<String>,
}

impl Conversation {
    pub fn id(&self) -> &str {
        self.id.as_deref().expect("the session has an id")
    }

    pub fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    pub fn list(&self) -> Answer {
        self.request("tools/list", json!({}))
    }

    pub fn request(&self, method: &str, params: Value) -> Answer {
        self.send(legacy_message(method, params))
    }

    pub fn notify(&self, method: &str) -> Answer {
        self.send(json!({ "jsonrpc": "2.0", "method": method }))
    }

    /// Posts any message, or a batch.
    pub fn send(&self, message: Value) -> Answer {
        self.caller.send(&self.dress(self.caller.post(message.to_string())))
    }

    /// Sends a request and reads its answer piece by piece.
    pub fn open(&self, method: &str, params: Value) -> Opened {
        open(self.caller.address, &self.dress(self.caller.post(legacy_message(method, params).to_string())))
    }

    /// Opens the GET stream.
    pub fn get(&self, last_event_id: Option<&str>) -> Opened {
        let mut request = self.dress(self.caller.bare("GET")).header("Accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        open(self.caller.address, &request)
    }

    pub fn try_get(&self) -> Answer {
        self.caller.send(&self.dress(self.caller.bare("GET")).header("Accept", "text/event-stream"))
    }

    /// Ends the session.
    pub fn delete(&self) -> Answer {
        self.caller.send(&self.dress(self.caller.bare("DELETE")))
    }

    fn dress(&self, request: Request) -> Request {
        let request = match self.revision.as_str() {
            // The header came with 2025-06-18.
            "2025-03-26" => request,
            revision => request.header("MCP-Protocol-Version", revision),
        };
        match &self.id {
            Some(id) => request.header("Mcp-Session-Id", id),
            None => request,
        }
    }
}

/// A legacy request.
pub fn legacy_message(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": NEXT_ID.fetch_add(1, Ordering::Relaxed), "method": method, "params": params })
}

/// A modern request with the `_meta` it must carry.
pub fn modern_message(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}
