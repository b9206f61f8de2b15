//! What do OIDC-A claims say? The members of OpenID Connect for Agents 1.0, wherever they stand, turned into an identity.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use super::AgentError;
use super::AgentIdentity;
use super::Assurance;
use super::Attestation;
use super::ChainClaim;
use super::DelegationError;
use super::Root;
use super::SignedBy;
use super::Source;
use super::Trust;
use super::attestation;
use super::attestation::SeenNonce;
use super::chain;
use super::constraints;
use super::constraints::Constraints;
use crate::identity::AuthnError;
use crate::identity::Scopes;
use crate::identity::jwt;
use crate::time::UnixSeconds;

/// Where OIDC-A claims stand, and what is known of the token around them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The claims.
    pub(super) claims: &'a Map<String, Value>,
    /// The agent's name.
    pub(super) agent: &'a str,
    /// `iss` of the token.
    pub(super) issuer: &'a Arc<str>,
    /// Which of the two meanings `delegation_chain` has there.
    pub(super) chain: ChainClaim,
    /// Where.
    pub(super) source: Source,
    /// Tolerance for moments.
    pub(super) leeway: Duration,
    /// The resource identifier of the route.
    pub(super) resource: &'a str,
}

/// What was read, and what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    pub(super) identity: AgentIdentity,
    /// Where the delegation begins, when there is one: `sub` of the first step, else `delegator_sub`.
    pub(super) begins_with: Option<Box<str>>,
    /// The first second at which something of it is over.
    pub(super) until: Option<UnixSeconds>,
    pub(super) signed_by: Vec<SignedBy>,
    pub(super) nonce: Option<SeenNonce>,
}

/// The claims that every agent's token has (OIDC-A 1.0, "REQUIRED").
pub(super) const REQUIRED: [&str; 4] = ["agent_type", "agent_model", "agent_provider", "agent_instance_id"];

/// Whether the claims describe an agent at all.
pub(super) fn describe_an_agent(claims: &Map<String, Value>) -> bool {
    REQUIRED.iter().any(|name| claims.contains_key(*name))
}

/// Reads the claims of `place` strictly: what is required is there, everything is of its type, the chain holds and ends with
/// the agent, and `delegator_sub` stands where it must.
pub(super) fn read(place: Place<'_>, trust: &Trust<'_>, now: UnixSeconds) -> Result<Read, AgentError> {
    let Place { claims, agent, issuer, leeway, .. } = place;
    if REQUIRED.iter().any(|name| !claims.contains_key(*name)) {
        return Err(AgentError::NotAnAgent);
    }
    let required = |name: &str| jwt::required_string(claims, name).map(|text| Some(text.into()));
    let optional = |name: &str| optional_text(claims, name);

    let delegator = optional("delegator_sub")?;
    let chain = match place.chain {
        ChainClaim::Ignore => None,
        ChainClaim::OidcA => chain::read(claims.get("delegation_chain"), trust, leeway, now)?,
    };
    let begins_with = check_ends(chain.as_ref(), delegator.as_deref(), agent)?;

    let issued_at = jwt::numeric_date(claims, "iat")?.map(|at| at.floor());
    let since = chain.as_ref().and_then(|chain| chain.steps.last()?.delegated_at).or(issued_at);
    let limits = constraints::object(claims.get("delegation_constraints"))?;
    let whole = Constraints::read(&limits, since, &trust.rules.known_constraints)?;
    let whole_until = whole.until.map(|until| until.plus(leeway));
    if whole_until.is_some_and(|until| until <= now) {
        return Err(DelegationError::DurationPassed.into());
    }

    let instance: Option<Box<str>> = required("agent_instance_id")?;
    let provider: Option<Box<str>> = required("agent_provider")?;
    let attested = attestation::judge(
        claims.get("agent_attestation"),
        attestation::Claimed {
            agent,
            instance: instance.as_deref(),
            provider: provider.as_deref(),
            resource: place.resource,
        },
        trust.attesters,
        now,
    );

    let mut resources: Vec<Box<[Box<str>]>> = whole.resources.into_iter().collect();
    let (mut steps, mut assurance, mut signed_by, mut chain_until) = (Vec::new(), Assurance::None, Vec::new(), None);
    if let Some(chain) = chain {
        resources.extend(chain.resources);
        (steps, assurance, signed_by, chain_until) = (chain.steps, chain.assurance, chain.signed_by, chain.until);
    }
    // A list that names the whole route limits nothing of it.
    resources.retain(|list| !list.iter().any(|entry| constraints::covers(entry, place.resource)));
    signed_by.extend(attested.signed_by);

    let last = steps.last();
    let identity = AgentIdentity {
        agent: agent.into(),
        issuer: Arc::clone(issuer),
        instance,
        kind: required("agent_type")?,
        provider,
        model: required("agent_model")?,
        version: optional("agent_version")?,
        capabilities: texts(claims, "agent_capabilities")?,
        trust_level: optional("agent_trust_level")?,
        delegator: last.map(|last| last.delegator.clone()).or(delegator),
        scopes: last.and_then(|last| last.scopes.clone()),
        chain: steps,
        constraints: limits,
        purpose: optional("delegation_purpose")?,
        context: optional("agent_context_id")?,
        attestation: attested.verdict,
        assurance,
        source: place.source,
        root: Root::SameToken,
        allowed_resources: resources,
        fields: Map::new(),
    };
    let until = [whole_until, chain_until, attested.until].into_iter().flatten().min();
    Ok(Read { identity, begins_with, until, signed_by, nonce: attested.nonce })
}

/// Checks both ends of the chain, and returns where it begins.
///
/// The last `aud` is the agent. `delegator_sub` is "the subject who most recently delegated", so the `sub` of the last step;
/// some issuers name the person instead, who is the `sub` of the first. Anybody else is a contradiction.
fn check_ends(
    chain: Option<&chain::Chain>,
    delegator: Option<&str>,
    agent: &str,
) -> Result<Option<Box<str>>, DelegationError> {
    let ends = chain.and_then(|chain| Some((chain.steps.first()?, chain.steps.last()?)));
    let Some((first, last)) = ends else {
        return match delegator {
            Some(delegator) if delegator == agent => Err(DelegationError::ChainCycle),
            delegator => Ok(delegator.map(Into::into)),
        };
    };
    if *last.delegatee != *agent {
        return Err(DelegationError::WrongDelegatee);
    }
    let delegator = delegator.ok_or(DelegationError::MissingDelegator)?;
    if delegator != &*last.delegator && delegator != &*first.delegator {
        return Err(DelegationError::WrongDelegator);
    }
    Ok(Some(first.delegator.clone()))
}

/// A claim that is a string of at least one character, or is not there.
pub(super) fn optional_text(claims: &Map<String, Value>, name: &str) -> Result<Option<Box<str>>, AuthnError> {
    match jwt::optional_string(claims, name)? {
        Some("") => Err(AuthnError::InvalidClaim),
        text => Ok(text.map(Into::into)),
    }
}

/// A claim that is an array of strings, or is not there.
pub(super) fn texts(claims: &Map<String, Value>, name: &str) -> Result<Scopes, AuthnError> {
    let Some(list) = claims.get(name) else { return Ok(Scopes::default()) };
    let list = list.as_array().ok_or(AuthnError::InvalidClaim)?;
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    texts.map(Scopes::new).ok_or(AuthnError::InvalidClaim)
}

impl AgentIdentity {
    /// An agent of which nothing is known but its name: what forms without OIDC-A claims begin with.
    pub(super) fn named(agent: &str, issuer: &Arc<str>, source: Source) -> Self {
        Self {
            agent: agent.into(),
            issuer: Arc::clone(issuer),
            instance: None,
            kind: None,
            provider: None,
            model: None,
            version: None,
            capabilities: Scopes::default(),
            trust_level: None,
            delegator: None,
            chain: Vec::new(),
            scopes: None,
            constraints: Map::new(),
            purpose: None,
            context: None,
            attestation: Attestation::Unverified,
            assurance: Assurance::None,
            source,
            root: Root::SameToken,
            allowed_resources: Vec::new(),
            fields: Map::new(),
        }
    }
}
