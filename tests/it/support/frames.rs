//! HTTP/2 frame by frame, for what no HTTP/2 library would send (RFC 9113; headers as RFC 7541 literals).

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::DEADLINE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream, or the connection under it, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connection was closed, with the code of the last GOAWAY.
    Closed(Option<u32>),
    /// Nothing came in time.
    Nothing,
    /// The stream was reset, with this code.
    Reset(u32),
    /// An answer came, with this status.
    Status(u16),
}

/// A connection in clear text (prior knowledge).
pub struct Frames {
    stream: TcpStream,
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block that no table takes part in.
pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    headers.iter().flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes())).collect()
}

/// A literal header; `first` is 0 for one that is not indexed, 0x40 for one that enters the dynamic table.
pub fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend_from_slice(text);
    }
    bytes
}

/// RFC 7541 §5.1, with a prefix of seven bits.
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        bytes.push(value as u8);
        return;
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

impl Frames {
    /// Connects, and says hello.
    pub fn open(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address);
        frames.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
        frames
    }

    /// Connects, and says nothing.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { stream }
    }

    /// Writes bytes; an error when the other side has closed, or takes nothing any more.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// The next frame; `None` when the connection was closed.
    ///
    /// # Errors
    /// When none came in time.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(error);
            }
            Err(_closed) => return Ok(None),
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if self.stream.read_exact(&mut payload).is_err() {
            return Ok(None);
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }

    /// Reads until `stream` has ended or been answered.
    pub fn ending(&mut self, stream: u32) -> Ending {
        let mut told = None;
        loop {
            let code = |payload: &[u8]| u32::from_be_bytes(payload[..4].try_into().unwrap());
            match self.read() {
                Err(_silent) => return Ending::Nothing,
                Ok(None) => return Ending::Closed(told),
                Ok(Some(frame)) if frame.kind == GOAWAY => told = Some(code(&frame.payload[4..])),
                Ok(Some(frame)) if frame.kind == RST_STREAM && frame.stream == stream => {
                    return Ending::Reset(code(&frame.payload));
                }
                Ok(Some(frame)) if frame.kind == HEADERS && frame.stream == stream => {
                    return Ending::Status(status(&frame.payload));
                }
                Ok(Some(_)) => {}
            }
        }
    }

    /// Reads until the connection is closed.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn until_closed(&mut self) -> io::Result<()> {
        while self.read()?.is_some() {}
        Ok(())
    }

    /// Ends our half.
    pub fn finish_writing(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// The status of an answer: it comes first, from the static table, or as three bytes, in clear or Huffman-coded digits.
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal under name 8 to 14, all of which say `:status`.
        [name, length, rest @ ..] if matches!(name & 0x3f, 8..=14) || matches!(name & 0x0f, 8..=14) => {
            let text = &rest[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { String::from_utf8_lossy(text).parse().unwrap() } else { digits(text) }
        }
        _ => panic!("no status first: {block:02x?}"),
    }
}

/// Digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn digits(coded: &[u8]) -> u16 {
    let bits: String = coded.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut number) = (0, 0);
    while bits.len() - at >= 5 {
        let five = u8::from_str_radix(&bits[at..at + 5], 2).unwrap();
        if five <= 2 {
            number = number * 10 + u16::from(five);
            at += 5;
        } else if bits.len() - at >= 6 {
            let six = u8::from_str_radix(&bits[at..at + 6], 2).unwrap();
            if !(0x19..=0x1f).contains(&six) {
                break;
            }
            number = number * 10 + u16::from(six - 0x19 + 3);
            at += 6;
        } else {
            break;
        }
    }
    number
}
