//! Have we believed this token before?

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::identity::bearer::{BearerError, TokenDigest, UnverifiedToken};
use crate::identity::jwt::{self, AuthnError};
use crate::identity::{Caller, KeySet};
use crate::registry::{Issuer, Route};
use crate::telemetry::metrics::CacheMetrics;
use crate::time::UnixSeconds;

use super::Shell;
use super::meters::RouteMeters;
use super::rejection::Rejection;

/// Verified tokens, by digest: a signature is paid once per token and route. Bounded; holds no token.
pub(super) struct Tokens {
    verified: Cache<(TokenDigest, u64), Arc<Verified>>,
    look_ups: CacheMetrics,
}

struct Verified {
    caller: Arc<Caller>,
    issuer: Arc<Issuer>,
    /// The key set the signature was checked with.
    keys: Arc<KeySet>,
    /// `exp` and the issuer's leeway.
    believed_until: UnixSeconds,
}

impl Tokens {
    /// Keeps at most `entries_max` tokens.
    pub(super) fn new(entries_max: usize, look_ups: CacheMetrics) -> Self {
        Self { verified: Cache::new(entries_max), look_ups }
    }

    /// Whom `token` proves the caller to be, on this route.
    ///
    /// # Errors
    /// [`Rejection::InvalidToken`] with the reason.
    pub(super) async fn verify(
        &self,
        shell: &Shell,
        route: &Route,
        meters: &RouteMeters,
        token: &UnverifiedToken,
    ) -> Result<Arc<Caller>, Rejection> {
        let now = shell.clock.now();
        let key = (token.digest(), route.id);
        if let Some(verified) = self.verified.get(&key)
            && verified.is_still_believed(now)
        {
            self.look_ups.hit();
            meters.issuer(Some(&verified.issuer.config.name)).authenticated("ok");
            return Ok(Arc::clone(&verified.caller));
        }
        self.look_ups.missed();
        let verified = first_seen(shell, route, token, now).await;
        let issuer =
            verified.as_ref().map_or_else(|(issuer, _error)| issuer.as_ref(), |verified| Some(&verified.issuer));
        let result = verified.as_ref().map_or_else(|(_issuer, error)| error.label(), |_verified| "ok");
        meters.issuer(issuer.map(|issuer| &*issuer.config.name)).authenticated(result);
        let verified = verified.map_err(|(_issuer, error)| Rejection::InvalidToken {
            challenge: route.challenges.invalid_token(error),
            error,
        })?;
        let caller = Arc::clone(&verified.caller);
        self.verified.insert(key, Arc::new(verified));
        Ok(caller)
    }
}

impl Verified {
    /// Until `exp`, and only while the key that signed it is still published.
    fn is_still_believed(&self, now: UnixSeconds) -> bool {
        let keys = self.issuer.keys.current();
        now < self.believed_until && (Arc::ptr_eq(&keys, &self.keys) || keys.contains(self.caller.key()))
    }
}

/// Verifies a token that is not in the cache. A key id that no published key has may be newer than our copy: the issuer
/// is asked again, at most once per cool-down.
async fn first_seen(
    shell: &Shell,
    route: &Route,
    token: &UnverifiedToken,
    now: UnixSeconds,
) -> Result<Verified, (Option<Arc<Issuer>>, AuthnError)> {
    let unverified = jwt::peek(token).map_err(|error| (None, error))?;
    let issuer = route.issuer(unverified.issuer()).ok_or((None, AuthnError::WrongIssuer))?;
    let mut keys = issuer.keys.current();
    if unverified.lacks_key(&issuer.policy, &keys) {
        if let Some(outcome) = Arc::clone(&issuer.keys).refetch(now).await {
            shell.metrics.jwks_refreshed(&issuer.config.name, outcome);
        }
        keys = issuer.keys.current();
    }
    let caller = unverified
        .verify(&issuer.policy, &keys, &route.config.resource, now)
        .map_err(|error| (Some(Arc::clone(issuer)), error))?;
    let believed_until = caller.expires_at().plus(issuer.config.clock_leeway);
    Ok(Verified { caller: Arc::new(caller), issuer: Arc::clone(issuer), keys, believed_until })
}

/// The refusal of a head without a usable token.
pub(super) fn refuse_head(route: &Route, meters: &RouteMeters, error: BearerError) -> Rejection {
    meters.issuer(None).authenticated(error.label());
    let challenge = route.challenges.unusable_head(error);
    match error {
        BearerError::Missing => Rejection::MissingToken { challenge },
        BearerError::Repeated => Rejection::Malformed,
        BearerError::Malformed | BearerError::TooLong => {
            Rejection::InvalidToken { error: AuthnError::Malformed, challenge }
        }
    }
}
