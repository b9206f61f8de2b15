//! Which counters does this request move?

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::policy::rule::TargetEntry;
use crate::registry::Route;
use crate::snapshot::Live;
use crate::telemetry::metrics::{AgentMetrics, BudgetMetrics, IssuerMetrics, Metrics, RouteMetrics, ServerMetrics};

/// The counters of every route that has been used, looked up once per compiled route. Labels come from the configuration
/// alone, so there are as many as it names.
pub(crate) struct Meters {
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    /// Read by every request, so without a lock.
    by_route: ArcSwap<HashMap<u64, Arc<RouteMeters>>>,
}

/// The counters of one route, of the server behind it, and of its issuers.
pub(crate) struct RouteMeters {
    pub(crate) route: RouteMetrics,
    pub(crate) server: ServerMetrics,
    pub(crate) agents: AgentMetrics,
    pub(crate) budgets: BudgetMetrics,
    issuers: Vec<(Arc<str>, IssuerMetrics)>,
    unknown_issuer: IssuerMetrics,
}

impl Meters {
    pub(crate) fn new(metrics: Arc<Metrics>, live: Arc<Live>) -> Self {
        Self { metrics, live, by_route: ArcSwap::default() }
    }

    pub(crate) fn of(&self, route: &Route) -> Arc<RouteMeters> {
        if let Some(meters) = self.by_route.load().get(&route.id) {
            return Arc::clone(meters);
        }
        let server = route.server.name();
        let names_server = |entry: &&TargetEntry| entry.server.as_deref().is_none_or(|name| *name == **server);
        let is_exact = |entry: &&TargetEntry| !(entry.glob && entry.name.ends_with('*'));
        let tools = route.config.rules.iter().flat_map(|rule| &rule.target.tools);
        let tools = tools.filter(names_server).filter(is_exact).map(|entry| &*entry.name);
        let meters = Arc::new(RouteMeters {
            route: self.metrics.route(&route.config.path),
            server: self.metrics.server(server, tools),
            agents: agents_of(&self.metrics, route),
            budgets: self.metrics.budgets(&route.config.path),
            issuers: route
                .issuers
                .iter()
                .map(|issuer| (Arc::clone(&issuer.config.name), self.metrics.issuer(&issuer.config.name)))
                .collect(),
            unknown_issuer: self.metrics.issuer("unknown"),
        });
        // Routes of snapshots before the live one are not asked for much longer.
        let oldest = self.live.peek().routes().map(|route| route.id).min().unwrap_or_default();
        self.by_route.rcu(|known| {
            let known = known.iter().filter(|(id, _meters)| **id >= oldest);
            let known = known.map(|(id, meters)| (*id, Arc::clone(meters)));
            known.chain([(route.id, Arc::clone(&meters))]).collect::<HashMap<_, _>>()
        });
        meters
    }
}

/// The types of OIDC-A, and types and providers that a rule or an attester of the route names: every other one is `other`.
fn agents_of(metrics: &Metrics, route: &Route) -> AgentMetrics {
    let specs = || route.config.rules.iter().filter_map(|rule| rule.agent.as_ref());
    let attesters = route.agents.iter().flat_map(|agents| &agents.trust.attesters);
    let types = TYPES.into_iter().chain(specs().flat_map(|spec| &spec.types).map(|name| &**name));
    let providers = specs().flat_map(|spec| &spec.providers).chain(attesters.flat_map(|attester| &attester.providers));
    metrics.agents(types, providers.map(|name| &**name))
}

impl RouteMeters {
    /// The counters of an issuer; of no issuer in particular when the token named none of the route's.
    pub(crate) fn issuer(&self, name: Option<&str>) -> &IssuerMetrics {
        let known = self.issuers.iter().find(|(known, _meters)| Some(&**known) == name);
        known.map_or(&self.unknown_issuer, |(_name, meters)| meters)
    }
}

/// The values of `agent_type` that OIDC-A 1.0 names.
const TYPES: [&str; 6] = ["assistant", "retrieval", "coding", "domain_specific", "autonomous", "supervised"];
