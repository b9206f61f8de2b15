//! How is an authorization code turned into tokens? Forms as bytes, for people who sign in to the gateway itself.

use super::ClientAuth;
use super::exchange::{Form, basic};
use crate::secret::Secret;

/// How the gateway proves itself to the issuer.
#[derive(Clone, Copy, Debug)]
pub struct CodeClient<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its secret; none for a public client.
    pub secret: Option<&'a Secret<String>>,
    /// How.
    pub auth: ClientAuth,
}

/// What to send to the token endpoint.
#[derive(Debug)]
pub struct CodeRequest {
    /// The value of `Authorization`, with [`ClientAuth::ClientSecretBasic`].
    pub authorization: Option<Secret<String>>,
    /// The form.
    pub body: Secret<String>,
}

/// Writes the request for the tokens of `code` (RFC 6749 §4.1.3), with the proof that whoever began the flow ends it:
/// `code_verifier` (RFC 7636 §4.5).
#[must_use]
pub fn request(client: CodeClient<'_>, code: &str, code_verifier: &str, redirect_uri: &str) -> CodeRequest {
    let secret = client.secret.map_or("", |secret| secret.expose().as_str());
    let mut form = Form::with_capacity(FORM_BYTES_USUAL + 3 * (code.len() + secret.len()));
    form.add("grant_type", "authorization_code");
    let authorization = match client.auth {
        ClientAuth::ClientSecretBasic => Some(basic(client.id, secret)),
        ClientAuth::ClientSecretPost => {
            form.add("client_id", client.id);
            form.add("client_secret", secret);
            None
        }
        ClientAuth::None => {
            form.add("client_id", client.id);
            None
        }
    };
    form.add("code", code);
    form.add("code_verifier", code_verifier);
    form.add("redirect_uri", redirect_uri);
    CodeRequest { authorization, body: form.finish() }
}

/// Room for everything in a form but the code and the secret.
const FORM_BYTES_USUAL: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidential_client_proves_itself_in_the_header_and_not_in_the_form() {
        let secret = Secret::new("s:1".to_owned());
        let client = CodeClient { id: "gw", secret: Some(&secret), auth: ClientAuth::ClientSecretBasic };
        let request = request(client, "c/1", "v", "http://127.0.0.1:9091/signin/callback");
        assert_eq!(request.authorization.map(|value| value.expose().clone()).as_deref(), Some("Basic Z3c6cyUzQTE="));
        assert_eq!(
            request.body.expose(),
            "grant_type=authorization_code&code=c%2F1&code_verifier=v\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A9091%2Fsignin%2Fcallback"
        );
    }

    #[test]
    fn a_public_client_names_itself_in_the_form() {
        let client = CodeClient { id: "gw", secret: None, auth: ClientAuth::None };
        let request = request(client, "c", "v", "u");
        assert!(request.authorization.is_none());
        assert!(request.body.expose().contains("client_id=gw"));
    }
}
