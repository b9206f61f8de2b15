//! Which server can tell whether a call was carried out twice, or in the wrong session? An MCP server that knows the sessions
//! it has opened and writes down the number of every call; a process of its own, to be killed.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::backend::{self, Answer};

/// Serves on this port of 127.0.0.1 until the process ends. The numbers of calls are appended to the file, one a line.
pub fn serve(port: &str, journal: &str) {
    let journal = File::options().append(true).create(true).open(journal).unwrap();
    let tools = Tools { port: port.to_owned(), journal, sessions: Mutex::default(), opened: AtomicU64::new(0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(backend::listen(port.parse().expect("PORT"), None, Arc::new(tools)));
}

struct Tools {
    port: String,
    journal: File,
    sessions: Mutex<HashSet<String>>,
    opened: AtomicU64,
}

impl Answer for Tools {
    fn to(&self, head: &[u8], body: &[u8]) -> Cow<'_, [u8]> {
        let head = String::from_utf8_lossy(head);
        let session = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("mcp-session-id").then(|| value.to_owned())
        });
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        if message["method"] == "initialize" {
            return Cow::Owned(self.open_session(&message));
        }
        let mut sessions = self.sessions.lock().unwrap();
        let known = session.filter(|session| sessions.contains(session));
        let Some(session) = known else { return Cow::Borrowed(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n") };
        if head.starts_with("DELETE ") {
            sessions.remove(&session);
            return Cow::Borrowed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        drop(sessions);
        if head.starts_with("GET ") {
            return Cow::Borrowed(STREAM.as_bytes());
        }
        match message["params"]["arguments"]["number"].as_u64() {
            Some(number) => Cow::Owned(self.call(&message, number)),
            None => Cow::Borrowed(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"),
        }
    }
}

impl Tools {
    fn open_session(&self, message: &Value) -> Vec<u8> {
        let id = format!("{}-{}-{}", self.port, std::process::id(), self.opened.fetch_add(1, Ordering::Relaxed));
        let result = json!({
            "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
            "serverInfo": { "name": self.port, "version": "1" },
        });
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        let answer = backend::json(&format!("mcp-session-id: {id}\r\n"), &answer.to_string());
        self.sessions.lock().unwrap().insert(id);
        answer
    }

    fn call(&self, message: &Value, number: u64) -> Vec<u8> {
        writeln!(&self.journal, "{number}").unwrap();
        let result = json!({ "content": [], "structuredContent": { "number": number } });
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        // Every tenth result is a stream of events.
        if number.is_multiple_of(10) {
            let event = format!("event: message\ndata: {answer}\n\n");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked";
            return format!("{head}\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into_bytes();
        }
        backend::json("", &answer.to_string())
    }
}

/// A stream that stays open.
const STREAM: &str = concat!(
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    "e\r\n: the stream\n\n\r\n"
);
