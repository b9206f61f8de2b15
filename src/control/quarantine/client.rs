//! How is the running process asked? The other end of its control socket.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::policy::quarantine::Quarantine;

use super::socket::{Question, Reply};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The process has answered something else than expected.
    #[error("{0}: the process gave an answer that is not understood")]
    Answer(PathBuf),
    /// Nobody listens there, or it is somebody else's.
    #[error("{path}: no gateway can be asked there ({error})")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The process does not do it.
    #[error("{0}")]
    Refused(String),
}

/// Asks the process that listens at `path`.
///
/// # Errors
/// [`AskError`].
pub fn ask(path: &Path, question: &Question) -> Result<Reply, AskError> {
    ask_within(path, question, ANSWER_MAX)
}

fn ask_within(path: &Path, question: &Question, within: Duration) -> Result<Reply, AskError> {
    let problem = |error| AskError::Io { path: path.to_owned(), error };
    let mut stream = UnixStream::connect(path).map_err(problem)?;
    stream.set_read_timeout(Some(within)).map_err(problem)?;
    stream.set_write_timeout(Some(within)).map_err(problem)?;
    let mut line = serde_json::to_vec(question).map_err(|_| AskError::Answer(path.to_owned()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(problem)?;
    let mut answer = String::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_line(&mut answer).map_err(problem)?;
    match serde_json::from_str(&answer).map_err(|_| AskError::Answer(path.to_owned()))? {
        Reply::Refused(why) => Err(AskError::Refused(why)),
        reply @ (Reply::Done { .. } | Reply::List(_)) => Ok(reply),
    }
}

/// What the process at `path` has stopped, if there is one: a successor goes on with it.
#[must_use]
pub fn inherit(path: &Path) -> Vec<Quarantine> {
    match ask_within(path, &Question::List, INHERIT_MAX) {
        Ok(Reply::List(list)) => list,
        Ok(Reply::Done { .. } | Reply::Refused(_)) | Err(_) => Vec::new(),
    }
}

/// Says on `out` what came of a question.
///
/// # Errors
/// `out` cannot be written.
pub fn tell(reply: &Reply, is_lift: bool, out: &mut dyn Write) -> std::io::Result<()> {
    match reply {
        Reply::List(list) if list.is_empty() => writeln!(out, "nothing is stopped"),
        Reply::List(list) => list.iter().try_for_each(|quarantine| writeln!(out, "{}", line(quarantine))),
        Reply::Done { quarantine, is_kept } => {
            let what = if is_lift { "let go" } else { "stopped" };
            writeln!(out, "{what}: {}", line(quarantine))?;
            if *is_kept {
                return Ok(());
            }
            writeln!(out, "this process alone knows it: there is no store, or it does not answer yet")
        }
        Reply::Refused(why) => writeln!(out, "{why}"),
    }
}

fn line(quarantine: &Quarantine) -> String {
    let Quarantine { stopped, since, until, why, by, .. } = quarantine;
    let for_seconds = until.map_or_else(|| "until it is lifted".to_owned(), |until| format!("until {until}"));
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{stopped}, since {since}, {for_seconds}, by {by}{why}")
}

/// How long the process may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How long a successor waits for its predecessor.
const INHERIT_MAX: Duration = Duration::from_secs(2);

const ANSWER_BYTES_MAX: u64 = 64 << 20;
