//! WHAT exists? Routes, the servers behind them, and who may vouch for their callers.

pub mod route;
pub mod server;

pub use route::{Issuer, Route};
pub use server::Server;
