//! Resource tokens of MCP servers.

use super::*;

fn rules() -> ServerRules {
    ServerRules {
        name: "mail".into(),
        audience: "https://mcp.test".into(),
        versions: vec!["2.1".into()],
        trust_levels: vec!["internal".into(), "certified".into()],
        capabilities: vec!["mail:send".into()],
    }
}

fn verify(more: Value) -> Result<ServerIdentity, ServerIdentityError> {
    let key = TestKey::new("tools", Algorithm::ES256);
    let mut claims = json!({
        "iss": CORP, "sub": "mail", "aud": "https://mcp.test", "exp": NOW.0 + 600, "name": "Mail", "version": "2.1",
        "trust_level": "certified", "capabilities": ["mail:send", "mail:read"],
    });
    merge(&mut claims, &more);
    let token = key.sign_with(&json!({ "alg": "ES256", "kid": "tools", "typ": "resource+jwt" }), &claims);
    let (policy, keys) = (policy(CORP), keys(&key));
    server::verify(token.as_str(), Trusted { policy: &policy, keys: &keys }, &rules(), NOW)
}

#[test]
fn a_server_that_is_what_it_should_be_is_data_for_rules() {
    let identity = verify(json!({})).unwrap();
    let expected = json!({
        "issuer": CORP, "subject": "mail", "name": "Mail", "version": "2.1", "trust_level": "certified",
        "capabilities": ["mail:read", "mail:send"],
    });
    assert_eq!(Value::Object(identity.fields().clone()), expected);
    assert_eq!(identity.expires_at(), UnixSeconds(NOW.0 + 630));
    assert!(verify(json!({ "sub": "urn:x", "name": "mail" })).is_ok());
}

#[test]
fn a_server_that_is_not_what_it_should_be_is_refused() {
    use ServerIdentityError as E;
    for (claims, error) in [
        (json!({ "sub": "files" }), E::WrongName),
        (json!({ "version": "2.0" }), E::WrongVersion),
        (json!({ "version": null }), E::WrongVersion),
        (json!({ "trust_level": "experimental" }), E::WrongTrustLevel),
        (json!({ "capabilities": ["mail:read"] }), E::LacksCapability),
        (json!({ "capabilities": "mail:send" }), E::Token(AuthnError::InvalidClaim)),
        (json!({ "exp": NOW.0 - 31 }), E::Token(AuthnError::Expired)),
        (json!({ "exp": null }), E::Token(AuthnError::MissingClaim)),
        (json!({ "aud": "https://other.test" }), E::Token(AuthnError::WrongAudience)),
        (json!({ "iss": STRANGER }), E::Token(AuthnError::WrongIssuer)),
    ] {
        assert_eq!(verify(claims.clone()).unwrap_err(), error, "{claims}");
    }
}
