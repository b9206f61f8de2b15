//! Is this token what it says, and meant for us?
//!
//! Verification has two steps, so that a caller with several issuers parses a token once: [`peek`] reads header and claims
//! strictly and believes nothing; [`Unverified::verify`] then checks the signature first and every claim after it, so that
//! what an attacker made up is told nothing about our claims.
//!
//! The rules are those of RFC 7515 to 7519 as sharpened by RFC 8725 (best current practice) and RFC 9068 (access tokens).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Map;
use serde_json::Value;

use crate::identity::Caller;
use crate::identity::IssuerPolicy;
use crate::identity::KeySet;
use crate::identity::Principal;
use crate::identity::Scopes;
use crate::identity::TokenTypes;
use crate::identity::UnverifiedToken;
use crate::identity::json;
use crate::identity::json::JsonError;
use crate::time::UnixSeconds;

/// Reads a token without believing it: a JWS in compact form (RFC 7515 §7.1) whose header and claims are JSON objects without
/// repeated members.
///
/// # Errors
/// [`AuthnError::Malformed`], [`AuthnError::DuplicateClaim`], [`AuthnError::UnsupportedAlgorithm`] (`none` and HS* are no
/// [`Algorithm`]), [`AuthnError::UnsupportedCritical`], [`AuthnError::KeyInHeader`], [`AuthnError::WrongType`],
/// [`AuthnError::MissingClaim`] and [`AuthnError::InvalidClaim`] for `iss`.
pub fn peek(token: &UnverifiedToken) -> Result<Unverified<'_>, AuthnError> {
    peek_text(token.as_str(), &[])
}

/// The same for a JWT that came by another way than a request's head, where `typ` may also be one of `types`: lower case,
/// without `application/`.
pub(super) fn peek_text<'t>(token: &'t str, types: &[&str]) -> Result<Unverified<'t>, AuthnError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(AuthnError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(AuthnError::Malformed)?;
    // A JWE has five parts (RFC 7516 §7.1); what it would decrypt to has no signature to believe.
    if payload.contains('.') {
        return Err(AuthnError::Malformed);
    }

    let header = Header::read(json::strict_object(&decode(header)?)?, types)?;
    let claims = json::strict_object(&decode(payload)?)?;
    let signature = decode(signature)?;
    let issuer = required_string(&claims, "iss")?.into();
    Ok(Unverified { signed, signature, header, claims, issuer })
}

/// Verifies a token of a known issuer: [`peek`], then [`Unverified::verify`].
///
/// # Errors
/// Those of both.
pub fn verify(
    token: &UnverifiedToken,
    issuer: &IssuerPolicy,
    keys: &KeySet,
    resource: &str,
    now: UnixSeconds,
) -> Result<Caller, AuthnError> {
    peek(token)?.verify(issuer, keys, resource, now)
}

/// A token that could be read. Nothing in it is true yet.
pub struct Unverified<'t> {
    /// What the signature is over: header and payload as they came.
    signed: &'t str,
    signature: Vec<u8>,
    header: Header,
    claims: Map<String, Value>,
    issuer: Box<str>,
}

impl Unverified<'_> {
    /// `iss`: who it says has issued it. Only good for choosing whose rules and keys to hold it against.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `kid`: the name of the key it says it was signed with.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// `alg`.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.header.algorithm
    }

    /// Whether this token would be verified if only `keys` held the key it names: the one case in which asking the issuer
    /// for newer keys can help. Anyone can make such tokens, so the asking needs a bound.
    #[must_use]
    pub fn lacks_key(&self, issuer: &IssuerPolicy, keys: &KeySet) -> bool {
        *self.issuer == *issuer.issuer
            && issuer.algorithms.contains(&self.header.algorithm)
            && !keys.knows(self.kid(), self.header.algorithm)
    }

    /// Turns the token into a proof of who calls.
    ///
    /// Checked, in this order: `iss` equals the issuer's; the algorithm is among the issuer's; a key of `keys` made the
    /// signature; `exp` (required), `nbf` and `iat` against `now` with the issuer's leeway; `aud` names one of the issuer's
    /// audiences or, when it has none configured, `resource` (the route's resource identifier, compared exactly as RFC 9728
    /// §3.3 does); the token is an access token; it is bound to no key of the sender; `sub` is a string that is not empty.
    ///
    /// # Errors
    /// One [`AuthnError`] for each of these.
    pub fn verify(
        self,
        issuer: &IssuerPolicy,
        keys: &KeySet,
        resource: &str,
        now: UnixSeconds,
    ) -> Result<Caller, AuthnError> {
        let signed = self.signed(issuer, keys)?;
        let expires_at = signed.check_bearer(issuer, resource, now)?;
        let Signed { mut claims, key, .. } = signed;

        let subject = required_string(&claims, "sub")?.into();
        let client_id = optional_string(&claims, "client_id")?;
        let client_id = if client_id.is_some() { client_id } else { optional_string(&claims, "azp")? };
        let client_id = client_id.map(Into::into);
        let token_id = optional_string(&claims, "jti")?.map(Into::into);
        let scopes = take_scopes(&mut claims, &issuer.scope_claims)?;
        Ok(Caller {
            principal: Principal { issuer: Arc::clone(&issuer.issuer), subject },
            issuer_name: Arc::clone(&issuer.name),
            client_id,
            token_id,
            scopes,
            claims,
            expires_at,
            key,
            clock_leeway: issuer.clock_leeway,
        })
    }

    /// What a key of the issuer has signed. Nothing else is checked: not for whom it is, not for how long.
    ///
    /// # Errors
    /// [`AuthnError::WrongIssuer`], [`AuthnError::UnsupportedAlgorithm`], [`AuthnError::UnknownKey`] and
    /// [`AuthnError::BadSignature`].
    pub(super) fn signed(self, issuer: &IssuerPolicy, keys: &KeySet) -> Result<Signed, AuthnError> {
        if *self.issuer != *issuer.issuer {
            return Err(AuthnError::WrongIssuer);
        }
        if !issuer.algorithms.contains(&self.header.algorithm) {
            return Err(AuthnError::UnsupportedAlgorithm);
        }
        let key = self.signing_key(keys)?;
        Ok(Signed { token_type: self.header.token_type, claims: self.claims, key })
    }

    /// The thumbprint of the key that made the signature.
    fn signing_key(&self, keys: &KeySet) -> Result<Box<str>, AuthnError> {
        let algorithm = self.header.algorithm;
        let mut refusal = AuthnError::UnknownKey;
        for key in keys.candidates(self.kid(), algorithm) {
            if key.verifies(algorithm, self.signed.as_bytes(), &self.signature) {
                return Ok(key.thumbprint().into());
            }
            refusal = AuthnError::BadSignature;
        }
        Err(refusal)
    }
}

impl std::fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unverified(…)")
    }
}

/// The claims of a token whose signature is good.
pub(super) struct Signed {
    token_type: HeaderType,
    pub(super) claims: Map<String, Value>,
    /// The thumbprint of the key that signed.
    pub(super) key: Box<str>,
}

impl Signed {
    /// Checks everything that makes a signed token good for its bearer, in the order that [`Unverified::verify`] tells,
    /// and returns its `exp`.
    pub(super) fn check_bearer(
        &self,
        issuer: &IssuerPolicy,
        resource: &str,
        now: UnixSeconds,
    ) -> Result<UnixSeconds, AuthnError> {
        let expires_at = check_times(&self.claims, now, issuer.clock_leeway)?;
        check_audience(&self.claims, &issuer.audiences, resource)?;
        check_type(self.token_type, &self.claims, issuer.token_types)?;
        // RFC 9449 §7.1, RFC 8705 §3: a token that names the sender's key is worth nothing without proof of that key, and
        // a plain Bearer request holds none. Were it taken, whoever steals such a token could use it after all.
        if self.claims.contains_key("cnf") {
            return Err(AuthnError::SenderConstrained);
        }
        Ok(expires_at)
    }
}

/// A signature algorithm an issuer may use (RFC 7518 §3.1, RFC 8037). `none` and HS* cannot be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the registered ones and say everything")]
pub enum Algorithm {
    EdDSA,
    ES256,
    ES384,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

impl Algorithm {
    /// Reads a registered name; names are case-sensitive (RFC 7515 §4.1.1). `Ed25519` is the fully specified name of the one
    /// `EdDSA` there is here (RFC 9864 §2.2).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "EdDSA" | "Ed25519" => Some(Self::EdDSA),
            "ES256" => Some(Self::ES256),
            "ES384" => Some(Self::ES384),
            "PS256" => Some(Self::PS256),
            "PS384" => Some(Self::PS384),
            "PS512" => Some(Self::PS512),
            "RS256" => Some(Self::RS256),
            "RS384" => Some(Self::RS384),
            "RS512" => Some(Self::RS512),
            _ => None,
        }
    }

    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDSA => "EdDSA",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
        }
    }
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthnError {
    /// No key that fits made the signature.
    #[error("the signature is wrong")]
    BadSignature,
    /// The header or the claims name a member twice (RFC 7519 §4).
    #[error("the token names a member twice")]
    DuplicateClaim,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// A claim we read is not of the type its definition gives it.
    #[error("a claim of the token is not of its type")]
    InvalidClaim,
    /// The header brings or points to a key of its own: `jku`, `jwk`, `x5c`, `x5u` (RFC 8725 §3.10).
    #[error("the token brings its own key")]
    KeyInHeader,
    /// Not a signed JWT in compact form.
    #[error("not a signed token")]
    Malformed,
    /// `iss`, `sub`, `aud` or `exp` is not there (RFC 9068 §2.2).
    #[error("a required claim is missing")]
    MissingClaim,
    /// The authorization server of the upstream does not accept it as a subject token (RFC 6749 §5.2 `invalid_grant`).
    #[error("the token cannot be exchanged for the server")]
    NotExchangeable,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `cnf`: bound to a key of the sender, which a Bearer request does not prove (RFC 9449 §7.1, RFC 8705 §3).
    #[error("the token is bound to a key of its sender")]
    SenderConstrained,
    /// No key of the issuer has the name and type the header gives.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// `alg` is not one the issuer may use; `none` and HS* never are.
    #[error("the signature algorithm is not accepted")]
    UnsupportedAlgorithm,
    /// `crit`: the token must not be accepted by who does not know an extension (RFC 7515 §4.1.11).
    #[error("the token needs an extension that is not supported")]
    UnsupportedCritical,
    /// `aud` names another server (RFC 9068 §4).
    #[error("the token is for another server")]
    WrongAudience,
    /// `iss` is not the issuer's.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// Not an access token: an ID token, a logout token, a DPoP proof or the like.
    #[error("not an access token")]
    WrongType,
}

impl AuthnError {
    /// Word for metrics, audit and `error_description`: one of a fixed set, never data from the request.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::DuplicateClaim => "duplicate_claim",
            Self::Expired => "expired",
            Self::InvalidClaim => "invalid_claim",
            Self::KeyInHeader => "key_in_header",
            Self::Malformed => "malformed",
            Self::MissingClaim => "missing_claim",
            Self::NotExchangeable => "not_exchangeable",
            Self::NotYetValid => "not_yet_valid",
            Self::SenderConstrained => "sender_constrained",
            Self::UnknownKey => "unknown_key",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::UnsupportedCritical => "unsupported_critical",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongType => "wrong_type",
        }
    }
}

impl From<JsonError> for AuthnError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::DuplicateMember => Self::DuplicateClaim,
            JsonError::Malformed => Self::Malformed,
        }
    }
}

/// The members of a JOSE header that matter here.
struct Header {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
    token_type: HeaderType,
}

impl Header {
    fn read(members: Map<String, Value>, types: &[&str]) -> Result<Self, AuthnError> {
        if members.contains_key("crit") {
            return Err(AuthnError::UnsupportedCritical);
        }
        if ["jku", "jwk", "x5c", "x5u"].iter().any(|name| members.contains_key(*name)) {
            return Err(AuthnError::KeyInHeader);
        }
        let text = |name| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(AuthnError::Malformed)
            }
        };
        let algorithm = text("alg")?.ok_or(AuthnError::Malformed)?;
        Ok(Self {
            algorithm: Algorithm::parse(algorithm).ok_or(AuthnError::UnsupportedAlgorithm)?,
            kid: text("kid")?.map(Into::into),
            token_type: HeaderType::read(text("typ")?, types)?,
        })
    }
}

/// What `typ` of the header says. A list of what is accepted: there is a `typ` for every kind of JWT that could be confused
/// with an access token (`dpop+jwt`, `logout+jwt`, `secevent+jwt`, `oauth-id-jag+jwt`, …; RFC 8725 §3.11), and more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderType {
    /// `at+jwt` (RFC 9068 §2.1).
    AccessToken,
    /// One that the reader has asked for, where no access token is meant.
    Expected,
    /// `JWT`, or nothing at all.
    Unspecific,
}

impl HeaderType {
    fn read(typ: Option<&str>, types: &[&str]) -> Result<Self, AuthnError> {
        let Some(typ) = typ else { return Ok(Self::Unspecific) };
        // RFC 7515 §4.1.9: a media type, in any case, whose `application/` may be left out.
        let typ = typ.to_ascii_lowercase();
        match typ.strip_prefix("application/").unwrap_or(&typ) {
            "at+jwt" => Ok(Self::AccessToken),
            "jwt" => Ok(Self::Unspecific),
            typ if types.contains(&typ) => Ok(Self::Expected),
            _ => Err(AuthnError::WrongType),
        }
    }
}

/// The moment the token ends.
pub(super) fn check_times(
    claims: &Map<String, Value>,
    now: UnixSeconds,
    leeway: Duration,
) -> Result<UnixSeconds, AuthnError> {
    let exp = numeric_date(claims, "exp")?.ok_or(AuthnError::MissingClaim)?;
    // RFC 7519 §4.1.4: "on or after which" it is over.
    if exp.floor().plus(leeway) <= now {
        return Err(AuthnError::Expired);
    }
    let latest = now.plus(leeway);
    if numeric_date(claims, "nbf")?.is_some_and(|nbf| nbf.ceil() > latest) {
        return Err(AuthnError::NotYetValid);
    }
    // A token from the future was issued by a clock that is not ours, so its `exp` says nothing either.
    if numeric_date(claims, "iat")?.is_some_and(|iat| iat.floor() > latest) {
        return Err(AuthnError::NotYetValid);
    }
    Ok(exp.floor())
}

/// RFC 7519 §2 "NumericDate": seconds, perhaps with a fraction.
pub(super) enum NumericDate {
    Fractional(f64),
    Whole(u64),
}

impl NumericDate {
    /// Cut to a second that has begun, so that a token never lives longer than it says.
    pub(super) fn floor(&self) -> UnixSeconds {
        match self {
            Self::Fractional(seconds) => whole_seconds(seconds.floor()),
            Self::Whole(seconds) => UnixSeconds(*seconds),
        }
    }

    fn ceil(&self) -> UnixSeconds {
        match self {
            Self::Fractional(seconds) => whole_seconds(seconds.ceil()),
            Self::Whole(seconds) => UnixSeconds(*seconds),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is before 1970 or past u64 saturates"
)]
fn whole_seconds(seconds: f64) -> UnixSeconds {
    UnixSeconds(seconds as u64)
}

pub(super) fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<NumericDate>, AuthnError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(NumericDate::Whole(whole)));
    }
    value.as_f64().map(|seconds| Some(NumericDate::Fractional(seconds))).ok_or(AuthnError::InvalidClaim)
}

/// RFC 7519 §4.1.3: a string or an array of strings. Compared exactly (RFC 8725 §3.9): `https://h/mcp` and `https://h/mcp/`
/// are two servers, and a token for one of them is none for the other.
pub(super) fn check_audience(
    claims: &Map<String, Value>,
    accepted: &[Box<str>],
    resource: &str,
) -> Result<(), AuthnError> {
    let names_us = |audience: &str| {
        if accepted.is_empty() { audience == resource } else { accepted.iter().any(|ours| **ours == *audience) }
    };
    let ours = match claims.get("aud") {
        None => return Err(AuthnError::MissingClaim),
        Some(Value::String(audience)) => names_us(audience),
        Some(Value::Array(audiences)) => {
            let mut ours = false;
            for audience in audiences {
                ours |= names_us(audience.as_str().ok_or(AuthnError::InvalidClaim)?);
            }
            ours
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return Err(AuthnError::InvalidClaim);
        }
    };
    if ours { Ok(()) } else { Err(AuthnError::WrongAudience) }
}

/// Tells access tokens from the other tokens the same issuer signs with the same keys (RFC 8725 §2.8, §3.11).
fn check_type(header: HeaderType, claims: &Map<String, Value>, accepted: TokenTypes) -> Result<(), AuthnError> {
    // Keycloak's `typ` claim and Cognito's `token_use` say it outright.
    let said = |name| claims.get(name).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let (typ, token_use) = (said("typ"), said("token_use"));
    let (typ, token_use) = (typ.as_deref(), token_use.as_deref());

    // Never an access token, whatever is configured. `events` makes it a security event (RFC 8417 §2.2) such as a logout
    // token (OpenID Connect Back-Channel Logout §2.4).
    let other = matches!(typ, Some("refresh" | "refresh_token" | "offline" | "logout" | "logout_token"))
        || matches!(token_use, Some("refresh" | "refresh_token"))
        || claims.contains_key("events");
    if other {
        return Err(AuthnError::WrongType);
    }
    match accepted {
        TokenTypes::WithIdTokens => return Ok(()),
        TokenTypes::AccessTokenOnly if header != HeaderType::AccessToken => return Err(AuthnError::WrongType),
        TokenTypes::AccessTokenOnly | TokenTypes::AnyButIdToken => {}
    }
    if matches!(typ, Some("id" | "id_token")) || matches!(token_use, Some("id" | "id_token")) {
        return Err(AuthnError::WrongType);
    }
    // The hints of OpenID Connect Core §2 and §3.3.2.11 count only where nothing says "access token": some issuers copy
    // the `nonce` into theirs (Keycloak before 24).
    let says_access = header == HeaderType::AccessToken || typ == Some("bearer") || token_use == Some("access");
    let hints_id = ["nonce", "at_hash", "c_hash", "s_hash"].iter().any(|name| claims.contains_key(*name));
    if hints_id && !says_access { Err(AuthnError::WrongType) } else { Ok(()) }
}

/// Takes the scope claims out of the claims and returns their union.
fn take_scopes(claims: &mut Map<String, Value>, names: &[Box<str>]) -> Result<Scopes, AuthnError> {
    let mut scopes: Vec<Box<str>> = Vec::new();
    for name in names {
        match claims.remove(&**name) {
            None | Some(Value::Null) => {}
            Some(Value::String(list)) => scopes.extend(list.split(' ').map(Into::into)),
            Some(Value::Array(list)) => {
                for scope in list {
                    let Value::String(scope) = scope else { return Err(AuthnError::InvalidClaim) };
                    scopes.push(scope.into());
                }
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(AuthnError::InvalidClaim),
        }
    }
    Ok(Scopes::new(scopes))
}

pub(super) fn required_string<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a str, AuthnError> {
    match optional_string(claims, name)? {
        None => Err(AuthnError::MissingClaim),
        Some("") => Err(AuthnError::InvalidClaim),
        Some(text) => Ok(text),
    }
}

pub(super) fn optional_string<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, AuthnError> {
    claims.get(name).map(|value| value.as_str().ok_or(AuthnError::InvalidClaim)).transpose()
}

/// RFC 7515 §2: base64url without padding. Bits left over must be zero, so that a signature has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, AuthnError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthnError::Malformed)
}

#[cfg(test)]
mod tests;
