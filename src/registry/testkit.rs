//! Records for tests.

use crate::mcp::ItemKind;
use crate::time::UnixSeconds;

use super::approval::Actor;
use super::definition::{Digest, ItemKey};
use super::lifecycle::State;
use super::record::{Cause, ItemRecord, Origin, Pin, ServerRecord, Waiting};

/// A server of the configuration file.
pub(crate) fn server(name: &str, state: State) -> ServerRecord {
    ServerRecord {
        name: name.into(),
        version: 1,
        origin: Origin::File,
        state,
        digest: ServerRecord::digest_of_name(name),
        spec: None,
        approved: None,
        approved_at: (state == State::Approved).then_some(UnixSeconds(1)),
        approvals: Vec::new(),
        registrant: Actor::gateway(),
        registered_at: UnixSeconds(1),
        changed_at: UnixSeconds(1),
    }
}

/// A tool of which nothing is known.
pub(crate) fn item(server: &str, name: &str) -> ItemRecord {
    ItemRecord {
        server: server.into(),
        key: ItemKey::new(ItemKind::Tool, name),
        version: 1,
        state: State::Registered,
        pin: None,
        waiting: None,
        missing_since: None,
        was_read: true,
        retired: Vec::new(),
        registered_at: UnixSeconds(1),
        changed_at: UnixSeconds(1),
    }
}

/// A tool that was approved with the definition number `definition`.
pub(crate) fn pinned(server: &str, name: &str, definition: u8) -> ItemRecord {
    let pin = Pin { digest: Digest::of(&[definition]), approvals: Vec::new(), at: UnixSeconds(1) };
    ItemRecord { state: State::Approved, pin: Some(pin), ..item(server, name) }
}

/// A tool whose definition number `definition` waits.
pub(crate) fn waiting(server: &str, name: &str, definition: u8, cause: Cause) -> ItemRecord {
    let waiting = Waiting {
        digest: Digest::of(&[definition]),
        cause,
        alike: None,
        since: UnixSeconds(1),
        not_kept: None,
        findings: Vec::new(),
        approvals: Vec::new(),
    };
    ItemRecord { waiting: Some(waiting), ..item(server, name) }
}
