//! Where does a caller get a token for this route? OAuth protected resource metadata (RFC 9728).

use bytes::Bytes;
use serde::Serialize;

/// The metadata document of one route, made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceMetadata {
    path: String,
    url: String,
    body: Bytes,
}

impl ResourceMetadata {
    /// Makes the document of the route whose resource identifier is `resource`, e.g. `https://mcp.example.com/mcp`.
    ///
    /// `resource` stands in the document exactly as given, because clients compare it (RFC 9728 §3.3). `authorization_servers`
    /// are the issuers the route accepts. `offline_access` is left out of `scopes_supported` (MCP authorization, "Refresh
    /// Tokens").
    ///
    /// # Errors
    /// [`NotAResource`] when `resource` is not an http(s) URL with a host and without query or fragment.
    pub fn new<'a>(
        resource: &'a str,
        authorization_servers: impl IntoIterator<Item = &'a str>,
        scopes_supported: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, NotAResource> {
        #[derive(Serialize)]
        struct Document<'a> {
            resource: &'a str,
            authorization_servers: Vec<&'a str>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            scopes_supported: Vec<&'a str>,
            bearer_methods_supported: [&'static str; 1],
        }

        let (origin, route) = split(resource).ok_or(NotAResource)?;
        let document = Document {
            resource,
            authorization_servers: authorization_servers.into_iter().collect(),
            scopes_supported: scopes_supported.into_iter().filter(|scope| *scope != "offline_access").collect(),
            bearer_methods_supported: ["header"],
        };
        let body = serde_json::to_vec(&document).map_err(|_| NotAResource)?;
        let path = format!("{WELL_KNOWN}{route}");
        Ok(Self { url: format!("{origin}{path}"), path, body: body.into() })
    }

    /// The path at which it is served: the well-known name before the resource's own path (RFC 9728 §3.1).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole URL, for `resource_metadata` in a challenge.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The document, `application/json`.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A resource identifier that cannot have a metadata document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https URL with a host and without query or fragment")]
pub struct NotAResource;

/// The well-known path of RFC 9728 §3, before the path of the resource.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Origin and path. A path of `/` alone is none (RFC 9728 §3.1: "any terminating slash following the host").
fn split(resource: &str) -> Option<(&str, &str)> {
    let scheme = ["https://", "http://"]
        .into_iter()
        .find(|scheme| resource.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    let rest = resource.get(scheme.len()..)?;
    let host_bytes = rest.find('/').unwrap_or(rest.len());
    let (origin, path) = resource.split_at_checked(scheme.len() + host_bytes)?;
    if host_bytes == 0 || resource.contains(['?', '#']) {
        return None;
    }
    Some((origin, if path == "/" { "" } else { path }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_who_issues_tokens_for_the_route() {
        let metadata = ResourceMetadata::new(
            "https://mcp.example.com/mcp",
            ["https://idp.example.com"],
            ["tickets:read", "offline_access"],
        )
        .unwrap();
        assert_eq!(
            metadata.body(),
            &br#"{"resource":"https://mcp.example.com/mcp","authorization_servers":["https://idp.example.com"],"scopes_supported":["tickets:read"],"bearer_methods_supported":["header"]}"#[..]
        );
    }

    #[test]
    fn the_well_known_name_stands_between_host_and_path() {
        let cases = [
            ("https://h/mcp", "/.well-known/oauth-protected-resource/mcp", "https://h"),
            ("https://h:8443/a/b", "/.well-known/oauth-protected-resource/a/b", "https://h:8443"),
            ("http://127.0.0.1:8080/mcp", "/.well-known/oauth-protected-resource/mcp", "http://127.0.0.1:8080"),
            ("https://h/", "/.well-known/oauth-protected-resource", "https://h"),
            ("https://h", "/.well-known/oauth-protected-resource", "https://h"),
            ("HTTPS://H/mcp/", "/.well-known/oauth-protected-resource/mcp/", "HTTPS://H"),
        ];
        for (resource, path, origin) in cases {
            let metadata = ResourceMetadata::new(resource, [], []).unwrap();
            assert_eq!((metadata.path(), metadata.url()), (path, format!("{origin}{path}").as_str()), "{resource}");
        }
    }

    #[test]
    fn what_is_no_resource_identifier_has_no_document() {
        for resource in
            ["", "mcp", "/mcp", "ftp://h/mcp", "https://", "https:///mcp", "https://h/mcp?a=b", "https://h/mcp#a"]
        {
            assert_eq!(ResourceMetadata::new(resource, [], []).unwrap_err(), NotAResource, "{resource}");
        }
    }
}
