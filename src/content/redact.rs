//! What comes in the place of what was found?

use std::ops::Range;
use std::sync::Arc;

use ring::hmac;

use super::detect::{self, Detectors};
use super::encoded;
use super::rule::{Action, Place, Redact, Replacement, Rule};

/// What is looked for in one place, by the rules that apply there.
#[derive(Debug, Default)]
pub(super) struct Wanted<'p> {
    detectors: Detectors,
    /// With the rules' places in the plan.
    rules: Vec<(usize, &'p Redact)>,
    /// What of it is looked for in what base64 stands for. That is not decoded again.
    decoded: Option<Box<Wanted<'p>>>,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match<'p> {
    /// Its bytes in the text; at character boundaries.
    pub(super) range: Range<usize>,
    /// The place in the plan of the first rule that looks for it.
    pub(super) rule: usize,
    /// What it is called.
    pub(super) what: &'p str,
    /// What was found, where the bytes in the text are base64 of it and of more.
    said: Option<Box<str>>,
}

impl<'p> Wanted<'p> {
    /// What these rules look for in `place`; `set` says which of them apply.
    pub(super) fn at(place: Place, rules: &'p [Arc<Rule>], set: u64) -> Self {
        let mut wanted = Self::default();
        let mut decoded = Self::default();
        for (nth, rule) in rules.iter().enumerate() {
            if let Action::Redact(redact) = &rule.action
                && set & (1 << nth) != 0
                && redact.places.has(place)
            {
                wanted.add(nth, redact);
                if redact.base64 {
                    decoded.add(nth, redact);
                }
            }
        }
        wanted.decoded = (!decoded.is_empty()).then(|| Box::new(decoded));
        wanted
    }

    fn add(&mut self, nth: usize, redact: &'p Redact) {
        self.detectors = self.detectors.with(redact.detectors);
        self.rules.push((nth, redact));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What is looked for in what base64 stands for.
    pub(super) fn decoded(&self) -> Option<&Self> {
        self.decoded.as_deref()
    }

    /// The place in the plan of the first rule.
    pub(super) fn first_rule(&self) -> Option<usize> {
        self.rules.first().map(|(rule, _)| *rule)
    }

    /// Every match in the order of the text, none of which overlap. Where something is found in what base64 stands for, the
    /// whole of the base64 is the match.
    pub(super) fn find(&self, text: &str) -> Vec<Match<'p>> {
        let mut found = Vec::new();
        if !self.detectors.is_empty() {
            detect::find(text, self.detectors, &mut found);
        }
        let mut matches: Vec<Match<'p>> = found
            .into_iter()
            .filter_map(|found| {
                let rule = self.rules.iter().find(|(_, redact)| redact.detectors.has(found.what));
                rule.map(|(rule, _)| Match { range: found.range, rule: *rule, what: found.what.label(), said: None })
            })
            .collect();
        for (rule, redact) in &self.rules {
            for pattern in &redact.patterns {
                let found = pattern.regex.find_iter(text).filter(|found| !found.is_empty());
                matches.extend(found.map(|found| Match {
                    range: found.range(),
                    rule: *rule,
                    what: &pattern.name,
                    said: None,
                }));
            }
        }
        if let Some(decoded) = &self.decoded {
            encoded::each(text, |range, said| {
                matches.extend(decoded.find(said).into_iter().next().map(|found| Match {
                    range,
                    said: said.get(found.range.clone()).map(Box::from),
                    ..found
                }));
            });
        }
        merged(matches)
    }

    /// Where in `text` something may have begun that goes on in what follows.
    pub(super) fn open_end(&self, text: &str) -> Option<usize> {
        let built_in = detect::open_end(text, self.detectors);
        let patterns = self.rules.iter().flat_map(|(_, redact)| &redact.patterns);
        let own = patterns.filter_map(|pattern| super::partial::open_end(pattern.regex.as_str(), text));
        let in_base64 = self.decoded.as_deref().and_then(|decoded| {
            let (start, said) = encoded::unfinished(text)?;
            decoded.open_end(&said).map(|_| start)
        });
        built_in.into_iter().chain(own).chain(in_base64).min()
    }

    /// What comes in the place of `matched`; in that of base64, what would come in the place of what was found in it.
    pub(super) fn replacement(&self, found: &Match<'_>, matched: &str) -> String {
        let matched = found.said.as_deref().unwrap_or(matched);
        let redact = self.rules.iter().find(|(rule, _)| *rule == found.rule).map(|(_, redact)| redact);
        match redact.map(|redact| &redact.with) {
            Some(Replacement::Hash(key)) => hashed(key.expose(), found.what, matched),
            Some(Replacement::Mask { keep_last }) => masked(matched, *keep_last),
            Some(Replacement::Text(text)) => text.replace("{kind}", found.what),
            None => String::new(),
        }
    }
}

/// Those that overlap become one: of the earliest rule, and as long as all of them together.
fn merged(mut matches: Vec<Match<'_>>) -> Vec<Match<'_>> {
    matches.sort_by(|one, other| {
        (one.range.start, one.rule, other.range.end).cmp(&(other.range.start, other.rule, one.range.end))
    });
    let mut merged: Vec<Match<'_>> = Vec::with_capacity(matches.len());
    for found in matches {
        match merged.last_mut().filter(|last| found.range.start < last.range.end) {
            Some(last) => {
                last.range.end = last.range.end.max(found.range.end);
                // What stands for all of them is in the text.
                last.said = None;
                if found.rule < last.rule {
                    (last.rule, last.what) = (found.rule, found.what);
                }
            }
            None => merged.push(found),
        }
    }
    merged
}

/// `[email:0123456789abcdef]`: the same for equal values, and of no use for guessing them without the key.
fn hashed(key: &[u8], what: &str, matched: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(what.as_bytes());
    context.update(&[0]);
    context.update(matched.as_bytes());
    let tag = context.sign();
    let hex: String = tag.as_ref().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("[{what}:{hex}]")
}

/// Stars for letters and digits; other marks stay, so that the shape can be seen.
fn masked(matched: &str, keep_last: usize) -> String {
    let telling = matched.chars().filter(|char| char.is_alphanumeric()).count();
    let mut hidden = telling - keep_last.min(telling / 4);
    let mask = |char: char| {
        if char.is_alphanumeric() && hidden > 0 {
            hidden -= 1;
            '*'
        } else {
            char
        }
    };
    matched.chars().map(mask).collect()
}

const HASH_BYTES: usize = 8;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::content::detect::Detector;
    use crate::content::rule::{About, Pattern, Places};
    use crate::secret::Secret;

    fn rule(detectors: &[Detector], patterns: Vec<Pattern>, with: Replacement) -> Arc<Rule> {
        let redact = Redact {
            detectors: Detectors::of(detectors),
            patterns: patterns.into(),
            with,
            places: Places::ALL,
            base64: true,
        };
        Arc::new(Rule { name: "r".into(), about: About::default(), unless: None, action: Action::Redact(redact) })
    }

    fn redacted(rules: &[Arc<Rule>], text: &str) -> String {
        let wanted = Wanted::at(Place::Text, rules, u64::MAX);
        let mut out = String::new();
        let mut at = 0;
        for found in wanted.find(text) {
            out.push_str(text.get(at..found.range.start).unwrap());
            out.push_str(&wanted.replacement(&found, text.get(found.range.clone()).unwrap()));
            at = found.range.end;
        }
        out + text.get(at..).unwrap()
    }

    #[test]
    fn each_kind_of_replacement_hides_what_was_found() {
        let text = |text: &str| Replacement::Text(text.into());
        let card = [Detector::Card];
        for (with, expected) in [
            (text("[{kind}]"), "pay [card] now"),
            (Replacement::Mask { keep_last: 4 }, "pay **** **** **** 1111 now"),
            (Replacement::Mask { keep_last: 99 }, "pay **** **** **** 1111 now"),
            (Replacement::Mask { keep_last: 0 }, "pay **** **** **** **** now"),
        ] {
            assert_eq!(redacted(&[rule(&card, vec![], with)], "pay 4111 1111 1111 1111 now"), expected);
        }
        let hash = |key: &[u8]| rule(&card, vec![], Replacement::Hash(Secret::new(key.to_vec())));
        let one = redacted(&[hash(b"k1")], "4111111111111111 4111111111111111");
        let (first, second) = one.split_once(' ').unwrap();
        assert_eq!(first, second);
        assert!(first.starts_with("[card:") && first.len() == 23, "{first}");
        assert_ne!(redacted(&[hash(b"k2")], "4111111111111111"), first);
    }

    #[test]
    fn overlapping_matches_become_one_of_the_first_rule() {
        let own = Pattern::new("host", r"example\.com/\w+").unwrap();
        let rules = [
            rule(&[], vec![own], Replacement::Text("<{kind}>".into())),
            rule(&[Detector::Email], vec![], Replacement::Text("<{kind}>".into())),
        ];
        assert_eq!(redacted(&rules, "a@example.com/path b@example.com"), "<host> <email>");
    }

    #[test]
    fn an_expression_that_would_match_everywhere_is_refused() {
        assert!(Pattern::new("x", r"\d*").unwrap_err().contains("empty text"));
        assert!(Pattern::new("x", r"(").is_err());
        assert!(Pattern::new("x", r"(\w{1000}){1000}").unwrap_err().contains("large"));
    }
}
