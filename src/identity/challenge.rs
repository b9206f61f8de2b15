//! How is a caller told what is missing? `WWW-Authenticate` values (RFC 6750 §3, RFC 9728 §5.1).

use http::HeaderValue;

use crate::identity::AuthnError;
use crate::identity::BearerError;
use crate::identity::Scopes;

/// The challenges of one route.
///
/// Values hold the route's own texts and fixed words only, never anything from a request.
#[derive(Clone, Debug)]
pub struct Challenges {
    /// The parameter as it stands in the header: quoted.
    resource_metadata: String,
    /// The scopes a caller needs at least; empty: not said.
    scopes: Scopes,
    missing: HeaderValue,
}

impl Challenges {
    /// Prepares the challenges of a route.
    ///
    /// `resource_metadata` is the URL of its metadata document ([`crate::identity::metadata::ResourceMetadata::url`]), `scopes`
    /// what a caller should ask for at first (MCP authorization, "Scope Selection Strategy"); `offline_access` is left out
    /// of it, because whether to ask for a refresh token is the client's business ("Refresh Tokens").
    ///
    /// # Errors
    /// [`UnsafeText`] when a text cannot stand in the header as it is.
    pub fn new(resource_metadata: &str, scopes: &Scopes) -> Result<Self, UnsafeText> {
        let resource_metadata = quoted(resource_metadata)?;
        let scopes = Scopes::new(scopes.iter().filter(|scope| *scope != "offline_access"));
        let mut missing = format!("Bearer resource_metadata={resource_metadata}");
        push_scope(&mut missing, &scopes)?;
        Ok(Self { missing: header_value(&missing)?, resource_metadata, scopes })
    }

    /// 401 for a request without a token. It names no error, as RFC 6750 §3.1 asks.
    #[must_use]
    pub fn missing_token(&self) -> HeaderValue {
        self.missing.clone()
    }

    /// 401 for a token that is not believed, with the fixed text of `reason`.
    #[must_use]
    pub fn invalid_token(&self, reason: AuthnError) -> HeaderValue {
        self.with_error("invalid_token", &reason.to_string())
    }

    /// The challenge for a head that holds no usable token: 400 `invalid_request` for [`BearerError::Repeated`], else 401.
    #[must_use]
    pub fn unusable_head(&self, reason: BearerError) -> HeaderValue {
        match reason {
            BearerError::Malformed | BearerError::TooLong => self.with_error("invalid_token", &reason.to_string()),
            BearerError::Missing => self.missing_token(),
            BearerError::Repeated => self.with_error("invalid_request", &reason.to_string()),
        }
    }

    /// 403 for a caller who needs more scopes. `scopes` must be all that the operation needs: clients ask for exactly the
    /// scopes of the challenge and lose the others (MCP authorization, "Runtime Insufficient Scope Errors").
    ///
    /// # Errors
    /// [`UnsafeText`] when a scope has characters that no scope has (RFC 6749 §3.3).
    pub fn insufficient_scope(&self, scopes: &Scopes) -> Result<HeaderValue, UnsafeText> {
        let mut value = String::from("Bearer error=\"insufficient_scope\"");
        push_scope(&mut value, scopes)?;
        value.push_str(", resource_metadata=");
        value.push_str(&self.resource_metadata);
        value.push_str(", error_description=\"more scopes are needed\"");
        header_value(&value)
    }

    fn with_error(&self, error: &str, description: &str) -> HeaderValue {
        let value = format!(
            "Bearer error=\"{error}\", error_description=\"{description}\", resource_metadata={}",
            self.resource_metadata
        );
        let mut whole = value;
        // What `new` accepted cannot fail here, and a challenge without details is a challenge still.
        let _ = push_scope(&mut whole, &self.scopes);
        header_value(&whole).unwrap_or_else(|_| self.missing.clone())
    }
}

/// A text that cannot stand in a header value: it has control characters, or a scope has a space, a quote or a backslash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a text of the challenge cannot stand in a header")]
pub struct UnsafeText;

/// Appends `, scope="…"` unless there are none.
fn push_scope(value: &mut String, scopes: &Scopes) -> Result<(), UnsafeText> {
    if scopes.is_empty() {
        return Ok(());
    }
    value.push_str(", scope=\"");
    for (index, scope) in scopes.iter().enumerate() {
        // RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ), so nothing in it needs an escape.
        if !scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            return Err(UnsafeText);
        }
        if index > 0 {
            value.push(' ');
        }
        value.push_str(scope);
    }
    value.push('"');
    Ok(())
}

/// RFC 9110 §5.6.4: a quoted-string, of visible ASCII and spaces.
fn quoted(text: &str) -> Result<String, UnsafeText> {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            ' '..='~' => quoted.push(character),
            _ => return Err(UnsafeText),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

fn header_value(text: &str) -> Result<HeaderValue, UnsafeText> {
    HeaderValue::from_str(text).map_err(|_| UnsafeText)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
mod tests {
    use super::*;

    const METADATA: &str = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp";

    #[test]
    fn a_caller_without_a_token_is_told_where_to_get_one_and_no_error() {
        assert_eq!(
            challenges().missing_token(),
            "Bearer resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\", \
             scope=\"tickets:read tickets:write\""
        );
        let without_scopes = Challenges::new(METADATA, &Scopes::default()).unwrap();
        assert_eq!(
            without_scopes.missing_token(),
            "Bearer resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\""
        );
    }

    #[test]
    fn a_refused_token_is_told_a_fixed_text() {
        assert_eq!(
            challenges().invalid_token(AuthnError::WrongAudience),
            "Bearer error=\"invalid_token\", error_description=\"the token is for another server\", \
             resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\", \
             scope=\"tickets:read tickets:write\""
        );
    }

    #[test]
    fn missing_scopes_are_named_all_at_once() {
        assert_eq!(
            challenges().insufficient_scope(&Scopes::new(["tickets:write", "tickets:read"])).unwrap(),
            "Bearer error=\"insufficient_scope\", scope=\"tickets:read tickets:write\", \
             resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\", \
             error_description=\"more scopes are needed\""
        );
    }

    #[test]
    fn two_authorization_headers_are_an_invalid_request() {
        let value = challenges().unusable_head(BearerError::Repeated);
        assert!(value.to_str().unwrap().starts_with("Bearer error=\"invalid_request\", "), "{value:?}");
        assert_eq!(challenges().unusable_head(BearerError::Missing), challenges().missing_token());
    }

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        let challenges = Challenges::new("https://h/\"\\", &Scopes::default()).unwrap();
        assert_eq!(challenges.missing_token(), "Bearer resource_metadata=\"https://h/\\\"\\\\\"");
    }

    #[test]
    fn texts_that_are_not_header_safe_are_refused() {
        for url in ["https://h/\r\nSet-Cookie: a=b", "https://h/\u{e9}", "https://h/\0"] {
            assert_eq!(Challenges::new(url, &Scopes::default()).unwrap_err(), UnsafeText, "{url:?}");
        }
        for scope in ["a b", "a\"", "a\\", "a\r\nb", "\u{e9}"] {
            assert_eq!(Challenges::new(METADATA, &Scopes::new([scope])).unwrap_err(), UnsafeText, "{scope:?}");
            assert_eq!(challenges().insufficient_scope(&Scopes::new([scope])).unwrap_err(), UnsafeText, "{scope:?}");
        }
    }

    #[test]
    fn a_refresh_token_is_never_suggested() {
        let challenges = Challenges::new("https://h/x", &Scopes::new(["offline_access", "a"])).unwrap();
        assert_eq!(challenges.missing_token(), "Bearer resource_metadata=\"https://h/x\", scope=\"a\"");
    }

    /// RFC 6750 §3: `error_description` has no quote and no backslash, so it needs no escape.
    #[test]
    fn every_reason_can_stand_in_the_header_as_it_is() {
        for reason in [
            AuthnError::BadSignature,
            AuthnError::DuplicateClaim,
            AuthnError::Expired,
            AuthnError::InvalidClaim,
            AuthnError::KeyInHeader,
            AuthnError::Malformed,
            AuthnError::MissingClaim,
            AuthnError::NotExchangeable,
            AuthnError::NotYetValid,
            AuthnError::SenderConstrained,
            AuthnError::UnknownKey,
            AuthnError::UnsupportedAlgorithm,
            AuthnError::UnsupportedCritical,
            AuthnError::WrongAudience,
            AuthnError::WrongIssuer,
            AuthnError::WrongType,
        ] {
            let text = reason.to_string();
            assert!(text.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{text}");
            let value = challenges().invalid_token(reason);
            assert!(value.to_str().unwrap().contains(&format!("error_description=\"{text}\"")), "{value:?}");
        }
    }

    fn challenges() -> Challenges {
        Challenges::new(METADATA, &Scopes::new(["tickets:write", "tickets:read"])).unwrap()
    }
}
