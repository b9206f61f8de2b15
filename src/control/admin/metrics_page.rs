//! How is it going, in numbers? The metrics listener.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;

use super::guard::{self, Turned};

/// `/metrics`.
pub struct MetricsPage {
    /// Where it listens: its own address is an accepted `Host`.
    pub address: SocketAddr,
    /// Whose `allowed_hosts` are accepted too.
    pub live: Arc<Live>,
    /// What it tells.
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl ServeHttp for MetricsPage {
    async fn response(&self, client: &mut ServerSession) -> Response<Vec<u8>> {
        let head = client.req_header();
        match guard::look_at(
            &head.method,
            &head.headers,
            &head.uri,
            self.address,
            &self.live.peek().config.allowed_hosts,
        ) {
            Err(Turned::Method) => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
            Err(Turned::Away) => text(StatusCode::FORBIDDEN, "forbidden\n"),
            Ok(()) if head.uri.path() == "/metrics" => answer(StatusCode::OK, METRICS_TYPE, self.metrics.render()),
            Ok(()) => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    answer(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
