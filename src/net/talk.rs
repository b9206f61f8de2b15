//! How does the gateway itself talk to an MCP server? In its own words, one request after the other, with bounds on everything.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use serde_json::{Value, json};
use tracing::debug;

use crate::config::DiscoveryProtocol;
use crate::mcp::json::{DEPTH_MAX, check};
use crate::mcp::sse::Splitter;
use crate::mcp::{Era, Method, Revision};
use crate::routing::instance::is_lack_of_files;

/// Why a server was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TalkError {
    /// This process, or this machine, may open no more files: that says nothing of the server.
    #[error("no more files may be opened")]
    NoFiles,
    /// What it said is no MCP.
    #[error("its answer is no MCP")]
    NotMcp,
    /// It refused, with a status or an error.
    #[error("it refused")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// More bytes than may be read.
    #[error("there is more than may be read")]
    TooLarge,
    /// It could not be reached, or broke off.
    #[error("it could not be reached")]
    Unreachable,
}

impl TalkError {
    /// Word for metrics and logs: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoFiles => "no_files",
            Self::NotMcp => "not_mcp",
            Self::Refused { .. } => "refused",
            Self::TooLarge => "too_large",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Which message of an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The first that answers anything.
    Any,
    /// The one with this id.
    Id(u64),
    /// None: a notification was sent.
    Nothing,
}

/// A conversation of the gateway's own with an instance.
pub struct Talk<'a> {
    connector: &'a Connector,
    peer: HttpPeer,
    host: HeaderValue,
    path: &'a str,
    /// Go with every request.
    headers: HeaderMap,
    answer_bytes_max: usize,
    revision: Revision,
    /// The session of a legacy revision.
    session: Option<HeaderValue>,
    next_id: u64,
}

impl<'a> Talk<'a> {
    /// With the instance at `peer`, which is sent `host` as `Host` and `headers` with every request. Of an answer at most
    /// `answer_bytes_max` are read. The time it takes is for the caller to bound.
    #[must_use]
    pub fn new(
        connector: &'a Connector,
        peer: HttpPeer,
        host: HeaderValue,
        path: &'a str,
        headers: HeaderMap,
        answer_bytes_max: usize,
    ) -> Self {
        let revision = Revision::V2026_07_28;
        Self { connector, peer, host, path, headers, answer_bytes_max, revision, session: None, next_id: 1 }
    }

    /// The revision that is spoken.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The session that the server has opened.
    #[must_use]
    pub fn session(&self) -> Option<&HeaderValue> {
        self.session.as_ref()
    }

    /// Finds a revision that the server speaks, and opens a session where that has some.
    ///
    /// # Errors
    /// [`TalkError`].
    pub async fn begin(&mut self, protocol: DiscoveryProtocol) -> Result<(), TalkError> {
        if protocol != DiscoveryProtocol::Legacy {
            let (id, asked) = self.ask(Method::ServerDiscover, json!({})).await;
            let is_modern = asked.as_ref().is_ok_and(|answer| result_of(answer, id).is_some());
            match (asked, protocol) {
                _ if is_modern => return Ok(()),
                // What an older server says to a method it does not know; a refusal to talk at all is none of that.
                (
                    Ok(_) | Err(TalkError::Refused { status: 400 | 404..=406 } | TalkError::NotMcp),
                    DiscoveryProtocol::Auto,
                ) => {}
                (Ok(_), _) => return Err(TalkError::NotMcp),
                (Err(error), _) => return Err(error),
            }
        }
        let params = json!({
            "protocolVersion": Revision::V2025_11_25.as_str(),
            "capabilities": {},
            "clientInfo": client_info(),
        });
        self.initialize(params).await
    }

    /// Opens a session (revisions up to 2025-11-25) with these parameters, handshake included.
    ///
    /// # Errors
    /// [`TalkError`].
    pub async fn initialize(&mut self, params: Value) -> Result<(), TalkError> {
        self.revision = Revision::V2025_11_25;
        let (id, answer) = self.ask(Method::Initialize, params).await;
        let result = result_of(&answer?, id).ok_or(TalkError::NotMcp)?;
        let version = result.get("protocolVersion").and_then(Value::as_str).and_then(Revision::parse);
        self.revision = version.filter(|version| version.era() == Era::Legacy).ok_or(TalkError::NotMcp)?;
        let initialized = json!({ "jsonrpc": "2.0", "method": Method::NotificationsInitialized.as_str() });
        self.post(Method::NotificationsInitialized, &initialized, Awaited::Nothing).await.map(drop)
    }

    /// Asks for something whose result says nothing.
    ///
    /// # Errors
    /// [`TalkError`]; one of [`TalkError::NotMcp`] when the answer is an error.
    pub async fn tell(&mut self, method: Method, params: Value) -> Result<(), TalkError> {
        let (id, answer) = self.ask(method, params).await;
        result_of(&answer?, id).map(drop).ok_or(TalkError::NotMcp)
    }

    /// Posts `body`, which somebody else has written, with no headers but those of this talk, and gives the first message that
    /// answers anything.
    ///
    /// # Errors
    /// [`TalkError`].
    pub async fn repeat(&mut self, body: Bytes) -> Result<Bytes, TalkError> {
        let mut head = self.plain_head("POST", Some(body.len()))?;
        insert_all(&mut head, &self.headers)?;
        self.exchange(head, body, Awaited::Any).await?.ok_or(TalkError::NotMcp)
    }

    /// Ends the session, if there is one and the server lets it be ended.
    pub async fn end(&mut self) {
        if self.session.is_some() {
            let head = self.head("DELETE", None);
            let Ok(head) = head else { return };
            let ended = tokio::time::timeout(END_MAX, self.exchange(head, Bytes::new(), Awaited::Nothing)).await;
            debug!(ended = ended.is_ok(), "A session of our own was ended.");
        }
    }

    /// Sends a request. Gives its id, and the message that answers it, as it came.
    pub async fn ask(&mut self, method: Method, mut params: Value) -> (u64, Result<Bytes, TalkError>) {
        let id = self.next_id;
        self.next_id += 1;
        if self.revision.era() == Era::Modern
            && let Some(params) = params.as_object_mut()
        {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": self.revision.as_str(),
                "io.modelcontextprotocol/clientInfo": client_info(),
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            params.insert("_meta".to_owned(), meta);
        }
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method.as_str(), "params": params });
        let answer = self.post(method, &message, Awaited::Id(id)).await;
        (id, answer.and_then(|answer| answer.ok_or(TalkError::NotMcp)))
    }

    async fn post(&mut self, method: Method, message: &Value, awaited: Awaited) -> Result<Option<Bytes>, TalkError> {
        let body = Bytes::from(message.to_string());
        let mut head = self.head("POST", Some(body.len()))?;
        if self.revision.era() == Era::Modern {
            insert(&mut head, MCP_METHOD, HeaderValue::from_static(method.as_str()))?;
        }
        self.exchange(head, body, awaited).await
    }

    fn head(&self, method: &'static str, body_bytes: Option<usize>) -> Result<RequestHeader, TalkError> {
        let mut head = self.plain_head(method, body_bytes)?;
        insert(&mut head, http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT))?;
        // The first message of a legacy conversation names the version in its body alone.
        if self.revision.era() == Era::Modern || self.next_id > 2 || self.session.is_some() {
            insert(&mut head, PROTOCOL_VERSION, HeaderValue::from_static(self.revision.as_str()))?;
        }
        if let Some(session) = &self.session {
            insert(&mut head, SESSION_ID, session.clone())?;
        }
        insert_all(&mut head, &self.headers)?;
        Ok(head)
    }

    fn plain_head(&self, method: &'static str, body_bytes: Option<usize>) -> Result<RequestHeader, TalkError> {
        let head = RequestHeader::build(method, self.path.as_bytes(), None);
        let mut head = head.map_err(|_checked| TalkError::NotMcp)?;
        insert(&mut head, HOST, self.host.clone())?;
        insert(&mut head, ACCEPT, HeaderValue::from_static("application/json, text/event-stream"))?;
        if let Some(bytes) = body_bytes {
            insert(&mut head, CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
            insert(&mut head, http::header::CONTENT_LENGTH, HeaderValue::from(bytes))?;
        }
        Ok(head)
    }

    async fn exchange(
        &mut self,
        head: RequestHeader,
        body: Bytes,
        awaited: Awaited,
    ) -> Result<Option<Bytes>, TalkError> {
        let unreachable = |error: Box<pingora::Error>| {
            debug!(%error, "A server could not be asked.");
            if is_lack_of_files(&error) { TalkError::NoFiles } else { TalkError::Unreachable }
        };
        let (mut http, _reused) = self.connector.get_http_session(&self.peer).await.map_err(unreachable)?;
        http.write_request_header(Box::new(head)).await.map_err(unreachable)?;
        if !body.is_empty() {
            http.write_request_body(body, true).await.map_err(unreachable)?;
        }
        http.finish_request_body().await.map_err(unreachable)?;
        let (status, is_events) = loop {
            http.read_response_header().await.map_err(unreachable)?;
            let answer = http.response_header().ok_or(TalkError::Unreachable)?;
            if answer.status.is_informational() {
                continue;
            }
            if let Some(session) = answer.headers.get(SESSION_ID).filter(|_| self.revision.era() == Era::Legacy) {
                self.session = Some(session.clone());
            }
            let media = answer.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
            break (answer.status, media.is_some_and(|media| media.starts_with(b"text/event-stream")));
        };
        if !status.is_success() {
            return Err(TalkError::Refused { status: status.as_u16() });
        }
        if awaited == Awaited::Nothing {
            return Ok(None);
        }
        let mut events = Splitter::new(self.answer_bytes_max);
        let mut document = BytesMut::new();
        let mut total = 0;
        while let Some(chunk) = http.read_response_body().await.map_err(unreachable)? {
            total += chunk.len();
            if total > self.answer_bytes_max {
                return Err(TalkError::TooLarge);
            }
            if !is_events {
                document.extend_from_slice(&chunk);
                continue;
            }
            events.push(chunk);
            while let Some(piece) = events.next_piece().map_err(|_too_long| TalkError::TooLarge)? {
                if let Some(answer) = piece.event().data.filter(|data| awaited.is_answered_by(data)) {
                    // The rest of the stream is of no interest, and its connection of no further use.
                    http.shutdown().await;
                    return Ok(Some(answer));
                }
            }
        }
        if is_events {
            let last = events.finish().and_then(|piece| piece.event().data);
            return Ok(last.filter(|data| awaited.is_answered_by(data)));
        }
        self.connector.release_http_session(http, &self.peer, Some(KEEPALIVE)).await;
        Ok(Some(document.freeze()))
    }
}

fn insert(head: &mut RequestHeader, name: HeaderName, value: HeaderValue) -> Result<(), TalkError> {
    head.insert_header(name, value).map_err(|_no_memory| TalkError::NotMcp)
}

/// Those of `headers`, in place of what is there.
fn insert_all(head: &mut RequestHeader, headers: &HeaderMap) -> Result<(), TalkError> {
    headers.iter().try_for_each(|(name, value)| insert(head, name.clone(), value.clone()))
}

impl Awaited {
    /// Whether a message is the one.
    fn is_answered_by(self, message: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Envelope {
            #[serde(default)]
            id: Value,
            #[serde(default)]
            method: Option<Value>,
        }
        serde_json::from_slice::<Envelope>(message).is_ok_and(|envelope| {
            envelope.method.is_none()
                && match self {
                    Self::Any => !envelope.id.is_null(),
                    Self::Id(id) => envelope.id.as_u64() == Some(id),
                    Self::Nothing => false,
                }
        })
    }
}

/// The result of the answer to the request with this id; none when it is an error, or cannot be read in only one way.
fn result_of(message: &[u8], id: u64) -> Option<Value> {
    check(message, DEPTH_MAX).ok()?;
    let mut message: Value = serde_json::from_slice(message).ok()?;
    (message.get("id").and_then(Value::as_u64) == Some(id)).then(|| message.get_mut("result").map(Value::take))?
}

fn client_info() -> Value {
    json!({ "name": "portcullis", "version": env!("CARGO_PKG_VERSION") })
}

const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

const END_MAX: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(4);
