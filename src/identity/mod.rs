//! WHO is calling? Bearer tokens, JWT verification, keys, principals, challenges.
//!
//! The path of a request: [`bearer::unverified_token`] takes the token out of the head; its digest finds a [`Caller`] that
//! was verified before; a token not seen before goes through [`jwt::peek`] (which issuer, which key?) and
//! [`jwt::Unverified::verify`] (one signature). A refusal is told to the client by [`challenge::Challenges`], and the way to
//! a token by [`metadata::ResourceMetadata`].

pub mod agent;
pub mod bearer;
pub mod caller;
pub mod certificate;
pub mod issuer;

pub mod jwt;

pub mod crypto;
pub mod key_source;
pub mod keys;

pub mod challenge;
pub mod metadata;

mod json;
#[cfg(test)]
pub(crate) mod testkit;

pub use agent::AgentIdentity;
pub use bearer::{BearerError, TokenDigest, UnverifiedToken};
pub use caller::{Caller, Imagined, Principal, Scopes};
pub use certificate::{ClientCertificate, Shown};
pub use issuer::{IssuerPolicy, TokenTypes};
pub use jwt::{Algorithm, AuthnError};
pub use key_source::KeySource;
pub use keys::KeySet;
