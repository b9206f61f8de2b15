//! Who vouches for the servers of the TLS row? An authority that exists for one measurement.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The name on the one certificate.
pub const SERVER_NAME: &str = "localhost";

/// Writes `authority.pem`, `certificate.pem` and `certificate.key` (ECDSA P-256, for [`SERVER_NAME`] and 127.0.0.1).
pub fn write(dir: &Path, write_private: impl Fn(&Path, &str)) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    std::fs::write(dir.join("authority.pem"), authority.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([SERVER_NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("certificate.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    write_private(&dir.join("certificate.key"), &key.serialize_pem());
}

/// Accepts TLS with this certificate.
pub fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}
