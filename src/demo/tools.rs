//! What is behind the gateway? A small MCP server on the official SDK, run as several instances of one server.
//!
//! Every instance speaks both eras on one path: sessions for the revisions up to 2025-11-25, single requests for
//! 2026-07-28. It is a resource server of its own (RFC 6750): it takes tokens that the sample issuer has minted for
//! [`TOOLS_AUDIENCE`] and answers anything else with 401, so a gateway that passed the caller's token on would get nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::request::Parts;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use axum::response::Response;
use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::ServerHandler;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CacheScope;
use rmcp::model::CallToolResult;
use rmcp::model::ContentBlock;
use rmcp::model::Implementation;
use rmcp::model::ListResourcesResult;
use rmcp::model::PaginatedRequestParams;
use rmcp::model::ProgressNotificationParam;
use rmcp::model::PromptMessage;
use rmcp::model::ReadResourceRequestParams;
use rmcp::model::ReadResourceResponse;
use rmcp::model::ReadResourceResult;
use rmcp::model::Resource;
use rmcp::model::ResourceContents;
use rmcp::model::Role;
use rmcp::model::ServerCapabilities;
use rmcp::model::ServerConfig;
use rmcp::prompt;
use rmcp::prompt_handler;
use rmcp::prompt_router;
use rmcp::schemars;
use rmcp::service::RequestContext;
use rmcp::tool;
use rmcp::tool_handler;
use rmcp::tool_router;
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::demo::issuer::Issuer;
use crate::demo::issuer::TOOLS_AUDIENCE;
use crate::demo::token::fingerprint;
use crate::time::Clock;

/// One instance of the tool server.
#[derive(Clone)]
pub struct Instance {
    id: &'static str,
    issuer: Arc<Issuer>,
    notes: Notes,
    requests: Arc<AtomicU64>,
}

/// Every user's notes. All instances share them, as they would share a database.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Instance {
    /// An instance that has seen nothing.
    #[must_use]
    pub fn new(id: &'static str, issuer: Arc<Issuer>, notes: Notes) -> Self {
        Self { id, issuer, notes, requests: Arc::default() }
    }

    /// Its id, as in the gateway's configuration.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// How many HTTP requests have reached it, refused ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// MCP on [`MCP_PATH`]; `stop` ends its sessions and streams.
    pub fn router(&self, stop: CancellationToken) -> Router {
        let instance = self.clone();
        let service = StreamableHttpService::new(
            move || Ok(Tools::new(instance.clone())),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default().with_json_response(true).with_cancellation_token(stop),
        );
        Router::new()
            .route_service(MCP_PATH, service)
            .layer(middleware::from_fn_with_state(self.clone(), require_token))
    }
}

/// Where MCP is served.
pub const MCP_PATH: &str = "/mcp";

impl Notes {
    /// Adds a note and returns its number, counted from 1; `None` when the user has [`NOTES_MAX`].
    fn add(&self, user: &str, text: String) -> Option<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = all.entry(user.to_owned()).or_default();
        if notes.len() >= NOTES_MAX {
            return None;
        }
        notes.push(text);
        Some(notes.len())
    }

    fn of(&self, user: &str) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(user).cloned().unwrap_or_default()
    }
}

/// Who calls, as the token says that was sent to this instance.
#[derive(Clone, Debug)]
struct Received {
    user: String,
    claims: Map<String, Value>,
    token_sha256: String,
}

/// RFC 6750 §3: 401 with a challenge unless the request carries one token for this server.
async fn require_token(State(instance): State<Instance>, mut request: Request, next: Next) -> Response {
    instance.requests.fetch_add(1, Ordering::Relaxed);
    let received = bearer(request.headers()).and_then(|unverified_token| {
        let claims = instance.issuer.verify(unverified_token, TOOLS_AUDIENCE, Clock.now()).ok()?;
        let user = claims.get("sub")?.as_str()?.to_owned();
        Some(Received { user, claims, token_sha256: fingerprint(unverified_token) })
    });
    let Some(received) = received else {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")]).into_response();
    };
    request.extensions_mut().insert(received);
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The MCP side: one value per session in the older revisions, one per request in 2026-07-28.
#[derive(Clone)]
struct Tools {
    instance: Instance,
    count: Arc<AtomicU64>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Echo {
    /// What to say back.
    text: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Add {
    /// One number.
    a: f64,
    /// The other.
    b: f64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Slow {
    /// How long it takes, at most 60.
    seconds: f64,
    /// How many times it reports, 1 to 100.
    steps: u32,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct NoteText {
    /// What to remember, at most 1000 bytes.
    text: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Summary {
    /// How to write, for example "in one sentence".
    style: String,
}

#[tool_router]
impl Tools {
    fn new(instance: Instance) -> Self {
        Self { instance, count: Arc::default() }
    }

    #[tool(description = "Says the text back.", annotations(read_only_hint = true))]
    async fn echo(&self, Parameters(Echo { text }): Parameters<Echo>) -> CallToolResult {
        CallToolResult::success(vec![ContentBlock::text(text)])
    }

    #[tool(description = "Adds two numbers.", annotations(read_only_hint = true))]
    async fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> CallToolResult {
        CallToolResult::structured(json!({ "sum": a + b }))
    }

    #[tool(
        description = "Shows what this instance received: the claims of the token, and the headers made from them.",
        annotations(read_only_hint = true)
    )]
    async fn whoami(&self, context: RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let received = received(&context)?;
        let header = |name| {
            let value = context.extensions.get::<Parts>()?.headers.get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        Ok(CallToolResult::structured(json!({
            "instance": self.instance.id,
            "token": { "claims": received.claims, "sha256": received.token_sha256 },
            "x_user_id": header("x-user-id"),
            "session": header("mcp-session-id").is_some(),
        })))
    }

    #[tool(description = "Counts the calls of this session: 1, 2, 3. Without a session it stays at 1.")]
    async fn counter(&self) -> CallToolResult {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        CallToolResult::structured(json!({ "instance": self.instance.id, "count": count }))
    }

    #[tool(description = "Takes its time and reports progress.", annotations(read_only_hint = true))]
    async fn slow(
        &self,
        Parameters(Slow { seconds, steps }): Parameters<Slow>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        if !(0.0..=SLOW_SECONDS_MAX).contains(&seconds) || !(1..=SLOW_STEPS_MAX).contains(&steps) {
            return Err(ErrorData::invalid_params("seconds must be 0 to 60 and steps 1 to 100", None));
        }
        let pause = Duration::from_secs_f64(seconds) / steps;
        let progress_token = context.meta.get_progress_token();
        for step in 1..=steps {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
            }
            if let Some(progress_token) = &progress_token {
                let progress = ProgressNotificationParam::new(progress_token.clone(), f64::from(step))
                    .with_total(f64::from(steps))
                    .with_message(format!("step {step} of {steps}"));
                // A client that has gone shows as cancellation, not here.
                let _gone = context.peer.notify_progress(progress).await;
            }
        }
        Ok(CallToolResult::structured(json!({ "instance": self.instance.id, "steps": steps })))
    }

    #[tool(description = "Remembers a note.")]
    async fn notes_add(
        &self,
        Parameters(NoteText { text }): Parameters<NoteText>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        if text.len() > NOTE_BYTES_MAX {
            return Ok(CallToolResult::error(vec![ContentBlock::text("A note has at most 1000 bytes.")]));
        }
        Ok(self.instance.notes.add(&received(&context)?.user, text).map_or_else(
            || CallToolResult::error(vec![ContentBlock::text("There is no room for another note.")]),
            |number| CallToolResult::structured(json!({ "uri": format!("{NOTE_SCHEME}{number}") })),
        ))
    }

    #[tool(description = "Shows your notes.", annotations(read_only_hint = true))]
    async fn notes_list(&self, context: RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let notes = self.instance.notes.of(&received(&context)?.user);
        Ok(CallToolResult::structured(json!({ "notes": notes })))
    }
}

#[prompt_router]
impl Tools {
    #[prompt(name = "summarize_notes", description = "Asks for a summary of your notes.")]
    async fn summarize_notes(
        &self,
        Parameters(Summary { style }): Parameters<Summary>,
        context: RequestContext<RoleServer>,
    ) -> Result<Vec<PromptMessage>, ErrorData> {
        let notes = self.instance.notes.of(&received(&context)?.user).join("\n- ");
        Ok(vec![PromptMessage::new_text(Role::User, format!("Summarize {style}:\n- {notes}"))])
    }
}

#[tool_handler]
#[prompt_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("portcullis-demo-tools", env!("CARGO_PKG_VERSION")))
            .with_instructions("Sample tools of `portcullis demo`.")
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let notes = self.instance.notes.of(&received(&context)?.user);
        let resources =
            (1..=notes.len()).map(|number| Resource::new(format!("{NOTE_SCHEME}{number}"), format!("Note {number}")));
        let mut list = ListResourcesResult::with_all_items(resources.collect());
        list.cache_scope = Some(CacheScope::Private);
        Ok(list)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let notes = self.instance.notes.of(&received(&context)?.user);
        let number = request.uri.strip_prefix(NOTE_SCHEME).and_then(|number| number.parse::<usize>().ok());
        let note = number.and_then(|number| notes.get(number.checked_sub(1)?));
        let note = note.ok_or_else(|| ErrorData::resource_not_found("no such note", None))?;
        let mut result = ReadResourceResult::new(vec![ResourceContents::text(note, request.uri)]);
        result.cache_scope = Some(CacheScope::Private);
        Ok(result.into())
    }
}

/// What [`require_token`] has left with the request.
fn received(context: &RequestContext<RoleServer>) -> Result<&Received, ErrorData> {
    context
        .extensions
        .get::<Parts>()
        .and_then(|parts| parts.extensions.get::<Received>())
        .ok_or_else(|| ErrorData::internal_error("the request came around the token check", None))
}

const NOTE_SCHEME: &str = "notes://";
const NOTES_MAX: usize = 100;
const NOTE_BYTES_MAX: usize = 1000;
const SLOW_SECONDS_MAX: f64 = 60.0;
const SLOW_STEPS_MAX: u32 = 100;

#[cfg(test)]
mod tests;
