//! Which instance takes this request?

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::HealthCheck;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use super::instance::{Instance, Turn};

/// The instances of one server: membership, weights and health come from `pingora-load-balancing`, affinity does not
/// (a session names its instance).
pub struct Pool {
    balancer: LoadBalancer<RoundRobin>,
    instances: Vec<Arc<Instance>>,
    /// Time between two rounds of health checks.
    pub interval: Duration,
}

impl Pool {
    /// A pool without members until [`Pool::refresh`] has run once. `discovery` must put the [`Instance`] into each
    /// backend's `ext` ([`of_backend`] reads it there).
    #[must_use]
    pub fn new(
        instances: Vec<Arc<Instance>>,
        discovery: Box<dyn ServiceDiscovery + Send + Sync>,
        check: Box<dyn HealthCheck + Send + Sync>,
        interval: Duration,
    ) -> Self {
        let mut balancer = LoadBalancer::from_backends(Backends::new(discovery));
        balancer.set_health_check(check);
        Self { balancer, instances, interval }
    }

    /// The next instance for new work at `now`, by weight, with its turn where it has a circuit; `None` when no instance takes
    /// any.
    #[must_use]
    pub fn pick(&self, now: Instant) -> Option<(Arc<Instance>, Option<Turn>)> {
        // Another request may have taken the last place of an instance that is being tried out.
        (0..BEGINNINGS_MAX).find_map(|_| {
            let chosen = self.balancer.select_with(b"", PICK_STEPS_MAX, |backend, healthy| {
                healthy && of_backend(backend).is_some_and(|instance| instance.takes_new_work(now))
            })?;
            let instance = of_backend(&chosen)?;
            let turn = instance.begin(now).ok()?;
            Some((Arc::clone(instance), turn))
        })
    }

    /// The instance of that name, whatever its health.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|instance| *instance.id == *id)
    }

    /// Every instance, in the order of the configuration.
    #[must_use]
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// Resolves host names again and runs one round of health checks.
    pub async fn refresh(&self) {
        // Discovery keeps the last good address itself, so it never errs.
        let _never_errs = self.balancer.update().await;
        self.balancer.backends().run_health_check(true).await;
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("instances", &self.instances).finish_non_exhaustive()
    }
}

/// The instance a backend stands for.
#[must_use]
pub fn of_backend(backend: &Backend) -> Option<&Arc<Instance>> {
    backend.ext.get::<Arc<Instance>>()
}

/// How often another instance is looked for when the one that was found is taken.
pub(super) const BEGINNINGS_MAX: usize = 4;

/// Weighted round robin visits an instance up to its weight (at most 1,000) times before the next one comes.
const PICK_STEPS_MAX: usize = 4096;
