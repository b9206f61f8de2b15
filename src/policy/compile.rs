//! Is this a policy? Rules as written, checked and sorted into what [`super::decide`] reads. Everything that can be
//! wrong with a rule is found here, all of it at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use super::cel::Condition;
use super::claim::ClaimTest;
use super::index::{Bucket, Entry, Kind, Names, Pattern};
use super::rule::{AgentSpec, Effect, RuleSpec, TargetEntry};
use crate::identity::Scopes;
use crate::mcp::Method;

/// Address space, of which only what is touched becomes memory.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// Compiles expressions; `None` when that could not run, or has failed.
///
/// The CEL parser stops at 96 levels of nesting, and takes 8 to 140 KiB of stack for each, depending on how the build is
/// optimized: more than a thread may have left. The thread is only a larger stack, what comes out depends on the arguments
/// alone.
pub(super) fn roomily<T: Send>(compile: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let roomy = thread::Builder::new().name("policy-compiler".into()).stack_size(PARSER_STACK_BYTES);
        roomy.spawn_scoped(scope, compile).ok()?.join().ok()
    })
}

/// One route's authorization, compiled.
#[derive(Debug)]
pub struct Policy {
    pub(super) default: Effect,
    pub(super) rules: Box<[Rule]>,
    servers: HashMap<Arc<str>, ServerNames>,
    /// The rules that name a method, by its place in the enum.
    methods: Box<[Bucket]>,
}

/// One rule without its target, which the index holds.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) effect: Effect,
    pub(super) scopes: Scopes,
    pub(super) claims: Box<[ClaimTest]>,
    pub(super) agent: Option<AgentSpec>,
    pub(super) when: Option<Condition>,
}

/// What a rule says that it cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    /// The rule's place in the list, from 0.
    pub rule: usize,
    /// The key path inside the rule, e.g. `when`, `target.tools[0].when`, `source.jwt.claims[1].values[0]`.
    pub path: String,
    /// What is wrong; for an expression with line and column inside it.
    pub message: String,
}

#[derive(Debug)]
struct ServerNames {
    tools: Names,
    prompts: Names,
    resources: Names,
}

impl Policy {
    /// Compiles the rules of a route in front of `servers`.
    ///
    /// # Errors
    /// Every problem of every rule, in the order they are written: an expression that does not compile, a claim
    /// condition that cannot hold, a server that is not one of the route's, a method that does not exist, a name that
    /// is empty or has a `*` before its end.
    pub fn compile(default: Effect, rules: &[RuleSpec], servers: &[Arc<str>]) -> Result<Self, Vec<RuleProblem>> {
        roomily(|| Self::compile_here(default, rules, servers)).unwrap_or_else(|| {
            let message = "the compiler of rules could not run or has failed".into();
            Err(vec![RuleProblem { rule: 0, path: String::new(), message }])
        })
    }

    fn compile_here(default: Effect, rules: &[RuleSpec], servers: &[Arc<str>]) -> Result<Self, Vec<RuleProblem>> {
        let mut compiler = Compiler { servers, problems: Vec::new(), rule: 0 };
        let mut compiled = Vec::with_capacity(rules.len());
        let mut targets = Vec::with_capacity(rules.len());
        for (index, spec) in rules.iter().enumerate() {
            compiler.rule = index;
            compiled.push(compiler.rule(spec));
            targets.push(compiler.target(spec));
        }
        if !compiler.problems.is_empty() {
            return Err(compiler.problems);
        }
        let rules: Box<[Rule]> = compiled.into();
        let reads_request = |rule: usize| {
            rules.get(rule).and_then(|rule| rule.when.as_ref()).is_some_and(|condition| condition.reads_request)
        };
        let names = |kind: Kind, server: &Arc<str>| {
            let entries = targets.iter().enumerate().flat_map(|(rule, target)| target.entries(rule, kind, server));
            Names::new(entries.collect(), &reads_request)
        };
        let servers = servers
            .iter()
            .map(|server| {
                let names = ServerNames {
                    tools: names(Kind::Tool, server),
                    prompts: names(Kind::Prompt, server),
                    resources: names(Kind::Resource, server),
                };
                (Arc::clone(server), names)
            })
            .collect();
        let methods = Method::ALL
            .iter()
            .map(|method| {
                let naming = targets.iter().enumerate().filter(|(_, target)| target.methods.contains(method));
                let entries = naming.map(|(rule, _)| Entry { rule, any_of: Box::default() }).collect();
                Bucket::new(entries, &reads_request)
            })
            .collect();
        Ok(Self { default, rules, servers, methods })
    }

    /// Every name of a tool that some rule spells out for `server`, sorted.
    #[must_use]
    pub fn tools_named(&self, server: &str) -> Vec<&str> {
        let names = self.servers.get(server).map(|names| names.tools.spelled_out());
        let mut names: Vec<&str> = names.into_iter().flatten().collect();
        names.sort_unstable();
        names
    }

    /// The rules about things of `kind` at `server`; `None` when the route has no such server.
    pub(super) fn names(&self, server: &str, kind: Kind) -> Option<&Names> {
        let names = self.servers.get(server)?;
        Some(match kind {
            Kind::Prompt => &names.prompts,
            Kind::Resource => &names.resources,
            Kind::Tool => &names.tools,
        })
    }

    /// The rules whose target names `method`.
    pub(super) fn naming(&self, method: Method) -> &Bucket {
        self.methods.get(method as usize).unwrap_or_else(|| Bucket::nothing())
    }
}

/// A rule's target with its conditions compiled.
struct Target {
    /// The rule names nothing: it is about every tool, prompt and resource.
    everything: bool,
    tools: Vec<TargetName>,
    prompts: Vec<TargetName>,
    resources: Vec<TargetName>,
    methods: Vec<Method>,
}

struct TargetName {
    /// `None`: any server.
    server: Option<Box<str>>,
    pattern: Pattern,
    when: Option<Arc<Condition>>,
}

impl Target {
    fn entries(&self, rule: usize, kind: Kind, server: &str) -> Vec<(Pattern, Entry)> {
        if self.everything {
            return vec![(Pattern::Prefix("".into()), Entry { rule, any_of: Box::default() })];
        }
        let names = match kind {
            Kind::Prompt => &self.prompts,
            Kind::Resource => &self.resources,
            Kind::Tool => &self.tools,
        };
        let here = names.iter().filter(|name| name.server.as_deref().is_none_or(|named| named == server));
        here.map(|name| {
            let any_of = name.when.iter().cloned().collect();
            (name.pattern.clone(), Entry { rule, any_of })
        })
        .collect()
    }
}

struct Compiler<'a> {
    servers: &'a [Arc<str>],
    problems: Vec<RuleProblem>,
    rule: usize,
}

impl Compiler<'_> {
    fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(RuleProblem { rule: self.rule, path: path.into(), message: message.into() });
    }

    fn rule(&mut self, spec: &RuleSpec) -> Rule {
        for (index, scope) in spec.scopes.iter().enumerate() {
            if scope.is_empty() || scope.contains(char::is_whitespace) {
                // RFC 6749 §3.3: a scope token is not empty and has no space, so nobody could hold this one.
                self.problem(format!("source.jwt.scopes[{index}]"), "a scope is one word");
            }
        }
        let mut claims = Vec::with_capacity(spec.claims.len());
        for (index, claim) in spec.claims.iter().enumerate() {
            match ClaimTest::compile(claim) {
                Ok(test) => claims.push(test),
                Err((part, message)) => self.problem(format!("source.jwt.claims[{index}].{part}"), message),
            }
        }
        Rule {
            name: Arc::from(&*spec.name),
            effect: spec.effect,
            scopes: Scopes::new(spec.scopes.iter().cloned()),
            claims: claims.into(),
            agent: spec.agent.clone(),
            when: self.condition(spec.when.as_deref(), || "when".into()),
        }
    }

    fn target(&mut self, spec: &RuleSpec) -> Target {
        let target = &spec.target;
        Target {
            everything: target.is_empty(),
            tools: self.names(&target.tools, "tools", "tool"),
            prompts: self.names(&target.prompts, "prompts", "prompt"),
            resources: self.names(&target.resources, "resources", "uri"),
            methods: target.methods.iter().enumerate().flat_map(|(index, name)| self.methods(name, index)).collect(),
        }
    }

    fn names(&mut self, entries: &[TargetEntry], list: &str, key: &str) -> Vec<TargetName> {
        let mut names = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if let Some(server) = &entry.server
                && !self.servers.iter().any(|known| **known == **server)
            {
                let known = self.servers.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
                let message = format!("`{server}` is not a server of this route; there is {known}");
                self.problem(format!("target.{list}[{index}].server"), message);
            }
            match pattern(&entry.name, entry.glob) {
                Ok(pattern) => names.push(TargetName {
                    server: entry.server.clone(),
                    pattern,
                    when: self
                        .condition(entry.when.as_deref(), || format!("target.{list}[{index}].when"))
                        .map(Arc::new),
                }),
                Err(message) => self.problem(format!("target.{list}[{index}].{key}"), message),
            }
        }
        names
    }

    fn methods(&mut self, name: &str, index: usize) -> Vec<Method> {
        let named: Vec<Method> = match name.strip_suffix('*') {
            Some(prefix) => Method::ALL.iter().copied().filter(|method| method.as_str().starts_with(prefix)).collect(),
            None => Method::parse(name).into_iter().collect(),
        };
        if named.is_empty() {
            self.problem(format!("target.methods[{index}]"), format!("there is no method `{name}`"));
        }
        named
    }

    /// Compiles a condition; a blank one is none.
    fn condition(&mut self, source: Option<&str>, path: impl FnOnce() -> String) -> Option<Condition> {
        let source = source.filter(|source| !source.trim().is_empty())?;
        match Condition::compile(source) {
            Ok(condition) => Some(condition),
            Err(refused) => {
                self.problem(path(), refused.0);
                None
            }
        }
    }
}

fn pattern(name: &str, glob: bool) -> Result<Pattern, &'static str> {
    if name.is_empty() {
        return Err("a name must not be empty; `*` is every name");
    }
    if !glob {
        return Ok(Pattern::Exact(name.into()));
    }
    let (text, pattern): (&str, fn(Box<str>) -> Pattern) = match name.strip_suffix('*') {
        Some(prefix) => (prefix, Pattern::Prefix),
        None => (name, Pattern::Exact),
    };
    if text.contains('*') {
        return Err("only a `*` at the end matches anything; say `glob: false` when the name has one");
    }
    Ok(pattern(text.into()))
}
