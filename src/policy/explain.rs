//! What would the rules say of somebody, and which of them? For people who look at a policy, not for requests: nothing here
//! makes a permit.

use std::sync::Arc;

use super::cel::Inputs;
use super::compile::Policy;
use super::decision::{Decision, Facts, Question, Truth, buckets, decide};
use super::index::{Candidates, Kind};
use super::rule::Effect;
use crate::identity::{Imagined, Scopes};
use crate::mcp::{Message, Method};

/// What the rules say of calls of one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// In short.
    pub verdict: Verdict,
    /// The rule that decides; with [`Verdict::Depends`] the one that decides when none before it does. None: the default.
    pub rule: Option<Arc<str>>,
    /// What the rule, or the default, does.
    pub effect: Effect,
    /// With [`Verdict::Depends`] the rules whose conditions read arguments, in order, each with what it would do.
    pub depends_on: Vec<(Arc<str>, Effect)>,
    /// Scopes that would have the call permitted; known only of a call with its arguments.
    pub challenge: Option<Scopes>,
}

/// Whether a call would be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whatever its arguments are.
    Allow,
    /// Whatever its arguments are, it would be refused.
    Deny,
    /// It depends on its arguments.
    Depends,
}

/// Explains what would become of `who`'s calls of `tool` at `server`.
///
/// With a `call` it is that very message, decided by [`decide`]; without, arguments are unknown and every rule is asked for
/// one of three answers, as for a list.
#[must_use]
pub fn explain(
    policy: &Policy,
    who: &Imagined,
    server: &str,
    tool: &str,
    call: Option<&Message>,
    facts: &Facts<'_>,
) -> Explained {
    let caller = who.as_rules_see_them();
    if let Some(message) = call {
        return match decide(policy, &Question { caller, server, message, facts }) {
            Decision::Permit(permit) => {
                let rule = permit.rule().cloned();
                Explained { verdict: Verdict::Allow, rule, effect: Effect::Allow, depends_on: vec![], challenge: None }
            }
            Decision::Deny(denial) => Explained {
                verdict: Verdict::Deny,
                rule: denial.rule,
                effect: Effect::Deny,
                depends_on: vec![],
                challenge: denial.challenge,
            },
        };
    }
    let inputs = Inputs { caller, server, tool, method: Some(Method::ToolsCall), message: None, facts };
    let mut depends_on: Vec<(Arc<str>, Effect)> = Vec::new();
    let settled = |rule: Option<Arc<str>>, effect: Effect, depends_on: Vec<(Arc<str>, Effect)>| {
        // What could turn out either way, and does the same each time, decides nothing.
        let is_open = depends_on.iter().any(|(_rule, other)| *other != effect);
        let verdict = match effect {
            _ if is_open => Verdict::Depends,
            Effect::Allow => Verdict::Allow,
            Effect::Deny => Verdict::Deny,
        };
        let depends_on = if is_open { depends_on } else { Vec::new() };
        Explained { verdict, rule, effect, depends_on, challenge: None }
    };
    let Some(buckets) = buckets(policy, server, Method::ToolsCall, Kind::Tool, tool) else {
        return settled(None, Effect::Deny, depends_on);
    };
    if !facts.delegation_reaches(server, Some(tool)) {
        return settled(None, Effect::Deny, depends_on);
    }
    for candidate in Candidates::new(buckets) {
        let Some(rule) = policy.rules.get(candidate.rule) else { continue };
        if !rule.is_about(&inputs) || rule.scopes.missing_from(caller.scopes()) > 0 {
            continue;
        }
        match (rule.effect, rule.condition(&candidate, &inputs)) {
            (effect @ Effect::Allow, Truth::True) | (effect @ Effect::Deny, Truth::True | Truth::Error) => {
                return settled(Some(Arc::clone(&rule.name)), effect, depends_on);
            }
            (effect, Truth::Unknown) => depends_on.push((Arc::clone(&rule.name), effect)),
            (Effect::Allow, Truth::Error | Truth::False) | (Effect::Deny, Truth::False) => {}
        }
    }
    settled(None, policy.default, depends_on)
}
