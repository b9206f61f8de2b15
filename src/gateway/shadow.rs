//! Would another version have answered the same? A call is made once more, beside the one that counts; both answers are
//! compared by digest, and the second one goes nowhere.

use std::time::Instant;

use bytes::Bytes;
use dashmap::{DashMap, DashSet};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use pingora::http::RequestHeader;
use pingora_proxy::Session as Client;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::oneshot;

use crate::audit::EventKind;
use crate::config::OnFull;
use crate::mcp::sse::Splitter;
use crate::mcp::{Method, Target};
use crate::net::Talk;
use crate::registry::definition::canonical;
use crate::routing::shadow::LeftOut;

use super::Shell;
use super::forward;
use super::pipeline::Admitted;
use super::record::Record;

/// The answer that counts, as its server says it, on its way to be compared with another. Dropping it without an answer ends the
/// comparison.
pub(super) struct Comparison {
    /// Who waits for it.
    waits: Option<oneshot::Sender<Option<AnswerDigest>>>,
    /// What has come of a document.
    document: Vec<u8>,
    /// Or of events.
    events: Splitter,
}

/// Of what an answer says, whatever its id and the order of its members.
type AnswerDigest = [u8; 32];

/// Tools that servers call read-only, as learned from the lists that pass by.
#[derive(Default)]
pub(super) struct ReadOnlyTools(DashMap<Arc<str>, DashSet<Box<str>>>);

impl ReadOnlyTools {
    /// Remembers what a list says of a tool: `annotations.readOnlyHint` (MCP, "ToolAnnotations").
    pub(super) fn learn(&self, server: &Arc<str>, tool: &str, definition: &str) {
        let tools = self.0.entry(Arc::clone(server)).or_default();
        if !is_read_only(definition) {
            tools.remove(tool);
        } else if tools.len() < TOOLS_PER_SERVER_MAX {
            tools.insert(tool.into());
        }
    }

    fn has(&self, server: &str, tool: &str) -> bool {
        self.0.get(server).is_some_and(|tools| tools.contains(tool))
    }
}

fn is_read_only(definition: &str) -> bool {
    #[derive(Deserialize)]
    struct Tool {
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(default, rename = "readOnlyHint")]
        read_only: Option<bool>,
    }
    let tool = serde_json::from_str::<Tool>(definition).ok();
    tool.and_then(|tool| tool.annotations?.read_only) == Some(true)
}

/// Makes an admitted call once more, if it is one of those that are to be compared: of one tool that the configuration names
/// and the server calls read-only, and without a session, which the other instance would not know.
pub(super) fn begin(shell: &Arc<Shell>, admitted: &Admitted, client: &Client, record: &Record) -> Option<Comparison> {
    let server = &admitted.route.server;
    let shadow = server.shadow.as_ref()?;
    let [message] = admitted.ask.messages() else { return None };
    let (Some(Method::ToolsCall), Target::Tool(tool), None) = (message.method(), &message.target, &admitted.session)
    else {
        return None;
    };
    if !shadow.names(tool) {
        return None;
    }
    let name = server.name();
    if !shell.read_only.has(name, tool) {
        shell.metrics.routing.shadowed(name, "not_read_only");
        return None;
    }
    let place = match shadow.begin(&admitted.instance, Instant::now()) {
        Ok(place) => place,
        Err(LeftOut::NotMeant) => return None,
        Err(LeftOut::Busy) => {
            shell.metrics.routing.shadowed(name, "busy");
            return None;
        }
        Err(LeftOut::Unhealthy) => {
            shell.metrics.routing.shadowed(name, "unhealthy");
            return None;
        }
    };
    let peer = place.instance.peer()?;
    let headers = headers(admitted, client, record)?;
    let body = forward::judged_body(admitted)?;
    let (sender, answered) = oneshot::channel();
    let (shell, server) = (Arc::clone(shell), Arc::clone(server));
    let mut event = record.lifecycle_event(EventKind::RoutingShadowed, None);
    event.instance = Some(Arc::clone(&place.instance.id));
    tokio::spawn(async move {
        let started = Instant::now();
        let both = async {
            let host = place.instance.host.clone();
            let mut talk = Talk::new(&shell.connector, peer, host, &server.config.path, headers, ANSWER_BYTES_MAX);
            let (second, first) = tokio::join!(talk.repeat(body), answered);
            (second.ok().as_deref().map(digest_of), first.ok().flatten())
        };
        let result = match tokio::time::timeout(place.timeout, both).await {
            Ok((Some(second), Some(first))) if second == first => "same",
            Ok((Some(_), Some(_))) => "different",
            Ok((_, None)) => "unanswered",
            Ok((None, _)) | Err(_) => "failed",
        };
        shell.metrics.routing.shadowed(server.name(), result);
        event.detail = Some(result);
        event.duration = started.elapsed();
        if let Ok(audit) = shell.audit.reserve(OnFull::Wait).await {
            audit.record(event);
        }
    });
    Some(Comparison::new(sender))
}

/// What the other instance is sent with the call: exactly what the first one is.
fn headers(admitted: &Admitted, client: &Client, record: &Record) -> Option<HeaderMap> {
    let mut head = RequestHeader::build("POST", b"/", None).ok()?;
    forward::write_head(admitted, client, record, &mut head).ok()?;
    let mut headers = head.headers.clone();
    for own in [HOST, CONTENT_LENGTH, CONTENT_TYPE, ACCEPT] {
        headers.remove(own);
    }
    Some(headers)
}

impl Comparison {
    fn new(waits: oneshot::Sender<Option<AnswerDigest>>) -> Self {
        Self { waits: Some(waits), document: Vec::new(), events: Splitter::new(ANSWER_BYTES_MAX) }
    }

    /// Hears a piece of what the server answers, before any rule changes it.
    pub(super) fn hear(&mut self, piece: Option<&Bytes>, is_stream: bool, end_of_stream: bool) {
        if self.waits.is_none() {
            return;
        }
        let answer = match (is_stream, piece) {
            (true, piece) => self.in_events(piece, end_of_stream),
            (false, Some(piece)) if self.document.len() + piece.len() > ANSWER_BYTES_MAX => return self.give_up(),
            (false, piece) => {
                self.document.extend_from_slice(piece.map(Bytes::as_ref).unwrap_or_default());
                end_of_stream.then(|| std::mem::take(&mut self.document).into())
            }
        };
        if let Some(answer) = answer.filter(|answer| is_answer(answer))
            && let Some(waits) = self.waits.take()
        {
            let _nobody_waits_any_more = waits.send(Some(digest_of(&answer)));
        }
    }

    /// The first answer among the events that are whole.
    fn in_events(&mut self, piece: Option<&Bytes>, end_of_stream: bool) -> Option<Bytes> {
        piece.into_iter().for_each(|piece| self.events.push(piece.clone()));
        loop {
            let event = match self.events.next_piece() {
                Ok(Some(event)) => event,
                Ok(None) if end_of_stream => return self.take_events().finish()?.event().data,
                Ok(None) => return None,
                Err(_too_long) => {
                    self.give_up();
                    return None;
                }
            };
            if let Some(answer) = event.event().data.filter(|data| is_answer(data)) {
                return Some(answer);
            }
        }
    }

    fn take_events(&mut self) -> Splitter {
        std::mem::replace(&mut self.events, Splitter::new(0))
    }

    fn give_up(&mut self) {
        self.waits = None;
    }
}

fn is_answer(message: &[u8]) -> bool {
    serde_json::from_slice::<Answer<'_>>(message).is_ok_and(|answer| answer.result.is_some() || answer.error.is_some())
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Of result or error alone, in canonical form (RFC 8785).
fn digest_of(answer: &[u8]) -> AnswerDigest {
    let read = serde_json::from_slice::<Answer<'_>>(answer).ok();
    let said = read.as_ref().and_then(|answer| answer.result.or(answer.error)).map(RawValue::get);
    let canonical = said.and_then(|said| canonical(said).ok());
    let bytes = canonical.as_deref().map_or(answer, str::as_bytes);
    digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Bytes of an answer, and of an event of one.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Tools remembered of one server.
const TOOLS_PER_SERVER_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_calls_read_only_is() {
        for (definition, read_only) in [
            (r#"{"name":"a","annotations":{"readOnlyHint":true}}"#, true),
            (r#"{"name":"a","annotations":{"readOnlyHint":false}}"#, false),
            (r#"{"name":"a","annotations":{"readOnlyHint":"true"}}"#, false),
            (r#"{"name":"a","annotations":{}}"#, false),
            (r#"{"name":"a","readOnlyHint":true}"#, false),
        ] {
            assert_eq!(is_read_only(definition), read_only, "{definition}");
        }
    }

    /// However a stream is cut, its answer is heard, and nothing else in it is taken for one.
    #[test]
    fn the_answer_is_heard_in_a_document_and_among_events() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"a":[1]}}"#;
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
        let events = format!(
            ": hi\n\ndata: {notice}\n\ndata: {{\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{{\"a\":[1]}}}}\n\n"
        );
        let unended = format!("data: {answer}\n");
        for (said, is_stream) in [(answer, false), (&*events, true), (&*unended, true)] {
            for size in [1, 7, said.len()] {
                let (sender, mut heard) = oneshot::channel();
                let mut comparison = Comparison::new(sender);
                for piece in said.as_bytes().chunks(size) {
                    comparison.hear(Some(&Bytes::copy_from_slice(piece)), is_stream, false);
                }
                comparison.hear(None, is_stream, true);
                assert_eq!(heard.try_recv(), Ok(Some(digest_of(answer.as_bytes()))), "{said}");
            }
        }
        let (sender, mut heard) = oneshot::channel();
        let mut comparison = Comparison::new(sender);
        comparison.hear(Some(&Bytes::from(format!("data: {notice}\n\n"))), true, true);
        drop(comparison);
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn answers_are_compared_by_what_they_say() {
        let one = br#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"b":[2]}}"#;
        let same = br#"{"id":"other","result":{ "b":[2], "a":1.0 },"jsonrpc":"2.0"}"#;
        let other = br#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"b":[3]}}"#;
        assert_eq!(digest_of(one), digest_of(same));
        assert_ne!(digest_of(one), digest_of(other));
    }
}
