//! Is the database of addresses still the one on the disk?
//!
//! A changed file takes effect by itself. One that cannot be used changes nothing: the last good one stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tracing::{error, info};

use crate::routing::region::{Atlas, Locator, RegionSpec};
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::metrics::{Metrics, ReloadOutcome};

use super::certificates::LOOK_INTERVAL;
use super::settled::Files;

/// Prepares what finds out where callers are. The database that `previous` has read from the same file stays when that cannot
/// be used any more.
///
/// # Errors
/// What is wrong with the file, when there is no good one from before.
pub(super) fn locator_of(
    spec: &RegionSpec,
    previous: Option<&Snapshot>,
    metrics: &Metrics,
) -> Result<Arc<Locator>, String> {
    let Some(maxmind) = &spec.maxmind else { return Ok(Arc::new(Locator::new(spec, Arc::default()))) };
    let before = previous.and_then(|previous| previous.locator.as_ref()?.atlas());
    let before = before.filter(|(before, _)| before.file == maxmind.file).map(|(_, atlas)| atlas);
    let atlas = before.cloned().unwrap_or_default();
    match read(&maxmind.file, &atlas) {
        Ok(()) => {}
        Err(cause) if atlas.is_there() => {
            error!("The database of addresses was not read again; the last good one stays. {cause}");
            metrics.routing.region_database_reloaded(ReloadOutcome::Refused);
        }
        Err(cause) => return Err(cause),
    }
    Ok(Arc::new(Locator::new(spec, atlas)))
}

fn read(path: &Path, atlas: &Atlas) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    atlas.take_in(bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Looks after the database of the live snapshot.
pub struct RegionWatch {
    /// Whose database.
    pub live: Arc<Live>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl BackgroundService for RegionWatch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watched: Option<(PathBuf, Files)> = None;
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = looks.tick() => {}
            }
            // A `stat` call; Pingora gives each service threads of its own, so nothing waits for a slow disk.
            self.look(&mut watched);
        }
    }
}

impl RegionWatch {
    fn look(&self, watched: &mut Option<(PathBuf, Files)>) {
        let world = self.live.take();
        let Some((maxmind, atlas)) = world.locator.as_ref().and_then(|locator| locator.atlas()) else {
            *watched = None;
            return;
        };
        let is_changed = match watched {
            Some((path, files)) if *path == maxmind.file => files.changed(),
            Some(_) | None => {
                let files = Files::about_to_be_read(vec![maxmind.file.clone()]);
                *watched = Some((maxmind.file.clone(), files));
                // What was read for the snapshot may have changed since.
                true
            }
        };
        if !is_changed {
            return;
        }
        match read(&maxmind.file, atlas) {
            Ok(()) => {
                info!("The database of addresses was read.");
                self.metrics.routing.region_database_reloaded(ReloadOutcome::Applied);
            }
            Err(cause) => {
                error!("The database of addresses was not read again; the last good one stays. {cause}");
                self.metrics.routing.region_database_reloaded(ReloadOutcome::Refused);
            }
        }
    }
}
