//! Why may this agent not act?

use crate::identity::AuthnError;

/// Why an agent is not believed, or may not act here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AgentError {
    /// It is believed, but what was delegated to it does not cover this.
    #[error("the agent may not act here: {0}")]
    Delegation(DelegationError),
    /// A claim that every agent's token has is not there: a person's token, or that of some other software.
    #[error("the token does not describe an agent")]
    NotAnAgent,
    /// One token stands for the person and for the agent.
    #[error("one token stands for person and agent")]
    SameToken,
    /// The token is not believed.
    #[error(transparent)]
    Token(AuthnError),
}

/// Why a delegation does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DelegationError {
    /// Two steps do not meet: one's `aud` is not the next one's `sub`.
    #[error("the chain is broken")]
    ChainBroken,
    /// Somebody stands in it twice.
    #[error("the chain has a cycle")]
    ChainCycle,
    /// A member is missing or not of its type, or the claim is another specification's of the same name.
    #[error("the chain is malformed")]
    ChainMalformed,
    /// A step is older than the one before it.
    #[error("the chain is not in the order of time")]
    ChainOrder,
    /// A step hands over more than the one before it.
    #[error("a step of the chain hands over more than it was given")]
    ChainScopeGrows,
    /// A signed step whose signature is wrong, or whose key is unknown.
    #[error("the signature of a step is wrong")]
    ChainSignature,
    /// More steps than `agents.max_chain`.
    #[error("the chain is too long")]
    ChainTooLong,
    /// A step was recorded by somebody we do not trust.
    #[error("a step of the chain is from an issuer that is not trusted")]
    ChainUntrustedIssuer,
    /// The header names one agent and the access token another.
    #[error("two agents are named")]
    ConflictingAgents,
    /// A constraint is not of its type.
    #[error("a constraint is malformed")]
    ConstraintMalformed,
    /// `max_duration` has passed.
    #[error("the delegation has ended")]
    DurationPassed,
    /// A step is in the future.
    #[error("a step of the chain is in the future")]
    FromTheFuture,
    /// Nobody has delegated, and the agent is not the caller itself.
    #[error("nobody has delegated to the agent")]
    MissingDelegator,
    /// `allowed_resources` does not name what is asked for.
    #[error("the delegation does not reach this")]
    ResourceNotAllowed,
    /// A constraint that nobody here understands.
    #[error("a constraint is not understood")]
    UnknownConstraint,
    /// The last `aud` of the chain is not the agent.
    #[error("the delegation is to another agent")]
    WrongDelegatee,
    /// The delegation is not the caller's, or `delegator_sub` and chain name different people.
    #[error("the delegation is by somebody else")]
    WrongDelegator,
}

impl AgentError {
    /// Word for metrics, audit and `data.detail`: one of a fixed set, never data from the request.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Delegation(error) => error.label(),
            Self::NotAnAgent => "not_an_agent",
            Self::SameToken => "same_token",
            Self::Token(error) => error.label(),
        }
    }
}

impl DelegationError {
    /// Word for metrics, audit and `data.detail`: one of a fixed set, never data from the request.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ChainBroken => "chain_broken",
            Self::ChainCycle => "chain_cycle",
            Self::ChainMalformed => "chain_malformed",
            Self::ChainOrder => "chain_order",
            Self::ChainScopeGrows => "chain_scope_grows",
            Self::ChainSignature => "chain_signature",
            Self::ChainTooLong => "chain_too_long",
            Self::ChainUntrustedIssuer => "chain_untrusted_issuer",
            Self::ConflictingAgents => "conflicting_agents",
            Self::ConstraintMalformed => "constraint_malformed",
            Self::DurationPassed => "duration_passed",
            Self::FromTheFuture => "from_the_future",
            Self::MissingDelegator => "missing_delegator",
            Self::ResourceNotAllowed => "resource_not_allowed",
            Self::UnknownConstraint => "unknown_constraint",
            Self::WrongDelegatee => "wrong_delegatee",
            Self::WrongDelegator => "wrong_delegator",
        }
    }
}

impl From<AuthnError> for AgentError {
    fn from(error: AuthnError) -> Self {
        Self::Token(error)
    }
}

impl From<DelegationError> for AgentError {
    fn from(error: DelegationError) -> Self {
        Self::Delegation(error)
    }
}
