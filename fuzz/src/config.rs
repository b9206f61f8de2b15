//! Is every configuration text read or refused, and what is accepted sound?
//!
//! Input: the text of a configuration file.

use std::path::Path;

use portcullis::config::{Config, FoundFile, JwksSource, Machine, Problem, read, read_shape, rule_issues};
use portcullis::secret::Secret;

/// Reads both ways, with the rules compiled.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let whole = read(text, &Host, &rule_issues);
    let shape = read_shape(text, &rule_issues);
    match (&whole, &shape) {
        (Ok(config), shape) => {
            assert_eq!(shape.as_ref().ok(), Some(&config.summary()), "good with its secrets, bad without");
            sound(config);
        }
        (Err(problems), Err(of_shape)) => {
            told_well(problems, text);
            told_well(of_shape, text);
        }
        (Err(problems), Ok(_)) => told_well(problems, text),
    }
    assert_eq!(whole.err(), read(text, &Host, &rule_issues).err(), "read twice, told differently");
}

/// What everything behind the reader relies on.
fn sound(config: &Config) {
    assert!(!config.listen.is_empty() && !config.session.keys.is_empty());
    assert!(!config.issuers.is_empty() && !config.servers.is_empty() && !config.routes.is_empty());
    assert!(config.server.threads > 0 && config.audit.queue > 0);
    let limits = &config.limits;
    let bounds = [limits.body_bytes, limits.json_depth, limits.sse_event_bytes, limits.list_bytes, limits.header_bytes];
    assert!(!bounds.contains(&0) && limits.batch_messages > 0);
    for issuer in &config.issuers {
        assert!(!issuer.algorithms.is_empty());
        if let JwksSource::Url(url) = &issuer.jwks {
            assert!(url.starts_with("https://") || url.starts_with("http://"));
        }
    }
    for server in &config.servers {
        assert!(!server.instances.is_empty() && server.path.starts_with('/'));
        let mut ids: Vec<_> = server.instances.iter().map(|instance| &instance.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), server.instances.len(), "two instances with one id");
    }
    for route in &config.routes {
        assert!(route.path.starts_with('/') && route.resource.ends_with(&*route.path));
        assert!(route.servers.iter().all(|name| config.servers.iter().any(|server| server.name == *name)));
        assert!(route.issuers.iter().all(|name| config.issuers.iter().any(|issuer| issuer.name == *name)));
        assert!(!route.servers.is_empty() && !route.issuers.is_empty());
        assert_eq!(rule_issues(route), []);
    }
}

/// A refusal says what is wrong, where, on one line, and shows no secret.
fn told_well(problems: &[Problem], text: &str) {
    assert!(!problems.is_empty());
    let lines = text.split(['\n', '\r']).count();
    for problem in problems {
        assert!(!problem.message.is_empty() && !problem.hint.is_empty());
        assert!(!problem.to_string().chars().any(|char| char == '\n' || char == '\r'), "{problem:?}");
        // A text that ends too early ends in the line after its last.
        assert!(problem.line <= lines + 1, "{problem:?}");
        let shown = problem.to_string();
        assert!(!SECRETS.iter().any(|secret| shown.contains(secret) && !text.contains(secret)), "{shown}");
    }
}

const SECRETS: [&str; 2] = ["8vcZqg8YJeQ6ysemE4PbeXP+iuDcMKaBPa5yZA3DZgc=", "s3cr3t-of-the-host"];

/// A host that has every file and variable that is asked for.
struct Host;

impl Machine for Host {
    fn read(&self, path: &Path) -> Result<FoundFile, String> {
        let name = path.to_string_lossy();
        let (mode, text) = match &*name {
            _ if name.contains("missing") => return Err("does not exist".to_owned()),
            _ if name.contains("open") => (0o644, SECRETS[0]),
            _ if name.contains("key") => (0o600, SECRETS[0]),
            _ => (0o600, SECRETS[1]),
        };
        Ok(FoundFile { bytes: Secret::new(text.as_bytes().to_vec()), mode: Some(0o100_000 | mode) })
    }

    fn env(&self, name: &str) -> Option<Secret<String>> {
        let value = if name == "CREDENTIALS_DIRECTORY" { "/run/credentials" } else { SECRETS[1] };
        name.starts_with(char::is_uppercase).then(|| Secret::new(value.to_owned()))
    }

    fn cores(&self) -> usize {
        6
    }
}
