//! Is this MCP server the one it should be? Its resource token: a JWT in which an issuer says what it is.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::claims;
use super::trust::Trusted;
use crate::identity::AuthnError;
use crate::identity::Scopes;
use crate::identity::jwt;
use crate::time::UnixSeconds;

/// What a server must be: `servers[].identity` of the configuration, as far as verification needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRules {
    /// Must be the token's `sub`, or its `name`.
    pub name: Box<str>,
    /// Must be its `aud`, or one of them.
    pub audience: Box<str>,
    /// One of these must be its `version`; empty: any, or none.
    pub versions: Vec<Box<str>>,
    /// One of these must be its `trust_level`; empty: any, or none.
    pub trust_levels: Vec<Box<str>>,
    /// All of these must be among its `capabilities`.
    pub capabilities: Vec<Box<str>>,
}

/// A server that is what it should be. Made by [`verify`] and nowhere else.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerIdentity {
    expires_at: UnixSeconds,
    key: Box<str>,
    /// What rules read as `tool.server_identity`.
    fields: Map<String, Value>,
}

/// Why a server is not believed to be what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ServerIdentityError {
    /// It lacks a capability.
    #[error("the server lacks a required capability")]
    LacksCapability,
    /// The token is not believed.
    #[error(transparent)]
    Token(AuthnError),
    /// It is another server.
    #[error("the token is another server's")]
    WrongName,
    /// Nobody trusts it this far.
    #[error("the server's trust level is not accepted")]
    WrongTrustLevel,
    /// It has another version.
    #[error("the server's version is not accepted")]
    WrongVersion,
}

/// Verifies a resource token: a JWT (`typ` absent, `JWT` or `resource+jwt`) of `issuer`, signed with one of its keys, not
/// expired (`exp` is required), for `rules.audience`, about the server that `rules` describes.
///
/// # Errors
/// One [`ServerIdentityError`] for each of these.
pub fn verify(
    unverified_token: &str,
    issuer: Trusted<'_>,
    rules: &ServerRules,
    now: UnixSeconds,
) -> Result<ServerIdentity, ServerIdentityError> {
    let unverified = jwt::peek_text(unverified_token, &["resource+jwt"])?;
    let signed = unverified.signed(issuer.policy, issuer.keys)?;
    let claims = &signed.claims;
    let expires_at = jwt::check_times(claims, now, issuer.policy.clock_leeway)?;
    jwt::check_audience(claims, &[], &rules.audience)?;

    let subject = jwt::required_string(claims, "sub")?;
    let name = claims::optional_text(claims, "name")?;
    let version = claims::optional_text(claims, "version")?;
    let trust_level = claims::optional_text(claims, "trust_level")?;
    let capabilities = claims::texts(claims, "capabilities")?;
    if *subject != *rules.name && name.as_deref() != Some(&*rules.name) {
        return Err(ServerIdentityError::WrongName);
    }
    let is_one_of = |accepted: &[Box<str>], value: Option<&Box<str>>| {
        accepted.is_empty() || value.is_some_and(|value| accepted.contains(value))
    };
    if !is_one_of(&rules.versions, version.as_ref()) {
        return Err(ServerIdentityError::WrongVersion);
    }
    if !is_one_of(&rules.trust_levels, trust_level.as_ref()) {
        return Err(ServerIdentityError::WrongTrustLevel);
    }
    if !rules.capabilities.iter().all(|capability| capabilities.contains(capability)) {
        return Err(ServerIdentityError::LacksCapability);
    }
    let listed = listed(&capabilities);
    let fields = [
        ("issuer", json!(Arc::clone(&issuer.policy.issuer))),
        ("subject", json!(subject)),
        ("name", json!(name)),
        ("version", json!(version)),
        ("trust_level", json!(trust_level)),
        ("capabilities", listed),
    ];
    Ok(ServerIdentity {
        expires_at: expires_at.plus(issuer.policy.clock_leeway),
        key: signed.key.clone(),
        fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}

fn listed(capabilities: &Scopes) -> Value {
    capabilities.iter().map(Value::from).collect::<Vec<Value>>().into()
}

impl ServerIdentity {
    /// From this second on it is not believed.
    #[must_use]
    pub fn expires_at(&self) -> UnixSeconds {
        self.expires_at
    }

    /// The thumbprint of the key that signed its token: when that key leaves the JWKS, this ends.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What rules read as `tool.server_identity`: `issuer`, `subject`, `name`, `version`, `trust_level`, `capabilities`.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

impl ServerIdentityError {
    /// Word for metrics and logs: one of a fixed set, never data from the token.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LacksCapability => "lacks_capability",
            Self::Token(error) => error.label(),
            Self::WrongName => "wrong_name",
            Self::WrongTrustLevel => "wrong_trust_level",
            Self::WrongVersion => "wrong_version",
        }
    }
}

impl From<AuthnError> for ServerIdentityError {
    fn from(error: AuthnError) -> Self {
        Self::Token(error)
    }
}
