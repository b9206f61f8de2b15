//! How is the gateway looked at and governed? The admin listener: health for machines, pages and an API for people.
//!
//! Without `admin.sign_in` there are `/healthz`, `/readyz` and `/status` and nothing else. With it, people sign in at their
//! issuer (`signin`), and every call of the API goes through one gate (`access`) that knows who they are, what their
//! roles allow, and writes down what they do.

mod access;
mod api;
mod assets;
mod guard;
mod health;
mod history;
mod listener;
mod metrics_page;
mod problem;
mod signin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{Method, StatusCode};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::AdminSettings;
use crate::lifecycle::Lifecycle;
use crate::net::Outbound;
use crate::snapshot::Live;
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent::Recent;
use crate::time::Clock;

use super::builder::Builder;
use super::governance::Governance;
use super::quarantine::QuarantineDesk;
use super::reload::ReloadDesk;

pub use history::Sampling;
pub use listener::AdminListener;
pub use metrics_page::MetricsPage;
pub use signin::sessions::{InMemory, Sessions, sessions_of};

use history::History;
use problem::Problem;
use signin::Attempts;
use signin::provider::Provider;

/// What the admin pages are given of the process.
pub struct Parts {
    /// Where they listen: their own address is an accepted `Host`.
    pub address: SocketAddr,
    /// What they tell of.
    pub live: Arc<Live>,
    /// Whether the process is on its way out.
    pub lifecycle: Arc<Lifecycle>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Where what people do is written down.
    pub audit: AuditSink,
    /// The last records, when they are kept.
    pub recent: Option<Arc<Recent>>,
    /// What the issuer is called with.
    pub outbound: Outbound,
    /// Where a reload is asked for.
    pub reload: ReloadDesk,
    /// What puts configurations in force, and has sides of splits tried again.
    pub builder: Arc<Builder>,
    /// Where somebody or something is stopped.
    pub quarantines: QuarantineDesk,
    /// Where it is kept who has signed in.
    pub sessions: Arc<dyn Sessions>,
    /// The registry, where there is one.
    pub governance: Option<Governance>,
    /// What time it is.
    pub clock: Clock,
}

/// The admin pages and their API.
pub struct Admin {
    address: SocketAddr,
    has_tls: bool,
    live: Arc<Live>,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    audit: AuditSink,
    recent: Arc<Recent>,
    reload: ReloadDesk,
    builder: Arc<Builder>,
    quarantines: QuarantineDesk,
    sessions: Arc<dyn Sessions>,
    governance: Option<Governance>,
    clock: Clock,
    provider: Provider,
    attempts: Attempts,
    random: SystemRandom,
    /// Random, so that request ids of two processes differ.
    process: u64,
    next_request: AtomicU64,
    streams: Arc<Semaphore>,
    history: History,
    started: Instant,
}

impl Admin {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(parts: Parts) -> Result<Self, ring::error::Unspecified> {
        let random = SystemRandom::new();
        let mut process = [0; 8];
        random.fill(&mut process)?;
        let Parts {
            address,
            live,
            lifecycle,
            metrics,
            audit,
            recent,
            outbound,
            reload,
            builder,
            quarantines,
            sessions,
            governance,
            clock,
        } = parts;
        let has_tls = live.peek().config.admin.as_ref().is_some_and(|admin| admin.tls.is_some());
        Ok(Self {
            address,
            has_tls,
            live,
            lifecycle,
            metrics,
            audit,
            recent: recent.unwrap_or_else(|| Arc::new(Recent::new(1))),
            reload,
            builder,
            quarantines,
            sessions,
            governance,
            clock,
            provider: Provider::new(outbound),
            attempts: Attempts::default(),
            random,
            process: u64::from_be_bytes(process),
            next_request: AtomicU64::new(1),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            history: History::default(),
            started: Instant::now(),
        })
    }

    /// The settings of this moment; none when a reload has taken them away.
    fn settings(&self) -> Option<Arc<AdminSettings>> {
        self.live.peek().config.admin.clone()
    }

    /// Names one request in its answer and its audit record.
    fn request_id(&self) -> Arc<str> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        format!("a{:08x}-{number:08x}", self.process >> 32).into()
    }

    /// A place for a stream of events, if there is one left.
    fn stream_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    /// `N` random bytes.
    fn random<const N: usize>(&self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_none| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "busy"))?;
        Ok(bytes)
    }
}

/// Everything that is answered here.
fn router(admin: Arc<Admin>) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/status", get(health::status))
        .route("/signin", get(signin::begin))
        .route("/signin/callback", get(signin::callback));
    for endpoint in api::ENDPOINTS {
        router = router.route(endpoint.path, access::guarded(&admin, endpoint));
    }
    router
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), guard::stand))
        .with_state(admin)
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
}

/// A file of the pages, or nothing. Reached only where people can sign in.
async fn elsewhere(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        return Problem::not_found().into_response();
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    assets::find(&request).filter(|_asset| is_read).unwrap_or_else(guard::nothing_here)
}

/// Streams of events at once.
const STREAMS_MAX: usize = 64;
