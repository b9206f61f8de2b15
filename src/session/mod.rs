//! WHICH conversation? Sealed session ids: affinity without a shared table.

pub mod ring;
pub mod sealed;

pub use ring::Ring;
pub use sealed::{Binding, Session, SessionError, open, seal};
