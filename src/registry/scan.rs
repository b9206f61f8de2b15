//! What in a definition should make a reader look twice?
//!
//! Definitions are read by models, so a definition is where somebody tells a model what to do (tool poisoning). The scan
//! finds what is known to be used for that: characters nobody sees, words to the model, hints at secrets, and traps in
//! schemas. It is help for the person who approves: nothing is approved because the scan finds nothing, and nothing is
//! refused for what it finds.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::MixedScript as _;

use super::definition::Definition;
use crate::content::unseen::is_invisible;

/// Something to look at twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How bad that is.
    pub severity: Severity,
    /// Where: a JSON Pointer (RFC 6901) into the definition, at most [`POINTER_CHARS_MAX`] characters.
    pub pointer: Box<str>,
    /// The words around it, with characters that are not seen made visible; at most [`EXCERPT_CHARS_MAX`] characters.
    pub excerpt: Box<str>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Low,
    /// Unusual.
    Medium,
    /// No honest definition needs it.
    High,
}

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Characters that turn the direction of text around.
    Bidi,
    /// Control characters, terminal escapes among them.
    Control,
    /// The name of another tool.
    CrossReference,
    /// A long run of base64 or hex.
    Encoded,
    /// A JSON Schema reference that leads out of the definition.
    ExternalReference,
    /// Words that want conversation, prompts or reasoning handed over.
    Harvest,
    /// A long run of white space, which moves what follows out of sight.
    HiddenBySpace,
    /// Words to the model about what it was told before, or must do first.
    Instruction,
    /// A very long text.
    LongText,
    /// Markup that a chat template or a browser could take for its own.
    Markup,
    /// Letters of several scripts in one word.
    MixedScript,
    /// A name with characters outside ASCII.
    NonAsciiName,
    /// Words that want something kept from the user.
    Secrecy,
    /// A file or variable where secrets are kept.
    SensitivePlace,
    /// Unicode tag characters: ASCII that models read and nobody sees.
    UnicodeTag,
    /// An address of another place.
    Url,
    /// Other characters that nobody sees.
    ZeroWidth,
}

/// Looks through a definition. `others` are the names of other tools, of this server and of others.
///
/// At most [`FINDINGS_MAX`] findings, the worst first.
#[must_use]
pub fn scan<'a>(definition: &Definition, others: impl IntoIterator<Item = &'a str>) -> Vec<Finding> {
    // The text was checked, and is no deeper than `serde_json` reads.
    let value: Value = serde_json::from_str(definition.text()).unwrap_or_default();
    let own = &*definition.key().name;
    let others: BTreeSet<&str> = others.into_iter().filter(|name| *name != own && is_telling(name)).collect();
    let mut scan = Scan { findings: Vec::new(), others };
    scan.name(own, definition.key().kind.name_member());
    scan.value(&value, &mut String::new());
    let mut findings = scan.findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings.truncate(FINDINGS_MAX);
    findings
}

/// Makes visible what is not seen: control and invisible characters become `⟨U+200B⟩`, tag characters the ASCII they stand
/// for, `⟨tag:a⟩`.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\u{e0020}'..='\u{e007e}' => {
                let ascii = char::from_u32(u32::from(char) - 0xe0000).unwrap_or('?');
                out.push_str("⟨tag:");
                out.push(ascii);
                out.push('⟩');
            }
            '\n' | '\t' => out.push(' '),
            _ if char.is_control() || is_invisible(char) => {
                out.push_str(&format!("⟨U+{:04X}⟩", u32::from(char)));
            }
            _ => out.push(char),
        }
    }
    out
}

/// How many findings are kept of one definition.
pub const FINDINGS_MAX: usize = 50;

/// The longest excerpt.
pub const EXCERPT_CHARS_MAX: usize = 160;

/// The longest pointer.
pub const POINTER_CHARS_MAX: usize = 256;

struct Scan<'a> {
    findings: Vec<Finding>,
    others: BTreeSet<&'a str>,
}

impl Scan<'_> {
    fn value(&mut self, value: &Value, pointer: &mut String) {
        let length = pointer.len();
        match value {
            Value::String(text) => self.text(text, pointer),
            Value::Array(items) => {
                for (nth, item) in items.iter().enumerate() {
                    pointer.push_str(&format!("/{nth}"));
                    self.value(item, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Object(members) => {
                for (member, item) in members {
                    pointer.push('/');
                    pointer.push_str(&member.replace('~', "~0").replace('/', "~1"));
                    self.member(member, item, pointer);
                    self.value(item, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Bool(_) | Value::Null | Value::Number(_) => {}
        }
    }

    fn name(&mut self, name: &str, member: &str) {
        let pointer = format!("/{member}");
        if !name.is_ascii() {
            self.note(Code::NonAsciiName, Severity::Medium, &pointer, name, 0);
        }
    }

    /// A key: what it is called, and what schemas say with it.
    fn member(&mut self, member: &str, value: &Value, pointer: &str) {
        self.characters(member, pointer);
        self.words(member, pointer);
        if HARVEST_NAMES.is_match(member) {
            self.note(Code::Harvest, Severity::Medium, pointer, member, 0);
        }
        if let (true, Value::String(target)) = (matches!(member, "$ref" | "$dynamicRef" | "$schema"), value) {
            let is_dialect = member == "$schema" && target.contains("json-schema.org/");
            if !target.starts_with('#') && !is_dialect {
                self.note(Code::ExternalReference, Severity::Medium, pointer, target, 0);
            }
        }
    }

    fn text(&mut self, text: &str, pointer: &str) {
        self.characters(text, pointer);
        self.words(text, pointer);
        if text.len() > LONG_TEXT_BYTES {
            self.note(Code::LongText, Severity::Low, pointer, text, 0);
        }
        if let Some(found) = SPACE.find(text) {
            self.note(Code::HiddenBySpace, Severity::Medium, pointer, text, found.end());
        }
        if let Some(found) = ENCODED.find(text).filter(|_| !pointer.starts_with("/icons/")) {
            self.note(Code::Encoded, Severity::Medium, pointer, text, found.start());
        }
        if let Some(found) = URL.find(text) {
            let is_code = !found.as_str().to_ascii_lowercase().starts_with("http");
            let severity = if is_code { Severity::High } else { Severity::Low };
            self.note(Code::Url, severity, pointer, text, found.start());
        }
        if let Some((at, _name)) = names_in(text).find(|(_, name)| self.others.contains(name)) {
            self.note(Code::CrossReference, Severity::Medium, pointer, text, at);
        }
        if let Some((at, _word)) = words_of(text).find(|(_, word)| !word.is_ascii() && !word.is_single_script()) {
            self.note(Code::MixedScript, Severity::Medium, pointer, text, at);
        }
    }

    /// One finding a kind of character and text: a thousand of them say no more than the first.
    fn characters(&mut self, text: &str, pointer: &str) {
        if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()) {
            return;
        }
        let mut before = None;
        let mut chars = text.char_indices().peekable();
        let mut seen: Vec<Code> = Vec::new();
        while let Some((at, char)) = chars.next() {
            let after = chars.peek().map(|(_, char)| *char);
            let code = unseen(before, char, after);
            before = Some(char);
            let Some(code) = code.filter(|code| !seen.contains(code)) else { continue };
            seen.push(code);
            self.note(code, Severity::High, pointer, text, at);
        }
    }

    fn words(&mut self, text: &str, pointer: &str) {
        // What hides from the eye, or from a search, between the letters of a word does not hide from this.
        let plain: String = text.nfkc().filter(|char| !is_invisible(*char)).collect();
        for (code, severity, words) in &*WORDS {
            if let Some(found) = words.find(&plain) {
                self.note(*code, *severity, pointer, &plain, found.start());
            }
        }
    }

    fn note(&mut self, code: Code, severity: Severity, pointer: &str, text: &str, at: usize) {
        // Room for findings worse than the first ones; how much work a definition makes is bounded by its size.
        if self.findings.len() >= FINDINGS_MAX * 8 {
            return;
        }
        let from = floor_char_boundary(text, at.saturating_sub(EXCERPT_BYTES_BEFORE));
        let excerpt: String = text.get(from..).unwrap_or_default().chars().take(EXCERPT_CHARS_MAX).collect();
        let excerpt: String = visible(&excerpt).chars().take(EXCERPT_CHARS_MAX).collect();
        let pointer: String = visible(pointer).chars().take(POINTER_CHARS_MAX).collect();
        self.findings.push(Finding { code, severity, pointer: pointer.into(), excerpt: excerpt.into() });
    }
}

/// What kind of unseen character this is, between its neighbours. Joiners and variation selectors are part of emoji and of
/// several scripts, so among those they are not counted.
fn unseen(before: Option<char>, char: char, after: Option<char>) -> Option<Code> {
    match char {
        '\n' | '\r' | '\t' => None,
        '\u{e0000}'..='\u{e007f}' => Some(Code::UnicodeTag),
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some(Code::Bidi),
        '\u{200c}' | '\u{200d}' => {
            let is_joining =
                before.is_some_and(|before| !before.is_ascii()) && after.is_some_and(|after| !after.is_ascii());
            (!is_joining).then_some(Code::ZeroWidth)
        }
        '\u{fe0e}' | '\u{fe0f}' => {
            let is_emoji = before.is_some_and(|before| !before.is_ascii() || matches!(before, '0'..='9' | '#' | '*'));
            (!is_emoji).then_some(Code::ZeroWidth)
        }
        _ if is_invisible(char) => Some(Code::ZeroWidth),
        _ if char.is_control() => Some(Code::Control),
        _ => None,
    }
}

/// Whether a tool's name is worth finding in another's text: one that is an English word would be found everywhere.
fn is_telling(name: &str) -> bool {
    name.len() >= 5 && name.contains(['_', '-', '.']) || name.chars().skip(1).any(char::is_uppercase) && name.len() >= 6
}

/// What could be names of tools, with their places: one pass over the text, however many tools there are.
fn names_in(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|char: char| !(char.is_alphanumeric() || matches!(char, '_' | '-' | '.')))
        .map(|name| name.trim_matches('.'))
        .filter(|name| name.len() >= 5)
        .map(|name| (name.as_ptr() as usize - text.as_ptr() as usize, name))
}

fn words_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|char: char| !char.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

const EXCERPT_BYTES_BEFORE: usize = 40;
const LONG_TEXT_BYTES: usize = 4096;

/// Compiled once. An expression that does not compile finds nothing; a test compiles them all.
fn pattern(text: &str) -> Regex {
    let built = RegexBuilder::new(text).case_insensitive(true).build();
    built.unwrap_or_else(|_error| NOTHING.clone())
}

#[expect(clippy::expect_used, reason = "the expression is a constant that a test compiles")]
static NOTHING: LazyLock<Regex> = LazyLock::new(|| Regex::new("[^\\s\\S]").expect("a constant expression"));

static SPACE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:[ \t\u{a0}\u{2000}-\u{200a}\u{3000}]{40}|\n(?:[ \t\r]*\n){10})"));
static ENCODED: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9+/_-]{96,}={0,2}"));
static URL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b(?:https?://|javascript:|vbscript:|data:text/html|file://)"));
static HARVEST_NAMES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:side_?notes?|system_?prompt|(?:full_?)?(?:conversation|chat|message)_?(?:history|log|context)|chain_?of_?thought|(?:internal_?)?reasoning(?:_?trace)?|model_?(?:name|id)|tools?_?list|available_?tools|environment_?details|previous_?(?:messages|instructions)|user_?prompt|raw_?prompt)$",
    )
});

static WORDS: LazyLock<[(Code, Severity, Regex); 5]> = LazyLock::new(|| {
    [
        (
            Code::Instruction,
            Severity::High,
            pattern(
                r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(?:previous|prior|above|earlier|preceding|existing|other|all|any|your|system)\b[^.\n]{0,40}\b(?:instruction|prompt|rule|message|direction|guideline|tool|polic|context)|\bnew (?:system )?instructions?\s*:|\byou (?:must|should|have to|are required to)\b[^.\n]{0,30}\b(?:always|first|before (?:using|calling|any)|instead)\b|\b(?:before|prior to) (?:using|calling|invoking|running|executing) (?:this|any|other|the|another)\b[^.\n]{0,30}\b(?:tools?|functions?)\b|\b(?:always|first) (?:call|use|invoke|run|read) (?:this|the)\b[^.\n]{0,30}\b(?:tool|function|file)?\b[^.\n]{0,20}\b(?:before|first|instead)\b|\bact as (?:an? )?(?:admin|root|developer|system)|\byou are (?:now|no longer)\b|\bthis (?:tool|function) (?:overrides|replaces|supersedes)\b|\bsystem (?:prompt|message|override)\s*:|\b(?:jailbreak|developer mode)\b|\b(?:instead of|rather than) (?:using|calling) (?:the )?\w+[_-]\w+",
            ),
        ),
        (
            Code::Secrecy,
            Severity::High,
            pattern(
                r"\b(?:do not|don't|do n't|never|must not|without|avoid)\b[^.\n]{0,30}\b(?:tell(?:ing)?|mention(?:ing)?|inform(?:ing)?|reveal(?:ing)?|show(?:ing)?|notify(?:ing)?|disclos(?:e|ing)|report(?:ing)?|alert(?:ing)?|ask(?:ing)?)\b[^.\n]{0,30}\b(?:user|human|person|anyone|anybody|customer|operator|them)\b|\b(?:silently|secretly|covertly|in the background without)\b|\b(?:hide|conceal|keep)\b[^.\n]{0,30}\bfrom (?:the )?(?:user|human)\b|\b(?:keep|this is) (?:it |this )?(?:a )?secret\b|\bthe user (?:does not|doesn't|must not|should not|need not|shouldn't) (?:need to )?(?:know|see|be told|be aware)",
            ),
        ),
        (
            Code::SensitivePlace,
            Severity::High,
            pattern(
                r"~/\.(?:ssh|aws|gnupg|kube|config|cursor|netrc|npmrc|docker|bash_history)|\bid_(?:rsa|ed25519|ecdsa)\b|/etc/(?:passwd|shadow|sudoers)|\.env\b(?:[^i]|$)|\bmcp\.json\b|claude_desktop_config|\b(?:AWS_SECRET|OPENAI_API|ANTHROPIC_API|GITHUB_TOKEN)\w*|\bprivate[ _-]keys?\b|\b(?:seed|recovery) phrase\b|169\.254\.169\.254",
            ),
        ),
        (
            Code::Harvest,
            Severity::Medium,
            pattern(
                r"\b(?:pass|include|provide|send|put|insert|copy|add|append|attach|forward|fill)\b[^.\n]{0,60}\b(?:(?:full|entire|whole|complete) (?:conversation|chat|context|history)|(?:conversation|chat) (?:history|log|transcript)|system prompt|chain of thought|(?:contents?|content) of (?:the |your )?(?:file|files|[~/]))|\b(?:bcc|blind copy)\b",
            ),
        ),
        (
            Code::Markup,
            Severity::High,
            pattern(
                r"</?\s*(?:important|system|secret|instructions?|assistant|user|admin|hidden|script|iframe|img|svg|object|embed|style|tool_call|function_calls?|thinking)\b[^>\n]{0,200}>|<!--|\[/?INST\]|<\|[a-z_]{2,30}\|>|<<SYS>>|\b(?:Human|Assistant|System):\s|!\[[^\]\n]{0,80}\]\(",
            ),
        ),
    ]
});

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests;
