//! How is a tree of YAML read into types? One key at a time, noting every problem on the way and stopping at none.
//!
//! A reader takes a [`Value`] and gives `Option<T>`: `None` means that what is wrong has been noted in the [`Log`]. Read all
//! fields of a map first and unwrap them with `?` afterwards, so that one bad field does not hide the next:
//!
//! ```text
//! value.map(|fields| {
//!     let address = fields.required("address", |v| v.parse(values::address));
//!     let tls = fields.optional("tls", tls);
//!     Some(Listen { address: address?, tls: tls? })
//! })
//! ```
//!
//! [`Value::map`] refuses every key that its reader has not asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Complaint, Position, Problem};
use super::values;
use super::yaml::{Key, Kind, Node};

/// Keys with another name in the rules of Envoy's MCPRoute, accepted in its place.
pub(super) const ALIASES: [(&str, &str); 4] =
    [("server", "backend"), ("servers", "backends"), ("tool", "toolName"), ("when", "cel")];

/// What has gone wrong so far.
#[derive(Default)]
pub(super) struct Log {
    problems: RefCell<Vec<Problem>>,
    /// Every key that was asked for, list positions left out: `servers[].name`.
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeSet<String>>,
}

impl Log {
    pub(super) fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Every problem, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }
}

/// A value with its key path.
#[derive(Clone)]
pub(super) struct Value<'a> {
    node: &'a Node,
    /// Where its key stands, or the value itself in a list: "missing" is said there.
    named_at: Position,
    pub(super) path: String,
    pub(super) log: &'a Log,
}

impl<'a> Value<'a> {
    /// The whole file.
    pub(super) fn root(node: &'a Node, log: &'a Log) -> Self {
        Self { node, named_at: Position { line: 1, column: 1 }, path: String::new(), log }
    }

    /// Where to look: a scalar itself, or the key of a list or map.
    pub(super) fn at(&self) -> Position {
        if matches!(self.node.kind, Kind::List(_) | Kind::Map(_)) { self.named_at } else { self.node.at }
    }

    pub(super) fn kind(&self) -> &'a Kind {
        &self.node.kind
    }

    /// Notes that the value is wrong.
    pub(super) fn complain(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.log.note(Problem::new(self.path.clone(), self.at(), Complaint::new(message, hint)));
    }

    fn wrong_type(&self, wanted: &str, hint: &str) {
        self.complain(format!("must be {wanted}, not {}", self.node.kind.describe()), hint);
    }

    /// A string that is not blank.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.text_or_blank()?;
        if text.trim().is_empty() {
            self.complain("is blank", "write a value");
            return None;
        }
        Some(text)
    }

    /// A string.
    pub(super) fn text_or_blank(&self) -> Option<&'a str> {
        if let Kind::Text(text) = &self.node.kind {
            return Some(text);
        }
        let looks_like_text = matches!(self.node.kind, Kind::Flag(_) | Kind::Integer(_) | Kind::Number(_));
        self.wrong_type("a string", if looks_like_text { "put quotes around it" } else { "write one value here" });
        None
    }

    /// A string in the owned form that the field wants.
    pub(super) fn string<T: From<&'a str>>(&self) -> Option<T> {
        self.text().map(T::from)
    }

    /// A string with a meaning.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&'a str) -> Result<T, Complaint>) -> Option<T> {
        parse(self.text()?).map_err(|wrong| self.complain(wrong.message, wrong.hint)).ok()
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        if let Kind::Flag(flag) = self.node.kind {
            return Some(flag);
        }
        self.wrong_type("true or false", "write one of the two without quotes");
        None
    }

    /// A whole number within `range`.
    pub(super) fn whole<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let hint = format!("write a whole number from {} to {}", range.start(), range.end());
        let Kind::Integer(number) = self.node.kind else {
            self.wrong_type("a whole number", &hint);
            return None;
        };
        let whole = T::try_from(number).ok().filter(|number| range.contains(number));
        if whole.is_none() {
            self.complain(format!("{number} is out of bounds"), hint);
        }
        whole
    }

    /// A duration with a unit, within `range`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        if let Kind::Integer(number) = self.node.kind {
            self.complain(format!("{number} has no unit"), values::DURATION_HINT);
            return None;
        }
        let duration = self.parse(values::duration)?;
        if !range.contains(&duration) {
            let show = values::show_duration;
            let hint = format!("write a duration from {} to {}", show(*range.start()), show(*range.end()));
            self.complain(format!("{} is out of bounds", show(duration)), hint);
            return None;
        }
        Some(duration)
    }

    /// A number of bytes, bare or with a unit, within `range`.
    pub(super) fn size(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let bytes = if let Kind::Integer(number) = self.node.kind {
            usize::try_from(number).unwrap_or(0)
        } else {
            self.parse(values::size)?
        };
        if !range.contains(&bytes) {
            let show = values::show_size;
            let hint = format!("write a size from {} to {}", show(*range.start()), show(*range.end()));
            self.complain(format!("{} is out of bounds", show(bytes)), hint);
            return None;
        }
        Some(bytes)
    }

    /// The items of a list, which may be empty.
    pub(super) fn items(&self) -> Option<Vec<Value<'a>>> {
        let Kind::List(items) = &self.node.kind else {
            self.wrong_type("a list", "write [a, b], or one item a line after \"- \"");
            return None;
        };
        let item = |(nth, node): (usize, &'a Node)| Value {
            node,
            named_at: node.at,
            path: format!("{}[{nth}]", self.path),
            log: self.log,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list, each item read by `read`.
    pub(super) fn list<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        // Every item is read before the first bad one ends it.
        let read: Vec<Option<T>> = self.items()?.iter().map(read).collect();
        read.into_iter().collect()
    }

    /// A list of at least one item.
    pub(super) fn some<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let list = self.list(read)?;
        if list.is_empty() {
            self.complain("is an empty list", "name at least one");
            return None;
        }
        Some(list)
    }

    /// A map whose keys are the operator's own words.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Value<'a>)>> {
        let keys = self.keys()?;
        Some(keys.iter().map(|(key, node)| (&*key.text, self.child(key, node))).collect())
    }

    /// A map; every key that `read` does not ask for is refused.
    pub(super) fn map<T>(&self, read: impl FnOnce(&mut Fields<'_, 'a>) -> Option<T>) -> Option<T> {
        let mut fields = Fields { map: self, keys: self.keys()?, asked: Vec::new() };
        let value = read(&mut fields);
        if fields.refuse_unknown() { None } else { value }
    }

    /// The text of `key` in each map of this list; whatever is not as it should be is passed over in silence.
    pub(super) fn each(&self, key: &str) -> Vec<(&'a str, Value<'a>)> {
        let Kind::List(items) = &self.node.kind else { return Vec::new() };
        let named = |(nth, node): (usize, &'a Node)| {
            let item = Value { node, named_at: node.at, path: format!("{}[{nth}]", self.path), log: self.log };
            let value = item.step(key)?;
            if let Kind::Text(text) = &value.node.kind { Some((&**text, value)) } else { None }
        };
        items.iter().enumerate().filter_map(named).collect()
    }

    /// The text of `key` in this map, if it has one; whatever is not as it should be is passed over in silence.
    pub(super) fn quietly(&self, key: &str) -> Option<&'a str> {
        let value = self.step(key)?;
        if let Kind::Text(text) = &value.node.kind { Some(text) } else { None }
    }

    /// Notes every value of `key` that an earlier map of this list has too.
    pub(super) fn refuse_repeated(&self, key: &str) {
        let mut seen: BTreeMap<&str, Position> = BTreeMap::new();
        for (text, value) in self.each(key) {
            if let Some(first) = seen.get(text) {
                let message = format!("{} is given twice, first in line {}", values::quote(text), first.line);
                value.complain(message, "each must be different");
            } else {
                seen.insert(text, value.at());
            }
        }
    }

    /// The value furthest along `path`, e.g. `target.tools[2].when`; this one if nothing of it is there.
    pub(super) fn follow(&self, path: &str) -> Value<'a> {
        let mut reached = self.clone();
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let Some(next) = reached.step(step.trim_end_matches(']')) else { break };
            reached = next;
        }
        reached
    }

    /// The value of a key, or of the key's other name, or the item at a position.
    fn step(&self, step: &str) -> Option<Value<'a>> {
        match &self.node.kind {
            Kind::List(items) => {
                let nth: usize = step.parse().ok()?;
                let node = items.get(nth)?;
                Some(Value { node, named_at: node.at, path: format!("{}[{nth}]", self.path), log: self.log })
            }
            Kind::Map(keys) => {
                let alias = ALIASES.iter().find(|(name, _)| *name == step).map(|(_, alias)| *alias);
                let find = |name: &str| keys.iter().find(|(key, _)| key.text == name);
                let (key, node) = find(step).or_else(|| find(alias?))?;
                Some(self.child(key, node))
            }
            Kind::Flag(_) | Kind::Integer(_) | Kind::Null | Kind::Number(_) | Kind::Refused(_) | Kind::Text(_) => None,
        }
    }

    fn keys(&self) -> Option<&'a [(Key, Node)]> {
        if let Kind::Map(keys) = &self.node.kind {
            return Some(keys);
        }
        self.wrong_type("a map", "write { key: value }, or one \"key: value\" a line");
        None
    }

    fn child(&self, key: &'a Key, node: &'a Node) -> Value<'a> {
        Value { node, named_at: key.at, path: self.path_of(&key.text), log: self.log }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The keys of one map, while its reader asks for them.
pub(super) struct Fields<'m, 'a> {
    map: &'m Value<'a>,
    keys: &'a [(Key, Node)],
    /// Names asked for, with the aliases: what is not among them is unknown.
    asked: Vec<&'static str>,
}

impl<'a> Fields<'_, 'a> {
    /// The map itself.
    pub(super) fn map(&self) -> &Value<'a> {
        self.map
    }

    /// The value of `key`, if the file has the key.
    pub(super) fn find(&mut self, key: &'static str) -> Option<Value<'a>> {
        #[cfg(test)]
        self.map.log.asked.borrow_mut().insert(without_positions(&self.map.path_of(key)));
        self.look_up(key)
    }

    fn look_up(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let (key, node) = self.keys.iter().find(|(found, _)| found.text == key)?;
        Some(self.map.child(key, node))
    }

    /// The value of `key`, which other formats call something else ([`ALIASES`]); giving both is a problem.
    pub(super) fn find_either(&mut self, key: &'static str) -> Option<Value<'a>> {
        let alias = ALIASES.iter().find(|(name, _)| *name == key).map(|(_, alias)| *alias);
        match (self.find(key), alias.and_then(|alias| self.look_up(alias))) {
            (Some(value), Some(other)) => {
                other.complain(format!("is another word for {key}, which is given too"), "keep one of the two");
                Some(value)
            }
            (Some(value), None) | (None, Some(value)) => Some(value),
            (None, None) => None,
        }
    }

    /// The one key of `keys` that the map has, with its value; none or several is a problem.
    pub(super) fn exactly_one(&mut self, keys: &[&'static str]) -> Option<(&'static str, Value<'a>)> {
        let mut found: Vec<(&'static str, Value<'a>)> =
            keys.iter().filter_map(|key| self.find(key).map(|value| (*key, value))).collect();
        if found.len() == 1 {
            return found.pop();
        }
        // A misspelt key is reported as unknown, and was most likely meant to be the one.
        if !found.is_empty() || self.unknown().next().is_none() {
            let message = if found.is_empty() { "says nothing" } else { "says more than one thing" };
            self.map.complain(message, format!("give exactly one of {}", keys.join(", ")));
        }
        None
    }

    /// Reads a key that must be there.
    pub(super) fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        let found = self.find(key);
        self.must(key, found).and_then(|value| read(&value))
    }

    /// Notes a missing `key`.
    pub(super) fn must(&self, key: &str, found: Option<Value<'a>>) -> Option<Value<'a>> {
        if found.is_none() {
            let map = self.map;
            let (path, at) = (map.path_of(key), map.at());
            map.log.note(Problem::new(path, at, Complaint::new("is missing", "add the key")));
        }
        found
    }

    /// Reads a key that may be left out.
    ///
    /// An empty value is not the same as no key: `tls:` with nothing below it is more likely a mistake than a wish for clear
    /// text, so it is read, and refused for its type.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.find(key) {
            Some(value) => read(&value).map(Some),
            None => Some(None),
        }
    }

    /// Reads a key that stands for `default` when left out.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.find(key) {
            Some(value) => read(&value),
            None => Some(default),
        }
    }

    fn unknown(&self) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().map(|(key, _)| key).filter(|key| !self.asked.contains(&&*key.text))
    }

    /// Notes every key nobody asked for; says whether there was one.
    fn refuse_unknown(&self) -> bool {
        for key in self.unknown() {
            let hint = match values::nearest(&key.text, self.asked.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            let complaint = Complaint::new(format!("unknown key {}", values::quote(&key.text)), hint);
            self.map.log.note(Problem::new(self.map.path.clone(), key.at, complaint));
        }
        self.unknown().next().is_some()
    }
}

/// `servers[0].instances[12].url` → `servers[].instances[].url`.
#[cfg(test)]
pub(super) fn without_positions(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = c == '[' || (inside && c != ']');
        if !inside || c == '[' {
            out.push(c);
        }
    }
    out
}
