use std::sync::Arc;

use super::*;
use crate::mcp::ItemKind;
use crate::registry::approval::Actor;
use crate::registry::lifecycle::State;
use crate::registry::record::Cause;
use crate::registry::testkit::{pinned, server, waiting};

mod postgres;

/// Every test here runs on SQLite, and on PostgreSQL where Debian's package is installed.
fn on_both(test: impl AsyncFn(Store)) {
    let runtime = Background::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = StorePlace::Sqlite(directory.path().join("a registry?.db"));
    let config = StoreConfig { place, poll: Duration::from_millis(100) };
    runtime.block_on(async { test(Store::open(&config).await.unwrap()).await }).unwrap();
    let Some(server) = postgres::Server::start() else { return };
    let config =
        StoreConfig { place: StorePlace::Postgres(Secret::new(server.url())), poll: Duration::from_millis(100) };
    runtime.block_on(async { test(Store::open(&config).await.unwrap()).await }).unwrap();
}

const KEEP: Keep = Keep { versions: 3, server_bytes: 10_000 };

#[test]
fn what_was_written_is_read_again() {
    on_both(async |store| {
        let batch = Batch {
            servers: vec![server("mail", State::Approved)],
            items: vec![pinned("mail", "send", 1), waiting("mail", "a\0b\n'\u{1f600}", 2, Cause::New)],
            ..Batch::default()
        };
        assert_eq!(store.commit(&batch, KEEP).await, Ok(1));
        let changes = store.changes(0).await.unwrap();
        assert_eq!(changes.seq, 1);
        assert_eq!(changes.servers, batch.servers);
        let mut items = changes.items;
        items.sort_by_key(|item| item.key.clone());
        let mut expected = batch.items.clone();
        expected.sort_by_key(|item| item.key.clone());
        assert_eq!(items, expected);
        assert_eq!(store.changes(1).await.unwrap().items, []);
    });
}

#[test]
fn a_write_that_expects_another_version_changes_nothing() {
    on_both(async |store| {
        let first = server("mail", State::Registered);
        let batch = |servers: Vec<ServerRecord>| Batch { servers, ..Batch::default() };
        store.commit(&batch(vec![first.clone()]), KEEP).await.unwrap();
        assert_eq!(store.commit(&batch(vec![first.clone()]), KEEP).await, Err(StoreError::Stale));
        let second = ServerRecord { version: 2, state: State::Approved, ..first.clone() };
        store.commit(&batch(vec![second.clone()]), KEEP).await.unwrap();
        assert_eq!(store.commit(&batch(vec![second.clone()]), KEEP).await, Err(StoreError::Stale));
        let third = ServerRecord { version: 4, ..first.clone() };
        assert_eq!(store.commit(&batch(vec![third]), KEEP).await, Err(StoreError::Stale));
        // All or nothing: the first of two is not written either.
        let new = server("wiki", State::Registered);
        assert_eq!(store.commit(&batch(vec![new, first]), KEEP).await, Err(StoreError::Stale));
        assert_eq!(store.changes(0).await.unwrap().servers, [second]);
    });
}

#[test]
fn of_many_writers_of_one_record_exactly_one_wins() {
    on_both(async |store| {
        let first = server("mail", State::Registered);
        store.commit(&Batch { servers: vec![first.clone()], ..Batch::default() }, KEEP).await.unwrap();
        let store = Arc::new(store);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, next) = (Arc::clone(&store), ServerRecord { version: 2, ..first.clone() });
                tokio::spawn(
                    async move { store.commit(&Batch { servers: vec![next], ..Batch::default() }, KEEP).await },
                )
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => assert_eq!(error, StoreError::Stale),
            }
        }
        assert_eq!(won, 1);
    });
}

#[test]
fn history_keeps_the_latest_definitions_and_those_that_are_in_use() {
    on_both(async |store| {
        let definition = |nth: usize| {
            let text = format!(r#"{{"name":"send","description":"{nth}"}}"#);
            Definition::read(ItemKind::Tool, &text, 1000).unwrap()
        };
        let mut item = pinned("mail", "send", 0);
        item.pin.as_mut().unwrap().digest = definition(1).digest();
        for nth in 1..=6_u64 {
            item.version = nth;
            let seen = Seen { server: "mail".into(), definition: definition(nth as usize), at: UnixSeconds(nth) };
            let batch = Batch { items: vec![item.clone()], seen: vec![seen], ..Batch::default() };
            store.commit(&batch, KEEP).await.unwrap();
        }
        let versions = store.versions("mail", &item.key).await.unwrap();
        let seen: Vec<u64> = versions.iter().map(|version| version.last_seen.0).collect();
        assert_eq!(seen, [6, 5, 4, 1], "the pinned one stays");
        let text = store.definition(definition(6).digest()).await.unwrap();
        assert_eq!(text.as_deref(), Some(definition(6).text()));
        assert_eq!(store.definition(definition(2).digest()).await, Ok(None));
    });
}

#[test]
fn a_server_cannot_fill_the_disk_with_definitions() {
    on_both(async |store| {
        let mut kept = 0;
        for nth in 0..20 {
            let text = format!(r#"{{"name":"tool-{nth}","description":"{}"}}"#, "x".repeat(1000));
            let definition = Definition::read(ItemKind::Tool, &text, 2000).unwrap();
            let digest = definition.digest();
            let mut item = waiting("mail", &format!("tool-{nth}"), 1, Cause::New);
            item.waiting.as_mut().unwrap().digest = digest;
            let seen = Seen { server: "mail".into(), definition, at: UnixSeconds(1) };
            let batch = Batch { items: vec![item], seen: vec![seen], ..Batch::default() };
            store.commit(&batch, KEEP).await.unwrap();
            kept += usize::from(store.definition(digest).await.unwrap().is_some());
        }
        assert_eq!(kept, 9);
        // That they were there is written all the same: what is quarantined stays so.
        assert_eq!(store.changes(0).await.unwrap().items.len(), 20);
    });
}

#[test]
fn acts_are_told_from_the_latest_on_a_page_at_a_time() {
    on_both(async |store| {
        let act = |what: &str, item: Option<&str>| Act {
            server: "mail".into(),
            item: item.map(|name| ItemKey::new(ItemKind::Tool, name)),
            what: what.into(),
            digest: None,
            state: State::Approved,
            actor: Actor::gateway(),
            at: UnixSeconds(1),
            reason: "because".into(),
        };
        for nth in 0..3 {
            let acts = vec![act(&format!("a{nth}"), None), act(&format!("b{nth}"), None), act("other", Some("send"))];
            store.commit(&Batch { acts, ..Batch::default() }, KEEP).await.unwrap();
        }
        let words = |page: &[((u64, u64), Act)]| page.iter().map(|(_, act)| act.what.to_string()).collect::<Vec<_>>();
        let page = store.acts("mail", None, None, 4).await.unwrap();
        assert_eq!(words(&page), ["b2", "a2", "b1", "a1"]);
        let page = store.acts("mail", None, page.last().map(|(place, _)| *place), 4).await.unwrap();
        assert_eq!(words(&page), ["b0", "a0"]);
        let key = ItemKey::new(ItemKind::Tool, "send");
        assert_eq!(store.acts("mail", Some(&key), None, 100).await.unwrap().len(), 3);
    });
}

#[test]
fn a_sign_in_is_found_until_it_ends_and_used_once() {
    on_both(async |store| {
        let row = SignIn {
            id: Digest::of(b"secret of the browser"),
            purpose: "session".into(),
            body: "{}".into(),
            created: UnixSeconds(10),
            touched: UnixSeconds(10),
            expires: UnixSeconds(100),
        };
        store.create_sign_in(&row).await.unwrap();
        assert_eq!(store.create_sign_in(&row).await, Err(StoreError::Stale));
        assert_eq!(store.sign_in(row.id, "session", UnixSeconds(99)).await, Ok(Some(row.clone())));
        assert_eq!(store.sign_in(row.id, "session", UnixSeconds(100)).await, Ok(None));
        assert_eq!(store.sign_in(row.id, "state", UnixSeconds(20)).await, Ok(None));
        assert_eq!(store.touch_sign_in(row.id, "session", UnixSeconds(50)).await, Ok(true));
        assert_eq!(store.sign_in(row.id, "session", UnixSeconds(60)).await.unwrap().unwrap().touched, UnixSeconds(50));
        assert_eq!(store.touch_sign_in(row.id, "session", UnixSeconds(100)).await, Ok(false));
        assert_eq!(store.delete_sign_in(row.id, "session").await, Ok(true));
        assert_eq!(store.delete_sign_in(row.id, "session").await, Ok(false));
        store.create_sign_in(&row).await.unwrap();
        assert_eq!(store.purge_sign_ins(UnixSeconds(99)).await, Ok(0));
        assert_eq!(store.purge_sign_ins(UnixSeconds(100)).await, Ok(1));
    });
}

#[test]
fn opening_it_again_keeps_what_is_there() {
    let runtime = Background::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let config = StoreConfig { place: StorePlace::Sqlite(path.clone()), poll: Duration::from_secs(1) };
    runtime
        .block_on(async {
            let store = Store::open(&config).await.unwrap();
            let batch = Batch { servers: vec![server("mail", State::Approved)], ..Batch::default() };
            store.commit(&batch, KEEP).await.unwrap();
            let again = Store::open(&config).await.unwrap();
            assert_eq!(again.changes(0).await.unwrap().servers, batch.servers);
        })
        .unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_place_that_cannot_be_opened_is_away() {
    let runtime = Background::start().unwrap();
    for place in [
        StorePlace::Sqlite("/nowhere/at/all/registry.db".into()),
        StorePlace::Postgres(Secret::new("postgres://a:b@127.0.0.1:1/none".to_owned())),
    ] {
        let config = StoreConfig { place, poll: Duration::from_secs(1) };
        let opened = runtime.block_on(async { Store::open(&config).await.err() }).unwrap();
        assert_eq!(opened, Some(StoreError::Away));
    }
}

/// A pool whose connections have all broken finds new ones.
#[test]
fn a_server_that_comes_back_is_found_again() {
    let Some(mut server_process) = postgres::Server::start() else { return };
    let runtime = Background::start().unwrap();
    let place = StorePlace::Postgres(Secret::new(server_process.url()));
    let config = StoreConfig { place, poll: Duration::from_secs(1) };
    let store = runtime.block_on(async { Store::open(&config).await.unwrap() }).unwrap();
    let batch = Batch { servers: vec![server("mail", State::Approved)], ..Batch::default() };
    assert_eq!(runtime.block_on(store.commit(&batch, KEEP)), Some(Ok(1)));
    server_process.stop();
    assert_eq!(runtime.block_on(store.commit(&batch, KEEP)), Some(Err(StoreError::Away)));
    server_process.resume();
    let changes = runtime.block_on(store.changes(0)).unwrap().unwrap();
    assert_eq!((changes.seq, changes.servers), (1, batch.servers));
}

/// Another gateway's change is heard at once, not only when it is time to look.
#[test]
fn gateways_on_postgresql_hear_of_each_others_changes() {
    let Some(server_process) = postgres::Server::start() else { return };
    let runtime = Background::start().unwrap();
    let config =
        StoreConfig { place: StorePlace::Postgres(Secret::new(server_process.url())), poll: Duration::from_secs(60) };
    runtime
        .block_on(async {
            let (one, other) = (Store::open(&config).await.unwrap(), Store::open(&config).await.unwrap());
            let waiting = tokio::spawn(async move {
                let mut ears = Ears::default();
                loop {
                    other.may_have_changed(&mut ears).await;
                    let changes = other.changes(0).await.unwrap();
                    if !changes.servers.is_empty() {
                        return changes.servers;
                    }
                }
            });
            // The listener needs a moment to be there; what is told before it listens, nobody hears.
            let mut version = 0;
            let told = loop {
                version += 1;
                let batch = Batch {
                    servers: vec![ServerRecord { version, ..server("mail", State::Approved) }],
                    ..Batch::default()
                };
                one.commit(&batch, KEEP).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
                if waiting.is_finished() || version > 50 {
                    break version;
                }
            };
            assert!(told <= 50, "nothing was heard");
            assert_eq!(waiting.await.unwrap().len(), 1);
        })
        .unwrap();
}
