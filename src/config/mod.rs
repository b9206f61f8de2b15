//! What did the operator ask for? YAML turned into checked types; every problem is reported with its key path and line.
//!
//! The types here are what the rest of the program sees: names resolved, durations and sizes parsed, secrets read,
//! rules compiled as far as they can be without the world. Nothing inside re-checks them.

mod agents;
mod fields;
mod files;
pub mod pem;
mod problem;
mod read;
mod secrets;
mod values;
mod weight;
mod yaml;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::identity::IssuerPolicy;
pub use crate::identity::TokenTypes;
use crate::mcp::ItemKind;
use crate::policy::Effect;
use crate::policy::budget::Budget;
use crate::policy::rule::RuleSpec;
use crate::policy::taint::TaintRules;
use crate::routing::region::RegionSpec;
use crate::routing::rule::{CircuitSpec, OnInstanceLoss, RoutingSpec, ShadowSpec};
use crate::routing::subset::Traits;
use crate::secret::Secret;

pub use agents::{AgentClaimsConfig, AgentIssuerConfig, AgentUse, AgentsConfig, AttesterConfig, ServerIdentityConfig};
pub use files::{ThisMachine, control_sock, load, load_shape};
pub use problem::{Complaint, Position, Problem, Report};
pub use read::{Compile, Registered, Summary, control_sock_in, counted, read, read_registered, read_shape};
pub use secrets::{FoundFile, Machine};

/// The least that starts, as `conf/minimal.yaml`.
#[cfg(test)]
pub(crate) const MINIMAL: &str = include_str!("../../conf/minimal.yaml");

/// A whole configuration file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pingora's own settings.
    pub server: ServerSettings,
    /// Where clients connect; at least one.
    pub listen: Vec<Listen>,
    /// Peers whose `X-Forwarded-For` names the client.
    pub trusted_proxies: Vec<IpNet>,
    /// How it is found out where a caller is; `None`: nobody asks.
    pub region: Option<RegionSpec>,
    /// The base of every resource identifier, without a trailing slash, e.g. `https://mcp.example.com`.
    pub public_url: String,
    /// Accepted `Host` values, lower case; an entry without a port accepts every port.
    pub allowed_hosts: Vec<String>,
    /// Accepted `Origin` values, exact.
    pub allowed_origins: Vec<String>,
    /// Whether `Origin`s of loopback hosts are accepted (the default on a loopback listener).
    pub loopback_origins: bool,
    /// Where `/metrics` is served; `None`: nowhere.
    pub metrics: Option<Listen>,
    /// Where the process is looked at and governed; `None`: nowhere.
    pub admin: Option<Arc<AdminSettings>>,
    /// Where the registry is kept; `None`: nothing is governed.
    pub store: Option<StoreConfig>,
    /// How servers are governed.
    pub registry: RegistrySettings,
    /// Where audit records go.
    pub audit: AuditSettings,
    /// Session ids.
    pub session: SessionSettings,
    /// Bounds.
    pub limits: Limits,
    /// Hosts, lower case, that our own calls (keys, metadata, token exchange) may reach without TLS. Default: none.
    pub plain_http_hosts: Vec<String>,
    /// Who may vouch for a person.
    pub issuers: Vec<Arc<IssuerConfig>>,
    /// Whom we believe about agents; `None`: nobody.
    pub agents: Option<Arc<AgentsConfig>>,
    /// The MCP servers.
    pub servers: Vec<Arc<ServerConfig>>,
    /// How much is enough.
    pub budgets: Vec<Arc<Budget>>,
    /// Where budgets are counted for all gateways; `None`: each counts for itself.
    pub budgets_store: Option<BudgetsStore>,
    /// Which tools must not follow which; `None`: nobody minds.
    pub taint: Option<Arc<TaintRules>>,
    /// The public paths.
    pub routes: Vec<Arc<RouteConfig>>,
    /// The file as it was written, comments left out.
    pub document: Document,
}

/// A configuration file as written: what people look at. It holds no secret, because no key takes one: sources of secrets
/// stand there instead.
#[derive(Clone, Default)]
pub struct Document(pub Arc<serde_json::Value>);

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Document(…)")
    }
}

impl Config {
    /// Every address this process listens on: for clients, for metrics, for the administrator.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listen> {
        let admin = self.admin.iter().map(|admin| Listen { address: admin.address, tls: admin.tls.clone() });
        self.listen.iter().chain(&self.metrics).cloned().chain(admin).collect()
    }
}

/// `server:` Pingora's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Worker threads of the data plane. Default: the number of cores.
    pub threads: usize,
    /// Whether idle workers take work from busy ones. By default where there are several.
    pub work_stealing: bool,
    /// Where the process id is written once the process serves; `portcullis upgrade` finds it there.
    pub pid_file: Option<PathBuf>,
    /// The socket over which an upgrade hands over the listeners.
    pub upgrade_sock: Option<PathBuf>,
    /// The socket over which `portcullis quarantine` finds the running process; `None`: it cannot.
    pub control_sock: Option<PathBuf>,
    /// How long the old process serves its open streams after an upgrade. Default: 30.
    pub grace_period_seconds: u64,
    /// How long `/readyz` says 503 before SIGTERM closes the listening sockets, so that a load balancer notices.
    /// Default: 1.
    pub drain_seconds: u64,
    /// How long a graceful end may take after the grace period. Default: 10.
    pub graceful_shutdown_timeout_seconds: u64,
}

/// One entry of `listen:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// TLS on this address; `None`: clear text (HTTP/1.1 and h2c).
    pub tls: Option<ListenTls>,
}

/// `listen[].tls:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub private_key: PathBuf,
    /// PEM bundle that client certificates must chain to.
    pub client_ca: Option<PathBuf>,
}

/// `store:`
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where it is.
    pub place: StorePlace,
    /// How often it is looked whether another gateway has changed something. Default: 1 s.
    pub poll: Duration,
}

/// Where a store is.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// A PostgreSQL server, by its URL.
    Postgres(Secret<String>),
    /// A file of SQLite's, made when it is not there.
    Sqlite(PathBuf),
}

/// `registry:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrySettings {
    /// The claim that holds the groups of a person. Default: `groups`.
    pub claim: Box<str>,
    /// Groups whose members may approve. Default: none, so that nobody may.
    pub approvers: Vec<Box<str>>,
    /// How many different people must approve. Default: 1.
    pub approvals_required: usize,
    /// How often the lists of a server are read. Default: 60 s.
    pub refresh: Duration,
    /// Time one reading may take. Default: 30 s.
    pub read_timeout: Duration,
    /// Pages of one list that are read. Default: 100.
    pub pages: usize,
    /// Bytes of one page. Default: 16 MiB.
    pub page_bytes: usize,
    /// Items of one server; more are never shown. Default: 2000.
    pub items: usize,
    /// Bytes of one definition; a larger one is never shown. Default: 256 KiB.
    pub definition_bytes: usize,
    /// Bytes of all definitions that are kept of one server. Default: 64 MiB.
    pub server_bytes: usize,
    /// Definitions of one item that are kept. Default: 100.
    pub history: usize,
    /// Servers that may be registered through the API. Default: 200.
    pub servers: usize,
    /// Credentials of the service (systemd) that servers registered through the API may use. Default: none.
    pub credentials: Vec<Box<str>>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            claim: "groups".into(),
            approvers: Vec::new(),
            approvals_required: 1,
            refresh: Duration::from_secs(60),
            read_timeout: Duration::from_secs(30),
            pages: 100,
            page_bytes: 16 << 20,
            items: 2000,
            definition_bytes: 256 << 10,
            server_bytes: 64 << 20,
            history: 100,
            servers: 200,
            credentials: Vec::new(),
        }
    }
}

/// `admin:`
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Address and port of `/healthz`, `/readyz` and `/status`, and of the API and the pages when people can sign in.
    pub address: SocketAddr,
    /// TLS on this address; `None`: clear text.
    pub tls: Option<ListenTls>,
    /// Where browsers find it, without a slash at the end: the base of the redirect URI, the one accepted `Origin`, and the
    /// audience of access tokens. Default: the address.
    pub public_url: String,
    /// Connections at once. Default: 256.
    pub connections: usize,
    /// Bytes of a request body. Default: 1 MiB.
    pub body_bytes: usize,
    /// Records kept for the audit pages, agents and principals likewise. Default: 4096.
    pub recent: usize,
    /// Principals whose sessions were ended that are remembered. Default: 4096.
    pub revocations: usize,
    /// How people sign in; `None`: there are neither pages nor an API.
    pub sign_in: Option<SignIn>,
}

/// `admin.sign_in:`
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Who vouches for people, and how the tokens of that issuer are verified.
    pub issuer: Arc<IssuerConfig>,
    /// The gateway's client id there.
    pub client_id: String,
    /// Its secret; none for a public client.
    pub client_secret: Option<Secret<String>>,
    /// How it proves itself.
    pub client_auth: crate::credential::ClientAuth,
    /// Asked for. Default: openid, profile.
    pub scopes: Vec<Box<str>>,
    /// The claim that holds a person's groups: an exact top-level name, else a dotted path. Default: groups.
    pub claim: Box<str>,
    /// Which groups have which role.
    pub roles: RoleGroups,
    /// How long a session lasts. Default: 8 h.
    pub session_ttl: Duration,
    /// A session unused for this long ends. Default: 1 h.
    pub session_idle: Duration,
    /// Sessions at once. Default: 4096.
    pub sessions: usize,
    /// Time from leaving for the issuer to coming back. Default: 10 min.
    pub attempt_ttl: Duration,
    /// Time for one call of the issuer. Default: 5 s.
    pub timeout: Duration,
}

/// `admin.sign_in.roles:` for each role the groups whose members have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleGroups {
    /// Registers and retires servers, reads and reloads the configuration, ends sessions.
    pub admin: Vec<Box<str>>,
    /// Approves, suspends and resumes servers and items.
    pub approver: Vec<Box<str>>,
    /// Reads the audit records, beside what everybody reads.
    pub auditor: Vec<Box<str>>,
    /// Reads everything but audit records and the configuration.
    pub viewer: Vec<Box<str>>,
}

/// `budgets_store.redis:`
#[derive(Clone, Debug)]
pub struct BudgetsStore {
    /// `redis://` or `rediss://`, with the password.
    pub url: Secret<String>,
    /// PEM bundle of private authorities, instead of the system's; for `rediss://`.
    pub ca: Option<PathBuf>,
    /// What every key begins with. Default: portcullis.
    pub prefix: Box<str>,
    /// How long one request waits for an answer; then its budgets are counted here. Default: 50 ms.
    pub timeout: Duration,
}

/// `audit:`
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Append to this file; reopened on SIGHUP.
    pub file: Option<PathBuf>,
    /// Write to standard output.
    pub stdout: bool,
    /// Queue length in records. Default: 65536.
    pub queue: usize,
    /// What happens to new requests while the queue is full.
    pub on_full: OnFull,
    /// A request still open after this long writes `mcp.opened`. Default: 10 s.
    pub open_after: Duration,
}

/// `audit.on_full:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Refuse them with 503 `audit_unavailable`.
    Refuse,
    /// Let them wait for a place (the default).
    Wait,
}

/// `session:`
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// 32-byte keys; the first seals, all open. At least one.
    pub keys: Vec<Secret<[u8; 32]>>,
    /// How long an id is good for. Default: 12 h.
    pub ttl: Duration,
}

/// `limits:` every bound that is not beside what it bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body. Default: 4 MiB.
    pub body_bytes: usize,
    /// Nesting of JSON arrays and objects. Default: 64.
    pub json_depth: usize,
    /// Bytes of one SSE event from a server. Default: 4 MiB.
    pub sse_event_bytes: usize,
    /// Bytes of a JSON answer that must be read whole to be filtered. Default: 16 MiB.
    pub list_bytes: usize,
    /// Bytes of all request header names and values. Default: 64 KiB.
    pub header_bytes: usize,
    /// Headers of a request. Default: 128.
    pub header_count: usize,
    /// Client connections at once, all listeners together; fewer when the limit on open files does not allow them.
    /// Default: 20000.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection. Default: 100.
    pub http2_streams: usize,
    /// Time in which a connection must bring a whole request head, from its opening or the answer before; so also how long
    /// an unused one stays open. Default: 60 s.
    pub request_head_timeout: Duration,
    /// Time in which a request body must have arrived. Default: 10 s.
    pub request_body_timeout: Duration,
    /// Time one write to a client that does not read may take. Default: 30 s.
    pub client_write_timeout: Duration,
    /// Messages in a 2025-03-26 batch. Default: 50.
    pub batch_messages: usize,
    /// Verified tokens kept. Default: 65536.
    pub token_cache: usize,
    /// Verified agents kept, and nonces of their attestations. Default: 65536.
    pub agent_cache: usize,
    /// Exchanged credentials kept. Default: 65536.
    pub credential_cache: usize,
    /// Decisions kept. Default: 65536.
    pub decision_cache: usize,
    /// Ended sessions remembered until their ids expire. Default: 65536.
    pub revoked_sessions: usize,
    /// Counts that budgets keep at once, one for each limit and key. Default: 131072.
    pub budget_cells: usize,
    /// Marks of what has read untrusted content. Default: 65536.
    pub taint_marks: usize,
    /// Principals, agents and tools that are stopped at once. Default: 1024.
    pub quarantines: usize,
    /// Sessions of which is kept what would have to be said again (`on_instance_loss: reinitialize`), 64 KiB of each at most.
    /// Default: 16384.
    pub handover_sessions: usize,
}

/// One entry of `issuers:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What routes, metrics and logs call it.
    pub name: Arc<str>,
    /// Matched exactly against `iss`.
    pub issuer: Arc<str>,
    /// Accepted `aud` values; empty: the route's own resource identifier.
    pub audiences: Vec<Box<str>>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<crate::identity::Algorithm>,
    /// Where its keys come from.
    pub jwks: JwksSource,
    /// Tolerance for `exp` and `nbf`. Default: 30 s.
    pub clock_leeway: Duration,
    /// Claims whose union is the caller's scopes. Default: `scope`, `scp`.
    pub scope_claims: Vec<Box<str>>,
    /// Accepted `typ` header values, lower case, without `application/`; default `at+jwt`, `jwt` and none at all.
    pub token_types: TokenTypes,
    /// How often keys are fetched again. Default: 5 min.
    pub jwks_refresh: Duration,
    /// Least time between two fetches for unknown key ids. Default: 30 s.
    pub jwks_cooldown: Duration,
}

impl IssuerConfig {
    /// What verification needs of it.
    #[must_use]
    pub fn policy(&self) -> IssuerPolicy {
        IssuerPolicy {
            name: Arc::clone(&self.name),
            issuer: Arc::clone(&self.issuer),
            audiences: self.audiences.clone(),
            algorithms: self.algorithms.clone(),
            clock_leeway: self.clock_leeway,
            scope_claims: self.scope_claims.clone(),
            token_types: self.token_types,
        }
    }
}

/// `issuers[].jwks:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// OpenID Connect Discovery, then RFC 8414 metadata, at the issuer.
    Discover,
    /// A local JWK set, read again on reload and on the refresh interval.
    File(PathBuf),
    /// A JWK set at this URL.
    Url(String),
}

/// One entry of `servers:`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What routes, rules, metrics and logs call it.
    pub name: Arc<str>,
    /// Path at the instance.
    pub path: String,
    /// At least one.
    pub instances: Vec<InstanceConfig>,
    /// Which instances take which requests; `None`: every one takes any.
    pub routing: Option<Arc<RoutingSpec>>,
    /// When an instance is left alone for a while; `None`: never.
    pub circuit: Option<CircuitSpec>,
    /// What becomes of a session whose instance is gone. Default: `not_found`.
    pub on_instance_loss: OnInstanceLoss,
    /// Tools that may be called twice where once was meant: exact names, or prefixes with a trailing `*`. Default: none.
    pub idempotent: Vec<Box<str>>,
    /// Calls that are made once more elsewhere, for comparison; `None`: none.
    pub shadow: Option<ShadowSpec>,
    /// Health checks.
    pub health: HealthSettings,
    /// Time limits.
    pub timeouts: UpstreamTimeouts,
    /// TLS to https instances.
    pub tls: UpstreamTls,
    /// HTTP version to the instances: false is HTTP/1.1 (default), true is HTTP/2 (h2c in clear text).
    pub http2: bool,
    /// What it must prove to be; `None`: nothing.
    pub identity: Option<ServerIdentityConfig>,
    /// What the server sees in `Authorization`.
    pub credential: crate::credential::Plan,
    /// Claim → header.
    pub forward_claims: Vec<(Box<str>, http::HeaderName)>,
    /// How the registry governs it; `None`: not at all.
    pub governed: Option<Governed>,
    /// What is done with its answers, on every route.
    pub content: Vec<Arc<crate::content::Rule>>,
    /// Where it is declared.
    pub declared: Declared,
}

/// Where a server is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// In the configuration file: governed when it says so.
    InTheFile,
    /// Through the API: always governed, and never at an address that the egress rules forbid.
    InTheRegistry,
}

/// `servers[].managed`, and what goes with it.
#[derive(Clone, Debug)]
pub struct Governed {
    /// What becomes of what is not approved. Default: enforce.
    pub pins: Pins,
    /// What is pinned. Default: all kinds.
    pub kinds: Vec<ItemKind>,
    /// How the gateway itself reads its lists; `None`: it does not.
    pub discovery: Option<Discovery>,
}

/// `servers[].pins:`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pins {
    /// It is hidden, and calls are refused.
    #[default]
    Enforce,
    /// Items are not looked at; the server itself is governed.
    Off,
    /// It is told, and passes.
    Warn,
}

/// `servers[].discovery:`
#[derive(Clone, Debug)]
pub struct Discovery {
    /// What the gateway shows in its own name.
    pub credential: crate::credential::Plan,
    /// Which protocol it speaks.
    pub protocol: DiscoveryProtocol,
}

/// `servers[].discovery.protocol:`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiscoveryProtocol {
    /// 2026-07-28, and where the server does not know it the older ones.
    #[default]
    Auto,
    /// 2025-11-25 and older: with a session.
    Legacy,
    /// 2026-07-28: without.
    Modern,
}

/// One entry of `servers[].instances:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceConfig {
    /// Names it in sessions, metrics and logs.
    pub id: Arc<str>,
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// Host name or address as written.
    pub host: String,
    /// Port; 80 and 443 when the URL has none.
    pub port: u16,
    /// Share of new work; default 1.
    pub weight: usize,
    /// What tells it apart from the others.
    pub traits: Traits,
}

/// `servers[].health:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Time between probes. Default: 5 s.
    pub interval: Duration,
    /// Time one probe may take. Default: 1 s.
    pub timeout: Duration,
    /// Failures in a row that turn an instance unhealthy. Default: 3.
    pub unhealthy_after: usize,
    /// Successes in a row that turn it healthy. Default: 1.
    pub healthy_after: usize,
    /// `GET` on this path must answer 200; `None`: a TCP connection is enough.
    pub http_path: Option<String>,
    /// It must answer as an MCP server does. Default: false.
    pub mcp: bool,
}

/// `servers[].timeouts:`
///
/// Over HTTP/1.1 each limit is kept to 0.1 s, also while the server is silent. An HTTP/2 connection is shared by many
/// requests, so that none can be woken alone: there a POST is held to `first_byte`, before its answer and in each silence
/// of it, a GET stream likewise to `idle`, and `total` ends a stream when it next speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To connect, TLS included. Default: 2 s.
    pub connect: Duration,
    /// From sending the request to the head of its answer. Default: 60 s.
    pub first_byte: Duration,
    /// The longest silence of the server between two pieces of an answer or stream. While the client does not take what
    /// came before, the server is not silent. Default: 300 s.
    pub idle: Duration,
    /// A pooled connection unused for this long is closed. Default: 4 s (uvicorn and Node close theirs at 5 s).
    pub keepalive: Duration,
    /// From sending the request, retries included, to the end of its answer or stream. A client that does not read may
    /// take one `limits.client_write_timeout` more. Default: 12 h.
    pub total: Duration,
}

/// `servers[].tls:`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM bundle of private authorities.
    pub ca: Option<PathBuf>,
    /// PEM client certificate.
    pub client_certificate: Option<PathBuf>,
    /// PEM client key.
    pub client_key: Option<PathBuf>,
    /// Name to verify and to send in SNI; default the URL's host.
    pub server_name: Option<String>,
}

/// One entry of `routes:`.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// Exact public path, e.g. `/mcp`.
    pub path: Arc<str>,
    /// `public_url` + `path`: the resource identifier (RFC 8707, RFC 9728).
    pub resource: Arc<str>,
    /// The servers behind it; exactly one until federation comes.
    pub servers: Vec<Arc<str>>,
    /// Names of accepted issuers; at least one.
    pub issuers: Vec<Arc<str>>,
    /// Whether agents are looked for; `None`: they are not.
    pub agents: Option<AgentUse>,
    /// Published in the resource metadata.
    pub scopes_supported: Vec<Box<str>>,
    /// `authorization.default`; deny when not said.
    pub default: Effect,
    /// `authorization.rules`, in order.
    pub rules: Vec<RuleSpec>,
    /// What is done with answers, after what the server's own rules do.
    pub content: Vec<Arc<crate::content::Rule>>,
}

/// Reads a duration as every key does: a number with ms, s, m, h or d.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.hint))
}

/// What is wrong with a rule of a route, found by compiling its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleIssue {
    /// Which rule of the route, from 0.
    pub rule: usize,
    /// The key inside the rule, e.g. `when` or `target.tools[2].when`; empty for the rule as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// What is wrong with the rules of a route: what compiling them says.
#[must_use]
pub fn rule_issues(route: &RouteConfig) -> Vec<RuleIssue> {
    let problems =
        crate::policy::Policy::compile(route.default, &route.rules, &route.servers).err().unwrap_or_default();
    problems
        .into_iter()
        .map(|problem| RuleIssue { rule: problem.rule, path: problem.path, message: problem.message })
        .collect()
}
