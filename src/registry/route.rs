//! What is one public path to the data plane?

use std::sync::Arc;

use crate::config::{IssuerConfig, RouteConfig};
use crate::content::Plan;
use crate::identity::challenge::Challenges;
use crate::identity::{IssuerPolicy, KeySource};
use crate::policy::Policy;
use crate::policy::budget::Budget;
use crate::policy::taint::Taint;

use super::RouteAgents;
use super::Server;

/// A public path: what stands behind it, who may vouch for its callers, and what they may do.
#[derive(Debug)]
pub struct Route {
    /// Tells this compiled route from every other, also from the same path after a reload: caches are keyed by it.
    pub id: u64,
    /// As configured.
    pub config: Arc<RouteConfig>,
    /// The one server behind it.
    pub server: Arc<Server>,
    /// Accepted issuers, in the order of the configuration; at least one.
    pub issuers: Vec<Arc<Issuer>>,
    /// How agents are treated; `None`: nobody looks for one.
    pub agents: Option<RouteAgents>,
    /// Who may do what.
    pub policy: Policy,
    /// The budgets that can count requests here; mostly none.
    pub budgets: Vec<Arc<Budget>>,
    /// What must not follow what at its server; mostly nothing.
    pub taint: Option<Taint>,
    /// What may come back; `None`: whatever does.
    pub content: Option<Arc<Plan>>,
    /// `WWW-Authenticate` of its refusals.
    pub challenges: Challenges,
}

impl Route {
    /// The issuer whose identifier is exactly `iss`.
    #[must_use]
    pub fn issuer(&self, iss: &str) -> Option<&Arc<Issuer>> {
        self.issuers.iter().find(|issuer| *issuer.config.issuer == *iss)
    }
}

/// Who may vouch for a person, with the keys it signs with at this moment.
#[derive(Debug)]
pub struct Issuer {
    /// As configured.
    pub config: Arc<IssuerConfig>,
    /// What verification asks of its tokens.
    pub policy: IssuerPolicy,
    /// Its published keys.
    pub keys: Arc<dyn KeySource>,
}
