//! What does the server get in place of this caller's token?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::credential::exchange::ANSWER_BYTES_MAX;
use crate::credential::{Credential, ExchangedToken, PlanFingerprint, Subject};
use crate::identity::bearer::TokenDigest;
use crate::identity::{AuthnError, Caller};
use crate::net::{NetError, Outbound};
use crate::registry::Route;
use crate::registry::server::Authority;
use crate::telemetry::metrics::{CacheName, Metrics};
use crate::time::UnixSeconds;

use super::Shell;
use super::exchange::{ExchangeKey, Exchanger, PostError, PostForm};
use super::meters::RouteMeters;
use super::pipeline::{Admitted, Who};
use super::rejection::Rejection;

/// A credential, and the exchanged token it was made of.
pub(super) struct Obtained {
    pub(super) credential: Credential,
    pub(super) exchanged: Option<Arc<ExchangedToken>>,
}

/// Obtains what the plan of the route's server says: nothing, the operator's secret, or a token exchanged for this very
/// caller and the agent that acts for them.
///
/// # Errors
/// [`Rejection::InvalidToken`] when the token endpoint does not accept the caller's token, else [`Rejection::Exchange`].
pub(super) async fn obtain(
    shell: &Shell,
    route: &Route,
    meters: &RouteMeters,
    Who { caller, token: subject_token, agent }: Who<'_>,
    now: UnixSeconds,
) -> Result<Option<Obtained>, Rejection> {
    match &route.server.authority {
        Authority::None => Ok(None),
        Authority::Fixed(credential) => Ok(Some(Obtained { credential: credential.clone(), exchanged: None })),
        Authority::Exchange { plan, fingerprint } => {
            let digest = subject_token.digest();
            let agent = agent.and_then(|agent| agent.token.as_ref());
            let agent_digest = agent.map(|agent| agent.token.digest());
            let key = key_of(route, caller, &digest, agent_digest.as_ref(), *fingerprint);
            let ends = agent.map_or(caller.expires_at(), |agent| agent.expires_at.min(caller.expires_at()));
            let actor = agent.map(|agent| agent.token.as_str());
            let subject = Subject { token: subject_token.as_str(), expires_at: ends, actor };
            let obtained =
                shell.exchanger.credential(key, plan, subject, &meters.server, now).await.map_err(|error| {
                    tracing::debug!(server = %route.server.name(), error = error.label(), "The token exchange failed.");
                    if error.is_caller_fault() {
                        let error = AuthnError::NotExchangeable;
                        Rejection::InvalidToken { error, challenge: route.challenges.invalid_token(error) }
                    } else {
                        Rejection::Exchange(error)
                    }
                })?;
            let credential = Credential::from_exchanged(&obtained.token, obtained.origin);
            Ok(Some(Obtained { credential, exchanged: Some(obtained.token) }))
        }
    }
}

/// Drops the exchanged token that the server has refused. Whether there was one: only then is asking again of use.
pub(super) fn refused_by_server(shell: &Shell, admitted: &Admitted) -> bool {
    let Authority::Exchange { fingerprint, .. } = &admitted.route.server.authority else { return false };
    let Some(Obtained { exchanged: Some(token), .. }) = &admitted.credential else { return false };
    let digest = admitted.subject_token.digest();
    let agent = admitted.agent.as_ref().and_then(|agent| Some(agent.token.as_ref()?.token.digest()));
    shell.exchanger.forget(key_of(&admitted.route, &admitted.caller, &digest, agent.as_ref(), *fingerprint), token);
    true
}

fn key_of<'a>(
    route: &'a Route,
    caller: &'a Caller,
    token_digest: &'a TokenDigest,
    agent: Option<&'a TokenDigest>,
    plan: PlanFingerprint,
) -> ExchangeKey<'a> {
    ExchangeKey {
        issuer: &caller.principal().issuer,
        subject: &caller.principal().subject,
        client_id: caller.client_id().map(|id| &**id),
        token_digest: token_digest.as_bytes(),
        agent: agent.map(TokenDigest::as_bytes),
        server: route.server.name(),
        plan,
    }
}

/// The exchanger over the network.
pub(super) fn exchanger(outbound: Outbound, entries_max: usize, metrics: &Metrics) -> Exchanger {
    let look_ups = metrics.cache(CacheName::Credential).clone();
    Exchanger::new(Arc::new(OverNetwork(outbound)), entries_max, look_ups)
}

struct OverNetwork(Outbound);

#[async_trait]
impl PostForm for OverNetwork {
    async fn post_form(
        &self,
        url: &str,
        authorization: Option<&str>,
        body: &str,
        timeout: Duration,
    ) -> Result<(u16, Bytes), PostError> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            let mut value = HeaderValue::from_str(authorization).map_err(|_not_a_header| PostError::Unreachable)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let answer = self.0.post_form(url, headers, body.to_owned(), ANSWER_BYTES_MAX, timeout).await;
        answer.map(|answer| (answer.status.as_u16(), answer.body)).map_err(|error| match error {
            NetError::Timeout => PostError::Timeout,
            NetError::TooLarge => PostError::TooLarge,
            NetError::BadStatus(_)
            | NetError::BadUrl
            | NetError::Connect
            | NetError::ForbiddenAddress
            | NetError::InsecureUrl
            | NetError::Protocol
            | NetError::Setup
            | NetError::Tls => PostError::Unreachable,
        })
    }
}
