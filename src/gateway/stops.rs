//! Has somebody stopped this? Principals, agents and tools that are out of use at once, wherever the registry stands; and
//! what is under way when a server or a tool is taken out of use in the registry.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Governed, Pins};
use crate::identity::{AgentIdentity, Caller, Principal};
use crate::mcp::{ItemKind, Message, Target};
use crate::policy::quarantine::Quarantines;
use crate::registry::catalog::Verdict;
use crate::registry::{Catalog, Route};
use crate::session::Revocations;
use crate::time::UnixSeconds;

use super::Shell;
use super::agents::Acting;
use super::pipeline::{Admitted, Ask};
use super::rejection::Rejection;

/// Refuses whoever is stopped, before anything of their request is read.
///
/// # Errors
/// [`Rejection::QuarantinedCaller`].
pub(super) fn check_caller(shell: &Shell, caller: &Caller, agent: Option<&Acting>) -> Result<(), Rejection> {
    let quarantines = shell.live.quarantines();
    if quarantines.is_empty() {
        return Ok(());
    }
    let agent = agent.map(|agent| &*agent.identity);
    match quarantines.of_caller(caller.principal(), agent, shell.clock.now()) {
        Some(quarantine) => Err(Rejection::QuarantinedCaller(quarantine.stopped.label())),
        None => Ok(()),
    }
}

/// Refuses calls of tools that are stopped.
///
/// # Errors
/// [`Rejection::ToolStopped`].
pub(super) fn check_tools(shell: &Shell, route: &Route, ask: &Ask) -> Result<(), Rejection> {
    let quarantines = shell.live.quarantines();
    if quarantines.is_empty() {
        return Ok(());
    }
    let (server, now) = (route.server.name(), shell.clock.now());
    let mut tools = ask.messages().iter().filter_map(tool_of);
    if tools.any(|tool| quarantines.of_tool(server, tool, now).is_some()) {
        return Err(Rejection::ToolStopped);
    }
    Ok(())
}

fn tool_of(message: &Message) -> Option<&Arc<str>> {
    match &message.target {
        Target::Tool(name) => Some(name),
        Target::None | Target::Prompt(_) | Target::Resource(_) | Target::Task(_) => None,
    }
}

/// Whose request it is, what it asks of whom, and since when: what somebody may end from outside.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Who asked.
    pub(super) principal: Principal,
    /// The software that acts.
    pub(super) agent: Option<Arc<AgentIdentity>>,
    /// Which server it is for.
    pub(super) server: Arc<str>,
    /// The tools it calls: mostly one.
    pub(super) tool: Option<Arc<str>>,
    /// More tools, of a batch.
    pub(super) more_tools: Vec<Arc<str>>,
    /// How much of it the registry decides about.
    pub(super) governed: Extent,
    /// When.
    pub(super) since: Instant,
}

/// How much of a request the registry decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nothing: it does not govern the server.
    Nothing,
    /// Whether the server may be used.
    Server,
    /// Whether the server may be used, and its tools.
    ServerAndTools,
}

/// What is stopped at some moment: everything that may end a request which was admitted.
#[derive(Clone, Copy)]
pub(super) struct Stops<'a> {
    /// Whose sessions were ended.
    pub(super) revocations: &'a Revocations,
    /// Who and what was stopped by the kill switch.
    pub(super) quarantines: &'a Quarantines,
    /// What the registry says of servers and tools.
    pub(super) catalog: &'a Catalog,
    /// The moment.
    pub(super) now: UnixSeconds,
}

impl Owner {
    /// Of a request that is admitted at this moment.
    pub(super) fn of(admitted: &Admitted) -> Self {
        let mut tools = admitted.ask.messages().iter().filter_map(tool_of).cloned();
        Self {
            principal: admitted.caller.principal().clone(),
            agent: admitted.agent.as_ref().map(|agent| Arc::clone(&agent.identity)),
            server: Arc::clone(admitted.route.server.name()),
            tool: tools.next(),
            more_tools: tools.collect(),
            governed: Extent::of(admitted.route.server.config.governed.as_ref()),
            since: Instant::now(),
        }
    }

    /// Why it has to end, if it has to.
    pub(super) fn ended(&self, stops: &Stops<'_>) -> Option<Rejection> {
        let Stops { revocations, quarantines, catalog, now } = *stops;
        if let Some(rejection) = self.taken_out_of_use(catalog) {
            return Some(rejection);
        }
        if !revocations.is_empty() && revocations.ended_open(&self.principal, self.since) {
            return Some(Rejection::UnknownSession);
        }
        if quarantines.is_empty() {
            return None;
        }
        if let Some(quarantine) = quarantines.of_caller(&self.principal, self.agent.as_deref(), now) {
            return Some(Rejection::QuarantinedCaller(quarantine.stopped.label()));
        }
        let is_stopped = |tool: &Arc<str>| quarantines.of_tool(&self.server, tool, now).is_some();
        self.tools().any(is_stopped).then_some(Rejection::ToolStopped)
    }

    /// Somebody has suspended or retired its server, or its tool. A tool that has merely changed is called as it was
    /// approved, and what was approved goes on.
    fn taken_out_of_use(&self, catalog: &Catalog) -> Option<Rejection> {
        if self.governed == Extent::Nothing {
            return None;
        }
        let Some(standing) = catalog.server(&self.server).filter(|standing| standing.is_open()) else {
            return Some(Rejection::ServerSuspended);
        };
        let is_suspended = |tool: &Arc<str>| standing.call(ItemKind::Tool, tool) == Verdict::Suspended;
        let are_tools_governed = self.governed == Extent::ServerAndTools;
        (are_tools_governed && self.tools().any(is_suspended)).then_some(Rejection::ToolQuarantined(None))
    }

    fn tools(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tool.iter().chain(&self.more_tools)
    }
}

impl Extent {
    fn of(governed: Option<&Governed>) -> Self {
        match governed {
            None => Self::Nothing,
            Some(governed) if governed.pins != Pins::Off && governed.kinds.contains(&ItemKind::Tool) => {
                Self::ServerAndTools
            }
            Some(_) => Self::Server,
        }
    }
}
