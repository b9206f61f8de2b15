//! Where is it kept what is stopped? In the store of the registry, for every gateway on it.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::quarantine::Quarantine;
use crate::store::{Ears, StoreError};
use crate::time::UnixSeconds;

use super::Governance;

impl Governance {
    /// Everything that is stopped, and the number of the last change; none when nothing has changed since `seq`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantines(
        &self,
        seq: Option<u64>,
        now: UnixSeconds,
    ) -> Result<Option<(u64, Vec<Quarantine>)>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.quarantines(seq, now).await }).await
    }

    /// As [`Governance::quarantines`], for whoever is not on a runtime, and waits for it at most `within`.
    #[must_use]
    pub fn first_quarantines(&self, now: UnixSeconds, within: Duration) -> Option<(u64, Vec<Quarantine>)> {
        let store = self.inner.store().ok()?;
        let read = async { tokio::time::timeout(within, store.quarantines(None, now)).await };
        self.background.block_on(read)?.ok()?.ok()?
    }

    /// Puts one in place.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_quarantine(&self, quarantine: Quarantine, now: UnixSeconds) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.put_quarantine(&quarantine, now).await }).await
    }

    /// Takes one out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_quarantine(&self, id: Box<str>) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        self.background.run(async move { inner.store()?.delete_quarantine(&id).await }).await
    }

    /// Runs `follow` for as long as the process lives, where the connections of the store are.
    pub fn keep_running(&self, follow: impl Future<Output = ()> + Send + 'static) {
        let _ends_with_the_process = self.background.spawn(follow);
    }

    /// Waits until something may have changed in the store, at most `within`. To be called where the connections of the
    /// store are.
    pub async fn may_have_changed(&self, ears: &mut Ears, within: Duration) {
        match self.inner.store() {
            Ok(store) => drop(tokio::time::timeout(within, store.may_have_changed(ears)).await),
            Err(_away) => tokio::time::sleep(within).await,
        }
    }
}
