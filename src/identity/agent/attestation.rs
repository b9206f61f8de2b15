//! Does somebody we trust vouch for what runs? `agent_attestation`: an EAT (RFC 9711) or another JWT, of bounded age, about
//! this very agent.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use super::NonceRule;
use super::SignedBy;
use super::trust::Attester;
use crate::identity::AuthnError;
use crate::identity::jwt;
use crate::time::UnixSeconds;

/// What an attestation is worth. Data for rules: by itself it refuses nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attestation {
    /// It was looked at, and is not good.
    Failed(AttestationError),
    /// There is none, or none of a form that is looked at.
    Unverified,
    /// An attester whose keys are configured vouches for this agent.
    Verified,
}

/// Why an attestation is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttestationError {
    /// It is no object, or what it holds is no JWT, or a claim in it is not of its type.
    Malformed,
    /// It has no nonce, and the attester's must have one.
    NonceMissing,
    /// Its nonce came before, with another token: somebody repeats it.
    NonceReplayed,
    /// Its nonce is not the one the agent's token tells, or is shorter than 8 or longer than 88 bytes (RFC 9711 §4.1).
    NonceWrong,
    /// It is older than the attester's `max_age`, or has expired.
    Stale,
    /// Nobody who is configured has signed it, for agents of this provider.
    UntrustedAttester,
    /// The signature is wrong.
    WrongSignature,
    /// It is about another agent, or for another recipient.
    WrongSubject,
}

/// A nonce that came with an attestation that is good otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeenNonce {
    /// Who vouched.
    pub attester: Arc<str>,
    /// The nonces, joined by spaces.
    pub nonce: Box<str>,
}

/// What the token around an attestation says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed<'a> {
    pub(super) agent: &'a str,
    pub(super) instance: Option<&'a str>,
    pub(super) provider: Option<&'a str>,
    pub(super) resource: &'a str,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attested {
    pub(super) verdict: Attestation,
    /// The first second at which it is stale.
    pub(super) until: Option<UnixSeconds>,
    pub(super) signed_by: Option<SignedBy>,
    pub(super) nonce: Option<SeenNonce>,
}

/// Judges `agent_attestation`.
///
/// Good is a JWT whose `iss` is an attester for agents of this provider, signed with one of its keys; issued at most
/// `max_age` ago (`iat`), and not expired; about this agent (`sub`, `ueid` or `agent_instance_id` is the agent or its
/// instance); for us, where it has an `aud`; with a nonce (`eat_nonce`, RFC 9711 §4.1, or `nonce`) that is the one the claim
/// around it tells, where it tells one. Whether the nonce was seen before is for the caller to say.
pub(super) fn judge(
    claim: Option<&Value>,
    claimed: Claimed<'_>,
    attesters: &[Attester<'_>],
    now: UnixSeconds,
) -> Attested {
    let nothing = |verdict| Attested { verdict, until: None, signed_by: None, nonce: None };
    let Some(claim) = claim.filter(|_| !attesters.is_empty()) else { return nothing(Attestation::Unverified) };
    let Some(members) = claim.as_object() else { return nothing(Attestation::Failed(AttestationError::Malformed)) };
    match members.get("format").and_then(Value::as_str) {
        Some(format) if FORMATS.contains(&format) => {}
        Some(_) => return nothing(Attestation::Unverified),
        None => return nothing(Attestation::Failed(AttestationError::Malformed)),
    }
    verify(members, claimed, attesters, now).unwrap_or_else(|error| nothing(Attestation::Failed(error)))
}

fn verify(
    members: &Map<String, Value>,
    claimed: Claimed<'_>,
    attesters: &[Attester<'_>],
    now: UnixSeconds,
) -> Result<Attested, AttestationError> {
    let token = members.get("token").and_then(Value::as_str).ok_or(AttestationError::Malformed)?;
    let unverified = jwt::peek_text(token, &["eat+jwt"]).map_err(|_| AttestationError::Malformed)?;
    let attester = attesters.iter().find(|attester| {
        let vouches = |provider: &str| attester.providers.iter().any(|known| **known == *provider);
        *attester.trusted.policy.issuer == *unverified.issuer()
            && (attester.providers.is_empty() || claimed.provider.is_some_and(vouches))
    });
    let attester = attester.ok_or(AttestationError::UntrustedAttester)?;
    let policy = attester.trusted.policy;
    let signed = unverified.signed(policy, attester.trusted.keys).map_err(|_| AttestationError::WrongSignature)?;
    let claims = &signed.claims;

    let malformed = |_: AuthnError| AttestationError::Malformed;
    let about = |name: &str| jwt::optional_string(claims, name).map_err(malformed);
    let names_agent = |name: Option<&str>| name.is_some() && (name == Some(claimed.agent) || name == claimed.instance);
    if !names_agent(about("sub")?) && !names_agent(about("ueid")?) && !names_agent(about("agent_instance_id")?) {
        return Err(AttestationError::WrongSubject);
    }
    if claims.contains_key("aud") {
        jwt::check_audience(claims, &policy.audiences, claimed.resource).map_err(|_| AttestationError::WrongSubject)?;
    }

    let moment = |name: &str| Ok(jwt::numeric_date(claims, name).map_err(malformed)?.map(|moment| moment.floor()));
    let issued_at = moment("iat")?.ok_or(AttestationError::Stale)?;
    let ends = moment("exp")?.map(|exp| exp.plus(policy.clock_leeway));
    let until = issued_at.plus(attester.max_age).min(ends.unwrap_or(UnixSeconds(u64::MAX)));
    let latest = now.plus(policy.clock_leeway);
    if until <= now || issued_at > latest || moment("nbf")?.is_some_and(|nbf| nbf > latest) {
        return Err(AttestationError::Stale);
    }

    let nonce = nonce_of(claims)?;
    let told = members.get("nonce").map(|told| told.as_str().ok_or(AttestationError::Malformed)).transpose()?;
    if told.is_some_and(|told| !nonce.contains(&told)) {
        return Err(AttestationError::NonceWrong);
    }
    if nonce.is_empty() && attester.nonce == NonceRule::Required {
        return Err(AttestationError::NonceMissing);
    }
    let seen = SeenNonce { attester: Arc::clone(&policy.issuer), nonce: nonce.join(" ").into() };
    Ok(Attested {
        verdict: Attestation::Verified,
        until: Some(until),
        nonce: (!nonce.is_empty()).then_some(seen),
        signed_by: Some(SignedBy { issuer: Arc::clone(&policy.issuer), key: signed.key }),
    })
}

/// The nonces of an attestation, each of 8 to 88 bytes; none when it has none.
fn nonce_of(claims: &Map<String, Value>) -> Result<Vec<&str>, AttestationError> {
    let nonces: Vec<&Value> = match claims.get("eat_nonce").or_else(|| claims.get("nonce")) {
        None => return Ok(Vec::new()),
        Some(Value::Array(several)) => several.iter().collect(),
        Some(one) => vec![one],
    };
    nonces
        .into_iter()
        .map(|nonce| {
            let nonce = nonce.as_str().ok_or(AttestationError::Malformed)?;
            if (8..=88).contains(&nonce.len()) { Ok(nonce) } else { Err(AttestationError::NonceWrong) }
        })
        .collect()
}

impl Attestation {
    /// The word in rules and in the audit record: `verified`, `unverified`, `failed`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Unverified => "unverified",
            Self::Verified => "verified",
        }
    }

    /// Why it failed, as one of a fixed set of words.
    #[must_use]
    pub fn detail(self) -> Option<&'static str> {
        let Self::Failed(error) = self else { return None };
        Some(match error {
            AttestationError::Malformed => "malformed",
            AttestationError::NonceMissing => "nonce_missing",
            AttestationError::NonceReplayed => "nonce_replayed",
            AttestationError::NonceWrong => "nonce_wrong",
            AttestationError::Stale => "stale",
            AttestationError::UntrustedAttester => "untrusted_attester",
            AttestationError::WrongSignature => "wrong_signature",
            AttestationError::WrongSubject => "wrong_subject",
        })
    }
}

/// The forms that are looked at; TPM and SGX quotes are not.
const FORMATS: [&str; 4] =
    ["urn:ietf:params:oauth:token-type:eat", "urn:ietf:params:oauth:token-type:jwt", "eat", "jwt"];
