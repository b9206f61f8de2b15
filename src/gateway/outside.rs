//! What does a guard outside say of an answer?
//!
//! Pingora's filters of a body cannot wait for anybody. So an answer that another service is asked about is kept whole, its
//! exchange is ended there, and `fail_to_proxy`, which can wait, writes what becomes of it. That costs the connections on
//! both sides, and nothing for routes without such a guard.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora_proxy::Session as Client;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::content::rule::{External, OnFailure};
use crate::content::{Answered, Done, Plan, Refusal, RuleSet, answered};
use crate::mcp::sse::{self, Piece, Splitter};
use crate::mcp::{RequestId, Target};

use super::Shell;
use super::pipeline::Admitted;
use super::record::Record;
use super::rejection::Rejection;

/// The guards that are asked about one exchange, and what waits for them.
pub(super) struct Outside {
    plan: Arc<Plan>,
    set: RuleSet,
    /// The head that the client gets, should it not have been sent.
    pub(super) head: Option<Box<ResponseHeader>>,
    held: Held,
}

/// What waits for a verdict.
#[derive(Default)]
struct Held {
    /// What came before the first answer.
    before: Vec<Bytes>,
    answers: Vec<HeldAnswer>,
    is_stream: bool,
    is_whole: bool,
}

struct HeldAnswer {
    /// Which requests it answers.
    answered: Answered,
    /// The message, or the batch of them.
    message: Bytes,
    /// What the client gets: the message, or its event.
    raw: Bytes,
}

impl Outside {
    /// The guards about these answers; none when there are none.
    pub(super) fn of(plan: &Arc<Plan>, set: RuleSet) -> Option<Self> {
        plan.external(set).next()?;
        Some(Self { plan: Arc::clone(plan), set, head: None, held: Held::default() })
    }

    /// Whether everything that the guards are asked about is there.
    pub(super) fn waits(&self) -> bool {
        self.held.is_whole
    }

    /// Keeps a whole answer.
    pub(super) fn hold_document(&mut self, document: Bytes) {
        let answered = answered(&document).unwrap_or_default();
        self.held.answers.push(HeldAnswer { answered, message: document.clone(), raw: document });
        self.held.is_whole = true;
    }

    /// What an event answers, when it is one that waits: with an answer in it, or behind one.
    pub(super) fn holds_back(&self, piece: &Piece) -> Option<Answered> {
        let found = piece.event().data.and_then(|data| answered(&data));
        if self.has_answer() { Some(found.unwrap_or_default()) } else { found }
    }

    /// Keeps what became of an event that waits: what was kept back before it, and last the event itself.
    pub(super) fn hold_event(&mut self, answered: Answered, mut out: Vec<Bytes>) {
        self.held.is_stream = true;
        let Some(raw) = out.pop() else { return };
        self.held.before.append(&mut out);
        if answered.ids.is_empty() {
            self.held.before.push(raw);
            return;
        }
        // With a byte order mark it is read as clients read it.
        let mut splitter = Splitter::new(usize::MAX);
        splitter.push(raw.clone());
        let piece = splitter.next_piece().ok().flatten().or_else(|| splitter.finish());
        let message = piece.and_then(|piece| piece.event().data).unwrap_or_default();
        self.held.answers.push(HeldAnswer { answered, message, raw });
    }

    /// The requests whose answers wait, should nobody be asked about them any more: as JSON text.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = &str> {
        self.held.answers.iter().flat_map(|answer| &answer.answered.ids).map(|id| &**id)
    }

    /// Nothing more comes, or is waited for; `before` passes in any case.
    pub(super) fn close(&mut self, mut before: Vec<Bytes>) {
        if !self.held.answers.is_empty() {
            before.append(&mut self.held.before);
            self.held.before = before;
            self.held.is_whole = true;
        }
    }

    /// Whether an answer waits.
    pub(super) fn has_answer(&self) -> bool {
        !self.held.answers.is_empty()
    }
}

/// Asks every guard, and writes what becomes of the answer.
///
/// # Errors
/// When the client is gone.
pub(super) async fn settle(
    shell: &Shell,
    client: &mut Client,
    admitted: &mut Admitted,
    outside: &mut Outside,
    record: &mut Record,
) -> pingora::Result<()> {
    let refusal = verdict(shell, admitted, outside, record).await;
    let held = std::mem::take(&mut outside.held);
    if let Some(refusal) = refusal {
        record.refused(&Rejection::Content(refusal));
    }
    let mut body = held.before;
    for answer in held.answers {
        body.push(match refusal {
            None => answer.raw,
            Some(refusal) => {
                let error = answer.answered.each_refused(refusal, record);
                if held.is_stream { sse::message_event(&error).into() } else { error.into() }
            }
        });
    }
    let body = sse::join(body);
    if let Some(spent) = &mut admitted.spent {
        // As a document it is whole before anybody asks.
        let _always_enough = spent.passes(Some(&body), false);
        spent.release();
    }
    client.set_keepalive(None);
    if client.response_written().is_none()
        && let Some(head) = outside.head.take()
    {
        client.write_response_header(head, false).await?;
    }
    client.write_response_body(Some(body), true).await
}

/// Why the answer does not pass; none: every guard lets it.
async fn verdict(shell: &Shell, admitted: &Admitted, outside: &Outside, record: &mut Record) -> Option<Refusal> {
    let answers = outside.held.answers.iter().map(|held| serde_json::from_slice(&held.message));
    let Ok(answers) = answers.collect::<Result<Vec<&RawValue>, _>>() else { return Some(Refusal::Unreadable) };
    let names: Vec<Asked<'_>> = admitted
        .ask
        .messages()
        .iter()
        .filter_map(|message| Some(Asked { method: message.method()?.as_str(), name: name_of(&message.target) }))
        .collect();
    let principal = admitted.caller.principal();
    let question = Question {
        request_id: &record.request_id,
        route: &admitted.route.config.path,
        server: admitted.route.server.name(),
        principal: Principal { issuer: &principal.issuer, subject: &principal.subject },
        asked: &names,
        answers: &answers,
    };
    let question: Bytes = serde_json::to_vec(&question).unwrap_or_default().into();
    for (rule, external) in outside.plan.external(outside.set) {
        let said = ask(shell, external, question.clone()).await;
        let (action, refusal) = match (said, external.on_failure) {
            (Some(Verdict::Block), _) => ("blocked", Some(Refusal::BlockedOutside)),
            (Some(Verdict::Pass), _) => continue,
            (None, OnFailure::Block) => ("no_verdict", Some(Refusal::NoVerdict)),
            (None, OnFailure::Pass) => ("passed_unchecked", None),
        };
        shell.metrics.content_filtered(&admitted.route.config.path, rule, action, 1);
        record.filtered(vec![Done { rule: Arc::clone(rule), action, count: 1 }]);
        if refusal.is_some() {
            return refusal;
        }
    }
    None
}

/// What one guard says; none when it says nothing in time, or nothing that is a verdict.
async fn ask(shell: &Shell, external: &External, question: Bytes) -> Option<Verdict> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &external.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let answer = shell.outbound.post_json(&external.url, headers, question, VERDICT_BYTES_MAX, external.deadline).await;
    let body = answer.and_then(crate::net::client::Answer::ok);
    match body {
        Ok(body) => serde_json::from_slice::<Said>(&body).ok().map(|said| said.verdict),
        Err(error) => {
            tracing::debug!(error = error.label(), "A content guard gave no verdict.");
            None
        }
    }
}

impl Answered {
    /// An error in the place of each answer.
    fn each_refused(&self, refusal: Refusal, record: &Record) -> Vec<u8> {
        let rejection = Rejection::Content(refusal);
        let errors: Vec<Bytes> =
            self.ids.iter().map(|id| rejection.body(Some(&RequestId::from_json(id)), &record.request_id)).collect();
        let all = errors.join(&b',');
        if self.is_batch { [b"[", &all[..], b"]"].concat() } else { all }
    }
}

fn name_of(target: &Target) -> Option<&str> {
    match target {
        Target::None => None,
        Target::Prompt(name) | Target::Resource(name) | Target::Task(name) | Target::Tool(name) => Some(name),
    }
}

#[derive(Serialize)]
struct Question<'a> {
    request_id: &'a str,
    route: &'a str,
    server: &'a str,
    principal: Principal<'a>,
    asked: &'a [Asked<'a>],
    answers: &'a [&'a RawValue],
}

#[derive(Serialize)]
struct Principal<'a> {
    issuer: &'a str,
    subject: &'a str,
}

#[derive(Serialize)]
struct Asked<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Deserialize)]
struct Said {
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Block,
    Pass,
}

/// A verdict is a word and perhaps why.
const VERDICT_BYTES_MAX: usize = 64 * 1024;
