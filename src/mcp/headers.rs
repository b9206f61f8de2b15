//! What do the `Mcp-*` headers say? Reading one value that can be read in only one way.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::HeaderName;

use super::error::HeaderFault;
use super::error::HeaderProblem;
use super::error::McpHeader;

/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// `Mcp-Method`: the body's `method` (2026-07-28).
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");

/// `Mcp-Name`: the body's `params.name`, `params.uri` or `params.taskId` (2026-07-28).
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What the names of `Mcp-Param-*` headers begin with (2026-07-28).
pub const PARAM_PREFIX: &str = "mcp-param-";

/// The value of a header that may be there once. White space around it does not count (RFC 9110 §5.5).
///
/// # Errors
/// [`HeaderProblem::Repeated`]; [`HeaderProblem::Malformed`] for other bytes than visible ASCII, space and tab.
pub(super) fn single<'h>(head: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, HeaderProblem> {
    let mut values = head.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderProblem::Repeated);
    }
    let text = value.to_str().map_err(|_| HeaderProblem::Malformed)?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

/// Takes a value out of its Base64 form, if it is in one (2026-07-28, Streamable HTTP, "Value Encoding").
///
/// # Errors
/// [`HeaderProblem::Malformed`] when the form holds no canonical Base64 of UTF-8.
pub(super) fn decode(value: &str) -> Result<Cow<'_, str>, HeaderProblem> {
    let Some(base64) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(base64).map_err(|_| HeaderProblem::Malformed)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| HeaderProblem::Malformed)
}

/// Holds a required header, decoded, against the body's value.
pub(super) fn require(head: &HeaderMap, header: McpHeader, name: &HeaderName, body: &str) -> Result<(), HeaderFault> {
    let fault = |problem| HeaderFault { header, problem };
    let value = single(head, name).map_err(fault)?.ok_or(fault(HeaderProblem::Missing))?;
    let value = match header {
        McpHeader::Name | McpHeader::Param => decode(value).map_err(fault)?,
        // A method and a version have no Base64 form.
        McpHeader::Method | McpHeader::ProtocolVersion => Cow::Borrowed(value),
    };
    if value == body { Ok(()) } else { Err(fault(HeaderProblem::Unlike)) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The examples of 2026-07-28, Streamable HTTP, "Value Encoding".
    #[test]
    fn decodes_the_examples_of_the_specification() {
        for (header, value) in [
            ("us-west1", "us-west1"),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            ("=?base64?IHBhZGRlZCA=?=", " padded "),
            ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
            ("=?base64??=", ""),
            ("=?BASE64?YQ==?=", "=?BASE64?YQ==?="),
            ("=?base64?YQ==", "=?base64?YQ=="),
            ("=?base64?=", "=?base64?="),
        ] {
            assert_eq!(decode(header).as_deref(), Ok(value), "{header}");
        }
    }

    #[test]
    fn refuses_base64_that_has_several_readings() {
        for header in ["=?base64?YQ?=", "=?base64?YR==?=", "=?base64?Y Q==?=", "=?base64?_w==?=", "=?base64?/w==?="] {
            assert_eq!(decode(header), Err(HeaderProblem::Malformed), "{header}");
        }
    }

    #[test]
    fn reads_a_header_that_is_there_once() {
        let mut head = HeaderMap::new();
        assert_eq!(single(&head, &NAME), Ok(None));

        head.append(NAME, HeaderValue::from_static(" \ta b "));
        assert_eq!(single(&head, &NAME), Ok(Some("a b")));

        head.append(NAME, HeaderValue::from_static("a b"));
        assert_eq!(single(&head, &NAME), Err(HeaderProblem::Repeated));

        head.insert(NAME, HeaderValue::from_bytes("世".as_bytes()).unwrap());
        assert_eq!(single(&head, &NAME), Err(HeaderProblem::Malformed));
    }
}
