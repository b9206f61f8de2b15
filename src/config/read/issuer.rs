//! `issuers`: who may vouch for a person.

use std::time::Duration;

use crate::config::fields::Value;
use crate::config::problem::Complaint;
use crate::config::secrets::{self, Keep, Look};
use crate::config::values::{self, quote};
use crate::config::{IssuerConfig, JwksSource, TokenTypes};
use crate::identity::Algorithm;

pub(super) fn issuer(value: &Value<'_>, plain_http_hosts: &[String], look: Look<'_>) -> Option<IssuerConfig> {
    value.map(|fields| {
        let name = fields.required("name", |v| v.parse(values::name));
        let issuer = fields.required("issuer", |v| v.parse(|text| issuer_identifier(text, plain_http_hosts)));
        let audiences = fields.or("audiences", Vec::new(), |v| v.some(Value::string));
        let algorithms = fields.or("algorithms", DEFAULT_ALGORITHMS.to_vec(), |v| v.some(|v| v.parse(algorithm)));
        let jwks = fields.or("jwks", JwksSource::Discover, |v| jwks(v, plain_http_hosts, look));
        let clock_leeway = fields.or("clock_leeway", seconds(30), |v| v.duration(seconds(0)..=seconds(300)));
        let scope_claims = fields.or("scope_claims", vec!["scope".into(), "scp".into()], |v| v.some(Value::string));
        let at_jwt = fields.or("require_at_jwt", false, Value::flag);
        let id_tokens = fields.or("accept_id_tokens", false, Value::flag);
        let jwks_refresh = fields.or("jwks_refresh", seconds(300), |v| v.duration(seconds(10)..=seconds(86_400)));
        let jwks_cooldown = fields.or("jwks_cooldown", seconds(30), |v| v.duration(seconds(1)..=seconds(3600)));
        let token_types = match (at_jwt?, id_tokens?) {
            (false, false) => TokenTypes::AnyButIdToken,
            (false, true) => TokenTypes::WithIdTokens,
            (true, false) => TokenTypes::AccessTokenOnly,
            (true, true) => {
                fields
                    .map()
                    .follow("accept_id_tokens")
                    .complain("contradicts require_at_jwt: an ID token is no at+jwt", "set at most one of the two");
                return None;
            }
        };
        Some(IssuerConfig {
            name: name?.into(),
            issuer: issuer?.into(),
            audiences: audiences?,
            algorithms: algorithms?,
            jwks: jwks?,
            clock_leeway: clock_leeway?,
            scope_claims: scope_claims?,
            token_types,
            jwks_refresh: jwks_refresh?,
            jwks_cooldown: jwks_cooldown?,
        })
    })
}

/// An issuer that is named by nothing but its URL.
pub(super) fn of_its_own(name: &str, issuer: &str) -> IssuerConfig {
    IssuerConfig {
        name: name.into(),
        issuer: issuer.into(),
        audiences: Vec::new(),
        algorithms: DEFAULT_ALGORITHMS.to_vec(),
        jwks: JwksSource::Discover,
        clock_leeway: seconds(30),
        scope_claims: vec!["scope".into(), "scp".into()],
        token_types: TokenTypes::AnyButIdToken,
        jwks_refresh: seconds(300),
        jwks_cooldown: seconds(30),
    }
}

/// RFC 8414 §2: an https URL without query and fragment; kept as written, since `iss` is compared exactly.
pub(super) fn issuer_identifier<'a>(text: &'a str, plain_http_hosts: &[String]) -> Result<&'a str, Complaint> {
    let url = values::callable_url(text, plain_http_hosts)?;
    if url.query.is_some() {
        let hint = "write exactly what the issuer puts into iss";
        return Err(Complaint::new(format!("{} has a query", quote(text)), hint));
    }
    Ok(text)
}

fn jwks(value: &Value<'_>, plain_http_hosts: &[String], look: Look<'_>) -> Option<JwksSource> {
    value.map(|fields| {
        let (key, source) = fields.exactly_one(&["discover", "file", "url"])?;
        match key {
            "file" => secrets::path(&source, look, Keep::Public).map(JwksSource::File),
            "url" => source
                .parse(|text| values::callable_url(text, plain_http_hosts).map(|_| JwksSource::Url(text.to_owned()))),
            _ if source.flag()? => Some(JwksSource::Discover),
            _ => {
                source.complain("keys must come from somewhere", "write discover: true, url: URL or file: PATH");
                None
            }
        }
    })
}

fn algorithm(text: &str) -> Result<Algorithm, Complaint> {
    let hint = format!("write some of {}", ALGORITHMS.map(|(name, _)| name).join(", "));
    if text.eq_ignore_ascii_case("none") {
        return Err(Complaint::new("\"none\" would accept tokens that nobody signed", hint));
    }
    if matches!(text, "HS256" | "HS384" | "HS512") {
        let message = format!("{text} is never accepted: whoever can check such a token can also make one");
        return Err(Complaint::new(message, hint));
    }
    values::word(text, &ALGORITHMS)
}

const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

const DEFAULT_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
