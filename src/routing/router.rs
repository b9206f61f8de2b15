//! WHERE does this request go? The rules of one server, compiled: the first that matches decides the subset, weights choose
//! inside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::hash::{again, by_weight, of_principal, rendezvous, spread};
use super::instance::{Instance, Turn};
use super::members::{Draw, Members};
use super::rule::{AbortWhen, RoutingSpec, RuleSpec, SideSpec, Way, names_tool};
use super::window::Window;
use crate::identity::{Caller, Principal};
use crate::mcp::{Message, Method, Target};
use crate::policy::{Circumstances, Facts, NoAnswer, When};

/// The routing of one server.
#[derive(Debug)]
pub struct Router {
    server: Arc<str>,
    spec: RoutingSpec,
    rules: Box<[Rule]>,
    /// Where everything goes that no rule is about, and what a rule that is not strict cannot place.
    default: Members,
    /// Counts the choices that are anybody's.
    draws: AtomicU64,
}

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    when: Option<When>,
    tools: Box<[Box<str>]>,
    /// At least one.
    sides: Box<[Side]>,
    strict: bool,
    sticky: bool,
}

/// One way a rule leads.
#[derive(Debug)]
struct Side {
    /// The subset in few words.
    name: Arc<str>,
    weight: u32,
    members: Members,
    /// `None`: nobody looks whether it fails.
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    when: AbortWhen,
    is_closed: AtomicBool,
    window: Mutex<Window>,
}

/// A request that is to go somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// What is asked; empty for a request without a body.
    pub messages: &'a [Message],
    /// The rest of the request.
    pub facts: &'a Facts<'a>,
    /// When.
    pub now: Instant,
}

/// How a request was placed: names of it are asked of the [`Router`] that chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The rule that decided, from 0; `None`: no rule matched.
    rule: Option<usize>,
    /// Which of its sides, from 0.
    side: Option<usize>,
    /// The rule's own instances take no work: it went where everything else goes.
    pub fell_back: bool,
    /// The first rule whose condition had no answer, and so did not match.
    failed: Option<usize>,
}

/// A place for a request.
#[derive(Debug)]
pub struct Choice {
    /// Where it goes.
    pub instance: Arc<Instance>,
    /// Must be told how it ended.
    pub turn: Option<Turn>,
    /// Why there.
    pub path: Path,
}

/// There is no place for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// A strict rule is about it, and none of its instances takes work; or its condition has no answer.
    Strict(Path),
    /// No instance takes work.
    Unhealthy(Path),
}

/// A side of a split, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideState {
    /// The rule.
    pub rule: Arc<str>,
    /// The subset in few words.
    pub to: Arc<str>,
    /// Its share.
    pub weight: u32,
    /// Too many of its requests have failed, and it gets no more.
    pub closed: bool,
}

impl Router {
    /// Compiles the routing of a server with these instances.
    ///
    /// # Errors
    /// Every problem: the rule, from 0, the key inside it, and what is wrong.
    pub fn compile(
        server: Arc<str>,
        spec: RoutingSpec,
        instances: &[Arc<Instance>],
        now: Instant,
    ) -> Result<Self, Vec<RoutingProblem>> {
        let mut problems = Vec::new();
        let mut rules = Vec::with_capacity(spec.rules.len());
        for (nth, rule) in spec.rules.iter().enumerate() {
            match Rule::compile(rule, instances, now) {
                Ok(rule) => rules.push(rule),
                Err((key, message)) => problems.push(RoutingProblem { rule: nth, key, message }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let default = Members::of(spec.default.as_ref(), instances);
        Ok(Self { server, rules: rules.into(), default, spec, draws: AtomicU64::new(0) })
    }

    /// Chooses where a request goes.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn choose(&self, asked: &Asked<'_>) -> Result<Choice, NoPlace> {
        let path = self.decide(asked)?;
        self.place(path, asked.caller.principal(), asked.now)
    }

    /// Chooses anew for a request that could not be sent where `path` led.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn choose_again(&self, path: Path, principal: &Principal, now: Instant) -> Result<Choice, NoPlace> {
        self.place(Path { fell_back: false, ..path }, principal, now)
    }

    /// Whether a request may go where its session is: not when a strict rule is about it that leads elsewhere.
    ///
    /// # Errors
    /// [`NoPlace::Strict`].
    pub fn let_stay(&self, asked: &Asked<'_>, instance: &Arc<Instance>) -> Result<(), NoPlace> {
        if self.rules.iter().all(|rule| !rule.strict) {
            return Ok(());
        }
        let path = self.decide(asked)?;
        match path.rule.and_then(|rule| self.rules.get(rule)) {
            Some(rule) if rule.strict && !rule.sides.iter().any(|side| side.members.has(instance)) => {
                Err(NoPlace::Strict(path))
            }
            _ => Ok(()),
        }
    }

    /// The rule that is about a request.
    fn decide(&self, asked: &Asked<'_>) -> Result<Path, NoPlace> {
        let mut path = Path::default();
        for (nth, rule) in self.rules.iter().enumerate() {
            match rule.is_about(asked, &self.server) {
                Ok(true) => {
                    path.rule = Some(nth);
                    break;
                }
                Ok(false) | Err(NoAnswer::Unknown) => {}
                // INVARIANT: a condition without an answer never opens a door. A strict rule keeps requests in; not to
                // match would let this one out.
                Err(NoAnswer::Error) if rule.strict => {
                    return Err(NoPlace::Strict(Path { rule: Some(nth), failed: Some(nth), ..path }));
                }
                Err(NoAnswer::Error) => path.failed = path.failed.or(Some(nth)),
            }
        }
        Ok(path)
    }

    fn place(&self, mut path: Path, principal: &Principal, now: Instant) -> Result<Choice, NoPlace> {
        let drawn = || spread(self.draws.fetch_add(1, Ordering::Relaxed));
        let Some(rule) = path.rule.and_then(|rule| self.rules.get(rule)) else {
            let (instance, turn) = self.default.pick(Draw::Any(drawn()), now).ok_or(NoPlace::Unhealthy(path))?;
            return Ok(Choice { instance, turn, path });
        };
        let draw = if rule.sticky { Draw::Sticky(of_principal(principal)) } else { Draw::Any(drawn()) };
        if let Some((nth, instance, turn)) = rule.pick(draw, now) {
            path.side = Some(nth);
            return Ok(Choice { instance, turn, path });
        }
        if rule.strict {
            return Err(NoPlace::Strict(path));
        }
        path.fell_back = true;
        let (instance, turn) = self.default.pick(draw, now).ok_or(NoPlace::Unhealthy(path))?;
        Ok(Choice { instance, turn, path })
    }

    /// Notes how a request ended that went along `path`. Gives the side that closes with it, once.
    pub fn ended(&self, path: Path, failed: bool, now: Instant) -> Option<SideState> {
        if path.fell_back {
            return None;
        }
        let rule = self.rules.get(path.rule?)?;
        let side = rule.sides.get(path.side?)?;
        let watch = side.watch.as_ref()?;
        if watch.is_closed.load(Ordering::Relaxed) {
            return None;
        }
        let counts = watch.window.lock().unwrap_or_else(PoisonError::into_inner).note(failed, now);
        if !counts.exceed(watch.when.error_rate_above, watch.when.at_least) {
            return None;
        }
        let was_closed = watch.is_closed.swap(true, Ordering::Relaxed);
        (!was_closed).then(|| side.state(rule))
    }

    /// Whether somebody looks at how requests along `path` end, and whether at the results of tools, too.
    #[must_use]
    pub fn watches(&self, path: Path) -> Option<AbortWhen> {
        let side = self.rules.get(path.rule?)?.sides.get(path.side?)?;
        side.watch.as_ref().filter(|_| !path.fell_back).map(|watch| watch.when)
    }

    /// The sides that were closed stay closed, if `before` had the same rules.
    pub fn take_over(&self, before: &Self) {
        if self.spec != before.spec {
            return;
        }
        let pairs = self.rules.iter().zip(&before.rules).flat_map(|(own, other)| own.sides.iter().zip(&other.sides));
        for (own, other) in pairs {
            if let (Some(own), Some(other)) = (&own.watch, &other.watch) {
                own.is_closed.store(other.is_closed.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// Lets requests go again to every side that was closed; what failed before is forgotten.
    pub fn reopen(&self) {
        let sides = self.rules.iter().flat_map(|rule| &rule.sides);
        sides.filter_map(|side| side.watch.as_ref()).for_each(Watch::reopen);
    }

    /// Lets requests go again to one side, if it was closed; what failed before is forgotten. Gives the side as it was found;
    /// `None`: no split has it.
    #[must_use]
    pub fn reopen_side(&self, rule: &str, to: &str) -> Option<SideState> {
        let (rule, side) = self.sides().find(|(known, side)| *known.name == *rule && *side.name == *to)?;
        let found = side.state(rule);
        if let Some(watch) = &side.watch {
            watch.reopen();
        }
        Some(found)
    }

    /// Every side of every split.
    #[must_use]
    pub fn splits(&self) -> Vec<SideState> {
        self.sides().map(|(rule, side)| side.state(rule)).collect()
    }

    /// The sides of splits that an instance is on.
    #[must_use]
    pub fn splits_of(&self, instance: &Arc<Instance>) -> Vec<SideState> {
        let sides = self.sides().filter(|(_, side)| side.members.has(instance));
        sides.map(|(rule, side)| side.state(rule)).collect()
    }

    fn sides(&self) -> impl Iterator<Item = (&Rule, &Side)> {
        let splits = self.rules.iter().filter(|rule| rule.sides.len() > 1);
        splits.flat_map(|rule| rule.sides.iter().map(move |side| (rule, side)))
    }

    /// Whose routing it is.
    #[must_use]
    pub fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// The rule that decided; `None`: no rule matched.
    #[must_use]
    pub fn rule(&self, path: Path) -> Option<&Arc<str>> {
        Some(&self.rules.get(path.rule?)?.name)
    }

    /// The side of a split; `None` where there was no split.
    #[must_use]
    pub fn side(&self, path: Path) -> Option<&Arc<str>> {
        let rule = self.rules.get(path.rule?)?;
        let side = rule.sides.get(path.side?)?;
        (rule.sides.len() > 1 && !path.fell_back).then_some(&side.name)
    }

    /// The first rule whose condition had no answer.
    #[must_use]
    pub fn failed_rule(&self, path: Path) -> Option<&Arc<str>> {
        Some(&self.rules.get(path.failed?)?.name)
    }
}

/// What a rule says that it cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingProblem {
    /// The rule's place in the list, from 0.
    pub rule: usize,
    /// The key inside the rule.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

impl Rule {
    fn compile(spec: &RuleSpec, instances: &[Arc<Instance>], now: Instant) -> Result<Self, (&'static str, String)> {
        let when = spec.when.as_deref().map(When::compile).transpose().map_err(|message| ("when", message))?;
        let sides: Box<[Side]> = match &spec.way {
            Way::To(to) => [Side::new(&SideSpec { to: to.clone(), weight: 1 }, None, instances, now)].into(),
            Way::Split { sides, abort_when } => sides
                .iter()
                .enumerate()
                // The first is where the requests of the others go, so it has nowhere to send its own.
                .map(|(nth, side)| Side::new(side, abort_when.filter(|_| nth > 0), instances, now))
                .collect(),
        };
        let tools = spec.tools.clone().into();
        Ok(Self { name: Arc::clone(&spec.name), when, tools, sides, strict: spec.strict, sticky: spec.sticky })
    }

    /// Whether one of the messages, or a request without any, is what the rule is about.
    fn is_about(&self, asked: &Asked<'_>, server: &str) -> Result<bool, NoAnswer> {
        let calls = |message: &&Message| {
            self.tools.is_empty()
                || message.method() == Some(Method::ToolsCall)
                    && matches!(&message.target, Target::Tool(name) if names_tool(&self.tools, name))
        };
        let mut messages = asked.messages.iter().filter(calls).peekable();
        if !self.tools.is_empty() && messages.peek().is_none() {
            return Ok(false);
        }
        let Some(when) = &self.when else { return Ok(true) };
        let Asked { caller, facts, .. } = *asked;
        let holds = |message: Option<&Message>| when.holds(&Circumstances { caller, server, message, facts });
        if messages.peek().is_none() {
            return holds(None);
        }
        let mut answer = Ok(false);
        for message in messages {
            match holds(Some(message)) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                no_answer @ Err(_) => answer = no_answer,
            }
        }
        answer
    }

    /// The side whose turn it is, or another one where that takes no work, and an instance of it.
    fn pick(&self, draw: Draw, now: Instant) -> Option<(usize, Arc<Instance>, Option<Turn>)> {
        if let [only] = &*self.sides {
            let (instance, turn) = only.members.pick(draw, now)?;
            return Some((0, instance, turn));
        }
        let chosen = match draw {
            Draw::Any(draw) => by_weight(draw, self.sides.iter().map(|side| side.weight)),
            Draw::Sticky(key) => rendezvous(key, &self.name, self.sides.iter().map(|side| (&*side.name, side.weight))),
        };
        // Those of a side that was closed go to the first.
        let is_closed = |nth: usize| self.sides.get(nth).is_some_and(Side::is_closed);
        let chosen = chosen.filter(|nth| !is_closed(*nth)).unwrap_or(0);
        let inner = match draw {
            Draw::Any(draw) => Draw::Any(again(draw)),
            sticky @ Draw::Sticky(_) => sticky,
        };
        // A share of nothing stays nothing, but for the first side, which stands in for all.
        let has_share = |nth: usize| nth == 0 || self.sides.get(nth).is_some_and(|side| side.weight > 0);
        let others = (0..self.sides.len()).filter(|nth| *nth != chosen && !is_closed(*nth) && has_share(*nth));
        std::iter::once(chosen).chain(others).find_map(|nth| {
            let (instance, turn) = self.sides.get(nth)?.members.pick(inner, now)?;
            Some((nth, instance, turn))
        })
    }
}

impl Watch {
    fn reopen(&self) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.is_closed.store(false, Ordering::Relaxed);
    }
}

impl Side {
    fn new(spec: &SideSpec, abort_when: Option<AbortWhen>, instances: &[Arc<Instance>], now: Instant) -> Self {
        Self {
            name: spec.to.to_string().into(),
            weight: spec.weight,
            members: Members::of(Some(&spec.to), instances),
            watch: abort_when.map(|when| Watch {
                when,
                is_closed: AtomicBool::new(false),
                window: Mutex::new(Window::new(when.over, now)),
            }),
        }
    }

    /// Whether it gets no more.
    fn is_closed(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_closed.load(Ordering::Relaxed))
    }

    fn state(&self, rule: &Rule) -> SideState {
        let (rule, to) = (Arc::clone(&rule.name), Arc::clone(&self.name));
        SideState { rule, to, weight: self.weight, closed: self.is_closed() }
    }
}

#[cfg(test)]
mod tests;
