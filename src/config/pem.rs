//! Is this file what a TLS endpoint needs? Bytes in, checked certificates and keys out.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::secret::Secret;

/// Why a file does not do. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A certificate is none by X.509, or of a kind that TLS does not use (version 1, unknown critical extension).
    #[error("has a certificate that cannot be read")]
    BadCertificate,
    /// The key is of a kind that is not used in TLS: not RSA of 2048 bits or more, P-256, P-384 or Ed25519.
    #[error("has a private key of a kind that TLS cannot use")]
    BadKey,
    /// The key is another certificate's.
    #[error("is not the key of the first certificate")]
    KeyMismatch,
    /// There is no `BEGIN CERTIFICATE`.
    #[error("has no certificate in it")]
    NoCertificate,
    /// There is no `BEGIN PRIVATE KEY`, `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY`.
    #[error("has no private key in it")]
    NoKey,
    /// The text between `BEGIN` and `END` cannot be read.
    #[error("is not PEM")]
    NotPem,
}

/// Reads certificates, at least one.
///
/// # Errors
/// [`PemError::NoCertificate`], [`PemError::NotPem`], [`PemError::BadCertificate`].
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_malformed| PemError::NotPem)?;
    if certificates.is_empty() {
        return Err(PemError::NoCertificate);
    }
    // Two parsers must agree: rustls verifies with one, Pingora looks into certificates with the other, and panics over
    // those it cannot read (pingora-core 0.9.1, utils/tls/rustls.rs).
    let readable = |der: &CertificateDer<'_>| {
        X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty())
            && rustls::server::ParsedCertificate::try_from(der).is_ok()
    };
    if certificates.iter().all(readable) { Ok(certificates) } else { Err(PemError::BadCertificate) }
}

/// Reads a bundle of authorities, at least one.
///
/// # Errors
/// As [`certificates`].
pub fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_unusable| PemError::BadCertificate)?;
    }
    Ok(Arc::new(roots))
}

/// Reads the first private key.
///
/// # Errors
/// [`PemError::NoKey`], [`PemError::NotPem`], [`PemError::BadKey`].
pub fn private_key(pem: &[u8]) -> Result<Secret<Vec<u8>>, PemError> {
    use rustls::pki_types::pem::Error;
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| if matches!(error, Error::NoItemsFound) { PemError::NoKey } else { PemError::NotPem })?;
    let key = Secret::new(key.secret_der().to_vec());
    // Pingora is given the bytes alone and tells the format by them.
    let recognized = PrivateKeyDer::try_from(key.expose().as_slice()).map_err(|_unknown| PemError::BadKey)?;
    match default_provider().key_provider.load_private_key(recognized.clone_key()) {
        Ok(_usable) => Ok(key),
        Err(_unusable) => Err(PemError::BadKey),
    }
}

/// Puts a chain and the key of its first certificate together.
///
/// # Errors
/// [`PemError::KeyMismatch`], [`PemError::BadKey`].
pub fn certified_key(chain: Vec<CertificateDer<'static>>, key: &Secret<Vec<u8>>) -> Result<CertifiedKey, PemError> {
    let key = PrivateKeyDer::try_from(key.expose().as_slice()).map_err(|_unknown| PemError::BadKey)?;
    CertifiedKey::from_der(chain, key.clone_key(), &default_provider()).map_err(|error| {
        let mismatch = matches!(error, rustls::Error::InconsistentKeys(_));
        if mismatch { PemError::KeyMismatch } else { PemError::BadKey }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;

    #[test]
    fn a_chain_and_its_key_go_together() {
        let (certificate, key) = pair();
        let chain = certificates(certificate.repeat(2).as_bytes()).unwrap();
        assert_eq!(chain.len(), 2);
        let key = private_key(key.as_bytes()).unwrap();
        assert!(certified_key(chain, &key).is_ok());
    }

    #[test]
    fn another_certificates_key_is_refused() {
        let ((certificate, _), (_, other_key)) = (pair(), pair());
        let key = private_key(other_key.as_bytes()).unwrap();
        let together = certified_key(certificates(certificate.as_bytes()).unwrap(), &key);
        assert_eq!(together.unwrap_err(), PemError::KeyMismatch);
    }

    #[test]
    fn a_file_without_what_is_looked_for_is_told_from_a_broken_one() {
        let (certificate, key) = pair();
        let cut = certificate.replace("-----END", "----END");
        let scrambled = certificate.replacen('M', "!", 3);
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, expected) in [
            ("", PemError::NoCertificate),
            ("certificate", PemError::NoCertificate),
            (&*key, PemError::NoCertificate),
            (&*cut, PemError::NotPem),
            (&*scrambled, PemError::NotPem),
            (nonsense, PemError::BadCertificate),
            (&*format!("{certificate}{nonsense}"), PemError::BadCertificate),
        ] {
            assert_eq!(certificates(pem.as_bytes()).unwrap_err(), expected, "{pem}");
            assert_eq!(authorities(pem.as_bytes()).unwrap_err(), expected, "{pem}");
        }
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (pem, expected) in [
            ("", PemError::NoKey),
            (&*certificate, PemError::NoKey),
            (nonsense, PemError::BadKey),
            (&*key.replace("-----END", "----END"), PemError::NotPem),
        ] {
            assert_eq!(private_key(pem.as_bytes()).unwrap_err(), expected, "{pem}");
        }
    }

    /// Cut anywhere, a certificate is refused and nothing panics: what one parser takes, the other may not.
    #[test]
    fn a_certificate_cut_or_changed_anywhere_never_panics() {
        let (certificate, _) = pair();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        for at in 0..der.len() {
            assert!(certificates(as_pem(der.get(..at).unwrap()).as_bytes()).is_err(), "cut at {at}");
            let mut changed = der.to_vec();
            *changed.get_mut(at).unwrap() ^= 0x55;
            if let Ok(taken) = certificates(as_pem(&changed).as_bytes()) {
                let [taken] = <[_; 1]>::try_from(taken).unwrap();
                drop(pingora::utils::tls::WrappedX509::new(taken.to_vec(), pingora::utils::tls::parse_x509));
            }
        }
    }

    #[test]
    fn keys_in_ed25519_do() {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        assert!(private_key(key.serialize_pem().as_bytes()).is_ok());
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn as_pem(der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }
}
