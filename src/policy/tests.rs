#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod agents;
mod explain;
mod kit;
mod laws;
mod lists;
mod rules;
mod vectors;

pub(super) use kit::*;
