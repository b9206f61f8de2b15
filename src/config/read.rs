//! What does every key mean? One function per section, from the top of the file to the bottom, and what must hold between
//! sections.

mod admin;
mod agents;
mod budgets;
mod content;
mod governance;
mod issuer;
mod process;
mod route;
mod routing;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::{Log, Value};
use super::secrets::{FoundFile, Look, Machine};
use super::values;
use super::yaml::{self, Kind, Node};
use super::{Complaint, Config, Declared, Document, Position, Problem, RouteConfig, RuleIssue, ServerConfig};
use crate::secret::Secret;
use process::Web;

/// Checks the conditions of a route's rules: [`crate::policy`]'s part, handed in so that the reader can put lines to them.
pub type Compile<'c> = &'c dyn Fn(&RouteConfig) -> Vec<RuleIssue>;

/// How much a file that is in order configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries of `issuers`.
    pub issuers: usize,
    /// Entries of `servers`.
    pub servers: usize,
    /// Entries of `routes`.
    pub routes: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [(self.routes, "route"), (self.servers, "server"), (self.issuers, "issuer")];
        f.write_str(&words.map(|(count, what)| counted(count, what)).join(", "))
    }
}

/// `1 problem`, `2 problems`.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Config {
    /// How much it configures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { issuers: self.issuers.len(), servers: self.servers.len(), routes: self.routes.len() }
    }
}

/// Reads a configuration file and every secret it names.
///
/// # Errors
/// Every problem of the file in the order of its lines, except that a file which is not YAML has only that one.
pub fn read(text: &str, machine: &dyn Machine, compile: Compile<'_>) -> Result<Config, Vec<Problem>> {
    read_noting(text, Look::Inside(machine), compile, Log::default())
}

/// Checks everything about a configuration file but the files, environment variables and credentials it names.
///
/// # Errors
/// As [`read`].
pub fn read_shape(text: &str, compile: Compile<'_>) -> Result<Summary, Vec<Problem>> {
    read_noting(text, Look::ShapeOnly, compile, Log::default()).map(|config| config.summary())
}

/// Where the control socket of a configuration is, if it says so; nothing else of it is looked at, so that whoever may not
/// read its secrets can ask.
///
/// # Errors
/// The problem of a text that is not YAML.
pub fn control_sock_in(text: &str) -> Result<Option<PathBuf>, Problem> {
    let (root, log) = (yaml::parse(text)?, Log::default());
    let server = Value::root(&root, &log).follow("server");
    Ok(server.quietly("control_sock").map(PathBuf::from))
}

fn read_noting(text: &str, look: Look<'_>, compile: Compile<'_>, log: Log) -> Result<Config, Vec<Problem>> {
    let root = yaml::parse(text).map_err(|problem| vec![problem])?;
    let config = whole(&root, &log, look, compile);
    let problems = log.into_problems();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        // A refusal always says something, so that nobody takes an empty report for a good file.
        None if problems.is_empty() => {
            let complaint =
                Complaint::new("cannot be read", "report this file: the reader has no word for what is wrong");
            Err(vec![Problem::new(String::new(), Position::default(), complaint)])
        }
        _ => Err(problems),
    }
}

/// Every key that the reader knows, as `servers[].name`, found by letting it read `text`.
#[cfg(test)]
pub(super) fn known_keys(text: &str) -> std::collections::BTreeSet<String> {
    let log = Log::default();
    if let Ok(root) = yaml::parse(text) {
        whole(&root, &log, Look::ShapeOnly, &|_| Vec::new());
    }
    log.asked.take()
}

fn whole(root: &Node, log: &Log, look: Look<'_>, compile: Compile<'_>) -> Option<Config> {
    Value::root(root, log).map(|top| {
        let server = process::server(top, look);
        let listen = top.required("listen", |v| process::listen(v, look));
        let trusted_proxies = top.or("trusted_proxies", Vec::new(), |v| v.list(|v| v.parse(values::network)));
        let has_proxies = trusted_proxies.as_ref().is_none_or(|proxies: &Vec<ipnet::IpNet>| !proxies.is_empty());
        let region = top.optional("region", |v| routing::region(v, has_proxies));
        let public_url = top.required("public_url", |v| v.parse(process::public_url));
        let web = process::web(top, public_url.as_deref(), listen.as_deref());
        let metrics = top.optional("metrics", |v| process::inner_listen(v, look));
        let admin_section = top.find("admin");
        let admin_address = admin_section.as_ref().and_then(admin::address_in);
        let metrics_address = metrics.as_ref().and_then(|metrics| Some(metrics.as_ref()?.address));
        process::distinct_addresses(top, listen.as_deref(), metrics_address, admin_address);
        let store = top.optional("store", |v| governance::store(v, look));
        let registry = governance::registry(top);
        let audit = process::audit(top);
        let session = top.required("session", |v| process::session(v, look));
        let limits = process::limits(top);

        let plain_http_hosts =
            top.or("plain_http_hosts", Vec::new(), |v| v.list(|v| v.parse(process::plain_http_host)));
        let plain = plain_http_hosts.clone().unwrap_or_default();
        let issuers = top.find("issuers");
        let issuers = top.must("issuers", issuers);
        let servers = top.find_either("servers");
        let servers = top.must("servers", servers);
        let agents = top.find("agents");
        let is_kept = match store {
            Some(None) => governance::Store::Missing,
            // One with problems is there all the same: servers that want it cause no others.
            Some(Some(_)) | None => governance::Store::There,
        };
        let around = Around {
            public_url: public_url.as_deref().unwrap_or_default(),
            names: Names::declared(issuers.as_ref(), servers.as_ref(), agents.is_some()),
            plain_http_hosts: &plain,
            store: is_kept,
            declared: Declared::InTheFile,
        };
        let names = &around.names;
        let agents = agents.map(|v| agents::agents(&v, names));
        let issuers = issuers.and_then(|v| v.some(|v| issuer::issuer(v, &plain, look)));
        let servers = servers.and_then(|v| v.some(|v| server::server(v, &around, look)));
        let routes = top.required("routes", |v| {
            v.refuse_repeated("path");
            let public_url = public_url.as_deref().unwrap_or_default();
            v.some(|v| route::route(v, public_url, names, route::Rules { compile, plain_http_hosts: &plain, look }))
        });

        let known = budgets::Known {
            routes: top.map().follow("routes").each("path").into_iter().map(|(path, _)| path).collect(),
            servers: names.servers.clone(),
        };
        let budgets = top.or("budgets", Vec::new(), |v| budgets::budgets(v, &known));
        let budgets_store = top.optional("budgets_store", |v| budgets::store(v, look));
        let taint = top.optional("taint", |v| budgets::taint(v, &known));

        let admin = match &admin_section {
            Some(section) => admin::admin(section, issuers.as_deref(), &plain, look).map(Some),
            None => Some(None),
        };

        let Web { allowed_hosts, allowed_origins, loopback_origins } = web?;
        Some(Config {
            server: server?,
            listen: listen?,
            trusted_proxies: trusted_proxies?,
            region: region?,
            allowed_hosts,
            allowed_origins,
            loopback_origins,
            metrics: metrics?,
            admin: admin?.map(Arc::new),
            store: store?,
            registry: registry?,
            audit: audit?,
            session: session?,
            limits: limits?,
            plain_http_hosts: plain_http_hosts?,
            issuers: shared(issuers?),
            agents: match agents {
                Some(agents) => Some(Arc::new(agents?)),
                None => None,
            },
            servers: shared(servers?),
            budgets: budgets?,
            budgets_store: budgets_store?,
            taint: taint?.map(Arc::new),
            routes: shared(routes?),
            public_url: public_url?,
            document: Document(Arc::new(root.to_json())),
        })
    })
}

/// A server that is registered through the API, and the route to it.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The server.
    pub server: ServerConfig,
    /// The route.
    pub route: Option<RouteConfig>,
}

/// Reads a server that is registered through the API: `text` is a JSON (or YAML) map with `server` and `route`, as entries of
/// the lists of the configuration file `base`, and is held to the same rules. It names no file and no variable of this
/// machine: secrets are the service's credentials (systemd) that `registry.credentials` lets it use.
///
/// # Errors
/// Every problem, with a key path that begins with `server` or `route`.
pub fn read_registered(
    text: &str,
    base: &Config,
    machine: &dyn Machine,
    compile: Compile<'_>,
) -> Result<Registered, Vec<Problem>> {
    let log = Log::default();
    let root = yaml::parse(text).map_err(|problem| vec![problem])?;
    let machine = OnlyCredentials { machine, names: &base.registry.credentials };
    let look = Look::Inside(&machine);
    let read = Value::root(&root, &log).map(|top| {
        let server = top.find("server");
        let server = top.must("server", server);
        let route = top.find("route");
        let name = server.as_ref().map(|server| server.follow("name"));
        if let Some(name) = &name
            && base.servers.iter().any(|known| Kind::Text(known.name.to_string()) == *name.kind())
        {
            name.complain("the name is taken", "give each server a name of its own");
        }
        let own =
            name.as_ref().and_then(|name| if let Kind::Text(name) = name.kind() { Some(name.as_str()) } else { None });
        let around = Around {
            public_url: &base.public_url,
            names: Names {
                issuers: base.issuers.iter().map(|issuer| &*issuer.name).collect(),
                servers: own.into_iter().collect(),
                has_agents: base.agents.is_some(),
            },
            plain_http_hosts: &base.plain_http_hosts,
            store: governance::Store::There,
            declared: Declared::InTheRegistry,
        };
        let server = server.and_then(|v| server::server(&v, &around, look));
        let route = match route {
            Some(value) => {
                let rules = route::Rules { compile, plain_http_hosts: around.plain_http_hosts, look };
                let read = route::route(&value, &base.public_url, &around.names, rules)?;
                if base.routes.iter().any(|known| known.path == read.path) {
                    value.follow("path").complain("the path is taken", "give each route a path of its own");
                }
                Some(Some(read))
            }
            None => Some(None),
        };
        Some(Registered { server: server?, route: route? })
    });
    let problems = log.into_problems();
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(problems),
    }
}

/// This machine, as far as somebody may look who writes to the API.
struct OnlyCredentials<'m> {
    machine: &'m dyn Machine,
    names: &'m [Box<str>],
}

impl Machine for OnlyCredentials<'_> {
    fn read(&self, path: &Path) -> Result<FoundFile, String> {
        let directory = self.machine.env(CREDENTIALS).map(|text| PathBuf::from(text.expose()));
        let may = directory.is_some_and(|directory| self.names.iter().any(|name| directory.join(&**name) == path));
        if may {
            return self.machine.read(path);
        }
        Err("may not be used here: a registered server has only the credentials that registry.credentials names"
            .to_owned())
    }

    fn env(&self, name: &str) -> Option<Secret<String>> {
        (name == CREDENTIALS).then(|| self.machine.env(name)).flatten()
    }

    fn cores(&self) -> usize {
        self.machine.cores()
    }
}

const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The names that routes and rules may refer to, taken even from entries with problems, so that those cause no others.
struct Names<'a> {
    issuers: Vec<&'a str>,
    servers: Vec<&'a str>,
    /// Whether there is a section `agents`.
    has_agents: bool,
}

/// What the rest of the file says that an entry of `servers` depends on.
struct Around<'a> {
    public_url: &'a str,
    names: Names<'a>,
    /// Hosts that may be called in clear text.
    plain_http_hosts: &'a [String],
    store: governance::Store,
    declared: Declared,
}

impl<'a> Names<'a> {
    fn declared(issuers: Option<&Value<'a>>, servers: Option<&Value<'a>>, has_agents: bool) -> Self {
        let names = |list: Option<&Value<'a>>| {
            let Some(list) = list else { return Vec::new() };
            list.refuse_repeated("name");
            list.each("name").into_iter().map(|(name, _)| name).collect()
        };
        Self { issuers: names(issuers), servers: names(servers), has_agents }
    }
}

/// Reads a name that must be one of `known`.
fn reference<'a>(value: &Value<'a>, what: &str, known: &[&str]) -> Option<Arc<str>> {
    let name = value.text()?;
    if known.contains(&name) {
        return Some(name.into());
    }
    let hint = match values::nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None if known.is_empty() => format!("declare one under {what}s"),
        None => format!("known: {}", known.join(", ")),
    };
    value.complain(format!("there is no {what} {}", values::quote(name)), hint);
    None
}

fn shared<T>(values: Vec<T>) -> Vec<Arc<T>> {
    values.into_iter().map(Arc::new).collect()
}
