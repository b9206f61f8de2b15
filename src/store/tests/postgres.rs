//! A PostgreSQL server of a test's own, from Debian's package.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server on a loopback port of its own; it ends, and its files go, with this.
pub(crate) struct Server {
    process: Child,
    port: u16,
    programs: PathBuf,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts one; none, with a loud line, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("!!! NOT TESTED: PostgreSQL is not installed (apt-get install postgresql) !!!");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let made = as_somebody(&programs.join("initdb"), directory.path())
            .args(["--auth=trust", "--username=portcullis", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pgdata={}", data.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = run(&programs, directory.path(), port);
        let server = Self { process, port, programs, directory };
        server.wait();
        Some(server)
    }

    /// Ends it at once; what was committed is in its files.
    pub(crate) fn stop(&mut self) {
        // SIGQUIT: its own processes end with it.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.process.wait();
    }

    /// Starts it again at the same place.
    pub(crate) fn resume(&mut self) {
        self.process = run(&self.programs, self.directory.path(), self.port);
        self.wait();
    }

    /// Where it is reached.
    pub(crate) fn url(&self) -> String {
        format!("postgres://portcullis@127.0.0.1:{}/postgres", self.port)
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut asked = Command::new(self.programs.join("pg_isready"));
            asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if asked.status().unwrap().success() {
                return;
            }
            assert!(Instant::now() < until, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(programs: &Path, directory: &Path, port: u16) -> Child {
    as_somebody(&programs.join("postgres"), directory)
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "unix_socket_directories="])
        .arg("-D")
        .arg(directory.join("data"))
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Where Debian's package has its programs; the latest version.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|directory| directory.join("initdb").exists() && directory.join("postgres").exists())
        .collect();
    found.sort();
    found.pop()
}

/// PostgreSQL refuses to run as root: then it runs as the user its package has made.
fn as_somebody(program: &Path, directory: &Path) -> Command {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let mut command = Command::new(program);
        command.current_dir(directory);
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir(directory);
    command
}
