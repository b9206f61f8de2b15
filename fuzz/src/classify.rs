//! Does everybody else read an accepted body as the classifier did?
//!
//! Input: header lines (`name: value`), an empty line, the body; without an empty line all of it is the body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis::mcp::json::{self, DEPTH_MAX};
use portcullis::mcp::{ClassifyLimits, JsonText, Message, MessageKind, Target, classify};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{HABITS, Habit, Json};

/// The deepest nesting that may be configured, so that the border with `serde_json` is tried.
const LIMITS: ClassifyLimits = ClassifyLimits { json_depth: DEPTH_MAX, batch_messages: 50 };

/// Classifies, and compares with `serde_json`, with sloppy readers, and with the types of the official SDK.
pub fn run(input: &[u8]) {
    let (head, body) = super::split_once(input, b"\n\n").unwrap_or((b"", input));
    let body = Bytes::copy_from_slice(body);

    let strict = Json::read(&body).ok().filter(|json| !json.has_duplicates());
    assert_eq!(json::check(&body, DEPTH_MAX).is_ok(), strict.is_some(), "only one of the two readers takes it");

    match classify(&head_map(head), body.clone(), &LIMITS) {
        Ok(request) => {
            assert_eq!(
                (request.body.as_ptr(), request.body.len()),
                (body.as_ptr(), body.len()),
                "other bytes go upstream"
            );
            let messages = elements(&body, request.batch);
            assert_eq!(messages.len(), request.messages.len());
            for (message, text) in request.messages.iter().zip(messages) {
                read_alike(message, text);
            }
        }
        Err(refused) => {
            let Some(id) = refused.id else { return };
            let body = strict.expect("an id is only told of a body that was read");
            assert_eq!(body.get("id", HABITS[0]), Some(&parse(id.as_json())), "the refusal answers another request");
        }
    }
}

/// The lines that can be headers.
pub fn head_map(lines: &[u8]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((name, value)) = super::split_once(line, b":") else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            head.append(name, value);
        }
    }
    head
}

/// The text of each message, as `serde_json` finds it.
fn elements(body: &[u8], batch: bool) -> Vec<&RawValue> {
    if batch { serde_json::from_slice(body).unwrap() } else { vec![serde_json::from_slice(body).unwrap()] }
}

fn read_alike(message: &Message, text: &RawValue) {
    let json = parse(text.get());
    for habit in HABITS {
        read_by(habit, message, &json);
    }
    read_byte_for_byte(message, text);
    read_by_rmcp(message, text);
}

/// A program of this habit finds the same method, id and target.
fn read_by(habit: Habit, message: &Message, json: &Json) {
    let get = |key| json.get(key, habit);
    let params = get("params");
    let param = |key| params.and_then(|params| params.get(key, habit));
    let text = |value: Option<&Json>| value.and_then(|value| value.as_str().map(str::to_owned));

    assert_eq!(text(get("jsonrpc")).as_deref(), Some("2.0"), "{habit:?}");
    assert_eq!(text(get("method")).as_deref(), message.method().map(|method| method.as_str()), "{habit:?}");
    let (id, answers) = match &message.kind {
        MessageKind::Notification { .. } => (None, 0),
        MessageKind::Request { id, .. } => (Some(id), 0),
        MessageKind::Response { id } => (Some(id), 1),
    };
    assert_eq!(get("id").cloned(), id.map(|id| parse(id.as_json())), "{habit:?}");
    assert_eq!([get("result"), get("error")].iter().flatten().count(), answers, "{habit:?}");

    let name = match &message.target {
        Target::None => return,
        Target::Prompt(name) | Target::Tool(name) if param("ref").is_none() => (text(param("name")), name),
        Target::Resource(uri) if param("ref").is_none() => (text(param("uri")), uri),
        Target::Task(id) => (text(param("taskId")), id),
        // A tool call may have any further member, also one called `ref`.
        Target::Prompt(name) | Target::Resource(name) | Target::Tool(name) => {
            let reference = param("ref").filter(|_| text(get("method")).as_deref() == Some("completion/complete"));
            let key = if matches!(message.target, Target::Resource(_)) { "uri" } else { "name" };
            (text(reference.or(params).and_then(|holder| holder.get(key, habit))), name)
        }
    };
    assert_eq!(name.0.as_deref(), Some(&**name.1), "{habit:?}");
    if let Some(arguments) = &message.arguments {
        assert_eq!(param("arguments").map(Json::value).as_ref(), Some(arguments.value()), "{habit:?}");
    }
}

/// The texts that rules and digests are made from are those that stand in the body: no number has lost a digit.
fn read_byte_for_byte(message: &Message, text: &RawValue) {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        arguments: Option<&'a RawValue>,
        #[serde(borrow, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    let bytes = |text: &Option<JsonText>| text.as_ref().map(|text| text.bytes().to_vec());
    let raw = |text: Option<&RawValue>| text.map(|text| text.get().as_bytes().to_vec());
    let envelope: Envelope<'_> = serde_json::from_str(text.get()).unwrap();
    if message.method().is_some() {
        assert_eq!(bytes(&message.params), raw(envelope.params));
    }
    let Some(Ok(params)) = envelope.params.map(|params| serde_json::from_str::<Params<'_>>(params.get())) else {
        return;
    };
    if message.method().is_some() {
        assert_eq!(bytes(&message.meta), raw(params.meta));
    }
    if message.arguments.is_some() {
        assert_eq!(bytes(&message.arguments), raw(params.arguments));
    }
}

/// Where the official SDK understands the message at all, it understands the same. What it read is what it would write.
fn read_by_rmcp(message: &Message, text: &RawValue) {
    let Ok(read) = serde_json::from_str::<ClientJsonRpcMessage>(text.get()) else { return };
    let same_kind = matches!(
        (&message.kind, &read),
        (MessageKind::Request { .. }, JsonRpcMessage::Request(_))
            | (MessageKind::Notification { .. }, JsonRpcMessage::Notification(_))
            | (MessageKind::Response { .. }, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_))
    );
    assert!(same_kind, "rmcp takes {:?} for {read:?}", message.kind);
    let read = serde_json::to_value(&read).unwrap();
    assert_eq!(read.get("method").and_then(Value::as_str), message.method().map(|method| method.as_str()));
    if let MessageKind::Request { id, .. } | MessageKind::Response { id } = &message.kind {
        assert_eq!(read.get("id"), Some(&parse(id.as_json()).value()));
    }
    let complete = read.get("method").and_then(Value::as_str) == Some("completion/complete");
    let (place, name) = match &message.target {
        Target::None => return,
        Target::Prompt(name) if complete => ("/params/ref/name", name),
        Target::Resource(uri) if complete => ("/params/ref/uri", uri),
        Target::Prompt(name) | Target::Tool(name) => ("/params/name", name),
        Target::Resource(uri) => ("/params/uri", uri),
        Target::Task(id) => ("/params/taskId", id),
    };
    assert_eq!(read.pointer(place).and_then(Value::as_str), Some(&**name));
    if let Some(arguments) = &message.arguments {
        assert_eq!(read.pointer("/params/arguments"), Some(arguments.value()));
    }
}

fn parse(text: &str) -> Json {
    Json::read(text.as_bytes()).unwrap()
}
