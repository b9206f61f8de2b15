//! What can an operator say in a rule?

use serde_json::Value;

use crate::identity::AgentIdentity;

/// What a rule, or the default, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Lets the call through.
    Allow,
    /// Refuses it.
    Deny,
}

/// One entry of `authorization.rules`, as written. [`super::Policy::compile`] turns a list of them into a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// Shown in the audit record; `rule-3` (counted from 1) when the operator gave none.
    pub name: Box<str>,
    /// `action`; allow when not said.
    pub effect: Effect,
    /// `source.jwt.scopes`: all must be held.
    pub scopes: Vec<Box<str>>,
    /// `source.jwt.claims`: all must hold.
    pub claims: Vec<ClaimSpec>,
    /// `source.agent`; `None`: whoever calls, with an agent or without.
    pub agent: Option<AgentSpec>,
    /// `target`; empty: every tool, prompt and resource.
    pub target: TargetSpec,
    /// `when` (or `cel`) at the rule's top level; blank is none.
    pub when: Option<Box<str>>,
}

/// `source.agent`: an agent acts, and everything here holds of it. An empty list holds of every agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSpec {
    /// Any of these types.
    pub types: Vec<Box<str>>,
    /// Any of these providers.
    pub providers: Vec<Box<str>>,
    /// Any of these models.
    pub models: Vec<Box<str>>,
    /// Any of these trust levels.
    pub trust_levels: Vec<Box<str>>,
    /// All of these capabilities.
    pub capabilities: Vec<Box<str>>,
    /// Any of these instances.
    pub instances: Vec<Box<str>>,
}

impl AgentSpec {
    /// Whether an agent is such a one. All compared exactly.
    #[must_use]
    pub fn holds(&self, agent: &AgentIdentity) -> bool {
        let any = |accepted: &[Box<str>], value: Option<&Box<str>>| {
            accepted.is_empty() || value.is_some_and(|value| accepted.contains(value))
        };
        any(&self.types, agent.kind.as_ref())
            && any(&self.providers, agent.provider.as_ref())
            && any(&self.models, agent.model.as_ref())
            && any(&self.trust_levels, agent.trust_level.as_ref())
            && any(&self.instances, agent.instance.as_ref())
            && self.capabilities.iter().all(|capability| agent.capabilities.contains(capability))
    }
}

/// A condition on one claim.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimSpec {
    /// An exact top-level name if the token has one, else a dotted path.
    pub name: Box<str>,
    /// The type it must have.
    pub kind: ClaimKind,
    /// Any of these; strings, numbers or booleans as `kind` asks.
    pub values: Vec<Value>,
}

/// `claims[].type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// `true` or `false`.
    Boolean,
    /// An integer or a fraction, compared as numbers.
    Number,
    /// A string, exactly.
    String,
    /// An array with one of the values in it; a plain string counts as an array of one.
    StringArray,
}

/// `target:` what a rule is about. Entries of all four lists are alternatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetSpec {
    /// `tools: [{ server, tool, when, glob }]`.
    pub tools: Vec<TargetEntry>,
    /// `prompts: [{ server, prompt, when, glob }]`.
    pub prompts: Vec<TargetEntry>,
    /// `resources: [{ server, uri, when, glob }]`.
    pub resources: Vec<TargetEntry>,
    /// `methods: [NAME]`, a trailing `*` is a prefix.
    pub methods: Vec<Box<str>>,
}

impl TargetSpec {
    /// Whether nothing was named, which means every tool, prompt and resource.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.prompts.is_empty() && self.resources.is_empty() && self.methods.is_empty()
    }
}

/// One tool, prompt or resource, or a prefix of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetEntry {
    /// The server; `None`: any server of the route.
    pub server: Option<Box<str>>,
    /// Exact name or URI, or a prefix with a trailing `*` when `glob`.
    pub name: Box<str>,
    /// Whether a trailing `*` means a prefix; true unless the operator turned it off.
    pub glob: bool,
    /// A condition of this entry alone; blank is none.
    pub when: Option<Box<str>>,
}
