//! Where is it kept who has signed in?

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::control::governance::Governance;
use crate::registry::definition::Digest;
use crate::store::{SignIn as Row, StoreError};
use crate::time::UnixSeconds;

use super::SESSION;

/// Rows that come, are touched and go. What the browser holds is never kept, only its digest.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Adds a row. With `rows_max` of them there, the one that was not used for the longest time makes room.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn create(&self, row: Row, rows_max: usize) -> Result<(), StoreError>;

    /// The row with this id that has not expired at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find(&self, id: Digest, now: UnixSeconds) -> Result<Option<Row>, StoreError>;

    /// Notes that a row was used.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn touch(&self, id: Digest, now: UnixSeconds) -> Result<(), StoreError>;

    /// Takes a row out.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn delete(&self, id: Digest) -> Result<(), StoreError>;
}

/// Where sessions are kept: in the store, where there is one.
#[must_use]
pub fn sessions_of(governance: Option<&Governance>) -> Arc<dyn Sessions> {
    match governance {
        Some(governance) => Arc::new(InStore(governance.clone())),
        None => Arc::new(InMemory::default()),
    }
}

/// In the store of the registry: every gateway on it knows the same sessions.
struct InStore(Governance);

#[async_trait]
impl Sessions for InStore {
    async fn create(&self, row: Row, rows_max: usize) -> Result<(), StoreError> {
        self.0.purge_sign_ins(row.created).await?;
        self.0.create_sign_in(row).await?;
        self.0.keep_sign_ins(SESSION, rows_max).await.map(drop)
    }

    async fn find(&self, id: Digest, now: UnixSeconds) -> Result<Option<Row>, StoreError> {
        self.0.sign_in(id, SESSION, now).await
    }

    async fn touch(&self, id: Digest, now: UnixSeconds) -> Result<(), StoreError> {
        self.0.touch_sign_in(id, SESSION, now).await.map(drop)
    }

    async fn delete(&self, id: Digest) -> Result<(), StoreError> {
        self.0.delete_sign_in(id, SESSION).await.map(drop)
    }
}

/// In this process alone: where no store is configured, people sign in again after a restart.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<HashMap<Digest, Row>>);

impl InMemory {
    fn rows(&self) -> MutexGuard<'_, HashMap<Digest, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sessions for InMemory {
    async fn create(&self, row: Row, rows_max: usize) -> Result<(), StoreError> {
        let mut rows = self.rows();
        if rows.len() >= rows_max {
            rows.retain(|_id, kept| kept.expires > row.created);
        }
        while rows.len() >= rows_max.max(1) {
            let Some(oldest) = rows.values().min_by_key(|row| row.touched).map(|row| row.id) else { break };
            rows.remove(&oldest);
        }
        rows.insert(row.id, row);
        Ok(())
    }

    async fn find(&self, id: Digest, now: UnixSeconds) -> Result<Option<Row>, StoreError> {
        Ok(self.rows().get(&id).filter(|row| row.expires > now).cloned())
    }

    async fn touch(&self, id: Digest, now: UnixSeconds) -> Result<(), StoreError> {
        if let Some(row) = self.rows().get_mut(&id) {
            row.touched = now;
        }
        Ok(())
    }

    async fn delete(&self, id: Digest) -> Result<(), StoreError> {
        self.rows().remove(&id);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn row(name: &str, touched: u64, expires: u64) -> Row {
        Row {
            id: Digest::of(name.as_bytes()),
            purpose: "session".into(),
            body: "{}".into(),
            created: UnixSeconds(touched),
            touched: UnixSeconds(touched),
            expires: UnixSeconds(expires),
        }
    }

    #[tokio::test]
    async fn it_holds_no_more_than_its_bound_and_nothing_that_has_expired() {
        let sessions = InMemory::default();
        for (name, touched) in [("a", 1), ("b", 2), ("c", 3)] {
            sessions.create(row(name, touched, 100), 2).await.unwrap();
        }
        let has = async |name: &str, now| sessions.find(Digest::of(name.as_bytes()), UnixSeconds(now)).await.unwrap();
        assert!(has("a", 5).await.is_none(), "the one that was unused for the longest time made room");
        assert!(has("b", 5).await.is_some());
        assert!(has("c", 100).await.is_none(), "it has expired");
        sessions.delete(Digest::of(b"b")).await.unwrap();
        assert!(has("b", 5).await.is_none());
    }
}
