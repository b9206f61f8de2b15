//! Is a filtered list the list without its hidden items, and nothing else?
//!
//! Input: a first line of options (`m` modern, `e` answers to earlier requests may come; then, behind a space, the
//! characters that hide an item whose name begins with one of them), then the answer.

use std::sync::LazyLock;

use bytes::Bytes;
use http::HeaderMap;
use portcullis::mcp::json::{self, DEPTH_MAX};
use portcullis::mcp::{
    Asked, ClassifyLimits, Era, Filtered, ListItem, Method, RequestId, classify, filter_answer, tool_param_headers,
};
use rmcp::model::{JsonRpcMessage, ServerJsonRpcMessage, ServerResult};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json::{Json, fold};

/// Filters, and compares with a filter over parsed values.
pub fn run(input: &[u8]) {
    let Some((options, answer)) = super::split_once(input, b"\n") else { return };
    let Options { era, earlier, hidden } = Options::read(options);
    let asked = if earlier { Asked::Earlier } else { Asked::These(&REQUESTS) };
    let mut names_asked = Vec::new();
    let mut keep = |item: ListItem<'_>, _definition: &str| {
        names_asked.push(name_of(item).to_owned());
        !is_hidden(name_of(item), &hidden)
    };

    let Ok(filtered) = filter_answer(asked, era, answer, &mut keep) else { return };

    let output = match &filtered {
        Filtered::Changed(output) => output,
        Filtered::Unchanged => answer,
    };
    assert_eq!(json::check(output, DEPTH_MAX), Ok(()));
    let (before, after) = (messages(answer), messages(output));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        let is_list = earlier || answers_a_list(before);
        compare(before, after, is_list, era, &hidden);
        if is_list {
            shows_nothing_hidden(after, &hidden);
        }
    }
    let again = filter_answer(asked, era, output, &mut |item, _definition| !is_hidden(name_of(item), &hidden));
    assert_eq!(again, Ok(Filtered::Unchanged), "a filtered list is filtered");
    if earlier && era == Era::Legacy {
        let tools: Vec<_> = tool_param_headers(answer).into_iter().map(|(name, _)| name.into_string()).collect();
        assert!(tools.iter().all(|tool| names_asked.contains(tool)));
    }
}

/// What the first line of an input says.
pub struct Options {
    pub era: Era,
    pub earlier: bool,
    pub hidden: Vec<char>,
}

impl Options {
    pub fn read(line: &[u8]) -> Self {
        let line = String::from_utf8_lossy(line);
        let (flags, hidden) = line.split_once(' ').unwrap_or((&line, ""));
        let era = if flags.contains('m') { Era::Modern } else { Era::Legacy };
        Self { era, earlier: flags.contains('e'), hidden: hidden.chars().collect() }
    }
}

/// The requests that were asked: ids 1 to 5 and "a".
pub static REQUESTS: LazyLock<Vec<(RequestId, Method)>> = LazyLock::new(|| {
    let batch = br#"[
        {"jsonrpc":"2.0","id":1,"method":"tools/list"},
        {"jsonrpc":"2.0","id":2,"method":"prompts/list"},
        {"jsonrpc":"2.0","id":3,"method":"resources/list"},
        {"jsonrpc":"2.0","id":4,"method":"resources/templates/list"},
        {"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t"}},
        {"jsonrpc":"2.0","id":"a","method":"tools/list"}
    ]"#;
    let limits = ClassifyLimits { json_depth: 8, batch_messages: 8 };
    let request = classify(&HeaderMap::new(), Bytes::from_static(batch), &limits).unwrap();
    let requests = request.messages.iter();
    requests.map(|message| (message.request_id().unwrap().clone(), message.method().unwrap())).collect()
});

pub fn name_of(item: ListItem<'_>) -> &str {
    match item {
        ListItem::Prompt { name } | ListItem::Tool { name, .. } => name,
        ListItem::Resource { uri } => uri,
        ListItem::ResourceTemplate { uri_template } => uri_template,
    }
}

pub fn is_hidden(name: &str, hidden: &[char]) -> bool {
    name.chars().next().is_some_and(|first| hidden.contains(&first))
}

/// No item of a list with a name that is hidden, whoever reads it.
pub fn shows_nothing_hidden(message: &RawValue, hidden: &[char]) {
    let json = Json::read(message.get().as_bytes()).unwrap();
    let Json::Object(members) = &json else { return };
    for (_, result) in members.iter().filter(|(key, _)| fold(key) == "result") {
        let Json::Object(members) = result else { continue };
        for (list, items) in members {
            let Some((_, name)) = LISTS.iter().find(|(key, _)| fold(key) == fold(list)) else { continue };
            let Json::Array(items) = items else { continue };
            for item in items {
                let Json::Object(members) = item else { panic!("an item is no object") };
                let mut names = members.iter().filter(|(key, _)| fold(key) == fold(name)).peekable();
                assert!(names.peek().is_some(), "an item has no name");
                assert!(names.all(|(_, name)| name.as_str().is_some_and(|name| !is_hidden(name, hidden))));
            }
        }
    }
    let Ok(JsonRpcMessage::Response(response)) = serde_json::from_str::<ServerJsonRpcMessage>(message.get()) else {
        return;
    };
    let names: Vec<String> = match response.result {
        ServerResult::ListToolsResult(list) => list.tools.into_iter().map(|tool| tool.name.into_owned()).collect(),
        ServerResult::ListPromptsResult(list) => list.prompts.into_iter().map(|prompt| prompt.name).collect(),
        ServerResult::ListResourcesResult(list) => list.resources.into_iter().map(|resource| resource.uri).collect(),
        _ => Vec::new(),
    };
    assert!(!names.iter().any(|name| is_hidden(name, hidden)), "rmcp sees what is hidden");
}

/// The lists with the member that names an item.
const LISTS: [(&str, &str); 4] =
    [("prompts", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate"), ("tools", "name")];

fn messages(answer: &[u8]) -> Vec<&RawValue> {
    if answer.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(answer).unwrap()
    } else {
        vec![serde_json::from_slice(answer).unwrap()]
    }
}

/// Whether it answers one of [`REQUESTS`] that asks for a list.
fn answers_a_list(message: &RawValue) -> bool {
    let message: Map<String, Value> = serde_json::from_str(message.get()).unwrap();
    match message.get("id") {
        Some(Value::Number(id)) => id.as_f64().is_some_and(|id| [1.0, 2.0, 3.0, 4.0].contains(&id)),
        Some(id) => id == "a",
        None => false,
    }
}

type Members<'a> = std::collections::BTreeMap<String, &'a RawValue>;

fn compare(before: &RawValue, after: &RawValue, is_list: bool, era: Era, hidden: &[char]) {
    if before.get() == after.get() {
        return;
    }
    let (mut before, mut after) = (members(before), members(after));
    let (result_before, result_after) = (before.remove("result").unwrap(), after.remove("result").unwrap());
    assert_eq!(texts(&before), texts(&after), "something beside the result has changed");
    assert!(is_list, "what is no list has changed");
    let (mut before, mut after) = (members(result_before), members(result_after));
    if era == Era::Modern {
        before.remove("cacheScope");
        let scope = after.remove("cacheScope");
        // Only a result that is complete has one.
        assert!(scope.is_none_or(|scope| scope.get() == "\"private\"" || after.contains_key("resultType")));
    }
    for (list, name) in LISTS {
        let (before, after) = match (before.remove(list), after.remove(list)) {
            (Some(before), Some(after)) => (before, after),
            (before, after) => {
                assert_eq!((before.is_some(), after.is_some()), (false, false), "a whole list came or went");
                continue;
            }
        };
        let before: Vec<&RawValue> = serde_json::from_str(before.get()).unwrap();
        let after: Vec<&RawValue> = serde_json::from_str(after.get()).unwrap();
        let mut left = after.iter();
        let mut next = left.next();
        for item in before {
            if next.is_some_and(|kept| kept.get() == item.get()) {
                next = left.next();
            } else {
                assert!(!must_stay(item, name, era, hidden), "{} was cut", item.get());
            }
        }
        assert!(next.is_none(), "an item that was not there, or not in this order");
    }
    assert_eq!(texts(&before), texts(&after), "something beside the lists has changed");
}

/// Whether nothing speaks against the item: it has a name that is not hidden, no key that could be taken for another, and
/// no annotation that could be invalid.
fn must_stay(item: &RawValue, name: &str, era: Era, hidden: &[char]) -> bool {
    let Ok(members) = serde_json::from_str::<Map<String, Value>>(item.get()) else { return false };
    let plain = members
        .keys()
        .all(|key| key.bytes().all(|byte| byte.is_ascii_lowercase()) || key == name || key == "inputSchema");
    let annotated = era == Era::Modern && (item.get().contains("x-mcp-header") || item.get().contains("\\u"));
    let name = members.get(name).and_then(Value::as_str);
    // A lower-case spelling of a known key is a variant of it.
    let variant = members.contains_key("uritemplate") || members.contains_key("inputschema");
    plain && !annotated && !variant && name.is_some_and(|name| !is_hidden(name, hidden))
}

fn members(object: &RawValue) -> Members<'_> {
    serde_json::from_str(object.get()).unwrap()
}

fn texts<'a>(members: &Members<'a>) -> Vec<(String, &'a str)> {
    members.iter().map(|(key, value)| (key.clone(), value.get())).collect()
}
