//! Which counters does this request move?

use std::sync::Arc;

use dashmap::DashMap;

use crate::policy::rule::TargetEntry;
use crate::registry::Route;
use crate::snapshot::Live;
use crate::telemetry::metrics::{IssuerMetrics, Metrics, RouteMetrics, ServerMetrics};

/// The counters of every route that has been used, looked up once per compiled route. Labels come from the configuration
/// alone, so there are as many as it names.
pub(crate) struct Meters {
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    by_route: DashMap<u64, Arc<RouteMeters>>,
}

/// The counters of one route, of the server behind it, and of its issuers.
pub(crate) struct RouteMeters {
    pub(crate) route: RouteMetrics,
    pub(crate) server: ServerMetrics,
    issuers: Vec<(Arc<str>, IssuerMetrics)>,
    unknown_issuer: IssuerMetrics,
}

impl Meters {
    pub(crate) fn new(metrics: Arc<Metrics>, live: Arc<Live>) -> Self {
        Self { metrics, live, by_route: DashMap::new() }
    }

    pub(crate) fn of(&self, route: &Route) -> Arc<RouteMeters> {
        if let Some(meters) = self.by_route.get(&route.id) {
            return Arc::clone(&meters);
        }
        let server = route.server.name();
        let names_server = |entry: &&TargetEntry| entry.server.as_deref().is_none_or(|name| *name == **server);
        let is_exact = |entry: &&TargetEntry| !(entry.glob && entry.name.ends_with('*'));
        let tools = route.config.rules.iter().flat_map(|rule| &rule.target.tools);
        let tools = tools.filter(names_server).filter(is_exact).map(|entry| &*entry.name);
        let meters = Arc::new(RouteMeters {
            route: self.metrics.route(&route.config.path),
            server: self.metrics.server(server, tools),
            issuers: route
                .issuers
                .iter()
                .map(|issuer| (Arc::clone(&issuer.config.name), self.metrics.issuer(&issuer.config.name)))
                .collect(),
            unknown_issuer: self.metrics.issuer("unknown"),
        });
        // Routes of snapshots before the live one are not asked for much longer.
        let oldest = self.live.peek().routes().map(|route| route.id).min().unwrap_or_default();
        self.by_route.retain(|id, _meters| *id >= oldest);
        self.by_route.insert(route.id, Arc::clone(&meters));
        meters
    }
}

impl RouteMeters {
    /// The counters of an issuer; of no issuer in particular when the token named none of the route's.
    pub(crate) fn issuer(&self, name: Option<&str>) -> &IssuerMetrics {
        let known = self.issuers.iter().find(|(known, _meters)| Some(&**known) == name);
        known.map_or(&self.unknown_issuer, |(_name, meters)| meters)
    }
}
