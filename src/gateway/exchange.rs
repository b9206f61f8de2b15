//! Where does a caller's exchanged token come from? From memory, or from one exchange that everybody who needs the same
//! token waits for.

use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use quick_cache::sync::EntryAction;
use quick_cache::sync::EntryResult;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout_at;

use crate::credential::ExchangeError;
use crate::credential::ExchangePlan;
use crate::credential::ExchangeRequest;
use crate::credential::ExchangedToken;
use crate::credential::Origin;
use crate::credential::PlanFingerprint;
use crate::credential::Subject;
use crate::credential::exchange;
use crate::telemetry::metrics::CacheMetrics;
use crate::telemetry::metrics::ServerMetrics;
use crate::time::UnixSeconds;

/// Posts a form; what the exchanger needs of an HTTP client.
#[async_trait]
pub trait PostForm: Send + Sync {
    /// Sends `body` (`application/x-www-form-urlencoded`) to `url`, with `Accept: application/json` and `authorization`
    /// as the header's value, and returns the status and the whole body. Follows no redirect: the form holds a token.
    /// Reads at most [`exchange::ANSWER_BYTES_MAX`] bytes of body.
    ///
    /// # Errors
    /// [`PostError`]; a status of any kind is no error.
    async fn post_form(
        &self,
        url: &str,
        authorization: Option<&str>,
        body: &str,
        timeout: Duration,
    ) -> Result<(u16, Bytes), PostError>;
}

/// Why there was no answer to a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The body is over its bound.
    #[error("the answer is too large")]
    TooLarge,
    /// No connection, or it broke.
    #[error("cannot be reached")]
    Unreachable,
}

/// Exchanges callers' tokens and keeps what it got, bounded, until shortly before its end.
///
/// For one [`ExchangeKey`] there is one exchange at a time: who comes meanwhile waits for its outcome, good or bad. When
/// the caller that leads it goes away, one of those who wait takes over. Failures are remembered briefly.
pub struct Exchanger {
    post: Arc<dyn PostForm>,
    cache: Cache<OwnedKey, Entry>,
    look_ups: CacheMetrics,
}

/// Whose token for what. Tokens are shared between requests only when all of this is equal.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeKey<'a> {
    /// `iss` of the caller.
    pub issuer: &'a str,
    /// `sub` of the caller.
    pub subject: &'a str,
    /// The software that acts for the caller.
    pub client_id: Option<&'a str>,
    /// SHA-256 of the caller's token: a caller with two tokens, say of different scopes, has two entries.
    pub token_digest: &'a [u8; 32],
    /// SHA-256 of the token of the agent that acts; none when no agent has brought one.
    pub agent: Option<&'a [u8; 32]>,
    /// The server the token is for.
    pub server: &'a str,
    /// How it is asked for. A changed configuration has another fingerprint, so it never meets old tokens.
    pub plan: PlanFingerprint,
}

/// A token, and whether it was at hand.
#[derive(Clone, Debug)]
pub struct Obtained {
    /// The token.
    pub token: Arc<ExchangedToken>,
    /// Where it came from.
    pub origin: Origin,
}

impl Exchanger {
    /// Keeps at most `entries_max` outcomes (`limits.credential_cache`).
    #[must_use]
    pub fn new(post: Arc<dyn PostForm>, entries_max: usize, look_ups: CacheMetrics) -> Self {
        Self { post, cache: Cache::new(entries_max.max(1)), look_ups }
    }

    /// The token of `key`: from memory when it is fresh at `now`, else from an exchange of `subject`'s token as `plan`
    /// says. All of it, waiting and a retry included, takes at most `plan.timeout`.
    ///
    /// # Errors
    /// What the token endpoint or the way to it made of it. The same failure is given again, without asking, for
    /// [`ExchangeError::remembered_for`].
    pub async fn credential(
        &self,
        key: ExchangeKey<'_>,
        plan: &ExchangePlan,
        subject: Subject<'_>,
        metrics: &ServerMetrics,
        now: UnixSeconds,
    ) -> Result<Obtained, ExchangeError> {
        if let Some(entry) = self.cache.get(&key)
            && entry.is_fresh(now)
        {
            self.look_ups.hit();
            return entry.outcome.map(|token| Obtained { token, origin: Origin::Cached });
        }
        self.look_ups.missed();

        let asked_at = Instant::now();
        let deadline = asked_at + plan.timeout;
        let key = OwnedKey::from(key);
        let entry = self.cache.entry_async(&key, |_, entry: &mut Entry| {
            // An outcome that came while this caller waited is its outcome too, fresh or not: who waits with a hundred
            // others for a token that cannot be kept must not then ask a hundred times, one after the other.
            if entry.obtained_at >= asked_at || entry.is_fresh(now) {
                EntryAction::Retain(entry.outcome.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        });
        let place = match timeout_at(deadline, entry).await {
            Ok(EntryResult::Retained(outcome)) => {
                return outcome.map(|token| Obtained { token, origin: Origin::Fresh });
            }
            Ok(EntryResult::Vacant(place) | EntryResult::Replaced(place, _)) => place,
            // The first two are never asked for.
            Ok(EntryResult::Removed(..) | EntryResult::Timeout) | Err(_) => return Err(ExchangeError::Timeout),
        };

        // This caller leads. When its future is dropped from here on, so is `place`, and the next in line leads.
        let leads_since = Instant::now();
        let outcome = self.exchange(plan, subject, deadline, now.plus(asked_at.elapsed())).await;
        metrics.exchanged(outcome.as_ref().map(|_| ()).map_err(|error| *error), leads_since.elapsed());
        let led_for_little = deadline - leads_since < plan.timeout / 2;
        if outcome.as_ref().err() == Some(&ExchangeError::Timeout) && led_for_little {
            // Took over late and ran out of its own time. That says little of the token endpoint, so those who still
            // have time go on.
            drop(place);
        } else {
            // Refused only when the entry was removed meanwhile; who waits has the outcome all the same.
            let _ = place.insert(Entry::new(outcome.clone(), Instant::now()));
        }
        outcome.map(|token| Obtained { token, origin: Origin::Fresh })
    }

    /// Drops `token` after an upstream refused it (401), so that the next look-up asks for another. A token that has
    /// replaced it meanwhile stays.
    pub fn forget(&self, key: ExchangeKey<'_>, token: &Arc<ExchangedToken>) {
        self.cache.remove_if(&key, |entry| entry.outcome.as_ref().is_ok_and(|kept| Arc::ptr_eq(kept, token)));
    }

    /// Drops what is no longer fresh. Nothing stale is ever handed out; this wipes it from memory before its place is
    /// needed. To be called now and then.
    pub fn drop_stale(&self, now: UnixSeconds) {
        self.cache.retain(|_, entry| entry.is_fresh(now));
    }

    /// Outcomes kept.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.cache.len()
    }

    /// Asks the token endpoint, and once more after a passing failure when there is time.
    async fn exchange(
        &self,
        plan: &ExchangePlan,
        subject: Subject<'_>,
        deadline: Instant,
        now: UnixSeconds,
    ) -> Result<Arc<ExchangedToken>, ExchangeError> {
        let request = exchange::request(plan, subject);
        let first = self.ask(&request, plan, subject, deadline, now).await;
        match first {
            Err(error) if error.is_retryable() && Instant::now() + RETRY_PAUSE < deadline => {
                sleep(RETRY_PAUSE).await;
                self.ask(&request, plan, subject, deadline, now).await
            }
            Ok(_) | Err(_) => first,
        }
    }

    async fn ask(
        &self,
        request: &ExchangeRequest<'_>,
        plan: &ExchangePlan,
        subject: Subject<'_>,
        deadline: Instant,
        now: UnixSeconds,
    ) -> Result<Arc<ExchangedToken>, ExchangeError> {
        let authorization = request.authorization.as_ref().map(|value| value.expose().as_str());
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.post.post_form(request.url, authorization, request.body.expose(), left);
        let (status, body) = match timeout_at(deadline, answer).await {
            Ok(answer) => answer.map_err(ExchangeError::from)?,
            Err(_) => return Err(ExchangeError::Timeout),
        };
        exchange::read_answer(plan, subject, status, &body, now).map(Arc::new)
    }
}

impl fmt::Debug for Exchanger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanger").field("entries", &self.entries()).finish_non_exhaustive()
    }
}

impl From<PostError> for ExchangeError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Timeout => Self::Timeout,
            PostError::TooLarge => Self::TooLarge,
            PostError::Unreachable => Self::Unreachable,
        }
    }
}

/// One outcome, good or bad.
#[derive(Clone)]
struct Entry {
    outcome: Result<Arc<ExchangedToken>, ExchangeError>,
    obtained_at: Instant,
}

impl Entry {
    fn new(outcome: Result<Arc<ExchangedToken>, ExchangeError>, obtained_at: Instant) -> Self {
        Self { outcome, obtained_at }
    }

    /// Whether it still answers a question asked at `now`. Tokens live by the wall clock, as `exp` does; failures by the
    /// monotonic one, because a second of memory is too short for whole seconds.
    fn is_fresh(&self, now: UnixSeconds) -> bool {
        match &self.outcome {
            Ok(token) => token.is_fresh(now),
            Err(error) => self.obtained_at.elapsed() < error.remembered_for(),
        }
    }
}

/// An [`ExchangeKey`] that stands on its own; made on a miss only.
#[derive(Clone, PartialEq, Eq)]
struct OwnedKey {
    issuer: Box<str>,
    subject: Box<str>,
    client_id: Option<Box<str>>,
    token_digest: [u8; 32],
    agent: Option<[u8; 32]>,
    server: Box<str>,
    plan: PlanFingerprint,
}

impl From<ExchangeKey<'_>> for OwnedKey {
    fn from(key: ExchangeKey<'_>) -> Self {
        Self {
            issuer: key.issuer.into(),
            subject: key.subject.into(),
            client_id: key.client_id.map(Into::into),
            token_digest: *key.token_digest,
            agent: key.agent.copied(),
            server: key.server.into(),
            plan: key.plan,
        }
    }
}

// Tokens and plan tell nearly all keys apart, so only they are hashed; equality compares everything. Both kinds of key
// must feed the hasher alike.
impl Hash for OwnedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.token_digest.hash(state);
        self.agent.hash(state);
        self.plan.hash(state);
    }
}

impl Hash for ExchangeKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.token_digest.hash(state);
        self.agent.hash(state);
        self.plan.hash(state);
    }
}

impl Equivalent<OwnedKey> for ExchangeKey<'_> {
    fn equivalent(&self, key: &OwnedKey) -> bool {
        // Taken apart so that a field that is added here cannot be forgotten.
        let Self { issuer, subject, client_id, token_digest, agent, server, plan } = *self;
        *token_digest == key.token_digest
            && plan == key.plan
            && agent == key.agent.as_ref()
            && *server == *key.server
            && *subject == *key.subject
            && *issuer == *key.issuer
            && client_id == key.client_id.as_deref()
    }
}

/// How long after a passing failure the token endpoint is asked once more.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
