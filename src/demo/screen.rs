//! What does the visitor see? Lines on standard output.

use std::fmt::Display;
use std::io;
use std::io::Write;

/// Where the demo's lines go.
pub(super) struct Screen(Box<dyn Write + Send>);

impl Screen {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self(Box::new(io::stdout()))
    }

    /// Writes one line. A reader that has gone (a closed pipe) is not told of it and does not end the demo.
    pub(super) fn say(&mut self, line: impl Display) {
        let _reader_has_gone = writeln!(self.0, "{line}").and_then(|()| self.0.flush());
    }
}
