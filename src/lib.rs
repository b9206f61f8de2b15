//! Portcullis

pub mod secret;
pub mod time;

pub mod config;
pub mod credential;
pub mod identity;
pub mod mcp;
pub mod net;
pub mod policy;
