//! Which words may a label say? Closed sets, each a type.

use crate::mcp::Method;

/// What a request asked, as far as a label may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodLabel {
    /// Several messages in one body.
    Batch,
    /// `DELETE`: the end of a session.
    Delete,
    /// `GET`: the stream of a session.
    Get,
    /// A JSON-RPC request or notification of a known method.
    Mcp(Method),
    /// Everything else.
    Other,
    /// A JSON-RPC response to a question of the server.
    Response,
}

/// A cache that counts hits and misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheName {
    /// Verified agents.
    Agent,
    /// Exchanged credentials.
    Credential,
    /// Decisions that do not depend on arguments.
    Decision,
    /// Verified tokens.
    Token,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEvent {
    /// The client ended it.
    Closed,
    /// Its instance is gone.
    Lost,
    /// The server opened it.
    Opened,
    /// An id was unknown, forged, expired or another's.
    Refused,
}

/// A file with certificates in a server's TLS settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFile {
    /// The authorities its instances are verified by.
    Ca,
    /// What its instances are shown.
    ClientCertificate,
}

impl UpstreamFile {
    /// The key under `servers[].tls`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::ClientCertificate => "client_certificate",
        }
    }
}

/// What became of a configuration, or of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadOutcome {
    /// It is in force.
    Applied,
    /// It has problems; the last one stays.
    Refused,
}

impl MethodLabel {
    pub(super) const COUNT: usize = 5 + Method::ALL.len();

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Mcp(method) => method.as_str(),
            Self::Other => "other",
            Self::Response => "response",
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Batch => 0,
            Self::Delete => 1,
            Self::Get => 2,
            Self::Other => 3,
            Self::Response => 4,
            Self::Mcp(method) => 5 + method as usize,
        }
    }
}

impl ReloadOutcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

impl CacheName {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Credential => "credential",
            Self::Decision => "decision",
            Self::Token => "token",
        }
    }
}
