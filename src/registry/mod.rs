//! WHAT exists? Routes, the servers behind them, who may vouch for their callers, and which tools are approved.

pub mod agents;
pub mod approval;
pub mod catalog;
pub mod definition;
pub mod diff;
pub mod ledger;
pub mod lifecycle;
pub mod lookalike;
pub mod proof;
pub mod record;
pub mod route;
pub mod scan;
pub mod server;
mod template;

pub use agents::{AgentTrust, RouteAgents};
pub use proof::Proof;
#[cfg(test)]
pub(crate) mod testkit;

pub use catalog::Catalog;
pub use ledger::Ledger;
pub use route::{Issuer, Route};
pub use server::Server;
