//! Have we decided this before?

use std::sync::Arc;

use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use crate::identity::TokenDigest;
use crate::mcp::{Method, Target};
use crate::policy::{self, Decision, Question};
use crate::registry::Route;
use crate::telemetry::metrics::CacheMetrics;

use super::agents::Acting;

/// Decisions that depend on nothing but caller and agent, by route, token, agent and target. Bounded.
///
/// A key names the compiled route, so a reload starts afresh; and it names the token and the verified agent, so a decision
/// goes with them.
pub(super) struct Decisions {
    decided: Cache<Key, Arc<Decision>>,
    look_ups: CacheMetrics,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    route: u64,
    token: TokenDigest,
    /// Which verification of which agent; 0: no agent.
    agent: u64,
    method: Method,
    name: Box<str>,
}

#[derive(Hash)]
struct KeyRef<'a> {
    route: u64,
    token: &'a TokenDigest,
    agent: u64,
    method: Method,
    name: &'a str,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.route, self.token, self.agent, self.method, self.name)
            == (key.route, &key.token, key.agent, key.method, &*key.name)
    }
}

impl Decisions {
    /// Keeps at most `entries_max` decisions.
    pub(super) fn new(entries_max: usize, look_ups: CacheMetrics) -> Self {
        Self { decided: Cache::new(entries_max), look_ups }
    }

    /// Forgets decisions for tokens and routes that `wanted` says no to.
    pub(super) fn retain(&self, wanted: impl Fn(&TokenDigest, u64) -> bool) {
        self.decided.retain(|key, _decision| wanted(&key.token, key.route));
    }

    /// The policy's decision, from the cache where nothing in the request could change it.
    pub(super) fn decide(
        &self,
        route: &Route,
        token: &TokenDigest,
        agent: Option<&Acting>,
        question: &Question<'_>,
    ) -> Decision {
        let (Some(method), Some(name)) = (question.message.method(), name_of(&question.message.target)) else {
            return policy::decide(&route.policy, question);
        };
        if !policy::depends_only_on_caller(&route.policy, question.server, question.message) {
            return policy::decide(&route.policy, question);
        }
        let agent = agent.map_or(0, |agent| agent.serial);
        let key = KeyRef { route: route.id, token, agent, method, name };
        if let Some(decision) = self.decided.get(&key) {
            self.look_ups.hit();
            return Decision::clone(&decision);
        }
        self.look_ups.missed();
        let decision = policy::decide(&route.policy, question);
        let key = Key { route: route.id, token: *token, agent, method, name: name.into() };
        self.decided.insert(key, Arc::new(decision.clone()));
        decision
    }
}

fn name_of(target: &Target) -> Option<&str> {
    match target {
        Target::None | Target::Task(_) => None,
        Target::Prompt(name) | Target::Resource(name) | Target::Tool(name) => Some(name),
    }
}
