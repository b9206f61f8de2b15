//! What may the caller see of a list? Items the policy hides are cut out of the answer; every other byte stays.
//!
//! The answer is read as strictly as a request: if two readers could understand it differently, the filter and the
//! client could see different lists, so it is refused whole.

use std::ops::Range;

use super::Era;
use super::ItemKind;
use super::Method;
use super::RequestId;
use super::json::DEPTH_MAX;
use super::json::JsonError;
use super::json::Kind;
use super::json::Raw;
use super::json::Reader;
use super::keys;
use super::message::canonical_id;
use super::param_headers::ANNOTATION;
use super::param_headers::ParamHeaderError;
use super::param_headers::ParamHeaders;

/// Which requests an answer may answer.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// A stream that may replay answers to earlier requests (GET with `Last-Event-ID`), of which nothing is known here.
    /// Whatever looks like a list is filtered.
    Earlier,
    /// Every request of the POST, lists and others. An answer to anything else is refused.
    These(&'a [(RequestId, Method)]),
}

/// One thing in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListItem<'a> {
    /// In `prompts`.
    Prompt {
        /// `name`.
        name: &'a str,
    },
    /// In `resources`.
    Resource {
        /// `uri`.
        uri: &'a str,
    },
    /// In `resourceTemplates`.
    ResourceTemplate {
        /// `uriTemplate`.
        uri_template: &'a str,
    },
    /// In `tools`.
    Tool {
        /// `name`.
        name: &'a str,
        /// The arguments that `Mcp-Param-*` headers repeat. A tool whose annotations are invalid is hidden from modern
        /// callers whatever the policy says (2026-07-28, "Schema Extension").
        param_headers: Result<&'a ParamHeaders, ParamHeaderError>,
    },
}

/// Whether an item is kept: it is asked with what it is, and with its definition as it stands in the list.
pub type Keep<'k> = &'k mut dyn FnMut(ListItem<'_>, &str) -> bool;

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// Another text, to be sent instead.
    Changed(Vec<u8>),
    /// Nothing to hide.
    Unchanged,
}

/// Why an answer cannot be filtered and so must not reach the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// An answer to a request that was not asked.
    #[error("an answer to another request")]
    ForeignAnswer,
    /// No JSON, or JSON that two readers could read differently.
    #[error("{0}")]
    Json(JsonError),
    /// A list that is no array, or a result that is no object.
    #[error("the list is not a list")]
    NotAList,
    /// Neither message nor batch of messages.
    #[error("the answer is no JSON-RPC message")]
    NotAMessage,
    /// More than [`LIST_ITEMS_MAX`] items in a list, or [`ANSWERS_MAX`] messages in a batch.
    #[error("the list is too long")]
    TooLong,
}

impl ListError {
    /// Word for metrics and the log: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ForeignAnswer => "foreign_answer",
            Self::Json(_) => "not_json",
            Self::NotAList => "not_a_list",
            Self::NotAMessage => "not_a_message",
            Self::TooLong => "list_too_long",
        }
    }
}

/// Hides from an answer (one message or a batch) what `keep` does not keep.
///
/// `keep` is asked once for each item of each list, in order, also for items that are hidden for another reason. An
/// item without a readable name is hidden unasked. A modern list is marked `"cacheScope":"private"`, for what one caller
/// may see is not what another may (2026-07-28, Caching, "Cache Scope Field"). Errors, notifications and requests of the
/// server pass unchanged.
///
/// # Errors
/// [`ListError`]; then nothing of the answer may be sent on.
pub fn filter_answer(asked: Asked<'_>, era: Era, answer: &[u8], keep: Keep<'_>) -> Result<Filtered, ListError> {
    filter_messages(asked, era, answer, keep).map(|outcome| outcome.filtered)
}

/// The tools of an answer with the arguments that headers must repeat, for [`super::check_param_headers`]. An answer that
/// cannot be filtered teaches nothing.
#[must_use]
pub fn tool_param_headers(answer: &[u8]) -> Vec<(Box<str>, Result<ParamHeaders, ParamHeaderError>)> {
    let mut tools = Vec::new();
    let mut learn = |item: ListItem<'_>, _definition: &str| {
        if let ListItem::Tool { name, param_headers } = item {
            tools.push((Box::from(name), param_headers.cloned()));
        }
        true
    };
    match filter_answer(Asked::Earlier, Era::Legacy, answer, &mut learn) {
        Ok(_) => tools,
        Err(_) => Vec::new(),
    }
}

/// One page of a list, as the gateway itself reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The definitions, each as it stands in the list, with the name that it gives; none for one without a readable name.
    pub items: Vec<(Option<Box<str>>, Box<str>)>,
    /// What the next page is asked with; none when this is the last.
    pub next: Option<Box<str>>,
}

/// What came back for a request of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAnswer<T> {
    /// An error, by its code; 0 when it has none.
    Error(i64),
    /// The result.
    Result(T),
}

/// Reads the answer to a list request of the gateway's own with the id `id`, as strictly as one for a client.
///
/// # Errors
/// [`ListError`].
pub fn read_page(kind: ItemKind, id: u64, answer: &[u8]) -> Result<OwnAnswer<Page>, ListError> {
    let messages = read_answer(answer).map_err(ListError::Json)?.ok_or(ListError::NotAMessage)?;
    let id = id.to_string();
    let is_ours = |message: &&Answer<'_>| message.id.is_some_and(|found| canonical_id(found.text) == canonical_id(&id));
    let message = messages.iter().find(is_ours).ok_or(ListError::ForeignAnswer)?;
    let Some(result) = &message.result else {
        let code = message.error.and_then(|error| serde_json::from_str::<ErrorCode>(error.text).ok());
        return Ok(OwnAnswer::Error(code.map_or(0, |error| error.code)));
    };
    let mut page = Page { items: Vec::new(), next: result.next_cursor.and_then(|raw| raw.as_str()).map(Into::into) };
    let list = result.lists.iter().find(|list| list.of.kind() == kind).ok_or(ListError::NotAList)?;
    if list.kind != Kind::Array {
        return Err(ListError::NotAList);
    }
    if list.items.len() > LIST_ITEMS_MAX {
        return Err(ListError::TooLong);
    }
    page.items.extend(list.items.iter().map(|item| {
        let name = item.name_of(list.of).and_then(|raw| raw.as_str()).map(Into::into);
        (name, item.text.into())
    }));
    Ok(OwnAnswer::Result(page))
}

#[derive(serde::Deserialize)]
struct ErrorCode {
    code: i64,
}

/// How many items one list may have. Servers with more have pages (MCP, Pagination).
pub const LIST_ITEMS_MAX: usize = 10_000;

/// How many messages the answer to a batch may have.
pub const ANSWERS_MAX: usize = 1_000;

/// What [`filter_answer`] did, and which of the requests were answered.
pub(super) struct Outcome {
    pub(super) filtered: Filtered,
    /// Places in [`Asked::These`].
    pub(super) answered: Vec<usize>,
}

/// [`filter_answer`] that also tells which requests the answer answers.
pub(super) fn filter_messages(asked: Asked<'_>, era: Era, answer: &[u8], keep: Keep<'_>) -> Result<Outcome, ListError> {
    let messages = read_answer(answer).map_err(ListError::Json)?.ok_or(ListError::NotAMessage)?;
    if messages.len() > ANSWERS_MAX {
        return Err(ListError::TooLong);
    }
    let mut edits = Vec::new();
    let mut answered = Vec::new();
    for message in &messages {
        if message.result.is_none() && message.error.is_none() {
            continue;
        }
        let is_list = match asked {
            Asked::Earlier => true,
            Asked::These(requests) => match message.place(requests) {
                Some((place, method)) => {
                    answered.push(place);
                    method.is_list()
                }
                // JSON-RPC 2.0 §5: an error about a request whose id the server could not read.
                None if message.result.is_none() && message.has_no_id() => false,
                None => return Err(ListError::ForeignAnswer),
            },
        };
        if let (true, Some(result)) = (is_list, &message.result) {
            edit_result(asked, era, result, keep, &mut edits)?;
        }
    }
    let filtered = if edits.is_empty() { Filtered::Unchanged } else { Filtered::Changed(apply(answer, &mut edits)) };
    Ok(Outcome { filtered, answered })
}

/// One place of the answer and the text that shall stand there.
struct Edit {
    place: Range<usize>,
    text: &'static str,
}

/// One message of an answer.
#[derive(Default)]
struct Answer<'a> {
    id: Option<Raw<'a>>,
    error: Option<Raw<'a>>,
    result: Option<ListResult<'a>>,
}

/// `result`; its members are known only when it is an object.
struct ListResult<'a> {
    raw: Raw<'a>,
    is_empty: bool,
    cache_scope: Option<Raw<'a>>,
    next_cursor: Option<Raw<'a>>,
    result_type: Option<Raw<'a>>,
    lists: Vec<List<'a>>,
}

/// One of the four lists; none has items unless it is an array.
struct List<'a> {
    of: ListOf,
    kind: Kind,
    items: Vec<Item<'a>>,
}

#[derive(Clone, Copy)]
enum ListOf {
    Prompts,
    ResourceTemplates,
    Resources,
    Tools,
}

/// One element of a list; without any members when it is no object, or when a key could be taken for another.
struct Item<'a> {
    place: Range<usize>,
    text: &'a str,
    name: Option<Raw<'a>>,
    uri: Option<Raw<'a>>,
    uri_template: Option<Raw<'a>>,
    input_schema: Option<Raw<'a>>,
}

impl ListOf {
    fn kind(self) -> ItemKind {
        match self {
            Self::Prompts => ItemKind::Prompt,
            Self::ResourceTemplates => ItemKind::ResourceTemplate,
            Self::Resources => ItemKind::Resource,
            Self::Tools => ItemKind::Tool,
        }
    }
}

impl<'a> Item<'a> {
    fn name_of(&self, of: ListOf) -> Option<Raw<'a>> {
        match of {
            ListOf::Prompts | ListOf::Tools => self.name,
            ListOf::ResourceTemplates => self.uri_template,
            ListOf::Resources => self.uri,
        }
    }
}

impl Answer<'_> {
    /// The request it answers. Ids are compared as JSON values.
    fn place(&self, requests: &[(RequestId, Method)]) -> Option<(usize, Method)> {
        let id = canonical_id(self.id?.text);
        let place = requests.iter().position(|(request, _)| request.canonical() == id)?;
        requests.get(place).map(|(_, method)| (place, *method))
    }

    fn has_no_id(&self) -> bool {
        self.id.is_none_or(|id| id.kind == Kind::Null)
    }
}

/// Collects what must change in one result.
fn edit_result(
    asked: Asked<'_>,
    era: Era,
    result: &ListResult<'_>,
    keep: Keep<'_>,
    edits: &mut Vec<Edit>,
) -> Result<(), ListError> {
    if result.raw.kind != Kind::Object {
        return match asked {
            Asked::Earlier => Ok(()),
            Asked::These(_) => Err(ListError::NotAList),
        };
    }
    for list in &result.lists {
        if list.kind != Kind::Array {
            return Err(ListError::NotAList);
        }
        if list.items.len() > LIST_ITEMS_MAX {
            return Err(ListError::TooLong);
        }
        // Between two that stay, one comma stays: what is cut reaches from the end of the last kept item to the end of
        // the hidden one, or, before any kept one, from the hidden item's begin to the next one's.
        let mut items = list.items.iter().peekable();
        let mut kept_before = false;
        let mut last_end = 0;
        while let Some(item) = items.next() {
            if is_kept(list.of, era, item, keep) {
                kept_before = true;
            } else if kept_before {
                edits.push(Edit { place: last_end..item.place.end, text: "" });
            } else {
                let end = items.peek().map_or(item.place.end, |next| next.place.start);
                edits.push(Edit { place: item.place.start..end, text: "" });
            }
            last_end = item.place.end;
        }
    }
    // A result that asks for more input has no caching hints (2026-07-28, Caching, "Cacheable Results").
    let is_complete = result.result_type.is_none_or(|raw| raw.as_str().as_deref() == Some("complete"));
    let is_list = matches!(asked, Asked::These(_)) || !result.lists.is_empty();
    if era == Era::Modern && is_complete && is_list {
        match result.cache_scope {
            Some(scope) if scope.as_str().as_deref() == Some("private") => {}
            Some(scope) => edits.push(Edit { place: scope.start..scope.end(), text: "\"private\"" }),
            None => {
                let first = result.raw.start + 1;
                let text = if result.is_empty { "\"cacheScope\":\"private\"" } else { "\"cacheScope\":\"private\"," };
                edits.push(Edit { place: first..first, text });
            }
        }
    }
    Ok(())
}

fn is_kept(of: ListOf, era: Era, item: &Item<'_>, keep: Keep<'_>) -> bool {
    let Some(name) = item.name_of(of).and_then(|raw| raw.as_str()) else { return false };
    match of {
        ListOf::Prompts => keep(ListItem::Prompt { name: &name }, item.text),
        ListOf::ResourceTemplates => keep(ListItem::ResourceTemplate { uri_template: &name }, item.text),
        ListOf::Resources => keep(ListItem::Resource { uri: &name }, item.text),
        ListOf::Tools => {
            let param_headers = param_headers(item);
            let param_headers = param_headers.as_ref().map_err(|error| *error);
            let kept = keep(ListItem::Tool { name: &name, param_headers }, item.text);
            kept && (param_headers.is_ok() || era == Era::Legacy)
        }
    }
}

/// Most schemas have no annotation, and a key that is not escaped shows in the text; only then is the schema parsed.
fn param_headers(item: &Item<'_>) -> Result<ParamHeaders, ParamHeaderError> {
    match item.input_schema {
        Some(schema) if schema.text.contains(ANNOTATION) || schema.text.contains("\\u") => {
            // The text was checked and is not deeper than `serde_json` reads.
            let schema = serde_json::from_str(schema.text).unwrap_or_default();
            ParamHeaders::from_schema(&schema)
        }
        Some(_) | None => Ok(ParamHeaders::default()),
    }
}

fn apply(answer: &[u8], edits: &mut [Edit]) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.place.start);
    let mut changed = Vec::with_capacity(answer.len() + 32);
    let mut at = 0;
    for edit in edits {
        changed.extend_from_slice(answer.get(at..edit.place.start).unwrap_or_default());
        changed.extend_from_slice(edit.text.as_bytes());
        at = edit.place.end;
    }
    changed.extend_from_slice(answer.get(at..).unwrap_or_default());
    changed
}

/// Reads and checks a whole answer; none when it is neither an object nor an array of objects.
fn read_answer(bytes: &[u8]) -> Result<Option<Vec<Answer<'_>>>, JsonError> {
    let mut reader = Reader::new(bytes, DEPTH_MAX)?;
    let mut messages = Vec::new();
    let mut only_objects = true;
    match reader.peek()? {
        Kind::Object => messages.push(read_message(&mut reader)?),
        Kind::Array => {
            reader.array(|reader| {
                only_objects &= reader.peek()? == Kind::Object;
                // One more than may be shows that there are too many; the rest is only checked.
                if only_objects && messages.len() <= ANSWERS_MAX {
                    messages.push(read_message(reader)?);
                    return Ok(());
                }
                reader.skip().map(drop)
            })?;
        }
        Kind::Bool | Kind::Null | Kind::Number | Kind::String => {
            only_objects = false;
            reader.skip()?;
        }
    }
    reader.end()?;
    Ok(only_objects.then_some(messages))
}

fn read_message<'a>(reader: &mut Reader<'a>) -> Result<Answer<'a>, JsonError> {
    let mut message = Answer::default();
    reader.object(|reader, key| {
        match &*key {
            "id" => message.id = Some(reader.skip()?),
            "error" => message.error = Some(reader.skip()?),
            "result" => message.result = Some(read_result(reader)?),
            other if keys::is_variant(other, keys::ENVELOPE_KEYS) => return Err(JsonError::VariantKey),
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    Ok(message)
}

fn read_result<'a>(reader: &mut Reader<'a>) -> Result<ListResult<'a>, JsonError> {
    let mut is_empty = true;
    let mut cache_scope = None;
    let mut next_cursor = None;
    let mut result_type = None;
    let mut lists = Vec::new();
    let raw = if reader.peek()? == Kind::Object {
        reader.object(|reader, key| {
            is_empty = false;
            match &*key {
                "prompts" => lists.push(read_list(reader, ListOf::Prompts)?),
                "resourceTemplates" => lists.push(read_list(reader, ListOf::ResourceTemplates)?),
                "resources" => lists.push(read_list(reader, ListOf::Resources)?),
                "tools" => lists.push(read_list(reader, ListOf::Tools)?),
                "nextCursor" => next_cursor = Some(reader.skip()?),
                "cacheScope" => cache_scope = Some(reader.skip()?),
                "resultType" => result_type = Some(reader.skip()?),
                other if keys::is_variant(other, keys::LIST_KEYS) => return Err(JsonError::VariantKey),
                _ => drop(reader.skip()?),
            }
            Ok(())
        })?
    } else {
        reader.skip()?
    };
    Ok(ListResult { raw, is_empty, cache_scope, next_cursor, result_type, lists })
}

fn read_list<'a>(reader: &mut Reader<'a>, of: ListOf) -> Result<List<'a>, JsonError> {
    let mut items = Vec::new();
    let kind = reader.peek()?;
    if kind == Kind::Array {
        reader.array(|reader| {
            if items.len() <= LIST_ITEMS_MAX {
                items.push(read_item(reader)?);
                return Ok(());
            }
            reader.skip().map(drop)
        })?;
    } else {
        reader.skip()?;
    }
    Ok(List { of, kind, items })
}

fn read_item<'a>(reader: &mut Reader<'a>) -> Result<Item<'a>, JsonError> {
    let mut item = Item { place: 0..0, text: "", name: None, uri: None, uri_template: None, input_schema: None };
    let mut has_variant = false;
    let raw = if reader.peek()? == Kind::Object {
        reader.object(|reader, key| {
            let value = reader.skip()?;
            match &*key {
                "name" => item.name = Some(value),
                "uri" => item.uri = Some(value),
                "uriTemplate" => item.uri_template = Some(value),
                "inputSchema" => item.input_schema = Some(value),
                other => has_variant |= keys::is_variant(other, keys::ITEM_KEYS),
            }
            Ok(())
        })?
    } else {
        reader.skip()?
    };
    item.place = raw.start..raw.end();
    item.text = raw.text;
    if has_variant {
        item.name = None;
        item.uri = None;
        item.uri_template = None;
    }
    Ok(item)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
