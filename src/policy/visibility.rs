//! Does a list show this? Only what every possible call would be refused is hidden.

use super::cel::Inputs;
use super::compile::Policy;
use super::decision::{Facts, Truth, buckets, has_dot_segment};
use super::index::{Candidate, Candidates, Entry, Kind, Pattern};
use super::rule::Effect;
use crate::identity::Caller;
use crate::mcp::Method;

/// One entry of a list answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Of `prompts/list`, by name.
    Prompt(&'a str),
    /// Of `resources/list`, by URI.
    Resource(&'a str),
    /// Of `resources/templates/list`, by URI template (RFC 6570).
    ResourceTemplate(&'a str),
    /// Of `tools/list`, by the server's own name for it.
    Tool(&'a str),
}

/// Whether the caller sees an item of `server` in a list.
///
/// Arguments are not known, so every rule is asked for one of three answers, and an item is hidden only when every
/// call of it would be refused: by a deny rule that matches whatever the arguments are, or because no allow rule could
/// match. A scope the caller does not hold is known to be missing. The HTTP request is taken to be that of the list,
/// without its `Mcp-*` headers, which repeat the message. What was delegated to the agent must reach it, too; of a resource
/// template, something that it may expand to.
///
/// An item that could be called is always shown; one that is shown may still be refused.
#[must_use]
pub fn is_visible(policy: &Policy, caller: &Caller, server: &str, item: Item<'_>, facts: &Facts<'_>) -> bool {
    let inputs = Inputs { caller, server, tool: "", method: None, message: None, facts };
    let may_call = |method: Method, kind: Kind, name: &str| {
        let tool = if kind == Kind::Tool { name } else { "" };
        let inputs = Inputs { method: Some(method), tool, ..inputs };
        facts.delegation_reaches(server, Some(name))
            && buckets(policy, server, method, kind, name)
                .is_some_and(|buckets| may_permit(policy, Candidates::new(buckets), &inputs))
    };
    let may_use = |uri: &str| {
        [Method::ResourcesRead, Method::ResourcesSubscribe, Method::CompletionComplete]
            .into_iter()
            .any(|method| !has_dot_segment(uri) && may_call(method, Kind::Resource, uri))
    };
    match item {
        Item::Prompt(name) => {
            may_call(Method::PromptsGet, Kind::Prompt, name) || may_call(Method::CompletionComplete, Kind::Prompt, name)
        }
        Item::Resource(uri) => may_use(uri),
        Item::ResourceTemplate(template) => {
            may_use(template)
                || facts.agent.is_none_or(|agent| agent.reaches_some(server, start_of(template)))
                    && [Method::ResourcesRead, Method::ResourcesSubscribe]
                        .into_iter()
                        .any(|method| may_expand(policy, template, &Inputs { method: Some(method), ..inputs }))
        }
        Item::Tool(name) => may_call(Method::ToolsCall, Kind::Tool, name),
    }
}

/// Whether some message could be permitted.
fn may_permit(policy: &Policy, candidates: Candidates<'_>, inputs: &Inputs<'_>) -> bool {
    for candidate in candidates {
        let Some(rule) = policy.rules.get(candidate.rule) else { continue };
        if !rule.is_about(inputs) || rule.scopes.missing_from(inputs.caller.scopes()) > 0 {
            continue;
        }
        match (rule.effect, rule.condition(&candidate, inputs)) {
            (Effect::Allow, Truth::True | Truth::Unknown) => return true,
            (Effect::Deny, Truth::True | Truth::Error) => return false,
            (Effect::Allow, Truth::Error | Truth::False) | (Effect::Deny, Truth::False | Truth::Unknown) => {}
        }
    }
    policy.default == Effect::Allow
}

/// What every URI that a template expands to begins with.
fn start_of(template: &str) -> &str {
    template.split('{').next().unwrap_or_default()
}

/// Whether some URI that a template expands to could be permitted. All that is known of them is how they start.
fn may_expand(policy: &Policy, template: &str, inputs: &Inputs<'_>) -> bool {
    let (Some(names), Some(method)) = (policy.names(inputs.server, Kind::Resource), inputs.method) else {
        return false;
    };
    let start = start_of(template);
    // The rules about everything match every expansion, those with a prefix of `start` too; a rule about one URI, or
    // with a longer prefix, may match some.
    let mut entries: Vec<(bool, &Entry)> = Vec::new();
    entries.extend(names.all.entries.iter().chain(&policy.naming(method).entries).map(|entry| (true, entry)));
    entries.extend(names.patterns.iter().filter_map(|(pattern, entry)| match pattern {
        Pattern::Prefix(prefix) if start.starts_with(&**prefix) => Some((true, entry)),
        Pattern::Exact(text) | Pattern::Prefix(text) if text.starts_with(start) => Some((false, entry)),
        Pattern::Exact(_) | Pattern::Prefix(_) => None,
    }));
    entries.sort_by_key(|(_, entry)| entry.rule);
    for (every, entry) in entries {
        let Some(rule) = policy.rules.get(entry.rule) else { continue };
        if !rule.is_about(inputs) || rule.scopes.missing_from(inputs.caller.scopes()) > 0 {
            continue;
        }
        let candidate = Candidate { rule: entry.rule, entries: [Some(entry), None, None] };
        match (rule.effect, rule.condition(&candidate, inputs)) {
            (Effect::Allow, Truth::True | Truth::Unknown) => return true,
            (Effect::Deny, Truth::True | Truth::Error) if every => return false,
            (Effect::Allow, Truth::Error | Truth::False) | (Effect::Deny, _) => {}
        }
    }
    policy.default == Effect::Allow
}
