//! Black-box tests: the real binary with a real configuration, between real clients and servers.
//!
//! One test binary, so that it links once. Each module is a subject; the kit they share is `support`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that is surprised should fail where it is surprised"
)]
#![expect(unreachable_pub, reason = "the kit is public to the tests, and nothing is public outside them")]

mod support;

mod kit;

mod admin;
mod admin_registry;
mod admin_sign_in;
mod agents;
mod attacks;
mod bodies;
mod budgets;
mod budgets_redis;
mod calls;
mod circuits;
mod cli;
mod connections;
mod content;
mod credentials;
mod framing;
mod handover;
mod http2;
mod identity;
mod killed;
mod lists;
mod metadata;
mod metrics_audit;
mod out_of_use;
mod policy;
mod protocol;
mod quarantine;
mod refusals;
mod registry;
mod reload;
mod routing;
mod routing_rules;
mod sessions;
mod shadow;
mod streams;
mod taint;
mod time_windows;
mod timeouts;
mod tls;
mod upgrade;
mod vectors;
