//! What does an access token say of the agent that uses it?

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use super::AgentError;
use super::AgentIdentity;
use super::Assurance;
use super::ChainClaim;
use super::DelegationError;
use super::Source;
use super::Step;
use super::Trust;
use super::VerifiedAgent;
use super::chain;
use super::claims;
use super::claims::Place;
use crate::identity::AuthnError;
use crate::identity::Caller;
use crate::identity::jwt;
use crate::time::UnixSeconds;

/// A way of describing an agent inside an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `act` (RFC 8693 §4.1), with `sub_profile` (draft-mcguinness-oauth-actor-profile, Auth0) and OIDC-A members inside it.
    Act,
    /// Facets of Entra Agent ID: `xms_act_fct`, `xms_sub_fct`, `idtyp`.
    Entra,
    /// The claims of OIDC-A at the top.
    OidcA,
}

/// Reads the agent out of a verified access token; `None` when it describes none in the `forms` that count.
///
/// The first form that is there decides, in the order OIDC-A, `act`, Entra; `act` beside OIDC-A claims must name the same
/// agent.
///
/// With OIDC-A the agent is the token's `sub`, or, where `delegator_sub` names that as the person, the actor of `act` and else
/// the client. With `act` it is the actor (RFC 8693 §4.1), whose `iss` must be trusted; the chain runs from the token's `sub`
/// through the innermost actor to the outermost. With Entra it is `azp` or `appid`, if facet 11 ("agent identity") is among
/// the actor's.
///
/// # Errors
/// [`AgentError`]: the claims are not of their types, or the delegation does not hold.
pub fn read(
    caller: &Caller,
    forms: &[Form],
    chain: ChainClaim,
    trust: &Trust<'_>,
    resource: &str,
    now: UnixSeconds,
) -> Result<Option<VerifiedAgent>, AgentError> {
    let claims = caller.claims();
    let actors = if forms.contains(&Form::Act) { actors_of(claims, caller, trust)? } else { Vec::new() };
    if forms.contains(&Form::OidcA) && claims::describe_an_agent(claims) {
        return oidc_a(caller, &actors, chain, trust, resource, now).map(Some);
    }
    if let Some(actor) = actors.first() {
        return act(caller, actor, &actors).map(|identity| Some(bound_to(caller, identity)));
    }
    if forms.contains(&Form::Entra) {
        return Ok(entra(caller)?.map(|identity| bound_to(caller, identity)));
    }
    Ok(None)
}

/// Whether the claims of an access token are those of an agent's own token: such a token names no person.
#[must_use]
pub fn describes_an_agent(caller: &Caller) -> bool {
    claims::REQUIRED.iter().all(|name| caller.claims().contains_key(*name))
}

fn oidc_a(
    caller: &Caller,
    actors: &[Actor<'_>],
    chain: ChainClaim,
    trust: &Trust<'_>,
    resource: &str,
    now: UnixSeconds,
) -> Result<VerifiedAgent, AgentError> {
    let principal = caller.principal();
    let claims = caller.claims();
    let is_about_the_person = jwt::optional_string(claims, "delegator_sub")? == Some(&*principal.subject)
        || chain == ChainClaim::OidcA && begins_with(claims) == Some(&*principal.subject);
    let agent = match (is_about_the_person, actors.first()) {
        (true, Some(actor)) => actor.subject,
        (true, None) => caller.client_id().ok_or(AgentError::Token(AuthnError::MissingClaim))?,
        (false, Some(actor)) if *actor.subject != *principal.subject => {
            return Err(DelegationError::ConflictingAgents.into());
        }
        (false, _) => &principal.subject,
    };
    let place = Place {
        claims,
        agent,
        issuer: &principal.issuer,
        chain,
        source: Source::AccessToken,
        leeway: caller.clock_leeway(),
        resource,
    };
    let read = claims::read(place, trust, now)?;
    let whole = bound_to(caller, read.identity);
    let valid_until = read.until.map_or(whole.valid_until, |until| until.min(whole.valid_until));
    Ok(VerifiedAgent { valid_until, signed_by: read.signed_by, nonce: read.nonce, ..whole })
}

/// Who stands at the beginning of the chain, before anything of it is believed.
fn begins_with(claims: &Map<String, Value>) -> Option<&str> {
    claims.get("delegation_chain")?.as_array()?.first()?.get("sub")?.as_str()
}

/// An agent that stands in the caller's own token: as long as that is believed, so is the agent.
fn bound_to(caller: &Caller, identity: AgentIdentity) -> VerifiedAgent {
    VerifiedAgent {
        identity: identity.describe(),
        valid_until: UnixSeconds(u64::MAX),
        expires_at: caller.expires_at(),
        signed_by: Vec::new(),
        nonce: None,
    }
}

/// One level of `act`.
struct Actor<'c> {
    subject: &'c str,
    issuer: Option<Arc<str>>,
    members: &'c Map<String, Value>,
}

/// The actors of `act`, the current one first; none without the claim.
fn actors_of<'c>(
    claims: &'c Map<String, Value>,
    caller: &Caller,
    trust: &Trust<'_>,
) -> Result<Vec<Actor<'c>>, AgentError> {
    let mut actors = Vec::new();
    let mut next = claims.get("act");
    while let Some(act) = next {
        if actors.len() >= trust.rules.max_chain {
            return Err(DelegationError::ChainTooLong.into());
        }
        let members = act.as_object().ok_or(DelegationError::ChainMalformed)?;
        let subject = jwt::required_string(members, "sub").map_err(|_| DelegationError::ChainMalformed)?;
        let issuer = jwt::optional_string(members, "iss").map_err(|_| DelegationError::ChainMalformed)?;
        let issuer = issuer.map(|issuer| {
            let own = &caller.principal().issuer;
            let known = trust.chain_issuers.iter().map(|it| &it.policy.issuer).chain([own]);
            known.into_iter().find(|known| ***known == *issuer).cloned().ok_or(DelegationError::ChainUntrustedIssuer)
        });
        actors.push(Actor { subject, issuer: issuer.transpose()?, members });
        next = members.get("act");
    }
    Ok(actors)
}

fn act(caller: &Caller, actor: &Actor<'_>, actors: &[Actor<'_>]) -> Result<AgentIdentity, AgentError> {
    let principal = caller.principal();
    let mut delegator = &*principal.subject;
    let mut steps = Vec::with_capacity(actors.len());
    for actor in actors.iter().rev() {
        steps.push(Step {
            issuer: Some(Arc::clone(&principal.issuer)),
            delegator: delegator.into(),
            delegatee: actor.subject.into(),
            delegated_at: None,
            scopes: None,
            purpose: None,
            constraints: Map::new(),
            id: None,
        });
        delegator = actor.subject;
    }
    chain::check_people(&steps)?;
    let text = |name: &str| claims::optional_text(actor.members, name);
    let kind = text("agent_type")?;
    let issuer = actor.issuer.as_ref().unwrap_or(&principal.issuer);
    Ok(AgentIdentity {
        kind: if kind.is_some() { kind } else { text("sub_profile")? },
        instance: text("agent_instance_id")?,
        provider: text("agent_provider")?,
        model: text("agent_model")?,
        version: text("agent_version")?,
        capabilities: claims::texts(actor.members, "agent_capabilities")?,
        trust_level: text("agent_trust_level")?,
        context: text("agent_context_id")?,
        delegator: steps.last().map(|last| last.delegator.clone()),
        chain: steps,
        assurance: Assurance::IssuerAsserted,
        ..AgentIdentity::named(actor.subject, issuer, Source::Act)
    })
}

/// Entra Agent ID, as Microsoft's "Token claims reference for agents" describes it: facets are numbers in any order, parted
/// by spaces; 11 is an agent identity.
fn entra(caller: &Caller) -> Result<Option<AgentIdentity>, AgentError> {
    let claims = caller.claims();
    let facets = |name: &str| jwt::optional_string(claims, name).map(|it| it.unwrap_or_default().split(' '));
    let has = |name: &str| facets(name).map(|mut facets| facets.any(|facet| facet == AGENT_IDENTITY));
    if !has("xms_act_fct")? && !has("xms_sub_fct")? {
        return Ok(None);
    }
    let appid = jwt::optional_string(claims, "appid")?;
    let agent = caller.client_id().map(|id| &**id).or(appid).ok_or(AgentError::Token(AuthnError::MissingClaim))?;
    let principal = caller.principal();
    // `app`: the token is the agent's own. Else it acts for the person the token names.
    let acts_for_itself = has("xms_sub_fct")? || jwt::optional_string(claims, "idtyp")? == Some("app");
    let delegator: Option<Box<str>> = (!acts_for_itself).then(|| (*principal.subject).into());
    Ok(Some(AgentIdentity {
        instance: Some(agent.into()),
        delegator,
        ..AgentIdentity::named(agent, &principal.issuer, Source::Entra)
    }))
}

const AGENT_IDENTITY: &str = "11";
