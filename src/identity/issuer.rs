//! What must a token of this issuer look like to be believed?

use std::sync::Arc;
use std::time::Duration;

use crate::identity::Algorithm;

/// What is asked of the tokens of one issuer: its entry in the configuration, as far as verification needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerPolicy {
    /// What routes, metrics and logs call it.
    pub name: Arc<str>,
    /// Matched exactly against `iss`: no normalisation (RFC 8725 §3.8, RFC 9207 §2.4).
    pub issuer: Arc<str>,
    /// Accepted `aud` values; empty: the resource identifier of the route that was called. Matched exactly.
    pub audiences: Vec<Box<str>>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Tolerance for `exp`, `nbf` and `iat`.
    pub clock_leeway: Duration,
    /// Claims whose union is the caller's scopes: a string of scopes parted by spaces (RFC 8693 §4.2) or an array of scopes.
    pub scope_claims: Vec<Box<str>>,
    /// Which of its tokens count as access tokens.
    pub token_types: TokenTypes,
}

/// Which tokens of an issuer count as access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTypes {
    /// `typ` must be `at+jwt` (RFC 9068 §4).
    AccessTokenOnly,
    /// `typ` may also be `JWT` or absent, as most issuers still send; an ID token (`nonce`, `at_hash`, `c_hash`, or
    /// another sign of OpenID Connect Core §2) is refused. The default.
    AnyButIdToken,
    /// ID tokens too: `accept_id_tokens: true`.
    WithIdTokens,
}
