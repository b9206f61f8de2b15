//! Would another version have answered the same? A call is made once more, beside the one that counts; both answers are
//! compared by digest, and the second one goes nowhere.

use std::time::Instant;

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
use crate::mcp::{Method, Target};
use crate::net::Talk;
use crate::registry::definition::canonical;
use crate::routing::shadow::LeftOut;

use super::Shell;
use super::forward;
use super::pipeline::Admitted;
use super::record::Record;

/// The answer that counts, on its way to be compared with another. Dropping it without an answer ends the comparison.
pub(super) struct Comparison(Option<oneshot::Sender<Option<AnswerDigest>>>);

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
    Some(Comparison(Some(sender)))
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
    /// A piece of the answer that counts passes: whole, or whole events of it.
    pub(super) fn look_at(&mut self, passed: &[u8]) {
        let is_answer =
            |message: &&[u8]| serde_json::from_slice::<Answer<'_>>(message).is_ok_and(|answer| answer.is_one());
        let answer = if passed.first() == Some(&b'{') {
            Some(passed).filter(is_answer)
        } else {
            passed.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:")).find(is_answer)
        };
        if let Some(answer) = answer
            && let Some(sender) = self.0.take()
        {
            let _nobody_waits_any_more = sender.send(Some(digest_of(answer)));
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Answer<'_> {
    fn is_one(&self) -> bool {
        self.result.is_some() || self.error.is_some()
    }
}

/// Of result or error alone, in canonical form (RFC 8785).
fn digest_of(answer: &[u8]) -> AnswerDigest {
    let read = serde_json::from_slice::<Answer<'_>>(answer).ok();
    let said = read.as_ref().and_then(|answer| answer.result.or(answer.error)).map(RawValue::get);
    let canonical = said.and_then(|said| canonical(said).ok());
    let bytes = canonical.as_deref().map_or(answer, str::as_bytes);
    digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Bytes of the second answer.
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

    #[test]
    fn answers_are_compared_by_what_they_say() {
        let one = br#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"b":[2]}}"#;
        let same = br#"{"id":"other","result":{ "b":[2], "a":1.0 },"jsonrpc":"2.0"}"#;
        let other = br#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"b":[3]}}"#;
        assert_eq!(digest_of(one), digest_of(same));
        assert_ne!(digest_of(one), digest_of(other));
    }
}
