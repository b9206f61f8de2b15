//! What does the issuer say? Its endpoints, its keys, and the tokens for a code.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use crate::config::{IssuerConfig, SignIn};
use crate::credential::code::{self, CodeClient};
use crate::identity::jwt::peek;
use crate::identity::{AuthnError, Caller, IssuerPolicy, TokenTypes, UnverifiedToken, bearer};
use crate::net::jwks::metadata_urls;
use crate::net::{Keyring, Outbound};
use crate::time::UnixSeconds;

use super::super::problem::Problem;

/// The issuer that people sign in at.
pub(in super::super) struct Provider {
    outbound: Outbound,
    known: Mutex<Option<Known>>,
    /// Calls of the issuer that somebody who has not signed in can cause.
    calls: Semaphore,
}

struct Known {
    issuer: Arc<IssuerConfig>,
    endpoints: Arc<Endpoints>,
    keys: Arc<Keyring>,
    asked_at: Instant,
}

/// What its metadata names (OpenID Connect Discovery §3, RP-Initiated Logout §2.1, RFC 9207 §3).
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    pub(super) authorization: Url,
    token: Url,
    pub(super) end_session: Option<Url>,
    /// Whether every answer names the issuer.
    pub(super) names_itself: bool,
}

impl Provider {
    pub(in super::super) fn new(outbound: Outbound) -> Self {
        Self { outbound, known: Mutex::default(), calls: Semaphore::new(CALLS_MAX) }
    }

    /// Where to go. Asked for once in a while; what was known stays while the issuer is away.
    pub(super) async fn endpoints(&self, sign_in: &SignIn) -> Result<Arc<Endpoints>, Problem> {
        self.known(sign_in, None).await.map(|(endpoints, _keys)| endpoints)
    }

    async fn known(
        &self,
        sign_in: &SignIn,
        keys_at: Option<UnixSeconds>,
    ) -> Result<(Arc<Endpoints>, Arc<Keyring>), Problem> {
        let mut known = self.known.lock().await;
        let fits = known.as_ref().filter(|known| known.issuer == sign_in.issuer);
        let is_fresh = fits.is_some_and(|known| known.asked_at.elapsed() < sign_in.issuer.jwks_refresh);
        if !is_fresh {
            let kept = fits.map(|known| Arc::clone(&known.keys));
            let had = fits.is_some();
            match self.discover(sign_in).await {
                Ok(endpoints) => {
                    let keys = kept
                        .unwrap_or_else(|| Arc::new(Keyring::new(Arc::clone(&sign_in.issuer), self.outbound.clone())));
                    *known = Some(Known {
                        issuer: Arc::clone(&sign_in.issuer),
                        endpoints: Arc::new(endpoints),
                        keys,
                        asked_at: Instant::now(),
                    });
                }
                Err(problem) if had => warn!(?problem, "The issuer of sign-ins cannot be asked; what was known stays."),
                Err(problem) => return Err(problem),
            }
        }
        let Some(Known { endpoints, keys, .. }) = known.as_ref() else { return Err(unavailable()) };
        if let Some(now) = keys_at {
            let refresh = sign_in.issuer.jwks_refresh;
            if keys.current().is_empty() || keys.fetched_at().is_none_or(|at| at.plus(refresh) <= now) {
                keys.refresh(now).await;
            }
        }
        Ok((Arc::clone(endpoints), Arc::clone(keys)))
    }

    async fn discover(&self, sign_in: &SignIn) -> Result<Endpoints, Problem> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            authorization_endpoint: String,
            token_endpoint: String,
            end_session_endpoint: Option<String>,
            #[serde(default)]
            authorization_response_iss_parameter_supported: bool,
        }

        let _call = self.calls.acquire().await.map_err(|_closed| unavailable())?;
        let issuer = self.outbound.checked_url(&sign_in.issuer.issuer).map_err(|_error| unavailable())?;
        for url in metadata_urls(issuer).map_err(|_error| unavailable())? {
            let asked = self.outbound.get(url.as_str(), METADATA_BYTES_MAX);
            let Ok(answer) = tokio::time::timeout(sign_in.timeout, asked).await else { return Err(unavailable()) };
            let Ok(body) = answer.and_then(crate::net::Answer::ok) else { continue };
            let Ok(metadata) = serde_json::from_slice::<Metadata>(&body) else { continue };
            // OpenID Connect Discovery §4.3: exactly, or one tenant of a host could speak for another.
            if metadata.issuer != *sign_in.issuer.issuer {
                warn!(issuer = %sign_in.issuer.issuer, "The metadata of the issuer of sign-ins names another issuer.");
                return Err(unavailable());
            }
            let endpoint = |text: &str| self.outbound.checked_url(text).map_err(|_error| unavailable());
            return Ok(Endpoints {
                authorization: endpoint(&metadata.authorization_endpoint)?,
                token: endpoint(&metadata.token_endpoint)?,
                end_session: metadata.end_session_endpoint.as_deref().map(endpoint).transpose()?,
                names_itself: metadata.authorization_response_iss_parameter_supported,
            });
        }
        Err(unavailable())
    }

    /// Turns a code into the claims of whoever has signed in.
    pub(super) async fn redeem(
        &self,
        sign_in: &SignIn,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
        now: UnixSeconds,
    ) -> Result<Caller, Problem> {
        #[derive(Deserialize)]
        struct Tokens {
            id_token: String,
        }

        let (endpoints, keys) = self.known(sign_in, Some(now)).await?;
        let client =
            CodeClient { id: &sign_in.client_id, secret: sign_in.client_secret.as_ref(), auth: sign_in.client_auth };
        let request = code::request(client, code, verifier, redirect_uri);
        let mut headers = HeaderMap::new();
        if let Some(authorization) = &request.authorization {
            let mut value = HeaderValue::from_str(authorization.expose()).map_err(|_checked| unavailable())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let call = self.calls.try_acquire().map_err(|_taken| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy"))?;
        let form = request.body.expose().clone();
        let url = endpoints.token.as_str();
        let answer = self.outbound.post_form(url, headers, form, TOKENS_BYTES_MAX, sign_in.timeout).await;
        drop(call);
        let answer = answer.map_err(|error| {
            warn!(error = error.label(), "The issuer of sign-ins did not answer for a code.");
            unavailable()
        })?;
        // RFC 6749 §5.2: 400 for a code that is used, expired or somebody else's, 401 for a client it does not know.
        let body = answer.ok().map_err(|error| {
            warn!(error = error.label(), %error, "The issuer of sign-ins gave no tokens for a code.");
            refused()
        })?;
        let tokens: Tokens = serde_json::from_slice(&body).map_err(|_error| refused())?;
        let token = bearer::token_of_answer(&tokens.id_token).map_err(|_error| refused())?;
        // OpenID Connect Core §3.1.3.7.
        let policy = IssuerPolicy {
            audiences: vec![sign_in.client_id.as_str().into()],
            token_types: TokenTypes::WithIdTokens,
            ..sign_in.issuer.policy()
        };
        let caller = believe(&keys, &token, &policy, now).await.map_err(|error| {
            warn!(error = error.label(), "The ID token of a sign-in is not believed.");
            refused()
        })?;
        let claims = caller.claims();
        let is_for_several = claims.get("aud").and_then(|aud| aud.as_array()).is_some_and(|aud| aud.len() > 1);
        let authorized = claims.get("azp").and_then(|azp| azp.as_str());
        if authorized.map_or(is_for_several, |azp| azp != sign_in.client_id) {
            return Err(refused());
        }
        Ok(caller)
    }

    /// Believes an access token for the API: of the same issuer, for `audience`.
    pub(in super::super) async fn believe_access_token(
        &self,
        sign_in: &SignIn,
        audience: &str,
        token: &UnverifiedToken,
        now: UnixSeconds,
    ) -> Result<Caller, Problem> {
        let (_endpoints, keys) = self.known(sign_in, Some(now)).await?;
        let policy = IssuerPolicy { audiences: vec![audience.into()], ..sign_in.issuer.policy() };
        believe(&keys, token, &policy, now)
            .await
            .map_err(|error| Problem::new(StatusCode::UNAUTHORIZED, "invalid_token").detail(error.to_string()))
    }
}

async fn believe(
    keys: &Arc<Keyring>,
    token: &UnverifiedToken,
    policy: &IssuerPolicy,
    now: UnixSeconds,
) -> Result<Caller, AuthnError> {
    let unverified = peek(token)?;
    let mut current = keys.current();
    if unverified.lacks_key(policy, &current) {
        keys.refetch_for_unknown_key(now).await;
        current = keys.current();
    }
    // The audiences are never empty, so the resource is not looked at.
    unverified.verify(policy, &current, "", now)
}

fn unavailable() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "issuer_unavailable")
}

fn refused() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "issuer_refused")
}

/// Calls of the issuer at once.
const CALLS_MAX: usize = 16;
const METADATA_BYTES_MAX: usize = 256 * 1024;
const TOKENS_BYTES_MAX: usize = 256 * 1024;
