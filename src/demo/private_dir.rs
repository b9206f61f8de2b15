//! Where do the demo's secrets and its audit file live? In a directory that only this user can open, and that goes when
//! the demo ends.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

/// A directory of mode 0700 under the system's directory for temporary files, removed with all it holds on drop.
#[derive(Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes `portcullis-demo-SUFFIX`; `suffix` must be unguessable, and an existing entry of that name is an error, so
    /// that nobody can have put it there beforehand.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(suffix: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("portcullis-demo-{suffix}"));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a new file of mode 0600 and returns its path.
    ///
    /// # Errors
    /// Those of the file system; a file of that name is one.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path)?.write_all(content)?;
        Ok(path)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "The demo's directory could not be removed");
        }
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::demo::token::random_text;

    #[test]
    fn nobody_else_can_open_it_or_its_files() {
        let directory = PrivateDir::create(&random_text::<12>().unwrap()).unwrap();
        let file = directory.write("client.secret", b"x").unwrap();
        assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn goes_with_all_it_holds() {
        let directory = PrivateDir::create(&random_text::<12>().unwrap()).unwrap();
        let file = directory.write("session.key", b"x").unwrap();
        drop(directory);
        assert_eq!(fs::metadata(file).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn refuses_a_directory_that_is_already_there() {
        let suffix = random_text::<12>().unwrap();
        let _first = PrivateDir::create(&suffix).unwrap();
        assert_eq!(PrivateDir::create(&suffix).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
