//! What does a server list when the gateway itself asks? In its own name, with bounds on everything, again and again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::config::{DiscoveryProtocol, Governed, Pins, RegistrySettings};
use crate::credential::{Credential, Plan};
use crate::mcp::json::{DEPTH_MAX, check};
use crate::mcp::listing::{OwnAnswer, read_page};
use crate::mcp::sse::Splitter;
use crate::mcp::{Era, ItemKind, Method, Revision};
use crate::registry::Server;
use crate::registry::definition::{Definition, Digest, ItemKey};
use crate::registry::ledger::{Observed, Seer, Unreadable};
use crate::registry::lifecycle::State;
use crate::snapshot::Snapshot;

use super::{Inner, LastRead};

/// Why the lists of a server could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ReadError {
    /// What it said is no MCP.
    #[error("its answer is no MCP")]
    NotMcp,
    /// No instance takes work.
    #[error("no instance takes work")]
    NoInstance,
    /// It refused, with a status or an error.
    #[error("it refused")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// More bytes, or pages, than may be read.
    #[error("there is more than may be read")]
    TooLarge,
    /// It could not be reached, or broke off.
    #[error("it could not be reached")]
    Unreachable,
}

impl ReadError {
    fn label(self) -> &'static str {
        match self {
            Self::NoInstance => "no_instance",
            Self::NotMcp => "not_mcp",
            Self::Refused { .. } => "refused",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Reads the lists of every governed server of the live snapshot, each on the refresh interval and at once when it is new
/// there; at most [`READS_AT_ONCE`] at a time.
pub(super) async fn keep_reading(inner: Arc<Inner>) {
    let mut due: HashMap<Arc<str>, Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let turns = Arc::new(Semaphore::new(READS_AT_ONCE));
    let connector = Arc::new(Connector::new(None));
    let mut reads = JoinSet::new();
    loop {
        ticks.tick().await;
        while reads.try_join_next().is_some() {}
        let world = inner.live.take();
        let is_read =
            |server: &&Arc<Server>| inner.state_of(server.name()) == Some(State::Approved) && is_governed(server);
        let servers: Vec<Arc<Server>> = world.servers.iter().filter(is_read).cloned().collect();
        due.retain(|name, _at| servers.iter().any(|server| server.name() == name));
        for server in servers {
            let now = Instant::now();
            let at = due.entry(Arc::clone(server.name())).or_insert(now);
            if now < *at {
                continue;
            }
            *at = now + world.config.registry.refresh;
            let (inner, world, turns, connector) =
                (Arc::clone(&inner), Arc::clone(&world), Arc::clone(&turns), Arc::clone(&connector));
            reads.spawn(async move {
                let Ok(_turn) = turns.acquire().await else { return };
                read_once(&inner, &world, &server, &connector).await;
            });
        }
    }
}

/// Whether the lists of a server are read: one that is not approved is not even asked.
fn is_governed(server: &Server) -> bool {
    let governed = server.config.governed.as_ref();
    governed.is_some_and(|governed| governed.pins != Pins::Off && governed.discovery.is_some())
}

async fn read_once(inner: &Inner, world: &Snapshot, server: &Server, connector: &Connector) {
    let Some(governed) = &server.config.governed else { return };
    let settings = &world.config.registry;
    let read = tokio::time::timeout(settings.read_timeout, read_lists(server, governed, settings, connector));
    let read = read.await.unwrap_or(Err(ReadError::Timeout));
    let outcome = read.as_ref().map_or_else(|error| error.label(), |_items| "ok");
    inner.metrics.registry_read(server.name(), outcome);
    let last = LastRead { at: inner.clock.now(), outcome };
    let before = {
        let mut reads = inner.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.insert((&**server.name()).into(), last)
    };
    let has_turned = before.map(|before| before.outcome) != Some(outcome);
    match read {
        Ok(items) => {
            if has_turned {
                info!(server = %server.name(), items = items.len(), "The server's lists were read.");
            }
            inner.observe(server.name(), items, Seer::Reader).await;
        }
        Err(error) if has_turned => {
            warn!(server = %server.name(), %error, "The server's lists could not be read.");
        }
        Err(_) => {}
    }
}

/// Reads every governed list of a server, whole.
async fn read_lists(
    server: &Server,
    governed: &Governed,
    settings: &RegistrySettings,
    connector: &Connector,
) -> Result<Vec<Observed>, ReadError> {
    let now = std::time::Instant::now();
    let (instance, _turn) = server.pool.pick(now).ok_or(ReadError::NoInstance)?;
    let Some(discovery) = &governed.discovery else { return Ok(Vec::new()) };
    let credential = match &discovery.credential {
        Plan::Static { header, secret } => {
            let credential = Credential::from_static(header.clone(), secret).map_err(|_checked| ReadError::NotMcp)?;
            Some((credential.header().clone(), credential.value().clone()))
        }
        Plan::None | Plan::TokenExchange(_) => None,
    };
    let mut talk = Talk {
        connector,
        peer: instance.peer().ok_or(ReadError::NoInstance)?,
        host: instance.host.clone(),
        path: &server.config.path,
        credential,
        page_bytes: settings.page_bytes,
        revision: Revision::V2026_07_28,
        session: None,
        next_id: 1,
    };
    talk.begin(discovery.protocol).await?;
    let mut items = Vec::new();
    let mut outcome = Ok(());
    for kind in &governed.kinds {
        outcome = read_list(&mut talk, *kind, settings, &mut items).await;
        if outcome.is_err() {
            break;
        }
    }
    talk.end().await;
    outcome.map(|()| items)
}

async fn read_list(
    talk: &mut Talk<'_>,
    kind: ItemKind,
    settings: &RegistrySettings,
    items: &mut Vec<Observed>,
) -> Result<(), ReadError> {
    let mut cursor: Option<Box<str>> = None;
    for _page in 0..settings.pages {
        let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
        let id = talk.next_id;
        let answer = match talk.ask(kind.list_method(), params).await {
            Ok(answer) => answer,
            // A modern server answers 404 to a method that it does not have.
            Err(ReadError::Refused { status: 404 }) if talk.revision.era() == Era::Modern => return Ok(()),
            Err(error) => return Err(error),
        };
        let page = match read_page(kind, id, &answer).map_err(|_unreadable| ReadError::NotMcp)? {
            OwnAnswer::Result(page) => page,
            // A server without such things says so.
            OwnAnswer::Error(METHOD_NOT_FOUND) => return Ok(()),
            OwnAnswer::Error(_) => return Err(ReadError::Refused { status: 200 }),
        };
        for (name, text) in page.items {
            let Some(name) = name else { continue };
            let definition = Definition::read(kind, &text, settings.definition_bytes)
                .map_err(|error| Unreadable { error, digest: Digest::of(text.as_bytes()) });
            items.push(Observed { key: ItemKey::new(kind, &name), definition });
        }
        // A server that lists without end is stopped; what is over the bound of items is not kept anyway.
        if items.len() > settings.items.saturating_mul(2) {
            return Err(ReadError::TooLarge);
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
    Err(ReadError::TooLarge)
}

/// A conversation of the gateway's own with an instance.
struct Talk<'a> {
    connector: &'a Connector,
    peer: HttpPeer,
    host: HeaderValue,
    path: &'a str,
    credential: Option<(HeaderName, HeaderValue)>,
    page_bytes: usize,
    revision: Revision,
    /// The session of a legacy revision.
    session: Option<HeaderValue>,
    next_id: u64,
}

impl Talk<'_> {
    /// Finds a revision that the server speaks, and opens a session where that has some.
    async fn begin(&mut self, protocol: DiscoveryProtocol) -> Result<(), ReadError> {
        if protocol != DiscoveryProtocol::Legacy {
            let id = self.next_id;
            let asked = self.ask(Method::ServerDiscover, json!({})).await;
            let is_modern = asked.as_ref().is_ok_and(|answer| result_of(answer, id).is_some());
            match (asked, protocol) {
                _ if is_modern => return Ok(()),
                // What an older server says to a method it does not know; a refusal to talk at all is none of that.
                (
                    Ok(_) | Err(ReadError::Refused { status: 400 | 404..=406 } | ReadError::NotMcp),
                    DiscoveryProtocol::Auto,
                ) => {}
                (Ok(_), _) => return Err(ReadError::NotMcp),
                (Err(error), _) => return Err(error),
            }
        }
        self.revision = Revision::V2025_11_25;
        let id = self.next_id;
        let params = json!({
            "protocolVersion": self.revision.as_str(),
            "capabilities": {},
            "clientInfo": client_info(),
        });
        let answer = self.ask(Method::Initialize, params).await?;
        let result = result_of(&answer, id).ok_or(ReadError::NotMcp)?;
        let version = result.get("protocolVersion").and_then(Value::as_str).and_then(Revision::parse);
        self.revision = version.filter(|version| version.era() == Era::Legacy).ok_or(ReadError::NotMcp)?;
        let initialized = json!({ "jsonrpc": "2.0", "method": Method::NotificationsInitialized.as_str() });
        self.post(Method::NotificationsInitialized, &initialized, None).await.map(drop)
    }

    /// Ends the session, if there is one and the server lets it be ended.
    async fn end(&mut self) {
        if self.session.is_some() {
            let head = self.head("DELETE", None);
            let Ok(head) = head else { return };
            let ended = tokio::time::timeout(END_MAX, self.exchange(head, Bytes::new(), None)).await;
            debug!(ended = ended.is_ok(), "A reading's session was ended.");
        }
    }

    /// Sends a request and gives back the message that answers it, which can be read in only one way.
    async fn ask(&mut self, method: Method, mut params: Value) -> Result<Bytes, ReadError> {
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
        self.post(method, &message, Some(id)).await?.ok_or(ReadError::NotMcp)
    }

    /// `awaited` is the id whose answer is waited for; none for a notification.
    async fn post(
        &mut self,
        method: Method,
        message: &Value,
        awaited: Option<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        let body = Bytes::from(message.to_string());
        let mut head = self.head("POST", Some(body.len()))?;
        if self.revision.era() == Era::Modern {
            insert(&mut head, MCP_METHOD, HeaderValue::from_static(method.as_str()))?;
        }
        self.exchange(head, body, awaited).await
    }

    fn head(&self, method: &'static str, body_bytes: Option<usize>) -> Result<RequestHeader, ReadError> {
        let head = RequestHeader::build(method, self.path.as_bytes(), None);
        let mut head = head.map_err(|_checked| ReadError::NotMcp)?;
        insert(&mut head, HOST, self.host.clone())?;
        insert(&mut head, ACCEPT, HeaderValue::from_static("application/json, text/event-stream"))?;
        insert(&mut head, http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT))?;
        if let Some(bytes) = body_bytes {
            insert(&mut head, CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
            insert(&mut head, http::header::CONTENT_LENGTH, HeaderValue::from(bytes))?;
        }
        // The first message of a legacy conversation names the version in its body alone.
        if self.revision.era() == Era::Modern || self.next_id > 2 || self.session.is_some() {
            insert(&mut head, PROTOCOL_VERSION, HeaderValue::from_static(self.revision.as_str()))?;
        }
        if let Some(session) = &self.session {
            insert(&mut head, SESSION_ID, session.clone())?;
        }
        if let Some((name, value)) = &self.credential {
            insert(&mut head, name.clone(), value.clone())?;
        }
        Ok(head)
    }

    async fn exchange(
        &mut self,
        head: RequestHeader,
        body: Bytes,
        awaited: Option<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        let unreachable = |error: Box<pingora::Error>| {
            debug!(%error, "A server could not be asked.");
            ReadError::Unreachable
        };
        let (mut http, _reused) = self.connector.get_http_session(&self.peer).await.map_err(unreachable)?;
        http.write_request_header(Box::new(head)).await.map_err(unreachable)?;
        if !body.is_empty() {
            http.write_request_body(body, true).await.map_err(unreachable)?;
        }
        http.finish_request_body().await.map_err(unreachable)?;
        let (status, is_events) = loop {
            http.read_response_header().await.map_err(unreachable)?;
            let answer = http.response_header().ok_or(ReadError::Unreachable)?;
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
            return Err(ReadError::Refused { status: status.as_u16() });
        }
        let Some(id) = awaited else { return Ok(None) };
        let mut events = Splitter::new(self.page_bytes);
        let mut document = BytesMut::new();
        let mut total = 0;
        while let Some(chunk) = http.read_response_body().await.map_err(unreachable)? {
            total += chunk.len();
            if total > self.page_bytes {
                return Err(ReadError::TooLarge);
            }
            if !is_events {
                document.extend_from_slice(&chunk);
                continue;
            }
            events.push(chunk);
            while let Some(piece) = events.next_piece().map_err(|_too_long| ReadError::TooLarge)? {
                if let Some(answer) = piece.event().data.filter(|data| answers(data, id)) {
                    // The rest of the stream is of no interest, and its connection of no further use.
                    http.shutdown().await;
                    return Ok(Some(answer));
                }
            }
        }
        if is_events {
            let last = events.finish().and_then(|piece| piece.event().data);
            return Ok(last.filter(|data| answers(data, id)));
        }
        self.connector.release_http_session(http, &self.peer, Some(KEEPALIVE)).await;
        Ok(Some(document.freeze()))
    }
}

fn insert(head: &mut RequestHeader, name: HeaderName, value: HeaderValue) -> Result<(), ReadError> {
    head.insert_header(name, value).map_err(|_no_memory| ReadError::NotMcp)
}

/// Whether a message answers the request with this id.
fn answers(message: &[u8], id: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct Envelope {
        #[serde(default)]
        id: Value,
        #[serde(default)]
        method: Option<Value>,
    }
    serde_json::from_slice::<Envelope>(message)
        .is_ok_and(|envelope| envelope.method.is_none() && envelope.id.as_u64() == Some(id))
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

/// JSON-RPC 2.0 §5.1.
const METHOD_NOT_FOUND: i64 = -32601;

/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_millis(200);

const READS_AT_ONCE: usize = 4;
const END_MAX: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(4);
