//! Is it what was approved? What the registry says of a call, and of each item of a list on its way to a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use tokio::sync::mpsc;

use crate::config::{Governed, Pins};
use crate::mcp::{ItemKind, ListItem, Message, Method, Target};
use crate::registry::catalog::{ServerStanding, Verdict};
use crate::registry::definition::{Definition, Digest, ItemKey};
use crate::registry::ledger::{Observed, Passed, Unreadable};
use crate::registry::record::Cause;
use crate::registry::{Route, Server};
use crate::snapshot::Snapshot;
use crate::time::UnixSeconds;

use super::Shell;
use super::pipeline::Ask;
use super::record::Record;
use super::rejection::Rejection;

/// Refuses what the registry keeps back: everything of a server that is not approved, and calls of items that are not.
///
/// # Errors
/// [`Rejection::ServerSuspended`] and [`Rejection::ToolQuarantined`].
pub(super) fn check(
    shell: &Shell,
    world: &Snapshot,
    route: &Route,
    ask: &Ask,
    record: &mut Record,
) -> Result<(), Rejection> {
    let server = &route.server;
    let Some(governed) = &server.config.governed else { return Ok(()) };
    let standing = world.catalog.server(server.name()).filter(|standing| standing.is_open());
    let Some(standing) = standing else { return Err(Rejection::ServerSuspended) };
    if governed.pins == Pins::Off {
        return Ok(());
    }
    for message in ask.messages() {
        let cause = match judge(governed, standing, message) {
            Verdict::Open => continue,
            Verdict::Quarantined(cause) => Some(cause),
            Verdict::Suspended => None,
        };
        // What somebody has taken out of use stays out of use, whatever becomes of what nobody has looked at.
        let passes = governed.pins == Pins::Warn && cause.is_some();
        shell.metrics.registry_call(server.name(), cause.map_or("suspended", Cause::label), passes);
        if !passes {
            return Err(Rejection::ToolQuarantined(cause));
        }
        record.passed_unapproved();
    }
    Ok(())
}

fn judge(governed: &Governed, standing: &ServerStanding, message: &Message) -> Verdict {
    let (kind, name) = match &message.target {
        Target::Prompt(name) => (ItemKind::Prompt, name),
        Target::Resource(uri) => (ItemKind::Resource, uri),
        Target::Tool(name) => (ItemKind::Tool, name),
        Target::None | Target::Task(_) => return Verdict::Open,
    };
    // `completion/complete` names a template by its text.
    if kind == ItemKind::Resource
        && message.method() == Some(Method::CompletionComplete)
        && standing.call(ItemKind::ResourceTemplate, name) == Verdict::Open
    {
        return Verdict::Open;
    }
    if governed.kinds.contains(&kind) { standing.call(kind, name) } else { Verdict::Open }
}

/// What looks at the items of one answer.
pub(super) struct Inspection<'a> {
    shell: &'a Shell,
    server: &'a Arc<Server>,
    governed: Option<&'a Governed>,
    standing: Option<&'a Arc<ServerStanding>>,
    definition_bytes_max: usize,
    now: UnixSeconds,
    /// What was never seen before.
    unseen: Vec<Observed>,
}

impl<'a> Inspection<'a> {
    /// Of an answer of this server.
    pub(super) fn new(shell: &'a Shell, world: &'a Snapshot, server: &'a Arc<Server>, now: UnixSeconds) -> Self {
        let governed = server.config.governed.as_ref().filter(|governed| governed.pins != Pins::Off);
        let standing = governed.and_then(|_| world.catalog.server(server.name()));
        let definition_bytes_max = world.config.registry.definition_bytes;
        Self { shell, server, governed, standing, definition_bytes_max, now, unseen: Vec::new() }
    }

    /// Whether an item may be shown, by its definition as it stands in the list.
    pub(super) fn shows(&mut self, item: &ListItem<'_>, text: &str) -> bool {
        let Some(governed) = self.governed else { return true };
        let (kind, name) = match item {
            ListItem::Prompt { name } => (ItemKind::Prompt, *name),
            ListItem::Resource { uri } => (ItemKind::Resource, *uri),
            ListItem::ResourceTemplate { uri_template } => (ItemKind::ResourceTemplate, *uri_template),
            ListItem::Tool { name, .. } => (ItemKind::Tool, *name),
        };
        if !governed.kinds.contains(&kind) {
            return true;
        }
        let passes = governed.pins == Pins::Warn;
        let Some(standing) = self.standing else { return passes };
        let known = self.shell.digests.of(kind, text, self.definition_bytes_max);
        let listed = standing.listed(kind, name, known.digest());
        let is_news = listed.is_unseen || known.digest().is_none();
        if is_news && known.is_to_be_told(self.now) {
            let definition = Definition::read(kind, text, self.definition_bytes_max)
                .map_err(|error| Unreadable { error, digest: Digest::of(text.as_bytes()) });
            self.unseen.push(Observed { key: ItemKey::new(kind, name), definition });
        }
        match listed.verdict {
            Verdict::Open => true,
            Verdict::Quarantined(_) => passes,
            Verdict::Suspended => false,
        }
    }
}

impl Drop for Inspection<'_> {
    /// Hands on what was never seen before. A queue that is full drops it: it stays hidden, and the next list shows it again.
    fn drop(&mut self) {
        let items = std::mem::take(&mut self.unseen);
        let Some(observer) = self.shell.observer.as_ref().filter(|_| !items.is_empty()) else { return };
        let passed = Passed { server: Arc::clone(self.server.name()), items };
        if observer.try_send(passed).is_err() {
            self.shell.metrics.registry_observations_dropped();
        }
    }
}

/// Where lists that pass are handed to whoever looks at them.
pub type Observer = mpsc::Sender<Passed>;

/// The digests of definitions, by their very bytes: a list that comes again costs one hash an item. Bounded.
pub(super) struct Digests(Cache<[u8; 32], Arc<Known>>);

/// What is known of some bytes.
pub(super) struct Known {
    /// None when they are no definition that can be read.
    digest: Option<Digest>,
    /// When they were last handed on, in seconds since 1970.
    told_at: AtomicU64,
}

impl Digests {
    /// Keeps at most `entries_max`.
    pub(super) fn new(entries_max: usize) -> Self {
        Self(Cache::new(entries_max))
    }

    fn of(&self, kind: ItemKind, text: &str, bytes_max: usize) -> Arc<Known> {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(kind.label().as_bytes());
        hash.update(text.as_bytes());
        let mut key = [0; 32];
        // SHA-256 has 32 bytes.
        for (to, from) in key.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        if let Some(known) = self.0.get(&key) {
            return known;
        }
        let digest = Definition::read(kind, text, bytes_max).ok().map(|definition| definition.digest());
        let known = Arc::new(Known { digest, told_at: AtomicU64::new(0) });
        self.0.insert(key, Arc::clone(&known));
        known
    }
}

impl Known {
    fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether it is time to hand it on: a list that many callers ask for is handed on once in a while.
    fn is_to_be_told(&self, now: UnixSeconds) -> bool {
        let told_at = self.told_at.load(Ordering::Relaxed);
        if now.0 < told_at.saturating_add(TELL_SECONDS) {
            return false;
        }
        self.told_at.compare_exchange(told_at, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How long a definition that was handed on is not handed on again.
const TELL_SECONDS: u64 = 2;

/// Definitions whose digests are kept.
pub(super) const DIGESTS_MAX: usize = 65_536;
