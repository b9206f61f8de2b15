//! A blocking HTTP/1.1 client that sends exactly the bytes it is told and reads answers piece by piece.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::DEADLINE;

/// How the body's end is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`, in pieces of 16 KiB.
    Chunked,
    /// `Content-Length`.
    Length,
    /// No body and no header about one.
    NoBody,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub framing: Framing,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
            framing: Framing::NoBody,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.framing = Framing::Length;
        self
    }

    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// The request as bytes. `Host` is `address` unless a header says otherwise.
    pub fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            bytes += &format!("Host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            bytes += &format!("{name}: {value}\r\n");
        }
        match self.framing {
            Framing::Chunked => bytes += "Transfer-Encoding: chunked\r\n",
            Framing::Length => bytes += &format!("Content-Length: {}\r\n", self.body.len()),
            Framing::NoBody => {}
        }
        bytes += "\r\n";
        let mut bytes = bytes.into_bytes();
        match self.framing {
            Framing::Chunked => {
                for chunk in self.body.chunks(16 * 1024) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            Framing::Length => bytes.extend_from_slice(&self.body),
            Framing::NoBody => {}
        }
        bytes
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "HTTP {}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let text = self.text();
        writeln!(f, "\n{}", text.get(..4000).unwrap_or(&text))
    }
}

/// Status and headers of an answer.
type Head = (u16, Vec<(String, String)>);

/// A connection that can carry several requests.
pub struct Connection {
    address: SocketAddr,
    reader: BufReader<Wire>,
}

/// What a connection runs over.
pub enum Wire {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl io::Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => tcp.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(address, Wire::Clear(stream))
    }

    /// A connection that is already made.
    pub fn over(address: SocketAddr, wire: Wire) -> Self {
        Self { address, reader: BufReader::new(wire) }
    }

    /// Where it leads.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The TLS state, when it runs over TLS.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match self.reader.get_ref() {
            Wire::Clear(_) => None,
            Wire::Tls(tls) => Some(&tls.conn),
        }
    }

    /// Writes bytes. A server may refuse and close before it has read all, so a failed write is not a failed test.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.reader.get_mut().write_all(bytes);
    }

    /// Whether the other side has closed; does not wait long.
    pub fn is_closed(&mut self) -> bool {
        let Wire::Clear(tcp) = self.reader.get_ref() else { return false };
        tcp.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        let read = self.reader.fill_buf().map(<[u8]>::len);
        !matches!(&read, Ok(1..))
            && !read.is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Reads until the other side closes; false when it has not in time.
    pub fn until_closed(&mut self) -> bool {
        let read = self.reader.read_to_end(&mut Vec::new());
        !read.is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Sends and reads the whole answer; the connection can be used again.
    pub fn send(&mut self, request: &Request) -> Response {
        self.write(&request.bytes(self.address));
        self.response().unwrap_or_else(|| panic!("no answer to {} {}", request.method, request.target))
    }

    /// Reads one whole answer; `None` when the server closed without one.
    pub fn response(&mut self) -> Option<Response> {
        let (status, headers) = self.head().ok()??;
        let mut body = Vec::new();
        let mut framing = BodyFraming::of(status, &headers);
        while let Ok(Some(piece)) = self.piece(&mut framing) {
            body.extend_from_slice(&piece);
        }
        Some(Response { status, headers, body })
    }

    /// The status line of an interim answer (1xx), with what belongs to it read away.
    pub fn line_of_interim(&mut self) -> String {
        let status = self.line().unwrap().expect("an interim answer");
        while self.line().unwrap().is_some_and(|line| !line.is_empty()) {}
        status
    }

    /// Reads a final response head, skipping 1xx.
    fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            let status: u16 = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(bad_data)?;
            let mut headers = Vec::new();
            while let Some(line) = self.line()?.filter(|line| !line.is_empty()) {
                let (name, value) = line.split_once(':').ok_or_else(bad_data)?;
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if !(100..200).contains(&status) {
                return Ok(Some((status, headers)));
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Reads a piece of the body as it comes; `None` at its proper end, an error when it broke off.
    fn piece(&mut self, framing: &mut BodyFraming) -> io::Result<Option<Vec<u8>>> {
        match framing {
            BodyFraming::Chunked => {
                let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).map_err(|_| bad_data())?;
                let mut piece = vec![0; size];
                self.reader.read_exact(&mut piece)?;
                self.line()?;
                if size == 0 {
                    *framing = BodyFraming::Length(0);
                    return Ok(None);
                }
                Ok(Some(piece))
            }
            BodyFraming::Length(0) => Ok(None),
            BodyFraming::Length(left) => {
                let got = self.reader.fill_buf()?;
                if got.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let piece = got[..got.len().min(*left)].to_vec();
                self.reader.consume(piece.len());
                *left -= piece.len();
                Ok(Some(piece))
            }
            BodyFraming::UntilClose => {
                let piece = self.reader.fill_buf()?.to_vec();
                self.reader.consume(piece.len());
                Ok((!piece.is_empty()).then_some(piece))
            }
        }
    }
}

enum BodyFraming {
    Chunked,
    Length(usize),
    UntilClose,
}

impl BodyFraming {
    fn of(status: u16, headers: &[(String, String)]) -> Self {
        if status == 204 || status == 304 {
            return Self::Length(0);
        }
        if find(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Self::Chunked;
        }
        find(headers, "content-length").and_then(|value| value.parse().ok()).map_or(Self::UntilClose, Self::Length)
    }
}

/// An answer whose head has arrived and whose body is still coming.
pub struct Opened {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    connection: Connection,
    framing: BodyFraming,
    unread: Vec<u8>,
    /// Every body byte that has arrived.
    pub received: Vec<u8>,
}

impl Opened {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Waits for the next server-sent event; `None` when the stream has ended, properly or not.
    pub fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.unread.split_off(end + 2);
                let text = std::mem::replace(&mut self.unread, rest);
                return Some(Event::parse(&String::from_utf8_lossy(&text)));
            }
            let piece = self.connection.piece(&mut self.framing).ok()??;
            self.received.extend_from_slice(&piece);
            self.unread.extend_from_slice(&piece);
        }
    }

    /// Reads to the end; true when the body ended as its framing promised.
    pub fn finish(&mut self) -> bool {
        loop {
            match self.connection.piece(&mut self.framing) {
                Ok(Some(piece)) => self.received.extend_from_slice(&piece),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// A server-sent event as the client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub data: String,
}

impl Event {
    fn parse(text: &str) -> Self {
        let mut event = Self::default();
        let mut data = Vec::new();
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data.push(value),
                "id" => event.id = Some(value.to_owned()),
                _ => {}
            }
        }
        event.data = data.join("\n");
        event
    }

    /// Every event of a whole body.
    pub fn all(body: &str) -> Vec<Self> {
        body.replace("\r\n", "\n").split_inclusive("\n\n").map(Self::parse).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("event is not JSON ({error}): {self:?}"))
    }
}

/// One request on a connection of its own.
pub fn send(address: SocketAddr, request: &Request) -> Response {
    Connection::open(address).send(request)
}

/// One request whose answer is read piece by piece.
pub fn open(address: SocketAddr, request: &Request) -> Opened {
    let mut connection = Connection::open(address);
    connection.write(&request.bytes(address));
    let (status, headers) = connection.head().ok().flatten().expect("a response head");
    let framing = BodyFraming::of(status, &headers);
    Opened { status, headers, connection, framing, unread: Vec::new(), received: Vec::new() }
}

/// Bytes as they are, then our half is closed; `None` when the server closed without an answer.
pub fn send_raw(address: SocketAddr, bytes: &[u8]) -> Option<Response> {
    let mut connection = Connection::open(address);
    connection.write(bytes);
    connection.response()
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn bad_data() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
