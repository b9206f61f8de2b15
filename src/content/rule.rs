//! What may an operator ask for? One rule about what comes back, checked when it is read.

use std::sync::Arc;
use std::time::Duration;

use crate::mcp::Target;
use crate::policy::When;
use crate::secret::Secret;

use super::detect::Detectors;
use super::pointer::Pointer;

/// One rule about answers.
#[derive(Debug)]
pub struct Rule {
    /// Names it in audit records and metrics; different from every other of its list.
    pub name: Arc<str>,
    /// What is asked for, for it to apply.
    pub about: About,
    /// Who is let see more; none: nobody.
    pub unless: Option<When>,
    /// What is done.
    pub action: Action,
}

/// What is asked for, by name; nothing at all means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Tools.
    pub tools: Vec<Name>,
    /// Prompts.
    pub prompts: Vec<Name>,
    /// Resources, by URI.
    pub resources: Vec<Name>,
}

impl About {
    /// Whether it names nothing, and so means everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.tools.is_empty() && self.prompts.is_empty() && self.resources.is_empty()
    }

    /// Whether a request about `target` is meant. The result of a task is that of a tool nobody knows any more, so every rule
    /// about tools means it.
    #[must_use]
    pub fn means(&self, target: &Target) -> bool {
        let any = |names: &[Name], name: &str| names.iter().any(|pattern| pattern.fits(name));
        self.is_everything()
            || match target {
                Target::None => false,
                Target::Prompt(name) => any(&self.prompts, name),
                Target::Resource(uri) => any(&self.resources, uri),
                Target::Task(_) => !self.tools.is_empty(),
                Target::Tool(name) => any(&self.tools, name),
            }
    }
}

/// A name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// This one.
    Exact(Box<str>),
    /// Every one that begins so: written with a `*` at the end.
    Prefix(Box<str>),
}

impl Name {
    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

/// What is done with an answer.
#[derive(Debug)]
pub enum Action {
    /// Parts of structured content are taken out.
    Drop(Box<[Pointer]>),
    /// Another service is asked.
    External(External),
    /// Only callers over TLS get it.
    Protect(Protection),
    /// What tries to give orders is marked or refused.
    Guard(Guard),
    /// What is too much is refused.
    Limit(Limit),
    /// What is found is replaced.
    Redact(Redact),
}

/// How careful one is with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Only callers over TLS get it.
    Encrypted,
    /// That, nobody may store it on the way, and nothing of the call is captured for the audit log.
    Sensitive,
}

/// `redact:`
#[derive(Debug)]
pub struct Redact {
    /// What is looked for.
    pub detectors: Detectors,
    /// And what the operator has a shape for.
    pub patterns: Box<[Pattern]>,
    /// What comes in its place.
    pub with: Replacement,
    /// Where it is looked for.
    pub places: Places,
    /// Whether it is also looked for in text that is spelled in base64.
    pub base64: bool,
}

/// A shape of the operator's own.
#[derive(Debug)]
pub struct Pattern {
    /// What stands in its place is called.
    pub name: Box<str>,
    /// Linear in time whatever it is.
    pub regex: regex::Regex,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence: it does not compile, is too large, or matches nothing at all, which is
    /// everywhere.
    pub fn new(name: &str, expression: &str) -> Result<Self, String> {
        if expression.len() > PATTERN_BYTES_MAX {
            return Err(format!("the expression has {} bytes, {PATTERN_BYTES_MAX} are the most", expression.len()));
        }
        let regex = regex::RegexBuilder::new(expression).size_limit(PATTERN_COMPILED_BYTES_MAX).build();
        let regex = regex.map_err(|error| {
            if matches!(error, regex::Error::CompiledTooBig(_)) {
                return "the expression is too large".to_owned();
            }
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        if regex.is_match("") {
            return Err("the expression matches the empty text, which is everywhere".to_owned());
        }
        Ok(Self { name: name.into(), regex })
    }
}

/// What comes in the place of a match.
#[derive(Debug)]
pub enum Replacement {
    /// The same for equal matches, and for nobody else to make: HMAC-SHA-256 with this key, 64 bits of it.
    Hash(Secret<Vec<u8>>),
    /// As many stars as letters and digits, but for the last few.
    Mask {
        /// How many at the end stay; never more than a quarter of them.
        keep_last: usize,
    },
    /// This text, with the detector's name for `{kind}`.
    Text(Box<str>),
}

/// Where text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `error.message` and `error.data`.
    Error,
    /// What a server says besides its answers: progress, log messages, and questions to the user.
    Progress,
    /// The text of resources, read or embedded.
    Resource,
    /// Strings in `structuredContent`.
    Structured,
    /// Every other text of a result: content, prompts, completions.
    Text,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 5] = [Self::Error, Self::Progress, Self::Resource, Self::Structured, Self::Text];

    /// The word in the configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Progress => "progress",
            Self::Resource => "resource",
            Self::Structured => "structured",
            Self::Text => "text",
        }
    }
}

/// A set of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places(u8);

impl Places {
    /// Everywhere.
    pub const ALL: Self = Self(0b1_1111);

    /// The set of these.
    #[must_use]
    pub fn of(places: &[Place]) -> Self {
        Self(places.iter().fold(0, |set, place| set | 1 << *place as u8))
    }

    /// Whether `place` is among them.
    #[must_use]
    pub fn has(self, place: Place) -> bool {
        self.0 & (1 << place as u8) != 0
    }
}

/// `limit:` each bound or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of the result as JSON.
    pub result_bytes: Option<usize>,
    /// Items of content, resource contents or prompt messages.
    pub items: Option<usize>,
    /// Media types of images, audio and embedded blobs that may pass, lower case; `image/*` stands for all images.
    pub media: Option<Box<[Box<str>]>>,
}

/// `guard:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// What is looked for.
    pub threats: Threats,
    /// Hosts, lower case, that links and pictures may lead to; `*.example.com` stands for all below it.
    pub hosts: Box<[Box<str>]>,
    /// Whether words and links are also looked for in text that is spelled in base64.
    pub base64: bool,
    /// What becomes of an answer in which something is found.
    pub action: GuardAction,
}

/// What could poison the context of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threat {
    /// Characters nobody sees, that turn text around, or that move a terminal's cursor.
    Hidden,
    /// Words to the model: to forget what it was told, to keep something from the user, or in the form of a chat template.
    Instructions,
    /// Markdown and HTML links and pictures to hosts that are not listed.
    Links,
}

impl Threat {
    /// Every threat.
    pub const ALL: [Self; 3] = [Self::Hidden, Self::Instructions, Self::Links];

    /// The word in the configuration, and in the mark.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Instructions => "instructions",
            Self::Links => "links",
        }
    }
}

/// A set of threats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threats(u8);

impl Threats {
    /// The set of these.
    #[must_use]
    pub fn of(threats: &[Threat]) -> Self {
        threats.iter().fold(Self::default(), |set, threat| set.with(*threat))
    }

    /// One more.
    #[must_use]
    pub fn with(self, threat: Threat) -> Self {
        Self(self.0 | 1 << threat as u8)
    }

    /// All of both.
    #[must_use]
    pub fn and_all(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those in both.
    #[must_use]
    pub fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Whether `threat` is among them.
    #[must_use]
    pub fn has(self, threat: Threat) -> bool {
        self.0 & (1 << threat as u8) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What becomes of an answer in which a guard finds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardAction {
    /// An error comes in its place.
    Block,
    /// It passes with a mark in `_meta`.
    Flag,
    /// The text in question passes between two lines that say what it is.
    Wrap,
}

/// `external:` a service that is asked about every answer.
#[derive(Debug)]
pub struct External {
    /// Where it is.
    pub url: Box<str>,
    /// Sent as a bearer token.
    pub token: Option<Secret<String>>,
    /// How long it may take.
    pub deadline: Duration,
    /// What becomes of the answer when it gives no verdict.
    pub on_failure: OnFailure,
}

/// What becomes of an answer without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// An error comes in its place.
    Block,
    /// It passes.
    Pass,
}

/// The longest expression.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// The largest compiled expression.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;
