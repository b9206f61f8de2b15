//! What does a server get in place of the caller's token?

use crate::secret::Secret;

/// `servers[].credential:` one of these.
#[derive(Clone, Debug)]
pub enum Plan {
    /// `none`: no credential at all.
    None,
    /// `static`: the same secret for everybody.
    Static {
        /// Header; default `authorization`.
        header: http::HeaderName,
        /// Whole header value.
        secret: Secret<String>,
    },
    /// `token_exchange`: a fresh token for this very caller (RFC 8693).
    TokenExchange(Box<ExchangePlan>),
}

/// `token_exchange:` how to ask for a token (RFC 8693 §2.1).
#[derive(Clone, Debug)]
pub struct ExchangePlan {
    /// Where to ask; https, or http on a loopback host.
    pub token_endpoint: String,
    /// `client.id`.
    pub client_id: String,
    /// `client.secret`; `None` with [`ClientAuth::None`].
    pub client_secret: Option<Secret<String>>,
    /// `client.auth`.
    pub client_auth: ClientAuth,
    /// Sent once each, in order; may be empty.
    pub audience: Vec<String>,
    /// Sent once each, in order; may be empty.
    pub resource: Vec<String>,
    /// Joined by spaces; not sent when empty.
    pub scope: Vec<String>,
    /// Default `urn:ietf:params:oauth:token-type:access_token`.
    pub subject_token_type: String,
    /// Not sent when `None`.
    pub requested_token_type: Option<String>,
    /// The longest one exchange may take. Default: 5 s.
    pub timeout: std::time::Duration,
    /// Whether an answer without `token_type` counts as Bearer. Default: false.
    pub accept_missing_token_type: bool,
}

/// `client.auth:` how we prove who we are to the token endpoint (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic; id and secret form-urlencoded first.
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
    /// Public client: only `client_id` in the form.
    None,
}
