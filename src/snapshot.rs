//! What did the world look like when this request came in?

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use tokio::sync::watch;

use crate::config::Config;
use crate::policy::quarantine::Quarantines;
use crate::registry::{Catalog, Issuer, Route, Server};
use crate::routing::region::Locator;
use crate::session::{Revocations, Ring};

/// The frozen world of one request. A request takes it once, at its start, and sees no other.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts the configurations this process has served, from 1.
    pub generation: u64,
    /// The configuration it was made from.
    pub config: Arc<Config>,
    /// The session keys.
    pub ring: Arc<Ring>,
    /// Every issuer.
    pub issuers: Vec<Arc<Issuer>>,
    /// Every server.
    pub servers: Vec<Arc<Server>>,
    /// What the registry says of the servers it governs. Empty until it has been read: nothing of them is open then.
    pub catalog: Arc<Catalog>,
    /// What finds out where callers are; `None`: nobody asks.
    pub locator: Option<Arc<Locator>>,
    routes: HashMap<Arc<str>, Arc<Route>>,
    /// Well-known path → RFC 9728 document.
    metadata: HashMap<String, Bytes>,
}

impl Snapshot {
    /// Puts the parts together. `metadata` holds the resource metadata document of each well-known path.
    #[must_use]
    pub fn new(
        generation: u64,
        config: Arc<Config>,
        ring: Arc<Ring>,
        issuers: Vec<Arc<Issuer>>,
        servers: Vec<Arc<Server>>,
        routes: Vec<Arc<Route>>,
        metadata: HashMap<String, Bytes>,
    ) -> Self {
        let routes = routes.into_iter().map(|route| (Arc::clone(&route.config.path), route)).collect();
        Self { generation, config, ring, issuers, servers, catalog: Arc::default(), locator: None, routes, metadata }
    }

    /// The route with exactly this path.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.get(path)
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// The resource metadata document at this well-known path.
    #[must_use]
    pub fn metadata(&self, path: &str) -> Option<Bytes> {
        self.metadata.get(path).cloned()
    }
}

/// The snapshot that new requests get. The control plane swaps it, the data plane reads it: here they meet.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
    /// Held while a snapshot is put in place of another: two who change different parts must not undo each other.
    turn: Mutex<()>,
    generation: watch::Sender<u64>,
    revocations: Revocations,
    quarantines: ArcSwap<Quarantines>,
}

impl Live {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        let generation = watch::Sender::new(first.generation);
        let revocations = Revocations::new(first.config.admin.as_ref().map_or(0, |admin| admin.revocations));
        Self {
            current: ArcSwap::from_pointee(first),
            turn: Mutex::default(),
            generation,
            revocations,
            quarantines: ArcSwap::default(),
        }
    }

    /// The snapshot of this moment, to keep.
    #[must_use]
    pub fn take(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The snapshot of this moment, to look at.
    #[must_use]
    pub fn peek(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Gives `next` to every request that starts from now on, with the catalog that is in force.
    pub fn swap(&self, mut next: Snapshot) {
        let generation = next.generation;
        {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            next.catalog = Arc::clone(&self.current.load().catalog);
            self.current.store(Arc::new(next));
        }
        self.generation.send_replace(generation);
    }

    /// Whose sessions were ended. Not part of a snapshot: it holds for requests that are under way, too.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// What is stopped. Not part of a snapshot either: it holds at once, and for what is under way.
    #[must_use]
    pub fn quarantines(&self) -> Guard<Arc<Quarantines>> {
        self.quarantines.load()
    }

    /// Puts these quarantines in place of all others.
    pub fn stop(&self, quarantines: Quarantines) {
        self.quarantines.store(Arc::new(quarantines));
    }

    /// Gives another catalog, and all else as it is, to every request that starts from now on. That is no other generation:
    /// the configuration is the same.
    pub fn publish(&self, catalog: Arc<Catalog>) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.current.load());
        next.catalog = catalog;
        self.current.store(Arc::new(next));
    }

    /// Tells when the snapshot has been swapped.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
