//! WHICH SOFTWARE acts, on whose behalf, through whom? Agents: their tokens, the claims about them, and what was delegated.
//!
//! The claims are those of OpenID Connect for Agents 1.0 (OIDC-A, a proposal of 2025-04-28 by one author, without status at
//! the OpenID Foundation), read from a token of the agent's own or from the caller's access token; and what issuers send
//! today inside access tokens: `act` (RFC 8693 §4.1; Auth0, WorkOS) and Entra's `xms_*`. All of them become one
//! [`AgentIdentity`].
//!
//! What the proposal leaves open is decided here: a delegation's last `aud` is the agent, its first `sub` the person who
//! calls, constraints that nobody understands deny, and a chain whose steps nobody has signed is believed as far as the
//! issuer of the token is ([`Assurance::IssuerAsserted`]).

pub mod embedded;
pub mod error;
pub mod server;
pub mod token;
pub mod trust;

mod attestation;
mod chain;
mod claims;
mod constraints;
mod scope;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::identity::Principal;
use crate::identity::Scopes;
use crate::time::UnixSeconds;

pub use attestation::Attestation;
pub use attestation::AttestationError;
pub use attestation::SeenNonce;
pub use error::AgentError;
pub use error::DelegationError;
pub use server::ServerIdentity;
pub use server::ServerIdentityError;
pub use server::ServerRules;
pub use trust::AgentRules;
pub use trust::ChainClaim;
pub use trust::NonceRule;
pub use trust::ScopeSubset;
pub use trust::Trust;

/// The software that acts, however its issuer has described it. Made by [`token::verify`] and [`embedded::read`] alone,
/// so whoever holds one need not check it again, but for [`AgentIdentity::check_caller`].
#[derive(Clone, Debug, PartialEq)]
pub struct AgentIdentity {
    /// Its name: `sub` of its own token, or of the innermost claim that describes it.
    pub agent: Box<str>,
    /// Who says so: `iss`, exactly.
    pub issuer: Arc<str>,
    /// The running instance: `agent_instance_id`.
    pub instance: Option<Box<str>>,
    /// Its class: `agent_type`, e.g. `assistant`, `autonomous`, or `vendor:type`.
    pub kind: Option<Box<str>>,
    /// Who runs it, as a domain: `agent_provider`.
    pub provider: Option<Box<str>>,
    /// `agent_model`.
    pub model: Option<Box<str>>,
    /// `agent_version`.
    pub version: Option<Box<str>>,
    /// `agent_capabilities`, e.g. `email:draft`.
    pub capabilities: Scopes,
    /// `agent_trust_level`: a word of the issuer's.
    pub trust_level: Option<Box<str>>,
    /// Who delegated to it last; nobody when it acts for itself.
    pub delegator: Option<Box<str>>,
    /// The steps from the person to the agent, oldest first. Empty when the issuer tells none.
    pub chain: Vec<Step>,
    /// What the last step hands over; `None` when no step says.
    pub scopes: Option<Scopes>,
    /// `delegation_constraints`, as they stood in the token: limits of the delegation as a whole.
    pub constraints: Map<String, Value>,
    /// `delegation_purpose`.
    pub purpose: Option<Box<str>>,
    /// The conversation or task it serves: `agent_context_id`.
    pub context: Option<Box<str>>,
    /// Whether somebody we trust vouches for what runs.
    pub attestation: Attestation,
    /// How far the chain can be believed.
    pub assurance: Assurance,
    /// Where all of this stood.
    pub source: Source,
    /// For whom it may act: where the chain begins.
    root: Root,
    /// One list a constraint `allowed_resources` that does not name the whole route: something of each must be met.
    allowed_resources: Vec<Box<[Box<str>]>>,
    /// What rules read as `agent`.
    fields: Map<String, Value>,
}

/// An agent that somebody has made up to ask what it might do. It is no [`AgentIdentity`] to whoever lets requests in: only
/// an explanation of rules takes it.
#[derive(Clone, Debug)]
pub struct ImaginedAgent(AgentIdentity);

/// What somebody says of an agent they have made up.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Its name.
    pub agent: Box<str>,
    /// Who would say so.
    pub issuer: Arc<str>,
    /// The running instance.
    pub instance: Option<Box<str>>,
    /// Its class.
    pub kind: Option<Box<str>>,
    /// Who runs it.
    pub provider: Option<Box<str>>,
    /// Its model.
    pub model: Option<Box<str>>,
    /// Its version.
    pub version: Option<Box<str>>,
    /// What it can do.
    pub capabilities: Vec<Box<str>>,
    /// A word of its issuer's.
    pub trust_level: Option<Box<str>>,
    /// Whose hands it is: nobody's when it acts for itself.
    pub delegator: Option<Box<str>>,
    /// Whether somebody vouches for what runs.
    pub is_attested: bool,
}

impl ImaginedAgent {
    /// An agent of this description, as if its issuer had said all of it in a token.
    #[must_use]
    pub fn new(description: Description) -> Self {
        let Description { agent, issuer, instance, kind, provider, model, version, capabilities, .. } = description;
        let identity = AgentIdentity {
            instance,
            kind,
            provider,
            model,
            version,
            capabilities: Scopes::new(capabilities),
            trust_level: description.trust_level,
            delegator: description.delegator,
            ..AgentIdentity::named(&agent, &issuer, Source::AgentToken)
        };
        let attestation = if description.is_attested { Attestation::Verified } else { Attestation::Unverified };
        Self(identity.with_attestation(attestation))
    }

    /// As rules see it.
    pub(crate) fn as_rules_see_it(&self) -> &AgentIdentity {
        &self.0
    }
}

/// One step of a delegation: somebody lets somebody act for them (OIDC-A 1.0 "delegation_chain").
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Who recorded it.
    pub issuer: Option<Arc<str>>,
    /// `sub`: who hands over.
    pub delegator: Box<str>,
    /// `aud`: who takes over.
    pub delegatee: Box<str>,
    /// When.
    pub delegated_at: Option<UnixSeconds>,
    /// What may be done; `None` when the form of the claim has no place for it.
    pub scopes: Option<Scopes>,
    /// What for.
    pub purpose: Option<Box<str>>,
    /// Limits, as they stood in the token.
    pub constraints: Map<String, Value>,
    /// `jti`.
    pub id: Option<Box<str>>,
}

/// How far a chain can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assurance {
    /// As far as the issuer of the token.
    IssuerAsserted,
    /// There is no chain.
    None,
    /// Every step is signed by who recorded it.
    StepsSigned,
}

/// Where the claims about an agent stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `act` of the access token (RFC 8693 §4.1).
    Act,
    /// `agent_*` claims of the access token.
    AccessToken,
    /// A token of the agent's own.
    AgentToken,
    /// `xms_*` claims of the access token (Entra Agent ID).
    Entra,
}

/// Where a chain begins.
#[derive(Clone, Debug, PartialEq)]
enum Root {
    /// The same token names person and agent: they cannot be parted.
    SameToken,
    /// Somebody of one of these issuers.
    Person {
        /// Their `sub`.
        subject: Box<str>,
        /// Whose subject that may be.
        issuers: Box<[Arc<str>]>,
    },
    /// The agent itself: nobody has delegated.
    Agent {
        /// Whose subject the agent's name may be.
        issuers: Box<[Arc<str>]>,
    },
}

/// A key that has signed something a verification rests on. What it has signed is believed while its issuer publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// `iss` of what is signed.
    pub issuer: Arc<str>,
    /// The key's thumbprint.
    pub key: Box<str>,
}

/// What a verification has found, and how long it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedAgent {
    /// Who acts.
    pub identity: AgentIdentity,
    /// From this second on it must be verified anew: a token, an attestation or a constraint ends.
    pub valid_until: UnixSeconds,
    /// The `exp` of the agent's own token: nothing obtained with it lives longer.
    pub expires_at: UnixSeconds,
    /// The keys it rests on.
    pub signed_by: Vec<SignedBy>,
    /// The nonce of its attestation, for whoever remembers which were seen.
    pub nonce: Option<SeenNonce>,
}

impl AgentIdentity {
    /// How many hands a request has gone through: the steps of the chain; 1 for a delegation without one, 0 for an agent
    /// that acts for itself.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.chain.len().max(usize::from(self.delegator.is_some()))
    }

    /// Whether the agent may act for this caller. Cheap, so it is asked at every request.
    ///
    /// The chain must begin with the caller, and the caller's issuer must be one that the agent's issuer may speak for.
    /// An agent that nobody has delegated to may act for nobody but itself.
    ///
    /// # Errors
    /// [`DelegationError::WrongDelegator`], [`DelegationError::MissingDelegator`].
    pub fn check_caller(&self, caller: &Principal) -> Result<(), DelegationError> {
        let is = |subject: &str, issuers: &[Arc<str>]| *caller.subject == *subject && issuers.contains(&caller.issuer);
        match &self.root {
            Root::SameToken => Ok(()),
            Root::Person { subject, issuers } if is(subject, issuers) => Ok(()),
            Root::Person { .. } => Err(DelegationError::WrongDelegator),
            Root::Agent { issuers } if is(&self.agent, issuers) => Ok(()),
            Root::Agent { .. } => Err(DelegationError::MissingDelegator),
        }
    }

    /// Whether the delegation reaches `name` (of a tool or prompt, or the URI of a resource) at `server`.
    ///
    /// An entry of `allowed_resources` means what it equals: the resource identifier of the route, the server, `server/name`,
    /// or the URI; a `*` at its end stands for any ending. Every step's list must have such an entry.
    #[must_use]
    pub fn reaches(&self, server: &str, name: Option<&str>) -> bool {
        if self.allowed_resources.is_empty() {
            return true;
        }
        let qualified = name.map(|name| format!("{server}/{name}"));
        let names = [Some(server), qualified.as_deref(), name.filter(|name| name.contains("://"))];
        self.allowed_resources
            .iter()
            .all(|list| list.iter().any(|entry| names.iter().flatten().any(|name| constraints::covers(entry, name))))
    }

    /// Whether the delegation reaches some resource of `server` whose URI begins with `start`.
    #[must_use]
    pub fn reaches_some(&self, server: &str, start: &str) -> bool {
        self.allowed_resources.iter().all(|list| {
            list.iter().any(|entry| {
                let prefix = entry.strip_suffix('*').unwrap_or(entry);
                constraints::covers(entry, server) || prefix.starts_with(start) || start.starts_with(prefix)
            })
        })
    }

    /// What rules read as `agent`: every member is always there, null or empty when the issuer does not tell.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The same with another verdict on its attestation.
    #[must_use]
    pub fn with_attestation(mut self, attestation: Attestation) -> Self {
        self.attestation = attestation;
        self.describe()
    }

    /// Writes the fields once everything else is known.
    fn describe(mut self) -> Self {
        let scopes = |scopes: &Scopes| scopes.iter().map(Value::from).collect::<Vec<Value>>();
        let chain: Vec<Value> = self
            .chain
            .iter()
            .map(|step| {
                json!({
                    "issuer": step.issuer, "delegator": step.delegator, "delegatee": step.delegatee,
                    "delegated_at": step.delegated_at.map(|at| at.0), "scopes": step.scopes.as_ref().map(scopes),
                    "purpose": step.purpose, "constraints": step.constraints, "id": step.id,
                })
            })
            .collect();
        let fields = [
            ("agent", json!(self.agent)),
            ("issuer", json!(self.issuer)),
            ("instance", json!(self.instance)),
            ("type", json!(self.kind)),
            ("provider", json!(self.provider)),
            ("model", json!(self.model)),
            ("version", json!(self.version)),
            ("capabilities", scopes(&self.capabilities).into()),
            ("trust_level", json!(self.trust_level)),
            ("delegator", json!(self.delegator)),
            ("chain", chain.into()),
            ("depth", json!(self.depth())),
            ("scopes", json!(self.scopes.as_ref().map(scopes))),
            ("constraints", Value::Object(self.constraints.clone())),
            ("purpose", json!(self.purpose)),
            ("context", json!(self.context)),
            ("attestation", self.attestation.label().into()),
            ("assurance", self.assurance.label().into()),
            ("source", self.source.label().into()),
        ];
        self.fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self
    }

    /// An agent made up for a unit test, by its name and what OIDC-A claims say beside what is required.
    #[cfg(test)]
    #[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
    pub(crate) fn for_test(agent: &str, claims: &Value) -> Self {
        let rules = AgentRules::default();
        let trust = Trust { rules: &rules, chain_issuers: &[], attesters: &[] };
        let mut whole = claims.clone();
        for (name, value) in [
            ("agent_type", json!("assistant")),
            ("agent_model", json!("m-1")),
            ("agent_provider", json!("agents.test")),
            ("agent_instance_id", json!("i-1")),
        ] {
            whole.as_object_mut().unwrap().entry(name).or_insert(value);
        }
        let mut caller = crate::identity::Caller::for_test(&[], whole.as_object().unwrap().clone());
        caller.principal.subject = agent.into();
        let forms = [embedded::Form::OidcA];
        let chain = ChainClaim::OidcA;
        embedded::read(&caller, &forms, chain, &trust, "https://mcp.test/mcp", UnixSeconds(0))
            .unwrap()
            .unwrap()
            .identity
    }
}

impl Assurance {
    /// The word in rules and in the audit record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::IssuerAsserted => "issuer-asserted",
            Self::None => "none",
            Self::StepsSigned => "steps-signed",
        }
    }
}

impl Source {
    /// The word in rules and in the audit record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::AccessToken => "access_token",
            Self::AgentToken => "agent_token",
            Self::Entra => "entra",
        }
    }
}
