//! What of a governed server may be seen and called? The frozen view that requests read.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mcp::ItemKind;

use super::definition::{Digest, ItemKey};
use super::lifecycle::State;
use super::record::{Cause, ItemRecord, ServerRecord};
use super::template::Template;

/// What the registry says of every server it governs. A look-up costs one hash of the name; a change to one server makes
/// that server's part anew and shares all others.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    servers: HashMap<Box<str>, Arc<ServerStanding>>,
}

/// What the registry says of one server.
#[derive(Debug)]
pub struct ServerStanding {
    state: State,
    /// By kind, in the order of [`ItemKind::ALL`].
    items: [HashMap<Box<str>, Standing>; 4],
    /// Approved templates: a resource that one of them expands to is as good as listed.
    templates: Vec<Template>,
}

/// What the registry says of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    verdict: Verdict,
    /// What was approved, whether or not it is open.
    pin: Option<Digest>,
    /// What waits, and so is known.
    waiting: Option<Digest>,
    /// Definitions that are known and not to be looked at again.
    retired: Box<[Digest]>,
    is_missing: bool,
}

/// Whether something may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was approved.
    Open,
    /// It is kept back until somebody approves it.
    Quarantined(Cause),
    /// Somebody has taken it out of use, for a while or for good.
    Suspended,
}

/// What the registry says of an item as a list shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Whether it may be shown.
    pub verdict: Verdict,
    /// Whether this very definition was never seen before, so that somebody should look at it.
    pub is_unseen: bool,
}

impl Catalog {
    /// Of all these records.
    pub fn new<'a>(
        servers: impl IntoIterator<Item = &'a ServerRecord>,
        items: impl IntoIterator<Item = &'a ItemRecord>,
    ) -> Self {
        let mut by_server: HashMap<&str, Vec<&ItemRecord>> = HashMap::new();
        for item in items {
            by_server.entry(&item.server).or_default().push(item);
        }
        let standing = |server: &'a ServerRecord| {
            let items = by_server.remove(&*server.name).unwrap_or_default();
            (server.name.clone(), Arc::new(ServerStanding::new(server, items)))
        };
        Self { servers: servers.into_iter().map(standing).collect() }
    }

    /// With another standing of one server; `None` takes it out.
    #[must_use]
    pub fn with(&self, name: &str, standing: Option<ServerStanding>) -> Self {
        let mut servers = self.servers.clone();
        match standing {
            Some(standing) => drop(servers.insert(name.into(), Arc::new(standing))),
            None => drop(servers.remove(name)),
        }
        Self { servers }
    }

    /// What it says of a server; none when the registry does not know it.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Arc<ServerStanding>> {
        self.servers.get(name)
    }
}

impl ServerStanding {
    /// Of one server and its items.
    pub fn new<'a>(server: &ServerRecord, items: impl IntoIterator<Item = &'a ItemRecord>) -> Self {
        let mut by_kind: [HashMap<Box<str>, Standing>; 4] = Default::default();
        let mut templates = Vec::new();
        for item in items {
            let standing = Standing::of(item);
            if item.key.kind == ItemKind::ResourceTemplate && standing.verdict == Verdict::Open {
                templates.push(Template::new(&item.key.name));
            }
            if let Some(items) = by_kind.get_mut(item.key.kind as usize) {
                items.insert(item.key.name.clone(), standing);
            }
        }
        Self { state: server.state, items: by_kind, templates }
    }

    /// Whether the server as a whole may be used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Approved
    }

    /// Where the server stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether an item may be called, got or read by this name.
    #[must_use]
    pub fn call(&self, kind: ItemKind, name: &str) -> Verdict {
        if !self.is_open() {
            return Verdict::Quarantined(Cause::ServerNotApproved);
        }
        let found = self.standing(kind, name);
        if let (ItemKind::Resource, None) = (kind, found)
            && self.templates.iter().any(|template| template.may_expand_to(name))
        {
            return Verdict::Open;
        }
        found.map_or(Verdict::Quarantined(Cause::New), |standing| standing.verdict)
    }

    /// Whether an item may be shown as a list defines it. None for one that the list does not define readably.
    #[must_use]
    pub fn listed(&self, kind: ItemKind, name: &str, digest: Option<Digest>) -> Listed {
        let Some(digest) = digest else {
            return Listed { verdict: Verdict::Quarantined(Cause::Changed), is_unseen: false };
        };
        let Some(standing) = self.standing(kind, name) else {
            return Listed { verdict: Verdict::Quarantined(Cause::New), is_unseen: true };
        };
        let is_pinned = standing.pin == Some(digest);
        let verdict = if !self.is_open() {
            Verdict::Quarantined(Cause::ServerNotApproved)
        } else if standing.verdict == Verdict::Open && !is_pinned {
            Verdict::Quarantined(Cause::Changed)
        } else {
            standing.verdict
        };
        let is_known = is_pinned || standing.waiting == Some(digest) || standing.retired.contains(&digest);
        // One that was missed is back: that, too, is to be noted.
        Listed { verdict, is_unseen: !is_known || standing.is_missing }
    }

    /// How many items it knows.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items.iter().map(HashMap::len).sum()
    }

    fn standing(&self, kind: ItemKind, name: &str) -> Option<&Standing> {
        self.items.get(kind as usize)?.get(name)
    }
}

impl Standing {
    fn of(item: &ItemRecord) -> Self {
        let verdict = match item.state {
            State::Retired | State::Suspended => Verdict::Suspended,
            State::Registered | State::Approved => match (&item.waiting, &item.pin) {
                (Some(waiting), _) => Verdict::Quarantined(waiting.cause),
                (None, Some(_)) if item.state == State::Approved => Verdict::Open,
                (None, _) => Verdict::Quarantined(Cause::New),
            },
        };
        Self {
            verdict,
            pin: item.pin.as_ref().map(|pin| pin.digest),
            waiting: item.waiting.as_ref().map(|waiting| waiting.digest),
            retired: item.retired.clone().into(),
            is_missing: item.missing_since.is_some(),
        }
    }
}

/// The key of an item, as requests name it.
impl From<(ItemKind, &str)> for ItemKey {
    fn from((kind, name): (ItemKind, &str)) -> Self {
        Self::new(kind, name)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use crate::registry::testkit::{item, pinned, server, waiting};

    #[test]
    fn what_nobody_has_approved_is_quarantined() {
        let standing = ServerStanding::new(&server("mail", State::Approved), &[waiting("mail", "send", 1, Cause::New)]);
        assert_eq!(standing.call(ItemKind::Tool, "send"), Verdict::Quarantined(Cause::New));
        assert_eq!(standing.call(ItemKind::Tool, "never-seen"), Verdict::Quarantined(Cause::New));
    }

    #[test]
    fn what_was_approved_is_open_under_its_kind_alone() {
        let standing = ServerStanding::new(&server("mail", State::Approved), &[pinned("mail", "send", 1)]);
        assert_eq!(standing.call(ItemKind::Tool, "send"), Verdict::Open);
        assert_eq!(standing.call(ItemKind::Prompt, "send"), Verdict::Quarantined(Cause::New));
    }

    #[test]
    fn nothing_of_a_server_that_is_not_approved_is_open() {
        for state in [State::Registered, State::Suspended, State::Retired] {
            let standing = ServerStanding::new(&server("mail", state), &[pinned("mail", "send", 1)]);
            assert_eq!(standing.call(ItemKind::Tool, "send"), Verdict::Quarantined(Cause::ServerNotApproved));
            let listed = standing.listed(ItemKind::Tool, "send", Some(Digest::of(&[1])));
            assert_eq!(listed.verdict, Verdict::Quarantined(Cause::ServerNotApproved));
        }
    }

    #[test]
    fn a_list_shows_the_pinned_definition_and_no_other() {
        let standing = ServerStanding::new(&server("mail", State::Approved), &[pinned("mail", "send", 1)]);
        let listed = |digest| standing.listed(ItemKind::Tool, "send", digest);
        assert_eq!(listed(Some(Digest::of(&[1]))), Listed { verdict: Verdict::Open, is_unseen: false });
        let changed = Listed { verdict: Verdict::Quarantined(Cause::Changed), is_unseen: true };
        assert_eq!(listed(Some(Digest::of(&[2]))), changed);
        assert_eq!(listed(None).verdict, Verdict::Quarantined(Cause::Changed));
    }

    #[test]
    fn a_changed_item_stays_closed_also_where_a_list_shows_the_pinned_definition() {
        let mut changed = pinned("mail", "send", 1);
        changed.waiting = waiting("mail", "send", 2, Cause::Changed).waiting;
        let standing = ServerStanding::new(&server("mail", State::Approved), &[changed]);
        assert_eq!(standing.call(ItemKind::Tool, "send"), Verdict::Quarantined(Cause::Changed));
        let listed = standing.listed(ItemKind::Tool, "send", Some(Digest::of(&[1])));
        assert_eq!(listed, Listed { verdict: Verdict::Quarantined(Cause::Changed), is_unseen: false });
    }

    #[test]
    fn what_is_suspended_or_retired_is_closed() {
        for state in [State::Suspended, State::Retired] {
            let mut closed = pinned("mail", "send", 1);
            closed.state = state;
            let standing = ServerStanding::new(&server("mail", State::Approved), &[closed]);
            assert_eq!(standing.call(ItemKind::Tool, "send"), Verdict::Suspended);
        }
    }

    #[test]
    fn a_resource_that_an_approved_template_expands_to_is_open() {
        let mut template = pinned("mail", "mail://{box}/{id}", 1);
        template.key.kind = ItemKind::ResourceTemplate;
        let standing = ServerStanding::new(&server("mail", State::Approved), &[template.clone()]);
        assert_eq!(standing.call(ItemKind::Resource, "mail://inbox/1"), Verdict::Open);
        assert_eq!(standing.call(ItemKind::Resource, "file:///etc/passwd"), Verdict::Quarantined(Cause::New));
        // A resource that was looked at by itself is judged by itself.
        let mut own = waiting("mail", "mail://inbox/1", 1, Cause::New);
        own.key.kind = ItemKind::Resource;
        let standing = ServerStanding::new(&server("mail", State::Approved), &[template, own]);
        assert_eq!(standing.call(ItemKind::Resource, "mail://inbox/1"), Verdict::Quarantined(Cause::New));
    }

    #[test]
    fn a_change_of_one_server_shares_the_others() {
        let servers = [server("mail", State::Approved), server("wiki", State::Approved)];
        let items = [pinned("mail", "send", 1), item("wiki", "read")];
        let catalog = Catalog::new(&servers, &items);
        let next = catalog.with("mail", Some(ServerStanding::new(&servers[0], [])));
        assert!(Arc::ptr_eq(catalog.server("wiki").unwrap(), next.server("wiki").unwrap()));
        assert_eq!(next.server("mail").unwrap().items(), 0);
        assert!(next.with("mail", None).server("mail").is_none());
    }
}
