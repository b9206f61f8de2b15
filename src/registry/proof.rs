//! What has a server proved to be?

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::Issuer;
use crate::config::ServerIdentityConfig;
use crate::identity::agent::ServerIdentity;
use crate::time::UnixSeconds;

/// The proof that a server must bring, and the last one it has brought. The control plane renews it, the data plane asks.
#[derive(Debug)]
pub struct Proof {
    /// What it must be, and where it says so.
    pub config: ServerIdentityConfig,
    /// Who must have signed it.
    pub issuer: Arc<Issuer>,
    current: ArcSwapOption<ServerIdentity>,
}

impl Proof {
    /// Nothing is proved yet.
    #[must_use]
    pub fn awaited(config: ServerIdentityConfig, issuer: Arc<Issuer>) -> Self {
        Self { config, issuer, current: ArcSwapOption::empty() }
    }

    /// What the server is, as last proved: until that expires, and while the key that signed it is published.
    #[must_use]
    pub fn current(&self, now: UnixSeconds) -> Option<Arc<ServerIdentity>> {
        let identity = self.current.load_full()?;
        (now < identity.expires_at() && self.issuer.keys.current().contains(identity.key())).then_some(identity)
    }

    /// Notes what the server has proved.
    pub fn proved(&self, identity: Arc<ServerIdentity>) {
        self.current.store(Some(identity));
    }

    /// Notes that the server has shown something else than what it should: what it proved before counts no more.
    pub fn refuted(&self) {
        self.current.store(None);
    }

    /// Takes over what another proof of the same has found: that of the snapshot before.
    pub fn take_over(&self, before: &Self) {
        if before.config == self.config && before.issuer.policy == self.issuer.policy {
            self.current.store(before.current.load_full());
        }
    }
}
