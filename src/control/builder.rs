//! Which configuration serves? That of the file, and with it the servers that were registered and approved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::{self, Complaint, Config, Declared, Position, Problem, Registered, ThisMachine};
use crate::net::egress;
use crate::registry::record::Spec;
use crate::routing::router::SideState;
use crate::snapshot::Live;

use super::warmup::{Means, warm_up};
use super::world::{self, BuildError};

/// Builds every snapshot: whoever changes the file and whoever changes the registry take turns here.
pub struct Builder {
    live: Arc<Live>,
    means: Means,
    /// Held from the building of a snapshot until it serves.
    turn: tokio::sync::Mutex<()>,
    parts: Mutex<Parts>,
}

struct Parts {
    file: Config,
    specs: Vec<(Box<str>, Spec)>,
    /// Servers that were approved and cannot serve: the file has changed so that they do not fit in.
    left_out: LeftOut,
}

type LeftOut = BTreeMap<Box<str>, Vec<Problem>>;

impl Builder {
    /// Goes on from `live`, which was built from `file` alone.
    #[must_use]
    pub fn new(file: Config, live: Arc<Live>, means: Means) -> Self {
        let parts = Parts { file, specs: Vec::new(), left_out: BTreeMap::new() };
        Self { live, means, turn: tokio::sync::Mutex::default(), parts: Mutex::new(parts) }
    }

    /// Puts another configuration of the file in force.
    ///
    /// # Errors
    /// [`BuildError`]; the last good one stays.
    pub async fn reload(&self, file: Config) -> Result<u64, BuildError> {
        let _turn = self.turn.lock().await;
        let specs = self.parts().specs.clone();
        let (generation, left_out) = self.build(&file, &specs).await?;
        *self.parts() = Parts { file, specs, left_out };
        self.reopen_splits();
        Ok(generation)
    }

    /// Puts other registered servers in force, if they are others.
    ///
    /// # Errors
    /// [`BuildError`]; what was in force stays.
    pub async fn serve(&self, specs: Vec<(Box<str>, Spec)>) -> Result<(), BuildError> {
        let _turn = self.turn.lock().await;
        let file = {
            let parts = self.parts();
            if parts.specs == specs {
                return Ok(());
            }
            parts.file.clone()
        };
        let (_generation, left_out) = self.build(&file, &specs).await?;
        *self.parts() = Parts { file, specs, left_out };
        Ok(())
    }

    /// Has one side of a split tried again at this gateway. Gives the side as it was found; `None`: no split has it.
    pub async fn reopen_split(&self, server: &str, rule: &str, to: &str) -> Option<SideState> {
        // A snapshot that is being built has taken over already which sides are closed.
        let _turn = self.turn.lock().await;
        let world = self.live.take();
        let server = world.servers.iter().find(|known| **known.name() == *server)?;
        let found = server.router.as_ref()?.reopen_side(rule, to)?;
        if found.closed {
            self.means.metrics.routing.split_closed(server.name(), &found.rule, &found.to, false);
            info!(server = %server.name(), %rule, %to, "A side of a split is tried again.");
        }
        Some(found)
    }

    /// Checks a server that is to be registered, as if `except` were not there.
    ///
    /// # Errors
    /// Every problem.
    pub fn check(&self, spec: &str, except: Option<&str>) -> Result<Registered, Vec<Problem>> {
        let parts = self.parts();
        let others = parts.specs.iter().filter(|(name, _)| Some(&**name) != except);
        let (base, _left_out) = compose(&parts.file, others);
        read(spec, &base)
    }

    /// Why an approved server does not serve; none when it does.
    #[must_use]
    pub fn left_out(&self, name: &str) -> Option<Vec<Problem>> {
        self.parts().left_out.get(name).cloned()
    }

    /// The governed servers of the file.
    #[must_use]
    pub fn declared(&self) -> Vec<Arc<str>> {
        let parts = self.parts();
        let governed = parts.file.servers.iter().filter(|server| server.governed.is_some());
        governed.map(|server| Arc::clone(&server.name)).collect()
    }

    async fn build(&self, file: &Config, specs: &[(Box<str>, Spec)]) -> Result<(u64, LeftOut), BuildError> {
        let (config, left_out) = compose(file, specs.iter());
        for (name, problems) in &left_out {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            error!(server = %name, "A registered server is left out. {}", problems.join("; "));
        }
        let before = self.live.take();
        let next = world::build(config, Some(&before), &self.means.outbound, &self.means.metrics)?;
        // An instance that has not been looked at takes no work: without this, requests of the first moments after the swap
        // would find none that does.
        warm_up(&next, Some(&before), &self.means, WARM_UP_MAX).await;
        let generation = next.generation;
        self.live.swap(next);
        self.means.metrics.config_in_force(generation);
        Ok((generation, left_out))
    }

    /// Whoever has the configuration read again wants every side of a split tried again.
    fn reopen_splits(&self) {
        for server in &self.live.take().servers {
            let Some(router) = &server.router else { continue };
            router.reopen();
            for side in router.splits() {
                self.means.metrics.routing.split_closed(server.name(), &side.rule, &side.to, false);
            }
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text that [`config::read_registered`] reads.
#[must_use]
pub fn text_of(spec: &Spec) -> String {
    match &spec.route {
        Some(route) => format!("{{\"server\": {}, \"route\": {route}}}", spec.server),
        None => format!("{{\"server\": {}}}", spec.server),
    }
}

/// The configuration of the file with every spec that fits in.
fn compose<'a>(file: &Config, specs: impl Iterator<Item = &'a (Box<str>, Spec)>) -> (Config, LeftOut) {
    let mut config = file.clone();
    let mut left_out = BTreeMap::new();
    for (name, spec) in specs {
        match read(&text_of(spec), &config) {
            Ok(registered) => {
                config.servers.push(Arc::new(registered.server));
                config.routes.extend(registered.route.map(Arc::new));
            }
            Err(problems) => drop(left_out.insert(name.clone(), problems)),
        }
    }
    (config, left_out)
}

fn read(text: &str, base: &Config) -> Result<Registered, Vec<Problem>> {
    let registered = config::read_registered(text, base, &ThisMachine, &config::rule_issues)?;
    debug_assert_eq!(registered.server.declared, Declared::InTheRegistry);
    let forbidden = registered.server.instances.iter().enumerate().filter(|(_, instance)| {
        let address = instance.host.trim_matches(['[', ']']).parse::<IpAddr>();
        address.is_ok_and(|address| !egress::may_be_called(address))
    });
    let problems: Vec<Problem> = forbidden
        .map(|(nth, _)| {
            let complaint = Complaint::new("is an address that is never called", "name the server's own address");
            Problem::new(format!("server.instances[{nth}].url"), Position::default(), complaint)
        })
        .collect();
    if problems.is_empty() {
        return Ok(registered);
    }
    warn!("Somebody wanted to register a server at an address that is never called.");
    Err(problems)
}

/// How long new keys and instances are waited for before they serve. Those that do not answer are looked for afterwards too.
const WARM_UP_MAX: Duration = Duration::from_secs(3);
