//! A Redis server of a test's own, from Debian's package.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{TlsFront, poll_until};

/// A server on a loopback port of its own, which keeps nothing on disk.
pub struct Redis {
    process: Option<Child>,
    port: u16,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts one; none, with a loud line, where Redis is not installed.
    pub fn start() -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("!!! NOT TESTED: Redis is not installed (apt-get install redis-server) !!!");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = Self { process: None, port, directory: tempfile::tempdir().unwrap() };
        redis.resume();
        Some(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port)
    }

    /// Where it is reached over TLS, behind this front.
    pub fn url_behind(front: &TlsFront) -> String {
        format!("rediss://:{PASSWORD}@127.0.0.1:{}/0", front.address().port())
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again at the same place; it has forgotten everything.
    pub fn resume(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--requirepass", PASSWORD, "--dir"]).arg(self.directory.path());
        self.process = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        poll_until("Redis to answer", || self.try_ask("PING").filter(|answer| answer.starts_with("+PONG")));
    }

    /// Does not answer, and keeps its connections, until [`Redis::go_on`].
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// What it answers to a command, as it comes over the wire.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(format!("AUTH {PASSWORD}\r\n{command}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.strip_prefix("+OK\r\n").map(str::to_owned)
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

const PASSWORD: &str = "n0t-a-sample-value";
