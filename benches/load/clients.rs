//! What clients does a measurement need that oha cannot be? Ones with another token for every request, and ones that only
//! open something and stay.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::rows::Call;

/// `ADDRESS CONNECTIONS SECONDS TOKENS SESSION`: calls with each token of the file TOKENS in turn. Prints what oha would.
pub fn first_seen(options: &[&str]) {
    let [address, connections, seconds, tokens, session] = options else { panic!("options") };
    let tokens = std::fs::read_to_string(tokens).unwrap();
    let requests: Arc<Vec<Vec<u8>>> =
        Arc::new(tokens.lines().map(|token| Call::Small.request(token, Some(session)).into_bytes()).collect());
    let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let until = started + Duration::from_secs_f64(seconds.parse().unwrap());
    let address = (*address).to_owned();
    let mut took = block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..connections.parse().unwrap() {
            let (next, requests, address) = (Arc::clone(&next), Arc::clone(&requests), address.clone());
            clients.spawn(async move {
                let (mut client, mut took) = (Client::connect(&address).await.unwrap(), Vec::new());
                while Instant::now() < until {
                    let asked = Instant::now();
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let status = client.call(&requests[number % requests.len()]).await.unwrap();
                    assert_eq!(status, 200, "a call with a token of its own");
                    took.push(asked.elapsed().as_secs_f64());
                }
                took
            });
        }
        clients.join_all().await.concat()
    });
    let elapsed = started.elapsed().as_secs_f64();
    took.sort_unstable_by(f64::total_cmp);
    let percentile = |part: f64| took[(took.len() as f64 * part) as usize];
    let report = json!({
        "summary": { "requestsPerSec": took.len() as f64 / elapsed },
        "latencyPercentiles": { "p50": percentile(0.5), "p99": percentile(0.99) },
        "statusCodeDistribution": { "200": took.len() },
        "errorDistribution": {},
    });
    println!("{report}");
}

/// `ADDRESS COUNT TOKEN`: opens COUNT sessions, prints the id of the last.
pub fn sessions(options: &[&str]) {
    let [address, count, token] = options else { panic!("options") };
    let request = Call::Initialize.request(token, None).into_bytes();
    let count: usize = count.parse().unwrap();
    let id = block_on(async {
        let mut client = Client::connect(address).await.unwrap();
        for _ in 0..count {
            assert_eq!(client.call(&request).await.unwrap(), 200, "initialize");
        }
        client.header("mcp-session-id")
    });
    println!("{}", id.expect("no session id"));
}

/// `ADDRESS COUNT TOKEN SESSION`: opens COUNT event streams, says so, and holds them until standard input ends.
pub fn streams(options: &[&str]) {
    let [address, count, token, session] = options else { panic!("options") };
    let request = Call::OpenStream.request(token, Some(session)).into_bytes();
    block_on(async {
        let mut held = Vec::new();
        for _ in 0..count.parse().unwrap() {
            let mut client = Client::connect(address).await.unwrap();
            client.stream.write_all(&request).await.unwrap();
            while !client.received.windows(3).any(|window| window == b"\n\r\n") || client.received.len() < 120 {
                client.read().await.unwrap();
            }
            assert_eq!(client.status(), 200, "GET");
            client.received = Vec::new();
            held.push(client.stream);
        }
        println!("{} streams are open", held.len());
        let _ = std::io::stdin().read(&mut [0]);
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// One HTTP/1.1 connection.
pub struct Client {
    stream: TcpStream,
    /// The last answer.
    received: Vec<u8>,
}

impl Client {
    pub async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends a request and reads its whole answer; the status comes out.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.send(request).await?;
        loop {
            self.read().await?;
            let Some(head) = self.head_length() else { continue };
            let body = self.received.len() - head;
            let is_whole = match self.header("content-length") {
                Some(length) => body.to_string() == length,
                None => self.received.ends_with(b"0\r\n\r\n"),
            };
            if is_whole {
                return Ok(self.status());
            }
        }
    }

    /// Sends a request and reads the head of its answer.
    pub async fn open(&mut self, request: &[u8]) -> io::Result<u16> {
        self.send(request).await?;
        while self.head_length().is_none() {
            self.read().await?;
        }
        Ok(self.status())
    }

    /// The last answer, head and body.
    pub fn answer(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.received.clear();
        self.stream.write_all(request).await
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn head_length(&self) -> Option<usize> {
        self.received.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4)
    }

    fn status(&self) -> u16 {
        std::str::from_utf8(&self.received[9..12]).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.received);
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}
