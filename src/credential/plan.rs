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
    /// Whether the agent's own token goes with the caller's, where there is one. Default: it does not.
    pub actor_token: Option<ActorToken>,
    /// The longest one exchange may take. Default: 5 s.
    pub timeout: std::time::Duration,
    /// Whether an answer without `token_type` counts as Bearer. Default: false.
    pub accept_missing_token_type: bool,
}

/// `actor_token: { from: agent }`: the token exchanged for carries the agent too (RFC 8693 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorToken {
    /// `actor_token_type`. Default: `urn:ietf:params:oauth:token-type:jwt`.
    pub token_type: String,
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

/// Tells two plans of token exchange apart: equal fingerprints mean that a token obtained under one plan may serve the
/// other. Every field counts, the client secret too, so a corrected secret is tried at once. `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanFingerprint([u8; 32]);

impl ExchangePlan {
    /// SHA-256 over all fields, each with its length, so that no two lists run together. Computed once per
    /// configuration, not per request.
    #[must_use]
    pub fn fingerprint(&self) -> PlanFingerprint {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut field = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        field(self.token_endpoint.as_bytes());
        field(self.client_id.as_bytes());
        field(self.client_secret.as_ref().map_or(&[], |secret| secret.expose().as_bytes()));
        field(self.client_auth.label().as_bytes());
        for list in [&self.audience, &self.resource, &self.scope] {
            field(&(list.len() as u64).to_be_bytes());
            for entry in list {
                field(entry.as_bytes());
            }
        }
        field(self.subject_token_type.as_bytes());
        field(&[u8::from(self.requested_token_type.is_some())]);
        field(self.requested_token_type.as_deref().unwrap_or_default().as_bytes());
        field(&[u8::from(self.actor_token.is_some())]);
        field(self.actor_token.as_ref().map_or(&[], |actor| actor.token_type.as_bytes()));
        field(&self.timeout.as_nanos().to_be_bytes());
        field(&[u8::from(self.accept_missing_token_type)]);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        PlanFingerprint(fingerprint)
    }
}

impl std::fmt::Debug for PlanFingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It depends on a secret, and a secret of few bits could be found from it.
        f.write_str("PlanFingerprint(…)")
    }
}

impl ClientAuth {
    /// The word of the configuration file and of OAuth metadata (RFC 8414 §2).
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A cache key without one of these would serve a token to the wrong place after a reload.
    #[test]
    fn every_field_changes_the_fingerprint() {
        type Edit = fn(&mut ExchangePlan);
        let edits: &[Edit] = &[
            |plan| plan.token_endpoint.push('x'),
            |plan| plan.client_id.push('x'),
            |plan| plan.client_secret = Some(Secret::new("other".to_owned())),
            |plan| plan.client_auth = ClientAuth::ClientSecretPost,
            |plan| plan.audience.push("a".to_owned()),
            |plan| plan.resource.push("a".to_owned()),
            |plan| plan.scope.push("a".to_owned()),
            |plan| plan.subject_token_type.push('x'),
            |plan| plan.requested_token_type = Some(String::new()),
            |plan| plan.actor_token = Some(ActorToken { token_type: String::new() }),
            |plan| plan.timeout = Duration::from_secs(6),
            |plan| plan.accept_missing_token_type = true,
        ];
        let original = plan();
        for (index, edit) in edits.iter().enumerate() {
            let mut edited = plan();
            edit(&mut edited);
            assert!(edited.fingerprint() != original.fingerprint(), "edit {index} left no trace");
        }
        assert!(plan().fingerprint() == original.fingerprint());
    }

    #[test]
    fn lists_do_not_run_together() {
        let (mut one, mut other) = (plan(), plan());
        one.audience = vec!["a".to_owned(), "b".to_owned()];
        other.audience = vec!["a".to_owned()];
        other.resource = vec!["b".to_owned()];
        assert!(one.fingerprint() != other.fingerprint());
        other = plan();
        other.audience = vec!["ab".to_owned()];
        assert!(one.fingerprint() != other.fingerprint());
    }

    fn plan() -> ExchangePlan {
        ExchangePlan {
            token_endpoint: "https://sts.test/token".to_owned(),
            client_id: "portcullis".to_owned(),
            client_secret: Some(Secret::new("secret".to_owned())),
            client_auth: ClientAuth::ClientSecretBasic,
            audience: vec![],
            resource: vec![],
            scope: vec![],
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
            requested_token_type: None,
            actor_token: None,
            timeout: Duration::from_secs(5),
            accept_missing_token_type: false,
        }
    }
}
