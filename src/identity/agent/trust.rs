//! What is asked of agents, and whom do we believe about them?

use std::time::Duration;

use crate::identity::IssuerPolicy;
use crate::identity::KeySet;

/// What holds for every agent: `agents:` of the configuration, as far as verification needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRules {
    /// Steps of a delegation chain, and actors inside one another in `act`.
    pub max_chain: usize,
    /// When a scope is within another.
    pub scope_subset: ScopeSubset,
    /// Constraints that are passed on to the rules; every other one that is not enforced here denies.
    pub known_constraints: Vec<Box<str>>,
}

impl Default for AgentRules {
    fn default() -> Self {
        Self { max_chain: 4, scope_subset: ScopeSubset::Exact, known_constraints: Vec::new() }
    }
}

/// When is a scope within another?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeSubset {
    /// When it is the same. The default.
    Exact,
    /// Also when it is the other with `:` and more behind it: `calendar` covers `calendar:view`, as in Appendix B of OIDC-A.
    Hierarchical,
}

/// What `delegation_chain` means in the tokens of an issuer. OIDC-A and draft-liu-oauth-chain-delegation use the same name
/// for different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainClaim {
    /// Something else, which is not looked at.
    Ignore,
    /// The chain of OIDC-A; what has another shape is refused. The default.
    OidcA,
}

/// Whether an attestation needs a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NonceRule {
    /// One that has none is good too.
    Optional,
    /// It does. The default.
    Required,
}

/// Whom a verification believes, at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// What holds for every agent.
    pub rules: &'a AgentRules,
    /// Who may record a step of a chain.
    pub chain_issuers: &'a [Trusted<'a>],
    /// Who may vouch for what runs.
    pub attesters: &'a [Attester<'a>],
}

/// Somebody whose signature counts.
#[derive(Clone, Copy, Debug)]
pub struct Trusted<'a> {
    /// Its name and algorithms.
    pub policy: &'a IssuerPolicy,
    /// Its published keys.
    pub keys: &'a KeySet,
}

/// Somebody who may vouch for what runs.
#[derive(Clone, Copy, Debug)]
pub struct Attester<'a> {
    /// Who.
    pub trusted: Trusted<'a>,
    /// Whose agents (`agent_provider`); empty: anybody's.
    pub providers: &'a [Box<str>],
    /// How old an attestation may be.
    pub max_age: Duration,
    /// Whether it needs a nonce.
    pub nonce: NonceRule,
}
