//! WHAT exists? Routes, the servers behind them, and who may vouch for their callers.

pub mod agents;
pub mod proof;
pub mod route;
pub mod server;

pub use agents::{AgentTrust, RouteAgents};
pub use proof::Proof;
pub use route::{Issuer, Route};
pub use server::Server;
