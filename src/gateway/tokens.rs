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

    /// Forgets tokens that are not believed at `now`.
    pub(super) fn forget_stale(&self, now: UnixSeconds) {
        self.verified.retain(|_token, verified| verified.is_still_believed(now));
    }

    /// Whether the token was verified on this route and is remembered.
    pub(super) fn remembers(&self, token: &TokenDigest, route: u64) -> bool {
        self.verified.contains_key(&(*token, route))
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::config::{IssuerConfig, JwksSource};
    use crate::identity::testkit::TestKey;
    use crate::identity::{Algorithm, KeySource, TokenTypes};
    use crate::telemetry::metrics::{CacheName, Metrics};

    /// A cache that is never full would hold them for ever.
    #[test]
    fn what_is_not_believed_any_more_is_forgotten() {
        let metrics = Metrics::new(prometheus::Registry::new()).unwrap();
        let tokens = Tokens::new(8, metrics.cache(CacheName::Token).clone());
        let issuer = TestIssuer::new();
        let (early, late) = (issuer.verified(NOW + 10), issuer.verified(NOW + 20));
        let keys = [early, late].map(|(token, verified)| {
            tokens.verified.insert((token.digest(), 1), Arc::new(verified));
            token.digest()
        });
        let remembered = |now: u64| {
            tokens.forget_stale(UnixSeconds(now));
            keys.each_ref().map(|key| tokens.remembers(key, 1))
        };
        assert_eq!(remembered(NOW + 9), [true, true]);
        assert_eq!(remembered(NOW + 10), [false, true]);
        assert_eq!(remembered(NOW + 20), [false, false]);
        assert_eq!(tokens.verified.len(), 0);
    }

    struct TestIssuer {
        key: TestKey,
        issuer: Arc<Issuer>,
    }

    impl TestIssuer {
        fn new() -> Self {
            let key = TestKey::new("k", Algorithm::EdDSA);
            let config = Arc::new(IssuerConfig {
                name: "corp".into(),
                issuer: "https://idp.test".into(),
                audiences: Vec::new(),
                algorithms: vec![Algorithm::EdDSA],
                jwks: JwksSource::Discover,
                clock_leeway: Duration::ZERO,
                scope_claims: Vec::new(),
                token_types: TokenTypes::AnyButIdToken,
                jwks_refresh: Duration::from_secs(300),
                jwks_cooldown: Duration::from_secs(30),
            });
            let keys = Arc::new(Published(Arc::new(KeySet::parse(&TestKey::jwks([&key])).unwrap())));
            Self { key, issuer: Arc::new(Issuer { policy: config.policy(), config, keys }) }
        }

        fn verified(&self, until: u64) -> (UnverifiedToken, Verified) {
            let token = self.key.sign(&json!({
                "iss": "https://idp.test", "sub": "alice", "aud": "https://mcp.test/mcp", "iat": NOW, "exp": until,
            }));
            let issuer = Arc::clone(&self.issuer);
            let keys = issuer.keys.current();
            let caller = jwt::verify(&token, &issuer.policy, &keys, "https://mcp.test/mcp", UnixSeconds(NOW)).unwrap();
            let believed_until = caller.expires_at();
            (token, Verified { caller: Arc::new(caller), issuer, keys, believed_until })
        }
    }

    #[derive(Debug)]
    struct Published(Arc<KeySet>);

    #[async_trait]
    impl KeySource for Published {
        fn current(&self) -> Arc<KeySet> {
            Arc::clone(&self.0)
        }

        async fn refresh(&self, _now: UnixSeconds) -> &'static str {
            "ok"
        }

        async fn refetch(self: Arc<Self>, _now: UnixSeconds) -> Option<&'static str> {
            None
        }
    }

    const NOW: u64 = 1_700_000_000;
}
