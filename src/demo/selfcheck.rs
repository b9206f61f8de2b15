//! Does it hold? The calls a visitor would make, made over HTTP against the running gateway, each with what must come back.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::demo::call::Answer;
use crate::demo::call::Call;
use crate::demo::call::CallError;
use crate::demo::call::Sender;
use crate::demo::issuer::WRITE;
use crate::demo::scenario::Scenario;
use crate::demo::scenario::Step;
use crate::demo::screen::Screen;
use crate::demo::setup::UNSAID;
use crate::demo::token::fingerprint;
use crate::demo::token::unverified_claims;
use crate::demo::tools::Instance;

/// How many steps there were, and how many of them held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that went as they must.
    pub held: usize,
    /// All steps.
    pub steps: usize,
}

impl Outcome {
    /// Whether there were steps and all of them held.
    #[must_use]
    pub fn all_held(self) -> bool {
        self.steps > 0 && self.held == self.steps
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "self-check: {} of {} steps held", self.held, self.steps)
    }
}

/// What the steps need to know of the running demo.
pub(super) struct SelfCheck {
    pub(super) http: reqwest::Client,
    pub(super) mcp_url: String,
    pub(super) metrics_url: String,
    pub(super) issuer_url: String,
    pub(super) audit: PathBuf,
    pub(super) config: PathBuf,
    pub(super) instances: Vec<Instance>,
    pub(super) tokens: Tokens,
}

/// One token of each sample user.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    pub(super) alice: String,
    pub(super) bob: String,
    pub(super) carol: String,
}

impl Tokens {
    pub(super) fn alice(&self) -> Sender<'_> {
        Sender::User { variable: "ALICE", token: &self.alice }
    }

    pub(super) fn bob(&self) -> Sender<'_> {
        Sender::User { variable: "BOB", token: &self.bob }
    }

    pub(super) fn carol(&self) -> Sender<'_> {
        Sender::User { variable: "CAROL", token: &self.carol }
    }
}

/// What a step has seen, for the reader; or why it did not hold.
pub(super) type Seen = Result<Vec<String>, Unheld>;

#[derive(Debug, thiserror::Error)]
pub(super) enum Unheld {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("no answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("{0}")]
    Other(String),
}

impl SelfCheck {
    /// Makes every step, those of the scenario if there is one, tells `screen` of each, and of the outcome in one last line.
    pub(super) async fn run(&self, scenario: Option<Scenario>, screen: &mut Screen) -> Outcome {
        let steps = scenario.map_or_else(|| self.steps(), |scenario| scenario.steps(self));
        let mut outcome = Outcome { held: 0, steps: steps.len() };
        for (number, (title, step)) in (1..).zip(steps) {
            match step.await {
                Ok(seen) => {
                    outcome.held += 1;
                    screen.say(format_args!("{number:>3}. held    {title}"));
                    seen.iter().for_each(|line| screen.say(format_args!("             {line}")));
                }
                Err(why) => {
                    screen.say(format_args!("{number:>3}. NOT     {title}"));
                    screen.say(format_args!("             {why}"));
                }
            }
        }
        screen.say(outcome);
        outcome
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            ("Without a token: 401, and where to get one", Box::pin(self.without_token())),
            ("A list shows only what the caller may call", Box::pin(self.lists())),
            ("An allowed call (2026-07-28, no session)", Box::pin(self.allowed())),
            ("A call refused for a missing scope, with the challenge", Box::pin(self.refused_for_scope())),
            ("The same call by somebody who holds the scope", Box::pin(self.allowed_to_bob())),
            ("A call refused for its argument", Box::pin(self.refused_for_argument())),
            ("Sessions (2025-11-25) are spread, and stick to their instance", Box::pin(self.sessions_stick())),
            ("A session is of no use to anybody else", Box::pin(self.session_is_private())),
            ("A slow call reports progress on the way", Box::pin(self.progress())),
            ("The tool server receives an exchanged token, not the caller's", Box::pin(self.exchanged())),
            ("Metrics and audit tell of all this", Box::pin(self.recorded())),
        ]
    }

    async fn without_token(&self) -> Seen {
        let answer = self.send(&calls::list(), Sender::Nobody).await?;
        expect("status", answer.status, 401)?;
        let challenge = answer.header("www-authenticate");
        let metadata_url = parameter(challenge, "resource_metadata")
            .ok_or_else(|| Unheld::Other(format!("no resource_metadata in the challenge: {challenge}")))?;
        let metadata: Value = self.http.get(metadata_url).send().await?.json().await?;
        expect("resource", metadata.get("resource"), Some(&json!(self.mcp_url)))?;
        expect("authorization_servers", metadata.get("authorization_servers"), Some(&json!([self.issuer_url])))?;
        Ok(vec![
            format!("401  WWW-Authenticate: {challenge}"),
            format!("{metadata_url} names the issuer {}", self.issuer_url),
        ])
    }

    async fn lists(&self) -> Seen {
        let session = self.open_session(self.tokens.alice()).await?;
        let legacy = Call::in_session(&session.id, "tools/list", json!({}));
        let legacy = self.send(&legacy, self.tokens.alice()).await?;
        expect("alice's tools in a session", legacy.tool_names(), READERS_TOOLS.to_vec())?;
        let mut seen = Vec::new();
        for (name, sender, tools) in [
            ("alice", self.tokens.alice(), READERS_TOOLS.to_vec()),
            ("bob", self.tokens.bob(), ALL_TOOLS.to_vec()),
            ("carol", self.tokens.carol(), Vec::new()),
        ] {
            let answer = self.send(&calls::list(), sender).await?;
            expect("status", answer.status, 200)?;
            expect(&format!("{name}'s tools"), answer.tool_names(), tools)?;
            let names = answer.tool_names();
            seen.push(format!("{name} sees {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        }
        Ok(seen)
    }

    async fn allowed(&self) -> Seen {
        let answer = self.send(&calls::echo(), self.tokens.alice()).await?;
        expect("status", answer.status, 200)?;
        let text = answer.result().pointer("/content/0/text").and_then(Value::as_str);
        expect("text", text, Some(calls::HELLO))?;
        Ok(vec![format!("200  echo says \"{}\"", calls::HELLO)])
    }

    async fn refused_for_scope(&self) -> Seen {
        let before = self.requests_seen();
        let answer = self.send(&calls::add_note(), self.tokens.alice()).await?;
        expect("status", answer.status, 403)?;
        expect("reason", answer.reason(), "insufficient_scope")?;
        let challenge = answer.header("www-authenticate");
        expect("error in the challenge", parameter(challenge, "error"), Some("insufficient_scope"))?;
        expect("scope in the challenge", parameter(challenge, "scope"), Some(WRITE))?;
        parameter(challenge, "resource_metadata")
            .ok_or_else(|| Unheld::Other(format!("no resource_metadata in the challenge: {challenge}")))?;
        expect("requests that reached an instance", self.requests_seen() - before, 0)?;
        Ok(vec![format!("403  WWW-Authenticate: {challenge}"), "no instance has seen anything of it".to_owned()])
    }

    async fn allowed_to_bob(&self) -> Seen {
        let answer = self.send(&calls::add_note(), self.tokens.bob()).await?;
        expect("status", answer.status, 200)?;
        let uri = answer.structured().get("uri").and_then(Value::as_str);
        let uri = uri.ok_or_else(|| Unheld::Other(format!("no note: {}", answer.result())))?;
        Ok(vec![format!("200  bob's note is {uri}")])
    }

    async fn refused_for_argument(&self) -> Seen {
        let before = self.requests_seen();
        let answer = self.send(&calls::echo_the_unsaid(), self.tokens.alice()).await?;
        expect("status", answer.status, 403)?;
        expect("reason", answer.reason(), "denied")?;
        expect("requests that reached an instance", self.requests_seen() - before, 0)?;
        Ok(vec![format!("403  echo may say anything but \"{UNSAID}\", and no scope would help")])
    }

    async fn sessions_stick(&self) -> Seen {
        let ids: BTreeSet<&str> = self.instances.iter().map(Instance::id).collect();
        let mut sessions: Vec<(Session, String)> = Vec::new();
        for _ in 0..SESSIONS_MAX {
            let session = self.open_session(self.tokens.alice()).await?;
            let (instance, count) = self.count(&session).await?;
            expect("the first count of a session", count, 1)?;
            if !sessions.iter().any(|(_, other)| *other == instance) {
                sessions.push((session, instance));
            }
            if sessions.len() == ids.len() {
                break;
            }
        }
        let used: BTreeSet<&str> = sessions.iter().map(|(_, instance)| instance.as_str()).collect();
        expect("instances in use", used, ids)?;
        // Turn by turn, so that an instance chosen anew per request would show.
        for wanted in 2..=3 {
            for (session, instance) in &sessions {
                let counted = self.count(session).await?;
                expect("instance and count", counted, (instance.clone(), wanted))?;
            }
        }
        let mut seen = Vec::new();
        for (session, instance) in &sessions {
            let id: String = session.id.chars().take(12).collect();
            seen.push(format!("{id}…  instance {instance} counts 1, 2, 3"));
        }
        Ok(seen)
    }

    async fn session_is_private(&self) -> Seen {
        let session = self.open_session(self.tokens.alice()).await?;
        let before = self.requests_seen();
        let stolen = Call::tool_in_session(&session.id, "counter", json!({}));
        let answer = self.send(&stolen, self.tokens.bob()).await?;
        expect("status", answer.status, 404)?;
        expect("reason", answer.reason(), "unknown_session")?;
        expect("requests that reached an instance", self.requests_seen() - before, 0)?;
        let (_, count) = self.count(&session).await?;
        expect("alice's count", count, 1)?;
        Ok(vec!["404  bob with alice's session id gets what an unknown id gets".to_owned()])
    }

    async fn progress(&self) -> Seen {
        let answer = self.send(&calls::slow(), self.tokens.alice()).await?;
        expect("status", answer.status, 200)?;
        let steps: Vec<f64> = answer
            .messages
            .iter()
            .filter(|message| message.get("method").is_some_and(|method| method == "notifications/progress"))
            .filter_map(|message| message.pointer("/params/progress")?.as_f64())
            .collect();
        expect("progress", steps, vec![1.0, 2.0, 3.0, 4.0])?;
        expect("steps in the result", answer.structured().get("steps"), Some(&json!(4)))?;
        Ok(vec!["200  four progress notifications, then the result".to_owned()])
    }

    async fn exchanged(&self) -> Seen {
        let answer = self.send(&calls::whoami(), self.tokens.alice()).await?;
        expect("status", answer.status, 200)?;
        let received = answer.structured();
        let claim = |name: &str| received.pointer(&format!("/token/claims/{name}")).unwrap_or(&Value::Null);
        for (name, wanted) in [
            ("sub", json!("alice")),
            ("aud", json!("demo-tools")),
            ("act", json!({ "sub": "portcullis" })),
            ("scope", json!("tools:read")),
        ] {
            expect(name, claim(name), &wanted)?;
        }
        expect("X-User-Id", received.get("x_user_id"), Some(&json!("alice")))?;
        let sent = fingerprint(&self.tokens.alice);
        let arrived = received.pointer("/token/sha256").and_then(Value::as_str).unwrap_or_default();
        if arrived.is_empty() || arrived == sent {
            return Err(Unheld::Other("the caller's own token arrived".to_owned()));
        }
        let own = unverified_claims(&self.tokens.alice).unwrap_or_default();
        let shown = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
        Ok(vec![
            format!(
                "sent      sub {}  aud {}  act {}  SHA-256 {}…",
                shown(own.get("sub")),
                shown(own.get("aud")),
                shown(own.get("act").and_then(|act| act.get("sub")).map(|sub| json!({ "sub": sub })).as_ref()),
                start(&sent)
            ),
            format!(
                "received  sub {}  aud {}  act {}  SHA-256 {}…",
                claim("sub"),
                claim("aud"),
                claim("act"),
                start(arrived)
            ),
        ])
    }

    async fn recorded(&self) -> Seen {
        let mut seen = Vec::new();
        for name in ["portcullis_requests_total", "portcullis_tool_calls_total", "portcullis_token_exchanges_total"] {
            let total = self.metric(name).await?;
            if total <= 0.0 {
                return Err(Unheld::Other(format!("{name} is {total}")));
            }
            seen.push(format!("{name} = {total}"));
        }
        let record = self.audit_record_of_the_refusal().await?;
        let shown = |path: &str| record.pointer(path).unwrap_or(&Value::Null);
        seen.push(format!(
            "audit: {} {} {} → decision {}, status {}",
            shown("/principal/subject"),
            shown("/mcp/method"),
            shown("/mcp/name"),
            shown("/decision"),
            shown("/status"),
        ));
        Ok(seen)
    }

    /// The sum over the labels of a counter.
    pub(super) async fn metric(&self, name: &str) -> Result<f64, Unheld> {
        let text = self.http.get(&self.metrics_url).send().await?.text().await?;
        Ok(sum(&text, name))
    }

    /// The record of alice's refused `notes_add`.
    async fn audit_record_of_the_refusal(&self) -> Result<Value, Unheld> {
        self.audit_record("the refused call", |record| {
            let is = |path: &str, value: Value| record.pointer(path) == Some(&value);
            is("/mcp/name", json!("notes_add")) && is("/principal/subject", json!("alice")) && is("/status", json!(403))
        })
        .await
    }

    /// The first record that is `wanted`. The audit writer works behind the answers, so it may take a moment.
    pub(super) async fn audit_record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Unheld> {
        for _ in 0..AUDIT_LOOKS {
            let text = std::fs::read_to_string(&self.audit).unwrap_or_default();
            if [&self.tokens.alice, &self.tokens.bob, &self.tokens.carol].iter().any(|token| text.contains(*token)) {
                return Err(Unheld::Other("a token stands in the audit file".to_owned()));
            }
            let mut records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(record) = records.find(&wanted) {
                return Ok(record);
            }
            tokio::time::sleep(AUDIT_LOOK_EVERY).await;
        }
        Err(Unheld::Other(format!("no record of {what} in {}", self.audit.display())))
    }

    async fn open_session(&self, sender: Sender<'_>) -> Result<Session, Unheld> {
        let answer = self.send(&Call::initialize(), sender).await?;
        expect("status of initialize", answer.status, 200)?;
        let id = answer.header("mcp-session-id").to_owned();
        if id.is_empty() {
            return Err(Unheld::Other("initialize gave no Mcp-Session-Id".to_owned()));
        }
        let answer = self.send(&Call::initialized(&id), sender).await?;
        expect("status of notifications/initialized", answer.status, 202)?;
        Ok(Session { id })
    }

    /// Instance and count that `counter` tells in one of alice's sessions.
    async fn count(&self, session: &Session) -> Result<(String, u64), Unheld> {
        let answer = self.send(&Call::tool_in_session(&session.id, "counter", json!({})), self.tokens.alice()).await?;
        expect("status", answer.status, 200)?;
        let counted = answer.structured();
        let instance = counted.get("instance").and_then(Value::as_str);
        let count = counted.get("count").and_then(Value::as_u64);
        match (instance, count) {
            (Some(instance), Some(count)) => Ok((instance.to_owned(), count)),
            _ => Err(Unheld::Other(format!("counter answered {}", answer.result()))),
        }
    }

    pub(super) async fn send(&self, call: &Call, sender: Sender<'_>) -> Result<Answer, CallError> {
        call.send(&self.http, &self.mcp_url, sender).await
    }

    pub(super) fn requests_seen(&self) -> u64 {
        self.instances.iter().map(Instance::requests).sum()
    }
}

struct Session {
    id: String,
}

/// The calls that stand alone, as the self-check makes them and as the screen shows them.
pub(super) mod calls {
    use super::Call;
    use super::UNSAID;
    use super::json;

    pub(in crate::demo) const HELLO: &str = "Hello, Portcullis!";

    pub(in crate::demo) fn list() -> Call {
        Call::modern("tools/list", json!({}))
    }

    pub(in crate::demo) fn echo() -> Call {
        Call::modern_tool("echo", json!({ "text": HELLO }))
    }

    pub(in crate::demo) fn echo_the_unsaid() -> Call {
        Call::modern_tool("echo", json!({ "text": format!("a {UNSAID}") }))
    }

    pub(in crate::demo) fn add_note() -> Call {
        Call::modern_tool("notes_add", json!({ "text": "Buy oats." }))
    }

    pub(in crate::demo) fn whoami() -> Call {
        Call::modern_tool("whoami", json!({}))
    }

    pub(in crate::demo) fn search_mail() -> Call {
        Call::modern_tool("mail_search", json!({ "text": "Lunch" }))
    }

    pub(in crate::demo) fn slow() -> Call {
        let arguments = json!({ "seconds": 1, "steps": 4 });
        Call::modern("tools/call", json!({ "name": "slow", "arguments": arguments, "_meta": { "progressToken": 1 } }))
    }
}

const READERS_TOOLS: [&str; 6] = ["add", "counter", "echo", "notes_list", "slow", "whoami"];
const ALL_TOOLS: [&str; 7] = ["add", "counter", "echo", "notes_add", "notes_list", "slow", "whoami"];
/// As many sessions are opened at most until each instance has one.
const SESSIONS_MAX: usize = 16;
const AUDIT_LOOKS: usize = 50;
const AUDIT_LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, wanted: T) -> Result<(), Unheld> {
    if seen == wanted { Ok(()) } else { Err(Unheld::Other(format!("{what}: {seen:?} instead of {wanted:?}"))) }
}

/// A quoted parameter of a challenge (RFC 9110 §11.6.1), for values without escapes.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let (_, parameters) = challenge.split_once(' ')?;
    parameters.split(", ").find_map(|one| one.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

fn start(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}

/// The sum of a counter's samples in the Prometheus text format.
fn sum(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_challenge() {
        let challenge = "Bearer error=\"insufficient_scope\", scope=\"a b\", resource_metadata=\"http://127.0.0.1/x\"";
        let table = [
            ("error", Some("insufficient_scope")),
            ("scope", Some("a b")),
            ("resource_metadata", Some("http://127.0.0.1/x")),
            ("realm", None),
        ];
        for (name, value) in table {
            assert_eq!(parameter(challenge, name), value, "{name}");
        }
        assert_eq!(parameter("Bearer", "error"), None);
    }

    #[test]
    fn sums_one_counter_over_its_labels() {
        let text = "# TYPE hits_total counter\nhits_total{a=\"x y\"} 2\nhits_total{a=\"z\"} 3\nhits_total_other 7\n";
        assert!((sum(text, "hits_total") - 5.0).abs() < f64::EPSILON);
        assert!(sum(text, "misses_total").abs() < f64::EPSILON);
    }

    #[test]
    fn holds_only_when_every_step_held() {
        for (held, steps, all) in [(2, 2, true), (1, 2, false), (0, 0, false)] {
            assert_eq!(Outcome { held, steps }.all_held(), all, "{held} of {steps}");
        }
        assert_eq!(Outcome { held: 9, steps: 10 }.to_string(), "self-check: 9 of 10 steps held");
    }
}
