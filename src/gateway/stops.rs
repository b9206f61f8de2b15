//! Has somebody stopped this? Principals, agents and tools that are out of use at once, wherever the registry stands.

use std::sync::Arc;
use std::time::Instant;

use crate::identity::{AgentIdentity, Caller, Principal};
use crate::mcp::{Message, Target};
use crate::policy::quarantine::Quarantines;
use crate::registry::Route;
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
    /// When.
    pub(super) since: Instant,
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
            since: Instant::now(),
        }
    }

    /// Why it has to end at `now`, if it has to.
    pub(super) fn ended(
        &self,
        revocations: &Revocations,
        quarantines: &Quarantines,
        now: UnixSeconds,
    ) -> Option<Rejection> {
        if !revocations.is_empty() && revocations.ended_open(&self.principal, self.since) {
            return Some(Rejection::UnknownSession);
        }
        if quarantines.is_empty() {
            return None;
        }
        if let Some(quarantine) = quarantines.of_caller(&self.principal, self.agent.as_deref(), now) {
            return Some(Rejection::QuarantinedCaller(quarantine.stopped.label()));
        }
        let mut tools = self.tool.iter().chain(&self.more_tools);
        tools.any(|tool| quarantines.of_tool(&self.server, tool, now).is_some()).then_some(Rejection::ToolStopped)
    }
}
