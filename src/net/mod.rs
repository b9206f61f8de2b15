//! Our own calls: issuer keys and metadata, token exchange. Never a client's request; that is the gateway's.

pub mod client;
pub mod egress;
pub mod jwks;
pub mod talk;

pub use client::{Answer, NetError, Outbound};
pub use jwks::{FetchError, KeyFetcher, Keyring, Refetch, RefreshOutcome};
pub use talk::{Talk, TalkError};
