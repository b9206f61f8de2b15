//! What is told of servers and items?

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::mcp::ItemKind;
use crate::registry::approval::{Actor, Approval};
use crate::registry::definition::{Digest, ItemKey, kind_label};
use crate::registry::diff::Change;
use crate::registry::lifecycle::State;
use crate::registry::record::{Alike, Cause, ItemRecord, Origin, Pin, ServerRecord, Spec, Waiting};
use crate::time::UnixSeconds;

/// A part of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Paged<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What the next page is asked with; none when this is the last.
    pub next: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// [`Paged::next`] of the page before; none for the first.
    pub after: Option<String>,
    /// How many entries; at most [`PAGE_MAX`].
    pub limit: Option<usize>,
}

/// The most entries of a page.
pub const PAGE_MAX: usize = 200;

const PAGE_USUAL: usize = 50;

impl Page {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_USUAL).clamp(1, PAGE_MAX)
    }
}

/// A server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerView {
    /// Its name.
    pub name: Box<str>,
    /// Its `ETag`.
    pub version: u64,
    /// Who declared it.
    pub origin: Origin,
    /// Where it stands.
    pub state: State,
    /// Whether it is approved and part of what serves.
    pub deployed: bool,
    /// Why it does not serve though it is approved.
    pub problems: Vec<String>,
    /// What is to be approved: the digest to send with the approval.
    pub digest: Digest,
    /// Whether a change waits for approval while what was approved serves.
    pub change_pending: bool,
    /// What it is; none for a server of the configuration file.
    pub spec: Option<SpecView>,
    /// What serves, where a change waits.
    pub approved_spec: Option<SpecView>,
    /// Approvals of the digest.
    pub approvals: Vec<Approval>,
    /// How many more people must approve.
    pub approvals_missing: usize,
    /// Who entered it, or changed it last.
    pub registrant: Actor,
    /// When it was entered.
    pub registered_at: UnixSeconds,
    /// When its state changed last.
    pub changed_at: UnixSeconds,
    /// How many of its items stand where: `approved`, `missing`, `quarantined`, `retired`, `suspended`.
    pub items: BTreeMap<&'static str, usize>,
    /// What came of reading its lists last, on this gateway.
    pub last_read: Option<LastRead>,
}

/// What a registered server is.
#[derive(Clone, Debug, Serialize)]
pub struct SpecView {
    /// As an entry of `servers`.
    pub server: Option<Box<RawValue>>,
    /// As an entry of `routes`.
    pub route: Option<Box<RawValue>>,
}

/// What came of reading a server's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LastRead {
    /// When.
    pub at: UnixSeconds,
    /// `ok`, or why not: a word of a fixed set.
    pub outcome: &'static str,
}

/// An item.
#[derive(Clone, Debug, Serialize)]
pub struct ItemView {
    /// Its server.
    pub server: Box<str>,
    /// What it is.
    #[serde(with = "kind_label")]
    pub kind: ItemKind,
    /// What its server calls it: data of a stranger.
    pub name: Box<str>,
    /// The name in base64url without padding, for addresses.
    pub id: String,
    /// Its `ETag`.
    pub version: u64,
    /// Where it stands.
    pub state: State,
    /// Where it stands as a whole: `approved`, `missing`, `quarantined`, `retired` or `suspended`.
    pub standing: &'static str,
    /// Whether callers may use it.
    pub deployed: bool,
    /// Why callers may not, when it is kept back.
    pub cause: Option<Cause>,
    /// Whose name it looks like.
    pub alike: Option<Alike>,
    /// What was approved.
    pub pin: Option<Pin>,
    /// What waits for approval, with the digest to send and what the scan has found.
    pub waiting: Option<Waiting>,
    /// How many more people must approve what waits.
    pub approvals_missing: usize,
    /// Since when the server does not list it.
    pub missing_since: Option<UnixSeconds>,
    /// When it was first seen.
    pub registered_at: UnixSeconds,
    /// When its state changed last.
    pub changed_at: UnixSeconds,
}

/// An item with what it says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct ItemDetail {
    /// The item.
    #[serde(flatten)]
    pub item: ItemView,
    /// The definition that waits, else the pinned one; none when it is not kept.
    pub definition: Option<Box<RawValue>>,
    /// The pinned definition.
    pub pinned_definition: Option<Box<RawValue>>,
    /// From the pinned to the waiting one.
    pub changes: Vec<Change>,
}

/// Something that waits for an approval.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Pending {
    /// A definition.
    Item(Box<ItemDetail>),
    /// A server, or a change of one.
    Server(Box<ServerView>),
}

/// Which items are wanted.
#[derive(Clone, Debug, Default)]
pub struct ItemFilter {
    /// Of this kind.
    pub kind: Option<ItemKind>,
    /// That stand so: one of [`ItemRecord::STANDINGS`].
    pub standing: Option<String>,
}

/// The name of an item in addresses.
#[must_use]
pub fn id_of(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// The item that an address names; none when it is no such address.
#[must_use]
pub fn key_of(kind: &str, id: &str) -> Option<ItemKey> {
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(id).ok()?).ok()?;
    Some(ItemKey::new(ItemKind::named(kind)?, &name))
}

impl SpecView {
    pub(super) fn of(spec: &Spec) -> Self {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
        Self { server: raw(&spec.server), route: spec.route.as_deref().and_then(raw) }
    }
}

impl ItemView {
    pub(super) fn of(item: &ItemRecord, server: Option<&ServerRecord>, missing: impl Fn(&Waiting) -> usize) -> Self {
        let is_server_open = server.is_some_and(|server| server.state == State::Approved);
        let own_cause = item.waiting.as_ref().map(|waiting| waiting.cause);
        Self {
            server: item.server.clone(),
            kind: item.key.kind,
            name: item.key.name.clone(),
            id: id_of(&item.key.name),
            version: item.version,
            state: item.state,
            standing: item.standing(),
            deployed: is_server_open && item.approved_digest().is_some(),
            cause: own_cause.or((!is_server_open).then_some(Cause::ServerNotApproved)),
            alike: item.waiting.as_ref().and_then(|waiting| waiting.alike.clone()),
            pin: item.pin.clone(),
            waiting: item.waiting.clone(),
            approvals_missing: item.waiting.as_ref().map_or(0, missing),
            missing_since: item.missing_since,
            registered_at: item.registered_at,
            changed_at: item.changed_at,
        }
    }
}
