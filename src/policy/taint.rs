//! Has this conversation read what anybody may have written? Experimental.
//!
//! An agent that reads untrusted content, has private data, and can send something out, can be talked into sending the one
//! because of the other. So tools that bring untrusted content in are labelled, and tools that carry something out, and
//! whoever has used one of the first may not use one of the second for a while.

use std::sync::Arc;
use std::time::Duration;

use crate::mcp::{Message, Method, Target};

use super::budget::NamePattern;
use super::{Circumstances, When};

/// Which tools bring in and which carry out, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TaintRules {
    /// How long a mark stays.
    pub ttl: Duration,
    /// Whom it marks.
    pub context: Context,
    /// Tools whose answers anybody may have written.
    pub sources: Vec<Labelled>,
    /// Tools that carry something out.
    pub sinks: Vec<Labelled>,
    /// Somebody has agreed: the call passes all the same when this holds.
    pub unless: Option<Arc<When>>,
}

/// Whom a mark is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Context {
    /// The principal with the agent that acts, at every server.
    #[default]
    Caller,
    /// The session; where there is none (2026-07-28), as [`Context::Caller`].
    Session,
}

/// A tool, or tools, at a server or at any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// None: at any.
    pub server: Option<Arc<str>>,
    /// By name.
    pub tool: NamePattern,
}

/// The rules as they are for one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Taint {
    /// How long a mark stays.
    pub ttl: Duration,
    /// Whom it marks.
    pub context: Context,
    sources: Vec<NamePattern>,
    sinks: Vec<NamePattern>,
    unless: Option<Arc<When>>,
}

impl TaintRules {
    /// What they say of a server; none when they say nothing.
    #[must_use]
    pub fn at(&self, server: &str) -> Option<Taint> {
        let here = |labelled: &[Labelled]| {
            let here = labelled.iter().filter(|labelled| labelled.server.as_deref().is_none_or(|at| at == server));
            here.map(|labelled| labelled.tool.clone()).collect::<Vec<_>>()
        };
        let (sources, sinks) = (here(&self.sources), here(&self.sinks));
        let says_something = !sources.is_empty() || !sinks.is_empty();
        let Self { ttl, context, unless, .. } = self;
        says_something.then(|| Taint { ttl: *ttl, context: *context, sources, sinks, unless: unless.clone() })
    }
}

impl Taint {
    /// Whether one of the messages brings untrusted content in.
    #[must_use]
    pub fn has_source(&self, messages: &[Message]) -> bool {
        messages.iter().any(|message| names(&self.sources, message))
    }

    /// Whether one of the messages carries something out.
    #[must_use]
    pub fn has_sink(&self, messages: &[Message]) -> bool {
        messages.iter().any(|message| names(&self.sinks, message))
    }

    /// Whether somebody has agreed to it. Without an answer nobody has.
    #[must_use]
    pub fn is_waived(&self, about: &Circumstances<'_>) -> bool {
        self.unless.as_ref().is_some_and(|unless| unless.holds(about).unwrap_or(false))
    }
}

fn names(tools: &[NamePattern], message: &Message) -> bool {
    let Target::Tool(name) = &message.target else { return false };
    message.method() == Some(Method::ToolsCall) && tools.iter().any(|tool| tool.matches(name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::tests::{call, caller, facts};

    fn rules() -> TaintRules {
        let labelled = |server: Option<&str>, tool: NamePattern| Labelled { server: server.map(Into::into), tool };
        TaintRules {
            ttl: Duration::from_secs(60),
            context: Context::Caller,
            sources: vec![labelled(Some("web"), NamePattern::Prefix("fetch".into()))],
            sinks: vec![labelled(None, NamePattern::Exact("send".into()))],
            unless: Some(Arc::new(When::compile(r#""egress:approved" in scopes"#).unwrap())),
        }
    }

    #[test]
    fn labels_are_for_their_server() {
        let fetch = [call("fetch_page", json!({}))];
        let send = [call("send", json!({}))];
        let (web, mail) = (rules().at("web").unwrap(), rules().at("mail").unwrap());
        assert!(web.has_source(&fetch) && !mail.has_source(&fetch));
        assert!(web.has_sink(&send) && mail.has_sink(&send) && !web.has_sink(&fetch));
        let only_there = TaintRules { sinks: Vec::new(), ..rules() };
        assert_eq!(only_there.at("mail"), None);
    }

    #[test]
    fn only_who_holds_the_approval_is_let_through() {
        let taint = rules().at("mail").unwrap();
        let message = call("send", json!({}));
        let facts = facts();
        for (scopes, waived) in [(&["egress:approved"][..], true), (&["other"], false)] {
            let caller = caller(scopes, json!({}));
            let about = Circumstances { caller: &caller, server: "mail", message: Some(&message), facts: &facts };
            assert_eq!(taint.is_waived(&about), waived, "{scopes:?}");
        }
    }

    #[test]
    fn a_condition_that_errs_is_no_approval() {
        let unless = Some(Arc::new(When::compile("args.missing == 1").unwrap()));
        let taint = TaintRules { unless, ..rules() }.at("mail").unwrap();
        let (message, facts, caller) = (call("send", json!({})), facts(), caller(&[], json!({})));
        let about = Circumstances { caller: &caller, server: "mail", message: Some(&message), facts: &facts };
        assert!(!taint.is_waived(&about));
    }
}
