//! Where is the registry kept? In SQLite for one machine, in PostgreSQL for many gateways; the same queries serve both.
//!
//! Every write is one transaction, and is reported as done only after its commit. All writers count one row up first
//! (`clock`), so that changes have one order and what one gateway has written another reads from there on. Records carry a
//! version: a write that expects another one changes nothing.

mod quarantines;
mod runtime;
mod sign_ins;

use std::borrow::Cow;
use std::future::Future;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType, Migrator};
use sqlx::postgres::PgListener;
use sqlx::{AnyPool, Row as _};
use tracing::{debug, warn};

use crate::config::{StoreConfig, StorePlace};
use crate::registry::definition::{Definition, Digest, ItemKey};
use crate::registry::record::{Act, ItemRecord, ServerRecord};
use crate::secret::Secret;
use crate::time::UnixSeconds;

pub use runtime::Background;
pub use sign_ins::SignIn;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: AnyPool,
    /// The URL of a PostgreSQL server, to listen at.
    postgres: Option<Secret<String>>,
    poll: Duration,
}

/// Why the database did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or does not answer. Whether a write was done is not known.
    #[error("the store cannot be reached")]
    Away,
    /// A record cannot be read.
    #[error("the store holds a record that cannot be read")]
    Corrupt,
    /// A record is not at the version that was expected; nothing was written.
    #[error("the record has changed meanwhile")]
    Stale,
}

/// Everything that changed after a moment.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The last change that was read.
    pub seq: u64,
    /// Servers.
    pub servers: Vec<ServerRecord>,
    /// Items.
    pub items: Vec<ItemRecord>,
}

/// What is written in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Servers, each at its next version. One at version 1 must not be there yet.
    pub servers: Vec<ServerRecord>,
    /// Items, likewise.
    pub items: Vec<ItemRecord>,
    /// Definitions that were seen.
    pub seen: Vec<Seen>,
    /// What was done.
    pub acts: Vec<Act>,
}

/// A definition that a server has listed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The server.
    pub server: Box<str>,
    /// The definition.
    pub definition: Definition,
    /// When.
    pub at: UnixSeconds,
}

/// A definition in the history of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Of the definition.
    pub digest: Digest,
    /// Of its canonical form.
    pub bytes: u64,
    /// When it was listed first.
    pub first_seen: UnixSeconds,
    /// When it was last noticed. A definition that stays is not noticed again.
    pub last_seen: UnixSeconds,
}

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Definitions of one item.
    pub versions: usize,
    /// Bytes of all definitions of one server.
    pub server_bytes: usize,
}

impl Store {
    /// Opens the database, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Away`] when that fails; the log says why.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (url, connections, postgres) = match &config.place {
            StorePlace::Sqlite(path) => {
                make_private(path);
                (Secret::new(sqlite_url(path)), SQLITE_CONNECTIONS, None)
            }
            StorePlace::Postgres(url) => (url.clone(), POSTGRES_CONNECTIONS, Some(url.clone())),
        };
        let is_sqlite = postgres.is_none();
        let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(ANSWER_MAX).after_connect(
            move |connection, _| {
                Box::pin(async move {
                    if is_sqlite {
                        for pragma in SQLITE_PRAGMAS {
                            sqlx::query(pragma).execute(&mut *connection).await?;
                        }
                    }
                    Ok(())
                })
            },
        );
        let pool = options.connect(url.expose()).await.map_err(|error| away(&error))?;
        let migrator = Migrator::new(Embedded).await.map_err(|error| away(&error.into()))?;
        migrator.run(&pool).await.map_err(|error| away(&error.into()))?;
        Ok(Self { pool, postgres, poll: config.poll })
    }

    /// Everything after the change number `seq`, from 0.
    ///
    /// # Errors
    /// [`StoreError::Away`] and [`StoreError::Corrupt`].
    pub async fn changes(&self, seq: u64) -> Result<Changes, StoreError> {
        bounded(async {
            // The number is read first: what is written meanwhile is read again with the next changes.
            let last = sqlx::query("SELECT seq FROM clock WHERE id = 1").fetch_one(&self.pool).await;
            let last = number(&last.map_err(|error| away(&error))?, "seq")?;
            if last == seq {
                return Ok(Changes { seq, ..Changes::default() });
            }
            let since = signed(seq);
            let servers = sqlx::query("SELECT body FROM servers WHERE seq > $1 ORDER BY name").bind(since);
            let servers = servers.fetch_all(&self.pool).await.map_err(|error| away(&error))?;
            let items = sqlx::query("SELECT body FROM items WHERE seq > $1").bind(since);
            let items = items.fetch_all(&self.pool).await.map_err(|error| away(&error))?;
            Ok(Changes { seq: last, servers: bodies(&servers)?, items: bodies(&items)? })
        })
        .await
    }

    /// Writes all of `batch`, or nothing; the number of this change.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn commit(&self, batch: &Batch, keep: Keep) -> Result<u64, StoreError> {
        bounded(async {
            let mut tx = self.pool.begin().await.map_err(|error| away(&error))?;
            let clock = sqlx::query("UPDATE clock SET seq = seq + 1 WHERE id = 1 RETURNING seq");
            let seq = number(&clock.fetch_one(&mut *tx).await.map_err(|error| away(&error))?, "seq")?;
            for server in &batch.servers {
                let write = if server.version == 1 {
                    "INSERT INTO servers (name, version, seq, body) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING"
                } else {
                    "UPDATE servers SET version = $2, seq = $3, body = $4 WHERE name = $1 AND version = $2 - 1"
                };
                let write = sqlx::query(write).bind(&*server.name).bind(signed(server.version)).bind(signed(seq));
                let written = write.bind(body(server)?).execute(&mut *tx).await.map_err(|error| away(&error))?;
                if written.rows_affected() != 1 {
                    return Err(StoreError::Stale);
                }
            }
            for item in &batch.items {
                let write = if item.version == 1 {
                    "INSERT INTO items (id, server, version, seq, body) VALUES ($1, $5, $2, $3, $4) ON CONFLICT (id) DO NOTHING"
                } else {
                    "UPDATE items SET version = $2, seq = $3, body = $4 WHERE id = $1 AND version = $2 - 1 AND server = $5"
                };
                let id = item_id(&item.server, &item.key);
                let write = sqlx::query(write).bind(id).bind(signed(item.version)).bind(signed(seq));
                let write = write.bind(body(item)?).bind(&*item.server);
                let written = write.execute(&mut *tx).await.map_err(|error| away(&error))?;
                if written.rows_affected() != 1 {
                    return Err(StoreError::Stale);
                }
            }
            for seen in &batch.seen {
                see(&mut tx, seen, keep).await?;
            }
            prune(&mut tx, batch, keep).await?;
            for (nth, act) in batch.acts.iter().enumerate() {
                let item = act.item.as_ref().map(|key| item_id(&act.server, key)).unwrap_or_default();
                sqlx::query("INSERT INTO acts (seq, nth, server, item, body) VALUES ($1, $2, $3, $4, $5)")
                    .bind(signed(seq))
                    .bind(i64::try_from(nth).unwrap_or(i64::MAX))
                    .bind(&*act.server)
                    .bind(item)
                    .bind(body(act)?)
                    .execute(&mut *tx)
                    .await
                    .map_err(|error| away(&error))?;
            }
            if self.postgres.is_some() {
                let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(seq.to_string());
                notify.execute(&mut *tx).await.map_err(|error| away(&error))?;
            }
            tx.commit().await.map_err(|error| away(&error))?;
            Ok(seq)
        })
        .await
    }

    /// The canonical text of a definition that was seen.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn definition(&self, digest: Digest) -> Result<Option<String>, StoreError> {
        bounded(async {
            let query = sqlx::query("SELECT body FROM definitions WHERE digest = $1").bind(digest.to_string());
            let row = query.fetch_optional(&self.pool).await.map_err(|error| away(&error))?;
            row.map(|row| text(&row, "body")).transpose()
        })
        .await
    }

    /// The definitions that an item has had, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Away`] and [`StoreError::Corrupt`].
    pub async fn versions(&self, server: &str, key: &ItemKey) -> Result<Vec<Version>, StoreError> {
        bounded(async {
            let query = sqlx::query(
                "SELECT digest, bytes, first_seen, last_seen FROM versions WHERE item = $1 \
                 ORDER BY last_seen DESC, first_seen DESC, digest",
            );
            let rows = query.bind(item_id(server, key)).fetch_all(&self.pool).await.map_err(|error| away(&error))?;
            rows.iter()
                .map(|row| {
                    Ok(Version {
                        digest: Digest::parse(&text(row, "digest")?).ok_or(StoreError::Corrupt)?,
                        bytes: number(row, "bytes")?,
                        first_seen: UnixSeconds(number(row, "first_seen")?),
                        last_seen: UnixSeconds(number(row, "last_seen")?),
                    })
                })
                .collect()
        })
        .await
    }

    /// What was done to a server (`key` none) or an item, the latest first, at most `limit` before the act `before`. Each
    /// comes with its place, for the next page.
    ///
    /// # Errors
    /// [`StoreError::Away`] and [`StoreError::Corrupt`].
    pub async fn acts(
        &self,
        server: &str,
        key: Option<&ItemKey>,
        before: Option<(u64, u64)>,
        limit: usize,
    ) -> Result<Vec<((u64, u64), Act)>, StoreError> {
        let (seq, nth) = before.unwrap_or((i64::MAX.unsigned_abs(), 0));
        bounded(async {
            let query = sqlx::query(
                "SELECT seq, nth, body FROM acts WHERE server = $1 AND item = $2 \
                 AND (seq < $3 OR (seq = $3 AND nth < $4)) ORDER BY seq DESC, nth DESC LIMIT $5",
            );
            let rows = query
                .bind(server)
                .bind(key.map(|key| item_id(server, key)).unwrap_or_default())
                .bind(signed(seq))
                .bind(signed(nth))
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(&self.pool)
                .await
                .map_err(|error| away(&error))?;
            let act = |row: &AnyRow| {
                let act = serde_json::from_str(&text(row, "body")?).map_err(|error| corrupt(&error))?;
                Ok(((number(row, "seq")?, number(row, "nth")?), act))
            };
            rows.iter().map(act).collect()
        })
        .await
    }

    /// Waits until there may be changes: another gateway tells of one (PostgreSQL), or it is time to look.
    pub async fn may_have_changed(&self, ears: &mut Ears) {
        let _ = tokio::time::timeout(self.poll, self.hear(ears)).await;
    }

    /// Returns when another gateway tells of a change; never where none can.
    async fn hear(&self, ears: &mut Ears) {
        let Some(url) = &self.postgres else { return std::future::pending().await };
        if ears.0.is_none() {
            match listener(url).await {
                Ok(listener) => ears.0 = Some(listener),
                Err(error) => {
                    debug!(%error, "The store cannot be listened to.");
                    return std::future::pending().await;
                }
            }
        }
        if let Some(listener) = &mut ears.0
            && listener.recv().await.is_err()
        {
            ears.0 = None;
            std::future::pending().await
        }
    }
}

/// What listens for the changes of other gateways.
#[derive(Default)]
pub struct Ears(Option<PgListener>);

async fn listener(url: &Secret<String>) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect(url.expose()).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Keeps a definition that was seen, unless there are too many bytes of its server already: what a server does is written in
/// any case, but it cannot fill the disk.
async fn see(tx: &mut sqlx::Transaction<'_, sqlx::Any>, seen: &Seen, keep: Keep) -> Result<(), StoreError> {
    let (id, digest) = (item_id(&seen.server, seen.definition.key()), seen.definition.digest().to_string());
    let text = seen.definition.text();
    let again = sqlx::query("UPDATE versions SET last_seen = $3 WHERE item = $1 AND digest = $2");
    let again = again.bind(&*id).bind(&*digest).bind(signed(seen.at.0));
    if again.execute(&mut **tx).await.map_err(|error| away(&error))?.rows_affected() > 0 {
        return Ok(());
    }
    let sum = sqlx::query("SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes FROM versions WHERE server = $1");
    let sum = sum.bind(&*seen.server).fetch_one(&mut **tx).await.map_err(|error| away(&error))?;
    if number(&sum, "bytes")?.saturating_add(text.len() as u64) > keep.server_bytes as u64 {
        warn!(server = %seen.server, "The server has listed more definitions than are kept of it; no others are taken in.");
        return Ok(());
    }
    let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let insert = sqlx::query(
        "INSERT INTO definitions (digest, bytes, body) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING",
    );
    let insert = insert.bind(&*digest).bind(bytes).bind(text);
    insert.execute(&mut **tx).await.map_err(|error| away(&error))?;
    let insert = sqlx::query(
        "INSERT INTO versions (item, digest, server, bytes, first_seen, last_seen) VALUES ($1, $2, $3, $4, $5, $5)",
    );
    let insert = insert.bind(&*id).bind(&*digest).bind(&*seen.server).bind(bytes).bind(signed(seen.at.0));
    insert.execute(&mut **tx).await.map_err(|error| away(&error))?;
    Ok(())
}

/// Takes the oldest definitions out where there are more than are kept. What is pinned, waits or was retired stays.
async fn prune(tx: &mut sqlx::Transaction<'_, sqlx::Any>, batch: &Batch, keep: Keep) -> Result<(), StoreError> {
    let mut dropped: Vec<String> = Vec::new();
    for item in &batch.items {
        let id = item_id(&item.server, &item.key);
        let held: Vec<String> = [item.pin.as_ref().map(|pin| pin.digest), item.waiting.as_ref().map(|new| new.digest)]
            .into_iter()
            .flatten()
            .map(|digest| digest.to_string())
            .collect();
        let query = sqlx::query("SELECT digest FROM versions WHERE item = $1 ORDER BY last_seen DESC, first_seen DESC");
        let rows = query.bind(&*id).fetch_all(&mut **tx).await.map_err(|error| away(&error))?;
        for row in rows.iter().skip(keep.versions) {
            let digest = text(row, "digest")?;
            if held.contains(&digest) {
                continue;
            }
            let delete = sqlx::query("DELETE FROM versions WHERE item = $1 AND digest = $2").bind(&*id).bind(&*digest);
            delete.execute(&mut **tx).await.map_err(|error| away(&error))?;
            dropped.push(digest);
        }
    }
    for digest in dropped {
        let delete = sqlx::query(
            "DELETE FROM definitions WHERE digest = $1 AND NOT EXISTS (SELECT 1 FROM versions WHERE digest = $1)",
        );
        delete.bind(digest).execute(&mut **tx).await.map_err(|error| away(&error))?;
    }
    Ok(())
}

/// The key of an item's row: SHA-256 in hex, so that a long name, or one with characters that PostgreSQL does not store, is
/// like any other.
fn item_id(server: &str, key: &ItemKey) -> String {
    Digest::of(format!("{server}\n{}\n{}", key.kind.label(), key.name).as_bytes()).to_string()
}

fn body(record: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| corrupt(&error))
}

fn bodies<T: DeserializeOwned>(rows: &[AnyRow]) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| serde_json::from_str(&text(row, "body")?).map_err(|error| corrupt(&error))).collect()
}

fn text(row: &AnyRow, column: &str) -> Result<String, StoreError> {
    row.try_get(column).map_err(|error| away(&error))
}

fn number(row: &AnyRow, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(|error| away(&error))?;
    u64::try_from(number).map_err(|_negative| StoreError::Corrupt)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A database that does not answer is as good as away.
async fn bounded<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(ANSWER_MAX, work).await.unwrap_or_else(|_elapsed| {
        warn!("The store did not answer in time.");
        Err(StoreError::Away)
    })
}

/// The text of the error may name hosts and files, never a password.
fn away(error: &sqlx::Error) -> StoreError {
    debug!(%error, "The store failed.");
    StoreError::Away
}

fn corrupt(error: &serde_json::Error) -> StoreError {
    warn!(%error, "The store holds a record that cannot be read.");
    StoreError::Corrupt
}

/// Makes the file of a database for its owner alone, as it holds sign-ins. One that is there stays as it is; what cannot be
/// made here cannot be opened either, which says why.
fn make_private(path: &Path) {
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => url.push(char::from(byte)),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url.push_str("?mode=rwc");
    url
}

/// The tables, in the program itself.
#[derive(Debug)]
struct Embedded;

type Migrations = Result<Vec<Migration>, BoxDynError>;

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> Pin<Box<dyn Future<Output = Migrations> + Send>> {
        let first = include_str!("../../migrations/0001_registry.sql");
        let second = include_str!("../../migrations/0002_quarantines.sql");
        let migration = |version, name: &'static str, sql: &'static str| {
            Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, Cow::Borrowed(sql), false)
        };
        Box::pin(std::future::ready(Ok(vec![migration(1, "registry", first), migration(2, "quarantines", second)])))
    }
}

/// WAL: readers and the writer do not wait for each other. FULL: what was committed survives a loss of power.
const SQLITE_PRAGMAS: [&str; 3] =
    ["PRAGMA busy_timeout = 5000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"];

const SQLITE_CONNECTIONS: u32 = 2;
const POSTGRES_CONNECTIONS: u32 = 4;

/// How long a connection, and a whole piece of work, may take.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Where gateways tell each other of changes.
const CHANNEL: &str = "portcullis";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests;
