//! WHICH conversation? Sealed session ids: affinity without a shared table.

pub mod revocations;
pub mod ring;
pub mod sealed;

pub use revocations::Revocations;
pub use ring::Ring;
pub use sealed::{Binding, Session, SessionError, open, seal};
