//! Who was it, once the token has been believed?

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::time::UnixSeconds;

/// A person or service: the pair (issuer, subject). Neither half means anything alone (RFC 7519 §4.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// `iss`, exactly as in the token.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Arc<str>,
}

/// Scopes, sorted and without duplicates. Compared exactly: case counts, no prefixes (RFC 6749 §3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(Arc<[Box<str>]>);

impl Scopes {
    /// Sorts and deduplicates.
    pub fn new<S: Into<Box<str>>>(scopes: impl IntoIterator<Item = S>) -> Self {
        let mut scopes: Vec<Box<str>> = scopes.into_iter().map(Into::into).collect();
        scopes.retain(|scope| !scope.is_empty());
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes.into())
    }

    /// Whether `scope` is among them.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.0.binary_search_by(|held| (**held).cmp(scope)).is_ok()
    }

    /// How many of `self` are not among `held`.
    #[must_use]
    pub fn missing_from(&self, held: &Self) -> usize {
        self.iter().filter(|scope| !held.contains(scope)).count()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The one at `index` in sorted order.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(|scope| &**scope)
    }

    /// In sorted order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|scope| &**scope)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The proof that a request is authenticated. Made by `identity::jwt::verify` and nowhere else.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) principal: Principal,
    pub(super) issuer_name: Arc<str>,
    pub(super) client_id: Option<Arc<str>>,
    pub(super) token_id: Option<Arc<str>>,
    pub(super) scopes: Scopes,
    pub(super) claims: Map<String, Value>,
    pub(super) expires_at: UnixSeconds,
    pub(super) key: Box<str>,
    pub(super) clock_leeway: Duration,
}

/// Somebody who might call: what is asked about when people want to know what a rule would say. No proof of anything, so
/// it does not turn into a [`Caller`]: only [`crate::policy::explain`] looks inside.
#[derive(Clone, Debug)]
pub struct Imagined(Caller);

impl Imagined {
    /// Somebody with these claims, out of which the scopes have been taken.
    #[must_use]
    pub fn new(principal: Principal, scopes: Scopes, claims: Map<String, Value>) -> Self {
        Self(Caller {
            principal,
            issuer_name: "imagined".into(),
            client_id: None,
            token_id: None,
            scopes,
            claims,
            expires_at: UnixSeconds(u64::MAX),
            key: "".into(),
            clock_leeway: Duration::ZERO,
        })
    }

    /// Who they would be.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// As rules see them.
    pub(crate) fn as_rules_see_them(&self) -> &Caller {
        &self.0
    }
}

impl Caller {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The configured name of the issuer, for metrics and rules.
    #[must_use]
    pub fn issuer_name(&self) -> &Arc<str> {
        &self.issuer_name
    }

    /// `client_id`, or `azp` where the issuer uses that.
    #[must_use]
    pub fn client_id(&self) -> Option<&Arc<str>> {
        self.client_id.as_ref()
    }

    /// `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&Arc<str>> {
        self.token_id.as_ref()
    }

    /// The union of the issuer's scope claims.
    #[must_use]
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Every claim but the scope claims.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// `exp`: the token is not believed from this second on (clock leeway aside).
    #[must_use]
    pub fn expires_at(&self) -> UnixSeconds {
        self.expires_at
    }

    /// The thumbprint of the key that signed the token: when that key leaves the JWKS, this proof ends.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The tolerance its issuer's clock has: what else is dated in the token is held against it too.
    #[must_use]
    pub fn clock_leeway(&self) -> Duration {
        self.clock_leeway
    }

    /// A caller made up for a unit test.
    #[cfg(test)]
    pub(crate) fn for_test(scopes: &[&str], claims: Map<String, Value>) -> Self {
        Self {
            principal: Principal { issuer: "https://idp.test".into(), subject: "alice".into() },
            issuer_name: "test".into(),
            client_id: None,
            token_id: None,
            scopes: Scopes::new(scopes.iter().copied()),
            claims,
            expires_at: UnixSeconds(u64::MAX),
            key: "test".into(),
            clock_leeway: Duration::ZERO,
        }
    }

    /// The same with another name, through this client.
    #[cfg(test)]
    pub(crate) fn named_for_test(mut self, subject: &str, client: &str) -> Self {
        self.principal.subject = subject.into();
        self.client_id = (!client.is_empty()).then(|| client.into());
        self
    }
}
