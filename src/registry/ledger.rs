//! What is known of every server and item, and what may be done with it? The records in memory, and every decision about
//! them as a pure function: what would be written, or why not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::mcp::ItemKind;
use crate::time::UnixSeconds;

use super::approval::{Actor, Approval, ApprovalRule, NotAnApprover};
use super::catalog::{Catalog, ServerStanding};
use super::definition::{Definition, DefinitionError, Digest, ItemKey, NAME_BYTES_MAX};
use super::lifecycle::{Action, NotNow, State};
use super::lookalike::Forms;
use super::record::{Act, Alike, Cause, ItemRecord, NotKept, Origin, Pin, ServerRecord, Spec, Waiting};
use super::scan;

/// Every record.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    servers: BTreeMap<Box<str>, ServerRecord>,
    items: BTreeMap<Box<str>, BTreeMap<ItemKey, ItemRecord>>,
    /// Who shares a look: each form of a name with all that have it.
    looks: HashMap<Box<str>, BTreeSet<(Box<str>, ItemKey)>>,
}

/// What a decision writes. Each record is at its next version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Servers.
    pub servers: Vec<ServerRecord>,
    /// Items.
    pub items: Vec<ItemRecord>,
    /// What was done.
    pub acts: Vec<Act>,
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Whoever approves may not.
    #[error(transparent)]
    Approver(#[from] NotAnApprover),
    /// A server of this name is there.
    #[error("a server of this name is there already")]
    Exists,
    /// No such server or item.
    #[error("there is no such thing")]
    NotFound,
    /// The definition is over a bound.
    #[error("this definition is not kept, so that nobody can have looked at it")]
    NotKept,
    /// The state does not allow it.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The digest is that of nothing that could be approved here.
    #[error("this definition does not wait for approval")]
    NotWaiting,
    /// The server is declared in the configuration file.
    #[error("the server is declared in the configuration file, and changed there")]
    ReadOnly,
    /// The definition was retired.
    #[error("this definition was retired, which is final")]
    RetiredForGood,
    /// The record has changed since it was looked at.
    #[error("the record has changed since you looked at it")]
    Stale {
        /// Its version.
        version: u64,
    },
    /// There are as many servers as may be.
    #[error("there are as many registered servers as the configuration allows")]
    TooMany,
}

/// A thing as a server lists it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What it is.
    pub key: ItemKey,
    /// Its definition.
    pub definition: Result<Definition, Unreadable>,
}

/// A definition that is over its bounds, or cannot be read in only one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why.
    pub error: DefinitionError,
    /// Of its bytes, to recognize it.
    pub digest: Digest,
}

impl Unreadable {
    fn not_kept(self) -> NotKept {
        match self.error {
            DefinitionError::TooLarge => NotKept::TooLarge,
            DefinitionError::Json(_)
            | DefinitionError::NameTooLong
            | DefinitionError::NoName
            | DefinitionError::NotAnObject => NotKept::Unreadable,
        }
    }
}

/// What a list that has passed held of things that were never seen before.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Whose list.
    pub server: Arc<str>,
    /// The things.
    pub items: Vec<Observed>,
}

/// Who has seen a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seer {
    /// The gateway itself, which has read the whole of it: what is not there is missing.
    Reader,
    /// A request that has passed, with what was never seen before.
    Traffic,
}

/// What came of a look at a server's lists.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Records that change.
    pub items: Vec<ItemRecord>,
    /// Definitions that were not seen before.
    pub seen: Vec<Definition>,
    /// What somebody should know of.
    pub drifts: Vec<Drift>,
    /// Items over the bound; they stay unknown, and so hidden.
    pub left_out: usize,
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The item.
    pub key: ItemKey,
    /// In which way.
    pub what: DriftKind,
    /// The definition.
    pub digest: Option<Digest>,
    /// How many findings the scan has of it.
    pub findings: usize,
}

/// In which way something is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// It is kept back.
    Quarantined(Cause),
    /// The server does not list it any more.
    Missing,
    /// The server lists it again.
    Returned,
}

impl DriftKind {
    /// The word in metrics and records: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Quarantined(cause) => cause.label(),
            Self::Returned => "returned",
        }
    }
}

/// Who does something, to what version, when and why.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// The version they have looked at; none for the gateway itself.
    pub version: Option<u64>,
    /// Why, in their words.
    pub reason: &'a str,
    /// When.
    pub at: UnixSeconds,
}

impl Ledger {
    /// Takes in what was written, here or by another gateway.
    pub fn apply(
        &mut self,
        servers: impl IntoIterator<Item = ServerRecord>,
        items: impl IntoIterator<Item = ItemRecord>,
    ) {
        for server in servers {
            self.servers.insert(server.name.clone(), server);
        }
        for item in items {
            if is_looked_at(item.key.kind) {
                for look in looks_of(item.key.kind, &item.key.name) {
                    self.looks.entry(look).or_default().insert((item.server.clone(), item.key.clone()));
                }
            }
            self.items.entry(item.server.clone()).or_default().insert(item.key.clone(), item);
        }
    }

    /// Every server, by name.
    pub fn servers(&self) -> impl Iterator<Item = &ServerRecord> {
        self.servers.values()
    }

    /// One server.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&ServerRecord> {
        self.servers.get(name)
    }

    /// The items of a server, by kind and name.
    pub fn items(&self, server: &str) -> impl Iterator<Item = &ItemRecord> {
        self.items.get(server).into_iter().flat_map(BTreeMap::values)
    }

    /// One item.
    #[must_use]
    pub fn item(&self, server: &str, key: &ItemKey) -> Option<&ItemRecord> {
        self.items.get(server)?.get(key)
    }

    /// The frozen view of everything.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        Catalog::new(self.servers.values(), self.items.values().flat_map(BTreeMap::values))
    }

    /// The frozen view of one server; none when it is not known.
    #[must_use]
    pub fn standing(&self, server: &str) -> Option<ServerStanding> {
        Some(ServerStanding::new(self.servers.get(server)?, self.items(server)))
    }

    /// The specs that are in force, by name.
    #[must_use]
    pub fn specs_in_force(&self) -> Vec<(Box<str>, Spec)> {
        self.servers.values().filter_map(|server| Some((server.name.clone(), server.in_force()?.clone()))).collect()
    }

    /// Enters the servers of the configuration file that are not known.
    #[must_use]
    pub fn declare<'a>(&self, names: impl IntoIterator<Item = &'a str>, now: UnixSeconds) -> Decided {
        let mut decided = Decided::default();
        for name in names {
            if self.servers.contains_key(name) {
                continue;
            }
            let server = ServerRecord {
                name: name.into(),
                version: 1,
                origin: Origin::File,
                state: State::Registered,
                digest: ServerRecord::digest_of_name(name),
                spec: None,
                approved: None,
                approved_at: None,
                approvals: Vec::new(),
                registrant: Actor::gateway(),
                registered_at: now,
                changed_at: now,
            };
            let by = By { actor: &Actor::gateway(), version: None, reason: "declared in the configuration", at: now };
            decided.acts.push(act_on_server(&server, Action::Register.label(), by));
            decided.servers.push(server);
        }
        decided
    }

    /// Enters a server, or one that was retired anew.
    ///
    /// # Errors
    /// [`Refused::Exists`], [`Refused::TooMany`], [`Refused::Stale`].
    pub fn register(&self, name: &str, spec: Spec, servers_max: usize, by: By<'_>) -> Result<Decided, Refused> {
        let known = self.servers.get(name);
        let version = match known {
            Some(known) if known.origin == Origin::Api && known.state == State::Retired => known.version + 1,
            Some(_) => return Err(Refused::Exists),
            None => 1,
        };
        let in_use = |server: &&ServerRecord| server.origin == Origin::Api && server.state != State::Retired;
        if self.servers.values().filter(in_use).count() >= servers_max {
            return Err(Refused::TooMany);
        }
        let server = ServerRecord {
            name: name.into(),
            version,
            origin: Origin::Api,
            state: State::Registered,
            digest: spec.digest(),
            spec: Some(spec),
            approved: None,
            approved_at: None,
            approvals: Vec::new(),
            registrant: kept(by.actor),
            registered_at: by.at,
            changed_at: by.at,
        };
        let acts = vec![act_on_server(&server, Action::Register.label(), by)];
        Ok(Decided { servers: vec![server], acts, ..Decided::default() })
    }

    /// Changes what a server is. What was approved serves until the change is.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::ReadOnly`], [`Refused::Stale`], [`Refused::NotNow`].
    pub fn put(&self, name: &str, spec: Spec, by: By<'_>) -> Result<Decided, Refused> {
        let known = self.servers.get(name).ok_or(Refused::NotFound)?;
        check_version(known.version, by)?;
        if known.origin == Origin::File {
            return Err(Refused::ReadOnly);
        }
        if known.state == State::Retired {
            return Err(NotNow { from: known.state, action: Action::Register }.into());
        }
        let server = ServerRecord {
            version: known.version + 1,
            digest: spec.digest(),
            spec: Some(spec),
            approvals: Vec::new(),
            registrant: kept(by.actor),
            changed_at: by.at,
            ..known.clone()
        };
        let acts = vec![act_on_server(&server, "change", by)];
        Ok(Decided { servers: vec![server], acts, ..Decided::default() })
    }

    /// Approves what a server is, its digest being the one that was looked at.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn approve_server(
        &self,
        name: &str,
        digest: Digest,
        rule: &ApprovalRule,
        by: By<'_>,
    ) -> Result<Decided, Refused> {
        let known = self.servers.get(name).ok_or(Refused::NotFound)?;
        check_version(known.version, by)?;
        let approved = known.state.after(Action::Approve)?;
        let waits = known.state == State::Registered || known.is_change_pending();
        if !waits || digest != known.digest {
            return Err(Refused::NotWaiting);
        }
        rule.check(by.actor, digest, &known.approvals, Some(&known.registrant))?;
        let mut server = ServerRecord { version: known.version + 1, ..known.clone() };
        server.approvals.push(approval(digest, by));
        if rule.missing(digest, &server.approvals) == 0 {
            server.state = approved;
            server.approved.clone_from(&server.spec);
            server.approved_at = Some(by.at);
            server.changed_at = by.at;
        }
        let acts = vec![act_on_server(&server, Action::Approve.label(), by)];
        Ok(Decided { servers: vec![server], acts, ..Decided::default() })
    }

    /// Suspends, resumes or retires a server.
    ///
    /// # Errors
    /// [`Refused`]; approving and registering are other functions' business.
    pub fn act_on_server(&self, name: &str, action: Action, by: By<'_>) -> Result<Decided, Refused> {
        let known = self.servers.get(name).ok_or(Refused::NotFound)?;
        check_version(known.version, by)?;
        let state = plain(known.state, action)?;
        // What was suspended before enough people had approved it is not approved by its resumption.
        let state = if state == State::Approved && known.approved_at.is_none() { State::Registered } else { state };
        let server = ServerRecord { version: known.version + 1, state, changed_at: by.at, ..known.clone() };
        let acts = vec![act_on_server(&server, action.label(), by)];
        Ok(Decided { servers: vec![server], acts, ..Decided::default() })
    }

    /// Approves a definition of an item, its digest being the one that was looked at: the one that waits, or once more the
    /// one that is pinned, which turns down what waits.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn approve_item(
        &self,
        server: &str,
        key: &ItemKey,
        digest: Digest,
        rule: &ApprovalRule,
        by: By<'_>,
    ) -> Result<Decided, Refused> {
        let registrant = self.servers.get(server).map(|server| &server.registrant);
        let known = self.item(server, key).ok_or(Refused::NotFound)?;
        check_version(known.version, by)?;
        let state = known.state.after(Action::Approve)?;
        if known.retired.contains(&digest) {
            return Err(Refused::RetiredForGood);
        }
        let waiting = known.waiting.as_ref().ok_or(Refused::NotWaiting)?;
        let is_pinned = known.pin.as_ref().is_some_and(|pin| pin.digest == digest);
        if waiting.digest != digest && !is_pinned {
            return Err(Refused::NotWaiting);
        }
        if !is_pinned && waiting.not_kept.is_some() {
            return Err(Refused::NotKept);
        }
        rule.check(by.actor, digest, &waiting.approvals, registrant)?;
        let mut approvals = waiting.approvals.clone();
        approvals.push(approval(digest, by));
        let mut item = ItemRecord { version: known.version + 1, ..known.clone() };
        if rule.missing(digest, &approvals) == 0 {
            item.state = state;
            item.waiting = None;
            approvals.retain(|approval| approval.digest == digest);
            item.pin = Some(Pin { digest, approvals, at: by.at });
            item.changed_at = by.at;
        } else if let Some(waiting) = &mut item.waiting {
            waiting.approvals = approvals;
        }
        let acts = vec![act_on_item(&item, Action::Approve.label(), Some(digest), by)];
        Ok(Decided { items: vec![item], acts, ..Decided::default() })
    }

    /// Suspends, resumes or retires an item.
    ///
    /// # Errors
    /// [`Refused`]; approving is another function's business.
    pub fn act_on_item(&self, server: &str, key: &ItemKey, action: Action, by: By<'_>) -> Result<Decided, Refused> {
        let known = self.item(server, key).ok_or(Refused::NotFound)?;
        check_version(known.version, by)?;
        let state = plain(known.state, action)?;
        let state = if state == State::Approved && known.pin.is_none() { State::Registered } else { state };
        let mut item = ItemRecord { version: known.version + 1, state, changed_at: by.at, ..known.clone() };
        let digest = item.pin.as_ref().map(|pin| pin.digest);
        if state == State::Retired {
            item.retired.extend(digest);
            item.retired.extend(item.waiting.take().map(|waiting| waiting.digest));
            item.retired.sort_unstable();
            item.retired.dedup();
        }
        let acts = vec![act_on_item(&item, action.label(), digest, by)];
        Ok(Decided { items: vec![item], acts, ..Decided::default() })
    }

    /// Looks at what a server lists. Nothing that is seen is approved by being seen.
    #[must_use]
    pub fn observe(
        &self,
        server: &str,
        observed: &[Observed],
        seer: Seer,
        items_max: usize,
        now: UnixSeconds,
    ) -> Observation {
        let mut out = Observation::default();
        let known = self.items.get(server);
        let mut count = known.map_or(0, BTreeMap::len);
        // A list that names a thing twice is read up to the first difference.
        let mut looked_at: BTreeSet<&ItemKey> = BTreeSet::new();
        let mut new_looks: HashMap<Box<str>, ItemKey> = HashMap::new();
        let names: BTreeSet<&str> = self
            .items
            .values()
            .flat_map(BTreeMap::keys)
            .chain(observed.iter().map(|seen| &seen.key))
            .filter(|key| key.kind == ItemKind::Tool)
            .map(|key| &*key.name)
            .collect();
        for seen in observed {
            let known = known.and_then(|items| items.get(&seen.key));
            if let Some(known) = known {
                if let Some((item, drift)) = look_again(known, seen, seer, &names, now) {
                    if looked_at.insert(&seen.key) {
                        out.items.push(item);
                        out.drifts.extend(drift);
                        out.seen.extend(seen.definition.clone().ok());
                    }
                } else {
                    looked_at.insert(&seen.key);
                }
                continue;
            }
            // What has no name that fits can be told of under none, and stays unknown.
            if seen.definition.is_err() && !(1..=NAME_BYTES_MAX).contains(&seen.key.name.len()) {
                continue;
            }
            if !looked_at.insert(&seen.key) {
                continue;
            }
            if count >= items_max {
                out.left_out += 1;
                continue;
            }
            count += 1;
            let alike = self.alike(server, &seen.key).or_else(|| {
                let looks = is_looked_at(seen.key.kind).then(|| looks_of(seen.key.kind, &seen.key.name));
                let found = looks.iter().flatten().find_map(|look| new_looks.get(look));
                found.map(|key| Alike { server: server.into(), key: key.clone() })
            });
            if is_looked_at(seen.key.kind) {
                for look in looks_of(seen.key.kind, &seen.key.name) {
                    new_looks.insert(look, seen.key.clone());
                }
            }
            let cause = if alike.is_some() { Cause::LookAlike } else { Cause::New };
            let waiting = wait(&seen.definition, cause, alike, &names, now);
            out.drifts.push(drift(&seen.key, DriftKind::Quarantined(cause), &waiting));
            out.items.push(ItemRecord {
                server: server.into(),
                key: seen.key.clone(),
                version: 1,
                state: State::Registered,
                pin: None,
                waiting: Some(waiting),
                missing_since: None,
                was_read: seer == Seer::Reader,
                retired: Vec::new(),
                registered_at: now,
                changed_at: now,
            });
            out.seen.extend(seen.definition.clone().ok());
        }
        if seer == Seer::Reader {
            for item in known.into_iter().flat_map(BTreeMap::values) {
                let is_gone = !looked_at.contains(&item.key) && item.was_read && item.missing_since.is_none();
                if is_gone && item.state != State::Retired {
                    let next = ItemRecord { version: item.version + 1, missing_since: Some(now), ..item.clone() };
                    out.items.push(next);
                    let what = DriftKind::Missing;
                    let digest = item.pin.as_ref().map(|pin| pin.digest);
                    out.drifts.push(Drift { key: item.key.clone(), what, digest, findings: 0 });
                }
            }
        }
        out
    }

    /// An item, of this server or another, whose name could be taken for this one's.
    fn alike(&self, server: &str, key: &ItemKey) -> Option<Alike> {
        if !is_looked_at(key.kind) {
            return None;
        }
        let looks = looks_of(key.kind, &key.name);
        let others = looks.iter().filter_map(|look| self.looks.get(look)).flatten();
        let mut others = others.filter(|(_, other)| other.name != key.name);
        let is_in_use =
            |server: &str, key: &ItemKey| self.item(server, key).is_some_and(|item| item.state != State::Retired);
        let (other_server, other) = others.find(|(other_server, other)| {
            is_in_use(other_server, other) && !(**other_server == *server && other == key)
        })?;
        Some(Alike { server: other_server.clone(), key: other.clone() })
    }
}

/// What changes in the record of a known item; none when nothing does.
fn look_again(
    known: &ItemRecord,
    seen: &Observed,
    seer: Seer,
    names: &BTreeSet<&str>,
    now: UnixSeconds,
) -> Option<(ItemRecord, Option<Drift>)> {
    let digest = match &seen.definition {
        Ok(definition) => definition.digest(),
        Err(unreadable) => unreadable.digest,
    };
    let is_pinned = known.pin.as_ref().is_some_and(|pin| pin.digest == digest);
    let is_waiting = known.waiting.as_ref().is_some_and(|waiting| waiting.digest == digest);
    let is_back = known.missing_since.is_some();
    let is_read_first = seer == Seer::Reader && !known.was_read;
    let mut item = ItemRecord { version: known.version + 1, missing_since: None, ..known.clone() };
    item.was_read |= seer == Seer::Reader;
    if is_pinned || is_waiting || known.retired.contains(&digest) {
        let returned = is_back.then(|| Drift {
            key: known.key.clone(),
            what: DriftKind::Returned,
            digest: Some(digest),
            findings: 0,
        });
        return (is_back || is_read_first).then_some((item, returned));
    }
    // Retired was another definition; this one is looked at afresh, and kept back meanwhile.
    if item.state == State::Retired {
        item.state = State::Registered;
        item.pin = None;
        item.changed_at = now;
    }
    let cause = match (&item.pin, &known.waiting) {
        (Some(_), _) => Cause::Changed,
        (None, Some(waiting)) => waiting.cause,
        (None, None) => Cause::New,
    };
    let alike = known.waiting.as_ref().and_then(|waiting| waiting.alike.clone());
    let waiting = wait(&seen.definition, cause, alike, names, now);
    let told = drift(&known.key, DriftKind::Quarantined(cause), &waiting);
    item.waiting = Some(waiting);
    Some((item, Some(told)))
}

fn wait(
    definition: &Result<Definition, Unreadable>,
    cause: Cause,
    alike: Option<Alike>,
    names: &BTreeSet<&str>,
    now: UnixSeconds,
) -> Waiting {
    let (digest, not_kept, findings) = match definition {
        Ok(definition) => (definition.digest(), None, scan::scan(definition, names.iter().copied())),
        Err(unreadable) => (unreadable.digest, Some(unreadable.not_kept()), Vec::new()),
    };
    Waiting { digest, cause, alike, since: now, not_kept, findings, approvals: Vec::new() }
}

fn drift(key: &ItemKey, what: DriftKind, waiting: &Waiting) -> Drift {
    Drift { key: key.clone(), what, digest: Some(waiting.digest), findings: waiting.findings.len() }
}

/// URIs are compared by machines; names of tools and prompts are chosen by models and people.
fn is_looked_at(kind: ItemKind) -> bool {
    matches!(kind, ItemKind::Prompt | ItemKind::Tool)
}

fn looks_of(kind: ItemKind, name: &str) -> [Box<str>; 2] {
    let forms = Forms::of(name);
    let label = kind.label();
    [format!("{label} seen {}", forms.seen).into(), format!("{label} spoken {}", forms.spoken).into()]
}

fn check_version(version: u64, by: By<'_>) -> Result<(), Refused> {
    match by.version {
        Some(expected) if expected != version => Err(Refused::Stale { version }),
        Some(_) | None => Ok(()),
    }
}

/// The state after one of the actions that need nobody's approval.
fn plain(state: State, action: Action) -> Result<State, Refused> {
    match action {
        Action::Approve | Action::Register => Err(NotNow { from: state, action }.into()),
        Action::Resume | Action::Retire | Action::Suspend => Ok(state.after(action)?),
    }
}

/// An actor as records keep it: without the groups of the moment.
fn kept(actor: &Actor) -> Actor {
    Actor { groups: Vec::new(), ..actor.clone() }
}

fn approval(digest: Digest, by: By<'_>) -> Approval {
    Approval { actor: kept(by.actor), digest, at: by.at, reason: by.reason.into() }
}

fn act_on_server(server: &ServerRecord, what: &str, by: By<'_>) -> Act {
    Act {
        server: server.name.clone(),
        item: None,
        what: what.into(),
        digest: Some(server.digest),
        state: server.state,
        actor: kept(by.actor),
        at: by.at,
        reason: by.reason.into(),
    }
}

fn act_on_item(item: &ItemRecord, what: &str, digest: Option<Digest>, by: By<'_>) -> Act {
    Act {
        server: item.server.clone(),
        item: Some(item.key.clone()),
        what: what.into(),
        digest,
        state: item.state,
        actor: kept(by.actor),
        at: by.at,
        reason: by.reason.into(),
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a failed test may panic")]
mod tests;
