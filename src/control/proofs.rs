//! When does a server prove anew what it is?

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use serde::Deserialize;
use tracing::{info, warn};

use crate::identity::AuthnError;
use crate::identity::agent::trust::Trusted;
use crate::identity::agent::{ServerIdentity, ServerIdentityError, server};
use crate::net::Outbound;
use crate::registry::{Proof, Server};
use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, UnixSeconds};

/// Fetches the resource token of every server that must prove what it is: on its refresh interval, sooner when the token
/// ends, and every few seconds while there is none.
pub struct ProofRefresh {
    /// Whose servers.
    pub live: Arc<Live>,
    /// What the tokens are fetched with.
    pub outbound: Outbound,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
}

#[async_trait]
impl BackgroundService for ProofRefresh {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut due: HashMap<Arc<str>, (std::sync::Weak<Proof>, UnixSeconds)> = HashMap::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = ticks.tick() => {}
            }
            let servers = self.live.take().servers.clone();
            due.retain(|name, _due| servers.iter().any(|server| server.name() == name));
            let mut checks = tokio::task::JoinSet::new();
            for server in servers {
                let Some(proof) = server.proof.clone() else { continue };
                let now = self.clock.now();
                // At the start the warm-up has just asked; after a reload what was proved is carried over.
                let fresh = (Arc::downgrade(&proof), next_check(&proof, now));
                let (known, at) = due.entry(Arc::clone(server.name())).or_insert(fresh.clone());
                if !known.ptr_eq(&fresh.0) {
                    (*known, *at) = fresh;
                }
                let is_lost = proof.current(now).is_none() && at.0 > now.0 + RETRY.as_secs();
                if now >= *at || is_lost {
                    *at = now.plus(RETRY);
                    let (outbound, metrics, clock) = (self.outbound.clone(), Arc::clone(&self.metrics), self.clock);
                    checks.spawn(async move {
                        check(&server, &outbound, clock.now(), &metrics).await;
                        (Arc::clone(server.name()), next_check(&proof, clock.now()))
                    });
                }
            }
            while let Some(done) = checks.join_next().await {
                if let Ok((name, at)) = done
                    && let Some((_proof, due)) = due.get_mut(&name)
                {
                    *due = at;
                }
            }
        }
    }
}

/// Asks one server once what it is. While its place cannot be reached, what it last proved counts until that expires; a
/// token that says something else ends it at once.
pub async fn check(server: &Server, outbound: &Outbound, now: UnixSeconds, metrics: &Metrics) {
    let Some(proof) = &server.proof else { return };
    let had = proof.current(now).is_some();
    let result = match fetch(proof, outbound).await {
        Err(reason) => {
            warn!(server = %server.name(), reason, "The server's resource token could not be fetched.");
            reason
        }
        Ok(token) => match verify(proof, &token, now).await {
            Ok(identity) => {
                proof.proved(Arc::new(identity));
                if !had {
                    info!(server = %server.name(), "The server has proved what it is.");
                }
                "ok"
            }
            // Cannot be judged yet: its key may be newer than our copy, and the issuer was asked only a moment ago.
            Err(error @ ServerIdentityError::Token(AuthnError::UnknownKey)) => {
                warn!(server = %server.name(), "The server's resource token is signed with an unknown key.");
                error.label()
            }
            Err(error) => {
                proof.refuted();
                let reason = error.label();
                warn!(server = %server.name(), reason, "The server is not what it must be: it gets no requests.");
                reason
            }
        },
    };
    metrics.server_identity_checked(server.name(), result);
}

/// Fetches the token: the configured header of the answer, whatever its status, or a body that is `{"resource_token": …}` or
/// the token itself.
async fn fetch(proof: &Proof, outbound: &Outbound) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    struct Document {
        resource_token: String,
    }

    let answer = outbound.get(&proof.config.url, DOCUMENT_BYTES_MAX).await.map_err(|error| error.label())?;
    if let Some(header) = &proof.config.header {
        let mut values = answer.headers.get_all(header).iter();
        return match (values.next().map(|value| value.to_str()), values.next()) {
            (Some(Ok(token)), None) => Ok(token.to_owned()),
            _ => Err("no_token"),
        };
    }
    let body = answer.ok().map_err(|error| error.label())?;
    let text = std::str::from_utf8(&body).map_err(|_not_text| "no_token")?.trim();
    match serde_json::from_str::<Document>(text) {
        Ok(document) => Ok(document.resource_token),
        Err(_) if text.split('.').count() == 3 => Ok(text.to_owned()),
        Err(_) => Err("no_token"),
    }
}

/// Verifies the token; once more with newer keys when it names one that is not here.
async fn verify(proof: &Proof, token: &str, now: UnixSeconds) -> Result<ServerIdentity, ServerIdentityError> {
    let verify = || {
        let keys = proof.issuer.keys.current();
        server::verify(token, Trusted { policy: &proof.issuer.policy, keys: &keys }, &proof.config.rules, now)
    };
    match verify() {
        Err(ServerIdentityError::Token(AuthnError::UnknownKey)) => {
            let _outcome = Arc::clone(&proof.issuer.keys).refetch(now).await;
            verify()
        }
        verified => verified,
    }
}

/// On the refresh interval, or when half of what is left of the token has passed.
fn next_check(proof: &Proof, now: UnixSeconds) -> UnixSeconds {
    let Some(identity) = proof.current(now) else { return now.plus(RETRY) };
    let half = now.until(identity.expires_at()) / 2;
    now.plus(proof.config.refresh.min(half).max(TICK))
}

/// Bytes of a document that holds a token.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_secs(1);

/// How soon a server is asked again while it has proved nothing.
const RETRY: Duration = Duration::from_secs(2);
