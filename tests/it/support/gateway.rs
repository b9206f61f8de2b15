//! The real binary, with a real configuration file.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Caller, Conf, DEADLINE, Request, Response, poll_until, prepare, send, send_raw};

/// A running gateway. Dropping it ends the process; if the test is failing, its log is shown.
pub struct Gateway {
    directory: TempDir,
    child: Child,
    environment: Vec<(String, String)>,
    address: SocketAddr,
    /// Of the listeners behind the first.
    others: Vec<SocketAddr>,
    metrics: SocketAddr,
    admin: SocketAddr,
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary to its end.
pub fn portcullis(arguments: &[&str]) -> Output {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Gateway {
    /// Starts the gateway and waits until it is ready.
    #[track_caller]
    pub fn start(conf: Conf) -> Self {
        let mut gateway = Self::spawn(conf, "/readyz");
        gateway.wait_until_up("/readyz");
        gateway
    }

    /// Starts the gateway and waits only until it is alive: something it needs may be missing.
    #[track_caller]
    pub fn start_unready(conf: Conf) -> Self {
        let mut gateway = Self::spawn(conf, "/healthz");
        gateway.wait_until_up("/healthz");
        gateway
    }

    /// Starts the gateway and waits only until it listens for clients: its other listeners are not for everybody.
    #[track_caller]
    pub fn start_hidden(conf: Conf) -> Self {
        let gateway = Self::spawn(conf, "nothing");
        poll_until("the gateway to listen", || std::net::TcpStream::connect(gateway.address).ok());
        gateway
    }

    /// Starts a gateway that should refuse to, and returns how it ended.
    #[track_caller]
    pub fn start_refused(conf: Conf) -> Output {
        let mut gateway = Self::spawn(conf, "nothing");
        let started = Instant::now();
        let status = loop {
            match gateway.child.try_wait().unwrap() {
                Some(status) => break status,
                None if started.elapsed() > DEADLINE => panic!("it should have refused to start"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        Output { code: status.code(), stdout: gateway.read("stdout.log"), stderr: gateway.read("stderr.log") }
    }

    fn spawn(conf: Conf, _waits_for: &str) -> Self {
        prepare();
        let directory = tempfile::Builder::new().prefix("portcullis-test-").tempdir().unwrap();
        let [address, metrics, admin] = [free_address(), free_address(), free_address()];
        let mut conf = conf;
        for (key, value) in [
            ("listen", json!([{ "address": address.to_string() }])),
            ("metrics", json!({ "address": metrics.to_string() })),
            ("admin", json!({ "address": admin.to_string() })),
        ] {
            if conf.value.get(key).is_none() {
                conf.value[key] = value;
            }
        }
        // A test that says more of its listeners leaves their addresses to the kit.
        let mut others = Vec::new();
        for (nth, listen) in conf.value["listen"].as_array_mut().into_iter().flatten().enumerate() {
            if listen["address"] == "LISTEN" {
                let address = if nth == 0 { address } else { free_address() };
                listen["address"] = address.to_string().into();
                others.extend((nth > 0).then_some(address));
            }
        }
        if conf.value["admin"]["address"] == "ADMIN" {
            conf.value["admin"]["address"] = admin.to_string().into();
        }
        conf.value["server"]["upgrade_sock"] = "DIR/upgrade.sock".into();
        conf.value["server"]["pid_file"] = "DIR/portcullis.pid".into();
        let file = write(&conf, directory.path());
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(&file)
            .envs(conf.environment.clone())
            .stdin(Stdio::null())
            .stdout(fs::File::create(directory.path().join("stdout.log")).unwrap())
            .stderr(fs::File::create(directory.path().join("stderr.log")).unwrap())
            .spawn()
            .unwrap();
        Self { directory, child, environment: conf.environment, address, others, metrics, admin }
    }

    #[track_caller]
    fn wait_until_up(&mut self, path: &str) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended with {status} instead of starting");
            }
            let listens = |address| std::net::TcpStream::connect(address).is_ok();
            if listens(self.admin) && listens(self.address) && self.admin(path).status == 200 {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "the gateway is not up after {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Of the second listener.
    pub fn second_address(&self) -> SocketAddr {
        self.others[0]
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Somebody with this token.
    pub fn caller(&self, token: impl Into<String>) -> Caller {
        Caller::new(self.address, Some(token.into()))
    }

    /// Somebody without a token.
    pub fn stranger(&self) -> Caller {
        Caller::new(self.address, None)
    }

    /// Asks the admin listener.
    pub fn admin(&self, path: &str) -> Response {
        send(self.admin, &Request::get(path))
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    pub fn metrics(&self) -> String {
        let answer = send(self.metrics, &Request::get("/metrics"));
        assert_eq!(answer.status, 200, "{answer}");
        answer.text()
    }

    /// The value of a metric whose line begins with `name` and holds every one of `labels`; zero when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Every audit record about a request, once there are at least `count`.
    pub fn audit(&self, count: usize) -> Vec<Value> {
        let path = self.path("audit.jsonl");
        poll_until(&format!("{count} audit records"), || {
            let records = request_records(&path);
            (records.len() >= count).then_some(records)
        })
    }

    /// The only audit record about a request.
    pub fn audited(&self) -> Value {
        let mut records = self.audit(1);
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// The one audit record that a refusal points to.
    pub fn audited_as(&self, request_id: &str) -> Value {
        let path = self.path("audit.jsonl");
        let mut records = poll_until("the audit record", || {
            let mut records = request_records(&path);
            records.retain(|record| record["request_id"] == request_id);
            (!records.is_empty()).then_some(records)
        });
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// What the process wrote to standard error.
    pub fn log(&self) -> String {
        self.read("stderr.log")
    }

    /// Everything the process writes anywhere: audit, logs, standard output, metrics, status.
    pub fn everything_written(&self) -> String {
        ["audit.jsonl", "stderr.log", "stdout.log"].map(|name| self.read(name)).join("\n")
            + &self.metrics()
            + &self.admin("/status").text()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Sends a signal by name, e.g. `HUP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends a signal to the process that serves, which may be a successor of the one that was started.
    pub fn signal_serving(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The process that serves, as its pid file says.
    pub fn pid(&self) -> u32 {
        self.read("portcullis.pid").trim().parse().unwrap()
    }

    /// `portcullis upgrade` with the configuration file as it is at this moment.
    pub fn upgrade(&self) -> Output {
        let stderr = fs::OpenOptions::new().append(true).open(self.path("stderr.log")).unwrap();
        let before = self.log().len();
        let output = Command::new(binary())
            .args(["upgrade", "--config"])
            .arg(self.path("portcullis.yaml"))
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stderr(stderr)
            .output()
            .unwrap();
        let stderr = self.log().get(before..).unwrap_or_default().to_owned();
        Output { code: output.status.code(), stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr }
    }

    /// The status of an admin page; none when nobody answers.
    pub fn try_admin(&self, path: &str) -> Option<u16> {
        send_raw(self.admin, &Request::get(path).bytes(self.admin)).map(|answer| answer.status)
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Files, sockets included, the process has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Changes how many files the running process may have open; false where that cannot be done.
    pub fn limit_open_files(&self, most: usize) -> bool {
        let limit = format!("--nofile={most}:{most}");
        let status = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), &limit]).status();
        status.is_ok_and(|status| status.success())
    }

    /// CPU time the process has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// The same as the scheduler counts it, in nanoseconds.
    pub fn cpu_nanoseconds(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        tasks.filter_map(|task| nanoseconds(task.ok()?)).sum()
    }

    /// Bytes of memory the process holds.
    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A successor is no child of ours.
        if let Ok(pid) = self.read("portcullis.pid").trim().parse::<u32>() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("── the gateway's log ──");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
            let audit = self.read("audit.jsonl");
            eprintln!("── its last audit records ──");
            audit.lines().rev().take(5).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Writes the configuration and its files; returns the path of the configuration.
pub fn write(conf: &Conf, directory: &Path) -> PathBuf {
    for file in &conf.files {
        let path = directory.join(&file.name);
        fs::write(&path, &file.content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
    }
    let path = directory.join("portcullis.yaml");
    fs::write(&path, conf.yaml(directory.to_str().unwrap())).unwrap();
    path
}

/// Records that stand for the end of a request: not lifecycle events, and not the notice of a stream that is open.
/// In the order in which the requests came to each process. A record is written when its request has ended, a moment after the
/// client has its answer, so that of the next request may be written before it.
fn request_records(path: &Path) -> Vec<Value> {
    let mut records: Vec<Value> = fs::read_to_string(path)
        .unwrap_or_default()
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .filter(|record| record["request_id"].as_str().is_some_and(|id| !id.is_empty()))
        .filter(|record| record["event"] != "mcp.opened")
        .collect();
    let processes: Vec<Value> = records.iter().map(|record| record["gateway"].clone()).collect();
    records.sort_by_cached_key(|record| {
        let number = record["request_id"].as_str().and_then(|id| id.rsplit('-').next());
        let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
        (processes.iter().position(|process| *process == record["gateway"]), number)
    });
    records
}

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_portcullis")
}

/// A loopback address nobody listens on. Below the ephemeral range, so that no outgoing connection takes it before the
/// gateway does; the start is spread by process, so that test runs side by side rarely meet.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 500).unwrap() * 20;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (start + step) % 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
