//! Could an expression of the operator's own begin at the end of a text, and match only with what follows?

use std::cell::RefCell;
use std::collections::HashMap;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input, MatchKind};

/// Where a match of `expression` may have begun that is still open at the end of `text`, and has [`BEGUN_BYTES`] already. An
/// expression that cannot be followed is taken to be open wherever a word ends the text.
pub(super) fn open_end(expression: &str, text: &str) -> Option<usize> {
    AUTOMATA.with_borrow_mut(|automata| {
        if automata.len() >= AUTOMATA_MAX {
            automata.clear();
        }
        let automaton = automata.entry(expression.into()).or_insert_with(|| build(expression));
        let from = text.len().saturating_sub(OPEN_BYTES_MAX);
        let end = text.len().saturating_sub(BEGUN_BYTES - 1);
        let mut starts = (from..end).filter(|at| text.is_char_boundary(*at));
        match automaton {
            Some((dfa, cache)) => starts.find(|at| is_open(dfa, cache, text, *at)),
            None => {
                let word: usize = text.chars().rev().take_while(|c| !c.is_whitespace()).map(char::len_utf8).sum();
                (word >= BEGUN_BYTES).then_some(text.len() - word)
            }
        }
    })
}

fn build(expression: &str) -> Option<(DFA, Cache)> {
    // Unicode word boundaries are followed as long as the text is ASCII; where it is not, the automaton gives up.
    let config = DFA::config().match_kind(MatchKind::All).unicode_word_boundary(true).skip_cache_capacity_check(true);
    let dfa = DFA::builder().configure(config).build(expression).ok()?;
    let cache = dfa.create_cache();
    Some((dfa, cache))
}

/// Whether a match that begins at `at` could go on behind the end of the text.
fn is_open(dfa: &DFA, cache: &mut Cache, text: &str, at: usize) -> bool {
    let input = Input::new(text).range(at..).anchored(Anchored::Yes);
    let Ok(mut state) = dfa.start_state_forward(cache, &input) else { return true };
    for byte in text.as_bytes().get(at..).unwrap_or_default() {
        match dfa.next_state(cache, state, *byte) {
            Ok(next) if next.is_dead() => return false,
            Ok(next) if next.is_quit() => return true,
            Ok(next) => state = next,
            Err(_) => return true,
        }
    }
    true
}

/// None for an expression that cannot be followed.
type Automaton = Option<(DFA, Cache)>;

/// Fewer bytes than this are not worth keeping an event back.
const BEGUN_BYTES: usize = 4;

/// How far back a match may have begun.
const OPEN_BYTES_MAX: usize = 256;

/// Automata kept by a thread.
const AUTOMATA_MAX: usize = 64;

thread_local! {
    /// Made when first asked for: only streams of progress messages need one.
    static AUTOMATA: RefCell<HashMap<Box<str>, Automaton>> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_that_could_go_on_is_open() {
        for (expression, text, expected) in [
            (r"T-\d{6}", "ticket T-123", Some(7)),
            (r"T-\d{6}", "ticket T-12", Some(7)),
            (r"T-\d{6}", "ticket T-1", None),
            (r"T-\d{6}", "ticket T-123 done", None),
            (r"\bT-\d{6}\b", "ticket T-123", Some(7)),
            (r"(?i)secret-[a-z]+", "SECRET-ab", Some(0)),
        ] {
            assert_eq!(open_end(expression, text), expected, "{expression} in {text}");
        }
    }
}
