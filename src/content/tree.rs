//! What is where in a JSON text? Every value with its place, so that one can be changed and all others stay byte for byte.

use std::borrow::Cow;
use std::ops::Range;

use crate::mcp::json::{DEPTH_MAX, JsonError, Kind, Raw, Reader, unescape};

/// A JSON text, read strictly, with the place of every value in it.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// One value.
#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    place: Range<usize>,
    /// The place of its key, quotes included, when it is a member of an object.
    key: Option<Range<usize>>,
    /// The array or object it is in; itself at the top.
    parent: usize,
    /// One behind the last node inside it. Its first child is the node behind it.
    last: usize,
}

/// Names a value of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(usize);

/// Why a text has no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TreeError {
    /// No JSON, or JSON that two readers could read differently.
    Json(JsonError),
    /// More than [`NODES_MAX`] values.
    TooManyValues,
}

impl<'a> Tree<'a> {
    /// Reads a whole text.
    ///
    /// # Errors
    /// [`TreeError`].
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, TreeError> {
        let mut reader = Reader::new(bytes, DEPTH_MAX).map_err(TreeError::Json)?;
        let mut growing = Growing { nodes: Vec::new(), is_full: false };
        growing.value(&mut reader, 0, None).map_err(TreeError::Json)?;
        reader.end().map_err(TreeError::Json)?;
        if growing.is_full {
            return Err(TreeError::TooManyValues);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TreeError::Json(JsonError::NotUtf8))?;
        Ok(Self { text, nodes: growing.nodes })
    }

    pub(super) fn root(&self) -> Id {
        Id(0)
    }

    pub(super) fn kind(&self, id: Id) -> Kind {
        self.node(id).map_or(Kind::Null, |node| node.kind)
    }

    /// Where a value stands in the text.
    pub(super) fn place(&self, id: Id) -> Range<usize> {
        self.node(id).map_or(0..0, |node| node.place.clone())
    }

    /// The place of a member's key, quotes included.
    pub(super) fn key_place(&self, id: Id) -> Option<Range<usize>> {
        self.node(id).and_then(|node| node.key.clone())
    }

    /// The text of a value as it stands there.
    pub(super) fn raw(&self, id: Id) -> &'a str {
        self.text.get(self.place(id)).unwrap_or_default()
    }

    /// The string that a value is; none of any other kind.
    pub(super) fn string(&self, id: Id) -> Option<Cow<'a, str>> {
        (self.kind(id) == Kind::String).then(|| unescape(self.raw(id)))
    }

    /// The key of a member.
    pub(super) fn key(&self, id: Id) -> Option<Cow<'a, str>> {
        self.text.get(self.key_place(id)?).map(unescape)
    }

    /// What is in an array or object, in the order of the text.
    pub(super) fn children(&self, id: Id) -> impl Iterator<Item = Id> {
        let last = self.node(id).map_or(0, |node| node.last);
        let mut next = id.0 + 1;
        std::iter::from_fn(move || {
            let child = Id(next);
            let node = self.nodes.get(next).filter(|_| next < last)?;
            next = node.last;
            Some(child)
        })
    }

    /// The array or object that a value is in; the top is in itself.
    pub(super) fn parent(&self, id: Id) -> Id {
        self.node(id).map_or(id, |node| Id(node.parent))
    }

    /// The member of an object with this key.
    pub(super) fn member(&self, id: Id, key: &str) -> Option<Id> {
        if self.kind(id) != Kind::Object {
            return None;
        }
        self.children(id).find(|child| self.key(*child).is_some_and(|found| found == key))
    }

    /// A value and all that is in it, in the order of the text.
    pub(super) fn within(&self, id: Id) -> impl Iterator<Item = Id> {
        let last = self.node(id).map_or(0, |node| node.last);
        (id.0..last).map(Id)
    }

    fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id.0)
    }
}

struct Growing {
    nodes: Vec<Node>,
    is_full: bool,
}

impl Growing {
    /// Reads one value and all that is in it; no deeper than [`DEPTH_MAX`].
    fn value(&mut self, reader: &mut Reader<'_>, parent: usize, key: Option<Range<usize>>) -> Result<(), JsonError> {
        let at = self.nodes.len();
        if at >= NODES_MAX {
            self.is_full = true;
            return reader.skip().map(drop);
        }
        let kind = reader.peek()?;
        self.nodes.push(Node { kind, place: 0..0, key, parent, last: at + 1 });
        let raw = match kind {
            Kind::Array => reader.array(|reader| self.value(reader, at, None))?,
            Kind::Object => reader.members(|reader, key: Raw<'_>| {
                let key = key.start..key.end();
                self.value(reader, at, Some(key))
            })?,
            Kind::Bool | Kind::Null | Kind::Number | Kind::String => reader.skip()?,
        };
        let last = self.nodes.len();
        if let Some(node) = self.nodes.get_mut(at) {
            node.place = raw.start..raw.end();
            node.last = last;
        }
        Ok(())
    }
}

/// How many values a text may have: with more, the places would take more memory than the text.
const NODES_MAX: usize = 1_000_000;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place_and_its_children() {
        let text = r#" {"a": [1, {"b\u0031": "x\u0065"}], "c": null} "#;
        let tree = Tree::read(text.as_bytes()).unwrap();
        let root = tree.root();
        let keys: Vec<_> = tree.children(root).map(|child| tree.key(child).unwrap().into_owned()).collect();
        assert_eq!(keys, ["a", "c"]);
        let list = tree.member(root, "a").unwrap();
        let items: Vec<_> = tree.children(list).map(|child| tree.raw(child)).collect();
        assert_eq!(items, ["1", r#"{"b\u0031": "x\u0065"}"#]);
        let inner = tree.member(tree.children(list).nth(1).unwrap(), "b1").unwrap();
        assert_eq!(tree.string(inner).unwrap(), "xe");
        assert_eq!(tree.raw(tree.member(root, "c").unwrap()), "null");
        assert_eq!(tree.within(root).count(), 6);
    }

    #[test]
    fn a_text_that_can_be_read_in_two_ways_has_no_tree() {
        let error = Tree::read(br#"{"a":1,"a":2}"#).unwrap_err();
        assert_eq!(error, TreeError::Json(JsonError::DuplicateKey));
    }
}
