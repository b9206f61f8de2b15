//! The shell of `config`: reads the file, the secrets it names and the environment. The one module here that does IO.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Complaint, Position, Problem, Report};
use super::secrets::{FoundFile, Machine};
use super::{Compile, Config, Summary, read, read_shape};
use crate::secret::Secret;

/// Reads and checks a configuration file with everything it names.
///
/// # Errors
/// Every problem of the file, at once; a file that cannot be read is one.
pub fn load(file: &Path, compile: Compile<'_>) -> Result<Config, Report> {
    let text = read_text(file)?;
    read(&text, &ThisMachine, compile).map_err(|problems| Report::new(file, problems))
}

/// Checks a configuration file that is meant for another machine: secrets and other files that it names are not read.
///
/// # Errors
/// As [`load`].
pub fn load_shape(file: &Path, compile: Compile<'_>) -> Result<Summary, Report> {
    let text = read_text(file)?;
    read_shape(&text, compile).map_err(|problems| Report::new(file, problems))
}

/// Where the control socket of a configuration file is, if the file says so. Nothing else of the file is looked at.
///
/// # Errors
/// A sentence: the file cannot be read, or is not YAML.
pub fn control_sock(file: &Path) -> Result<Option<PathBuf>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    super::read::control_sock_in(&text).map_err(|problem| format!("{}:{problem}", file.display()))
}

fn read_text(file: &Path) -> Result<String, Report> {
    let whole = |message: String, hint: &str| {
        let problem = Problem::new("", Position::default(), Complaint::new(message, hint));
        Report::new(file, vec![problem])
    };
    let found = ThisMachine.read(file).map_err(|why| whole(format!("the file {why}"), "name a file to read"))?;
    let text = std::str::from_utf8(found.bytes.expose()).map(str::to_owned);
    text.map_err(|_| whole("the file is not UTF-8".to_owned(), "save it as UTF-8 without other encodings"))
}

/// The machine this process runs on.
#[derive(Clone, Copy, Debug)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn read(&self, path: &Path) -> Result<FoundFile, String> {
        let about = std::fs::metadata(path).map_err(words)?;
        // Opening a pipe or device could wait for ever.
        if !about.is_file() {
            return Err("is not a regular file".to_owned());
        }
        let file = File::open(path).map_err(words)?;
        let mode = mode(&file.metadata().map_err(words)?);
        // Room for the whole file from the start: a vector that grows leaves copies of a secret behind.
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0).min(FILE_BYTES_MAX) + 1);
        let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        let bytes = Secret::new(bytes);
        read.map_err(words)?;
        if bytes.expose().len() > FILE_BYTES_MAX {
            return Err("has more than 8 MiB".to_owned());
        }
        Ok(FoundFile { bytes, mode })
    }

    fn env(&self, name: &str) -> Option<Secret<String>> {
        std::env::var(name).ok().map(Secret::new)
    }

    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

fn words(error: io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "does not exist".to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "may not be read by this user".to_owned()
    } else {
        format!("cannot be read: {error}")
    }
}

/// The same as the YAML reader's limit; no secret, key or certificate file comes near it.
const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(unix)]
fn mode(about: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(about.permissions().mode())
}

#[cfg(not(unix))]
fn mode(_: &std::fs::Metadata) -> Option<u32> {
    None
}
