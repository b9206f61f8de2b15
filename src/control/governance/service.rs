//! What may be asked of the registry, and what may be done? What the admin API calls.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use crate::config::{Complaint, Position, Problem};
use crate::mcp::json::{DEPTH_MAX, Kind, Reader};
use crate::registry::approval::Actor;
use crate::registry::definition::{Digest, ItemKey, canonical};
use crate::registry::diff::{Change, diff};
use crate::registry::ledger::{By, Decided, Ledger, Refused};
use crate::registry::lifecycle::{Action, State};
use crate::registry::record::{Act, ItemRecord, ServerRecord, Spec};
use crate::store::Version;

use super::views::{ItemDetail, ItemFilter, ItemView, Page, Paged, Pending, ServerView, SpecView};
use super::{Governance, GovernanceError, Inner};
use crate::control::builder::text_of;

/// Who does something, to what they have looked at, and why.
#[derive(Clone, Debug)]
pub struct Doing {
    /// Who, with the groups that approvals go by.
    pub actor: Actor,
    /// The version of the record they have looked at (`If-Match`); none only for the gateway's own purposes.
    pub version: Option<u64>,
    /// Why, in their words; at most 1000 characters are kept.
    pub reason: String,
}

/// The longest reason.
const REASON_CHARS_MAX: usize = 1000;

type Answer<T> = Result<T, GovernanceError>;

impl Governance {
    /// The servers, by name.
    #[must_use]
    pub fn servers(&self, page: &Page) -> Paged<ServerView> {
        let inner = &self.inner;
        let after = page.after.as_deref().and_then(uncursor).unwrap_or_default();
        let limit = page.limit();
        let records: Vec<ServerRecord> = inner.look(|ledger| {
            let rest = ledger.servers().filter(|server| after.is_empty() || *server.name > *after);
            rest.take(limit + 1).cloned().collect()
        });
        paged(records, limit, |server| server.name.to_string(), |server| inner.view(&server))
    }

    /// One server.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`].
    pub fn server(&self, name: &str) -> Answer<ServerView> {
        let server = self.inner.look(|ledger| ledger.server(name).cloned());
        server.map(|server| self.inner.view(&server)).ok_or(GovernanceError::NotFound)
    }

    /// The items of a server, by kind and name.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`] when there is no such server.
    pub fn items(&self, server: &str, filter: &ItemFilter, page: &Page) -> Answer<Paged<ItemView>> {
        let inner = &self.inner;
        let after = page.after.as_deref().and_then(uncursor);
        let limit = page.limit();
        let records: Option<Vec<ItemRecord>> = inner.look(|ledger| {
            ledger.server(server)?;
            let is_wanted = |item: &&ItemRecord| {
                filter.kind.is_none_or(|kind| kind == item.key.kind)
                    && filter.standing.as_deref().is_none_or(|standing| standing == item.standing())
                    && after.as_ref().is_none_or(|after| place(item) > *after)
            };
            let mut items: Vec<&ItemRecord> = ledger.items(server).filter(is_wanted).collect();
            items.sort_by_cached_key(|item| place(item));
            Some(items.into_iter().take(limit + 1).cloned().collect())
        });
        let records = records.ok_or(GovernanceError::NotFound)?;
        Ok(paged(records, limit, place, |item| inner.item_view(&item)))
    }

    /// One item, with its definitions.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`]; definitions are left out while the store is away.
    pub async fn item(&self, server: &str, key: &ItemKey) -> Answer<ItemDetail> {
        let item = self.inner.look(|ledger| ledger.item(server, key).cloned()).ok_or(GovernanceError::NotFound)?;
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { Ok(inner.detail(&item).await) }).await
    }

    /// The definitions that an item has had, the latest first.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`] and [`GovernanceError::StoreAway`].
    pub async fn versions(&self, server: &str, key: &ItemKey) -> Answer<Vec<Version>> {
        self.known(server, key)?;
        let (inner, server, key) = (Arc::clone(&self.inner), server.to_owned(), key.clone());
        self.background.run(async move { Ok(inner.store()?.versions(&server, &key).await?) }).await
    }

    /// The canonical text of a definition that an item has had.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`] and [`GovernanceError::StoreAway`].
    pub async fn definition(&self, server: &str, key: &ItemKey, digest: Digest) -> Answer<String> {
        let versions = self.versions(server, key).await?;
        if !versions.iter().any(|version| version.digest == digest) {
            return Err(GovernanceError::NotFound);
        }
        let inner = Arc::clone(&self.inner);
        let text =
            self.background.run(async move { Ok::<_, GovernanceError>(inner.store()?.definition(digest).await?) });
        text.await?.ok_or(GovernanceError::NotFound)
    }

    /// What is different between two definitions that an item has had.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`] and [`GovernanceError::StoreAway`].
    pub async fn diff(&self, server: &str, key: &ItemKey, from: Digest, to: Digest) -> Answer<Vec<Change>> {
        let (from, to) = (self.definition(server, key, from).await?, self.definition(server, key, to).await?);
        Ok(diff(&from, &to))
    }

    /// Who did what to a server, or to an item when `key` names one; the latest first.
    ///
    /// # Errors
    /// [`GovernanceError::NotFound`] and [`GovernanceError::StoreAway`].
    pub async fn acts(&self, server: &str, key: Option<&ItemKey>, page: &Page) -> Answer<Paged<Act>> {
        match key {
            Some(key) => self.known(server, key)?,
            None => drop(self.server(server)?),
        }
        let limit = page.limit();
        let before = page.after.as_deref().and_then(uncursor).and_then(|place| {
            let (seq, nth) = place.split_once('.')?;
            Some((seq.parse().ok()?, nth.parse().ok()?))
        });
        let (inner, server, key) = (Arc::clone(&self.inner), server.to_owned(), key.cloned());
        let acts = self.background.run(async move {
            Ok::<_, GovernanceError>(inner.store()?.acts(&server, key.as_ref(), before, limit + 1).await?)
        });
        Ok(paged(acts.await?, limit, |((seq, nth), _act)| format!("{seq}.{nth}"), |(_place, act)| act))
    }

    /// Everything that waits for an approval: servers first, then items by server.
    ///
    /// # Errors
    /// None but for the end of the process; definitions are left out while the store is away.
    pub async fn approvals(&self, page: &Page) -> Answer<Paged<Pending>> {
        let limit = page.limit();
        let after = page.after.as_deref().and_then(uncursor).unwrap_or_default();
        let waiting: Vec<(String, Result<ServerRecord, ItemRecord>)> = self.inner.look(|ledger| {
            let is_waiting = |server: &&ServerRecord| server.state == State::Registered || server.is_change_pending();
            let servers = ledger.servers().filter(is_waiting);
            let servers = servers.map(|server| (format!("0 {}", server.name), Ok(server.clone())));
            let in_use = ledger.servers().filter(|server| server.state != State::Retired);
            let items = in_use.flat_map(|server| ledger.items(&server.name));
            let items = items.filter(|item| item.waiting.is_some() && item.state != State::Retired);
            let items = items.map(|item| (format!("1 {} {}", item.server, place(item)), Err(item.clone())));
            let mut all: Vec<_> = servers.chain(items).filter(|(place, _)| *place > after).collect();
            all.sort_by(|(one, _), (other, _)| one.cmp(other));
            all.truncate(limit + 1);
            all
        });
        let inner = Arc::clone(&self.inner);
        self.background
            .run(async move {
                let mut pending = Vec::new();
                for (place, record) in waiting {
                    let what = match record {
                        Ok(server) => Pending::Server(Box::new(inner.view(&server))),
                        Err(item) => Pending::Item(Box::new(inner.detail(&item).await)),
                    };
                    pending.push((place, what));
                }
                Ok(paged(pending, limit, |(place, _)| place.clone(), |(_, what)| what))
            })
            .await
    }

    /// Enters a server. `text` is JSON: `{ "server": {…}, "route": {…} }`, as entries of the configuration file's lists, the
    /// route being optional.
    ///
    /// # Errors
    /// [`GovernanceError`]: every problem of the text at once.
    pub async fn register(&self, text: &str, doing: Doing) -> Answer<ServerView> {
        let spec = self.inner.spec_of(text)?;
        let read = self.inner.builder.check(&text_of(&spec), None).map_err(GovernanceError::Invalid)?;
        let name = Box::<str>::from(&*read.server.name);
        let servers_max = self.inner.live.peek().config.registry.servers;
        let decide = {
            let name = name.clone();
            move |ledger: &Ledger, by: By<'_>| ledger.register(&name, spec.clone(), servers_max, by)
        };
        self.decide(&name, None, doing, decide).await?;
        self.server(&name)
    }

    /// Changes what a server is. What was approved serves until the change is approved.
    ///
    /// # Errors
    /// [`GovernanceError`].
    pub async fn put(&self, name: &str, text: &str, doing: Doing) -> Answer<ServerView> {
        self.server(name)?;
        let spec = self.inner.spec_of(text)?;
        let read = self.inner.builder.check(&text_of(&spec), Some(name)).map_err(GovernanceError::Invalid)?;
        if *read.server.name != *name {
            let complaint = Complaint::new("is another server's name", "a server keeps its name; register another");
            return Err(GovernanceError::Invalid(vec![Problem::new("server.name", Position::default(), complaint)]));
        }
        let owned = Box::<str>::from(name);
        let decide = move |ledger: &Ledger, by: By<'_>| ledger.put(&owned, spec.clone(), by);
        self.decide(name, None, doing, decide).await?;
        self.server(name)
    }

    /// Approves a server: `digest` is that of what was looked at.
    ///
    /// # Errors
    /// [`GovernanceError`].
    pub async fn approve_server(&self, name: &str, digest: Digest, doing: Doing) -> Answer<ServerView> {
        // What cannot serve is not approved: the file may have changed since it was registered.
        if let Some(spec) = self.inner.look(|ledger| ledger.server(name).and_then(|server| server.spec.clone())) {
            self.inner.builder.check(&text_of(&spec), Some(name)).map_err(GovernanceError::Invalid)?;
        }
        let (owned, rule) = (Box::<str>::from(name), self.inner.rule());
        let decide = move |ledger: &Ledger, by: By<'_>| ledger.approve_server(&owned, digest, &rule, by);
        self.decide(name, None, doing, decide).await?;
        self.server(name)
    }

    /// Suspends, resumes or retires a server.
    ///
    /// # Errors
    /// [`GovernanceError`].
    pub async fn act_on_server(&self, name: &str, action: Action, doing: Doing) -> Answer<ServerView> {
        let owned = Box::<str>::from(name);
        let decide = move |ledger: &Ledger, by: By<'_>| ledger.act_on_server(&owned, action, by);
        self.decide(name, None, doing, decide).await?;
        self.server(name)
    }

    /// Approves a definition of an item: `digest` is that of what was looked at. The pinned digest turns down what waits.
    ///
    /// # Errors
    /// [`GovernanceError`]; a definition that is not kept, being over a bound, cannot be approved.
    pub async fn approve_item(&self, server: &str, key: &ItemKey, digest: Digest, doing: Doing) -> Answer<ItemDetail> {
        self.known(server, key)?;
        match self.definition(server, key, digest).await {
            Ok(_text) => {}
            Err(GovernanceError::NotFound) => {
                let why = "this definition is not kept, so that nobody can have looked at it".to_owned();
                return Err(GovernanceError::Conflict(why));
            }
            Err(error) => return Err(error),
        }
        let (name, item, rule) = (Box::<str>::from(server), key.clone(), self.inner.rule());
        let decide = move |ledger: &Ledger, by: By<'_>| ledger.approve_item(&name, &item, digest, &rule, by);
        self.decide(server, Some(key), doing, decide).await?;
        self.item(server, key).await
    }

    /// Suspends, resumes or retires an item.
    ///
    /// # Errors
    /// [`GovernanceError`].
    pub async fn act_on_item(&self, server: &str, key: &ItemKey, action: Action, doing: Doing) -> Answer<ItemDetail> {
        let (name, item) = (Box::<str>::from(server), key.clone());
        let decide = move |ledger: &Ledger, by: By<'_>| ledger.act_on_item(&name, &item, action, by);
        self.decide(server, Some(key), doing, decide).await?;
        self.item(server, key).await
    }

    /// Decides on the registry's own runtime, so that it is brought to its end also when whoever asked has gone.
    async fn decide(
        &self,
        server: &str,
        key: Option<&ItemKey>,
        doing: Doing,
        decide: impl Fn(&Ledger, By<'_>) -> Result<Decided, Refused> + Send + Sync + 'static,
    ) -> Answer<Decided> {
        let (inner, server, key) = (Arc::clone(&self.inner), server.to_owned(), key.cloned());
        self.background
            .run(async move {
                let Doing { actor, version, reason } = doing;
                let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
                let by = By { actor: &actor, version, reason: &reason, at: inner.clock.now() };
                let decided = inner.decide(|ledger| decide(ledger, by)).await;
                if let Err(error) = &decided {
                    inner.record_refusal(&server, key.as_ref(), &actor, error).await;
                }
                decided
            })
            .await
    }

    fn known(&self, server: &str, key: &ItemKey) -> Answer<()> {
        let is_known = self.inner.look(|ledger| ledger.item(server, key).is_some());
        if is_known { Ok(()) } else { Err(GovernanceError::NotFound) }
    }
}

impl Inner {
    fn view(&self, server: &ServerRecord) -> ServerView {
        let mut items: BTreeMap<&'static str, usize> = ItemRecord::STANDINGS.map(|standing| (standing, 0)).into();
        self.look(|ledger| {
            for item in ledger.items(&server.name) {
                *items.entry(item.standing()).or_default() += 1;
            }
        });
        let world = self.live.peek();
        let is_there = world.servers.iter().any(|known| **known.name() == *server.name);
        let is_pending = server.state == State::Registered || server.is_change_pending();
        let problems = self.builder.left_out(&server.name).unwrap_or_default();
        ServerView {
            name: server.name.clone(),
            version: server.version,
            origin: server.origin,
            state: server.state,
            deployed: server.state == State::Approved && is_there,
            problems: problems.iter().map(ToString::to_string).collect(),
            digest: server.digest,
            change_pending: server.is_change_pending(),
            spec: server.spec.as_ref().map(SpecView::of),
            approved_spec: server.approved.as_ref().filter(|_| server.is_change_pending()).map(SpecView::of),
            approvals: server.approvals.clone(),
            approvals_missing: if is_pending { self.rule().missing(server.digest, &server.approvals) } else { 0 },
            registrant: server.registrant.clone(),
            registered_at: server.registered_at,
            changed_at: server.changed_at,
            items,
            last_read: self.reads.lock().unwrap_or_else(PoisonError::into_inner).get(&server.name).copied(),
        }
    }

    fn item_view(&self, item: &ItemRecord) -> ItemView {
        let rule = self.rule();
        self.look(|ledger| {
            let server = ledger.server(&item.server);
            ItemView::of(item, server, |waiting| rule.missing(waiting.digest, &waiting.approvals))
        })
    }

    async fn detail(&self, item: &ItemRecord) -> ItemDetail {
        let waiting = self.text(item.waiting.as_ref().map(|waiting| waiting.digest)).await;
        let pinned = self.text(item.pin.as_ref().map(|pin| pin.digest)).await;
        let changes = match (&pinned, &waiting) {
            (Some(pinned), Some(waiting)) => diff(pinned, waiting),
            _ => Vec::new(),
        };
        let raw = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok());
        let definition = if item.waiting.is_some() { waiting } else { pinned.clone() };
        ItemDetail { item: self.item_view(item), definition: raw(definition), pinned_definition: raw(pinned), changes }
    }

    async fn text(&self, digest: Option<Digest>) -> Option<String> {
        self.store().ok()?.definition(digest?).await.ok().flatten()
    }

    /// Reads the text of a registration as strictly as a request, and puts its parts into canonical form.
    fn spec_of(&self, text: &str) -> Answer<Spec> {
        let wrong = |why: String| {
            let complaint = Complaint::new(why, "send a JSON object with server and, if need be, route");
            GovernanceError::Invalid(vec![Problem::new("", Position::default(), complaint)])
        };
        if text.len() > SPEC_BYTES_MAX {
            return Err(wrong(format!("is longer than {SPEC_BYTES_MAX} bytes")));
        }
        let (mut server, mut route, mut unknown) = (None, None, None);
        let read = Reader::new(text.as_bytes(), DEPTH_MAX).and_then(|mut reader| {
            if reader.peek()? != Kind::Object {
                return Ok(());
            }
            reader.object(|reader, member| {
                let value = reader.skip()?.text;
                match &*member {
                    "server" => server = Some(value),
                    "route" if value != "null" => route = Some(value),
                    // Why it is done stands beside what is done.
                    "route" | "reason" => {}
                    other => unknown = Some(other.to_owned()),
                }
                Ok(())
            })?;
            reader.end()
        });
        read.map_err(|error| wrong(error.to_string()))?;
        if let Some(unknown) = unknown {
            return Err(wrong(format!("has an unknown key {unknown:?}")));
        }
        let server = server.ok_or_else(|| wrong("has no server".to_owned()))?;
        let canonical = |text: &str| canonical(text).map(Box::<str>::from).map_err(|error| wrong(error.to_string()));
        Ok(Spec { server: canonical(server)?, route: route.map(canonical).transpose()? })
    }
}

/// Cuts one more record than were wanted, which shows that there are others.
fn paged<R, T>(mut records: Vec<R>, limit: usize, place: impl Fn(&R) -> String, view: impl Fn(R) -> T) -> Paged<T> {
    let has_more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| has_more).map(|record| URL_SAFE_NO_PAD.encode(place(record)));
    Paged { items: records.into_iter().map(view).collect(), next }
}

fn uncursor(cursor: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

fn place(item: &ItemRecord) -> String {
    format!("{} {}", item.key.kind.label(), item.key.name)
}

/// The longest text of a registration.
const SPEC_BYTES_MAX: usize = 256 << 10;
