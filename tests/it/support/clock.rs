//! A clock that a test moves.

use std::io::{Seek as _, Write as _};
use std::sync::Mutex;

use tempfile::NamedTempFile;

use super::{Conf, now};

/// The clock of a gateway that was started with it.
pub struct MovedClock(Mutex<NamedTempFile>);

impl MovedClock {
    /// As everybody's; none, with a loud line, where the binary is a release build, whose clock nobody moves.
    pub fn new() -> Option<Self> {
        if !cfg!(debug_assertions) {
            eprintln!("!!! NOT TESTED: nobody moves the clock of a release build !!!");
            return None;
        }
        Some(Self(Mutex::new(NamedTempFile::new().unwrap())))
    }

    /// A configuration under this clock.
    #[must_use]
    pub fn of(&self, conf: Conf) -> Conf {
        let path = self.0.lock().unwrap().path().to_str().unwrap().to_owned();
        conf.env("PORTCULLIS_TEST_CLOCK", path)
    }

    /// So many seconds ahead of everybody's.
    pub fn ahead(&self, seconds: i64) {
        let mut file = self.0.lock().unwrap();
        // Written over what is there in one piece: the gateway may read at any moment.
        file.rewind().unwrap();
        file.write_all(format!("{seconds:<20}").as_bytes()).unwrap();
        file.flush().unwrap();
    }

    /// At a moment, in seconds since 1970; it goes on from there. How far that is from everybody's.
    pub fn at(&self, unix_seconds: i64) -> i64 {
        let ahead = unix_seconds - now();
        self.ahead(ahead);
        ahead
    }
}
