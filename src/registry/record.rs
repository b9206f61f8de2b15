//! What is kept of a server and of each thing it offers?

use serde::{Deserialize, Serialize};

use crate::time::UnixSeconds;

use super::approval::{Actor, Approval};
use super::definition::{Digest, ItemKey};
use super::lifecycle::State;
use super::scan::Finding;

/// Who declared a server, and so may change its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The admin API.
    Api,
    /// The configuration file: read-only in the API.
    File,
}

/// What a server registered through the API is: JSON in the shape of the configuration file's entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// As an entry of `servers`.
    pub server: Box<str>,
    /// As an entry of `routes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<str>>,
}

/// A server that the registry governs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Counts the changes of this record, from 1: its `ETag`.
    pub version: u64,
    /// Who declared it.
    pub origin: Origin,
    /// Where it stands.
    pub state: State,
    /// What is to be approved: of the spec, or of the name for a server of the configuration file.
    pub digest: Digest,
    /// What it is; none for a server of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
    /// What was approved and serves, where [`Self::spec`] waits for its approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Spec>,
    /// When enough people had approved it; none while they have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<UnixSeconds>,
    /// Approvals of what it is, also of those that do not suffice yet.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// Who entered it, or changed it last.
    pub registrant: Actor,
    /// When it was entered.
    pub registered_at: UnixSeconds,
    /// When its state changed last.
    pub changed_at: UnixSeconds,
}

/// A definition that was approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Of it.
    pub digest: Digest,
    /// By whom.
    pub approvals: Vec<Approval>,
    /// When the last of them came.
    pub at: UnixSeconds,
}

/// A definition that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Of it.
    pub digest: Digest,
    /// Why it waits.
    pub cause: Cause,
    /// Whose name it looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alike: Option<Alike>,
    /// Since when.
    pub since: UnixSeconds,
    /// Why it is not kept, so that nobody can look at it and nobody can approve it; none for one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<NotKept>,
    /// What the scan has found in it.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Approvals that do not suffice yet.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

/// Why a definition is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotKept {
    /// It has more bytes than `registry.definition_bytes`.
    TooLarge,
    /// It cannot be read in only one way: a key twice, nested too deeply.
    Unreadable,
}

/// An item of some server, named to somebody who looks at another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// Its server.
    pub server: Box<str>,
    /// The item.
    #[serde(flatten)]
    pub key: ItemKey,
}

/// Why an item is kept from callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It is not what was approved.
    Changed,
    /// It is new, and its name could be taken for another's.
    LookAlike,
    /// It was never approved.
    New,
    /// Its server is not approved.
    ServerNotApproved,
}

/// An item of a governed server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Its server.
    pub server: Box<str>,
    /// What it is.
    pub key: ItemKey,
    /// Counts the changes of this record, from 1: its `ETag`.
    pub version: u64,
    /// Where it stands.
    pub state: State,
    /// What was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// What waits for approval. An item with one is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Since when the server does not list it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<UnixSeconds>,
    /// Whether the gateway's own reading has listed it, so that its absence there means something.
    #[serde(default)]
    pub was_read: bool,
    /// Definitions that were retired: never approved again.
    #[serde(default)]
    pub retired: Vec<Digest>,
    /// When it was first seen.
    pub registered_at: UnixSeconds,
    /// When its state changed last.
    pub changed_at: UnixSeconds,
}

/// Something that was done, for the history of a server or an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// The server.
    pub server: Box<str>,
    /// The item; none when it was done to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemKey>,
    /// What: a word of a fixed set.
    pub what: Box<str>,
    /// Of which definition or spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Where that led.
    pub state: State,
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: UnixSeconds,
    /// Why, in their words.
    #[serde(default)]
    pub reason: Box<str>,
}

impl Spec {
    /// What it is recognized by. Both parts are canonical JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let route = self.route.as_deref().unwrap_or("null");
        Digest::of(format!("{{\"route\":{route},\"server\":{}}}", self.server).as_bytes())
    }
}

impl ServerRecord {
    /// What stands for a server of the configuration file: its settings are the operator's, its name is what is approved.
    #[must_use]
    pub fn digest_of_name(name: &str) -> Digest {
        Digest::of(format!("server {name}").as_bytes())
    }

    /// What serves: the spec that was approved.
    #[must_use]
    pub fn in_force(&self) -> Option<&Spec> {
        match self.state {
            State::Approved | State::Suspended => self.approved.as_ref(),
            State::Registered | State::Retired => None,
        }
    }

    /// Whether a changed spec waits for its approval.
    #[must_use]
    pub fn is_change_pending(&self) -> bool {
        self.state == State::Approved && self.origin == Origin::Api && self.spec != self.approved
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Changed, Self::LookAlike, Self::New, Self::ServerNotApproved];

    /// The word in records, metrics and answers.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::LookAlike => "look_alike",
            Self::New => "new",
            Self::ServerNotApproved => "server_not_approved",
        }
    }
}

impl ItemRecord {
    /// The digest that a list must show for the item to be passed on; none while it may not be.
    #[must_use]
    pub fn approved_digest(&self) -> Option<Digest> {
        let is_open = self.state == State::Approved && self.waiting.is_none();
        self.pin.as_ref().filter(|_| is_open).map(|pin| pin.digest)
    }

    /// The word for where it stands as a whole: `approved`, `missing`, `quarantined`, `retired` or `suspended`.
    #[must_use]
    pub fn standing(&self) -> &'static str {
        match self.state {
            State::Retired => "retired",
            State::Suspended => "suspended",
            State::Registered => "quarantined",
            State::Approved if self.waiting.is_some() => "quarantined",
            State::Approved if self.missing_since.is_some() => "missing",
            State::Approved => "approved",
        }
    }

    /// Every [`Self::standing`].
    pub const STANDINGS: [&'static str; 5] = ["approved", "missing", "quarantined", "retired", "suspended"];
}
