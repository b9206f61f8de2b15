//! What does the demo consist of? Ports, keys and secrets of this run, and the gateway's configuration made from them.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::demo::issuer::GATEWAY_CLIENT;
use crate::demo::issuer::Issuer;
use crate::demo::issuer::READ;
use crate::demo::issuer::TOOLS_AUDIENCE;
use crate::demo::issuer::WRITE;
use crate::demo::loopback::BindError;
use crate::demo::loopback::LoopbackListener;
use crate::demo::mail::Mail;
use crate::demo::private_dir::PrivateDir;
use crate::demo::scenario::{Additions, Scenario};
use crate::demo::token::NoRandomness;
use crate::demo::token::random_bytes;
use crate::demo::token::random_text;
use crate::demo::tools::Instance;
use crate::demo::tools::MCP_PATH;
use crate::demo::tools::Notes;

/// Everything of one run but the gateway: the issuer's and the instances' sockets are bound and wait, the secrets and
/// the gateway's configuration are on disk in a private directory.
pub struct Prepared {
    pub(super) directory: PrivateDir,
    pub(super) config_path: PathBuf,
    pub(super) config: String,
    pub(super) places: Places,
    pub(super) scenario: Option<Scenario>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) issuer_listener: LoopbackListener,
    pub(super) instances: Vec<(Instance, LoopbackListener)>,
    pub(super) mail: (Mail, LoopbackListener),
}

/// Where the gateway will be found.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) gateway: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) admin: SocketAddr,
    /// The server that nobody has registered yet.
    pub(super) mail: SocketAddr,
    pub(super) audit: PathBuf,
}

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The private directory or a file in it.
    #[error("cannot write the demo's files: {0}")]
    Files(#[from] io::Error),
    /// The system's random source.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl Prepared {
    /// The configuration for the gateway, on disk until the demo ends.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// The same as text.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.config
    }
}

/// Prepares a run in which the gateway listens on `listen`, a loopback address; port 0 chooses free ones for everything.
/// Otherwise metrics and admin get 127.0.0.1:9090 and :9091, or free ports where those are taken. A scenario has some more
/// configuration.
///
/// # Errors
/// [`DemoError`]; nothing is left behind.
pub fn prepare(listen: SocketAddr, scenario: Option<Scenario>) -> Result<Prepared, DemoError> {
    // The gateway binds its addresses itself. They are held until all are chosen, so that none is chosen twice.
    let gateway = LoopbackListener::bind(listen)?;
    let port = |usual| if listen.port() == 0 { 0 } else { usual };
    let metrics = bind_or_any(port(METRICS_PORT))?;
    let admin = bind_or_any(port(ADMIN_PORT))?;
    let issuer_listener = bind_or_any(0)?;
    let issuer = Arc::new(
        Issuer::new(format!("http://{}", issuer_listener.address()), format!("http://{}{ROUTE}", gateway.address()))?
            .granting_for(format!("http://{}{MAIL_ROUTE}", gateway.address()))
            .signing_in_for(format!("http://{}/signin/callback", admin.address())),
    );
    let notes = Notes::default();
    let mut instances = Vec::new();
    for id in ["a", "b"] {
        instances.push((Instance::new(id, Arc::clone(&issuer), notes.clone()), bind_or_any(0)?));
    }
    let mail = (Mail::default(), bind_or_any(0)?);

    let directory = PrivateDir::create(&random_text::<12>()?)?;
    let session_key = directory.write("session.key", STANDARD.encode(random_bytes::<32>()?).as_bytes())?;
    let client_secret = directory.write("client.secret", issuer.client_secret().expose().as_bytes())?;
    let places = Places {
        gateway: gateway.address(),
        metrics: metrics.address(),
        admin: admin.address(),
        mail: mail.1.address(),
        audit: directory.path().join("audit.jsonl"),
    };
    let store = directory.path().join("registry.db");
    let control = directory.path().join("control.sock");
    let files = [&*session_key, &*client_secret, &*store, &*control];
    let additions = scenario.map(Scenario::additions).unwrap_or_default();
    let config = configuration(&places, &issuer, &instances, files, &additions);
    let config_path = directory.write("portcullis.yaml", config.as_bytes())?;
    Ok(Prepared { directory, config_path, config, places, scenario, issuer, issuer_listener, instances, mail })
}

/// The gateway's public path.
pub(super) const ROUTE: &str = "/mcp";
/// The public path that the second server is to be registered at.
pub(super) const MAIL_ROUTE: &str = "/mail";
/// What the echo rule does not let through.
pub(super) const UNSAID: &str = "secret";

const METRICS_PORT: u16 = 9090;
const ADMIN_PORT: u16 = 9091;

fn bind_or_any(port: u16) -> Result<LoopbackListener, BindError> {
    LoopbackListener::bind((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|_taken| LoopbackListener::bind((Ipv4Addr::LOCALHOST, 0).into()))
}

fn configuration(
    places: &Places,
    issuer: &Issuer,
    instances: &[(Instance, LoopbackListener)],
    files: [&Path; 4],
    additions: &Additions,
) -> String {
    let Places { gateway, metrics, admin, audit, .. } = places;
    let (audit, [session_key, client_secret, store, control]) = (quoted(audit), files.map(quoted));
    let instances: String = instances
        .iter()
        .zip(additions.instances)
        .map(|((instance, listener), more)| {
            format!("      - {{ id: {}, url: \"http://{}\"{more} }}\n", instance.id(), listener.address())
        })
        .collect();
    let issuer = issuer.url();
    let Additions { sections, server, route, .. } = additions;
    format!(
        r#"# Made by `portcullis demo` for one run: clear text, loopback, secrets that end with it. The shape is that of a real one.
server:
  threads: 2
  grace_period_seconds: 1
  graceful_shutdown_timeout_seconds: 1
  control_sock: {control}
listen:
  - address: "{gateway}"
public_url: "http://{gateway}"
metrics: {{ address: "{metrics}" }}
admin:
  address: "{admin}"
  sign_in:
    issuer: demo
    client: {{ id: {GATEWAY_CLIENT}, secret: {{ file: {client_secret} }}, auth: client_secret_basic }}
    roles: {{ admin: [platform], auditor: [platform], approver: [security] }}
store: {{ sqlite: {store} }}
registry:
  refresh: 5s
  approvals: {{ groups: [security], required: 2 }}
audit:
  file: {audit}
session:
  keys: [{{ file: {session_key} }}]
  ttl: 1h

issuers:
  - name: demo
    issuer: "{issuer}"
    algorithms: [ES256]
    jwks: {{ discover: true }}

agents:
  access_tokens: [{{ issuer: demo, claims: [act] }}]    # the sample tokens name the agent that acts for the user

servers:
  - name: tools
    path: {MCP_PATH}
    instances:
{instances}    health: {{ interval: 1s, timeout: 1s, unhealthy_after: 2, healthy_after: 1 }}
    credential:
      token_exchange:
        token_endpoint: "{issuer}/token"
        client: {{ id: {GATEWAY_CLIENT}, secret: {{ file: {client_secret} }}, auth: client_secret_basic }}
        audience: [{TOOLS_AUDIENCE}]
        scope: ["{READ}", "{WRITE}"]     # at most; the issuer grants what the caller's own token holds
    forward_claims: {{ sub: X-User-Id }}
{server}
routes:
  - path: {ROUTE}
    servers: [tools]
    issuers: [demo]
    agents: optional
    scopes_supported: ["{READ}", "{WRITE}"]
{route}    authorization:
      default: deny
      rules:
        - name: readers
          source: {{ jwt: {{ scopes: ["{READ}"] }} }}
          target:
            tools:
              - {{ server: tools, tool: add }}
              - {{ server: tools, tool: counter }}
              - {{ server: tools, tool: echo, when: '!args.text.contains("{UNSAID}")' }}
              - {{ server: tools, tool: notes_list }}
              - {{ server: tools, tool: slow }}
              - {{ server: tools, tool: whoami }}
            prompts:
              - {{ server: tools, prompt: summarize_notes }}
            resources:
              - {{ server: tools, uri: "notes://*" }}
        - name: writers
          source: {{ jwt: {{ scopes: ["{WRITE}"] }} }}
          target: {{ tools: [{{ server: tools, tool: notes_add }}] }}
{sections}"#
    )
}

/// A path as a double-quoted YAML scalar; what JSON escapes, YAML reads alike (YAML 1.2.2 §7.3.1).
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use saphyr::LoadableYamlNode as _;
    use saphyr::Yaml;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn refuses_to_listen_where_others_can_reach_it() {
        let refused = prepare("0.0.0.0:0".parse().unwrap(), None).map(|_| ());
        assert!(matches!(refused, Err(DemoError::Bind(BindError::NotLoopback(_)))), "{refused:?}");
    }

    #[test]
    fn says_so_when_the_address_is_taken() {
        let taken = LoopbackListener::bind(ANY).unwrap();
        let refused = prepare(taken.address(), None).map(|_| ());
        assert!(matches!(refused, Err(DemoError::Bind(BindError::Io { .. }))), "{refused:?}");
    }

    #[test]
    fn secrets_stay_in_private_files_and_out_of_the_configuration() {
        let prepared = prepare(ANY, None).unwrap();
        for name in ["client.secret", "session.key", "portcullis.yaml"] {
            let mode = fs::metadata(prepared.directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let key = fs::read_to_string(prepared.directory.path().join("session.key")).unwrap();
        assert_eq!(STANDARD.decode(&key).unwrap().len(), 32);
        for secret in [key.as_str(), prepared.issuer.client_secret().expose()] {
            assert!(!prepared.config().contains(secret));
        }
    }

    #[test]
    fn the_configuration_names_the_sockets_that_wait() {
        let prepared = prepare(ANY, None).unwrap();
        let documents = Yaml::load_from_str(&fs::read_to_string(prepared.config_path()).unwrap()).unwrap();
        let root = documents.first().unwrap();
        let text = |node: &Yaml<'_>, key: &str| node.as_mapping_get(key).unwrap().as_str().unwrap().to_owned();
        fn first<'a>(node: &'a Yaml<'a>, key: &str) -> &'a Yaml<'a> {
            node.as_mapping_get(key).unwrap().as_sequence_get(0).unwrap()
        }
        assert_eq!(text(first(root, "listen"), "address"), prepared.places.gateway.to_string());
        assert_eq!(text(first(root, "issuers"), "issuer"), prepared.issuer.url());
        let instance = first(first(root, "servers"), "instances");
        let listener = &prepared.instances.first().unwrap().1;
        assert_eq!(text(instance, "url"), format!("http://{}", listener.address()));
        assert_eq!(text(first(root, "routes"), "path"), ROUTE);
    }

    #[test]
    fn a_path_with_quotes_and_backslashes_stays_one_yaml_scalar() {
        let path = Path::new("/tmp/a \"b\" \\ #c");
        let documents = Yaml::load_from_str(&format!("file: {}", quoted(path))).unwrap();
        assert_eq!(documents.first().unwrap().as_mapping_get("file").unwrap().as_str(), path.to_str());
    }

    #[test]
    fn two_runs_share_nothing() {
        let (one, other) = (prepare(ANY, None).unwrap(), prepare(ANY, None).unwrap());
        assert_ne!(one.issuer.client_secret().expose(), other.issuer.client_secret().expose());
        assert_ne!(one.issuer.users()[0].password.expose(), other.issuer.users()[0].password.expose());
        assert_ne!(one.config_path(), other.config_path());
    }
}
