//! Which calls are made once more, for comparison, and where?

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::hash::{again, falls_within, spread};
use super::instance::Instance;
use super::members::{Draw, Members};
use super::rule::{ShadowSpec, names_tool};

/// The shadow of one server.
#[derive(Debug)]
pub struct Shadow {
    spec: ShadowSpec,
    members: Members,
    draws: AtomicU64,
    under_way: Arc<AtomicU32>,
}

/// One call that is made once more, as long as this lives.
#[derive(Debug)]
pub struct Place {
    /// Where.
    pub instance: Arc<Instance>,
    /// How long it may take.
    pub timeout: Duration,
    under_way: Arc<AtomicU32>,
}

/// Why a call is not made once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// As many as may be are under way.
    Busy,
    /// It is not one of those that are compared.
    NotMeant,
    /// No other instance takes work there.
    Unhealthy,
}

impl Shadow {
    /// Among these instances.
    #[must_use]
    pub fn new(spec: ShadowSpec, instances: &[Arc<Instance>]) -> Self {
        let members = Members::of(Some(&spec.to), instances);
        Self { spec, members, draws: AtomicU64::new(0), under_way: Arc::default() }
    }

    /// Whether calls of a tool may be made twice, as the configuration says; whether the server calls it read-only is another
    /// question.
    #[must_use]
    pub fn names(&self, tool: &str) -> bool {
        names_tool(&self.spec.tools, tool)
    }

    /// A place for one more call, which `instance` answers.
    ///
    /// # Errors
    /// [`LeftOut`].
    pub fn begin(&self, instance: &Arc<Instance>, now: Instant) -> Result<Place, LeftOut> {
        // A call that such an instance answers would be compared with itself.
        if self.members.has(instance) {
            return Err(LeftOut::NotMeant);
        }
        let draw = spread(self.draws.fetch_add(1, Ordering::Relaxed));
        if !falls_within(draw, self.spec.sample) {
            return Err(LeftOut::NotMeant);
        }
        let enter = |under_way: u32| (under_way < self.spec.concurrency).then_some(under_way + 1);
        self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).map_err(|_full| LeftOut::Busy)?;
        let under_way = Arc::clone(&self.under_way);
        // A circuit learns nothing from shadows; they keep off it all the same.
        let (instance, _turn) = self.members.pick(Draw::Any(again(draw)), now).ok_or_else(|| {
            under_way.fetch_sub(1, Ordering::Relaxed);
            LeftOut::Unhealthy
        })?;
        Ok(Place { instance, timeout: self.spec.timeout, under_way })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use http::HeaderValue;
    use pingora::upstreams::peer::HttpPeer;

    use super::super::subset::{Subset, Traits};
    use super::*;

    fn instance(id: &str, version: &str) -> Arc<Instance> {
        let peer = HttpPeer::new("127.0.0.1:1", false, String::new());
        let traits = Traits { version: Some(version.into()), ..Traits::default() };
        let instance = Instance::new(id.into(), HeaderValue::from_static("a"), peer).being(traits, 1);
        instance.resolved("127.0.0.1:1".parse().unwrap());
        Arc::new(instance)
    }

    fn shadow(sample: f64, concurrency: u32) -> (Shadow, [Arc<Instance>; 2]) {
        let instances = [instance("a", "v1"), instance("b", "v2")];
        let to = Subset { version: Some("v2".into()), ..Subset::default() };
        let tools = vec!["search*".into()];
        let spec = ShadowSpec { to, tools, sample, concurrency, timeout: Duration::from_secs(1) };
        (Shadow::new(spec, &instances), instances)
    }

    #[test]
    fn never_more_at_once_than_its_bound() {
        let (shadow, [a, _b]) = shadow(1.0, 2);
        let now = Instant::now();
        let places = [shadow.begin(&a, now).unwrap(), shadow.begin(&a, now).unwrap()];
        assert_eq!(shadow.begin(&a, now).unwrap_err(), LeftOut::Busy);
        drop(places);
        assert_eq!(&*shadow.begin(&a, now).unwrap().instance.id, "b");
    }

    #[test]
    fn what_the_shadow_itself_answers_is_not_compared() {
        let (shadow, [_a, b]) = shadow(1.0, 2);
        assert_eq!(shadow.begin(&b, Instant::now()).unwrap_err(), LeftOut::NotMeant);
    }

    #[test]
    fn a_sample_is_the_part_that_was_asked_for() {
        let (shadow, [a, _b]) = shadow(0.25, 2);
        let made = (0..1000).filter(|_| shadow.begin(&a, Instant::now()).is_ok()).count();
        assert!((240..=260).contains(&made), "{made}");
    }

    #[test]
    fn an_ill_shadow_is_left_out_and_gives_its_place_back() {
        let (shadow, [a, b]) = shadow(1.0, 1);
        b.turned(super::super::instance::Health::Unhealthy);
        for _ in 0..3 {
            assert_eq!(shadow.begin(&a, Instant::now()).unwrap_err(), LeftOut::Unhealthy);
        }
    }
}
