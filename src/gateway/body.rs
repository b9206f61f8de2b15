//! How is a body read whole before anything goes upstream?
//!
//! Pingora 0.9.1 has no supported way to judge a body before it picks a peer. What it does have is a retry buffer of
//! 64 KiB, which it replays to the upstream; a request whose body was read and does not fit in there would hang. So the
//! buffer is armed late: only when the rest of the body surely fits. It then serves as the trigger that makes Pingora
//! call `request_body_filter`, and that filter puts the judged body in place of whatever the buffer held.
//! Cloudflare's pull request 816 (`set_buffered_body`) makes all of this one call; only this file knows of the trick.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::time::timeout;
use pingora_proxy::Session;

use super::rejection::Rejection;

/// Reads the request body whole.
///
/// # Errors
/// [`Rejection::BodyTooLarge`] above `bytes_max`, before the excess is read; [`Rejection::BodyTimeout`] when it has not
/// arrived within `within`; [`Rejection::LengthRequired`] for more than 64 KiB without a declared length;
/// [`Rejection::ClientGone`] when the connection broke.
pub(super) async fn read_whole(session: &mut Session, bytes_max: usize, within: Duration) -> Result<Bytes, Rejection> {
    let declared = declared_length(session)?;
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(Rejection::BodyTooLarge);
    }
    if expects_continue(session) {
        let client = session.as_downstream_mut();
        client.write_continue_response().await.map_err(|_broken| Rejection::ClientGone)?;
    }
    // Neither h1 (per read) nor h2 (not at all) bounds the whole, so one timer does. It is Pingora's, which is not set
    // before something has to be waited for: most bodies are there with their head.
    timeout(within, read_chunks(session, declared, bytes_max)).await.unwrap_or(Err(Rejection::BodyTimeout))
}

async fn read_chunks(session: &mut Session, declared: Option<usize>, bytes_max: usize) -> Result<Bytes, Rejection> {
    let mut whole = Chunks::default();
    loop {
        if declared.is_none_or(|length| length.saturating_sub(whole.len()) <= REPLAY_BYTES_MAX) {
            session.as_downstream_mut().enable_retry_buffering();
        }
        let chunk = session.as_downstream_mut().read_request_body().await.map_err(|_broken| Rejection::ClientGone)?;
        let Some(chunk) = chunk else { break };
        if whole.len() + chunk.len() > bytes_max {
            return Err(Rejection::BodyTooLarge);
        }
        whole.push(chunk, declared.unwrap_or_default());
    }
    if whole.len() > 0 && session.as_downstream().get_retry_buffer().is_none() {
        return Err(Rejection::LengthRequired);
    }
    Ok(whole.join())
}

/// The pieces of a body; one piece (the usual case) is kept without a copy.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    rest: Option<BytesMut>,
}

impl Chunks {
    fn len(&self) -> usize {
        self.rest.as_ref().map_or(self.first.len(), BytesMut::len)
    }

    /// Adds a piece of a body for which `room` bytes will do, if the client keeps its word.
    fn push(&mut self, chunk: Bytes, room: usize) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        let rest = self.rest.get_or_insert_with(|| {
            let mut rest = BytesMut::with_capacity(room);
            rest.extend_from_slice(&self.first);
            rest
        });
        rest.extend_from_slice(&chunk);
    }

    fn join(self) -> Bytes {
        self.rest.map_or(self.first, BytesMut::freeze)
    }
}

fn declared_length(session: &Session) -> Result<Option<usize>, Rejection> {
    if has_two_framings(session) {
        return Err(Rejection::Malformed);
    }
    match session.req_header().headers.get(http::header::CONTENT_LENGTH) {
        None => Ok(None),
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            length.map(Some).ok_or(Rejection::Malformed)
        }
    }
}

/// Whether a head has both `Transfer-Encoding` and `Content-Length`: an attempt at smuggling, to be handled as an error
/// (RFC 9112 §6.3). Pingora takes the second away before anybody sees the headers, so the bytes are asked.
fn has_two_framings(session: &Session) -> bool {
    let is_coded = session.req_header().headers.contains_key(http::header::TRANSFER_ENCODING);
    is_coded && session.as_downstream().as_http1().is_some_and(|http1| names_a_length(&http1.get_headers_raw_bytes()))
}

fn names_a_length(head: &[u8]) -> bool {
    let name = CONTENT_LENGTH.as_bytes();
    head.split(|byte| *byte == b'\n')
        .any(|line| line.split_at_checked(name.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(name)))
}

fn expects_continue(session: &Session) -> bool {
    let expect = session.req_header().headers.get(http::header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Pingora replays at most this much of a body that was read (pingora-core 0.9.1, `BODY_BUF_LIMIT`).
const REPLAY_BYTES_MAX: usize = 64 * 1024;

const CONTENT_LENGTH: &str = "content-length:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_found_in_any_spelling_of_a_line_and_nowhere_else() {
        assert!(names_a_length(b"POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:5\r\n\r\n"));
        assert!(names_a_length(b"POST / HTTP/1.1\nContent-Length: 5\n\n"));
        assert!(!names_a_length(
            b"POST /content-length: HTTP/1.1\r\nX-Content-Length: 5\r\nY: content-length:\r\n\r\n"
        ));
    }
}
