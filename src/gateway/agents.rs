//! Which agent acts? Verified once per token, bound to the caller at every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use quick_cache::sync::Cache;

use crate::identity::agent::trust::{Attester, Trusted};
use crate::identity::agent::{
    AgentError, AgentIdentity, Attestation, AttestationError, DelegationError, SeenNonce, Trust, VerifiedAgent,
    embedded, token,
};
use crate::identity::bearer::{self, BearerError, TokenDigest, UnverifiedToken};
use crate::identity::jwt;
use crate::identity::{AuthnError, Caller, KeySet};
use crate::registry::agents::AgentIssuer;
use crate::registry::{AgentTrust, Issuer, Route, RouteAgents};
use crate::telemetry::metrics::CacheMetrics;
use crate::time::UnixSeconds;

use super::Shell;
use super::record::Record;
use super::rejection::Rejection;

/// Verified agents, by token and route, and the nonces of attestations that were seen. Bounded; holds no token.
pub(super) struct Agents {
    verified: Cache<(Role, TokenDigest, u64), Arc<Known>>,
    /// Which token a nonce came with first: with another one it is a repetition.
    nonces: Cache<SeenNonce, TokenDigest>,
    next_serial: AtomicU64,
    look_ups: CacheMetrics,
}

/// What a token was read as: the same text means different things in different places.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    AccessToken,
    AgentToken,
}

/// The agent of a request.
#[derive(Clone)]
pub(super) struct Acting {
    /// Who.
    pub(super) identity: Arc<AgentIdentity>,
    /// Tells this very verification from every other, for caches of what follows from it.
    pub(super) serial: u64,
    /// Its own token, when it has brought one.
    pub(super) token: Option<AgentToken>,
}

/// An agent's own token: the actor token of an exchange.
#[derive(Clone)]
pub(super) struct AgentToken {
    pub(super) token: UnverifiedToken,
    /// `exp`.
    pub(super) expires_at: UnixSeconds,
}

/// What a token was found to say.
struct Known {
    /// `None`: an access token that names no agent.
    agent: Option<Arc<AgentIdentity>>,
    serial: u64,
    expires_at: UnixSeconds,
    valid_until: UnixSeconds,
    /// The keys it rests on, with the sets they stood in.
    signed_by: Vec<(Arc<Issuer>, Arc<KeySet>, Box<str>)>,
}

/// The agent that acts on this request, if the route looks for one and the request names one.
///
/// # Errors
/// [`Rejection::MissingAgentToken`] where an agent is required; [`Rejection::InvalidAgentToken`] for a token that is not
/// believed; [`Rejection::DelegationRefused`] when the agent may not act for this caller; [`Rejection::InvalidToken`] when the
/// caller's own token is an agent's.
pub(super) async fn acting(
    shell: &Shell,
    route: &Route,
    caller: &Caller,
    bearer: &UnverifiedToken,
    head: &http::HeaderMap,
    record: &mut Record,
) -> Result<Option<Acting>, Rejection> {
    let Some(agents) = &route.agents else { return Ok(None) };
    let trust = &*agents.trust;
    let named = shell.agents.named_by(shell, route, agents, caller, bearer).await?;
    let own = match bearer::unverified_token_in(head, &trust.header) {
        Ok(None) => None,
        Ok(Some(token)) if token.digest() == bearer.digest() => return Err(refused(trust, AgentError::SameToken)),
        Ok(Some(token)) => Some((shell.agents.of_token(shell, route, trust, &token).await?, token)),
        Err(BearerError::Repeated) => return Err(Rejection::Malformed),
        Err(BearerError::Malformed | BearerError::Missing | BearerError::TooLong) => {
            return Err(refused(trust, AuthnError::Malformed.into()));
        }
    };
    let acting = match (own, named) {
        (Some((known, token)), named) => {
            let acting = known.acting(Some(token)).ok_or(Rejection::MissingAgentToken { challenge: ask(trust) })?;
            record.agent = Some(Arc::clone(&acting.identity));
            acting.identity.check_caller(caller.principal()).map_err(Rejection::DelegationRefused)?;
            if named.and_then(|named| named.agent.clone()).is_some_and(|other| other.agent != acting.identity.agent) {
                return Err(Rejection::DelegationRefused(DelegationError::ConflictingAgents));
            }
            Some(acting)
        }
        (None, Some(named)) => named.acting(None),
        (None, None) => None,
    };
    match &acting {
        Some(acting) => record.agent = Some(Arc::clone(&acting.identity)),
        None if agents.required => return Err(Rejection::MissingAgentToken { challenge: ask(trust) }),
        None => {}
    }
    Ok(acting)
}

impl Agents {
    /// Keeps at most `entries_max` agents, and as many nonces.
    pub(super) fn new(entries_max: usize, look_ups: CacheMetrics) -> Self {
        Self {
            verified: Cache::new(entries_max),
            nonces: Cache::new(entries_max),
            next_serial: AtomicU64::new(1),
            look_ups,
        }
    }

    /// What the caller's access token says of an agent; `None` when nothing of it counts.
    async fn named_by(
        &self,
        shell: &Shell,
        route: &Route,
        agents: &RouteAgents,
        caller: &Caller,
        bearer: &UnverifiedToken,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        let trust = &*agents.trust;
        let wrong_type = || {
            let error = AuthnError::WrongType;
            Rejection::InvalidToken { error, challenge: route.challenges.invalid_token(error) }
        };
        // INVARIANT: an agent's own token is none for a person, though the same issuer may have signed it for the same
        // audience: what describes an agent is either read as one or refused.
        let Some(claims) = trust.claims_of(&caller.principal().issuer) else {
            return if embedded::describes_an_agent(caller) { Err(wrong_type()) } else { Ok(None) };
        };
        let key = (Role::AccessToken, bearer.digest(), route.id);
        let now = shell.clock.now();
        if let Some(known) = self.look_up(&key, now) {
            return Ok(Some(known));
        }
        let read =
            |trust: &Trust<'_>| embedded::read(caller, &claims.forms, claims.chain, trust, &route.config.resource, now);
        let found = verifying(shell, trust, now, read, |found: &Option<VerifiedAgent>| {
            found.as_ref().is_some_and(|found| is_unsigned(&found.identity))
        });
        let found = found.await.map_err(|error| refused(trust, error))?;
        if found.is_none() && embedded::describes_an_agent(caller) {
            return Err(wrong_type());
        }
        let known = Arc::new(match found {
            Some(found) => self.known(found, trust, bearer.digest(), now),
            None => Known {
                agent: None,
                serial: 0,
                expires_at: caller.expires_at(),
                valid_until: UnixSeconds(u64::MAX),
                signed_by: Vec::new(),
            },
        });
        self.verified.insert(key, Arc::clone(&known));
        Ok(Some(known))
    }

    /// Which agent's token this is.
    async fn of_token(
        &self,
        shell: &Shell,
        route: &Route,
        trust: &AgentTrust,
        token: &UnverifiedToken,
    ) -> Result<Arc<Known>, Rejection> {
        let key = (Role::AgentToken, token.digest(), route.id);
        let now = shell.clock.now();
        if let Some(known) = self.look_up(&key, now) {
            return Ok(known);
        }
        let found = first_seen(shell, route, trust, token, now).await.map_err(|error| refused(trust, error))?;
        let known = Arc::new(self.known(found, trust, token.digest(), now));
        self.verified.insert(key, Arc::clone(&known));
        Ok(known)
    }

    fn look_up(&self, key: &(Role, TokenDigest, u64), now: UnixSeconds) -> Option<Arc<Known>> {
        let known = self.verified.get(key).filter(|known| known.is_still_believed(now));
        if known.is_some() {
            self.look_ups.hit();
        } else {
            self.look_ups.missed();
        }
        known
    }

    fn known(&self, found: VerifiedAgent, trust: &AgentTrust, token: TokenDigest, now: UnixSeconds) -> Known {
        let VerifiedAgent { mut identity, mut valid_until, expires_at, signed_by, nonce } = found;
        if let Some(nonce) = nonce
            && self.came_before(nonce, token)
        {
            identity = identity.with_attestation(Attestation::Failed(AttestationError::NonceReplayed));
        }
        if matches!(identity.attestation, Attestation::Failed(_)) {
            // What failed may be good with keys that come later, so the verdict is not kept for as long as the token.
            valid_until = valid_until.min(now.plus(FAILED_KEPT));
        }
        let mut known_by = Vec::with_capacity(signed_by.len());
        for signed in signed_by {
            let issuer = trust.everybody().find(|issuer| issuer.policy.issuer == signed.issuer).cloned();
            let still = issuer.map(|issuer| (issuer.keys.current(), issuer));
            match still.filter(|(keys, _issuer)| keys.contains(&signed.key)) {
                Some((keys, issuer)) => known_by.push((issuer, keys, signed.key)),
                // Withdrawn while the signature was checked: good for this request, and for no other.
                None => valid_until = now,
            }
        }
        Known {
            agent: Some(Arc::new(identity)),
            serial: self.next_serial.fetch_add(1, Ordering::Relaxed),
            expires_at,
            valid_until,
            signed_by: known_by,
        }
    }

    /// Whether a nonce came with another token than this one.
    fn came_before(&self, nonce: SeenNonce, token: TokenDigest) -> bool {
        let first = self.nonces.get_or_insert_with(&nonce, || Ok::<_, std::convert::Infallible>(token));
        first.is_ok_and(|first| first != token)
    }
}

impl Known {
    /// Until something of it ends, and only while every key it rests on is still published.
    fn is_still_believed(&self, now: UnixSeconds) -> bool {
        now < self.valid_until
            && self.signed_by.iter().all(|(issuer, then, key)| {
                let keys = issuer.keys.current();
                Arc::ptr_eq(&keys, then) || keys.contains(key)
            })
    }

    fn acting(&self, token: Option<UnverifiedToken>) -> Option<Acting> {
        let token = token.map(|token| AgentToken { token, expires_at: self.expires_at });
        Some(Acting { identity: Arc::clone(self.agent.as_ref()?), serial: self.serial, token })
    }
}

/// Verifies an agent's token that is not in the cache.
async fn first_seen(
    shell: &Shell,
    route: &Route,
    trust: &AgentTrust,
    unverified_token: &UnverifiedToken,
    now: UnixSeconds,
) -> Result<VerifiedAgent, AgentError> {
    let unverified = jwt::peek(unverified_token)?;
    let AgentIssuer { issuer, policy, delegators, chain } =
        trust.issuer(unverified.issuer()).ok_or(AuthnError::WrongIssuer)?;
    if unverified.lacks_key(policy, &issuer.keys.current()) {
        refetch(shell, issuer, now).await;
    }
    let keys = issuer.keys.current();
    let verify = |trust: &Trust<'_>| {
        let issuer = token::AgentIssuer { policy, keys: &keys, delegators, chain: *chain };
        token::verify(jwt::peek(unverified_token)?, issuer, trust, &route.config.resource, now)
    };
    verifying(shell, trust, now, verify, |found| is_unsigned(&found.identity)).await
}

/// Runs a verification with the keys of this moment, and once more with newer ones if a signature inside the token, of an
/// attestation or of a step, was made with a key that is not here: each issuer is asked at most once per cool-down.
async fn verifying<T>(
    shell: &Shell,
    trust: &AgentTrust,
    now: UnixSeconds,
    verify: impl Fn(&Trust<'_>) -> Result<T, AgentError>,
    lacks_key: impl Fn(&T) -> bool,
) -> Result<T, AgentError> {
    let found = with_keys(trust, &verify);
    let is_worth_asking = match &found {
        Ok(found) => lacks_key(found),
        Err(error) => *error == AgentError::Delegation(DelegationError::ChainSignature),
    };
    if !is_worth_asking {
        return found;
    }
    for issuer in trust.chain_issuers.iter().chain(trust.attesters.iter().map(|it| &it.issuer)) {
        refetch(shell, issuer, now).await;
    }
    with_keys(trust, &verify)
}

fn is_unsigned(identity: &AgentIdentity) -> bool {
    identity.attestation == Attestation::Failed(AttestationError::WrongSignature)
}

fn with_keys<T>(trust: &AgentTrust, verify: &impl Fn(&Trust<'_>) -> Result<T, AgentError>) -> Result<T, AgentError> {
    let chain_keys: Vec<Arc<KeySet>> = trust.chain_issuers.iter().map(|issuer| issuer.keys.current()).collect();
    let attester_keys: Vec<Arc<KeySet>> = trust.attesters.iter().map(|it| it.issuer.keys.current()).collect();
    let chain_issuers: Vec<Trusted<'_>> = trust
        .chain_issuers
        .iter()
        .zip(&chain_keys)
        .map(|(issuer, keys)| Trusted { policy: &issuer.policy, keys })
        .collect();
    let attesters: Vec<Attester<'_>> = trust
        .attesters
        .iter()
        .zip(&attester_keys)
        .map(|(it, keys)| Attester {
            trusted: Trusted { policy: &it.issuer.policy, keys },
            providers: &it.providers,
            max_age: it.max_age,
            nonce: it.nonce,
        })
        .collect();
    verify(&Trust { rules: &trust.rules, chain_issuers: &chain_issuers, attesters: &attesters })
}

async fn refetch(shell: &Shell, issuer: &Issuer, now: UnixSeconds) {
    if let Some(outcome) = Arc::clone(&issuer.keys).refetch(now).await {
        shell.metrics.jwks_refreshed(&issuer.config.name, outcome);
    }
}

fn refused(trust: &AgentTrust, error: AgentError) -> Rejection {
    match error {
        AgentError::Delegation(error) => Rejection::DelegationRefused(error),
        AgentError::NotAnAgent | AgentError::SameToken | AgentError::Token(_) => {
            let challenge =
                challenge(trust, &format!(", error=\"invalid_agent_token\", error_description=\"{error}\""));
            Rejection::InvalidAgentToken { error, challenge }
        }
    }
}

fn ask(trust: &AgentTrust) -> HeaderValue {
    challenge(trust, "")
}

/// `WWW-Authenticate`, which 401 must have (RFC 9110 §15.5.2). Its scheme is our own: a Bearer challenge would send the
/// person to sign in again, whose token is good. Holds the header's configured name and fixed words only.
fn challenge(trust: &AgentTrust, more: &str) -> HeaderValue {
    let value = HeaderValue::from_str(&format!("Agent header=\"{}\"{more}", trust.header));
    value.unwrap_or_else(|_fixed_words| HeaderValue::from_static("Agent"))
}

/// How long a failed attestation is remembered.
const FAILED_KEPT: Duration = Duration::from_secs(30);
