//! Which revisions of MCP are spoken here?

use std::fmt;

/// A published revision of the Model Context Protocol, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2025-03-26: sessions, SSE, batches.
    V2025_03_26,
    /// 2025-06-18: sessions, SSE, no batches, `MCP-Protocol-Version` header.
    V2025_06_18,
    /// 2025-11-25: sessions, SSE polling, tasks (experimental).
    V2025_11_25,
    /// 2026-07-28: stateless, per-request `_meta`, `Mcp-*` headers.
    V2026_07_28,
}

/// The two ways of talking: with a session, or each request on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2025-03-26 to 2025-11-25: `initialize`, sessions, GET stream, DELETE.
    Legacy,
    /// 2026-07-28: stateless, per-request metadata.
    Modern,
}

impl Revision {
    /// Every supported revision, oldest first.
    pub const ALL: [Self; 4] = [Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// Those in which each request brings its own context.
    pub const MODERN: [Self; 1] = [Self::V2026_07_28];

    /// Reads the exact text of `MCP-Protocol-Version`; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// The date that names it on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Whether it talks in sessions or statelessly.
    #[must_use]
    pub fn era(self) -> Era {
        match self {
            Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => Era::Legacy,
            Self::V2026_07_28 => Era::Modern,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
