//! How is a running gateway replaced without a lost request?

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Config;

use super::phases::is_listening;

/// Why nothing was swapped. Whatever it is, the running process goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The successor could not be started, or a file not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The configuration has no `server.pid_file` or no `server.upgrade_sock`.
    #[error("{0} must be set: over it the running process and its successor find each other")]
    KeyMissing(&'static str),
    /// The pid file does not lead to a running process.
    #[error("{path}: no running process ({cause})")]
    NotRunning {
        /// The pid file.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// The running process did not hand its sockets over.
    #[error("the running process did not hand its sockets over within {0:?}")]
    NotTakenOver(Duration),
    /// The successor ended before it was ready to take over.
    #[error("the successor ended before it was ready ({0}); its log says why")]
    SuccessorEnded(std::process::ExitStatus),
    /// The successor was not ready in time.
    #[error("the successor was not ready within {0:?}")]
    SuccessorSlow(Duration),
}

/// Swaps the running process for one with the binary and configuration of this moment, and says on `out` what it did.
///
/// The successor fetches keys and probes instances first and only then waits at the upgrade socket. Not before that is the
/// running process told (SIGQUIT) to hand its listening sockets over; it then serves its open streams until they end, or
/// its grace period does.
///
/// # Errors
/// [`UpgradeError`]. A successor that cannot take over is ended.
pub fn swap(path: &Path, config: &Config, out: &mut dyn Write) -> Result<(), UpgradeError> {
    let pid_file = config.server.pid_file.as_deref().ok_or(UpgradeError::KeyMissing("server.pid_file"))?;
    let socket = config.server.upgrade_sock.as_deref().ok_or(UpgradeError::KeyMissing("server.upgrade_sock"))?;
    let running = running_process(pid_file)?;
    writeln!(out, "configuration is good; process {running} serves")?;

    let mut command = Command::new(std::env::current_exe()?);
    // systemd tells the interval of its watchdog to ExecStart= alone, but watches the successor all the same.
    if std::env::var_os("NOTIFY_SOCKET").is_some() && std::env::var_os("WATCHDOG_USEC").is_none() {
        command.env("WATCHDOG_USEC", WATCHDOG_UNTOLD.as_micros().to_string());
    }
    let mut successor = command
        .arg("run")
        .arg("--upgrade")
        .arg("--config")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(output_of(running, 1))
        .stderr(output_of(running, 2))
        // A process group of its own: the keys of this terminal do not reach it.
        .process_group(0)
        // It would name this command, and not the successor.
        .env_remove("WATCHDOG_PID")
        .spawn()?;
    match take_over(&mut successor, running, pid_file, socket, out) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _may_have_ended = successor.kill();
            let _status = successor.wait();
            Err(error)
        }
    }
}

fn take_over(
    successor: &mut Child,
    running: Pid,
    pid_file: &Path,
    socket: &Path,
    out: &mut dyn Write,
) -> Result<(), UpgradeError> {
    let pid = successor.id();
    wait(successor, READY_MAX, || is_listening(socket))?;
    writeln!(out, "process {pid} is ready and waits for the sockets")?;
    kill(running, Signal::SIGQUIT)
        .map_err(|errno| UpgradeError::NotRunning { path: pid_file.to_owned(), cause: errno.to_string() })?;
    match wait(successor, TAKE_OVER_MAX, || pid_in(pid_file) == Some(pid)) {
        Ok(()) => {}
        Err(UpgradeError::SuccessorSlow(within)) => return Err(UpgradeError::NotTakenOver(within)),
        Err(error) => return Err(error),
    }
    writeln!(out, "process {pid} serves; process {running} ends when its open requests do")?;
    Ok(())
}

/// Waits until `done`, for as long as the successor lives.
fn wait(successor: &mut Child, within: Duration, done: impl Fn() -> bool) -> Result<(), UpgradeError> {
    let until = Instant::now() + within;
    while !done() {
        if let Some(status) = successor.try_wait()? {
            return Err(UpgradeError::SuccessorEnded(status));
        }
        if Instant::now() > until {
            return Err(UpgradeError::SuccessorSlow(within));
        }
        sleep(POLL);
    }
    Ok(())
}

/// Where the running process writes: its successor writes on there, and does not hold on to this command's terminal or
/// pipe. The journal's socket cannot be opened again; under systemd this command's own output leads there too.
fn output_of(running: Pid, descriptor: u8) -> Stdio {
    let opened = std::fs::File::options().append(true).open(format!("/proc/{running}/fd/{descriptor}"));
    opened.map_or_else(|_not_a_file| Stdio::inherit(), Stdio::from)
}

fn running_process(pid_file: &Path) -> Result<Pid, UpgradeError> {
    let problem = |cause: String| UpgradeError::NotRunning { path: pid_file.to_owned(), cause };
    let pid = pid_in(pid_file).ok_or_else(|| problem("no process id in it".into()))?;
    let pid = Pid::from_raw(i32::try_from(pid).map_err(|error| problem(error.to_string()))?);
    match kill(pid, None) {
        Ok(()) => Ok(pid),
        Err(Errno::ESRCH) => Err(problem(format!("process {pid} has ended"))),
        Err(errno) => Err(problem(format!("process {pid}: {errno}"))),
    }
}

fn pid_in(pid_file: &Path) -> Option<u32> {
    std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()
}

/// How long the successor may take to get ready: its warm-up, and Pingora's start.
const READY_MAX: Duration = Duration::from_secs(30);

/// How long the sockets may take to be handed over: Pingora looks for them once a second.
const TAKE_OVER_MAX: Duration = Duration::from_secs(15);

/// The interval that a successor keeps to when none is told. A process that nobody watches may send signs of life too, so
/// this is the shortest that makes sense in a unit.
const WATCHDOG_UNTOLD: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(50);
