//! Does a text match a pattern that was known when its rule was compiled?

use regex::Regex;

/// A pattern of a rule, ready to be asked.
#[derive(Debug)]
pub(super) enum Pattern {
    /// `^prefix.*suffix$`, which most rules say: two comparisons and a search for the one character that `.` leaves out.
    /// An automaton takes a step for each byte, so for a long argument this is a hundred times quicker.
    Framed { prefix: Box<str>, suffix: Box<str> },
    /// Any other.
    Regex(Regex),
}

impl Pattern {
    /// The pattern that `regex` was compiled from, with no flags but those it sets itself.
    pub(super) fn of(regex: Regex) -> Self {
        match framed(regex.as_str()) {
            Some((prefix, suffix)) => Self::Framed { prefix: prefix.into(), suffix: suffix.into() },
            None => Self::Regex(regex),
        }
    }

    /// Whether it matches somewhere in `text`.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Framed { prefix, suffix } => text
                .strip_prefix(&**prefix)
                .and_then(|rest| rest.strip_suffix(&**suffix))
                .is_some_and(|between| !between.as_bytes().contains(&b'\n')),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// What stands before and after the one `.*` of an anchored pattern that is literal otherwise.
fn framed(pattern: &str) -> Option<(String, String)> {
    let (prefix, suffix) = pattern.strip_prefix('^')?.strip_suffix('$')?.split_once(".*")?;
    Some((literal(prefix)?, literal(suffix)?))
}

/// The text that a pattern without any operator matches. A backslash before punctuation is one (regex crate, "Escape
/// sequences"); before anything else it may mean more, and so does every character that can be an operator.
fn literal(pattern: &str) -> Option<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                text.push(characters.next().filter(char::is_ascii_punctuation).filter(|next| !"<>".contains(*next))?)
            }
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::of(Regex::new(text).unwrap())
    }

    #[test]
    fn knows_a_frame_from_what_only_looks_like_one() {
        for framed in ["^Hello, .*!$", "^.*$", r"^a\.b.*$", r"^\^.*\$$", "^é.*ü$", "^a b-c#.*$"] {
            assert!(matches!(pattern(framed), Pattern::Framed { .. }), "{framed}");
        }
        let others = [
            "^a$",
            "a.*b",
            "^a.*b",
            "a.*b$",
            "^a.*?b$",
            "^a.*.*b$",
            "^a|b.*c$",
            r"^\d.*$",
            r"^a\.*$",
            r"^a.*\$",
            "^(a).*b$",
            "^a?.*$",
            "^[ab].*$",
            "^a.*b+$",
            "^a.*b{2}$",
            r"^\<.*$",
            "(?s)^a.*b$",
            "^(?i)a.*b$",
            "^^a.*b$$",
            r"^a.*\\$x$",
        ];
        for other in others {
            assert!(Regex::new(other).is_err() || matches!(pattern(other), Pattern::Regex(_)), "{other}");
        }
    }

    proptest! {
        /// The law: it says what the regular expression says.
        #[test]
        fn a_frame_matches_what_its_regular_expression_matches(
            (prefix, suffix) in ("[ab.$é]{0,2}", "[ab.$é]{0,2}"),
            text in "[ab.$é\n\r]{0,6}",
        ) {
            let regex = Regex::new(&format!("^{}.*{}$", regex::escape(&prefix), regex::escape(&suffix))).unwrap();
            let framed = Pattern::of(regex.clone());
            let is_framed = matches!(framed, Pattern::Framed { .. });
            prop_assert!(is_framed);
            for text in [&text, &format!("{prefix}{text}{suffix}")] {
                prop_assert_eq!(framed.is_match(text), regex.is_match(text), "{:?}", text);
            }
        }

        #[test]
        fn no_pattern_is_read_as_another(pattern in r"\^[a.*\\$^|+?(\[{b]{0,5}\$", text in "[ab.*$^|\n]{0,5}") {
            if let Ok(regex) = Regex::new(&pattern) {
                prop_assert_eq!(Pattern::of(regex.clone()).is_match(&text), regex.is_match(&text), "{}", pattern);
            }
        }
    }
}
