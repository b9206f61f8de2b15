//! Where do an issuer's keys come from, as far as those who verify with them need to know?

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::KeySet;
use crate::time::UnixSeconds;

/// The published keys of one issuer: something outside the core fetches and keeps them.
#[async_trait]
pub trait KeySource: Debug + Send + Sync {
    /// The last good set; empty until the first fetch succeeded. A request takes it once and verifies with what it took.
    fn current(&self) -> Arc<KeySet>;

    /// Fetches the keys, as on the refresh interval. Returns the outcome as a fixed word.
    async fn refresh(&self, now: UnixSeconds) -> &'static str;

    /// Fetches the keys because a token names one that is not there: at most once per cool-down, and one fetch for
    /// all who wait. Returns the outcome as a fixed word when this call fetched. Whatever it returns, the set may have
    /// changed since it was taken.
    async fn refetch(self: Arc<Self>, now: UnixSeconds) -> Option<&'static str>;
}
