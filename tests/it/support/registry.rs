//! The registry of a gateway as another gateway with the same store sees it, and changes it.

use std::path::PathBuf;
use std::time::Duration;

use portcullis::config::{StoreConfig, StorePlace};
use portcullis::mcp::ItemKind;
use portcullis::registry::approval::{Actor, ApprovalRule};
use portcullis::registry::definition::ItemKey;
use portcullis::registry::ledger::{By, Decided, Ledger, Refused};
use portcullis::registry::lifecycle::Action;
use portcullis::registry::record::{ItemRecord, ServerRecord};
use portcullis::secret::Secret;
use portcullis::store::{Batch, Keep, Store};
use portcullis::time::UnixSeconds;

use super::{poll_until, runtime};

/// A colleague at another gateway.
pub struct Registry {
    place: StorePlace,
}

impl Registry {
    pub fn sqlite(path: PathBuf) -> Self {
        Self { place: StorePlace::Sqlite(path) }
    }

    pub fn postgres(url: &str) -> Self {
        Self { place: StorePlace::Postgres(Secret::new(url.to_owned())) }
    }

    /// Approves a server.
    #[track_caller]
    pub fn approve_server(&self, name: &str) {
        self.decide(|ledger| {
            let digest = ledger.server(name).ok_or(Refused::NotFound)?.digest;
            ledger.approve_server(name, digest, &rule(), by())
        });
    }

    /// Approves what waits of a tool, once it is there.
    #[track_caller]
    pub fn approve(&self, server: &str, tool: &str) {
        self.wait_for_waiting(server, tool);
        self.decide(|ledger| {
            let key = tool_key(tool);
            let item = ledger.item(server, &key).ok_or(Refused::NotFound)?;
            let digest = item.waiting.as_ref().ok_or(Refused::NotWaiting)?.digest;
            ledger.approve_item(server, &key, digest, &rule(), by())
        });
    }

    #[track_caller]
    pub fn act_on_server(&self, name: &str, action: Action) {
        self.decide(|ledger| ledger.act_on_server(name, action, by()));
    }

    #[track_caller]
    pub fn act(&self, server: &str, tool: &str, action: Action) {
        self.decide(|ledger| ledger.act_on_item(server, &tool_key(tool), action, by()));
    }

    /// What is kept of a server, once it is.
    #[track_caller]
    pub fn server(&self, name: &str) -> ServerRecord {
        poll_until("the server's record", || self.ledger().server(name).cloned())
    }

    /// What is kept of a tool; none when it is not known.
    pub fn item(&self, server: &str, tool: &str) -> Option<ItemRecord> {
        self.ledger().item(server, &tool_key(tool)).cloned()
    }

    /// How many items are kept of a server.
    pub fn items(&self, server: &str) -> Vec<ItemRecord> {
        self.ledger().items(server).cloned().collect()
    }

    /// The tool's record, once something of it waits.
    #[track_caller]
    pub fn wait_for_waiting(&self, server: &str, tool: &str) -> ItemRecord {
        poll_until(&format!("{tool} to wait for approval"), || {
            self.item(server, tool).filter(|item| item.waiting.is_some())
        })
    }

    fn ledger(&self) -> Ledger {
        runtime().block_on(async {
            let changes = self.open().await.changes(0).await.unwrap();
            let mut ledger = Ledger::default();
            ledger.apply(changes.servers, changes.items);
            ledger
        })
    }

    #[track_caller]
    fn decide(&self, decide: impl Fn(&Ledger) -> Result<Decided, Refused>) {
        poll_until("the gateway to leave the record alone", || {
            let decided = decide(&self.ledger()).unwrap_or_else(|refused| panic!("{refused}"));
            let Decided { servers, items, acts } = decided;
            let batch = Batch { servers, items, acts, ..Batch::default() };
            runtime().block_on(async { self.open().await.commit(&batch, KEEP).await.ok() })
        });
    }

    async fn open(&self) -> Store {
        let config = StoreConfig { place: self.place.clone(), poll: Duration::from_secs(1) };
        Store::open(&config).await.unwrap()
    }
}

fn tool_key(name: &str) -> ItemKey {
    ItemKey::new(ItemKind::Tool, name)
}

fn rule() -> ApprovalRule {
    ApprovalRule { groups: vec!["security".into()], required: 1 }
}

fn by() -> By<'static> {
    let actor = Actor {
        issuer: "https://idp.test".into(),
        subject: "colleague".into(),
        name: None,
        groups: vec!["security".into()],
    };
    By { actor: Box::leak(Box::new(actor)), version: None, reason: "looked at it", at: UnixSeconds(1) }
}

pub const KEEP: Keep = Keep { versions: 100, server_bytes: 64 << 20 };
