//! A server that answers with exactly the bytes it is told, for what no HTTP library would send.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What happens after the bytes were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The connection is closed.
    Close,
    /// The next request is read from it.
    KeepAlive,
}

/// Which request it is.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// How many requests came before on this connection.
    pub earlier_on_connection: usize,
    pub message: Value,
}

/// The server; it ends with the process.
pub struct RawServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<RawRequest>>>,
}

impl RawServer {
    /// Answers each request with what `behaviour` returns.
    pub fn start(behaviour: impl Fn(&RawRequest) -> (Vec<u8>, Then) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all_seen, behaviour) = (Arc::clone(&seen), Arc::new(behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, behaviour) = (Arc::clone(&all_seen), Arc::clone(&behaviour));
                std::thread::spawn(move || serve(stream, &seen, &*behaviour));
            }
        });
        Self { address, seen }
    }

    /// A JSON answer as bytes.
    pub fn json(body: &Value) -> Vec<u8> {
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn seen(&self) -> Vec<RawRequest> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<RawRequest>>,
    behaviour: &(dyn Fn(&RawRequest) -> (Vec<u8>, Then) + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    for earlier_on_connection in 0.. {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let request = RawRequest { earlier_on_connection, message: serde_json::from_slice(&body).unwrap_or_default() };
        seen.lock().unwrap().push(request.clone());
        let (answer, then) = behaviour(&request);
        if reader.get_mut().write_all(&answer).is_err() || then == Then::Close {
            return;
        }
    }
}
