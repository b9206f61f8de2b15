//! WHO is calling? Bearer tokens, JWT verification, keys, principals, challenges.

pub mod caller;

pub use caller::{Caller, Principal, Scopes};
pub use jwt::Algorithm;

pub mod jwt;
