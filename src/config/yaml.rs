//! What does the file say, as a tree with positions? YAML text in, [`Node`]s out.
//!
//! The only file that knows the YAML library. What YAML has and a configuration file has no use for (tags, lists or maps as
//! keys, several documents, endless nesting) ends here.

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, ScanError, YamlData};

use super::problem::{Complaint, Position, Problem};
use super::weight::{Weight, weigh};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) text: String,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// `[…]` or a block of `- …`.
    List(Vec<Node>),
    /// `{…}` or a block of `key: …`, in the order of the file.
    Map(Vec<(Key, Node)>),
    /// Nothing, `~` or `null`.
    Null,
    /// A number with a fraction or exponent.
    Number(f64),
    /// Something YAML has and a configuration file does not; the words say what.
    Refused(&'static str),
    /// A string.
    Text(String),
}

impl Node {
    /// The same as JSON. What a configuration file has no use for becomes null.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Flag(flag) => Value::Bool(*flag),
            Kind::Integer(number) => Value::from(*number),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(keys) => {
                Value::Object(keys.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect())
            }
            Kind::Number(number) => Value::from(*number),
            Kind::Null | Kind::Refused(_) => Value::Null,
            Kind::Text(text) => Value::String(text.clone()),
        }
    }
}

impl Kind {
    /// The value in words, for "must be a map, not …".
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Flag(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Null => "empty",
            Self::Number(_) => "a number",
            Self::Refused(what) => what,
            Self::Text(_) => "a string",
        }
    }
}

/// Reads one YAML document.
///
/// # Errors
/// Invalid YAML (a key given twice is), no document or several, or more than [`BYTES_MAX`], [`INDENT_MAX`], [`DEPTH_MAX`]
/// or [`NODES_MAX`] of what they count. Each ends the reading of this file: what follows a syntax error means nothing.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    refuse_what_the_parser_cannot_bear(text)?;
    let not_yaml = |error: ScanError| Problem::new("", position(*error.marker()), explain(error.info()));
    for weight in weigh(text).map_err(not_yaml)? {
        refuse_too_much(&weight)?;
    }
    let documents = MarkedYaml::load_from_str(text).map_err(not_yaml)?;
    let mut documents = documents.iter();
    let first = documents.next().map(convert);
    let Some(first) = first.filter(|node| node.kind != Kind::Null) else {
        let complaint = Complaint::new("the file is empty", "start from conf/minimal.yaml");
        return Err(Problem::new("", Position::default(), complaint));
    };
    match documents.next() {
        None => Ok(first),
        Some(second) => {
            let complaint = Complaint::new("a second YAML document starts here", "keep one document in a file");
            Err(Problem::new("", position(second.span.start), complaint))
        }
    }
}

/// Keeps the parser's recursion, one call a level, within any thread's stack.
///
/// Levels of `[` and `{` the parser counts itself (255 at most). A level made by indentation starts no further right than the
/// line's leading spaces and `- ` and `? ` go, and takes at most two levels there, so bounding that bounds the recursion.
fn refuse_what_the_parser_cannot_bear(text: &str) -> Result<(), Problem> {
    if text.len() > BYTES_MAX {
        let message = format!("the file has {} bytes", text.len());
        return Err(Problem::new("", Position::default(), Complaint::new(message, "8 MiB is the most that is read")));
    }
    for (nth, line) in text.split(['\n', '\r']).enumerate() {
        let content = line.trim_start_matches([' ', '\t', '-', '?', ':']);
        let indent = line.len() - content.len();
        if indent > INDENT_MAX && !content.starts_with('#') {
            let at = Position { line: nth + 1, column: 1 };
            let complaint = Complaint::new(
                format!("the line is indented by {indent} characters"),
                format!("{INDENT_MAX} is the most that is read"),
            );
            return Err(Problem::new("", at, complaint));
        }
    }
    Ok(())
}

/// Keeps what walks, copies and drops the tree within stack and memory.
fn refuse_too_much(weight: &Weight) -> Result<(), Problem> {
    let complaint = if weight.depth > DEPTH_MAX {
        let message = format!("lists and maps lie {} deep in one another", weight.depth);
        Complaint::new(message, format!("{DEPTH_MAX} is the most that is read, aliases expanded"))
    } else if weight.nodes > NODES_MAX {
        let message = format!("the file has {} values", weight.nodes);
        Complaint::new(message, format!("{NODES_MAX} is the most that is read, aliases expanded"))
    } else {
        return Ok(());
    };
    Err(Problem::new("", Position::default(), complaint))
}

/// The parser's words, and what usually causes them.
fn explain(info: &str) -> Complaint {
    if info.contains("duplicated key") {
        return Complaint::new("this key is given twice in one map", "keep one of the two");
    }
    let hint = if info.contains("alias expansion") {
        "aliases may add 100,000 values to a file"
    } else if info.contains("alias") || info.contains("anchor") {
        "a value that starts with * or & needs quotes, e.g. \"*\""
    } else if info.contains("tab") {
        "indent with spaces"
    } else if info.contains("mapping values") {
        "a value that contains \": \" needs quotes, and the keys of one map start in one column"
    } else {
        "look at the indentation, quotes and brackets around this place"
    };
    Complaint::new(format!("not valid YAML: {info}"), hint)
}

fn convert(yaml: &MarkedYaml<'_>) -> Node {
    let kind = match &yaml.data {
        YamlData::Mapping(entries) => {
            Kind::Map(entries.iter().map(|(key, value)| (key_of(key), convert(value))).collect())
        }
        YamlData::Sequence(items) => Kind::List(items.iter().map(convert).collect()),
        YamlData::Value(Scalar::Boolean(value)) => Kind::Flag(*value),
        YamlData::Value(Scalar::FloatingPoint(value)) => Kind::Number(value.into_inner()),
        YamlData::Value(Scalar::Integer(value)) => Kind::Integer(*value),
        YamlData::Value(Scalar::Null) => Kind::Null,
        YamlData::Value(Scalar::String(value)) => Kind::Text(value.clone().into_owned()),
        YamlData::Alias(_) => Kind::Refused("an alias of nothing"),
        YamlData::BadValue | YamlData::Representation(..) | YamlData::Tagged(..) => Kind::Refused("a tagged value"),
    };
    Node { at: position(yaml.span.start), kind }
}

/// Every key of this file format is a word, so a key of another kind is written as YAML writes it, and refused as unknown.
fn key_of(yaml: &MarkedYaml<'_>) -> Key {
    let text = match &yaml.data {
        YamlData::Value(Scalar::Boolean(value)) => value.to_string(),
        YamlData::Value(Scalar::FloatingPoint(value)) => value.to_string(),
        YamlData::Value(Scalar::Integer(value)) => value.to_string(),
        YamlData::Value(Scalar::String(value)) => value.clone().into_owned(),
        YamlData::Value(Scalar::Null) => "null".to_owned(),
        YamlData::Mapping(_) => "{…}".to_owned(),
        YamlData::Sequence(_) => "[…]".to_owned(),
        YamlData::Alias(_) | YamlData::BadValue | YamlData::Representation(..) | YamlData::Tagged(..) => {
            "!…".to_owned()
        }
    };
    Key { at: position(yaml.span.start), text }
}

fn position(mark: Marker) -> Position {
    Position { line: mark.line(), column: mark.col() + 1 }
}

/// Bytes of a file; ten thousand rules take about two million.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Lists and maps inside one another; the format has 11 (`routes[].authorization.rules[].source.jwt.claims[].values`).
const DEPTH_MAX: usize = 16;

/// Keys, values, lists and maps; ten thousand rules have about 300,000.
const NODES_MAX: usize = 500_000;

/// Characters of indentation before content.
const INDENT_MAX: usize = 128;
