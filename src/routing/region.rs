//! Where is the caller? The first of a claim, a trusted proxy's header, a table of networks and a MaxMind database that knows.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use maxminddb::Reader;
use serde::Deserialize;
use serde_json::{Map, Value};

/// `region:`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionSpec {
    /// A claim whose value is a region: an exact top-level name if the token has one, else a dotted path.
    pub claim: Option<Box<str>>,
    /// A header whose value is a region; counts only from a trusted proxy.
    pub header: Option<HeaderName>,
    /// Networks; of several that hold an address the longest prefix counts.
    pub networks: Vec<(IpNet, Arc<str>)>,
    /// A database of addresses.
    pub maxmind: Option<MaxMindSpec>,
}

/// `region.maxmind:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxMindSpec {
    /// A file in MaxMind's DB format 2.0 with `country.iso_code` or `continent.code`, as GeoLite2 Country.
    pub file: PathBuf,
    /// ISO 3166-1 code of a country → region.
    pub countries: BTreeMap<Box<str>, Arc<str>>,
    /// Code of a continent → region, where the country has none.
    pub continents: BTreeMap<Box<str>, Arc<str>>,
}

/// What finds out where callers are.
#[derive(Debug)]
pub struct Locator {
    claim: Option<Box<str>>,
    header: Option<HeaderName>,
    /// Longest prefix first.
    networks: Box<[(IpNet, Arc<str>)]>,
    maxmind: Option<(MaxMindSpec, Arc<Atlas>)>,
}

/// What may say where a caller is.
#[derive(Clone, Copy, Debug)]
pub struct Signs<'a> {
    /// Of the caller's token.
    pub claims: &'a Map<String, Value>,
    /// The value of [`Locator::header`], if a trusted proxy sent it.
    pub header: Option<&'a HeaderValue>,
    /// Where the request came from, behind trusted proxies.
    pub ip: Option<IpAddr>,
}

impl Locator {
    /// Prepares what `spec` says. `atlas` holds the database of `spec.maxmind`, and is read again when it changes.
    #[must_use]
    pub fn new(spec: &RegionSpec, atlas: Arc<Atlas>) -> Self {
        let mut networks = spec.networks.clone();
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Self {
            claim: spec.claim.clone(),
            header: spec.header.clone(),
            networks: networks.into(),
            maxmind: spec.maxmind.clone().map(|maxmind| (maxmind, atlas)),
        }
    }

    /// The header that a trusted proxy may send.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        self.header.as_ref()
    }

    /// Where the database is, and what holds it.
    #[must_use]
    pub fn atlas(&self) -> Option<(&MaxMindSpec, &Arc<Atlas>)> {
        self.maxmind.as_ref().map(|(spec, atlas)| (spec, atlas))
    }

    /// Where the caller is: what the first source says that says anything; `None` when none does.
    ///
    /// A claim or header counts only as one word of letters, digits, `.`, `_` and `-`, at most 64 long; a list of several
    /// regions, or anything else, says nothing.
    #[must_use]
    pub fn locate(&self, signs: Signs<'_>) -> Option<Arc<str>> {
        let claimed = || {
            let value = claim(signs.claims, self.claim.as_deref()?)?;
            word(value.as_str()?)
        };
        let sent = || word(signs.header?.to_str().ok()?);
        let listed = || {
            let ip = signs.ip?;
            self.networks.iter().find(|(network, _)| network.contains(&ip)).map(|(_, region)| Arc::clone(region))
        };
        let found = || {
            let (spec, atlas) = self.maxmind.as_ref()?;
            spec.region(&atlas.codes(signs.ip?)?)
        };
        claimed().or_else(sent).or_else(listed).or_else(found)
    }
}

impl MaxMindSpec {
    fn region(&self, codes: &Codes) -> Option<Arc<str>> {
        let of =
            |code: &Option<Box<str>>, regions: &BTreeMap<Box<str>, Arc<str>>| regions.get(code.as_deref()?).cloned();
        of(&codes.country, &self.countries).or_else(|| of(&codes.continent, &self.continents))
    }
}

/// A database of addresses, which another may take the place of at any time.
#[derive(Default)]
pub struct Atlas(ArcSwapOption<Reader<Vec<u8>>>);

/// Bytes are no database in MaxMind's format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAtlas(String);

/// What a database says of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Codes {
    country: Option<Box<str>>,
    continent: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    country: Option<Country<'a>>,
    #[serde(borrow, default)]
    continent: Option<Continent<'a>>,
}

#[derive(Deserialize)]
struct Country<'a> {
    #[serde(default)]
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Continent<'a> {
    #[serde(default)]
    code: Option<&'a str>,
}

impl Atlas {
    /// Takes another database in.
    ///
    /// # Errors
    /// [`NoAtlas`]; the one before stays.
    pub fn take_in(&self, bytes: Vec<u8>) -> Result<(), NoAtlas> {
        let reader = Reader::from_source(bytes).map_err(|error| NoAtlas(error.to_string()))?;
        self.0.store(Some(Arc::new(reader)));
        Ok(())
    }

    /// Whether there is a database.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.load().is_some()
    }

    fn codes(&self, ip: IpAddr) -> Option<Codes> {
        let reader = self.0.load();
        let found = reader.as_ref()?.lookup(ip).ok()?;
        let entry: Entry<'_> = found.decode().ok()??;
        let boxed = |code: &str| Box::from(code);
        Some(Codes {
            country: entry.country.and_then(|country| country.iso_code).map(boxed),
            continent: entry.continent.and_then(|continent| continent.code).map(boxed),
        })
    }
}

impl fmt::Debug for Atlas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Atlas").field("is_there", &self.is_there()).finish()
    }
}

/// The claim of that name: exactly, or at the end of a dotted path.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut steps = name.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}

/// A region as somebody may name it.
fn word(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (!text.is_empty() && text.len() <= WORD_BYTES_MAX && text.chars().all(is_word)).then(|| text.into())
}

/// The longest name of a region.
pub const WORD_BYTES_MAX: usize = 64;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn locator(spec: &RegionSpec) -> Locator {
        Locator::new(spec, Arc::default())
    }

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn spec() -> RegionSpec {
        RegionSpec {
            claim: Some("geo.region".into()),
            header: Some(HeaderName::from_static("x-region")),
            networks: vec![
                ("10.0.0.0/8".parse().unwrap(), "us".into()),
                ("10.1.0.0/16".parse().unwrap(), "eu".into()),
                ("2001:db8::/32".parse().unwrap(), "ap".into()),
            ],
            maxmind: None,
        }
    }

    #[test]
    fn the_first_source_that_knows_decides() {
        let locator = locator(&spec());
        let (claimed, silent) = (claims(json!({ "geo": { "region": "eu" } })), Map::new());
        let (header, other) = (HeaderValue::from_static("us"), HeaderValue::from_static("ap"));
        let ip = Some("10.9.9.9".parse().unwrap());
        let region = |claims, header, ip| locator.locate(Signs { claims, header, ip });
        assert_eq!(region(&claimed, Some(&header), ip).as_deref(), Some("eu"));
        assert_eq!(region(&silent, Some(&other), ip).as_deref(), Some("ap"));
        assert_eq!(region(&silent, None, ip).as_deref(), Some("us"));
        assert_eq!(region(&silent, None, None), None);
    }

    #[test]
    fn of_networks_the_longest_prefix_counts() {
        let locator = locator(&spec());
        let none = Map::new();
        for (ip, region) in
            [("10.1.2.3", Some("eu")), ("10.2.3.4", Some("us")), ("2001:db8::1", Some("ap")), ("192.0.2.1", None)]
        {
            let signs = Signs { claims: &none, header: None, ip: Some(ip.parse().unwrap()) };
            assert_eq!(locator.locate(signs).as_deref(), region, "{ip}");
        }
    }

    /// Residency: what cannot be one region is none, and the next source is asked.
    #[test]
    fn a_claim_that_is_no_word_says_nothing() {
        let locator = locator(&RegionSpec { claim: Some("region".into()), ..RegionSpec::default() });
        for claimed in [json!(["eu", "us"]), json!("eu us"), json!(""), json!(7), json!("e".repeat(65)), json!("eu,us")]
        {
            let claims = claims(json!({ "region": claimed }));
            assert_eq!(locator.locate(Signs { claims: &claims, header: None, ip: None }), None, "{claims:?}");
        }
    }

    #[test]
    fn what_is_no_database_takes_no_databases_place() {
        let atlas = Atlas::default();
        assert!(atlas.take_in(b"no database".to_vec()).is_err());
        assert!(!atlas.is_there());
    }
}
