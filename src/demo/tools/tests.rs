#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use rmcp::ClientHandler;
use rmcp::ClientLifecycleMode;
use rmcp::ClientServiceExt as _;
use rmcp::RoleClient;
use rmcp::model::CallToolRequestParams;
use rmcp::model::GetPromptRequestParams;
use rmcp::model::NumberOrString;
use rmcp::model::ProgressToken;
use rmcp::model::ProtocolVersion;
use rmcp::model::RequestMetaObject;
use rmcp::service::NotificationContext;
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio_util::sync::DropGuard;

use super::*;
use crate::demo::issuer::Client;
use crate::demo::issuer::Grant;
use crate::demo::issuer::READ;
use crate::demo::loopback::LoopbackListener;

const TOOL_NAMES: [&str; 7] = ["add", "counter", "echo", "notes_add", "notes_list", "slow", "whoami"];

#[tokio::test]
async fn offers_the_same_tools_in_both_eras() {
    let running = Running::start();
    for era in [legacy(), modern()] {
        let client = running.client("alice", &era).await;
        let mut names: Vec<String> =
            client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name.into_owned()).collect();
        names.sort();
        assert_eq!(names, TOOL_NAMES, "{era:?}");
        assert_eq!(call(&client, "echo", json!({ "text": "hello" })).await.content[0].as_text().unwrap().text, "hello");
        assert_eq!(structured(&client, "add", json!({ "a": 2, "b": 0.5 })).await, json!({ "sum": 2.5 }));
    }
}

#[tokio::test]
async fn counts_per_session_and_not_across_sessions() {
    let running = Running::start();
    let (one, other) = (running.client("alice", &legacy()).await, running.client("alice", &legacy()).await);
    for (client, count) in [(&one, 1), (&one, 2), (&other, 1), (&one, 3)] {
        let counted = structured(client, "counter", json!({})).await;
        assert_eq!(counted, json!({ "instance": "a", "count": count }));
    }
}

#[tokio::test]
async fn a_modern_call_has_no_session_to_count_in() {
    let running = Running::start();
    let client = running.client("alice", &modern()).await;
    for _ in 0..2 {
        assert_eq!(structured(&client, "counter", json!({})).await["count"], 1);
    }
}

#[tokio::test]
async fn whoami_shows_the_token_it_was_sent() {
    let running = Running::start();
    for (era, session) in [(legacy(), true), (modern(), false)] {
        let client = running.client("alice", &era).await;
        let seen = structured(&client, "whoami", json!({})).await;
        assert_eq!(seen["instance"], "a");
        assert_eq!(seen["session"], session, "{era:?}");
        assert_eq!(seen["token"]["claims"]["sub"], "alice");
        assert_eq!(seen["token"]["claims"]["aud"], "demo-tools");
        assert_eq!(seen["token"]["claims"]["act"], json!({ "sub": "portcullis" }));
        assert_eq!(seen["token"]["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(seen["x_user_id"], Value::Null);
    }
}

#[tokio::test]
async fn slow_reports_each_step_before_the_result() {
    let running = Running::start();
    for era in [legacy(), modern()] {
        let client = running.client("alice", &era).await;
        let arguments = json!({ "seconds": 0.05, "steps": 3 });
        let mut request = request("slow", arguments);
        request.meta = Some(RequestMetaObject::with_progress_token(ProgressToken(NumberOrString::Number(7))));
        let result = client.call_tool(request).await.unwrap();
        assert_eq!(result.structured_content.unwrap()["steps"], 3);
        let steps = client.service().steps.lock().unwrap().clone();
        assert_eq!(steps, [1.0, 2.0, 3.0], "{era:?}");
    }
}

#[tokio::test]
async fn slow_refuses_to_take_forever() {
    let running = Running::start();
    let client = running.client("alice", &modern()).await;
    for arguments in [json!({ "seconds": 61, "steps": 1 }), json!({ "seconds": 1, "steps": 0 })] {
        let error = client.call_tool(request("slow", arguments)).await.unwrap_err();
        assert!(error.to_string().contains("seconds must be 0 to 60"), "{error}");
    }
}

#[tokio::test]
async fn notes_belong_to_their_user_and_are_seen_by_every_instance() {
    let running = Running::start();
    let second = running.another_instance("b");
    let alice = running.client("alice", &modern()).await;
    assert_eq!(structured(&alice, "notes_add", json!({ "text": "milk" })).await, json!({ "uri": "notes://1" }));

    let elsewhere = second.client("alice", &legacy()).await;
    assert_eq!(structured(&elsewhere, "notes_list", json!({})).await, json!({ "notes": ["milk"] }));
    assert_eq!(elsewhere.list_all_resources().await.unwrap()[0].uri, "notes://1");
    let read = elsewhere.read_resource(ReadResourceRequestParams::new("notes://1")).await.unwrap();
    assert_eq!(read.contents, [ResourceContents::text("milk", "notes://1")]);
    let summary = Map::from_iter([("style".to_owned(), json!("briefly"))]);
    let prompt =
        elsewhere.get_prompt(GetPromptRequestParams::new("summarize_notes").with_arguments(summary)).await.unwrap();
    assert_eq!(prompt.messages, [PromptMessage::new_text(Role::User, "Summarize briefly:\n- milk")]);

    let bob = running.client("bob", &modern()).await;
    assert_eq!(structured(&bob, "notes_list", json!({})).await, json!({ "notes": [] }));
    for uri in ["notes://1", "notes://0", "notes://-1", "file:///etc/passwd"] {
        assert!(bob.read_resource(ReadResourceRequestParams::new(uri)).await.is_err(), "{uri}");
    }
}

/// The token of a caller is minted for the gateway. Passed on as it is, it opens nothing here.
#[tokio::test]
async fn refuses_any_token_that_was_not_exchanged_for_this_server() {
    let running = Running::start();
    let for_gateway = running.token("alice", "http://127.0.0.1:8080/mcp");
    let table =
        [None, Some(format!("Bearer {for_gateway}")), Some("Bearer opaque".to_owned()), Some("Basic YTpi".to_owned())];
    let http = crate::demo::http_client().unwrap();
    for authorization in table {
        let mut request = http.post(&running.url).json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }));
        if let Some(authorization) = &authorization {
            request = request.header("authorization", authorization);
        }
        assert_eq!(request.send().await.unwrap().status(), 401, "{authorization:?}");
    }
    assert_eq!(running.instance.requests(), 4);
}

#[test]
fn notes_have_a_bound() {
    let notes = Notes::default();
    for number in 1..=NOTES_MAX {
        assert_eq!(notes.add("alice", "x".to_owned()), Some(number));
    }
    assert_eq!(notes.add("alice", "x".to_owned()), None);
    assert_eq!(notes.add("bob", "x".to_owned()), Some(1));
}

struct Running {
    instance: Instance,
    url: String,
    _stop: DropGuard,
}

impl Running {
    fn start() -> Self {
        let issuer = Issuer::new("http://127.0.0.1:1".to_owned(), "http://127.0.0.1:8080/mcp".to_owned()).unwrap();
        Self::serve(Instance::new("a", Arc::new(issuer), Notes::default()))
    }

    fn another_instance(&self, id: &'static str) -> Self {
        Self::serve(Instance::new(id, Arc::clone(&self.instance.issuer), self.instance.notes.clone()))
    }

    fn serve(instance: Instance) -> Self {
        let listener = LoopbackListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let url = format!("http://{}{MCP_PATH}", listener.address());
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(instance.router(stop.child_token()), stop.clone()));
        Self { instance, url, _stop: stop.drop_guard() }
    }

    fn token(&self, user: &str, audience: &str) -> String {
        let lifetime = Duration::from_secs(60);
        let grant = Grant { user, scopes: &[READ], audience, client: Client::Gateway, lifetime };
        self.instance.issuer.mint(&grant, Clock.now()).unwrap()
    }

    async fn client(&self, user: &str, era: &ClientLifecycleMode) -> RunningService<RoleClient, Listener> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .auth_header(self.token(user, TOOLS_AUDIENCE));
        let transport = StreamableHttpClientTransport::with_client(crate::demo::http_client().unwrap(), config);
        Listener::default().serve_with_lifecycle(transport, era.clone()).await.unwrap()
    }
}

/// An MCP client that writes down the progress it is told of.
#[derive(Clone, Default)]
struct Listener {
    steps: Arc<Mutex<Vec<f64>>>,
}

impl ClientHandler for Listener {
    async fn on_progress(&self, progress: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.steps.lock().unwrap().push(progress.progress);
    }
}

fn legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

fn request(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone())
}

async fn call(client: &RunningService<RoleClient, Listener>, tool: &'static str, arguments: Value) -> CallToolResult {
    client.call_tool(request(tool, arguments)).await.unwrap()
}

async fn structured(client: &RunningService<RoleClient, Listener>, tool: &'static str, arguments: Value) -> Value {
    call(client, tool, arguments).await.structured_content.unwrap()
}
