//! The official Rust SDK on both sides: a server and clients that speak the real protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    ClientConfig, InitializeRequestParams, ProgressNotificationParam, ProtocolVersion, ServerCapabilities, ServerConfig,
};
use rmcp::service::{RequestContext, RoleServer, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, RoleClient, ServerHandler, schemars, tool, tool_handler, tool_router,
};

use super::host::Host;
use super::{MODERN, prepare};

/// Tools on the real SDK. One value per session, so `count` counts within a session.
#[derive(Clone)]
struct Tools {
    instance: String,
    count: Arc<AtomicU64>,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Pair {
    a: i64,
    b: i64,
}

#[tool_router]
impl Tools {
    #[tool(description = "Adds two numbers")]
    fn add(&self, Parameters(Pair { a, b }): Parameters<Pair>) -> String {
        (a + b).to_string()
    }

    #[tool(description = "Counts its calls in this session")]
    fn count(&self) -> String {
        format!("{} {}", self.instance, self.count.fetch_add(1, Ordering::SeqCst) + 1)
    }

    #[tool(description = "Tells which credential came with the call")]
    fn credential(&self, Extension(parts): Extension<axum::http::request::Parts>) -> String {
        parts.headers.get("authorization").map_or("none", |value| value.to_str().unwrap()).to_owned()
    }

    #[tool(description = "Reports progress three times")]
    async fn steps(&self, context: RequestContext<RoleServer>) -> String {
        if let Some(token) = context.meta.get_progress_token() {
            for step in 1..=3 {
                let progress = ProgressNotificationParam::new(token.clone(), f64::from(step));
                let _ = context.peer.notify_progress(progress).await;
            }
        }
        "done".to_owned()
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

/// Two instances, `a` and `b`, of a server on the real SDK, both eras on one endpoint.
pub struct RmcpServer {
    hosts: Vec<Host>,
}

impl RmcpServer {
    pub fn start() -> Self {
        Self { hosts: ["a", "b"].map(|instance| Host::start(router(instance), None)).into() }
    }

    /// Names and addresses, as a configuration wants them.
    pub fn instances(&self) -> Vec<(String, SocketAddr)> {
        ["a", "b"].iter().zip(&self.hosts).map(|(id, host)| ((*id).to_owned(), host.address())).collect()
    }
}

fn router(instance: &str) -> Router {
    let instance = instance.to_owned();
    let service: StreamableHttpService<Tools, LocalSessionManager> = StreamableHttpService::new(
        move || Ok(Tools { instance: instance.clone(), count: Arc::default() }),
        Arc::default(),
        StreamableHttpServerConfig::default(),
    );
    Router::new().nest_service("/mcp", service)
}

/// A connected client.
pub type RmcpClient = RunningService<RoleClient, InitializeRequestParams>;

/// Connects the SDK's client, in the modern way for [`MODERN`], else through `initialize` at that revision.
pub async fn connect_rmcp(address: SocketAddr, path: &str, token: &str, revision: &'static str) -> RmcpClient {
    prepare();
    let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{address}{path}")).auth_header(token);
    let transport = StreamableHttpClientTransport::from_config(config);
    let version: ProtocolVersion = serde_json::from_value(revision.into()).unwrap();
    let lifecycle = match revision {
        MODERN => ClientLifecycleMode::Discover { preferred_versions: vec![version.clone()] },
        _ => ClientLifecycleMode::Initialize,
    };
    let mut client = ClientConfig::default();
    client.protocol_version = version;
    client.serve_with_lifecycle(transport, lifecycle).await.expect("the SDK's client connects")
}
