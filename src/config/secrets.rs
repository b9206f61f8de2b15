//! Where is a secret, and may it be used? Sources (`file`, `env`, `credential`) read through [`Machine`], and the checks that
//! keep missing, sample and world-readable secrets out (invariant 13).
//!
//! No complaint from here contains any part of a secret.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls::pki_types::CertificateDer;

use super::fields::Value;
use super::pem::{self, PemError};
use super::values::quote;
use crate::secret::Secret;

/// What the reader may ask of the machine it runs on; injected, so that reading a configuration has no IO of its own.
pub trait Machine {
    /// Reads a file whole.
    ///
    /// # Errors
    /// A few words that follow the file's name: `does not exist`.
    fn read(&self, path: &Path) -> Result<FoundFile, String>;

    /// An environment variable, if it is set and UTF-8.
    fn env(&self, name: &str) -> Option<Secret<String>>;

    /// CPU cores this process may use; at least 1.
    fn cores(&self) -> usize;
}

/// A file and who may read it.
#[derive(Clone, Debug)]
pub struct FoundFile {
    /// Everything in it.
    pub bytes: Secret<Vec<u8>>,
    /// Unix permission bits; `None` where there are none.
    pub mode: Option<u32>,
}

/// Whether files and secrets the configuration names are looked at.
#[derive(Clone, Copy)]
pub(super) enum Look<'m> {
    /// They must be there and good.
    Inside(&'m dyn Machine),
    /// Only their sources are checked for form, as for a file of another machine. What is read this way must not run.
    ShapeOnly,
}

impl Look<'_> {
    pub(super) fn cores(self) -> usize {
        match self {
            Self::Inside(machine) => machine.cores(),
            Self::ShapeOnly => 1,
        }
    }
}

/// Reads `{ file: PATH }`, `{ env: NAME }` or `{ credential: NAME }`: one line of text.
pub(super) fn text(value: &Value<'_>, look: Look<'_>) -> Option<Secret<String>> {
    let bytes = source(value, look)?;
    let Some(bytes) = bytes else {
        return Some(Secret::new("not-read".to_owned()));
    };
    let text = std::str::from_utf8(bytes.expose()).ok().map(|text| text.trim_end_matches(['\r', '\n']));
    let Some(text) = text.filter(|text| !text.chars().any(char::is_control)) else {
        value.complain("the secret is not one line of text", "write it without line breaks and control characters");
        return None;
    };
    if text.trim().is_empty() {
        value.complain("the secret is empty", "put the secret there");
        return None;
    }
    let word: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    if SAMPLES.contains(&word.to_ascii_lowercase().as_str()) || word.is_empty() {
        value.complain(
            "the secret is a sample value that everybody knows",
            "ask the issuer of the secret for a real one",
        );
        return None;
    }
    Some(Secret::new(text.to_owned()))
}

/// Reads a session key: 32 bytes in base64, either alphabet, padded or not.
pub(super) fn session_key(value: &Value<'_>, look: Look<'_>) -> Option<Secret<[u8; 32]>> {
    let Some(bytes) = source(value, look)? else {
        return Some(Secret::new([0; 32]));
    };
    let text = bytes.expose().trim_ascii();
    if text.is_empty() {
        value.complain("the key is empty", KEYGEN_HINT);
        return None;
    }
    let decoded = BASE64.decode(text).or_else(|_| BASE64_URL.decode(text)).map(Secret::new);
    let key: Option<[u8; 32]> = decoded.ok().and_then(|key| key.expose().as_slice().try_into().ok());
    let Some(key) = key.map(Secret::new) else {
        value.complain("the key is not 32 bytes in base64", KEYGEN_HINT);
        return None;
    };
    if !looks_random(key.expose()) {
        value.complain("the key is a sample: its bytes are not random", KEYGEN_HINT);
        return None;
    }
    Some(key)
}

const KEYGEN_HINT: &str = "make one with: (umask 077; portcullis keygen > FILE)";

/// 32 random bytes have fewer than 16 distinct values, or rise by the same step throughout, about never; keys made up by
/// hand (zeros, a repeated word, 0 to 31) do.
fn looks_random(key: &[u8; 32]) -> bool {
    let distinct: BTreeSet<u8> = key.iter().copied().collect();
    let steps: BTreeSet<u8> = key.iter().zip(key.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a)).collect();
    distinct.len() >= 16 && steps.len() > 2
}

/// Reads the path of a file that must be there; with `private`, nobody but its owner may read it.
pub(super) fn path(value: &Value<'_>, look: Look<'_>, keep: Keep) -> Option<PathBuf> {
    let path = PathBuf::from(value.text()?);
    let found = match look {
        Look::ShapeOnly => return Some(path),
        Look::Inside(machine) => machine.read(&path),
    };
    let bytes = found_file(value, &path, found, keep)?;
    if bytes.expose().is_empty() {
        value.complain(format!("{} is empty", quote(&path.to_string_lossy())), "write the file, or name another");
        return None;
    }
    Some(path)
}

/// Reads the path of a PEM file that must be there, and what `parse` finds in it; `None` inside when nothing is looked at.
pub(super) fn pem<T>(
    value: &Value<'_>,
    look: Look<'_>,
    keep: Keep,
    parse: fn(&[u8]) -> Result<T, PemError>,
) -> Option<(PathBuf, Option<T>)> {
    let path = PathBuf::from(value.text()?);
    let found = match look {
        Look::ShapeOnly => return Some((path, None)),
        Look::Inside(machine) => machine.read(&path),
    };
    let bytes = found_file(value, &path, found, keep)?;
    match parse(bytes.expose()) {
        Ok(parsed) => Some((path, Some(parsed))),
        Err(error) => {
            value.complain(format!("{} {error}", quote(&path.to_string_lossy())), PEM_HINT);
            None
        }
    }
}

/// Reads a certificate chain and its key, each a file of its own, and whether they go together.
pub(super) fn key_pair(
    certificate: Option<(PathBuf, Option<Vec<CertificateDer<'static>>>)>,
    key: Option<(PathBuf, Option<Secret<Vec<u8>>>)>,
    key_place: &Value<'_>,
) -> Option<(PathBuf, PathBuf)> {
    let ((certificate, chain), (key, der)) = (certificate?, key?);
    if let (Some(chain), Some(der)) = (chain, der)
        && let Err(error) = pem::certified_key(chain, &der)
    {
        let message = format!("{} {error} in {}", quote(&key.to_string_lossy()), quote(&certificate.to_string_lossy()));
        key_place.complain(message, "put the certificate that belongs to the key first, and its issuers after it");
        return None;
    }
    Some((certificate, key))
}

const PEM_HINT: &str = "write it in PEM: lines between BEGIN and END";

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its owner alone.
    Private,
    /// Anybody on the machine.
    Public,
}

/// The bytes behind a source; `None` inside when nothing is looked at.
fn source(value: &Value<'_>, look: Look<'_>) -> Option<Option<Secret<Vec<u8>>>> {
    if matches!(value.kind(), super::yaml::Kind::Text(_)) {
        let hint = "keep secrets out of this file: write { file: PATH }, { env: NAME } or { credential: NAME }";
        value.complain("must be a map, not the secret itself", hint);
        return None;
    }
    let (kind, name) = value.map(|fields| {
        let (kind, value) = fields.exactly_one(&["file", "env", "credential"])?;
        Some((kind, value.text().map(|_| value)?))
    })?;
    let text = name.text()?;
    if kind == "credential" && (text.contains('/') || text.starts_with('.')) {
        name.complain(format!("{} is not a credential's name", quote(text)), "write the name given to LoadCredential=");
        return None;
    }
    let Look::Inside(machine) = look else {
        return Some(None);
    };
    if kind == "env" {
        let found = machine.env(text);
        if found.is_none() {
            name.complain(
                format!("the environment has no {}", quote(text)),
                "set it in the unit or shell that starts this",
            );
        }
        return found.map(|text| Some(Secret::new(text.expose().clone().into_bytes())));
    }
    let (path, keep) = if kind == "file" {
        (PathBuf::from(text), Keep::Private)
    } else {
        let Some(directory) = machine.env("CREDENTIALS_DIRECTORY") else {
            let message = format!("no credential {}: CREDENTIALS_DIRECTORY is not set", quote(text));
            name.complain(message, format!("start it with systemd and LoadCredential={text}:PATH"));
            return None;
        };
        // systemd keeps the directory to the service alone, and shows the mask of its access list as the group's bits.
        (Path::new(directory.expose()).join(text), Keep::Public)
    };
    found_file(&name, &path, machine.read(&path), keep).map(Some)
}

fn found_file(value: &Value<'_>, path: &Path, found: Result<FoundFile, String>, keep: Keep) -> Option<Secret<Vec<u8>>> {
    let shown = path.to_string_lossy();
    match found {
        Err(why) => {
            value.complain(format!("{} {why}", quote(&shown)), "name a file that this user can read");
            None
        }
        Ok(FoundFile { mode: Some(mode), .. }) if keep == Keep::Private && mode & 0o077 != 0 => {
            let message = format!("{} can be read or written by others (mode {:04o})", quote(&shown), mode & 0o7777);
            value.complain(message, format!("run: chmod 600 {shown}"));
            None
        }
        Ok(file) => Some(file.bytes),
    }
}

/// Words that stand in documentation where a secret belongs; compared in lower case, letters and digits only.
const SAMPLES: [&str; 24] = [
    "admin",
    "changeit",
    "changeme",
    "changemeplease",
    "clientsecret",
    "default",
    "demo",
    "dummy",
    "example",
    "examplesecret",
    "insecure",
    "mysecret",
    "password",
    "placeholder",
    "replaceme",
    "sample",
    "samplesecret",
    "secret",
    "supersecret",
    "test",
    "testsecret",
    "todo",
    "yourclientsecret",
    "yoursecrethere",
];

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);
