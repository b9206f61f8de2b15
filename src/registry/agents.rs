//! Whom does a route believe about agents?

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Issuer;
use crate::identity::IssuerPolicy;
use crate::identity::agent::embedded::Form;
use crate::identity::agent::{AgentRules, ChainClaim, NonceRule};

/// How a route treats agents.
#[derive(Clone, Debug)]
pub struct RouteAgents {
    /// Whether a request without an agent is refused.
    pub required: bool,
    /// Whom it believes; the same for every route.
    pub trust: Arc<AgentTrust>,
}

/// `agents:` of the configuration, with the issuers that it names.
#[derive(Debug)]
pub struct AgentTrust {
    /// The header that holds an agent's own token.
    pub header: HeaderName,
    /// What holds for every agent.
    pub rules: AgentRules,
    /// Whose agents' tokens are believed.
    pub issuers: Vec<AgentIssuer>,
    /// What is believed inside access tokens.
    pub access_tokens: Vec<AgentClaims>,
    /// Who may record a step of a chain.
    pub chain_issuers: Vec<Arc<Issuer>>,
    /// Who may vouch for what runs.
    pub attesters: Vec<Attester>,
}

/// Whose agents' tokens are believed.
#[derive(Debug)]
pub struct AgentIssuer {
    /// Who, with its keys.
    pub issuer: Arc<Issuer>,
    /// What is asked of its agents' tokens.
    pub policy: IssuerPolicy,
    /// The `iss` of everybody whose people its agents may act for.
    pub delegators: Box<[Arc<str>]>,
    /// What `delegation_chain` means in its tokens.
    pub chain: ChainClaim,
}

/// What an issuer's access tokens may say about agents.
#[derive(Debug)]
pub struct AgentClaims {
    /// Whose.
    pub issuer: Arc<Issuer>,
    /// In which forms.
    pub forms: Box<[Form]>,
    /// What `delegation_chain` means in them.
    pub chain: ChainClaim,
}

/// Who may vouch for what runs.
#[derive(Debug)]
pub struct Attester {
    /// Who, with its keys.
    pub issuer: Arc<Issuer>,
    /// For whose agents; empty: anybody's.
    pub providers: Vec<Box<str>>,
    /// How old an attestation may be.
    pub max_age: Duration,
    /// Whether it needs a nonce.
    pub nonce: NonceRule,
}

impl AgentTrust {
    /// The issuer of agents' tokens whose identifier is exactly `iss`.
    #[must_use]
    pub fn issuer(&self, iss: &str) -> Option<&AgentIssuer> {
        self.issuers.iter().find(|it| *it.policy.issuer == *iss)
    }

    /// What counts in the access tokens of the issuer whose identifier is exactly `iss`.
    #[must_use]
    pub fn claims_of(&self, iss: &str) -> Option<&AgentClaims> {
        self.access_tokens.iter().find(|it| *it.issuer.config.issuer == *iss)
    }

    /// Every issuer that a verification may rest on.
    pub fn everybody(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        let agents = self.issuers.iter().map(|it| &it.issuer);
        agents.chain(&self.chain_issuers).chain(self.attesters.iter().map(|it| &it.issuer))
    }
}
