//! How much is enough? Budgets: which of them a call draws on, for whom, and how much.
//!
//! A budget counts for each of its keys: what its axes say of a call. What has been used lies outside, one
//! [`meter::Cell`] for each key and limit; here it is only said which cells a call concerns.

pub mod meter;

use std::sync::Arc;

use crate::identity::crypto::sha256;
use crate::identity::{AgentIdentity, Caller};
use crate::mcp::{Message, Method, Target};

use super::{Circumstances, Facts, When};
use meter::Meter;

/// What a budget tells apart. Several together: each combination has a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// The software that acts, by issuer and name. Calls without one count together.
    Agent,
    /// The OAuth client that the access token was issued to. Tokens that name none count together.
    Client,
    /// The person or service that calls.
    Principal,
    /// The server that is called.
    Server,
    /// The tool that is called, at its server; of everything else the method.
    Tool,
}

/// The beginning of a name, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This name.
    Exact(Box<str>),
    /// Every name that begins so.
    Prefix(Box<str>),
}

/// One budget, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// What refusals, headers, metrics and the audit log call it.
    pub name: Arc<str>,
    /// What it tells apart; nothing: everybody and everything draws on one count.
    pub by: Vec<Axis>,
    /// The routes it is for; none named: all.
    pub routes: Vec<Arc<str>>,
    /// The servers it is for; none named: all.
    pub servers: Vec<Arc<str>>,
    /// The tools whose calls it counts; none named: whatever `methods` says.
    pub tools: Vec<NamePattern>,
    /// The methods it counts, when it names no tools.
    pub methods: Vec<Method>,
    /// It counts only what this holds of. Without an answer it counts.
    pub when: Option<Arc<When>>,
    /// Its limits, each kind at most once; at least one.
    pub limits: Vec<Limit>,
}

/// One limit of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it counts.
    pub kind: LimitKind,
    /// How much is enough.
    pub meter: Meter,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitKind {
    /// Bytes of answers, in a window.
    Bytes,
    /// Calls in a window.
    Calls,
    /// Calls at once.
    Concurrency,
    /// Calls, as a bucket that refills.
    Rate,
    /// Calls of the same thing with the same arguments, in a window: a loop.
    Repeat,
}

/// That a call draws on a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// Whose limit.
    pub budget: Arc<Budget>,
    /// Which one.
    pub limit: Limit,
    /// Which count of it.
    pub key: CellKey,
    /// How much: one for each message, nothing where the price is known only later (bytes).
    pub cost: u64,
}

/// Names one cell: a digest of budget, limit and what the axes say. The same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey(pub [u8; 16]);

/// One request, as budgets look at it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// Which server it is for.
    pub server: &'a str,
    /// What is asked; nothing for a stream that somebody opens.
    pub messages: &'a [Message],
    /// The request it came in.
    pub facts: &'a Facts<'a>,
}

impl LimitKind {
    /// Every kind, as they are written in a budget.
    pub const ALL: [Self; 5] = [Self::Rate, Self::Concurrency, Self::Calls, Self::Bytes, Self::Repeat];

    /// The key of the configuration, and the word in refusals, metrics and the audit log.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Calls => "calls",
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::Repeat => "repeat",
        }
    }
}

impl NamePattern {
    /// Whether a name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

impl Budget {
    /// Whether it can concern requests of this route to this server.
    #[must_use]
    pub fn is_for(&self, route: &str, server: &str) -> bool {
        let names = |named: &[Arc<str>], name: &str| named.is_empty() || named.iter().any(|named| **named == *name);
        names(&self.routes, route) && names(&self.servers, server)
    }

    fn counts(&self, message: &Message) -> bool {
        let Some(method) = message.method() else { return false };
        if self.tools.is_empty() {
            return self.methods.contains(&method);
        }
        match &message.target {
            Target::Tool(name) => method == Method::ToolsCall && self.tools.iter().any(|pattern| pattern.matches(name)),
            Target::None | Target::Prompt(_) | Target::Resource(_) | Target::Task(_) => false,
        }
    }

    /// An error inside a condition never opens a door: without an answer the budget counts.
    fn applies(&self, asked: &Asked<'_>, message: Option<&Message>) -> bool {
        let Asked { caller, server, facts, .. } = *asked;
        let about = Circumstances { caller, server, message, facts };
        self.when.as_ref().is_none_or(|when| when.holds(&about).unwrap_or(true))
    }

    /// What the axes say of a call.
    fn key(&self, asked: &Asked<'_>, message: Option<&Message>) -> Vec<u8> {
        let mut key = Vec::with_capacity(128);
        put(&mut key, &[&self.name]);
        for axis in &self.by {
            match axis {
                Axis::Agent => put(&mut key, &agent_of(asked.facts.agent)),
                Axis::Client => put(&mut key, &[asked.caller.client_id().map_or("", |id| id)]),
                Axis::Principal => {
                    let principal = asked.caller.principal();
                    put(&mut key, &[&principal.issuer, &principal.subject]);
                }
                Axis::Server => put(&mut key, &[asked.server]),
                Axis::Tool => put(&mut key, &[asked.server, thing(message)]),
            }
        }
        key
    }
}

/// Every cell that a request draws on, each once; none when no budget counts it. Several messages that draw on one cell add
/// up.
#[must_use]
pub fn charges(budgets: &[Arc<Budget>], asked: &Asked<'_>) -> Vec<Charge> {
    let mut charges: Vec<Charge> = Vec::new();
    for budget in budgets {
        for message in asked.messages.iter().filter(|message| budget.counts(message)) {
            if !budget.applies(asked, Some(message)) {
                continue;
            }
            let key = budget.key(asked, Some(message));
            for limit in &budget.limits {
                let (cost, key) = match limit.kind {
                    LimitKind::Bytes => (0, cell_key(&key, limit.kind, &[])),
                    LimitKind::Calls | LimitKind::Concurrency | LimitKind::Rate => (1, cell_key(&key, limit.kind, &[])),
                    LimitKind::Repeat => (1, cell_key(&key, limit.kind, &sameness(asked.server, message))),
                };
                add(&mut charges, Charge { budget: Arc::clone(budget), limit: *limit, key, cost });
            }
        }
        // Answers may come over a stream that somebody opens, too.
        if asked.messages.is_empty() && budget.tools.is_empty() && budget.applies(asked, None) {
            let bytes = budget.limits.iter().filter(|limit| limit.kind == LimitKind::Bytes);
            for limit in bytes {
                let key = cell_key(&budget.key(asked, None), limit.kind, &[]);
                add(&mut charges, Charge { budget: Arc::clone(budget), limit: *limit, key, cost: 0 });
            }
        }
    }
    charges
}

fn add(charges: &mut Vec<Charge>, charge: Charge) {
    match charges.iter_mut().find(|known| known.key == charge.key) {
        Some(known) => known.cost += charge.cost,
        None => charges.push(charge),
    }
}

fn agent_of(agent: Option<&AgentIdentity>) -> [&str; 2] {
    agent.map_or(["", ""], |agent| [&agent.issuer, &agent.agent])
}

/// What is called: a tool by its name, else the method, so that nobody makes counts by inventing names.
fn thing(message: Option<&Message>) -> &str {
    let Some(message) = message else { return "" };
    match &message.target {
        Target::Tool(name) => name,
        Target::None | Target::Prompt(_) | Target::Resource(_) | Target::Task(_) => {
            message.method().map_or("", Method::as_str)
        }
    }
}

/// Equal for calls of the same thing with the same bytes as arguments.
fn sameness(server: &str, message: &Message) -> Vec<u8> {
    let name = match &message.target {
        Target::None => "",
        Target::Prompt(name) | Target::Resource(name) | Target::Task(name) | Target::Tool(name) => name,
    };
    let mut same = Vec::with_capacity(128);
    put(&mut same, &[server, message.method().map_or("", Method::as_str), name]);
    let said = message.arguments.as_ref().or(if name.is_empty() { message.params.as_ref() } else { None });
    let arguments = said.map(|arguments| sha256(arguments.bytes()));
    same.extend(arguments.unwrap_or_default());
    same
}

/// Parts with their lengths, so that no two lists of parts have the same bytes.
fn put(key: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        key.extend((part.len() as u64).to_be_bytes());
        key.extend(part.as_bytes());
    }
}

fn cell_key(key: &[u8], kind: LimitKind, more: &[u8]) -> CellKey {
    let digest = sha256(&[kind.label().as_bytes(), &[0], key, more].concat());
    CellKey(digest.first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
