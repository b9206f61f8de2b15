//! What does a server list when the gateway itself asks? In its own name, with bounds on everything, again and again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pingora::connectors::http::Connector;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::{Governed, Pins, RegistrySettings};
use crate::credential::{Credential, Plan};
use crate::mcp::listing::{OwnAnswer, read_page};
use crate::mcp::{Era, ItemKind};
use crate::net::{Talk, TalkError};
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

impl From<TalkError> for ReadError {
    fn from(error: TalkError) -> Self {
        match error {
            TalkError::NotMcp => Self::NotMcp,
            TalkError::Refused { status } => Self::Refused { status },
            TalkError::TooLarge => Self::TooLarge,
            TalkError::NoFiles | TalkError::Unreachable => Self::Unreachable,
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
    let peer = instance.peer().ok_or(ReadError::NoInstance)?;
    let headers = credential.into_iter().collect();
    let mut talk = Talk::new(connector, peer, instance.host.clone(), &server.config.path, headers, settings.page_bytes);
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
        let (id, asked) = talk.ask(kind.list_method(), params).await;
        let answer = match asked {
            Ok(answer) => answer,
            // A modern server answers 404 to a method that it does not have.
            Err(TalkError::Refused { status: 404 }) if talk.revision().era() == Era::Modern => return Ok(()),
            Err(error) => return Err(error.into()),
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

/// JSON-RPC 2.0 §5.1.
const METHOD_NOT_FOUND: i64 = -32601;

/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_millis(200);

const READS_AT_ONCE: usize = 4;
