//! Has a file changed, and is whoever writes it done?

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that belong together, and which state of them was last tried.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    tried: Stamps,
    /// What the last look saw. Files are read when two looks in a row see the same: a certificate and its key are two
    /// files, and between writing one and the other they do not fit.
    seen: Stamps,
}

/// One state of several files; of a missing one nothing.
type Stamps = Vec<Option<Stamp>>;

/// Tells one state of a file from another, also when it was replaced by renaming or through a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Files {
    /// Files that are about to be read: what changes from here on counts as changed.
    pub(super) fn about_to_be_read(paths: Vec<PathBuf>) -> Self {
        let tried = stamps(&paths);
        Self { paths, seen: tried.clone(), tried }
    }

    /// Looks. Whether they have changed since they were last tried, and have settled; they then count as tried.
    pub(super) fn changed(&mut self) -> bool {
        let now = stamps(&self.paths);
        let settled = now == self.seen && now != self.tried;
        self.seen = now;
        if settled {
            self.tried.clone_from(&self.seen);
        }
        settled
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: about.dev(),
        inode: about.ino(),
        bytes: about.size(),
        modified: (about.mtime(), about.mtime_nsec()),
    })
}
