//! Which members are meant? JSON Pointers (RFC 6901), with `*` for every member or element.

use super::tree::{Id, Tree};
use crate::mcp::json::Kind;

/// A path from the top of a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    steps: Box<[Step]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Every member or element.
    Each,
    /// The member with this key, or the element at this place.
    Named(Box<str>),
}

impl Pointer {
    /// Reads `/employees/*/salary`. `~0` and `~1` stand for `~` and `/`, and `~2` for a `*` that is a key.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let Some(path) = text.strip_prefix('/') else {
            return Err("a pointer begins with /; the whole value cannot be dropped");
        };
        let step = |part: &str| {
            if part == "*" {
                return Ok(Step::Each);
            }
            let mut name = String::new();
            let mut chars = part.chars();
            while let Some(char) = chars.next() {
                match (char, char == '~') {
                    (char, false) => name.push(char),
                    (_, true) => match chars.next() {
                        Some('0') => name.push('~'),
                        Some('1') => name.push('/'),
                        Some('2') => name.push('*'),
                        Some(_) | None => return Err("~ is followed by 0, 1 or 2"),
                    },
                }
            }
            Ok(Step::Named(name.into()))
        };
        let steps: Vec<Step> = path.split('/').map(step).collect::<Result<_, _>>()?;
        if steps.len() > STEPS_MAX {
            return Err("a pointer has 32 steps at most");
        }
        Ok(Self { steps: steps.into() })
    }

    /// Adds every value below `top` that it means.
    pub(super) fn find(&self, tree: &Tree<'_>, top: Id, found: &mut Vec<Id>) {
        follow(&self.steps, tree, top, found);
    }

    /// Adds what it means in a text that repeats structured content. Servers that wrap what a tool returns as
    /// `{"result": …}` (FastMCP) repeat it unwrapped, a list element by element.
    pub(super) fn find_mirrored(&self, tree: &Tree<'_>, top: Id, found: &mut Vec<Id>) {
        self.find(tree, top, found);
        if let [Step::Named(wrapper), inner @ ..] = &*self.steps
            && &**wrapper == "result"
        {
            follow(inner, tree, top, found);
            if let [Step::Each, inner @ ..] = inner {
                follow(inner, tree, top, found);
            }
        }
    }
}

fn follow(steps: &[Step], tree: &Tree<'_>, from: Id, found: &mut Vec<Id>) {
    let Some((step, rest)) = steps.split_first() else { return };
    let mut reach = |child: Id| {
        if rest.is_empty() {
            found.push(child);
        } else {
            follow(rest, tree, child, found);
        }
    };
    match (step, tree.kind(from)) {
        (Step::Each, Kind::Array | Kind::Object) => tree.children(from).for_each(reach),
        (Step::Named(name), Kind::Object) => {
            if let Some(child) = tree.member(from, name) {
                reach(child);
            }
        }
        (Step::Named(name), Kind::Array) => {
            // RFC 6901 §4: no leading zeros.
            let place = name.parse::<usize>().ok().filter(|place| place.to_string() == **name);
            if let Some(child) = place.and_then(|place| tree.children(from).nth(place)) {
                reach(child);
            }
        }
        (Step::Each | Step::Named(_), Kind::Bool | Kind::Null | Kind::Number | Kind::String) => {}
    }
}

const STEPS_MAX: usize = 32;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn found(pointer: &str, text: &str) -> Vec<String> {
        let tree = Tree::read(text.as_bytes()).unwrap();
        let mut found = Vec::new();
        Pointer::read(pointer).unwrap().find(&tree, tree.root(), &mut found);
        found.into_iter().map(|id| tree.raw(id).to_owned()).collect()
    }

    #[test]
    fn pointers_reach_members_elements_and_every_one() {
        let text = r#"{"a":[{"b":1},{"b":2,"c":3}],"x/y":4,"*":5,"~":6}"#;
        for (pointer, expected) in [
            ("/a/0/b", vec!["1"]),
            ("/a/*/b", vec!["1", "2"]),
            ("/a/*/*", vec!["1", "2", "3"]),
            ("/a/01/b", vec![]),
            ("/a/-", vec![]),
            ("/x~1y", vec!["4"]),
            ("/~2", vec!["5"]),
            ("/~0", vec!["6"]),
            ("/nothing/there", vec![]),
        ] {
            assert_eq!(found(pointer, text), expected, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["", "a/b", "/a~", "/a~3"] {
            assert!(Pointer::read(text).is_err(), "{text}");
        }
    }
}
