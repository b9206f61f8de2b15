//! Does it hold? Minutes of what a gateway lives through in days: sessions, tokens, signing keys and an instance that come and
//! go, at a steady rate. Whatever is answered otherwise than it must be is unexpected, and memory and descriptors must stay
//! where they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::backend::{self, Answer};
use crate::clients::Client;
use crate::process::{Cores, Running, command};
use crate::stage::write_private;
use crate::tokens::{AUDIENCE, ISSUER, RotatingKeys};

/// Options, each followed by its value: `--portcullis` (the program), `--dir`, `--minutes`, `--rate` (requests a
/// second, or `half` of what is reached without a pause), `--flap` (seconds between two kills of an instance). Ends the process with 1 when something was not as it must be.
pub fn run(options: &[&str]) {
    let options: BTreeMap<&str, &str> = options.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let number = |name, otherwise: f64| options.get(name).map_or(otherwise, |text| text.parse().expect(name));
    let dir = PathBuf::from(options["--dir"]);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let plan = Plan {
        time: Duration::from_secs_f64(number("--minutes", 30.0) * 60.0),
        rate: options.get("--rate").filter(|rate| **rate != "half").map(|rate| rate.parse().expect("--rate")),
        flap: Duration::from_secs_f64(number("--flap", 20.0)),
    };
    let [gateway, metrics, issuer, a, b] = addresses();
    let sites = Sites { gateway: gateway.to_string(), a: a.port(), b: b.port(), issuer: issuer.port() };
    let portcullis = Path::new(options["--portcullis"]);
    let key = Command::new(portcullis).arg("keygen").output().unwrap().stdout;
    write_private(&dir.join("session.key"), &String::from_utf8(key).unwrap());
    write_private(&dir.join("sts.secret"), "load-test-only");
    let config = dir.join("portcullis.yaml");
    fs::write(&config, sites.portcullis_yaml(&dir, &metrics.to_string())).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = Arc::new(World::new(&dir, sites));
    runtime.spawn(backend::listen(world.sites.issuer, None, Arc::clone(&world.keys)));
    let a = world.start_tools(world.sites.a);
    let b = world.start_tools(world.sites.b);
    let mut program = command(portcullis, Cores::Proxy);
    program.arg("run").arg("--config").arg(config);
    let portcullis = Running::start(program, gateway, &dir.join("portcullis.log"));
    let samples = runtime.block_on(async {
        let rate = match plan.rate {
            Some(rate) => rate,
            None => measure(&world).await / 2.0,
        };
        println!("{rate:.0} requests a second");
        tokio::spawn(rotate(Arc::clone(&world)));
        tokio::spawn(flap(Arc::clone(&world), b, plan.flap));
        for number in 0..WORKERS {
            let pace = interval(Duration::from_secs_f64(WORKERS as f64 / rate));
            tokio::spawn(work(Arc::clone(&world), number, pace));
        }
        watch(&world, &portcullis, plan.time).await
    });
    let holds = world.verdict(&samples, plan.time);
    // An exit drops nothing: servers that were started here would go on.
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop((a, portcullis));
    std::process::exit(i32::from(!holds));
}

struct Plan {
    time: Duration,
    /// Requests a second.
    rate: Option<f64>,
    flap: Duration,
}

/// Where everybody is: ports of 127.0.0.1.
struct Sites {
    gateway: String,
    a: u16,
    /// The instance that is killed again and again.
    b: u16,
    issuer: u16,
}

impl Sites {
    fn portcullis_yaml(&self, dir: &Path, metrics: &str) -> String {
        let (dir, Self { gateway, a, b, issuer }) = (dir.display(), self);
        let interval = HEALTH_INTERVAL.as_millis();
        format!(
            r#"
server: {{ threads: 2, grace_period_seconds: 0, drain_seconds: 0, graceful_shutdown_timeout_seconds: 1 }}
listen: [{{ address: "{gateway}" }}]
public_url: https://mcp.bench.test
metrics: {{ address: "{metrics}" }}
audit: {{ file: {dir}/audit.jsonl }}
session: {{ keys: [{{ file: {dir}/session.key }}], ttl: 5m }} # those that have ended are remembered for so long
issuers:
  - name: corp
    issuer: "{ISSUER}"
    audiences: ["{AUDIENCE}"]
    jwks: {{ url: "http://127.0.0.1:{issuer}/jwks" }}
    jwks_refresh: 30s
    jwks_cooldown: 5s
servers:
  - name: tools
    instances: [{{ id: a, url: "http://127.0.0.1:{a}" }}, {{ id: b, url: "http://127.0.0.1:{b}" }}]
    health: {{ interval: {interval}ms, timeout: {interval}ms, unhealthy_after: 1, healthy_after: 1 }}
    credential:
      token_exchange:
        token_endpoint: http://127.0.0.1:{issuer}/token
        client: {{ id: portcullis, secret: {{ file: {dir}/sts.secret }} }}
        audience: [tools]
routes:
  - path: /mcp
    servers: [tools]
    issuers: [corp]
    authorization:
      rules:
        - {{ name: no-purge, action: deny, target: {{ tools: [{{ server: tools, tool: purge }}] }} }}
        - name: calls
          source: {{ jwt: {{ scopes: [mcp:use] }} }}
          target: {{ tools: [{{ server: tools, tool: work, when: 'args.text.matches("^Hello, .*!$")' }}] }}
"#
        )
    }
}

struct World {
    dir: PathBuf,
    sites: Sites,
    keys: Arc<RotatingKeys>,
    started: Instant,
    /// When instance b was last killed.
    killed: Mutex<Option<Instant>>,
    next_number: AtomicU64,
    tally: Tally,
}

/// What has happened so far.
#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    sessions: AtomicU64,
    kills: AtomicU64,
    /// Requests that failed because their instance was killed.
    lost: AtomicU64,
    unexpected: AtomicU64,
}

/// A session as its client sees it.
struct Session {
    id: String,
    is_on_b: bool,
    opened: Instant,
}

impl World {
    fn new(dir: &Path, sites: Sites) -> Self {
        Self {
            dir: dir.to_owned(),
            sites,
            keys: Arc::new(RotatingKeys::new()),
            started: Instant::now(),
            killed: Mutex::default(),
            next_number: AtomicU64::new(1),
            tally: Tally::default(),
        }
    }

    fn start_tools(&self, port: u16) -> Running {
        let mut program = command(&std::env::current_exe().unwrap(), Cores::Others);
        program.arg("tools").arg(port.to_string()).arg(self.journal(port));
        Running::start(program, ([127, 0, 0, 1], port).into(), &self.dir.join(format!("tools-{port}.log")))
    }

    fn journal(&self, port: u16) -> PathBuf {
        self.dir.join(format!("calls-{port}"))
    }

    /// Whether a request that needs no instance in particular, and was begun then, may have met the one that was killed.
    fn may_have_met_the_dead(&self, begun: Instant) -> bool {
        self.killed.lock().unwrap().is_some_and(|killed| begun < killed + HEALTH_INTERVAL)
    }

    /// Whether the instance of a session has died since it was opened.
    fn is_dead(&self, session: &Session) -> bool {
        session.is_on_b && self.killed.lock().unwrap().is_some_and(|killed| session.opened <= killed)
    }

    fn unexpected(&self, what: &str) {
        if self.tally.unexpected.fetch_add(1, Ordering::Relaxed) < UNEXPECTED_SHOWN {
            let at = self.started.elapsed().as_secs();
            let killed = self.killed.lock().unwrap().map(|killed| killed.elapsed());
            eprintln!("unexpected at {at} s, {killed:?} after the last kill: {what}");
        }
    }

    /// Says what has come out, and whether all of it is as it must be.
    fn verdict(&self, samples: &[Sample], time: Duration) -> bool {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let (requests, unexpected) = (count(&self.tally.requests), count(&self.tally.unexpected));
        let mut numbers: Vec<u64> =
            [self.sites.a, self.sites.b].iter().flat_map(|port| self.carried_out(*port)).collect();
        let carried_out = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        let twice = carried_out - numbers.len();
        let log = fs::read_to_string(self.dir.join("portcullis.log")).unwrap();
        let alarms = log.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked")).count();
        // The last ten minutes, or the last third of a shorter run.
        let last = (time / 3).min(Duration::from_secs(600)).as_secs();
        let last = samples.split_at(samples.len().saturating_sub((last / SAMPLE_INTERVAL.as_secs()) as usize)).1;
        let range = |figures: &mut dyn Iterator<Item = u64>| {
            figures.fold((u64::MAX, 0), |(min, max), figure| (min.min(figure), max.max(figure)))
        };
        // By the minute, because once a minute it is forgotten what is of no use any more.
        let minutes = last.chunks((60 / SAMPLE_INTERVAL.as_secs()) as usize);
        let mean = |minute: &[Sample]| minute.iter().map(|sample| sample.rss / 1024).sum::<u64>() / minute.len() as u64;
        let rss = range(&mut minutes.map(mean));
        let moments = range(&mut last.iter().map(|sample| sample.rss / 1024));
        let descriptors = range(&mut last.iter().map(|sample| sample.descriptors));
        let spread = |(min, max): (u64, u64)| (max - min.min(max)) as f64 / max as f64;
        let first = samples.first().map_or(0, |sample| sample.descriptors);
        let (sessions, kills, keys) = (count(&self.tally.sessions), count(&self.tally.kills), self.keys.rotations());
        println!("requests          {requests}, {:.0} a second", requests as f64 / time.as_secs_f64());
        println!("sessions          {sessions}; keys rotated {keys}, tokens {}", self.keys.signed());
        println!("instance killed   {kills}; requests lost with it {}", count(&self.tally.lost));
        println!("carried out twice {twice} of {carried_out} calls");
        println!("unexpected        {unexpected} answers, {alarms} errors in the log");
        println!("RSS               {} to {} KiB by the minute at the end: {:.1} %", rss.0, rss.1, spread(rss) * 100.0);
        println!("                  {} to {} KiB at any moment then", moments.0, moments.1);
        println!("descriptors       {} to {} at the end, {first} in the beginning", descriptors.0, descriptors.1);
        // A short run has not warmed up: it is about answers alone.
        let is_flat = time < LONG || spread(rss) <= 0.05 && descriptors.1 <= first + first / 5 + 16;
        requests > 0 && unexpected == 0 && alarms == 0 && twice == 0 && is_flat
    }

    fn carried_out(&self, port: u16) -> Vec<u64> {
        fs::read_to_string(self.journal(port)).unwrap().lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// What the process held at a moment.
struct Sample {
    rss: u64,
    descriptors: u64,
}

async fn watch(world: &World, portcullis: &Running, time: Duration) -> Vec<Sample> {
    let (mut samples, mut ticks) = (Vec::new(), interval(SAMPLE_INTERVAL));
    ticks.tick().await;
    while world.started.elapsed() < time {
        ticks.tick().await;
        let sample = Sample { rss: portcullis.rss(), descriptors: portcullis.descriptors() as u64 };
        if samples.len() % 6 == 5 {
            let at = world.started.elapsed().as_secs() / 60;
            let Tally { requests, unexpected, .. } = &world.tally;
            println!(
                "{at:3} min: {} requests, {} unexpected, RSS {} KiB, {} descriptors",
                requests.load(Ordering::Relaxed),
                unexpected.load(Ordering::Relaxed),
                sample.rss / 1024,
                sample.descriptors
            );
            // Gigabytes otherwise.
            fs::File::options().write(true).open(world.dir.join("audit.jsonl")).unwrap().set_len(0).unwrap();
        }
        samples.push(sample);
    }
    let lines = samples.iter().map(|sample| format!("{},{}\n", sample.rss, sample.descriptors));
    fs::write(world.dir.join("samples.csv"), lines.collect::<String>()).unwrap();
    samples
}

/// How many requests a second the machine can do.
async fn measure(world: &Arc<World>) -> f64 {
    let agents =
        (0..WORKERS).map(|number| tokio::spawn(work(Arc::clone(world), number, interval(Duration::from_micros(1)))));
    let agents: Vec<_> = agents.collect();
    sleep(MEASURED).await;
    agents.iter().for_each(tokio::task::JoinHandle::abort);
    world.tally.requests.swap(0, Ordering::Relaxed) as f64 / MEASURED.as_secs_f64()
}

async fn rotate(world: Arc<World>) {
    let mut minutes = interval(Duration::from_secs(60));
    minutes.tick().await;
    loop {
        minutes.tick().await;
        world.keys.rotate();
    }
}

/// Kills instance b, and starts it anew when everybody has noticed.
async fn flap(world: Arc<World>, mut b: Running, pause: Duration) {
    loop {
        sleep(pause).await;
        {
            // Held meanwhile: nobody judges an answer by an earlier death.
            let mut killed = world.killed.lock().unwrap();
            b.kill();
            *killed = Some(Instant::now());
        }
        world.tally.kills.fetch_add(1, Ordering::Relaxed);
        sleep(pause / 4).await;
        let starting = Arc::clone(&world);
        b = tokio::task::spawn_blocking(move || starting.start_tools(starting.sites.b)).await.unwrap();
    }
}

/// One agent: a session, twenty calls and some that must be refused, its end; over and over.
async fn work(world: Arc<World>, number: usize, mut pace: Interval) {
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut agent = Agent { world, number, pace, client: None, token: (String::new(), Instant::now() - TOKEN_REUSED) };
    let mut turn = number;
    loop {
        turn += 1;
        let Some(session) = agent.open_session().await else { continue };
        agent.converse(&session, turn).await;
    }
}

struct Agent {
    world: Arc<World>,
    number: usize,
    pace: Interval,
    client: Option<Client>,
    /// With the time it was signed.
    token: (String, Instant),
}

impl Agent {
    async fn open_session(&mut self) -> Option<Session> {
        let (opened, token) = (Instant::now(), self.token());
        let (status, answer) = self.post(&token, None, INITIALIZE).await;
        if status != 200 {
            self.failed(status, self.world.may_have_met_the_dead(opened), &answer);
            return None;
        }
        let Some(id) = self.client.as_ref().and_then(|client| client.header("mcp-session-id")) else {
            self.world.unexpected(&format!("no session id: {answer}"));
            return None;
        };
        let is_on_b = answer.contains(&format!(r#""name":"{}""#, self.world.sites.b));
        self.world.tally.sessions.fetch_add(1, Ordering::Relaxed);
        Some(Session { id, is_on_b, opened })
    }

    /// Returns early when the session's instance was killed.
    async fn converse(&mut self, session: &Session, turn: usize) -> Option<()> {
        let world = Arc::clone(&self.world);
        self.expect(session, 202, "", INITIALIZED).await?;
        let mut stream = None;
        if turn.is_multiple_of(8) {
            let mut client = Client::connect(&world.sites.gateway).await.ok()?;
            let token = self.token();
            let head = self.head("GET", &token, Some(&session.id), 0);
            world.tally.requests.fetch_add(1, Ordering::Relaxed);
            match client.open(head.as_bytes()).await {
                Ok(200) => stream = Some(client),
                other => self.failed(other.unwrap_or(0), world.is_dead(session), "no stream"),
            }
        }
        for _ in 0..CALLS_PER_SESSION {
            let number = world.next_number.fetch_add(1, Ordering::Relaxed);
            self.expect(session, 200, &format!(r#""number":{number}}}"#), &call("work", number, "Hello, world!"))
                .await?;
        }
        self.expect(session, 403, "", &call("purge", 0, "Hello, world!")).await?;
        self.expect(session, 403, "", &call("work", 0, "Goodbye.")).await?;
        if turn.is_multiple_of(4) {
            let expired = world.keys.token(self.number, -120);
            let (status, answer) = self.post(&expired, Some(&session.id), &call("work", 0, "Hello, world!")).await;
            if status != 401 {
                world.unexpected(&format!("{status} for an expired token: {answer}"));
            }
        }
        drop(stream);
        let token = self.token();
        let head = self.head("DELETE", &token, Some(&session.id), 0);
        let (status, answer) = self.send(head.into_bytes()).await;
        if status != 200 {
            self.failed(status, world.is_dead(session), &answer);
            return None;
        }
        let (status, answer) = self.post(&token, Some(&session.id), INITIALIZED).await;
        if status != 404 {
            world.unexpected(&format!("{status} in a session that has ended: {answer}"));
        }
        Some(())
    }

    /// Sends a message and holds the answer against what it must be.
    async fn expect(&mut self, session: &Session, status: u16, part: &str, body: &str) -> Option<()> {
        let token = self.token();
        let (found, answer) = self.post(&token, Some(&session.id), body).await;
        if found == status && answer.contains(part) {
            return Some(());
        }
        self.failed(found, self.world.is_dead(session), &answer);
        None
    }

    /// Sorts a failure: lost with the instance, or unexpected.
    fn failed(&self, status: u16, instance_died: bool, answer: &str) {
        // In a stream that had begun, the error is in it.
        let is_loss = matches!(status, 404 | 502) || status == 200 && answer.contains("upstream_unreachable");
        if instance_died && is_loss {
            self.world.tally.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.world.unexpected(&format!("{status}: {answer}"));
        }
    }

    async fn post(&mut self, token: &str, session: Option<&str>, body: &str) -> (u16, String) {
        let request = self.head("POST", token, session, body.len()) + body;
        self.send(request.into_bytes()).await
    }

    /// Status and whole answer; 0 when there was none.
    async fn send(&mut self, request: Vec<u8>) -> (u16, String) {
        self.pace.tick().await;
        self.world.tally.requests.fetch_add(1, Ordering::Relaxed);
        let mut client = match self.client.take() {
            Some(client) => client,
            None => match Client::connect(&self.world.sites.gateway).await {
                Ok(client) => client,
                Err(error) => return (0, error.to_string()),
            },
        };
        match tokio::time::timeout(ANSWER_MAX, client.call(&request)).await {
            Ok(Ok(status)) => {
                let answer = client.answer();
                if client.header("connection").is_none_or(|value| value != "close") {
                    self.client = Some(client);
                }
                (status, answer)
            }
            Ok(Err(error)) => (0, error.to_string()),
            Err(_) => (0, "no answer".to_owned()),
        }
    }

    fn head(&self, method: &str, token: &str, session: Option<&str>, length: usize) -> String {
        let session = session.map_or_else(String::new, |id| format!("Mcp-Session-Id: {id}\r\n"));
        let accept = if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" };
        format!(
            "{method} /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nMCP-Protocol-Version: 2025-11-25\r\n{session}\
             Content-Length: {length}\r\n\r\n"
        )
    }

    /// A token that is good for a while.
    fn token(&mut self) -> String {
        if self.token.1.elapsed() >= TOKEN_REUSED {
            self.token = (self.world.keys.token(self.number, TOKEN_LIFE.as_secs() as i64), Instant::now());
        }
        self.token.0.clone()
    }
}

impl Answer for RotatingKeys {
    /// `/jwks`, and `/token` (RFC 8693).
    fn to(&self, head: &[u8], _body: &[u8]) -> Cow<'_, [u8]> {
        if head.starts_with(b"GET /jwks ") {
            return Cow::Owned(backend::json("", &self.jwks()));
        }
        let exchanged = format!(
            r#"{{"access_token":"exchanged-{}","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":{}}}"#,
            self.next_exchange(),
            TOKEN_LIFE.as_secs(),
        );
        Cow::Owned(backend::json("cache-control: no-store\r\n", &exchanged))
    }
}

/// Free addresses below the ephemeral range: no outgoing connection takes the one of an instance that is down.
fn addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let mut ports = 20_000 + (std::process::id() % 500 * 20) as u16..;
    [(); COUNT].map(|()| {
        let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        ([127, 0, 0, 1], free.unwrap()).into()
    })
}

fn call(tool: &str, number: u64, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"number":{number},"text":"{text}"}}}}}}"#
    )
}

const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"soak","version":"1"}}}"#
);

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

const WORKERS: usize = 48;

const CALLS_PER_SESSION: usize = 20;

/// How long a token is good, and how long it is used: shorter than the minute in which its key is still published after the
/// next one has come.
const TOKEN_LIFE: Duration = Duration::from_secs(50);
const TOKEN_REUSED: Duration = Duration::from_secs(25);

const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

const MEASURED: Duration = Duration::from_secs(5);

const ANSWER_MAX: Duration = Duration::from_secs(30);

/// From here on a run must be flat too.
const LONG: Duration = Duration::from_secs(20 * 60);

/// Of unexpected answers so many are shown.
const UNEXPECTED_SHOWN: u64 = 20;
