//! How is a caller's token exchanged for one that the server accepts? RFC 8693: the form that asks, and what its answer
//! means.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::plan::{ClientAuth, ExchangePlan};
use super::wiped_header_value;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// The token to exchange: the caller's, already verified.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The compact text, as the caller sent it.
    pub token: &'a str,
    /// Its `exp`, or that of the actor's token when that is sooner: nothing obtained with them lives longer.
    pub expires_at: UnixSeconds,
    /// The token of the agent that acts, already verified too; sent when the plan says so.
    pub actor: Option<&'a str>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A POST to a token endpoint, `Content-Type: application/x-www-form-urlencoded`, `Accept: application/json`.
#[derive(Debug)]
pub struct ExchangeRequest<'a> {
    /// Where to.
    pub url: &'a str,
    /// The value of `Authorization`, with [`ClientAuth::ClientSecretBasic`].
    pub authorization: Option<Secret<String>>,
    /// The form.
    pub body: Secret<String>,
}

/// A token that a token endpoint made for one caller and one server. Only [`read_answer`] makes one.
#[derive(Debug)]
pub struct ExchangedToken {
    /// `Bearer …`. INVARIANT: sensitive, visible ASCII, wiped with its last clone, and not the subject's token.
    header: HeaderValue,
    /// INVARIANT: not after the subject token's expiry.
    expires_at: UnixSeconds,
    fresh_until: UnixSeconds,
    audience: Arc<[Box<str>]>,
    scope: Arc<str>,
}

/// Why there is no exchanged token. A fact each; the answer's own text is in none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ExchangeError {
    /// The token endpoint wants the person to do something first (consent, a second factor).
    #[error("the person must interact with the authorization server first")]
    InteractionRequired,
    /// Our client id or secret is wrong (RFC 6749 §5.2).
    #[error("the token endpoint does not accept our client credentials")]
    InvalidClient,
    /// The caller's token is not accepted (RFC 6749 §5.2).
    #[error("the token endpoint does not accept the caller's token")]
    InvalidGrant,
    /// The form is wrong for this token endpoint (RFC 6749 §5.2; RFC 8693 §2.2.2 also says this of a bad subject
    /// token).
    #[error("the token endpoint does not accept the request")]
    InvalidRequest,
    /// The configured scope is unknown or too much (RFC 6749 §5.2).
    #[error("the token endpoint does not grant the configured scope")]
    InvalidScope,
    /// The configured audience or resource is unknown or not for us (RFC 8693 §2.2.2).
    #[error("the token endpoint does not issue tokens for the configured audience or resource")]
    InvalidTarget,
    /// The answer is not what RFC 8693 §2.2 describes.
    #[error("the token endpoint's answer is malformed")]
    MalformedAnswer,
    /// 429.
    #[error("the token endpoint asks us to slow down")]
    RateLimited,
    /// Another 4xx than those with a name here.
    #[error("the token endpoint refused")]
    Refused,
    /// 5xx.
    #[error("the token endpoint failed")]
    ServerError,
    /// `temporarily_unavailable`.
    #[error("the token endpoint is unavailable for now")]
    TemporarilyUnavailable,
    /// No answer within the plan's time.
    #[error("the token endpoint did not answer in time")]
    Timeout,
    /// The answer, or the token in it, is over its bound.
    #[error("the token endpoint's answer is too large")]
    TooLarge,
    /// `issued_token_type` is not what was asked for.
    #[error("the token endpoint issued another type of token than asked for")]
    TokenKind,
    /// `token_type` is not Bearer: DPoP, N_A, something else, or absent where that is not accepted.
    #[error("the token endpoint's token cannot be used as a bearer token")]
    TokenType,
    /// The token that came back is one of those that were sent.
    #[error("the token endpoint gave the caller's own token back")]
    TokenUnchanged,
    /// Our client may not exchange tokens (RFC 6749 §5.2).
    #[error("the token endpoint does not let our client exchange tokens")]
    UnauthorizedClient,
    /// No connection.
    #[error("the token endpoint cannot be reached")]
    Unreachable,
    /// The token endpoint knows no token exchange (RFC 6749 §5.2).
    #[error("the token endpoint does not support token exchange")]
    UnsupportedGrantType,
}

/// Writes the request for `subject` (RFC 8693 §2.1).
///
/// The actor's token goes with it when the plan says so and there is one.
///
/// `audience` and `resource` are repeated, `scope` is joined by spaces, and what is not configured is not sent. The
/// client proves itself as `plan.client_auth` says; with HTTP Basic, id and secret are form-urlencoded before they are
/// joined (RFC 6749 §2.3.1).
#[must_use]
pub fn request<'a>(plan: &'a ExchangePlan, subject: Subject<'_>) -> ExchangeRequest<'a> {
    let actor = plan.actor_token.as_ref().zip(subject.actor);
    let secret = plan.client_secret.as_ref().map_or("", |secret| secret.expose().as_str());
    let mut form = Form::with_capacity(
        FORM_BYTES_USUAL + 3 * (subject.token.len() + secret.len() + actor.map_or(0, |(_, token)| token.len())),
    );
    form.add("grant_type", GRANT_TYPE);
    let authorization = match plan.client_auth {
        ClientAuth::ClientSecretBasic => Some(basic(&plan.client_id, secret)),
        ClientAuth::ClientSecretPost => {
            form.add("client_id", &plan.client_id);
            form.add("client_secret", secret);
            None
        }
        ClientAuth::None => {
            form.add("client_id", &plan.client_id);
            None
        }
    };
    for audience in &plan.audience {
        form.add("audience", audience);
    }
    for resource in &plan.resource {
        form.add("resource", resource);
    }
    if !plan.scope.is_empty() {
        form.add("scope", &plan.scope.join(" "));
    }
    if let Some(requested) = &plan.requested_token_type {
        form.add("requested_token_type", requested);
    }
    form.add("subject_token_type", &plan.subject_token_type);
    form.add("subject_token", subject.token);
    if let Some((actor, token)) = actor {
        form.add("actor_token_type", &actor.token_type);
        form.add("actor_token", token);
    }
    ExchangeRequest { url: &plan.token_endpoint, authorization, body: form.finish() }
}

/// Reads the answer to [`request`] (RFC 8693 §2.2).
///
/// The token lives until `expires_in` from `now`; without one until its own `exp` (read unverified, which can do no
/// harm: it only shortens) and else for [`LIFETIME_UNSAID`]; and never longer than the subject's token. A missing
/// `issued_token_type` is taken for the requested one.
///
/// # Errors
/// An error answer is told by its `error` code, else by its status. A good answer is refused when it is not JSON of
/// the right shape, too large, not a Bearer token, of another type than asked for, or the subject's own token.
pub fn read_answer(
    plan: &ExchangePlan,
    subject: Subject<'_>,
    status: u16,
    body: &[u8],
    now: UnixSeconds,
) -> Result<ExchangedToken, ExchangeError> {
    if body.len() > ANSWER_BYTES_MAX {
        return Err(ExchangeError::TooLarge);
    }
    match status {
        200 => {}
        429 => return Err(ExchangeError::RateLimited),
        400..=499 => return Err(refusal(status, body)),
        500..=599 => return Err(outage(body)),
        // A redirect would carry the caller's token to a place that nobody configured.
        _ => return Err(ExchangeError::MalformedAnswer),
    }

    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|_| ExchangeError::MalformedAnswer)?;
    let Some(token) = answer.access_token.as_deref() else {
        // Some servers answer 200 with an error in the body.
        return Err(answer.error.as_deref().map_or(ExchangeError::MalformedAnswer, by_code));
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(ExchangeError::TooLarge);
    }
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ExchangeError::MalformedAnswer);
    }
    match answer.token_type.as_deref() {
        Some(kind) if kind.eq_ignore_ascii_case("bearer") => {}
        None if plan.accept_missing_token_type => {}
        Some(_) | None => return Err(ExchangeError::TokenType),
    }
    if answer.issued_token_type.as_deref().is_some_and(|issued| !is_as_asked(plan, issued)) {
        return Err(ExchangeError::TokenKind);
    }
    // INVARIANT: a client's token never goes upstream, not even by way of a token endpoint that only echoes it.
    if token == subject.token || Some(token) == subject.actor {
        return Err(ExchangeError::TokenUnchanged);
    }

    let expires_at = match answer.expires_in {
        Some(seconds) => now.plus(lifetime(&seconds)?),
        None => unverified_expiry(token).unwrap_or_else(|| now.plus(LIFETIME_UNSAID)),
    }
    .min(subject.expires_at);
    let lifetime = now.until(expires_at);
    let skew = (lifetime / 5).min(SKEW_MAX);

    let mut header = Zeroizing::new(Vec::with_capacity("Bearer ".len() + token.len()));
    header.extend_from_slice(b"Bearer ");
    header.extend_from_slice(token.as_bytes());
    let asked_for = if plan.audience.is_empty() { &plan.resource } else { &plan.audience };
    Ok(ExchangedToken {
        header: wiped_header_value(header).map_err(|_| ExchangeError::MalformedAnswer)?,
        expires_at,
        fresh_until: expires_at.minus(skew),
        audience: asked_for.iter().map(|audience| audience.as_str().into()).collect(),
        // The answer names the scope only when it is not the one asked for (RFC 8693 §2.2.1).
        scope: answer.scope.map_or_else(|| plan.scope.join(" ").into(), |scope| scope.into_owned().into()),
    })
}

impl ExchangedToken {
    /// The value of `Authorization`. Marked sensitive.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// When the token endpoint stops vouching for it; not after the subject token's expiry.
    #[must_use]
    pub fn expires_at(&self) -> UnixSeconds {
        self.expires_at
    }

    /// Whether it may still be handed out at `now`: until a fifth of its lifetime, at most [`SKEW_MAX`], before its
    /// end, so that it does not expire on its way.
    #[must_use]
    pub fn is_fresh(&self, now: UnixSeconds) -> bool {
        now < self.fresh_until
    }

    /// The audiences asked for, or the resources when there are none.
    #[must_use]
    pub fn audience(&self) -> &Arc<[Box<str>]> {
        &self.audience
    }

    /// The granted scope, separated by spaces.
    #[must_use]
    pub fn scope(&self) -> &Arc<str> {
        &self.scope
    }
}

impl ExchangeError {
    /// Every error, for tables of metrics and documentation.
    pub const ALL: [Self; 19] = [
        Self::InteractionRequired,
        Self::InvalidClient,
        Self::InvalidGrant,
        Self::InvalidRequest,
        Self::InvalidScope,
        Self::InvalidTarget,
        Self::MalformedAnswer,
        Self::RateLimited,
        Self::Refused,
        Self::ServerError,
        Self::TemporarilyUnavailable,
        Self::Timeout,
        Self::TooLarge,
        Self::TokenKind,
        Self::TokenType,
        Self::TokenUnchanged,
        Self::UnauthorizedClient,
        Self::Unreachable,
        Self::UnsupportedGrantType,
    ];

    /// Word for metrics and audit: one of a fixed set, never data from the answer. The OAuth error codes are kept as
    /// they are on the wire.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::InteractionRequired => "interaction_required",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::MalformedAnswer => "malformed_answer",
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::TokenKind => "issued_token_type",
            Self::TokenType => "token_type",
            Self::TokenUnchanged => "token_unchanged",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::Unreachable => "unreachable",
            Self::UnsupportedGrantType => "unsupported_grant_type",
        }
    }

    /// Whether asking once more may help. No 4xx but 429: the same question gets the same answer.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::ServerError | Self::TemporarilyUnavailable | Self::Unreachable)
    }

    /// Whether the caller can cure it with another token, so that 401 is the right answer; else it is ours (502, or
    /// 504 for [`Self::Timeout`]).
    #[must_use]
    pub fn is_caller_fault(self) -> bool {
        matches!(self, Self::InteractionRequired | Self::InvalidGrant)
    }

    /// How long the failure is remembered for the same caller and plan, so that a client in a loop does not become a
    /// flood at the token endpoint.
    #[must_use]
    pub fn remembered_for(self) -> Duration {
        if self.is_retryable() || self == Self::Timeout { Duration::from_secs(1) } else { Duration::from_secs(5) }
    }
}

/// What a token endpoint answers, good or bad. A repeated member is an error, as serde does it.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    access_token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    issued_token_type: Option<Cow<'a, str>>,
    expires_in: Option<Value>,
    #[serde(borrow)]
    scope: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Expiry {
    exp: f64,
}

/// What a 4xx means: its code when there is one, else its status.
fn refusal(status: u16, body: &[u8]) -> ExchangeError {
    match error_code(body) {
        Some(error) => error,
        // Client authentication failed (RFC 6749 §5.2).
        None if status == 401 => ExchangeError::InvalidClient,
        None => ExchangeError::Refused,
    }
}

/// What a 5xx means. Whatever else its body says, it is the server that failed, not the request.
fn outage(body: &[u8]) -> ExchangeError {
    match error_code(body) {
        Some(ExchangeError::TemporarilyUnavailable) => ExchangeError::TemporarilyUnavailable,
        Some(_) | None => ExchangeError::ServerError,
    }
}

fn error_code(body: &[u8]) -> Option<ExchangeError> {
    serde_json::from_slice::<Failure<'_>>(body).ok().map(|failure| by_code(&failure.error))
}

fn by_code(code: &str) -> ExchangeError {
    match code {
        // OpenID Connect Core §3.1.2.6 has the three others; they too mean that a person must act.
        "interaction_required" | "login_required" | "consent_required" | "account_selection_required" => {
            ExchangeError::InteractionRequired
        }
        "invalid_client" => ExchangeError::InvalidClient,
        "invalid_grant" => ExchangeError::InvalidGrant,
        "invalid_request" => ExchangeError::InvalidRequest,
        "invalid_scope" => ExchangeError::InvalidScope,
        "invalid_target" => ExchangeError::InvalidTarget,
        "server_error" => ExchangeError::ServerError,
        "temporarily_unavailable" => ExchangeError::TemporarilyUnavailable,
        "unauthorized_client" => ExchangeError::UnauthorizedClient,
        "unsupported_grant_type" => ExchangeError::UnsupportedGrantType,
        _ => ExchangeError::Refused,
    }
}

/// Whether `issued` is what the plan asks for. An access token and a JWT are not told apart: servers name a JWT access
/// token either way (RFC 8693 §3).
fn is_as_asked(plan: &ExchangePlan, issued: &str) -> bool {
    const ACCESS: [&str; 2] = ["urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:jwt"];
    let asked = plan.requested_token_type.as_deref().unwrap_or(ACCESS[0]);
    issued == asked || (ACCESS.contains(&asked) && ACCESS.contains(&issued))
}

/// Reads `expires_in`: a whole number of seconds above zero (RFC 6749 §5.1), also as a string of digits, which some
/// servers send.
fn lifetime(expires_in: &Value) -> Result<Duration, ExchangeError> {
    let seconds = match expires_in {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or(ExchangeError::MalformedAnswer)
}

/// Reads `exp` of a compact JWT without verifying anything; `None` for every other text.
fn unverified_expiry(token: &str) -> Option<UnixSeconds> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    let Expiry { exp } = serde_json::from_slice(&payload).ok()?;
    // `as` cuts the fraction and keeps to the bounds of u64.
    (exp.is_finite() && exp > 0.0).then_some(UnixSeconds(exp as u64))
}

/// `Basic`, with id and secret form-urlencoded first (RFC 6749 §2.3.1).
pub(super) fn basic(client_id: &str, client_secret: &str) -> Secret<String> {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (client_id.len() + client_secret.len()) + 1));
    urlencode(client_id, &mut pair);
    pair.push(':');
    urlencode(client_secret, &mut pair);
    let mut value = String::with_capacity("Basic ".len() + pair.len().div_ceil(3) * 4);
    value.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut value);
    Secret::new(value)
}

/// `application/x-www-form-urlencoded`.
pub(super) struct Form(Zeroizing<String>);

impl Form {
    /// Enough room keeps the text in one place: a buffer that grows leaves copies of the token behind.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(bytes)))
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        urlencode(value, &mut self.0);
    }

    pub(super) fn finish(mut self) -> Secret<String> {
        Secret::new(std::mem::take(&mut *self.0))
    }
}

/// Writes `text` form-urlencoded: letters, digits and `*-._` as they are, a space as `+`, every other byte of the UTF-8
/// text as `%XX` (RFC 6749 appendix B).
fn urlencode(text: &str, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.extend([byte >> 4, byte & 0xf].iter().filter_map(|nibble| HEX.get(usize::from(*nibble))));
            }
        }
    }
}

/// Bytes of an answer that is read at all.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an exchanged token. Header limits of common servers are at or below this.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How long a token is used when nothing says how long it lives.
pub const LIFETIME_UNSAID: Duration = Duration::from_secs(60);

/// How long before its end a token is no longer handed out, at most.
pub const SKEW_MAX: Duration = Duration::from_secs(30);

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Room for everything in a form but the token and the secret.
const FORM_BYTES_USUAL: usize = 1024;

#[cfg(test)]
mod tests;
