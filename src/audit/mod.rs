//! WHAT happened? The audit event and its line of JSON.

pub mod event;

pub use event::{
    Act, AdminEvent, Arguments, Budget, Content, Credential, Decision, Digest, Event, EventKind, Mcp, Message, Outcome,
    Principal, Registry, Routing, Stamp, cut,
};
