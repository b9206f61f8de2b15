//! Does this text hold something that must not pass? Detectors of what has a shape, each with a check of its own.
//!
//! [`find`] runs one automaton over the text (`automaton`) and asks the detector only where something could begin. What
//! each detector takes for a match, and what it is known to take wrongly, stands beside it.

mod automaton;
mod iban;
mod network;
mod numbers;
mod token;

#[cfg(test)]
mod tests;

use std::ops::Range;

use self::automaton::{Anchor, Anchors};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detector {
    /// Access key ids of AWS, and secret access keys that are named as such.
    AwsKey,
    /// Payment card numbers with a right Luhn digit.
    Card,
    /// E-mail addresses.
    Email,
    /// Tokens of GitHub.
    GitHubToken,
    /// API keys, access tokens and client secrets of Google.
    GoogleKey,
    /// International bank account numbers with right check digits.
    Iban,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// JSON web tokens.
    Jwt,
    /// Telephone numbers, international or of North America.
    Phone,
    /// PEM blocks of private keys.
    PrivateKey,
    /// Tokens and webhooks of Slack.
    SlackToken,
    /// Social security numbers of the USA, with their dashes or spaces.
    UsSsn,
}

impl Detector {
    /// Every detector.
    pub const ALL: [Self; 12] = [
        Self::AwsKey,
        Self::Card,
        Self::Email,
        Self::GitHubToken,
        Self::GoogleKey,
        Self::Iban,
        Self::Ip,
        Self::Jwt,
        Self::Phone,
        Self::PrivateKey,
        Self::SlackToken,
        Self::UsSsn,
    ];

    /// The word in the configuration, and in what stands in its place.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::AwsKey => "aws_key",
            Self::Card => "card",
            Self::Email => "email",
            Self::GitHubToken => "github_token",
            Self::GoogleKey => "google_key",
            Self::Iban => "iban",
            Self::Ip => "ip",
            Self::Jwt => "jwt",
            Self::Phone => "phone",
            Self::PrivateKey => "private_key",
            Self::SlackToken => "slack_token",
            Self::UsSsn => "us_ssn",
        }
    }

    const fn anchors(self) -> Anchors {
        match self {
            Self::AwsKey => Anchors::of(&[Anchor::Aws, Anchor::AwsSecret]),
            Self::Card | Self::Phone | Self::UsSsn => Anchors::of(&[Anchor::Digits]),
            Self::Email => Anchors::of(&[Anchor::At]),
            Self::GitHubToken => Anchors::of(&[Anchor::GitHub, Anchor::GitHubPat]),
            Self::GoogleKey => Anchors::of(&[Anchor::Google, Anchor::GoogleOther]),
            Self::Iban => Anchors::of(&[Anchor::Iban]),
            Self::Ip => Anchors::of(&[Anchor::Ip4, Anchor::Ip6]),
            Self::Jwt => Anchors::of(&[Anchor::Jwt]),
            Self::PrivateKey => Anchors::of(&[Anchor::PrivateKey]),
            Self::SlackToken => Anchors::of(&[Anchor::Slack, Anchor::SlackHook]),
        }
    }
}

/// A set of detectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detectors {
    set: u16,
    anchors: Anchors,
}

impl Detectors {
    /// The set of these.
    #[must_use]
    pub fn of(detectors: &[Detector]) -> Self {
        detectors.iter().fold(Self::default(), |set, detector| {
            let anchors = set.anchors.with(detector.anchors());
            Self { set: set.set | 1 << *detector as u16, anchors }
        })
    }

    /// Whether `detector` is among them.
    #[must_use]
    pub fn has(self, detector: Detector) -> bool {
        self.set & (1 << detector as u16) != 0
    }

    /// All of both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { set: self.set | other.set, anchors: self.anchors.with(other.anchors) }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.set == 0
    }
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes in the text; at character boundaries.
    pub range: Range<usize>,
    /// What it is.
    pub what: Detector,
}

/// Adds every match of `wanted` in `text` to `found`. Matches of different detectors may overlap, and they come in no order.
///
/// Time is linear in the text: each detector looks at a bounded number of bytes around a place, or not twice at the same.
pub fn find(text: &str, wanted: Detectors, found: &mut Vec<Found>) {
    if wanted.is_empty() {
        return;
    }
    let mut hits = Vec::new();
    automaton::anchors_in(text.as_bytes(), wanted.anchors, &mut hits);
    // Up to where each detector has already looked.
    let mut done = [0_usize; Anchor::SlackHook as usize + 1];
    for hit in hits {
        for anchor in hit.anchors.iter() {
            let Some(done) = done.get_mut(anchor as usize).filter(|done| hit.end > **done) else { continue };
            let looked_to = look(text, anchor, hit.end, wanted, found);
            *done = looked_to.max(*done);
        }
    }
}

/// Whether a text of [`find`] could go on in another: where in `text` something may have begun of which nothing has shown yet
/// that it is none. Enough of it stands there to be worth keeping back: of a token its prefix and more, of an account or card
/// number more than may be shown of it.
#[must_use]
pub fn open_end(text: &str, wanted: Detectors) -> Option<usize> {
    let from = text.len().saturating_sub(OPEN_BYTES_MAX);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at))?;
    let end = text.get(from..)?;
    let token = token::open_end(end, wanted);
    let number = numbers::open_end(end, wanted);
    let iban = wanted.has(Detector::Iban).then(|| iban::open_end(end)).flatten();
    let network = network::open_end(end, wanted);
    [token, number, iban, network].into_iter().flatten().min().map(|at| from + at)
}

/// How far back something can have begun that is still open.
pub const OPEN_BYTES_MAX: usize = 4096;

/// Asks the detector of an anchor. Says up to where it need not be asked again.
fn look(text: &str, anchor: Anchor, end: usize, wanted: Detectors, found: &mut Vec<Found>) -> usize {
    let mut one = |what: Detector, range: Option<Range<usize>>| match range {
        Some(range) => {
            let end = range.end;
            found.push(Found { range, what });
            end
        }
        None => end,
    };
    match anchor {
        Anchor::At => one(Detector::Email, network::email(text, end)),
        Anchor::Aws => one(Detector::AwsKey, token::aws_key_id(text, end)),
        Anchor::AwsSecret => one(Detector::AwsKey, token::aws_secret(text, end)),
        Anchor::Digits => numbers::in_run(text, end, wanted, found),
        Anchor::GitHub => one(Detector::GitHubToken, token::github(text, end)),
        Anchor::GitHubPat => one(Detector::GitHubToken, token::github_pat(text, end)),
        Anchor::Google => one(Detector::GoogleKey, token::google_api_key(text, end)),
        Anchor::GoogleOther => one(Detector::GoogleKey, token::google_other(text, end)),
        Anchor::Iban => one(Detector::Iban, iban::iban(text, end)),
        Anchor::Ip4 => one(Detector::Ip, network::ip4(text, end)),
        Anchor::Ip6 => one(Detector::Ip, network::ip6(text, end)),
        Anchor::Jwt => one(Detector::Jwt, token::jwt(text, end)),
        Anchor::PrivateKey => one(Detector::PrivateKey, token::private_key(text, end)),
        Anchor::Slack => one(Detector::SlackToken, token::slack(text, end)),
        Anchor::SlackHook => one(Detector::SlackToken, token::slack_hook(text, end)),
    }
}

/// How many bytes from `at` on satisfy `fits`, at most `most`.
fn run(text: &str, at: usize, most: usize, fits: impl Fn(u8) -> bool) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    rest.iter().take(most).take_while(|byte| fits(**byte)).count()
}

/// How many bytes before `at` satisfy `fits`, at most `most`.
fn run_before(text: &str, at: usize, most: usize, fits: impl Fn(u8) -> bool) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().rev().take(most).take_while(|byte| fits(**byte)).count()
}

fn byte_before(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at.checked_sub(1)?).copied()
}

fn byte_at(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
