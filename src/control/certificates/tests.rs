//! When is a changed file taken, and what if it is no good?
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

#[test]
fn a_changed_pair_is_taken_when_it_has_settled() {
    let dir = files();
    let certificates = loaded(&dir);
    let first = shown(&certificates);
    certificates.look();
    assert_eq!(shown(&certificates), first, "nothing has changed");

    let (certificate, key) = pair();
    write(&dir, "cert.pem", &certificate);
    certificates.look();
    write(&dir, "key.pem", &key);
    certificates.look();
    assert_eq!(shown(&certificates), first, "the files were still changing");
    certificates.look();

    assert_ne!(shown(&certificates), first);
    assert_eq!(reloads(&certificates), [r#"{listener="127.0.0.1:1",outcome="applied"} 1"#]);
}

#[test]
fn a_bad_pair_keeps_the_last_good_one_and_is_counted_once() {
    let dir = files();
    let certificates = loaded(&dir);
    let first = shown(&certificates);
    let (certificate, key) = pair();

    write(&dir, "cert.pem", &certificate);
    (0..4).for_each(|_| certificates.look());
    assert_eq!(shown(&certificates), first, "its key is still the old one");
    assert_eq!(reloads(&certificates), [r#"{listener="127.0.0.1:1",outcome="refused"} 1"#]);

    write(&dir, "key.pem", &key);
    (0..2).for_each(|_| certificates.look());
    assert_ne!(shown(&certificates), first, "a later good one is taken");

    let second = shown(&certificates);
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    (0..3).for_each(|_| certificates.look());
    assert_eq!(shown(&certificates), second, "a missing file changes nothing");
}

#[test]
fn a_key_that_others_may_read_is_not_taken() {
    let dir = files();
    let certificates = loaded(&dir);
    fs::set_permissions(dir.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = certificates.prepare(&listen(&dir)).err().unwrap();
    assert_eq!(refused.cause, "can be read or written by others");
}

#[test]
fn what_is_prepared_is_in_force_only_when_applied() {
    let dir = files();
    let certificates = loaded(&dir);
    let first = shown(&certificates);
    let (certificate, key) = pair();
    write(&dir, "cert.pem", &certificate);
    write(&dir, "key.pem", &key);
    let prepared = certificates.prepare(&listen(&dir)).unwrap();
    assert_eq!(shown(&certificates), first);
    certificates.apply(prepared);
    assert_ne!(shown(&certificates), first);
    (0..3).for_each(|_| certificates.look());
    assert_eq!(reloads(&certificates), [r#"{listener="127.0.0.1:1",outcome="applied"} 1"#], "read once");
}

#[test]
fn the_expiry_is_told_as_a_number() {
    let dir = files();
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2027, 1, 15);
    let key = KeyPair::generate().unwrap();
    write(&dir, "cert.pem", &params.self_signed(&key).unwrap().pem());
    write(&dir, "key.pem", &key.serialize_pem());
    let certificates = loaded(&dir);
    let page = String::from_utf8(certificates.metrics.render()).unwrap();
    let line = r#"portcullis_tls_certificate_not_after_seconds{listener="127.0.0.1:1"} 1799971200"#;
    assert!(page.lines().any(|found| found == line), "{page}");
}

fn files() -> TempDir {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = pair();
    write(&dir, "cert.pem", &certificate);
    write(&dir, "key.pem", &key);
    dir
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Replaces a file as a careful program does: another inode under the same name.
fn write(dir: &TempDir, name: &str, text: &str) {
    let (path, next) = (dir.path().join(name), dir.path().join("next"));
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

fn listen(dir: &TempDir) -> Vec<Listen> {
    let (certificate, private_key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let tls = Some(ListenTls { certificate, private_key, client_ca: None });
    vec![Listen { address: "127.0.0.1:1".parse().unwrap(), tls }]
}

fn loaded(dir: &TempDir) -> Certificates {
    let metrics = Arc::new(Metrics::new(prometheus::Registry::new()).unwrap());
    Certificates::load(&listen(dir), metrics, Clock).unwrap()
}

fn shown(certificates: &Certificates) -> CertificateDer<'static> {
    certificates.listeners.first().unwrap().listener.certificate()
}

fn reloads(certificates: &Certificates) -> Vec<String> {
    let page = String::from_utf8(certificates.metrics.render()).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("portcullis_tls_certificate_reloads_total"));
    lines.map(str::to_owned).collect()
}
