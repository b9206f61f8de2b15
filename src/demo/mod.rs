//! How does it feel? A whole installation on one machine: an issuer, a tool server of two instances, and a self-check.

pub mod issuer;
pub mod loopback;
pub mod private_dir;
pub mod token;
pub mod tools;

/// A client for calls on loopback: no proxy from the environment.
pub(crate) fn http_client() -> reqwest::Result<reqwest::Client> {
    // reqwest is built without a TLS provider of its own and asks for the process-wide one, even for clear text.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build()
}
