//! Is this token an agent's own, and may we believe it?

use std::sync::Arc;

use super::AgentError;
use super::ChainClaim;
use super::Root;
use super::SignedBy;
use super::Source;
use super::Trust;
use super::VerifiedAgent;
use super::claims;
use super::claims::Place;
use crate::identity::IssuerPolicy;
use crate::identity::KeySet;
use crate::identity::jwt;
use crate::identity::jwt::Unverified;
use crate::time::UnixSeconds;

/// The issuer of an agent's token.
#[derive(Clone, Copy, Debug)]
pub struct AgentIssuer<'a> {
    /// What is asked of its tokens: audiences and types are those for agents, not for people.
    pub policy: &'a IssuerPolicy,
    /// Its published keys.
    pub keys: &'a KeySet,
    /// Issuers (`iss`) whose people its agents may act for; itself among them, if so.
    pub delegators: &'a [Arc<str>],
    /// What `delegation_chain` means in its tokens.
    pub chain: ChainClaim,
}

/// Verifies a token of an agent's own for the route whose resource identifier is `resource`.
///
/// Everything that is checked of a person's token is checked of it ([`Unverified::verify`]); then that it describes an agent,
/// and that what was delegated holds. Whether the agent may act for the caller is asked by
/// [`super::AgentIdentity::check_caller`].
///
/// # Errors
/// [`AgentError`]: the token is not believed, is not an agent's, or the delegation does not hold.
pub fn verify(
    token: Unverified<'_>,
    issuer: AgentIssuer<'_>,
    trust: &Trust<'_>,
    resource: &str,
    now: UnixSeconds,
) -> Result<VerifiedAgent, AgentError> {
    let AgentIssuer { policy, keys, delegators, chain } = issuer;
    let signed = token.signed(policy, keys)?;
    let expires_at = signed.check_bearer(policy, resource, now)?;
    let agent = jwt::required_string(&signed.claims, "sub").map_err(AgentError::Token)?;
    let place = Place {
        claims: &signed.claims,
        agent,
        issuer: &policy.issuer,
        chain,
        source: Source::AgentToken,
        leeway: policy.clock_leeway,
        resource,
    };
    let read = claims::read(place, trust, now)?;

    let mut identity = read.identity;
    let issuers: Box<[Arc<str>]> = delegators.into();
    identity.root = match read.begins_with {
        Some(subject) => Root::Person { subject, issuers },
        None => Root::Agent { issuers },
    };
    let believed_until = expires_at.plus(policy.clock_leeway);
    let mut signed_by = read.signed_by;
    signed_by.push(SignedBy { issuer: Arc::clone(&policy.issuer), key: signed.key });
    Ok(VerifiedAgent {
        identity: identity.describe(),
        valid_until: read.until.map_or(believed_until, |until| until.min(believed_until)),
        expires_at,
        signed_by,
        nonce: read.nonce,
    })
}
