//! Does this chain of delegations hold? The seven rules of OIDC-A 1.0 for the party that relies on it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use super::Assurance;
use super::DelegationError;
use super::SignedBy;
use super::Step;
use super::Trust;
use super::constraints;
use super::constraints::Constraints;
use super::scope;
use crate::identity::Scopes;
use crate::identity::jwt;
use crate::time::UnixSeconds;

/// A chain that holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chain {
    /// At least one.
    pub(super) steps: Vec<Step>,
    pub(super) assurance: Assurance,
    /// The first second at which one of its steps is over.
    pub(super) until: Option<UnixSeconds>,
    /// What each step that has such a limit reaches.
    pub(super) resources: Vec<Box<[Box<str>]>>,
    pub(super) signed_by: Vec<SignedBy>,
}

/// Reads `delegation_chain`; `None` when it is not there or empty.
///
/// The rules, by their numbers in the proposal: (1) `delegated_at` never decreases, and is not in the future; (2) every `iss`
/// is one of `trust.chain_issuers`; (3) the `aud` of each step is the `sub` of the next, and nobody stands in it twice; (4)
/// `scope` never grows; (5) constraints hold, and one that nobody understands denies; (6) a step that is a JWS instead of an
/// object is signed by its `iss`; (7) at most `max_chain` steps.
pub(super) fn read(
    claim: Option<&Value>,
    trust: &Trust<'_>,
    leeway: Duration,
    now: UnixSeconds,
) -> Result<Option<Chain>, DelegationError> {
    let steps = match claim {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(steps)) if steps.is_empty() => return Ok(None),
        Some(Value::Array(steps)) => steps,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(DelegationError::ChainMalformed);
        }
    };
    if steps.len() > trust.rules.max_chain {
        return Err(DelegationError::ChainTooLong);
    }
    let mut chain = Chain {
        steps: Vec::new(),
        assurance: Assurance::StepsSigned,
        until: None,
        resources: vec![],
        signed_by: vec![],
    };
    for step in steps {
        chain.add(step, trust, leeway, now)?;
    }
    check_people(&chain.steps)?;
    Ok(Some(chain))
}

/// Each takes over from the one before, and nobody stands in it twice.
pub(super) fn check_people(steps: &[Step]) -> Result<(), DelegationError> {
    let meet = |pair: &[Step]| matches!(pair, [one, next] if one.delegatee == next.delegator);
    if !steps.windows(2).all(meet) {
        return Err(DelegationError::ChainBroken);
    }
    let mut seen = HashSet::new();
    let everybody = steps.first().map(|first| &first.delegator).into_iter().chain(steps.iter().map(|it| &it.delegatee));
    if everybody.into_iter().all(|somebody| seen.insert(somebody)) { Ok(()) } else { Err(DelegationError::ChainCycle) }
}

impl Chain {
    /// Adds the next step, if it is good by itself and follows from the one before.
    fn add(
        &mut self,
        element: &Value,
        trust: &Trust<'_>,
        leeway: Duration,
        now: UnixSeconds,
    ) -> Result<(), DelegationError> {
        let signed = match element {
            Value::Object(members) => {
                self.assurance = Assurance::IssuerAsserted;
                members.clone()
            }
            Value::String(jws) => self.signed_step(jws, trust, leeway, now)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                return Err(DelegationError::ChainMalformed);
            }
        };
        let (step, scopes, delegated_at) = read_step(&signed, trust)?;
        if delegated_at > now.plus(leeway) {
            return Err(DelegationError::FromTheFuture);
        }
        if let Some(before) = self.steps.last() {
            if before.delegated_at.is_some_and(|before| delegated_at < before) {
                return Err(DelegationError::ChainOrder);
            }
            let given = before.scopes.clone().unwrap_or_default();
            if !scope::is_within(&scopes, &given, trust.rules.scope_subset) {
                return Err(DelegationError::ChainScopeGrows);
            }
        }
        let limits = Constraints::read(&step.constraints, Some(delegated_at), &trust.rules.known_constraints)?;
        if let Some(until) = limits.until {
            self.ends(until.plus(leeway), now)?;
        }
        self.resources.extend(limits.resources);
        self.steps.push(step);
        Ok(())
    }

    /// Notes an end of the delegation.
    fn ends(&mut self, until: UnixSeconds, now: UnixSeconds) -> Result<(), DelegationError> {
        if until <= now {
            return Err(DelegationError::DurationPassed);
        }
        self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
        Ok(())
    }

    /// The claims of a step that is signed by itself. Its `exp`, if it has one, counts like a `max_duration`.
    fn signed_step(
        &mut self,
        jws: &str,
        trust: &Trust<'_>,
        leeway: Duration,
        now: UnixSeconds,
    ) -> Result<Map<String, Value>, DelegationError> {
        let unverified = jwt::peek_text(jws, &[]).map_err(|_| DelegationError::ChainMalformed)?;
        let issuer = trust.chain_issuers.iter().find(|it| *it.policy.issuer == *unverified.issuer());
        let issuer = issuer.ok_or(DelegationError::ChainUntrustedIssuer)?;
        let signed = unverified.signed(issuer.policy, issuer.keys).map_err(|_| DelegationError::ChainSignature)?;
        self.signed_by.push(SignedBy { issuer: Arc::clone(&issuer.policy.issuer), key: signed.key });
        let exp = jwt::numeric_date(&signed.claims, "exp").map_err(|_| DelegationError::ChainMalformed)?;
        if let Some(exp) = exp {
            self.ends(exp.floor().plus(leeway), now)?;
        }
        Ok(signed.claims)
    }
}

/// One element, with what it must have beside what a [`Step`] may have.
fn read_step(members: &Map<String, Value>, trust: &Trust<'_>) -> Result<(Step, Scopes, UnixSeconds), DelegationError> {
    let malformed = |_| DelegationError::ChainMalformed;
    let required = |name: &str| jwt::required_string(members, name).map_err(malformed);
    let optional = |name: &str| jwt::optional_string(members, name).map_err(malformed);

    let issuer = required("iss")?;
    let issuer = trust.chain_issuers.iter().find(|it| *it.policy.issuer == *issuer);
    let issuer = Arc::clone(&issuer.ok_or(DelegationError::ChainUntrustedIssuer)?.policy.issuer);
    let delegated_at = jwt::numeric_date(members, "delegated_at").map_err(malformed)?;
    let delegated_at = delegated_at.ok_or(DelegationError::ChainMalformed)?.floor();
    let scopes = Scopes::new(optional("scope")?.ok_or(DelegationError::ChainMalformed)?.split(' '));
    let step = Step {
        issuer: Some(issuer),
        delegator: required("sub")?.into(),
        delegatee: required("aud")?.into(),
        delegated_at: Some(delegated_at),
        scopes: Some(scopes.clone()),
        purpose: optional("purpose")?.map(Into::into),
        constraints: constraints::object(members.get("constraints"))?,
        id: optional("jti")?.map(Into::into),
    };
    Ok((step, scopes, delegated_at))
}
