//! Does a stream mean the same however it is cut into chunks, and whatever is put into it?
//!
//! Input: a first line whose bytes are the lengths of the chunks (repeated until the stream ends), then the stream.

use bytes::Bytes;
use portcullis::mcp::ListStream;
use portcullis::mcp::sse::{Boundary, Piece, Splitter, SseError, join, message_event};
use serde_json::value::RawValue;

use super::list::{Options, REQUESTS, is_hidden, name_of, shows_nothing_hidden};

/// Cuts, and compares with a reading of the whole stream (WHATWG HTML §9.2.6).
pub fn run(input: &[u8]) {
    let Some((lengths, stream)) = super::split_once(input, b"\n") else { return };
    let chunks = chunks(lengths, stream);
    let events = events(stream);

    for chunks in [&[Bytes::copy_from_slice(stream)][..], &chunks] {
        let pieces = pieces(chunks, usize::MAX).unwrap();
        let glued = join(pieces.iter().map(|piece| piece.raw.clone()).collect());
        assert_eq!(glued, stream, "a byte was lost or came from nowhere");
        assert_eq!(pieces.iter().filter_map(fields).collect::<Vec<_>>(), events);
        each_may_be_replaced(&pieces, &events);
        others_may_be_put_in(&pieces, &events);
    }
    limits_are_kept(stream, &chunks);
    lists_are_filtered(lengths, stream, &chunks);
}

/// What a client finds in an event; none when there is nothing a client would read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fields {
    name: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
}

fn fields(piece: &Piece) -> Option<Fields> {
    let event = piece.event();
    let owned = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_vec());
    let fields = Fields { name: owned(event.name), id: owned(event.id), data: owned(event.data) };
    (fields != Fields::default()).then_some(fields)
}

/// Every event of a whole stream, line by line; the last one also without its blank line.
fn events(stream: &[u8]) -> Vec<Fields> {
    let stream = stream.strip_prefix("\u{feff}".as_bytes()).unwrap_or(stream);
    let mut events = Vec::new();
    let mut event = Fields::default();
    for line in lines(stream) {
        if line.is_empty() {
            events.push(std::mem::take(&mut event));
            continue;
        }
        let (field, value) = super::split_once(line, b":").unwrap_or((line, b""));
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match field {
            b"event" => event.name = Some(value),
            b"id" => event.id = Some(value),
            b"data" => match &mut event.data {
                None => event.data = Some(value),
                Some(data) => {
                    data.push(b'\n');
                    data.extend(value);
                }
            },
            _ => {}
        }
    }
    events.push(event);
    events.retain(|event| *event != Fields::default());
    events
}

/// Lines end with CR LF, LF, or CR.
fn lines(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while !stream.is_empty() {
        let end = stream.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(stream.len());
        lines.push(&stream[..end]);
        let rest = &stream[end..];
        stream = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
    }
    lines
}

pub(super) fn chunks(lengths: &[u8], mut stream: &[u8]) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut lengths = lengths.iter().filter(|length| **length > 0).cycle();
    while !stream.is_empty() {
        let length = lengths.next().map_or(stream.len(), |length| usize::from(*length)).min(stream.len());
        let (chunk, rest) = stream.split_at(length);
        chunks.push(Bytes::copy_from_slice(chunk));
        stream = rest;
    }
    chunks
}

/// Cuts into pieces; what is still held at the end is the last. A watcher of the same chunks stands at the same boundaries.
fn pieces(chunks: &[Bytes], event_bytes_max: usize) -> Result<Vec<Piece>, SseError> {
    let mut splitter = Splitter::new(event_bytes_max);
    let mut boundary = Boundary::default();
    let mut pieces = Vec::new();
    for chunk in chunks {
        splitter.push(chunk.clone());
        boundary.watch(chunk);
        while let Some(piece) = splitter.next_piece()? {
            assert!(!piece.raw.is_empty());
            pieces.push(piece);
        }
        assert_eq!(splitter.is_at_boundary(), boundary.is_at_boundary());
    }
    pieces.extend(splitter.finish());
    Ok(pieces)
}

/// Other data in one event leaves all others as they are.
fn each_may_be_replaced(pieces: &[Piece], events: &[Fields]) {
    let mut nth_event = 0;
    for (nth, piece) in pieces.iter().enumerate() {
        let Some(Fields { data, .. }) = fields(piece) else { continue };
        let (changed, at) = (&b"{\"a\":\r\n 1}\n"[..], nth_event);
        nth_event += 1;
        if at == TRIED_MAX {
            break;
        }
        let mut stream = pieces[..nth].iter().map(|piece| piece.raw.to_vec()).collect::<Vec<_>>().concat();
        stream.extend(piece.with_data(changed));
        pieces[nth + 1..].iter().for_each(|piece| stream.extend(&piece.raw[..]));
        let mut expected = events.to_vec();
        if data.is_some() {
            expected[at].data = Some(b"{\"a\":\n\n 1}\n".to_vec());
        }
        assert_eq!(self::events(&stream), expected);
    }
}

/// Each is compared with the whole stream, so more would take quadratic time.
const TRIED_MAX: usize = 3;

/// An event between any two pieces is an event of its own.
fn others_may_be_put_in(pieces: &[Piece], events: &[Fields]) {
    let ours = Fields { name: Some(b"message".to_vec()), id: None, data: Some(b"{}".to_vec()) };
    // An unfinished piece comes last; nothing is put in behind it.
    for nth in 0..pieces.len().min(TRIED_MAX) {
        let raw = |pieces: &[Piece]| pieces.iter().map(|piece| piece.raw.to_vec()).collect::<Vec<_>>().concat();
        let stream = [raw(&pieces[..nth]), message_event(b"{}"), raw(&pieces[nth..])].concat();
        // In front of the byte order mark there is nothing.
        if nth == 0 && stream.windows(3).any(|window| window == "\u{feff}".as_bytes()) {
            continue;
        }
        let before = pieces[..nth].iter().filter_map(fields).count();
        let mut expected = events.to_vec();
        expected.insert(before, ours.clone());
        assert_eq!(self::events(&stream), expected);
    }
}

/// No event over the limit is handed out, and none within it is refused.
fn limits_are_kept(stream: &[u8], chunks: &[Bytes]) {
    const EVENT_BYTES_MAX: usize = 40;
    let whole = pieces(&[Bytes::copy_from_slice(stream)], EVENT_BYTES_MAX);
    let cut = pieces(chunks, EVENT_BYTES_MAX);
    for pieces in [&whole, &cut].into_iter().flatten() {
        assert!(pieces.iter().all(|piece| piece.raw.len() <= EVENT_BYTES_MAX));
    }
    if whole.is_ok() {
        assert!(cut.is_ok());
    }
    let longest =
        pieces(&[Bytes::copy_from_slice(stream)], usize::MAX).unwrap().iter().map(|piece| piece.raw.len()).max();
    // The second half of a CR LF does not count when it comes in a chunk of its own.
    if cut.is_ok() {
        assert!(longest.is_none_or(|longest| longest <= EVENT_BYTES_MAX + 1));
    }
}

/// The lists in a stream are filtered alike, however the stream is cut.
fn lists_are_filtered(options: &[u8], stream: &[u8], chunks: &[Bytes]) {
    let Options { era, earlier, .. } = Options::read(options);
    let hidden = ['h'];
    let filter = |chunks: &[Bytes]| {
        let mut stream = match earlier {
            true => ListStream::replaying(usize::MAX),
            false => ListStream::answering(REQUESTS.to_vec(), era, usize::MAX),
        };
        let mut keep = |item: portcullis::mcp::ListItem<'_>, _definition: &str| !is_hidden(name_of(item), &hidden);
        let mut out = Vec::new();
        let outcome = chunks.iter().try_for_each(|chunk| stream.push(chunk.clone(), &mut keep, &mut out));
        let outcome = outcome.and_then(|()| stream.finish(&mut keep, &mut out));
        (outcome, events(&join(out)), stream.unanswered().count())
    };
    let whole = filter(&[Bytes::copy_from_slice(stream)]);
    assert_eq!(whole, filter(chunks));
    for event in whole.1 {
        let is_message = event.name.is_none_or(|name| name.is_empty() || name == b"message");
        let Some(data) = event.data.filter(|_| is_message) else { continue };
        let messages = serde_json::from_slice::<Vec<&RawValue>>(&data);
        let messages = messages.or_else(|_| serde_json::from_slice(&data).map(|message| vec![message]));
        for message in messages.unwrap_or_default() {
            let id: Option<u64> = id_of(message);
            // An answer to the one request that asks for no list may hold anything.
            if earlier || id != Some(5) {
                shows_nothing_hidden(message, &hidden);
            }
        }
    }
}

fn id_of(message: &RawValue) -> Option<u64> {
    let message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(message.get()).ok()?;
    let id = message.get("id")?.as_f64()?;
    Some(id as u64)
}
