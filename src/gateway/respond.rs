//! What comes back to the client?

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType};
use pingora_proxy::Session as Client;
use ring::rand::SecureRandom;

use crate::mcp::list_stream::ListStream;
use crate::mcp::listing::{Asked, Filtered, Keep, ListItem, filter_answer};
use crate::mcp::{Era, RequestId, sse};
use crate::policy::{self, Facts, Item};
use crate::session::{self, Binding, Session};
use crate::telemetry::metrics::{OpenStream, SessionEvent};

use super::budgets::Spent;
use super::content::{self, Filtering, IsLast};
use super::governance::Inspection;
use super::outside::Outside;
use super::pipeline::{Admitted, Ask, SESSION_ID};
use super::record::{Record, X_REQUEST_ID};
use super::rejection::Rejection;
use super::{Exchange, Forwarded, Gateway, Shell, Stage};
use super::{credentials, local, taint};

/// How the answer of a server is treated on its way to the client.
pub(super) enum Answer {
    /// Its head has not come.
    Awaited,
    /// One JSON document, held until it is whole: a server that breaks off gives the client an error, not half of one.
    Document(Document),
    /// Nothing is in it that anybody reads.
    Empty,
    /// A stream of events, each passed on as soon as it is whole.
    Events(Box<Events>),
}

/// A JSON answer on its way.
pub(super) struct Document {
    status: StatusCode,
    chunks: Vec<Bytes>,
    bytes: usize,
    /// The length that its head has promised: that of an answer which nobody changes.
    promised: Option<usize>,
    /// The rules about its content.
    content: Option<Box<Filtering>>,
}

/// An SSE answer on its way.
pub(super) struct Events {
    stream: ListStream,
    /// Events that came whole before the fault that ends the stream.
    last_words: Vec<Bytes>,
    /// The rules about their content.
    content: Option<Box<Filtering>>,
    /// Counts the stream as open.
    _open: OpenStream,
}

impl Gateway {
    /// Judges the head of an answer and puts in its place the one that the client sees.
    pub(super) fn answer_head(
        &self,
        client: &mut Client,
        head: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        // 101 is final: a tunnel. None was asked for.
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        let Exchange { stage, record } = exchange;
        let Stage::Admitted(forwarded) = stage else { return Err(super::not_admitted()) };
        record.answered();
        let heard = forwarded.patience.heard().map_err(|_ran_out| Rejection::UpstreamTimeout);
        match heard.and_then(|()| judge_head(&self.shell, forwarded, head, client, record)) {
            Ok(clean) => {
                if has_no_body(head) {
                    forwarded.end();
                }
                let Admitted { trial, route, .. } = &mut forwarded.admitted;
                trial.answered(&self.shell, route);
                *head = clean;
                let spent = forwarded.admitted.spent.iter();
                spent.flat_map(Spent::headers).try_for_each(|(name, value)| head.insert_header(name, value))?;
                if let Some(outside) = forwarded.answer.outside() {
                    outside.head = Some(Box::new(head.clone()));
                }
                Ok(())
            }
            Err(rejection) => {
                let is_tried_again = forwarded.attempt.renew_credential || forwarded.attempt.reinitialize;
                forwarded.failure = (!is_tried_again).then_some(rejection);
                Err(Error::explain(ErrorType::InternalError, "the answer is not passed on"))
            }
        }
    }

    /// Passes on a piece of an answer's body.
    pub(super) fn answer_body(
        &self,
        client: &Client,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        let head = &client.req_header().headers;
        let Exchange { stage, record } = exchange;
        let Stage::Admitted(forwarded) = stage else { return Err(super::not_admitted()) };
        let Forwarded { admitted, answer, failure, patience, shadow, .. } = &mut **forwarded;
        let heard = patience.heard().map_err(|_ran_out| Rejection::UpstreamTimeout);
        if let Some(shadow) = shadow {
            // Rules about content must not make different answers look alike, or like ones different.
            shadow.hear(body.as_ref(), matches!(answer, Answer::Events(_)), end_of_stream);
        }
        let passed = heard.and_then(|()| match answer {
            Answer::Awaited | Answer::Empty => Ok(None),
            Answer::Document(document) => {
                document.take_in(&self.shell, admitted, head, record, body.take(), end_of_stream)
            }
            Answer::Events(events) => events.take_in(&self.shell, admitted, head, record, body.take(), end_of_stream),
        });
        let waits = answer.outside().is_some_and(|outside| outside.waits());
        if end_of_stream {
            patience.end();
        }
        // What waits for a guard runs until the guard has spoken.
        if end_of_stream && !waits {
            admitted.spent.iter_mut().for_each(Spent::release);
        }
        let passed = passed.and_then(|passed| {
            let spent = admitted.spent.as_ref();
            spent.map_or(Ok(()), |spent| spent.passes(passed.as_ref(), matches!(answer, Answer::Events(_))))?;
            Ok(passed)
        });
        match passed {
            // It is written when a guard outside has said what it may be.
            Ok(_) if waits => Err(Error::explain(ErrorType::InternalError, "the answer waits for a guard")),
            Ok(passed) => {
                if let Some(passed) = &passed {
                    admitted.trial.look_at(passed);
                }
                *body = passed;
                Ok(())
            }
            Err(rejection) => {
                *failure = Some(rejection);
                Err(Error::explain(ErrorType::InternalError, "the answer is not passed on"))
            }
        }
    }
}

impl Answer {
    /// The guards outside that are asked about it.
    pub(super) fn outside(&mut self) -> Option<&mut Outside> {
        let content = match self {
            Self::Awaited | Self::Empty => None,
            Self::Document(document) => document.content.as_mut(),
            Self::Events(events) => events.content.as_mut(),
        };
        content.and_then(|content| content.outside.as_mut())
    }
}

/// Judges the head of an answer and says how its body is treated.
fn judge_head(
    shell: &Shell,
    forwarded: &mut Forwarded,
    head: &ResponseHeader,
    client: &mut Client,
    record: &mut Record,
) -> Result<ResponseHeader, Rejection> {
    let Forwarded { admitted, answer, attempt, .. } = forwarded;
    if head.status == StatusCode::UNAUTHORIZED {
        let is_renewable = credentials::refused_by_server(shell, admitted) && !attempt.renewed;
        attempt.renew_credential = is_renewable;
        return Err(Rejection::UpstreamCredential);
    }
    if head.status == StatusCode::NOT_FOUND && admitted.session.is_some() {
        // The instance has forgotten it, and carried nothing out: it was started anew.
        if !attempt.reinitialized && !admitted.is_new_there && admitted.may_be_opened_anew(shell) {
            attempt.reinitialize = true;
            return Err(Rejection::UnknownSession);
        }
        end_session(shell, admitted, SessionEvent::Lost);
        return Err(Rejection::UnknownSession);
    }
    if head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Rejection::UpstreamProtocol);
    }
    // Pingora reads what is coded otherwise as it is, up to the end of the connection.
    if head.headers.get_all(TRANSFER_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Rejection::UpstreamProtocol);
    }
    let kind = Kind::of(head, admitted)?;
    let content = Filtering::of(shell, admitted, &client.req_header().headers, record)?;
    // What is written in letters that the rules cannot read must not pass them.
    if content.is_some() && !content::is_utf8(&head.headers) {
        return Err(Rejection::UpstreamProtocol);
    }
    if matches!(admitted.ask, Ask::EndSession(_)) && head.status.is_success() {
        end_session(shell, admitted, SessionEvent::Closed);
    }
    let session_id = match head.headers.get(SESSION_ID) {
        Some(upstream_id) if head.status.is_success() && admitted.ask.opens_a_session() => {
            Some(seal(shell, admitted, upstream_id)?)
        }
        _ => None,
    };
    let is_sensitive = content.as_ref().is_some_and(|content| content.is_sensitive);
    let promised = if content.is_some() { None } else { promised_length(head, admitted, record) };
    *answer = match kind {
        Kind::Document => Answer::Document(Document::new(head.status, promised, content)),
        Kind::Empty => Answer::Empty,
        Kind::Events => {
            record.tell_when_open(shell, admitted.world.config.audit.open_after);
            Answer::Events(Box::new(Events::new(shell, admitted, content)))
        }
    };
    if shell.is_draining() {
        client.set_keepalive(None);
    }
    let is_h1 = client.req_header().version != Version::HTTP_2;
    let clean = clean_head(head, kind, promised, session_id, record, is_h1);
    let mut clean = clean.map_err(|_no_memory| Rejection::UpstreamProtocol)?;
    if is_sensitive {
        let stored_nowhere = clean.insert_header(CACHE_CONTROL, "no-store, no-transform");
        stored_nowhere.map_err(|_no_memory| Rejection::UpstreamProtocol)?;
    }
    Ok(clean)
}

/// The head that the client sees. It starts empty: of the server's headers only the protocol version comes through, so
/// cookies, challenges, locations and the server's name cannot.
fn clean_head(
    from: &ResponseHeader,
    kind: Kind,
    promised: Option<usize>,
    session_id: Option<HeaderValue>,
    record: &Record,
    is_h1: bool,
) -> pingora::Result<ResponseHeader> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = from.status;
    parts.headers.reserve(HEADERS_USUAL);
    let headers = &mut parts.headers;
    match kind {
        Kind::Document => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            match promised {
                Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
                None => stream_body(headers, is_h1),
            }
        }
        Kind::Empty => drop(headers.insert(CONTENT_LENGTH, 0.into())),
        Kind::Events => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
            // Tells a proxy in front of us (nginx) to pass each event on at once.
            headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
            stream_body(headers, is_h1);
        }
    }
    if let Some(version) = from.headers.get(PROTOCOL_VERSION) {
        headers.insert(PROTOCOL_VERSION, version.clone());
    }
    if let Some(id) = session_id {
        headers.insert(SESSION_ID, id);
    }
    headers.insert(X_REQUEST_ID, record.request_id_value());
    let mut head = ResponseHeader::from(parts);
    local::add_cors(&mut head, record.origin.as_ref())?;
    Ok(head)
}

/// Nothing follows this head, so nobody is called again for its answer.
fn has_no_body(head: &ResponseHeader) -> bool {
    head.status == StatusCode::NO_CONTENT || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// The length of an answer that is passed on as it is, so that its head can tell it: Pingora then sends head and body at
/// once, where it would send a body of unknown length in three pieces. One that has no room for an error in its place is not
/// promised.
fn promised_length(head: &ResponseHeader, admitted: &Admitted, record: &Record) -> Option<usize> {
    // A refusal that cannot be passed on is put into our own words, whose length is another.
    if !head.status.is_success() || admitted.ask.may_bring_lists() || head.headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let length: usize = head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    let id = record.id.as_ref().map_or(0, |id| id.as_json().len());
    (SHORT_ERROR_MAX + id..=admitted.world.config.limits.list_bytes).contains(&length).then_some(length)
}

/// What kind of answer a head announces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Empty,
    Events,
}

impl Kind {
    /// Refuses what no MCP server may answer: other media types, redirects, server errors, and bodies where none belongs.
    fn of(head: &ResponseHeader, admitted: &Admitted) -> Result<Self, Rejection> {
        let media = head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let media = media.and_then(|value| value.split(|byte| *byte == b';').next()).unwrap_or_default().trim_ascii();
        let is_json = media.eq_ignore_ascii_case(b"application/json");
        let is_events = media.eq_ignore_ascii_case(b"text/event-stream");
        let expects_answer = admitted.ask.messages().iter().any(|message| message.request_id().is_some());
        match head.status.as_u16() {
            200 if is_events && !matches!(admitted.ask, Ask::EndSession(_)) => Ok(Self::Events),
            200 if expects_answer && is_json && !has_no_body(head) => Ok(Self::Document),
            200..=299 if !expects_answer && !matches!(admitted.ask, Ask::OpenStream(_)) => Ok(Self::Empty),
            400..=499 if is_json && !has_no_body(head) => Ok(Self::Document),
            status @ 400..=499 => {
                Err(Rejection::UpstreamRefused(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)))
            }
            _ => Err(Rejection::UpstreamProtocol),
        }
    }
}

impl Document {
    fn new(status: StatusCode, promised: Option<usize>, content: Option<Box<Filtering>>) -> Self {
        Self { status, chunks: Vec::new(), bytes: 0, promised, content }
    }

    /// Takes a piece in; the whole answer comes out with the last one, filtered.
    fn take_in(
        &mut self,
        shell: &Shell,
        admitted: &Admitted,
        head: &HeaderMap,
        record: &mut Record,
        piece: Option<Bytes>,
        end_of_stream: bool,
    ) -> Result<Option<Bytes>, Rejection> {
        if let Some(piece) = piece {
            self.bytes += piece.len();
            if self.bytes > admitted.world.config.limits.list_bytes {
                return Err(Rejection::UpstreamProtocol);
            }
            self.chunks.push(piece);
        }
        if !end_of_stream {
            return Ok(None);
        }
        let whole = self.join();
        let era = admitted.ask.revision().era();
        let asked = admitted.asked();
        let filtered =
            with_filter(shell, admitted, head, record, |keep| filter_answer(Asked::These(&asked), era, &whole, keep));
        let passed = match filtered {
            Ok(Filtered::Changed(changed)) => changed.into(),
            Ok(Filtered::Unchanged) => whole,
            // A server that refuses may do so before it knows the id: those of the Python SDK then answer to the id
            // `server-error`. What it says cannot be passed on, but that it refused must: a client that probes with
            // `server/discover` goes on with `initialize` after 4xx, and gives up after 502.
            Err(_unreadable) if self.status.is_client_error() => {
                return Err(Rejection::UpstreamRefused(self.status));
            }
            Err(_unreadable) => return Err(Rejection::UpstreamProtocol),
        };
        let passed = match &mut self.content {
            Some(content) => content.document(shell, record, passed)?,
            None => passed,
        };
        match self.promised {
            Some(length) if length != passed.len() => Err(Rejection::UpstreamProtocol),
            Some(_) | None => Ok(Some(passed)),
        }
    }

    /// An error in place of the answer. Where its head has promised a length, the error is filled up with spaces, which
    /// mean nothing after JSON (RFC 8259 §2); where that length does not hold it, it is said in fewer words. Should it
    /// not hold those either, it is left to break off.
    fn in_its_place(&self, rejection: &Rejection, record: &Record) -> Option<Bytes> {
        let whole = rejection.body(record.id.as_ref(), &record.request_id);
        let Some(length) = self.promised else { return Some(whole) };
        let error = if whole.len() > length { rejection.short_body(record.id.as_ref()) } else { whole };
        let padding = length.checked_sub(error.len())?;
        Some([&error[..], &vec![b' '; padding]].concat().into())
    }

    fn join(&mut self) -> Bytes {
        let mut chunks = std::mem::take(&mut self.chunks);
        if chunks.len() == 1 {
            return chunks.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        whole.freeze()
    }
}

impl Events {
    fn new(shell: &Shell, admitted: &Admitted, content: Option<Box<Filtering>>) -> Self {
        let event_bytes_max = admitted.world.config.limits.sse_event_bytes;
        let stream = match admitted.ask {
            Ask::Messages(_) => ListStream::answering(admitted.asked(), admitted.ask.revision().era(), event_bytes_max),
            Ask::EndSession(_) | Ask::OpenStream(_) => ListStream::replaying(event_bytes_max),
        };
        Self { stream, last_words: Vec::new(), content, _open: shell.metrics.stream_opened() }
    }

    /// Takes a piece in; the events that are whole with it come out.
    fn take_in(
        &mut self,
        shell: &Shell,
        admitted: &Admitted,
        head: &HeaderMap,
        record: &mut Record,
        piece: Option<Bytes>,
        end_of_stream: bool,
    ) -> Result<Option<Bytes>, Rejection> {
        let mut out = Vec::new();
        let stream = &mut self.stream;
        let piece = piece.unwrap_or_default();
        let passed = match &mut self.content {
            None => with_filter(shell, admitted, head, record, |keep| {
                stream.push(piece, keep, &mut out)?;
                if end_of_stream { stream.finish(keep, &mut out) } else { Ok(()) }
            }),
            Some(content) => {
                let mut pieces = Vec::new();
                let passed = with_filter(shell, admitted, head, record, |keep| {
                    stream.push_pieces(piece, keep, &mut pieces)?;
                    if end_of_stream { stream.finish_pieces(keep, &mut pieces) } else { Ok(()) }
                });
                let of_answers = stream.unanswered().next().is_none();
                let is_last = IsLast { of_stream: end_of_stream, of_answers };
                if let Err(rejection) = content.events(shell, record, pieces, is_last, &mut out) {
                    self.last_words = out;
                    return Err(rejection);
                }
                passed
            }
        };
        if let Err(error) = passed {
            tracing::debug!(request = %record.request_id, error = error.label(), "The stream cannot be passed on.");
            self.last_words = out;
            return Err(Rejection::UpstreamProtocol);
        }
        Ok(Some(sse::join(out)).filter(|out| !out.is_empty()))
    }
}

/// Calls `filter` with the question whether the caller may see a list item; rules may read `head`, the client's headers, for
/// it again. What a list says of its tools is learned on the way.
fn with_filter<T>(
    shell: &Shell,
    admitted: &Admitted,
    head: &HeaderMap,
    record: &Record,
    filter: impl FnOnce(Keep<'_>) -> T,
) -> T {
    let route = &admitted.route;
    let facts = facts_of(admitted, head, record);
    let quarantines = shell.live.quarantines();
    let mut inspection = Inspection::new(shell, &admitted.world, &route.server, record.arrived_at);
    let mut keep = |item: ListItem<'_>, definition: &str| {
        let is_approved = inspection.shows(&item, definition);
        let item = match item {
            ListItem::Prompt { name } => Item::Prompt(name),
            ListItem::Resource { uri } => Item::Resource(uri),
            ListItem::ResourceTemplate { uri_template } => Item::ResourceTemplate(uri_template),
            ListItem::Tool { name, param_headers } => {
                shell.annotations.learn(route.server.name(), name, param_headers.ok());
                if route.server.shadow.is_some() {
                    shell.read_only.learn(route.server.name(), name, definition);
                }
                Item::Tool(name)
            }
        };
        let is_stopped = !quarantines.is_empty()
            && matches!(item, Item::Tool(name) if quarantines.of_tool(route.server.name(), name, record.arrived_at).is_some());
        is_approved
            && !is_stopped
            && policy::is_visible(&route.policy, &admitted.caller, route.server.name(), item, &facts)
    };
    filter(&mut keep)
}

/// What rules may read of an admitted request; `head` are the client's headers.
pub(super) fn facts_of<'a>(admitted: &'a Admitted, head: &'a HeaderMap, record: &'a Record) -> Facts<'a> {
    Facts {
        now: record.arrived_at,
        http_method: "POST",
        host: &record.host,
        path: &admitted.route.config.path,
        headers: head,
        client_ip: record.client_ip,
        client_certificate: record.client_certificate().map(|certificate| &**certificate),
        agent: admitted.agent.as_ref().map(|agent| &*agent.identity),
        server_identity: admitted.server_identity.as_deref(),
        body_bytes: record.bytes_in,
        region: record.region.as_deref(),
        revision: admitted.ask.revision(),
    }
}

/// Seals the id that a server gave to a session it opened.
fn seal(shell: &Shell, admitted: &Admitted, upstream_id: &HeaderValue) -> Result<HeaderValue, Rejection> {
    let upstream_id = upstream_id.to_str().map_err(|_not_ascii| Rejection::UpstreamProtocol)?;
    let now = shell.clock.now();
    let session = Session {
        server: (**admitted.route.server.name()).into(),
        instance: (*admitted.instance.id).into(),
        upstream_id: upstream_id.into(),
        issued_at: now,
        expires_at: now.plus(admitted.world.config.session.ttl),
    };
    let binding = Binding { principal: admitted.caller.principal(), route: &admitted.route.config.path };
    let mut nonce = [0; 12];
    shell.random.fill(&mut nonce).map_err(|_no_random_numbers| Rejection::UpstreamProtocol)?;
    let id =
        session::seal(&session, binding, nonce, &admitted.world.ring).map_err(|_unfit| Rejection::UpstreamProtocol)?;
    shell.metrics.session(SessionEvent::Opened);
    shell.handovers.opened(&admitted.route, id.as_bytes(), &admitted.ask, session.expires_at);
    HeaderValue::from_str(&id).map_err(|_base64url| Rejection::UpstreamProtocol)
}

/// Ends the session of the request: its id opens no more.
fn end_session(shell: &Shell, admitted: &Admitted, event: SessionEvent) {
    if let (Some(session), Some(id)) = (&admitted.session, &admitted.session_id) {
        shell.revoked.insert(id.as_bytes(), session.expires_at);
        shell.handovers.forget(id.as_bytes());
        shell.metrics.session(event);
        taint::session_ended(shell, &admitted.route, id.as_bytes());
    }
}

/// Writes a whole answer of the gateway's own.
pub(super) async fn write(client: &mut Client, answer: http::Response<Bytes>, record: &Record) -> pingora::Result<()> {
    let (mut parts, body) = answer.into_parts();
    parts.headers.insert(X_REQUEST_ID, record.request_id_value());
    if !parts.headers.contains_key(CONTENT_LENGTH) && parts.status != StatusCode::NO_CONTENT {
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
    }
    let mut head = ResponseHeader::from(parts);
    local::add_cors(&mut head, record.origin.as_ref())?;
    let has_body = !body.is_empty() && client.req_header().method != Method::HEAD;
    client.write_response_header(Box::new(head), !has_body).await?;
    if has_body {
        client.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Tells the client that its request failed: with a whole answer when none has begun, else inside the one that has, so
/// that an agent reads an error instead of waiting for ever.
pub(super) async fn report_failure(client: &mut Client, rejection: &Rejection, exchange: &mut Exchange) {
    if matches!(rejection, Rejection::ClientGone) {
        return;
    }
    let Exchange { stage, record } = exchange;
    client.set_keepalive(None);
    let told = if client.response_written().is_none() {
        write(client, rejection.render(record.id.as_ref(), &record.request_id), record).await
    } else {
        let last_words = match stage {
            Stage::Admitted(forwarded) => {
                let era = forwarded.admitted.ask.revision().era();
                last_words(&mut forwarded.answer, era, rejection, record)
            }
            Stage::Received | Stage::Refused(_) => None,
        };
        client.write_response_body(last_words, true).await
    };
    if let Err(error) = told {
        tracing::debug!(request = %record.request_id, %error, "The client was gone before it could be told.");
    }
}

/// What ends an answer that has begun: an error for every request that still waits.
fn last_words(answer: &mut Answer, era: Era, rejection: &Rejection, record: &Record) -> Option<Bytes> {
    match answer {
        Answer::Awaited | Answer::Empty => None,
        Answer::Document(document) => document.in_its_place(rejection, record),
        // A legacy client takes a clean end for a reason to resume or to open the stream anew; an error would end its call.
        Answer::Events(_) if matches!((rejection, era), (Rejection::ShuttingDown, Era::Legacy)) => None,
        Answer::Events(events) => {
            // What waits for the begin of something to show what it is, ends here without it.
            if let Some(filter) = events.content.as_mut().and_then(|content| content.filter.as_mut()) {
                filter.end(&mut events.last_words);
            }
            let mut out = events.last_words.concat();
            let outside = events.content.as_ref().and_then(|content| content.outside.as_ref());
            for id in outside.into_iter().flat_map(Outside::unsettled) {
                out.extend(sse::message_event(&rejection.body(Some(&RequestId::from_json(id)), &record.request_id)));
            }
            for id in events.stream.unanswered() {
                out.extend(sse::message_event(&rejection.body(Some(id), &record.request_id)));
            }
            Some(out.into()).filter(|out: &Bytes| !out.is_empty())
        }
    }
}

/// The length of an answer that may be changed is not known when its head goes out.
fn stream_body(headers: &mut HeaderMap, is_h1: bool) {
    if is_h1 {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// What an answer needs, with room for what Pingora and CORS add.
const HEADERS_USUAL: usize = 12;

/// Bytes that hold any error in its fewest words, but for the id: about twenty of them are the reason.
const SHORT_ERROR_MAX: usize = 80;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
