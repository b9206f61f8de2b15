//! What must hold for any input? One file per fuzz target, each a plain function that panics when its law is broken.
//!
//! Two programs compile these files: `fuzz_targets/` (libFuzzer looks for inputs, `make fuzz`) and `tests/fuzz.rs` (an
//! ordinary test replays the inputs that are kept). So nothing here depends on a fuzzer, and inputs are text wherever a
//! person may have to read one.

pub mod classify;
pub mod config;
pub mod content;
pub mod headers;
pub mod json;
pub mod list;
pub mod session;
pub mod sse;

/// Panics when an input breaks the law.
pub type Law = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Law); 7] = [
    ("classify", classify::run),
    ("config", config::run),
    ("content", content::run),
    ("headers", headers::run),
    ("list", list::run),
    ("session", session::run),
    ("sse", sse::run),
];

/// The text in front of the first `separator` and what follows it; none when it is not there.
fn split_once<'a>(input: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = input.windows(separator.len()).position(|window| window == separator)?;
    Some((&input[..at], &input[at + separator.len()..]))
}
