//! Which keys does an issuer publish at this time? Fetched, kept, and fetched again when a token names one we lack.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Url;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tracing::warn;

use crate::config::IssuerConfig;
use crate::config::JwksSource;
use crate::identity::KeySet;
use crate::identity::KeySource;
use crate::net::client;
use crate::net::client::NetError;
use crate::net::client::Outbound;
use crate::time::UnixSeconds;

/// The keys of one issuer, as last fetched.
///
/// A good set stays until a better one comes: an issuer that is down, or that answers nonsense, changes nothing. A set that
/// was published empty is a good set, because that is how an issuer withdraws its keys.
#[derive(Debug)]
pub struct Keyring {
    issuer: Arc<IssuerConfig>,
    fetcher: KeyFetcher,
    current: ArcSwap<KeySet>,
    /// Held while keys are fetched.
    flight: Arc<Mutex<Flight>>,
    /// How many fetches have ended. It tells a caller who waited that a fetch has ended meanwhile.
    landed: AtomicU64,
    /// When keys were last fetched with success; 0: never.
    fetched_at: AtomicU64,
}

impl Keyring {
    /// A ring without keys; [`Keyring::refresh`] brings them.
    #[must_use]
    pub fn new(issuer: Arc<IssuerConfig>, outbound: Outbound) -> Self {
        Self {
            fetcher: KeyFetcher::new(&issuer, outbound),
            issuer,
            current: ArcSwap::default(),
            flight: Arc::default(),
            landed: AtomicU64::new(0),
            fetched_at: AtomicU64::new(0),
        }
    }

    /// The keys. A request takes them once and verifies with what it took.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.current.load_full()
    }

    /// The issuer whose keys these are.
    #[must_use]
    pub fn issuer(&self) -> &Arc<IssuerConfig> {
        &self.issuer
    }

    /// Whether this ring can go on serving after a reload: the same issuer with the same source of keys. Rings are handed
    /// from snapshot to snapshot, so that a reload while the issuer is down loses no keys.
    #[must_use]
    pub fn serves(&self, issuer: &IssuerConfig) -> bool {
        self.issuer.issuer == issuer.issuer
            && self.issuer.jwks == issuer.jwks
            && self.issuer.jwks_cooldown == issuer.jwks_cooldown
    }

    /// When keys were last fetched with success; `None`: never.
    #[must_use]
    pub fn fetched_at(&self) -> Option<UnixSeconds> {
        match self.fetched_at.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(UnixSeconds(seconds)),
        }
    }

    /// Fetches the keys, as is done at start and on the refresh interval.
    pub async fn refresh(&self, now: UnixSeconds) -> RefreshOutcome {
        let _flight = self.flight.lock().await;
        self.fetch(now).await
    }

    /// Fetches the keys because a token names one that is not here ([`crate::identity::jwt::Unverified::lacks_key`]).
    ///
    /// Anyone can make such tokens, so keys are fetched for them at most once per cool-down, whatever comes of it, and
    /// callers who ask meanwhile wait for that one fetch. It goes on when the caller who started it leaves, or leaving
    /// early would be a way to keep everyone from the keys.
    ///
    /// Whatever this returns, the keys may have changed since the caller took them: [`Keyring::current`] tells.
    pub async fn refetch_for_unknown_key(self: &Arc<Self>, now: UnixSeconds) -> Refetch {
        let landed = self.landed.load(Ordering::Acquire);
        let mut flight = Arc::clone(&self.flight).lock_owned().await;
        if self.landed.load(Ordering::Acquire) != landed {
            return Refetch::Joined;
        }
        if flight.last_refetch.is_some_and(|last| now < last.plus(self.issuer.jwks_cooldown)) {
            return Refetch::CoolingDown;
        }
        flight.last_refetch = Some(now);
        let ring = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            let outcome = ring.fetch(now).await;
            drop(flight);
            outcome
        });
        Refetch::Fetched(fetch.await.unwrap_or(RefreshOutcome::Failed(FetchError::Aborted)))
    }

    /// INVARIANT: the caller holds `flight`.
    async fn fetch(&self, now: UnixSeconds) -> RefreshOutcome {
        let outcome = match self.fetcher.fetch().await {
            Err(error) => {
                let issuer = &self.issuer.name;
                warn!(%issuer, error = error.label(), "The issuer's keys could not be fetched; the last good ones stay in use.");
                RefreshOutcome::Failed(error)
            }
            Ok(keys) => {
                let is_first = self.fetched_at.swap(now.0.max(1), Ordering::Relaxed) == 0;
                if !is_first && self.current.load().same_keys(&keys) {
                    RefreshOutcome::Unchanged
                } else {
                    self.current.store(Arc::new(keys));
                    RefreshOutcome::Updated
                }
            }
        };
        self.landed.fetch_add(1, Ordering::Release);
        outcome
    }
}

#[async_trait]
impl KeySource for Keyring {
    fn current(&self) -> Arc<KeySet> {
        Self::current(self)
    }

    async fn refresh(&self, now: UnixSeconds) -> &'static str {
        Self::refresh(self, now).await.label()
    }

    async fn refetch(self: Arc<Self>, now: UnixSeconds) -> Option<&'static str> {
        match self.refetch_for_unknown_key(now).await {
            Refetch::Fetched(outcome) => Some(outcome.label()),
            Refetch::CoolingDown | Refetch::Joined => None,
        }
    }
}

/// What a fetch changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// Nothing: the last good keys stay.
    Failed(FetchError),
    /// Nothing: the keys are the same.
    Unchanged,
    /// The keys are others.
    Updated,
}

impl RefreshOutcome {
    /// Word for metrics: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Unchanged => "unchanged",
            Self::Updated => "updated",
        }
    }
}

/// What became of a wish for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refetch {
    /// Keys were fetched for an unknown one only a moment ago.
    CoolingDown,
    /// Keys were fetched.
    Fetched(RefreshOutcome),
    /// A fetch that was under way has ended; whoever started it counts it.
    Joined,
}

/// Fetches the keys of one issuer from where the configuration says.
#[derive(Clone, Debug)]
pub struct KeyFetcher {
    issuer: Arc<str>,
    source: JwksSource,
    outbound: Outbound,
}

impl KeyFetcher {
    /// A fetcher for this issuer.
    #[must_use]
    pub fn new(issuer: &IssuerConfig, outbound: Outbound) -> Self {
        Self { issuer: Arc::clone(&issuer.issuer), source: issuer.jwks.clone(), outbound }
    }

    /// Fetches the keys: at most [`FETCH_TIMEOUT`], [`METADATA_BYTES_MAX`] and [`JWKS_BYTES_MAX`].
    ///
    /// # Errors
    /// Those of [`FetchError`].
    pub async fn fetch(&self) -> Result<KeySet, FetchError> {
        let jwks = async {
            match &self.source {
                JwksSource::Discover => self.discover().await,
                JwksSource::File(path) => read_file(path).await,
                JwksSource::Url(url) => Ok(self.outbound.get(url, JWKS_BYTES_MAX).await?.ok()?),
            }
        };
        let jwks = tokio::time::timeout(FETCH_TIMEOUT, jwks).await.map_err(|_| NetError::Timeout)??;
        KeySet::parse(&jwks).map_err(|_| FetchError::KeysMalformed)
    }

    /// Finds the JWK set through the issuer's metadata and fetches it.
    async fn discover(&self) -> Result<Bytes, FetchError> {
        let mut refusal = None;
        for url in metadata_urls(self.outbound.checked_url(&self.issuer)?)? {
            let answer = self.outbound.get(url.as_str(), METADATA_BYTES_MAX).await?;
            let found = answer.ok().map_err(FetchError::from).and_then(|metadata| self.jwks_uri(&url, &metadata));
            match (found, refusal) {
                (Ok(jwks_uri), _) => return Ok(self.outbound.get(jwks_uri.as_str(), JWKS_BYTES_MAX).await?.ok()?),
                // Not at this place, or a page for people there: each issuer serves one of them. What is wrong with
                // metadata says more than that some place has none.
                (Err(error), None | Some(FetchError::Net(NetError::BadStatus(_)))) => refusal = Some(error),
                (Err(_), Some(_)) => {}
            }
        }
        Err(refusal.unwrap_or(FetchError::MetadataMalformed))
    }

    /// Reads the metadata that `url` served.
    fn jwks_uri(&self, url: &Url, metadata: &[u8]) -> Result<Url, FetchError> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            jwks_uri: String,
        }

        let metadata: Metadata = serde_json::from_slice(metadata).map_err(|_| FetchError::MetadataMalformed)?;
        // RFC 8414 §3.3, OpenID Connect Discovery §4.3: exactly, or one tenant of a host could speak for another.
        if metadata.issuer != *self.issuer {
            return Err(FetchError::IssuerMismatch);
        }
        let jwks_uri = self.outbound.checked_url(&metadata.jwks_uri)?;
        // A remote issuer points to the network it is in, not to what listens on this machine.
        if client::is_loopback(&jwks_uri) && !client::is_loopback(url) {
            return Err(NetError::InsecureUrl.into());
        }
        Ok(jwks_uri)
    }
}

/// Why no keys came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FetchError {
    /// The task that fetched them was ended, as happens when the process stops.
    #[error("the fetch was ended")]
    Aborted,
    /// The file cannot be read, or is larger than [`JWKS_BYTES_MAX`].
    #[error("the file of keys cannot be read")]
    FileUnreadable,
    /// The metadata names another issuer than the configuration.
    #[error("the metadata is another issuer's")]
    IssuerMismatch,
    /// What came is no JWK set.
    #[error("not a JWK set")]
    KeysMalformed,
    /// The metadata is no JSON object with `issuer` and `jwks_uri`.
    #[error("the metadata names no issuer or no keys")]
    MetadataMalformed,
    /// The call failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl FetchError {
    /// Word for metrics and logs: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::FileUnreadable => "file_unreadable",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::KeysMalformed => "keys_malformed",
            Self::MetadataMalformed => "metadata_malformed",
            Self::Net(error) => error.label(),
        }
    }
}

/// Time for metadata and keys together.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an issuer's metadata.
pub const METADATA_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a JWK set. Sets with certificate chains reach some 100 KiB.
pub const JWKS_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
struct Flight {
    /// When keys were last fetched for an unknown one.
    last_refetch: Option<UnixSeconds>,
}

/// Where an issuer's metadata may be, in the order of asking: OpenID Connect Discovery §4 (appended to the path), RFC 8414 §3
/// (before the path), and OpenID metadata at the place of RFC 8414 (its §5).
pub fn metadata_urls(issuer: Url) -> Result<Vec<Url>, FetchError> {
    const OPENID: &str = "/.well-known/openid-configuration";
    const OAUTH: &str = "/.well-known/oauth-authorization-server";

    let base = issuer;
    if base.query().is_some() || base.fragment().is_some() {
        return Err(NetError::BadUrl.into());
    }
    let path = base.path().trim_end_matches('/');
    let mut paths = vec![format!("{path}{OPENID}"), format!("{OAUTH}{path}")];
    if !path.is_empty() {
        paths.push(format!("{OPENID}{path}"));
    }
    let at = |path: &String| {
        let mut url = base.clone();
        url.set_path(path);
        url
    };
    Ok(paths.iter().map(at).collect())
}

async fn read_file(path: &Path) -> Result<Bytes, FetchError> {
    let unreadable = |_| FetchError::FileUnreadable;
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(JWKS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
    if bytes.len() > JWKS_BYTES_MAX {
        return Err(FetchError::FileUnreadable);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
