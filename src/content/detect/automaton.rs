//! Where could something begin that is looked for? One pass of one automaton over the bytes, for all detectors at once.
//!
//! The automaton knows short beginnings only ([`ANCHORS`]): what it finds is a place to look at, never a match. Text in
//! which nothing stands costs that one pass and nothing else. It is a dense DFA of `regex-automata`, kept as a table of
//! our own, because a DFA alone waits for memory at every byte: four places of a long text are read in turns.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_automata::nfa::thompson::{self, NFA, State};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;

/// What a detector looks at. The order is that of [`ANCHORS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    At,
    Aws,
    AwsSecret,
    Digits,
    GitHub,
    GitHubPat,
    Google,
    GoogleOther,
    Iban,
    Ip4,
    Ip6,
    Jwt,
    PrivateKey,
    Slack,
    SlackHook,
}

/// Every anchor with its expression. None is longer than [`ANCHOR_BYTES_MAX`], and none looks around.
const ANCHORS: [(Anchor, &str); 15] = [
    (Anchor::At, r"[0-9A-Za-z._%+\x80-\xff-]@[0-9A-Za-z\x80-\xff]"),
    (Anchor::Aws, r"A(?:KIA|SIA|BIA|CCA)[0-9A-Z]"),
    (Anchor::AwsSecret, r"[Ss][Ee][Cc][Rr][Ee][Tt][_-]?(?:[Aa][Cc][Cc][Ee][Ss][Ss][_-]?)?[Kk][Ee][Yy]"),
    (Anchor::Digits, r"[0-9](?:[ .()/-]{0,2}[0-9]){6}"),
    (Anchor::GitHub, r"gh[opsur]_[0-9A-Za-z]"),
    (Anchor::GitHubPat, r"github_pat_[0-9A-Za-z]"),
    (Anchor::Google, r"AIza[0-9A-Za-z_-]"),
    (Anchor::GoogleOther, r"ya29\.|GOCSPX-"),
    (Anchor::Iban, r"[A-Za-z]{2}[0-9]{2}[ -]?[0-9A-Za-z]"),
    (Anchor::Ip4, r"[0-9]\.[0-9]{1,3}\.[0-9]"),
    (Anchor::Ip6, r":[0-9A-Fa-f]{0,4}:"),
    (Anchor::Jwt, r"eyJ[0-9A-Za-z_-]"),
    (Anchor::PrivateKey, r"-----BEGIN"),
    (Anchor::Slack, r"xox[a-z]-|xapp-"),
    (Anchor::SlackHook, r"hooks\.slack\.com/"),
];

/// A set of anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Anchors(u16);

impl Anchors {
    pub(super) const fn of(anchors: &[Anchor]) -> Self {
        let mut set = 0;
        let mut rest = anchors;
        while let [anchor, others @ ..] = rest {
            set |= 1 << *anchor as u16;
            rest = others;
        }
        Self(set)
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Anchor> {
        ANCHORS.iter().map(|(anchor, _)| *anchor).filter(move |anchor| self.0 & (1 << *anchor as u16) != 0)
    }
}

/// Where an anchor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// The byte behind it.
    pub(super) end: usize,
    /// Which end there.
    pub(super) anchors: Anchors,
}

/// Finds every anchor of `wanted` in `text`; `hits` has them in the order of the text.
pub(super) fn anchors_in(text: &[u8], wanted: Anchors, hits: &mut Vec<Hit>) {
    AUTOMATON.run(text, wanted, hits);
}

/// No anchor is longer: seven digits with two characters between each two have 19 bytes.
const ANCHOR_BYTES_MAX: usize = 32;

/// Texts shorter than this are read by one lane.
const LANES_FROM: usize = 512;

/// Set in a table entry whose state ends an anchor.
const ENDS: u32 = 1 << 31;

#[derive(Debug)]
struct Table {
    /// The column of each byte.
    columns: [u8; 256],
    /// `row + column` → row of the next state, with [`ENDS`].
    next: Vec<u32>,
    /// Anchors that end with a state, by its row divided by the row's length.
    ends: Vec<Anchors>,
    row_shift: u32,
}

/// The row of the state that nothing has been read in.
const START: u32 = 0;

static AUTOMATON: LazyLock<Table> = LazyLock::new(Table::build);

impl Table {
    /// Makes the automaton out of sets of states of the NFA that `regex-automata` compiles. Its own dense DFAs would have
    /// twice the states, because they tell a match one byte late.
    #[expect(clippy::expect_used, reason = "the expressions are constants that a test builds")]
    fn build() -> Self {
        let patterns = ANCHORS.map(|(_, pattern)| pattern);
        let nfa = thompson::Compiler::new()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .configure(thompson::Config::new().utf8(false).which_captures(thompson::WhichCaptures::None))
            .build_many(&patterns)
            .expect("constant expressions");
        // Bytes that no expression tells apart share a column.
        let classes = nfa.byte_classes();
        let firsts: Vec<u8> = {
            let is_first = |byte: &u8| (0..*byte).all(|earlier| classes.get(earlier) != classes.get(*byte));
            (0..=u8::MAX).filter(is_first).collect()
        };
        let mut columns = [0; 256];
        for (byte, column) in (0..=u8::MAX).zip(&mut columns) {
            let place = firsts.iter().position(|first| classes.get(*first) == classes.get(byte));
            *column = place.and_then(|place| u8::try_from(place).ok()).unwrap_or_default();
        }
        let row_shift = firsts.len().next_power_of_two().trailing_zeros();

        // An anchor may begin anywhere, so every set holds the beginnings.
        let mut start = States::of(&nfa);
        start.add_closure(&nfa, nfa.start_anchored());
        let mut places: HashMap<States, usize> = HashMap::from([(start.clone(), 0)]);
        let mut order = vec![start.clone()];
        let mut next = Vec::new();
        let mut done = 0;
        while let Some(from) = order.get(done).cloned() {
            next.resize((done + 1) << row_shift, 0);
            for (column, byte) in firsts.iter().enumerate() {
                let mut to = start.clone();
                from.each().for_each(|state| to.add_step(&nfa, state, *byte));
                let mark = if to.ends(&nfa).is_empty() { 0 } else { ENDS };
                let place = *places.entry(to).or_insert_with_key(|to| {
                    order.push(to.clone());
                    order.len() - 1
                });
                if let Some(entry) = next.get_mut((done << row_shift) + column) {
                    *entry = u32::try_from(place << row_shift).unwrap_or_default() | mark;
                }
            }
            done += 1;
        }
        let ends = order.iter().map(|states| states.ends(&nfa)).collect();
        Self { columns, next, ends, row_shift }
    }

    fn step(&self, state: u32, byte: u8) -> u32 {
        let column = self.columns.get(usize::from(byte)).copied().unwrap_or_default();
        self.next.get((state & !ENDS) as usize + usize::from(column)).copied().unwrap_or_default()
    }

    fn ending(&self, state: u32) -> Anchors {
        self.ends.get((state & !ENDS) as usize >> self.row_shift).copied().unwrap_or_default()
    }

    fn run(&self, text: &[u8], wanted: Anchors, hits: &mut Vec<Hit>) {
        if text.len() < LANES_FROM {
            self.lane(text, 0, 0, START, wanted, hits);
            return;
        }
        let part = text.len() / 4;
        // Each lane but the first begins so far ahead of its part that it has seen every anchor that ends in there.
        let lane = |nth: usize| {
            let begin = (nth * part).saturating_sub(if nth == 0 { 0 } else { ANCHOR_BYTES_MAX });
            (begin, text.get(begin..begin + part).unwrap_or_default())
        };
        let [(_, first), (begin2, second), (begin3, third), (begin4, fourth)] = [lane(0), lane(1), lane(2), lane(3)];
        let mut found: [Vec<Hit>; 4] = Default::default();
        let mut states = [START; 4];
        let lanes = first.iter().zip(second).zip(third.iter().zip(fourth)).enumerate();
        for (at, ((one, two), (three, four))) in lanes {
            let [a, b, c, d] = states;
            states = [self.step(a, *one), self.step(b, *two), self.step(c, *three), self.step(d, *four)];
            let [a, b, c, d] = states;
            if (a | b | c | d) & ENDS != 0 {
                for ((state, begin), found) in states.into_iter().zip([0, begin2, begin3, begin4]).zip(&mut found) {
                    self.note(state, begin + at + 1, 0, wanted, found);
                }
            }
        }
        // What each lane has still to read: to the end of its part.
        let bounds = [part, 2 * part, 3 * part, text.len()];
        let begins = [0, begin2, begin3, begin4];
        let mut from = 0;
        for (((state, begin), bound), mut found) in states.into_iter().zip(begins).zip(bounds).zip(found) {
            let read = begin + part;
            self.lane(text.get(read..bound).unwrap_or_default(), read, from, state, wanted, &mut found);
            hits.extend(found.into_iter().filter(|hit| hit.end > from));
            from = bound;
        }
    }

    /// Reads on with one lane: `text` begins at `offset`.
    fn lane(&self, text: &[u8], offset: usize, from: usize, mut state: u32, wanted: Anchors, hits: &mut Vec<Hit>) {
        for (at, byte) in text.iter().enumerate() {
            state = self.step(state, *byte);
            if state & ENDS != 0 {
                self.note(state, offset + at + 1, from, wanted, hits);
            }
        }
    }

    #[cold]
    fn note(&self, state: u32, end: usize, from: usize, wanted: Anchors, hits: &mut Vec<Hit>) {
        if state & ENDS == 0 || end <= from {
            return;
        }
        let anchors = self.ending(state).and(wanted);
        if !anchors.is_empty() {
            hits.push(Hit { end, anchors });
        }
    }
}

/// A set of states of an NFA: a bit for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct States(Box<[u64]>);

impl States {
    fn of(nfa: &NFA) -> Self {
        Self(vec![0; nfa.states().len().div_ceil(64)].into())
    }

    /// Adds a state and those that it leads to without a byte.
    fn add_closure(&mut self, nfa: &NFA, state: StateID) {
        let Some(word) = self.0.get_mut(state.as_usize() / 64) else { return };
        let bit = 1 << (state.as_usize() % 64);
        if *word & bit != 0 {
            return;
        }
        *word |= bit;
        match nfa.state(state) {
            State::Union { alternates } => alternates.iter().for_each(|next| self.add_closure(nfa, *next)),
            State::BinaryUnion { alt1, alt2 } => {
                self.add_closure(nfa, *alt1);
                self.add_closure(nfa, *alt2);
            }
            State::Capture { next, .. } | State::Look { next, .. } => self.add_closure(nfa, *next),
            State::ByteRange { .. } | State::Dense(_) | State::Fail | State::Match { .. } | State::Sparse(_) => {}
        }
    }

    /// Adds what `byte` leads to from `state`.
    fn add_step(&mut self, nfa: &NFA, state: StateID, byte: u8) {
        let next = match nfa.state(state) {
            State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
            State::Dense(transitions) => transitions.matches_byte(byte),
            State::Sparse(transitions) => transitions.matches_byte(byte),
            State::BinaryUnion { .. }
            | State::Capture { .. }
            | State::Fail
            | State::Look { .. }
            | State::Match { .. }
            | State::Union { .. } => None,
        };
        if let Some(next) = next {
            self.add_closure(nfa, next);
        }
    }

    fn each(&self) -> impl Iterator<Item = StateID> {
        let bits =
            self.0.iter().enumerate().flat_map(|(word, bits)| {
                (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| word * 64 + bit)
            });
        bits.filter_map(|state| StateID::new(state).ok())
    }

    /// The anchors that end here.
    fn ends(&self, nfa: &NFA) -> Anchors {
        let patterns = self.each().filter_map(|state| match nfa.state(state) {
            State::Match { pattern_id } => Some(pattern_id.as_u32()),
            State::BinaryUnion { .. }
            | State::ByteRange { .. }
            | State::Capture { .. }
            | State::Dense(_)
            | State::Fail
            | State::Look { .. }
            | State::Sparse(_)
            | State::Union { .. } => None,
        });
        Anchors(patterns.fold(0, |set, pattern| set | 1 << pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Anchors = Anchors(u16::MAX);

    #[test]
    fn the_table_stays_small() {
        let (states, shift) = (AUTOMATON.ends.len(), AUTOMATON.row_shift);
        assert!(states < 512 && shift <= 7, "{states} states of {} entries", 1 << shift);
        assert_eq!(states, AUTOMATON.next.len() >> shift);
    }

    /// Anchors at every place around the borders of the lanes are found once, and in order.
    #[test]
    fn four_lanes_find_what_one_finds() {
        let filler = "the quick brown fox jumps over the lazy dog, and then it rests a while. ";
        for (anchor, text) in [
            (Anchor::At, "a@b"),
            (Anchor::Aws, "AKIAX"),
            (Anchor::AwsSecret, "secret_access_key"),
            (Anchor::Digits, "1) 2) 3) 4) 5) 6) 7"),
            (Anchor::Iban, "DE89 3"),
            (Anchor::Ip4, "1.22.3"),
            (Anchor::PrivateKey, "-----BEGIN"),
            (Anchor::SlackHook, "hooks.slack.com/"),
        ] {
            for length in [511, 513, 602] {
                let clean: String = filler.chars().cycle().take(length).collect();
                for at in 0..=length {
                    let (left, right) = clean.split_at(at);
                    let text = format!("{left}{text}{right}");
                    let mut hits = Vec::new();
                    anchors_in(text.as_bytes(), ALL, &mut hits);
                    let mut slow = Vec::new();
                    AUTOMATON.lane(text.as_bytes(), 0, 0, START, ALL, &mut slow);
                    assert_eq!(hits, slow, "{anchor:?} at {at} of {length}");
                    assert!(hits.iter().any(|hit| hit.anchors.iter().any(|found| found == anchor)), "{anchor:?}");
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_anchors_is_that_of_their_numbers() {
        for (nth, (anchor, _)) in ANCHORS.iter().enumerate() {
            assert_eq!(*anchor as usize, nth);
        }
    }
}
