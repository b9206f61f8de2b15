//! Which rules apply, and what becomes of a whole answer?

use std::fmt;
use std::sync::Arc;

use crate::mcp::json::Kind;
use crate::mcp::{Method, Target};
use crate::policy::When;

use super::edit::Edits;
use super::filter::{self, Done, Reader, Refusal, Tally};
use super::rule::{Action, External, GuardAction, Protection, Rule};
use super::stream::Stream;
use super::tree::{Id, Tree};

/// The rules of a route: those of its server, then its own.
#[derive(Debug)]
pub struct Plan {
    pub(super) rules: Box<[Arc<Rule>]>,
}

/// Some rules of a plan: a bit for each, by its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(pub(super) u64);

impl RuleSet {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The most rules of a server, and the most of a route.
pub const RULES_MAX: usize = 32;

impl Plan {
    /// Puts the rules of a server and of a route together, each list with [`RULES_MAX`] at most; none when there are none.
    #[must_use]
    pub fn new(server: &[Arc<Rule>], route: &[Arc<Rule>]) -> Option<Arc<Self>> {
        let rules: Box<[Arc<Rule>]> = server.iter().chain(route).take(2 * RULES_MAX).cloned().collect();
        (!rules.is_empty()).then(|| Arc::new(Self { rules }))
    }

    /// Every rule: of an answer that nobody knows the request of.
    #[must_use]
    pub fn all(&self) -> RuleSet {
        RuleSet(self.bits(|_| true))
    }

    /// The rules about a request. Lists and the beginning of a session hold definitions, which the registry judges.
    #[must_use]
    pub fn about(&self, method: Method, target: &Target) -> RuleSet {
        if brings_content(method) { RuleSet(self.bits(|rule| rule.about.means(target))) } else { RuleSet::default() }
    }

    /// Without the rules whose exemption (`unless`) holds.
    pub fn without_exempt(&self, set: RuleSet, mut holds: impl FnMut(&When) -> bool) -> RuleSet {
        RuleSet(set.0 & self.bits(|rule| !rule.unless.as_ref().is_some_and(&mut holds)))
    }

    /// How careful one has to be with what these rules are about.
    #[must_use]
    pub fn protection(&self, set: RuleSet) -> Option<Protection> {
        let mut strongest = None;
        for (_, rule) in self.each(set) {
            if let Action::Protect(protection) = rule.action {
                let is_sensitive = strongest == Some(Protection::Sensitive);
                strongest = Some(if is_sensitive { Protection::Sensitive } else { protection });
            }
        }
        strongest
    }

    /// The guards outside that are asked, with the rules' names.
    pub fn external(&self, set: RuleSet) -> impl Iterator<Item = (&Arc<str>, &External)> {
        self.each(set).filter_map(|(_, rule)| match &rule.action {
            Action::External(external) => Some((&rule.name, external)),
            Action::Drop(_) | Action::Guard(_) | Action::Limit(_) | Action::Protect(_) | Action::Redact(_) => None,
        })
    }

    /// Whether one of these rules wraps text.
    #[must_use]
    pub fn wraps(&self, set: RuleSet) -> bool {
        self.each(set)
            .any(|(_, rule)| matches!(&rule.action, Action::Guard(guard) if guard.action == GuardAction::Wrap))
    }

    /// Whether any of these rules reads or changes what is answered, here and now.
    #[must_use]
    pub fn filters(&self, set: RuleSet) -> bool {
        self.each(set).any(|(_, rule)| !matches!(rule.action, Action::External(_)))
    }

    fn each(&self, set: RuleSet) -> impl Iterator<Item = (usize, &Rule)> {
        let rules = self.rules.iter().enumerate().filter(move |(nth, _)| set.0 & (1 << nth) != 0);
        rules.map(|(nth, rule)| (nth, &**rule))
    }

    fn bits(&self, mut fits: impl FnMut(&Rule) -> bool) -> u64 {
        self.rules.iter().enumerate().filter(|(_, rule)| fits(rule)).fold(0, |set, (nth, _)| set | 1 << nth)
    }
}

/// Whether the answer to a request holds what a tool, prompt or resource says.
fn brings_content(method: Method) -> bool {
    matches!(
        method,
        Method::CompletionComplete
            | Method::PromptsGet
            | Method::ResourcesRead
            | Method::TasksCancel
            | Method::TasksGet
            | Method::TasksResult
            | Method::TasksUpdate
            | Method::ToolsCall
    )
}

/// What one exchange has to know of rules and caller, and what was found in it so far.
pub struct Filter {
    pub(super) plan: Arc<Plan>,
    /// The requests, each with the rules about it; none for a stream that may replay any answer.
    asked: Option<Vec<(Box<str>, RuleSet)>>,
    /// The rules about what the server says besides its answers: those about any of the requests.
    pub(super) told: RuleSet,
    is_encrypted: bool,
    nonce: Box<str>,
    pub(super) tally: Tally,
    pub(super) stream: Stream,
}

/// Makes the error that comes in the place of an answer; asked with the id as JSON text.
pub type Refuse<'r> = &'r dyn Fn(&str, Refusal) -> Vec<u8>;

/// An answer cannot be read in one way only, so it cannot be filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be filtered")]
pub struct Unreadable;

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("asked", &self.asked).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Filter {
    /// For the answer to these requests (by [`crate::mcp::RequestId::canonical`]), each with the rules about it; or, without
    /// any, for a stream that may replay answers, to which `told` applies. None: no rule is about any of it. `nonce` is a word
    /// that no server can know.
    #[must_use]
    pub fn new(
        plan: &Arc<Plan>,
        asked: Option<Vec<(Box<str>, RuleSet)>>,
        told: RuleSet,
        is_encrypted: bool,
        nonce: Box<str>,
    ) -> Option<Self> {
        let told = asked.iter().flatten().fold(told, |all, (_, set)| all.with(*set));
        plan.filters(told).then(|| Self {
            plan: Arc::clone(plan),
            asked,
            told,
            is_encrypted,
            nonce,
            tally: Tally::default(),
            stream: Stream::default(),
        })
    }

    /// What the rules did since this was last asked.
    pub fn take_done(&mut self) -> Vec<Done> {
        self.tally.take(&self.plan.rules)
    }

    /// Filters an answer that is whole: one message, or a batch. None: it passes as it is.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn document(&mut self, text: &[u8], refuse: Refuse<'_>) -> Result<Option<Vec<u8>>, Unreadable> {
        let tree = Tree::read(text).map_err(|_strict| Unreadable)?;
        let mut edits = Edits::default();
        for message in messages(&tree) {
            if filter::is_answer(&tree, message) {
                let slots = self.answer(&tree, message, &mut edits, refuse)?;
                self.settle(slots, &mut edits);
            } else {
                let slots = self.told(&tree, message, &mut edits);
                self.settle(slots, &mut edits);
            }
        }
        Ok((!edits.is_empty()).then(|| edits.apply(text)))
    }

    /// Judges one answer; gives its texts that are read together with others. An answer that does not pass is replaced.
    pub(super) fn answer(
        &mut self,
        tree: &Tree<'_>,
        message: Id,
        edits: &mut Edits,
        refuse: Refuse<'_>,
    ) -> Result<Vec<super::slots::Slot>, Unreadable> {
        // Neither answer nor request: what one client takes for the one, another may take for the other.
        if tree.member(message, "method").is_some() {
            return Err(Unreadable);
        }
        let set = self.rules_of(tree, message);
        if set.is_empty() {
            return Ok(Vec::new());
        }
        let reader = Reader { rules: &self.plan.rules, is_encrypted: self.is_encrypted, nonce: &self.nonce };
        match reader.answer(tree, message, set.0, &mut self.tally) {
            Ok(judged) => {
                edits.append(judged.edits);
                Ok(judged.slots)
            }
            Err(refusal) => {
                let id = tree.member(message, "id").map_or("null", |id| tree.raw(id));
                edits.replace(tree.place(message), refuse(id, refusal));
                Ok(Vec::new())
            }
        }
    }

    /// Judges what the server says besides its answers; gives its texts that may go on in another message.
    pub(super) fn told(&mut self, tree: &Tree<'_>, message: Id, edits: &mut Edits) -> Vec<super::slots::Slot> {
        let reader = Reader { rules: &self.plan.rules, is_encrypted: self.is_encrypted, nonce: &self.nonce };
        let judged = reader.told(tree, message, self.told.0, &mut self.tally);
        edits.append(judged.edits);
        judged.slots
    }

    /// Judges a text of an event that is no message.
    pub(super) fn plain(&mut self, text: &str) -> Option<Vec<u8>> {
        let reader = Reader { rules: &self.plan.rules, is_encrypted: self.is_encrypted, nonce: &self.nonce };
        reader.plain(text, self.told.0, &mut self.tally)
    }

    /// Puts down and counts what is changed in texts that nothing can change any more.
    pub(super) fn settle(&mut self, slots: Vec<super::slots::Slot>, edits: &mut Edits) {
        let reader = Reader { rules: &self.plan.rules, is_encrypted: self.is_encrypted, nonce: &self.nonce };
        reader.settle(slots, edits, &mut self.tally);
    }

    /// The rules about the request that a message answers; those about any of them when it does not say which.
    fn rules_of(&self, tree: &Tree<'_>, message: Id) -> RuleSet {
        let id = filter::id_of(tree, message);
        let known = self.asked.iter().flatten().find(|(asked, _)| id.as_deref() == Some(&**asked));
        known.map_or(self.told, |(_, set)| *set)
    }
}

/// Which requests a text answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Their ids, as JSON text; `null` for an answer that names none.
    pub ids: Vec<Box<str>>,
    /// Whether they are answered by a batch.
    pub is_batch: bool,
}

/// Which requests a message, or a batch of messages, answers; none when there is no answer in it.
#[must_use]
pub fn answered(text: &[u8]) -> Option<Answered> {
    let tree = Tree::read(text).ok()?;
    let answers = messages(&tree).into_iter().filter(|message| filter::is_answer(&tree, *message));
    let ids: Vec<Box<str>> =
        answers.map(|message| tree.member(message, "id").map_or("null", |id| tree.raw(id)).into()).collect();
    (!ids.is_empty()).then(|| Answered { ids, is_batch: tree.kind(tree.root()) == Kind::Array })
}

/// One message, or those of a batch.
pub(super) fn messages(tree: &Tree<'_>) -> Vec<Id> {
    let root = tree.root();
    if tree.kind(root) == Kind::Array { tree.children(root).collect() } else { vec![root] }
}
