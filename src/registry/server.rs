//! What is one MCP server to the data plane?

use std::sync::Arc;

use crate::config::ServerConfig;
use crate::credential::{Credential, ExchangePlan, NotAHeaderValue, Plan, PlanFingerprint};
use crate::routing::shadow::Shadow;
use crate::routing::{Pool, Router};

use super::Proof;

/// A registered MCP server.
#[derive(Debug)]
pub struct Server {
    /// As configured.
    pub config: Arc<ServerConfig>,
    /// Its instances.
    pub pool: Arc<Pool>,
    /// Which of them takes which request; `None`: every one takes any.
    pub router: Option<Arc<Router>>,
    /// Which calls are made once more elsewhere, for comparison; `None`: none.
    pub shadow: Option<Arc<Shadow>>,
    /// What it must prove to be; `None`: nothing.
    pub proof: Option<Arc<Proof>>,
    /// What it sees in place of a caller's token.
    pub authority: Authority,
}

/// A credential plan, prepared as far as it can be without a caller.
#[derive(Debug)]
pub enum Authority {
    /// A token of its own for every caller.
    Exchange {
        /// How to ask for it.
        plan: Box<ExchangePlan>,
        /// Keeps tokens of this plan apart from those of any other in the cache.
        fingerprint: PlanFingerprint,
    },
    /// The same for everybody.
    Fixed(Credential),
    /// Nothing.
    None,
}

impl Server {
    /// What routes, rules, metrics and logs call it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }
}

impl Authority {
    /// Prepares a plan.
    ///
    /// # Errors
    /// [`NotAHeaderValue`] when the operator's secret cannot stand in a header.
    pub fn prepare(plan: &Plan) -> Result<Self, NotAHeaderValue> {
        Ok(match plan {
            Plan::None => Self::None,
            Plan::Static { header, secret } => Self::Fixed(Credential::from_static(header.clone(), secret)?),
            Plan::TokenExchange(plan) => Self::Exchange { plan: plan.clone(), fingerprint: plan.fingerprint() },
        })
    }
}
