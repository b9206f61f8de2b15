//! What does one TLS listener show, and whom does it let in, at this very handshake?

use std::any::Any;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::tls::TlsRef;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::identity::{ClientCertificate, Shown};

use super::Loaded;

/// A listener whose certificate and authorities can be swapped while it serves.
pub(super) struct Listener {
    loaded: ArcSwap<Loaded>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Listener {
    pub(super) fn new(loaded: Loaded) -> Self {
        let algorithms = default_provider().signature_verification_algorithms;
        Self { loaded: ArcSwap::from_pointee(loaded), algorithms }
    }

    /// Puts `loaded` in force; whether the certificate is another one.
    pub(super) fn swap(&self, loaded: Loaded) -> bool {
        let shown = loaded.key.cert.first().cloned();
        let before = self.loaded.swap(Arc::new(loaded));
        before.key.cert.first() != shown.as_ref()
    }

    /// The certificate it shows.
    #[cfg(test)]
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.loaded.load().key.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, and everything else asked of `self` at each handshake.
    pub(super) fn settings(self: &Arc<Self>) -> pingora::Result<TlsSettings> {
        let mut settings = TlsSettings::with_callbacks(Box::new(AfterHandshake(Arc::clone(self))))?;
        settings.enable_h2();
        settings.set_cert_resolver(Arc::clone(self) as _);
        settings.set_client_cert_verifier(Arc::clone(self) as _);
        Ok(settings)
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // None when the authorities were taken away since the certificate was asked for.
        let clients = self.loaded.load().clients.clone();
        let clients = clients.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        // Pingora reads the certificate with another parser, and panics over what that cannot read.
        if ClientCertificate::read(end_entity).is_none() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        clients.verify_client_cert(end_entity, intermediates, now)
    }

    /// What the connection has shown of its client, by the authorities in force now; `None` when nobody asks.
    ///
    /// A resumed session brings the certificate of the handshake in which it began, and rustls does not verify that again
    /// (rustls 0.23, server/tls13.rs): without this look, whoever resumes in time would outlive the expiry of the
    /// certificate and the removal of its authority.
    fn shown(&self, chain: &[CertificateDer<'_>]) -> Option<Shown> {
        self.loaded.load().clients.as_ref()?;
        let Some((end_entity, intermediates)) = chain.split_first() else { return Some(Shown::Distrusted) };
        if self.verify(end_entity, intermediates, UnixTime::now()).is_err() {
            return Some(Shown::Distrusted);
        }
        let certificate = ClientCertificate::read(end_entity);
        Some(certificate.map_or(Shown::Distrusted, |certificate| Shown::Verified(Arc::new(certificate))))
    }
}

impl ResolvesServerCert for Listener {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded.load().key))
    }
}

impl ClientCertVerifier for Listener {
    fn offer_client_auth(&self) -> bool {
        self.loaded.load().clients.is_some()
    }

    /// Whoever is asked must show one.
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// None are hinted at: the authorities may be swapped while the hints are borrowed.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// Leaves what the client has shown ([`Shown`]) with the connection, where the data plane finds it.
struct AfterHandshake(Arc<Listener>);

#[async_trait]
impl TlsAccept for AfterHandshake {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let shown = self.0.shown(tls.peer_cert_chain_der().unwrap_or_default())?;
        Some(Arc::new(shown))
    }
}
