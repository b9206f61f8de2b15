//! A scripted MCP server of both eras: it records every request it gets, and answers honestly unless told otherwise.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode, Version};
use bytes::Bytes;
use serde_json::{Value, json};

use super::MODERN;
use super::Sts;
use super::host::Host;
use super::idp::random_word;
use super::pieces::{self, Pieces, PiecesBody};

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The instance that got it.
    pub instance: String,
    pub http_method: String,
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body as JSON; null when it is none.
    pub message: Value,
}

impl Seen {
    /// The JSON-RPC method, or for a request without a body the HTTP method.
    pub fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or(&self.http_method)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// What follows `Bearer ` in `Authorization`.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    pub fn tool(&self) -> Option<&str> {
        self.message["params"]["name"].as_str()
    }

    fn is_modern(&self) -> bool {
        self.header("mcp-protocol-version") == Some(MODERN)
    }

    /// Everything that came over the wire, as text, for searching.
    pub fn everything(&self) -> String {
        format!("{} {:?} {}", self.path, self.headers, String::from_utf8_lossy(&self.body))
    }
}

/// What the server answers.
pub enum Reply {
    /// No answer, ever.
    Hang,
    /// This body with these headers.
    Whole { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// A body that comes piece by piece.
    Pieces { status: u16, headers: Vec<(String, String)>, body: PiecesBody },
}

impl Reply {
    /// A JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// The result of a request, in its era's form.
    pub fn result(seen: &Seen, result: Value) -> Self {
        Self::json(200, &message_with_result(seen, result))
    }

    pub fn text(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Whole { status, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    /// A whole stream of events at once, as the bytes say.
    pub fn sse(body: impl Into<Vec<u8>>) -> Self {
        Self::text(200, "text/event-stream", body)
    }

    /// An open stream of events, and what feeds it.
    pub fn stream() -> (Self, Pieces) {
        let (sender, body) = pieces::body();
        let headers = vec![("content-type".into(), "text/event-stream".into())];
        (Self::Pieces { status: 200, headers, body }, sender)
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        match &mut self {
            Self::Whole { headers, .. } | Self::Pieces { headers, .. } => headers.push((name.into(), value.into())),
            Self::Hang => {}
        }
        self
    }
}

/// The JSON-RPC answer with this result, in the era of the request.
pub fn message_with_result(seen: &Seen, mut result: Value) -> Value {
    if seen.is_modern() {
        result["resultType"] = "complete".into();
    }
    json!({ "jsonrpc": "2.0", "id": seen.message["id"], "result": result })
}

type Behaviour = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;
/// Tells good tokens from others.
type Check = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
struct Script {
    tools: Vec<Value>,
    prompts: Vec<String>,
    resources: Vec<String>,
    /// By JSON-RPC method, or `GET`, `DELETE`.
    on: HashMap<String, Behaviour>,
    on_tool: HashMap<String, Behaviour>,
    /// Answers to the next requests of a method.
    next: HashMap<String, VecDeque<Reply>>,
    accepts: Option<Check>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
}

/// One address of the server.
pub struct Instance {
    pub id: String,
    port: u16,
    host: Mutex<Option<Host>>,
    shared: Arc<Shared>,
}

impl Instance {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Ends it with every connection it holds.
    pub fn stop(&self) {
        drop(self.host.lock().unwrap().take());
    }

    /// Starts it again at the same address, knowing no session.
    pub fn restart(&self) {
        *self.host.lock().unwrap() = Some(Host::start(router(&self.id, &self.shared), Some(self.port)));
    }
}

/// The server with its instances `a`, `b`, `c`, ….
pub struct McpServer {
    shared: Arc<Shared>,
    pub instances: Vec<Instance>,
}

impl McpServer {
    pub fn start() -> Self {
        Self::with_instances(1)
    }

    pub fn with_instances(count: u8) -> Self {
        let shared = Arc::new(Shared { script: Mutex::default(), seen: Mutex::default() });
        let instances = (0..count)
            .map(|index| {
                let id = char::from(b'a' + index).to_string();
                let host = Host::start(router(&id, &shared), None);
                let port = host.address().port();
                Instance { id, port, host: Mutex::new(Some(host)), shared: Arc::clone(&shared) }
            })
            .collect();
        Self { shared, instances }
    }

    /// Offers a tool that answers with what it was given.
    #[must_use]
    pub fn tool(self, name: &str) -> Self {
        let tool = json!({ "name": name, "description": format!("tool {name}"), "inputSchema": { "type": "object" } });
        self.shared.script.lock().unwrap().tools.push(tool);
        self
    }

    #[must_use]
    pub fn prompt(self, name: &str) -> Self {
        self.shared.script.lock().unwrap().prompts.push(name.to_owned());
        self
    }

    #[must_use]
    pub fn resource(self, uri: &str) -> Self {
        self.shared.script.lock().unwrap().resources.push(uri.to_owned());
        self
    }

    /// Answers 401 to whoever brings no good token of this exchange server.
    #[must_use]
    pub fn accepting(self, sts: &Sts) -> Self {
        self.shared.script.lock().unwrap().accepts = Some(Arc::new(sts.checker()));
        self
    }

    /// Decides the answers to a JSON-RPC method, or to `GET` or `DELETE`.
    pub fn on(&self, method: &str, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.shared.script.lock().unwrap().on.insert(method.to_owned(), Arc::new(behaviour));
    }

    /// Decides the answers of a tool.
    pub fn on_tool(&self, tool: &str, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.shared.script.lock().unwrap().on_tool.insert(tool.to_owned(), Arc::new(behaviour));
    }

    /// Answers the next request of a method with this.
    pub fn answer_next(&self, method: &str, reply: Reply) {
        self.shared.script.lock().unwrap().next.entry(method.to_owned()).or_default().push_back(reply);
    }

    /// Answers the next request of a method with a stream that the test feeds.
    pub fn stream_next(&self, method: &str) -> Pieces {
        let (reply, pieces) = Reply::stream();
        self.answer_next(method, reply);
        pieces
    }

    /// Every request any instance got, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Those of one method.
    pub fn seen_of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method() == method).collect()
    }

    /// The only request of that method.
    pub fn only(&self, method: &str) -> Seen {
        let mut seen = self.seen_of(method);
        assert_eq!(seen.len(), 1, "requests of {method}: {seen:#?}");
        seen.remove(0)
    }

    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    pub fn assert_saw_nothing(&self) {
        let seen = self.seen();
        assert!(seen.is_empty(), "the server should have seen nothing, but saw {seen:#?}");
    }
}

fn router(id: &str, shared: &Arc<Shared>) -> Router {
    // A fresh set per start: a restarted instance has forgotten its sessions.
    let sessions = Arc::new(Mutex::new(HashSet::new()));
    let (id, shared) = (id.to_owned(), Arc::clone(shared));
    Router::new().fallback(move |request: Request| {
        let (id, shared, sessions) = (id.clone(), Arc::clone(&shared), Arc::clone(&sessions));
        async move { serve(&id, &shared, &sessions, request).await }
    })
}

async fn serve(id: &str, shared: &Shared, sessions: &Mutex<HashSet<String>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::builder().status(StatusCode::BAD_REQUEST).body(Body::empty()).unwrap();
    };
    let seen = Seen {
        instance: id.to_owned(),
        http_method: head.method.to_string(),
        path: head.uri.to_string(),
        version: head.version,
        headers: head.headers,
        message: serde_json::from_slice(&body).unwrap_or_default(),
        body,
    };
    shared.seen.lock().unwrap().push(seen.clone());
    match answer(shared, sessions, &seen) {
        Reply::Hang => std::future::pending().await,
        Reply::Pieces { status, headers, body } => respond(status, headers, Body::new(body)),
        Reply::Whole { status, headers, body } => respond(status, headers, Body::from(body)),
    }
}

fn respond(status: u16, headers: Vec<(String, String)>, body: Body) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body).unwrap()
}

fn answer(shared: &Shared, sessions: &Mutex<HashSet<String>>, seen: &Seen) -> Reply {
    let mut script = shared.script.lock().unwrap();
    if script.accepts.as_ref().is_some_and(|accepts| !seen.bearer().is_some_and(|token| accepts(token))) {
        let challenge = r#"Bearer error="invalid_token", resource_metadata="http://upstream.internal/meta""#;
        return Reply::json(401, &json!({ "error": "upstream says no" })).with("www-authenticate", challenge);
    }
    if let Some(reply) = script.next.get_mut(seen.method()).and_then(VecDeque::pop_front) {
        return reply;
    }
    let by_tool = seen.tool().filter(|_| seen.method() == "tools/call").and_then(|tool| script.on_tool.get(tool));
    if let Some(behaviour) = by_tool.or_else(|| script.on.get(seen.method())).cloned() {
        drop(script);
        return behaviour(seen);
    }
    if seen.is_modern() { modern(&script, seen) } else { legacy(&script, sessions, seen) }
}

fn modern(script: &Script, seen: &Seen) -> Reply {
    let mut result = match seen.method() {
        "server/discover" => json!({ "supportedVersions": [MODERN], "capabilities": { "tools": {} } }),
        "GET" | "DELETE" => return Reply::json(405, &json!({})),
        _ if seen.message.get("id").is_none() => return Reply::text(202, "application/json", ""),
        _ => match common(script, seen, None) {
            Some(result) => result,
            None => return Reply::json(404, &error(seen, -32601, "Method not found")),
        },
    };
    if seen.method().ends_with("list") || seen.method() == "server/discover" || seen.method() == "resources/read" {
        result["ttlMs"] = 60_000.into();
        result["cacheScope"] = "public".into();
    }
    Reply::result(seen, result)
}

fn legacy(script: &Script, sessions: &Mutex<HashSet<String>>, seen: &Seen) -> Reply {
    let mut sessions = sessions.lock().unwrap();
    if seen.method() == "initialize" {
        let id = format!("upstream-{}-{}", seen.instance, random_word());
        sessions.insert(id.clone());
        let result = json!({
            "protocolVersion": seen.message["params"]["protocolVersion"],
            "capabilities": { "tools": {}, "prompts": {}, "resources": {} },
            "serverInfo": { "name": "scripted", "version": "1" },
        });
        return Reply::result(seen, result).with("mcp-session-id", &id);
    }
    let session = seen.header("mcp-session-id");
    if !session.is_some_and(|id| sessions.contains(id)) {
        return Reply::json(404, &error(seen, -32001, "Session not found"));
    }
    match seen.method() {
        "DELETE" => {
            sessions.remove(session.unwrap());
            Reply::text(200, "application/json", "")
        }
        "GET" => Reply::json(405, &json!({})),
        // A 2025-03-26 batch: one answer per request in it.
        _ if seen.message.is_array() => {
            let answers: Vec<_> = seen
                .message
                .as_array()
                .unwrap()
                .iter()
                .filter(|message| message["id"] != Value::Null)
                .map(|message| {
                    let seen = Seen { message: message.clone(), ..seen.clone() };
                    let result = common(script, &seen, session).unwrap();
                    message_with_result(&seen, result)
                })
                .collect();
            Reply::json(200, &Value::Array(answers))
        }
        _ if seen.message.get("id").is_none() || seen.message.get("method").is_none() => {
            Reply::text(202, "application/json", "")
        }
        _ => match common(script, seen, session) {
            Some(result) => Reply::result(seen, result),
            None => Reply::json(200, &error(seen, -32601, "Method not found")),
        },
    }
}

/// What both eras answer alike.
fn common(script: &Script, seen: &Seen, session: Option<&str>) -> Option<Value> {
    let params = &seen.message["params"];
    Some(match seen.method() {
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => json!({}),
        "tools/list" => json!({ "tools": script.tools }),
        "prompts/list" => {
            json!({ "prompts": script.prompts.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>() })
        }
        "resources/list" => {
            let resources = script.resources.iter().map(|uri| json!({ "uri": uri, "name": uri }));
            json!({ "resources": resources.collect::<Vec<_>>() })
        }
        "resources/templates/list" => {
            let templates = script.resources.iter().map(|uri| json!({ "uriTemplate": uri, "name": uri }));
            json!({ "resourceTemplates": templates.collect::<Vec<_>>() })
        }
        "tools/call" => {
            let echo = json!({
                "tool": params["name"], "arguments": params["arguments"], "instance": seen.instance, "session": session,
            });
            json!({ "content": [{ "type": "text", "text": echo.to_string() }] })
        }
        "prompts/get" => json!({ "messages": [] }),
        "resources/read" => json!({ "contents": [{ "uri": params["uri"], "text": "a text" }] }),
        "completion/complete" => json!({ "completion": { "values": ["one"] } }),
        _ => return None,
    })
}

fn error(seen: &Seen, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": seen.message["id"], "error": { "code": code, "message": message } })
}
