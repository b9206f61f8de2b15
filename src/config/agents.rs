//! What did the operator ask about agents, and about the identity of servers?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::identity::TokenTypes;
use crate::identity::agent::embedded::Form;
use crate::identity::agent::{AgentRules, ChainClaim, NonceRule, ServerRules};

/// `agents:` whom we believe about agents. Issuers are names of entries of `issuers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsConfig {
    /// The header that holds an agent's own token. Default: `x-agent-token`.
    pub header: HeaderName,
    /// Whose agents' tokens are believed.
    pub issuers: Vec<AgentIssuerConfig>,
    /// What is believed inside access tokens.
    pub access_tokens: Vec<AgentClaimsConfig>,
    /// Further issuers who may record a step of a chain.
    pub chain_issuers: Vec<Arc<str>>,
    /// What holds for every agent.
    pub rules: AgentRules,
    /// Who may vouch for what runs.
    pub attestation: Vec<AttesterConfig>,
}

/// One entry of `agents.issuers:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIssuerConfig {
    /// Who.
    pub issuer: Arc<str>,
    /// Accepted `aud` values; empty: the route's own resource identifier.
    pub audiences: Vec<Box<str>>,
    /// Which of its tokens count. Default: ID tokens too, because OIDC-A defines its claims for them.
    pub token_types: TokenTypes,
    /// Whose people its agents may act for. Default: its own.
    pub delegators: Vec<Arc<str>>,
    /// What `delegation_chain` means in its tokens.
    pub chain: ChainClaim,
}

/// One entry of `agents.access_tokens:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentClaimsConfig {
    /// In whose tokens.
    pub issuer: Arc<str>,
    /// Which claims about agents count.
    pub claims: Vec<Form>,
    /// What `delegation_chain` means in them.
    pub chain: ChainClaim,
}

/// One entry of `agents.attestation:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttesterConfig {
    /// Who.
    pub issuer: Arc<str>,
    /// For whose agents (`agent_provider`); empty: anybody's.
    pub providers: Vec<Box<str>>,
    /// How old an attestation may be. Default: 1 h.
    pub max_age: Duration,
    /// Whether it needs a nonce.
    pub nonce: NonceRule,
}

/// `routes[].agents:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentUse {
    /// An agent that is named is verified; a request without one is a person's own.
    Optional,
    /// A request without a believable agent is refused.
    Required,
}

/// `servers[].identity:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentityConfig {
    /// The name of the issuer of its resource token.
    pub issuer: Arc<str>,
    /// Where the token is fetched.
    pub url: String,
    /// The header of the answer that holds it; `None`: the body does.
    pub header: Option<HeaderName>,
    /// What the server must be.
    pub rules: ServerRules,
    /// How often the token is fetched again. Default: 5 min.
    pub refresh: Duration,
    /// Whether nothing goes to a server without it. Default: true.
    pub required: bool,
}

impl AgentsConfig {
    /// The names of every issuer whose steps count in a chain: those that are named for it, and those whose agents and people
    /// are believed.
    #[must_use]
    pub fn all_chain_issuers(&self) -> BTreeSet<Arc<str>> {
        let agents = self.issuers.iter().flat_map(|it| it.delegators.iter().chain([&it.issuer]));
        let people = self.access_tokens.iter().map(|it| &it.issuer);
        agents.chain(people).chain(&self.chain_issuers).cloned().collect()
    }
}
