//! How do connections that Pingora has accepted reach the admin pages?

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use super::Admin;

/// The admin pages as a service of Pingora: sockets, TLS, the handover of an upgrade and the end of the process stay
/// Pingora's business; on each connection hyper speaks HTTP/1.1 or HTTP/2.
pub struct AdminListener {
    router: Router,
    connections: Semaphore,
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl AdminListener {
    /// Serves `admin`.
    #[must_use]
    pub fn new(admin: Arc<Admin>) -> Self {
        let connections = admin.settings().map_or(CONNECTIONS_MIN, |settings| settings.connections);
        Self { router: super::router(admin), connections: Semaphore::new(connections) }
    }
}

#[async_trait]
impl ServerApp for AdminListener {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // Whoever comes when all places are taken is let go at once, and may try again.
        let _place = self.connections.try_acquire().ok()?;
        let peer = stream.get_socket_digest().and_then(|digest| digest.peer_addr()?.as_inet().copied());
        let router = TowerToHyperService::new(self.router.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            router.call(request)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut shutdown = shutdown.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = shutdown.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "A connection to the admin pages ended before its time.");
        }
        None
    }
}

const CONNECTIONS_MIN: usize = 16;
const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
const HEADER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);
const PING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);
const STREAMS_MAX: u32 = 100;
