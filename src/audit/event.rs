//! What does the record of a request say, and how is it written so that nobody can forge one?

mod kind;
mod line;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::content::Done;
use crate::identity::AgentIdentity;
use crate::identity::Caller;
use crate::identity::ClientCertificate;
use crate::mcp::RequestId;
use crate::mcp::Revision;
use crate::policy::Effect;

pub use kind::{AdminEvent, EventKind};
pub use line::{CUT_MARK, STRING_BYTES_MAX, cut};

/// One audit record, before it has a place in the log. Absent facts are left out of the line.
///
/// Nothing here is a token, a secret or a raw argument: where such a thing must be recognizable, a keyed [`Digest`]
/// stands for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Names the request; the answer to a refused one carries it too.
    pub request_id: Arc<str>,
    /// The W3C trace id the client sent, or ours.
    pub trace_id: Option<Arc<str>>,
    /// What the record is about.
    pub event: EventKind,
    /// Where the request came from, behind trusted proxies.
    pub client_ip: Option<IpAddr>,
    /// The certificate its connection was verified by.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// The route's public path.
    pub route: Option<Arc<str>>,
    /// Who called, once verified.
    pub principal: Option<Principal>,
    /// The software that acted, once verified.
    pub agent: Option<Arc<AgentIdentity>>,
    /// The server it was for.
    pub server: Option<Arc<str>>,
    /// The instance that was asked.
    pub instance: Option<Arc<str>>,
    /// Recognizes a session; never its id.
    pub session: Option<Digest>,
    /// What was asked.
    pub mcp: Option<Mcp>,
    /// Recognizes the arguments of the call.
    pub arguments: Option<Arguments>,
    /// What the policy said.
    pub decision: Option<Decision>,
    /// Why it went where it went; absent where no rule could say.
    pub routing: Option<Routing>,
    /// What was done to the registry, or found by it. Whoever did it is the [`Self::principal`]; none is the gateway itself.
    pub registry: Option<Box<Registry>>,
    /// What somebody did, or wanted to do, on the admin pages or through their API.
    pub act: Option<Box<Act>>,
    /// What the upstream saw in `Authorization`, but for the secret itself.
    pub credential: Option<Credential>,
    /// The budget that it was refused for.
    pub budget: Option<Budget>,
    /// What a taint has to do with it: a word of a fixed set.
    pub taint: Option<&'static str>,
    /// What rules about content did with the answer; never what they found.
    pub content: Vec<Content>,
    /// The HTTP status the client got; absent when it got none.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed: the fixed word of the answer's `data.reason`.
    pub reason: Option<&'static str>,
    /// A finer fixed word than the reason, where there is one.
    pub detail: Option<&'static str>,
    /// From the request's first byte to the answer's last.
    pub duration: Duration,
    /// The part of it spent waiting for the upstream; absent when none was asked.
    pub upstream: Option<Duration>,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Which configuration decided.
    pub config_generation: u64,
}

/// What was done, or was to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Act {
    /// `GET /api/v1/audit`: the method and the path's template, never what stands in the path.
    pub call: Box<str>,
    /// What it was done to: a server's name, an item, a principal.
    pub target: Option<Box<str>>,
    /// A finer word for what was done: `approve`.
    pub action: Option<Box<str>>,
    /// Why, in the words of whoever did it.
    pub note: Option<Box<str>>,
    /// The roles they had, separated by spaces.
    pub roles: Option<Box<str>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It ended before it had an answer: the client went away, or something broke here. What a record says unless
    /// somebody says otherwise.
    #[default]
    Aborted,
    /// The upstream, the token endpoint or the gateway failed it.
    Failed,
    /// It was done.
    Ok,
    /// The gateway refused it.
    Refused,
}

/// Who called.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Arc<str>,
    /// `client_id` or `azp`.
    pub client_id: Option<Arc<str>>,
    /// `jti`.
    pub token_id: Option<Arc<str>>,
}

/// What was done to the registry, or found by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// `prompt`, `resource`, `resource_template`, `tool`; absent when it is about a server as a whole.
    pub kind: Option<&'static str>,
    /// What the server calls the item.
    pub name: Option<Box<str>>,
    /// The digest of the definition, in hex.
    pub digest: Option<Box<str>>,
    /// Where that led: a word of a fixed set.
    pub state: Option<&'static str>,
    /// In which way it is not as it was: a word of a fixed set.
    pub cause: Option<&'static str>,
    /// How many findings the scan has.
    pub findings: u64,
    /// Why, in the words of whoever did it.
    pub note: Option<Box<str>>,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mcp {
    /// The revision spoken.
    pub revision: Option<Revision>,
    /// The JSON-RPC method; whatever the client sent when we know no such method.
    pub method: Option<Cow<'static, str>>,
    /// The tool, the prompt, or the resource's URI.
    pub name: Option<Arc<str>>,
    /// The JSON-RPC id.
    pub id: Option<RequestId>,
    /// Every message of a 2025-03-26 batch. Written as `batch`, and only when not empty.
    pub batch: Vec<Message>,
}

/// One message of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The JSON-RPC method; absent for a response.
    pub method: Option<Cow<'static, str>>,
    /// The tool, the prompt, or the resource's URI.
    pub name: Option<Arc<str>>,
    /// The JSON-RPC id.
    pub id: Option<RequestId>,
    /// Recognizes its arguments.
    pub arguments: Option<Arguments>,
    /// What the policy said of it.
    pub decision: Option<Decision>,
}

/// Recognizes arguments without showing them.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    /// Over the very bytes the client sent (made by [`Digest::of_arguments`]).
    pub hmac_sha256: Digest,
}

/// What the policy said.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Allow or deny.
    pub effect: Effect,
    /// The rule that decided; absent when the default did.
    pub rule: Option<Arc<str>>,
    /// A fixed word.
    pub reason: &'static str,
}

/// Why a request went where it went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// The rule that decided; absent when none matched.
    pub rule: Option<Arc<str>>,
    /// Which side of its split, in few words.
    pub split: Option<Arc<str>>,
    /// The version of the instance.
    pub version: Option<Arc<str>>,
    /// Where the caller is.
    pub region: Option<Arc<str>>,
    /// The rule's own instances take no work: it went where everything else goes.
    pub fell_back: bool,
    /// The first rule whose condition had no answer, and so did not match.
    pub failed_rule: Option<Arc<str>>,
}

/// What the upstream saw in `Authorization`, but for the secret itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// `none`, `static`, `token_exchange`.
    pub mode: &'static str,
    /// Whom it is for.
    pub audience: Arc<[Box<str>]>,
    /// What it allows, separated by spaces; left out when empty.
    pub scope: Arc<str>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// A budget that was exceeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// As the configuration calls it.
    pub name: Arc<str>,
    /// Which limit of it: a word of a fixed set.
    pub limit: &'static str,
}

/// What a rule about content did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The rule.
    pub rule: Arc<str>,
    /// A word of a fixed set: `redacted`, `dropped`, `blocked`, ….
    pub action: &'static str,
    /// How often.
    pub count: u64,
}

impl From<&Done> for Content {
    fn from(done: &Done) -> Self {
        Self { rule: Arc::clone(&done.rule), action: done.action, count: done.count }
    }
}

/// HMAC-SHA-256 of something that must be recognizable but not readable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// What the writer of the log adds to an event.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Milliseconds since 1970-01-01T00:00:00Z at which the event was recorded.
    pub time_ms: u64,
    /// Counts the records of this process from 1; a gap is a lost record.
    pub seq: u64,
    /// This gateway's instance id.
    pub gateway: &'a str,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Aborted, Self::Failed, Self::Ok, Self::Refused];

    /// The word in records and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

impl From<&Caller> for Principal {
    fn from(caller: &Caller) -> Self {
        Self {
            issuer: Arc::clone(&caller.principal().issuer),
            subject: Arc::clone(&caller.principal().subject),
            client_id: caller.client_id().cloned(),
            token_id: caller.token_id().cloned(),
        }
    }
}

impl From<&crate::credential::Credential> for Credential {
    fn from(credential: &crate::credential::Credential) -> Self {
        Self {
            mode: credential.mode().label(),
            audience: Arc::clone(credential.audience()),
            scope: Arc::clone(credential.scope()),
            cached: credential.is_cached(),
        }
    }
}

impl Digest {
    /// Of the bytes of a call's `arguments`, exactly as the client sent them. `key` must be secret and used for
    /// nothing else but these digests: whoever has it can confirm a guess.
    #[must_use]
    pub fn of_arguments(key: &ring::hmac::Key, arguments: &[u8]) -> Self {
        Self::of(key, b"arguments\0", arguments)
    }

    /// Of a session id. The prefix keeps it apart from equal bytes elsewhere.
    #[must_use]
    pub fn of_session(key: &ring::hmac::Key, session_id: &[u8]) -> Self {
        Self::of(key, b"session\0", session_id)
    }

    fn of(key: &ring::hmac::Key, purpose: &[u8], bytes: &[u8]) -> Self {
        let mut context = ring::hmac::Context::with_key(key);
        context.update(purpose);
        context.update(bytes);
        let mut digest = [0; 32];
        // Both are 32 bytes with HMAC-SHA-256, the algorithm the key must have.
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Self(digest)
    }

    /// Lower case. Not by the formatter: byte by byte, two of these would cost it as much as the rest of a record.
    fn hex(self) -> [u8; 64] {
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0x0f)]);
        }
        hex
    }
}

impl fmt::Display for Digest {
    /// Lower-case hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

#[cfg(test)]
mod tests;
