//! Portcullis

pub mod secret;
pub mod time;

pub mod config;
pub mod credential;
pub mod identity;
pub mod mcp;
pub mod policy;

#[cfg(feature = "demo")]
pub mod demo;
