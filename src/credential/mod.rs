//! WITH WHOSE authority? What the upstream sees in `Authorization`: credential plans, and the RFC 8693 form and answer
//! as bytes.
//!
//! INVARIANT: a client's token never goes upstream. A [`Credential`] is made from an [`ExchangedToken`], which only the
//! answer of a token endpoint can make (and never one that repeats the caller's token), or from an operator's secret.
//! There is no third way.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::secret::Secret;

pub mod code;
pub mod exchange;
pub mod plan;

pub use exchange::{ExchangeError, ExchangeRequest, ExchangedToken, Subject};
pub use plan::{ActorToken, ClientAuth, ExchangePlan, Plan, PlanFingerprint};

/// One header that the upstream sees, and what the audit record says of it.
///
/// Cloning is cheap: everything is shared. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Credential {
    header: HeaderName,
    /// INVARIANT: marked sensitive, so neither `Debug` nor HPACK's dynamic table ever holds it.
    value: HeaderValue,
    mode: Mode,
    audience: Arc<[Box<str>]>,
    scope: Arc<str>,
    cached: bool,
}

/// Where a credential came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The operator's secret, the same for everybody.
    Static,
    /// A token obtained for this very caller (RFC 8693).
    TokenExchange,
}

/// Whether a token was at hand or had to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It came from the cache.
    Cached,
    /// It was obtained for this request, or for one that waited with it.
    Fresh,
}

/// The secret cannot stand in a header (RFC 9110 §5.5): it holds a control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret cannot be sent in a header: it holds a control character")]
pub struct NotAHeaderValue;

impl Credential {
    /// Presents an exchanged token as `Authorization: Bearer …` (RFC 6750 §2.1).
    #[must_use]
    pub fn from_exchanged(token: &ExchangedToken, origin: Origin) -> Self {
        Self {
            header: AUTHORIZATION,
            value: token.header().clone(),
            mode: Mode::TokenExchange,
            audience: Arc::clone(token.audience()),
            scope: Arc::clone(token.scope()),
            cached: origin == Origin::Cached,
        }
    }

    /// Presents the operator's secret of [`Plan::Static`] as the whole value of `header`. Made once per configuration
    /// and cloned per request.
    ///
    /// # Errors
    /// [`NotAHeaderValue`] when the secret holds a control character.
    pub fn from_static(header: HeaderName, secret: &Secret<String>) -> Result<Self, NotAHeaderValue> {
        Ok(Self {
            header,
            value: wiped_header_value(Zeroizing::new(secret.expose().clone().into_bytes()))?,
            mode: Mode::Static,
            audience: Arc::from([]),
            scope: Arc::from(""),
            cached: false,
        })
    }

    /// The header it travels in.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The whole header value. Marked sensitive; to be put into the upstream request and nowhere else.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// Where it came from.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The audiences (else the resources) that were asked for; empty for a static secret.
    #[must_use]
    pub fn audience(&self) -> &Arc<[Box<str>]> {
        &self.audience
    }

    /// The granted scope, separated by spaces; empty when unknown.
    #[must_use]
    pub fn scope(&self) -> &Arc<str> {
        &self.scope
    }

    /// Whether it came from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.cached
    }
}

impl Mode {
    /// Word for metrics and audit; the same as the configuration key.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::TokenExchange => "token_exchange",
        }
    }
}

/// Makes a sensitive header value whose memory is overwritten when the last clone of it goes.
fn wiped_header_value(value: Zeroizing<Vec<u8>>) -> Result<HeaderValue, NotAHeaderValue> {
    // `Bytes::from_owner` keeps the owner alive behind every clone and drops it with the last, which wipes it.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).map_err(|_| NotAHeaderValue)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_static_secret_is_sent_whole_and_never_printed() {
        let secret = Secret::new("ApiKey s3cr3t-value".to_owned());
        let credential = Credential::from_static(HeaderName::from_static("x-api-key"), &secret).unwrap();
        assert_eq!(credential.header(), "x-api-key");
        assert_eq!(credential.value().as_bytes(), b"ApiKey s3cr3t-value");
        assert!(credential.value().is_sensitive());
        assert_eq!(credential.mode().label(), "static");
        assert!(!credential.is_cached());
        assert!(!format!("{credential:?}").contains("s3cr3t"), "{credential:?}");
    }

    #[test]
    fn a_clone_stays_sensitive() {
        let secret = Secret::new("s3cr3t".to_owned());
        let credential = Credential::from_static(AUTHORIZATION, &secret).unwrap();
        assert!(credential.clone().value().is_sensitive());
    }

    #[test]
    fn a_secret_with_a_line_break_is_refused() {
        for bad in ["a\r\nX-Admin: 1", "a\nb", "a\0b", "a\x7fb"] {
            let secret = Secret::new(bad.to_owned());
            assert_eq!(Credential::from_static(AUTHORIZATION, &secret).err(), Some(NotAHeaderValue), "{bad:?}");
        }
    }
}
