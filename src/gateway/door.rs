//! Who is let in, how long may they say nothing, and how does the last one get through?
//!
//! Left to itself, Pingora 0.9.1 waits without end at three places: for the first bytes of a connection in clear text (by
//! which it tells HTTP/2 from HTTP/1), for HTTP/2 to begin once TLS has agreed on it, and, when a connection has carried one
//! request, for the next; and every byte of a head gives its client another minute. So the way of a connection, which is
//! Pingora's `ServerApp for HttpServerApp` otherwise, is gone here, with one timer for all of it.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession, default_h2_options};
use pingora::protocols::{ALPN, Digest, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tracing::warn;

use crate::config::Limits;
use crate::snapshot::Live;
use crate::telemetry::metrics::{Metrics, OpenConnection};

/// What clients connect to: an application of Pingora, behind bounds on connections and on the time in which each must
/// bring a whole request.
///
/// When the listening sockets are closed, Pingora drops every connection whose request has not begun to arrive. A client
/// that was let in a moment before would lose a request that it is just sending. So that end is put off for a little
/// while: long enough for whoever is in to say what they came for.
pub struct Door<A> {
    app: Arc<A>,
    live: Arc<Live>,
    room: Room,
    inside: Arc<AtomicUsize>,
    crowded: Once,
}

/// For how many connections there is room.
pub enum Room {
    /// The pages of the operator, on a listener of their own: for a few, who get in however crowded the data plane is.
    Operators,
    /// The data plane: `limits.connections`, but no more than the limit on open files leaves, if that is known. Who is in
    /// and who was not let in is counted.
    Public {
        /// What the limit on open files leaves for connections.
        files_max: usize,
        /// Where they are counted.
        metrics: Arc<Metrics>,
    },
}

/// Left with an HTTP/1 connection before each of its requests, so that the data plane can say that the head is whole.
#[derive(Clone, Default)]
pub(super) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// The head is whole: the request has its own time limits from here on.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A connection that is counted for as long as this lives.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    /// In front of `app`. The bounds are those of `live` at the moment of each connection.
    #[must_use]
    pub fn new(app: A, live: Arc<Live>, room: Room) -> Self {
        Self { app: Arc::new(app), live, room, inside: Arc::default(), crowded: Once::new() }
    }

    fn let_in(&self, limits: &Limits) -> Option<Place> {
        let places = self.room.places(limits);
        let entered = self
            .inside
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |inside| (inside < places).then_some(inside + 1));
        if entered.is_ok() {
            return Some(Place(Arc::clone(&self.inside)));
        }
        if let Room::Public { metrics, .. } = &self.room {
            metrics.connection_refused();
            self.crowded.call_once(|| {
                warn!(
                    connections = places,
                    "No more connections are let in; portcullis_connections_refused_total counts those turned away."
                );
            });
        }
        None
    }

    /// Requests one after the other, until the client leaves or lets `patience` run out before the next head is whole.
    async fn serve_http1(
        &self,
        stream: Stream,
        mut patience: Pin<Box<Sleep>>,
        wait: Duration,
        shutdown: &ShutdownWatch,
    ) {
        let arrival = Arrival::default();
        let mut session = ServerSession::new_http1(stream);
        // Pingora's own limit, which would be for each read.
        session.set_keepalive(WITHOUT_LIMIT);
        loop {
            if *shutdown.borrow() {
                session.set_keepalive(None);
            }
            session.set_connection_user_context(Some(Box::new(arrival.clone())));
            let mut serving = pin!(self.app.process_new_http(session, shutdown));
            let served = tokio::select! {
                biased;
                served = &mut serving => served,
                () = &mut patience => if arrival.take() { serving.await } else { None },
            };
            let Some((stream, settings)) = served.map(|reused| reused.consume()) else { return };
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            arrival.take();
            patience.as_mut().reset(Instant::now() + wait);
        }
    }

    /// Streams side by side, until the client leaves or has had none open for `wait`.
    async fn serve_http2(&self, stream: Stream, patience: Pin<Box<Sleep>>, limits: &Limits, shutdown: &ShutdownWatch) {
        let wait = limits.request_head_timeout;
        let digest = Arc::new(Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let greeted = tokio::select! {
            greeted = server::handshake(stream, Some(h2_options(limits))) => greeted,
            () = patience => return,
        };
        let Ok(mut connection) = greeted else { return };
        let mut shutdown = shutdown.clone();
        let (mut is_ending, mut malformed) = (false, 0);
        // A stream that its client resets is over for HTTP/2 at once, but what it has set off ends a little later: more of
        // that than there may be streams is no honest client (CVE-2023-44487).
        let places_max = u32::try_from(limits.http2_streams).unwrap_or(u32::MAX / 4) * 2;
        let places = Arc::new(Semaphore::new(places_max as usize));
        loop {
            let next = tokio::select! {
                biased;
                _ = shutdown.changed(), if !is_ending => {
                    connection.graceful_shutdown();
                    is_ending = true;
                    continue;
                }
                next = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => next,
                () = idle(&places, places_max, wait) => return,
            };
            match next {
                Ok(Some(H2Accept::Session(stream))) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { return };
                    let (app, shutdown) = (Arc::clone(&self.app), shutdown.clone());
                    drop(pingora_runtime::current_handle().spawn(async move {
                        app.process_new_http(ServerSession::new_http2(stream), &shutdown).await;
                        drop(place);
                    }));
                }
                Ok(Some(H2Accept::Rejected)) => {
                    malformed += 1;
                    if malformed == MALFORMED_MAX {
                        return;
                    }
                }
                // The client has left, or does not speak HTTP/2.
                Ok(None) | Err(_) => return,
            }
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let limits = self.live.peek().config.limits.clone();
        // Who is not let in is told so by the end of the connection.
        let _place = self.let_in(&limits)?;
        let _open = self.room.counted();
        let wait = limits.request_head_timeout;
        let mut patience = Box::pin(sleep(wait));
        let is_http2 = tokio::select! {
            biased;
            is_http2 = speaks_http2(&mut stream) => is_http2?,
            () = &mut patience => return None,
        };
        if is_http2 {
            self.serve_http2(stream, patience, &limits, shutdown).await;
        } else {
            self.serve_http1(stream, patience, wait, shutdown).await;
        }
        None
    }

    /// Called when no more connections come in.
    async fn cleanup(&self) {
        sleep(LAST_CALL).await;
        self.app.http_cleanup().await;
    }
}

impl Room {
    fn places(&self, limits: &Limits) -> usize {
        match self {
            Self::Operators => OPERATORS_MAX,
            Self::Public { files_max, .. } => limits.connections.min(*files_max),
        }
    }

    fn counted(&self) -> Option<OpenConnection> {
        match self {
            Self::Operators => None,
            Self::Public { metrics, .. } => Some(metrics.connection_opened()),
        }
    }
}

/// Whether the client speaks HTTP/2: as agreed in TLS, or in clear text by its first bytes (RFC 9113 §3.3, §3.4). `None` when
/// it left before that could be told.
async fn speaks_http2(stream: &mut Stream) -> Option<bool> {
    if stream.get_ssl_digest().is_some() {
        return Some(matches!(stream.selected_alpn_proto(), Some(ALPN::H2)));
    }
    let mut first = [0; H2_PREFACE.len()];
    // Whoever has fewer bytes to say has no request: the shortest of HTTP/1.1 is longer.
    stream.try_peek(&mut first).await.ok().map(|was_read| was_read && first == *H2_PREFACE)
}

/// Waits until no stream has been open for `wait`.
async fn idle(places: &Semaphore, all: u32, wait: Duration) {
    let _all = places.acquire_many(all).await;
    sleep(wait).await;
}

fn h2_options(limits: &Limits) -> H2Options {
    // HTTP/2 counts 32 bytes with each header (RFC 9113 §6.5.2).
    let header_list = limits.header_bytes.saturating_add(limits.header_count.saturating_mul(32));
    let mut options = default_h2_options();
    options
        .initial_window_size(H2_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(limits.http2_streams).unwrap_or(u32::MAX));
    options
}

/// How long a client that is in may take until its request begins to arrive.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Pingora's word for a connection that may be used again, with no time limit of Pingora's own.
const WITHOUT_LIMIT: Option<u64> = Some(0);

/// Connections to a page for operators.
const OPERATORS_MAX: usize = 256;

/// Requests on one HTTP/2 connection that Pingora refuses as malformed, before it is closed.
const MALFORMED_MAX: usize = 32;

/// What a client may send on one HTTP/2 stream before it has to wait for us.
const H2_WINDOW_BYTES: u32 = 1024 * 1024;

const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
