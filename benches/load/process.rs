//! What does a process cost? Starting one on cores of its own, and reading what the kernel has counted.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The proxies run on the first core, everything else on the others: what is measured is not slowed by what measures it.
#[derive(Clone, Copy)]
pub enum Cores {
    Others,
    Proxy,
}

/// A command that is kept to these cores. On a machine with one core, or without `taskset`, to none in particular.
pub fn command(program: &Path, cores: Cores) -> Command {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let has_taskset = Path::new("/usr/bin/taskset").exists();
    if count < 2 || !has_taskset {
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/taskset");
    match cores {
        Cores::Others => command.args(["-c", &format!("1-{}", count - 1)]),
        Cores::Proxy => command.args(["-c", "0"]),
    };
    // It replaces itself by the program, so the process id is the program's.
    command.arg(program);
    command
}

/// A server that ends with this value.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
}

impl Running {
    /// Starts a server and waits until it accepts connections. What it says goes to `log`.
    pub fn start(mut command: Command, address: SocketAddr, log: &Path) -> Self {
        let output = fs::File::create(log).unwrap();
        let error = output.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(error).spawn().expect("cannot be started");
        let mut running = Self { child, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = running.child.try_wait().unwrap();
            let is_late = started.elapsed() > Duration::from_secs(20);
            assert!(ended.is_none() && !is_late, "does not serve: see {}", log.display());
            sleep(Duration::from_millis(50));
        }
        running
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in brackets may hold anything; utime and stime are the 12th and 13th field after it.
        let (_name, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `USER_HZ`, which Linux keeps at 100 on every platform that this runs on.
const TICKS_PER_SECOND: u64 = 100;
