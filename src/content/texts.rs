//! Where is text in a message, and what kind of text is it?
//!
//! Everything a person or a model could read is text, also a blob whose type says that it is; base64 of images, audio and
//! other blobs is not, nor are the words the protocol is spoken in.

use crate::mcp::json::Kind;

use super::rule::Place;
use super::tree::{Id, Tree};

/// A text in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) id: Id,
    pub(super) place: Place,
    pub(super) part: Part,
    /// The texts it is read together with.
    pub(super) channel: Option<Channel>,
}

/// Which part of a value is the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What a string of base64 stands for.
    Base64,
    /// The key of a member.
    Key,
    /// A number that is long enough to be one of somebody's.
    Number,
    /// A string.
    String,
}

/// Texts that are read one after another, so that something may be split over two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// The content items, resource contents or prompt messages of one result.
    Content,
    /// The log messages of one stream.
    Log,
    /// The progress messages of one stream.
    Progress,
}

/// Every text of a result.
pub(super) fn of_result(tree: &Tree<'_>, result: Id) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if tree.kind(result) != Kind::Object {
        all_in(tree, result, Place::Text, &mut pieces);
        return pieces;
    }
    for member in tree.children(result) {
        match &*tree.key(member).unwrap_or_default() {
            "content" | "contents" => contents(tree, member, Place::Text, &mut pieces),
            "messages" => messages(tree, member, Place::Text, &mut pieces),
            "structuredContent" => all_in(tree, member, Place::Structured, &mut pieces),
            word if is_protocol(word) => {}
            _ => strings_in(tree, member, Place::Text, &mut pieces),
        }
    }
    pieces
}

/// Every text of an error.
pub(super) fn of_error(tree: &Tree<'_>, error: Id) -> Vec<Piece> {
    let mut pieces = Vec::new();
    match tree.kind(error) {
        Kind::Object => {
            for member in tree.children(error) {
                all_in(tree, member, Place::Error, &mut pieces);
            }
        }
        Kind::Array | Kind::Bool | Kind::Null | Kind::Number | Kind::String => {
            all_in(tree, error, Place::Error, &mut pieces);
        }
    }
    pieces
}

/// Every text of a notification or of a request of the server.
pub(super) fn of_told(tree: &Tree<'_>, method: &str, params: Id) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if tree.kind(params) != Kind::Object {
        all_in(tree, params, Place::Progress, &mut pieces);
        return pieces;
    }
    for member in tree.children(params) {
        let before = pieces.len();
        let channel = match (method, &*tree.key(member).unwrap_or_default()) {
            ("notifications/progress", "message") => {
                all_in(tree, member, Place::Progress, &mut pieces);
                Some(Channel::Progress)
            }
            ("notifications/message", "data") => {
                all_in(tree, member, Place::Progress, &mut pieces);
                Some(Channel::Log)
            }
            (_, "messages") => {
                messages(tree, member, Place::Progress, &mut pieces);
                None
            }
            (_, word) if is_protocol(word) => None,
            _ => {
                strings_in(tree, member, Place::Progress, &mut pieces);
                None
            }
        };
        for piece in pieces.iter_mut().skip(before) {
            piece.channel = channel.filter(|_| piece.part == Part::String);
        }
    }
    pieces
}

fn messages(tree: &Tree<'_>, messages: Id, place: Place, pieces: &mut Vec<Piece>) {
    if tree.kind(messages) != Kind::Array {
        return strings_in(tree, messages, place, pieces);
    }
    for message in tree.children(messages) {
        for member in tree.children(message) {
            match tree.key(member).as_deref() {
                Some("content") => contents(tree, member, place, pieces),
                Some("role") => {}
                Some(_) | None => strings_in(tree, member, place, pieces),
            }
        }
    }
}

/// One item of content, or a list of them.
fn contents(tree: &Tree<'_>, content: Id, place: Place, pieces: &mut Vec<Piece>) {
    match tree.kind(content) {
        Kind::Array => tree.children(content).for_each(|item| one_content(tree, item, place, pieces)),
        Kind::Object => one_content(tree, content, place, pieces),
        Kind::Bool | Kind::Null | Kind::Number | Kind::String => strings_in(tree, content, place, pieces),
    }
}

fn one_content(tree: &Tree<'_>, item: Id, place: Place, pieces: &mut Vec<Piece>) {
    if tree.kind(item) != Kind::Object {
        return strings_in(tree, item, place, pieces);
    }
    // What is read from a resource has a URI and no type.
    let kind = tree.member(item, "type").and_then(|id| tree.string(id));
    let is_resource = kind.is_none() && tree.member(item, "uri").is_some();
    let place = if is_resource && place == Place::Text { Place::Resource } else { place };
    for member in tree.children(item) {
        match &*tree.key(member).unwrap_or_default() {
            "text" => {
                let channel = (place != Place::Progress).then_some(Channel::Content);
                pieces.push(Piece { id: member, place, part: Part::String, channel });
                if tree.kind(member) != Kind::String {
                    pieces.pop();
                    all_in(tree, member, place, pieces);
                }
            }
            "data" if matches!(kind.as_deref(), Some("image" | "audio")) && is_base64(tree, member) => {}
            "blob" if is_base64(tree, member) => {
                if is_of_text(tree, item) {
                    pieces.push(Piece { id: member, place, part: Part::Base64, channel: None });
                }
            }
            "type" | "mimeType" | "role" => {}
            // The caller has named it.
            "uri" if is_resource => {}
            "resource" => one_content(tree, member, place, pieces),
            // What a tool has done may come back inside a content item of another kind (sampling).
            "content" => contents(tree, member, place, pieces),
            _ => strings_in(tree, member, place, pieces),
        }
    }
}

/// Every string value below `top`.
fn strings_in(tree: &Tree<'_>, top: Id, place: Place, pieces: &mut Vec<Piece>) {
    let strings = tree.within(top).filter(|id| tree.kind(*id) == Kind::String);
    pieces.extend(strings.map(|id| Piece { id, place, part: Part::String, channel: None }));
}

/// Every string value below `top`, the keys inside it, and long numbers.
pub(super) fn all_in(tree: &Tree<'_>, top: Id, place: Place, pieces: &mut Vec<Piece>) {
    for id in tree.within(top) {
        if id != top && tree.key_place(id).is_some() {
            pieces.push(Piece { id, place, part: Part::Key, channel: None });
        }
        match tree.kind(id) {
            Kind::String => pieces.push(Piece { id, place, part: Part::String, channel: None }),
            Kind::Number if tree.raw(id).len() >= LONG_NUMBER => {
                pieces.push(Piece { id, place, part: Part::Number, channel: None });
            }
            Kind::Array | Kind::Bool | Kind::Null | Kind::Number | Kind::Object => {}
        }
    }
}

/// Whether the type of a resource says that it is text: `text/*`, JSON, XML, YAML and what is written in them.
fn is_of_text(tree: &Tree<'_>, item: Id) -> bool {
    let media = tree.member(item, "mimeType").and_then(|id| tree.string(id)).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.split_once('/') {
        Some(("text", _)) => true,
        Some(("application", kind)) => {
            let kind = kind.rsplit('+').next().unwrap_or_default().trim_start_matches("x-");
            matches!(kind, "json" | "ndjson" | "jsonlines" | "xml" | "yaml" | "toml" | "javascript" | "sql" | "sh")
        }
        Some(_) | None => false,
    }
}

/// Text that only claims to be base64 is text.
fn is_base64(tree: &Tree<'_>, id: Id) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    tree.string(id).is_some_and(|text| text.bytes().all(|byte| fits(byte) || byte.is_ascii_whitespace()))
}

/// Members whose value is a word, a mark or a name that only the protocol reads: changed, the message would mean another.
fn is_protocol(key: &str) -> bool {
    matches!(
        key,
        "resultType"
            | "cacheScope"
            | "nextCursor"
            | "requestState"
            | "taskId"
            | "protocolVersion"
            | "progressToken"
            | "requestId"
            | "elicitationId"
            | "requestedSchema"
            | "level"
            | "mode"
            | "role"
            | "stopReason"
    )
}

/// No card has fewer digits.
const LONG_NUMBER: usize = 13;
