//! By which authorities are instances verified, and what do we show them?
//!
//! As with the listeners' certificates, a changed file takes effect by itself: connections that are open stay open, the next
//! one is made with what the files hold. A file that cannot be used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pingora::protocols::tls::CaType;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;
use tracing::{error, info, warn};

use crate::config::pem::{self, PemError};
use crate::config::{Machine, ServerConfig, ThisMachine, UpstreamTls};
use crate::registry::Server;
use crate::snapshot::Live;
use crate::telemetry::metrics::{Metrics, ReloadOutcome, UpstreamFile};
use crate::time::{Clock, UnixSeconds};

use super::certificates::{EXPIRY_WARNING, LOOK_INTERVAL, validity_of};
use super::settled::Files;

/// What the files of `servers[].tls` hold; checked.
pub(super) struct TlsFiles {
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
    /// Recognizes these very files; 0 when there are none. Pingora's pool tells connections apart by the serial of the
    /// client certificate but not by the authorities, so without it a connection that was verified by one server's
    /// authorities would carry requests of another's, or of a configuration that trusts them no more.
    fingerprint: u64,
    expiries: Vec<(UpstreamFile, UnixSeconds)>,
}

/// Why a file of `servers[].tls` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}")]
pub(super) struct TlsFileError {
    pub(super) path: String,
    pub(super) cause: String,
}

impl TlsFiles {
    /// Reads what `server` names; nothing is in it when nothing is named.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(super) fn read(server: &ServerConfig) -> Result<Self, TlsFileError> {
        let tls = &server.tls;
        let mut seen = Context::new(&SHA256);
        let mut expiries = Vec::new();
        let mut content = |path: &Path| {
            let file = ThisMachine.read(path).map_err(|cause| TlsFileError::new(path, cause))?;
            seen.update(&(file.bytes.expose().len() as u64).to_be_bytes());
            seen.update(file.bytes.expose());
            Ok::<_, TlsFileError>(file)
        };
        let mut ca = None;
        if let Some(path) = &tls.ca {
            let file = content(path)?;
            let unusable = |error: PemError| TlsFileError::new(path, error);
            pem::authorities(file.bytes.expose()).map_err(unusable)?;
            let chain = pem::certificates(file.bytes.expose()).map_err(unusable)?;
            expiries.extend(first_expiry(&chain).map(|expiry| (UpstreamFile::Ca, expiry)));
            let wrapped = chain.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509));
            ca = Some(Arc::from(wrapped.collect::<Box<[WrappedX509]>>()));
        }
        let mut client = None;
        if let (Some(certificate), Some(key)) = (&tls.client_certificate, &tls.client_key) {
            let chain = pem::certificates(content(certificate)?.bytes.expose())
                .map_err(|error| TlsFileError::new(certificate, error))?;
            let unusable = |error: PemError| TlsFileError::new(key, error);
            let file = content(key)?;
            if file.mode.is_some_and(|mode| mode & 0o077 != 0) {
                return Err(TlsFileError::new(key, "can be read or written by others"));
            }
            let private_key = pem::private_key(file.bytes.expose()).map_err(unusable)?;
            pem::certified_key(chain.clone(), &private_key).map_err(unusable)?;
            expiries.extend(first_expiry(&chain).map(|expiry| (UpstreamFile::ClientCertificate, expiry)));
            let chain = chain.iter().map(|der| der.to_vec()).collect();
            client = Some(Arc::new(CertKey::new(chain, private_key.expose().clone())));
        }
        let fingerprint = if ca.is_none() && client.is_none() { 0 } else { first_bits(seen.finish().as_ref()) };
        Ok(Self { ca, client, fingerprint, expiries })
    }

    /// Has connections to `peer` made with these files, and with no others.
    pub(super) fn put_into(&self, peer: &mut HttpPeer) {
        peer.client_cert_key.clone_from(&self.client);
        peer.group_key = self.fingerprint;
        peer.options.ca.clone_from(&self.ca);
    }
}

impl TlsFileError {
    fn new(path: &Path, cause: impl ToString) -> Self {
        Self { path: path.display().to_string(), cause: cause.to_string() }
    }
}

/// Looks after the files of every server.
pub struct UpstreamCertificates {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    clock: Clock,
    watched: Mutex<Vec<Watched>>,
}

/// A server that has such files.
struct Watched {
    server: Arc<Server>,
    files: Files,
}

impl UpstreamCertificates {
    /// For the servers of `live`.
    #[must_use]
    pub fn new(live: Arc<Live>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let certificates = Self { live, metrics, clock, watched: Mutex::default() };
        certificates.follow();
        certificates
    }

    /// Turns to the servers of the live snapshot, and has their connections made with what the files hold now.
    pub fn follow(&self) {
        let world = self.live.take();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for Watched { server, .. } in watched.drain(..) {
            self.metrics.upstream_certificates_removed(server.name());
        }
        for server in &world.servers {
            let paths = paths(&server.config.tls);
            if !paths.is_empty() {
                let files = Files::about_to_be_read(paths);
                self.take(server);
                watched.push(Watched { server: Arc::clone(server), files });
            }
        }
    }

    /// Looks at the files, and takes those that have changed and settled.
    fn look(&self) {
        for Watched { server, files } in &mut *self.watched.lock().unwrap_or_else(PoisonError::into_inner) {
            if files.changed() {
                self.take(server);
            }
        }
    }

    fn take(&self, server: &Server) {
        let tls = match TlsFiles::read(&server.config) {
            Ok(tls) => tls,
            Err(error) => {
                error!(server = %server.name(), "The TLS files of a server were not read again; the last good ones stay. {error}");
                return self.metrics.upstream_certificates_reloaded(server.name(), ReloadOutcome::Refused);
            }
        };
        self.announce(server, &tls);
        let mut is_other = false;
        for instance in server.pool.instances() {
            if instance.connection_group() != tls.fingerprint {
                instance.connect_anew(|peer| tls.put_into(peer));
                is_other = true;
            }
        }
        if is_other {
            info!(server = %server.name(), "Connections to a server are made with other TLS files.");
            self.metrics.upstream_certificates_reloaded(server.name(), ReloadOutcome::Applied);
        }
    }

    fn announce(&self, server: &Server, tls: &TlsFiles) {
        let now = self.clock.now();
        for (file, not_after) in &tls.expiries {
            self.metrics.upstream_certificate_expires(server.name(), *file, *not_after);
            let (server, file) = (server.name(), file.label());
            if *not_after <= now {
                warn!(%server, file, %not_after, "A certificate for a server has expired.");
            } else if now.until(*not_after) < EXPIRY_WARNING {
                warn!(%server, file, %not_after, "A certificate for a server expires within a week.");
            }
        }
    }
}

#[async_trait]
impl BackgroundService for UpstreamCertificates {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = looks.tick() => {}
            }
            // A few `stat` calls; Pingora gives each service threads of its own, so nothing waits for a slow disk.
            self.look();
        }
    }
}

/// When the first of them expires: from then on not everything that the file is there for works.
fn first_expiry(certificates: &[CertificateDer<'_>]) -> Option<UnixSeconds> {
    certificates.iter().filter_map(validity_of).map(|(_not_before, not_after)| not_after).min()
}

fn paths(tls: &UpstreamTls) -> Vec<PathBuf> {
    [&tls.ca, &tls.client_certificate, &tls.client_key].into_iter().flatten().cloned().collect()
}

fn first_bits(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
