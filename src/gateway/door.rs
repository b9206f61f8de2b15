//! How does the last client get through the door?

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::Gateway;

/// The gateway as a service of Pingora.
///
/// When the listening sockets are closed, Pingora drops every connection whose request has not begun to arrive. A client
/// that was let in a moment before would lose a request that it is just sending. So that end is put off for a little
/// while: long enough for whoever is in to say what they came for.
pub struct Door {
    proxy: Arc<HttpProxy<Gateway>>,
}

impl Door {
    /// In front of `proxy`, whose options must be set already.
    #[must_use]
    pub fn new(proxy: HttpProxy<Gateway>) -> Self {
        Self { proxy: Arc::new(proxy) }
    }
}

#[async_trait]
impl HttpServerApp for Door {
    // As `async_trait` would write it, but for a second future around the first.
    fn process_new_http<'this, 'watch, 'answer>(
        self: &'this Arc<Self>,
        session: ServerSession,
        shutdown: &'watch ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'answer>>
    where
        'this: 'answer,
        'watch: 'answer,
        Self: 'answer,
    {
        self.proxy.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    /// Called when no more connections come in.
    async fn http_cleanup(&self) {
        tokio::time::sleep(LAST_CALL).await;
        self.proxy.http_cleanup().await;
    }
}

/// How long a client that is in may take until its request begins to arrive.
const LAST_CALL: Duration = Duration::from_secs(1);
