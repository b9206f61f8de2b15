//! Portcullis

pub mod secret;
pub mod time;

pub mod audit;
pub mod config;
pub mod credential;
pub mod gateway;
pub mod identity;
pub mod mcp;
pub mod policy;
pub mod telemetry;
