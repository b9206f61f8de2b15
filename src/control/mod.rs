//! CONTROL PLANE: what happens beside requests. Building snapshots, reload, key refresh, health checks, the admin and
//! metrics endpoints. It never runs in the path of a request and meets the data plane only in [`crate::snapshot::Live`].

pub mod admin;
pub mod builder;
pub mod certificates;
pub mod governance;
pub mod health;
pub mod keys;
pub mod phases;
pub mod proofs;
pub mod pulse;
pub mod quarantine;
pub mod regions;
pub mod reload;
mod settled;
pub mod upgrade;
pub mod upstream_tls;
pub mod warmup;
pub mod world;
