//! What do the TLS listeners show, and whom do they let in?
//!
//! Certificates and authorities are swapped under running listeners: on SIGHUP with the configuration, and by themselves
//! when a file has changed. Connections that are open stay open; the next handshake sees what is in force. A file that
//! cannot be used changes nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use tracing::{error, info, warn};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::pem::{self, PemError};
use crate::config::{FoundFile, Listen, ListenTls, Machine, ThisMachine};
use crate::secret::Secret;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};
use crate::time::{Clock, UnixSeconds};

use super::settled::Files;

mod listener;

use self::listener::Listener;

/// Why a listener's files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listen {address}: {path}: {cause}")]
pub struct CertificateError {
    address: SocketAddr,
    path: String,
    cause: String,
}

/// The TLS listeners of this process. Which addresses have TLS is settled at the start; what they show is not.
pub struct Certificates {
    listeners: Vec<Watched>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

struct Watched {
    address: SocketAddr,
    listener: Arc<Listener>,
    source: Mutex<Source>,
}

/// Where a listener's certificate comes from.
struct Source {
    tls: ListenTls,
    files: Files,
}

/// What a listener shows, and to whom; read whole and checked before it takes effect.
pub(super) struct Loaded {
    key: Arc<CertifiedKey>,
    /// Verifies clients; `None`: none is asked for a certificate.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
}

/// Certificates for every TLS listener, checked but not in force.
pub struct Prepared(Vec<(usize, Source, Loaded)>);

impl Certificates {
    /// Loads what every TLS listener of `listen` needs.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(listen: &[Listen], metrics: Arc<Metrics>, clock: Clock) -> Result<Self, CertificateError> {
        let mut certificates = Self { listeners: Vec::new(), metrics, clock };
        for listen in listen {
            let Some(tls) = &listen.tls else { continue };
            let source = Source::of(tls);
            let loaded = load(listen.address, tls)?;
            certificates.announce(listen.address, &loaded);
            certificates.listeners.push(Watched {
                address: listen.address,
                listener: Arc::new(Listener::new(loaded)),
                source: Mutex::new(source),
            });
        }
        Ok(certificates)
    }

    /// How Pingora serves TLS at `address`; `None` when the address has none.
    ///
    /// # Errors
    /// When Pingora cannot.
    pub fn settings(&self, address: SocketAddr) -> Option<pingora::Result<TlsSettings>> {
        let watched = self.listeners.iter().find(|watched| watched.address == address)?;
        Some(watched.listener.settings())
    }

    /// Loads what `listen` names, without putting it in force.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn prepare(&self, listen: &[Listen]) -> Result<Prepared, CertificateError> {
        let mut prepared = Vec::new();
        let is_gone = |watched: &Watched| !listen.iter().any(|listen| listen.address == watched.address);
        let mut elsewhere = self.listeners.iter().any(is_gone);
        for listen in listen {
            let known = self.listeners.iter().position(|watched| watched.address == listen.address);
            match (known, &listen.tls) {
                (Some(nth), Some(tls)) => {
                    let source = Source::of(tls);
                    prepared.push((nth, source, load(listen.address, tls)?));
                }
                (None, None) => {}
                (None, Some(_)) | (Some(_), None) => elsewhere = true,
            }
        }
        if elsewhere {
            warn!("Where TLS is spoken has changed in the configuration; that takes an upgrade or a restart.");
        }
        Ok(Prepared(prepared))
    }

    /// Puts `prepared` in force.
    pub fn apply(&self, prepared: Prepared) {
        for (nth, source, loaded) in prepared.0 {
            let Some(watched) = self.listeners.get(nth) else { continue };
            *watched.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
            self.put_in_force(watched, loaded);
        }
    }

    /// Looks at the files of every listener, and reads those that have changed and settled.
    fn look(&self) {
        for watched in &self.listeners {
            let mut source = watched.source.lock().unwrap_or_else(PoisonError::into_inner);
            if !source.files.changed() {
                continue;
            }
            match load(watched.address, &source.tls) {
                Ok(loaded) => self.put_in_force(watched, loaded),
                Err(error) => {
                    error!("The certificate was not reloaded; the last good one stays. {error}");
                    self.metrics.certificate_reloaded(&watched.address.to_string(), ReloadOutcome::Refused);
                }
            }
        }
    }

    fn put_in_force(&self, watched: &Watched, loaded: Loaded) {
        self.announce(watched.address, &loaded);
        let is_other = watched.listener.swap(loaded);
        if is_other {
            info!(listener = %watched.address, "The listener shows another certificate.");
        }
        self.metrics.certificate_reloaded(&watched.address.to_string(), ReloadOutcome::Applied);
    }

    fn announce(&self, address: SocketAddr, loaded: &Loaded) {
        let now = self.clock.now();
        self.metrics.certificate_expires(&address.to_string(), loaded.not_after);
        if loaded.not_after <= now {
            warn!(listener = %address, not_after = %loaded.not_after, "The certificate has expired; clients will refuse it.");
        } else if loaded.not_before > now {
            warn!(listener = %address, not_before = %loaded.not_before, "The certificate is not valid yet.");
        } else if now.until(loaded.not_after) < EXPIRY_WARNING {
            warn!(listener = %address, not_after = %loaded.not_after, "The certificate expires within a week.");
        }
    }
}

impl Source {
    /// Taken before the files are read, so that what changes meanwhile counts as changed.
    fn of(tls: &ListenTls) -> Self {
        let paths: [Option<&PathBuf>; 3] = [Some(&tls.certificate), Some(&tls.private_key), tls.client_ca.as_ref()];
        let paths = paths.into_iter().flatten().cloned().collect();
        Self { tls: tls.clone(), files: Files::about_to_be_read(paths) }
    }
}

/// Looks at the files of the listeners, for as long as the process runs.
pub struct CertificateWatch(pub Arc<Certificates>);

#[async_trait]
impl BackgroundService for CertificateWatch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if self.0.listeners.is_empty() {
            return;
        }
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = looks.tick() => {}
            }
            let certificates = Arc::clone(&self.0);
            // The files may lie on a network.
            let looked = tokio::task::spawn_blocking(move || certificates.look()).await;
            if looked.is_err() {
                error!("A look at the certificates broke off.");
            }
        }
    }
}

fn load(address: SocketAddr, tls: &ListenTls) -> Result<Loaded, CertificateError> {
    let chain = parsed(address, &tls.certificate, pem::certificates)?;
    let validity = validity(&chain);
    let failed = |path: &Path, cause: String| CertificateError { address, path: path.display().to_string(), cause };
    let (not_before, not_after) =
        validity.ok_or_else(|| failed(&tls.certificate, PemError::BadCertificate.to_string()))?;
    let private_key: Secret<Vec<u8>> = parsed(address, &tls.private_key, pem::private_key)?;
    if found(address, &tls.private_key)?.mode.is_some_and(|mode| mode & 0o077 != 0) {
        return Err(failed(&tls.private_key, "can be read or written by others".to_owned()));
    }
    let key = pem::certified_key(chain, &private_key).map_err(|error| failed(&tls.private_key, error.to_string()))?;
    let clients = match &tls.client_ca {
        Some(path) => {
            let roots: Arc<RootCertStore> = parsed(address, path, pem::authorities)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider())).build();
            Some(verifier.map_err(|error| failed(path, error.to_string()))?)
        }
        None => None,
    };
    Ok(Loaded { key: Arc::new(key), clients, not_before, not_after })
}

fn parsed<T>(address: SocketAddr, path: &Path, parse: fn(&[u8]) -> Result<T, PemError>) -> Result<T, CertificateError> {
    let parsed = parse(found(address, path)?.bytes.expose());
    parsed.map_err(|error| CertificateError { address, path: path.display().to_string(), cause: error.to_string() })
}

fn found(address: SocketAddr, path: &Path) -> Result<FoundFile, CertificateError> {
    let found = ThisMachine.read(path);
    found.map_err(|cause| CertificateError { address, path: path.display().to_string(), cause })
}

fn validity(chain: &[CertificateDer<'_>]) -> Option<(UnixSeconds, UnixSeconds)> {
    chain.first().and_then(validity_of)
}

/// When a certificate begins to be valid, and when it ends.
pub(super) fn validity_of(certificate: &CertificateDer<'_>) -> Option<(UnixSeconds, UnixSeconds)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let moment = |time: x509_parser::time::ASN1Time| UnixSeconds(u64::try_from(time.timestamp()).unwrap_or(0));
    let validity = certificate.validity();
    Some((moment(validity.not_before), moment(validity.not_after)))
}

/// Time between two looks at the files. A changed file is in force after two to three of them.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// From here on an expiry is worth a line in the log at every load.
pub(super) const EXPIRY_WARNING: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests;
