//! Which rules are about this name? Rules sorted by server, kind and name at load, so that a call looks at its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::cel::Condition;

/// What has names: tools, prompts, resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Prompt,
    Resource,
    Tool,
}

/// How a rule names what it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    Exact(Box<str>),
    /// Every name that starts so; the empty prefix is everything.
    Prefix(Box<str>),
}

/// That a rule is about a name, and on which conditions of the target entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The rule's place in the policy.
    pub(super) rule: usize,
    /// Any of these must hold; none: always.
    pub(super) any_of: Box<[Arc<Condition>]>,
}

/// The rules about one name, in the policy's order.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) entries: Vec<Entry>,
    /// Whether a condition of one of them reads more than the caller and what is asked for.
    pub(super) reads_request: bool,
}

/// The rules about the tools, the prompts or the resources of one server.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Names that a rule spells out, each with the rules whose prefix it has.
    exact: HashMap<Box<str>, Bucket>,
    /// Prefixes, each with the rules of its own prefixes.
    prefixes: HashMap<Box<str>, Bucket>,
    /// The lengths of `prefixes`, longest first.
    prefix_lengths: Box<[usize]>,
    /// Rules about everything. Kept apart from the others, or a thousand names and a thousand such rules would make a
    /// million entries.
    pub(super) all: Bucket,
    /// Every other entry in the policy's order, for questions about more than one name.
    pub(super) patterns: Box<[(Pattern, Entry)]>,
}

static NOTHING: Bucket = Bucket { entries: Vec::new(), reads_request: false };

impl Names {
    /// Sorts the entries, which come in the policy's order. `reads_request` says it of a rule's own condition.
    pub(super) fn new(entries: Vec<(Pattern, Entry)>, reads_request: &dyn Fn(usize) -> bool) -> Self {
        let mut exact: BTreeMap<Box<str>, Vec<Entry>> = BTreeMap::new();
        let mut prefixes: BTreeMap<Box<str>, Vec<Entry>> = BTreeMap::new();
        let mut all = Vec::new();
        let mut patterns = Vec::new();
        for (pattern, entry) in entries {
            match &pattern {
                Pattern::Exact(name) => exact.entry(name.clone()).or_default().push(entry.clone()),
                Pattern::Prefix(prefix) if prefix.is_empty() => {
                    all.push(entry);
                    continue;
                }
                Pattern::Prefix(prefix) => prefixes.entry(prefix.clone()).or_default().push(entry.clone()),
            }
            patterns.push((pattern, entry));
        }
        let mut prefix_lengths: Vec<usize> = prefixes.keys().map(|prefix| prefix.len()).collect();
        prefix_lengths.sort_unstable_by(|left, right| right.cmp(left));
        prefix_lengths.dedup();

        // Every key takes in the entries of the prefixes it has, itself among them when it is one.
        let with_prefixes = |name: &str, own: &[Entry]| {
            let shorter = prefix_lengths.iter().filter_map(|length| prefixes.get(name.get(..*length)?));
            Bucket::new(own.iter().chain(shorter.flatten()).cloned().collect(), reads_request)
        };
        Self {
            exact: exact.iter().map(|(name, own)| (name.clone(), with_prefixes(name, own))).collect(),
            prefixes: prefixes.keys().map(|prefix| (prefix.clone(), with_prefixes(prefix, &[]))).collect(),
            all: Bucket::new(all, reads_request),
            patterns: patterns.into(),
            prefix_lengths: prefix_lengths.into(),
        }
    }

    /// The names that a rule spells out.
    pub(super) fn spelled_out(&self) -> impl Iterator<Item = &str> {
        self.exact.keys().map(|name| &**name)
    }

    /// The rules that name `name` or a prefix of it. Those about everything are in [`Names::all`].
    pub(super) fn named(&self, name: &str) -> &Bucket {
        self.exact
            .get(name)
            .or_else(|| self.prefix_lengths.iter().find_map(|length| self.prefixes.get(name.get(..*length)?)))
            .unwrap_or(&NOTHING)
    }
}

impl Bucket {
    /// Sorts by rule; the entries of one rule become one.
    pub(super) fn new(mut entries: Vec<Entry>, reads_request: &dyn Fn(usize) -> bool) -> Self {
        entries.sort_by_key(|entry| entry.rule);
        let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            match merged.last_mut() {
                Some(last) if last.rule == entry.rule => {
                    // One of them holds always, or the conditions of both are alternatives.
                    last.any_of = if last.any_of.is_empty() || entry.any_of.is_empty() {
                        Box::default()
                    } else {
                        last.any_of.iter().chain(&entry.any_of).cloned().collect()
                    };
                }
                _ => merged.push(entry),
            }
        }
        let reads_request = merged
            .iter()
            .any(|entry| reads_request(entry.rule) || entry.any_of.iter().any(|condition| condition.reads_request));
        Self { entries: merged, reads_request }
    }
}

/// The rules of several buckets, in the policy's order.
#[derive(Clone, Debug)]
pub(super) struct Candidates<'p> {
    /// What is left of each bucket.
    rest: [&'p [Entry]; 3],
}

/// One rule with what the buckets say of it: at least one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'p> {
    pub(super) rule: usize,
    pub(super) entries: [Option<&'p Entry>; 3],
}

impl<'p> Candidates<'p> {
    pub(super) fn new(buckets: [&'p Bucket; 3]) -> Self {
        Self { rest: buckets.map(|bucket| bucket.entries.as_slice()) }
    }
}

impl<'p> Iterator for Candidates<'p> {
    type Item = Candidate<'p>;

    fn next(&mut self) -> Option<Self::Item> {
        let rule = self.rest.iter().filter_map(|rest| rest.first()).map(|entry| entry.rule).min()?;
        let entries = self.rest.each_mut().map(|rest| match rest.split_first() {
            Some((first, others)) if first.rule == rule => {
                *rest = others;
                Some(first)
            }
            _ => None,
        });
        Some(Candidate { rule, entries })
    }
}

impl Bucket {
    /// The bucket with nothing in it.
    pub(super) fn nothing() -> &'static Self {
        &NOTHING
    }
}
