//! How does an operator on this machine reach the running process? Over a Unix socket that belongs to its user.
//!
//! One JSON object a line, one line a connection, one line back. The socket has mode 0600; besides that the system says who
//! is at the other end, and only the user of this process and root are listened to. Nothing is written without that.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use crate::policy::quarantine::{Quarantine, Stopped};

use super::{Done, Operator, QuarantineDesk, Wish};

/// What can be asked over the socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Lets go.
    Lift(Stopped),
    /// Tells what is stopped.
    List,
    /// Stops.
    Stop(Wish),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// It was done.
    Done {
        /// To what.
        quarantine: Quarantine,
        /// Whether the store has it.
        is_kept: bool,
    },
    /// What is stopped.
    List(Vec<Quarantine>),
    /// It was not done, and why.
    Refused(String),
}

/// Listens at the socket, and forgets what has expired.
pub struct ControlSocket {
    /// Where; none: nowhere.
    pub path: Option<PathBuf>,
    /// What is asked there.
    pub desk: QuarantineDesk,
}

#[async_trait]
impl BackgroundService for ControlSocket {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let listener = self.path.as_deref().and_then(|path| match listen(path) {
            Ok(listening) => Some(listening),
            Err(error) => {
                error!(path = %path.display(), %error, "server.control_sock cannot be listened at.");
                None
            }
        });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut ticks = interval(EXPIRE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = async {
                match &listener {
                    Some((listener, owner)) => listener.accept().await.map(|(stream, _address)| (stream, *owner)),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The file stays: a successor may have put its own in its place.
                _ = shutdown.changed() => return,
                _ = ticks.tick() => self.desk.expire().await,
                accepted = accepted => match accepted {
                    Ok((stream, owner)) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                        let desk = self.desk.clone();
                        tokio::spawn(async move {
                            let _place = place;
                            let _may_have_gone = timeout(CONNECTION_MAX, serve(stream, owner, &desk)).await;
                        });
                    }
                    Err(error) => {
                        warn!(%error, "A connection to server.control_sock could not be accepted.");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

/// Listens at `path`. What is there is replaced if it is a socket: one that a process has left behind, or the one of the
/// predecessor, which takes no more orders.
/// Comes with the user that it belongs to: that of this process.
fn listen(path: &Path) -> std::io::Result<(UnixListener, u32)> {
    if let Ok(found) = std::fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(std::io::Error::other("something else is there"));
    }
    // Under another name until it has its mode: nobody can have connected to it before.
    let beginning = path.with_extension(format!("{}.new", std::process::id()));
    let _nothing_there = std::fs::remove_file(&beginning);
    let listener = UnixListener::bind(&beginning)?;
    std::fs::set_permissions(&beginning, std::fs::Permissions::from_mode(0o600))?;
    let owner = std::fs::metadata(&beginning)?.uid();
    std::fs::rename(&beginning, path)?;
    Ok((listener, owner))
}

async fn serve(mut stream: UnixStream, owner: u32, desk: &QuarantineDesk) -> std::io::Result<()> {
    let user = stream.peer_cred()?.uid();
    let reply = if user == 0 || user == owner {
        answer(&mut stream, desk, user).await?
    } else {
        warn!(user, "Somebody else's process wanted to stop something.");
        Reply::Refused("only the user of the gateway and root may ask that".to_owned())
    };
    let mut line = serde_json::to_vec(&reply).unwrap_or_default();
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await?;
    // What nobody has read would turn the end of the connection into a reset, and the answer would be lost.
    let mut unread = [0; 1024];
    let drained = async { while stream.read(&mut unread).await.is_ok_and(|bytes| bytes > 0) {} };
    let _goes_on_sending = timeout(DRAIN_MAX, drained).await;
    Ok(())
}

async fn answer(stream: &mut UnixStream, desk: &QuarantineDesk, user: u32) -> std::io::Result<Reply> {
    let mut line = String::new();
    BufReader::new(&mut *stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let question: Question = match serde_json::from_str(&line) {
        Ok(question) => question,
        Err(error) => return Ok(Reply::Refused(format!("not understood: {error}"))),
    };
    let by = Operator { name: format!("local user {user}").into(), principal: None, call: "portcullis quarantine" };
    let done = match question {
        Question::List => return Ok(Reply::List(desk.list())),
        Question::Lift(stopped) => desk.lift(&stopped.id(), by).await,
        Question::Stop(wish) => desk.stop(wish, by).await,
    };
    Ok(match done {
        Ok(Done { quarantine, is_kept }) => Reply::Done { quarantine, is_kept },
        Err(error) => Reply::Refused(error.to_string()),
    })
}

/// How often it is looked whether something has expired. It has no effect from its very second on.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// How long one connection may take.
const CONNECTION_MAX: Duration = Duration::from_secs(15);

/// How long a connection may go on sending what nobody wants to know.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// Connections at once.
const CONNECTIONS_MAX: usize = 16;

/// One question.
const LINE_BYTES_MAX: u64 = 64 * 1024;
