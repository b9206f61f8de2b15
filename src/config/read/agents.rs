//! `agents`: whom we believe about agents; and `servers[].identity`, what a server must prove to be.

use std::time::Duration;

use http::HeaderName;

use super::{Around, Names, reference};
use crate::config::fields::{Fields, Value};
use crate::config::values;
use crate::config::{
    AgentClaimsConfig, AgentIssuerConfig, AgentUse, AgentsConfig, AttesterConfig, ServerIdentityConfig, TokenTypes,
};
use crate::identity::agent::embedded::Form;
use crate::identity::agent::{AgentRules, ChainClaim, NonceRule, ScopeSubset, ServerRules};
use crate::policy::rule::AgentSpec;

pub(super) fn agents(value: &Value<'_>, names: &Names<'_>) -> Option<AgentsConfig> {
    let issuer = |v: &Value<'_>| reference(v, "issuer", &names.issuers);
    value.map(|fields| {
        let header = HeaderName::from_static("x-agent-token");
        let header = fields.or("header", header, |v| v.parse(values::own_header));
        let issuers = fields.or("issuers", Vec::new(), |list| {
            list.refuse_repeated("issuer");
            list.some(|v| agent_issuer(v, names))
        });
        let access_tokens = fields.or("access_tokens", Vec::new(), |list| {
            list.refuse_repeated("issuer");
            list.some(|v| agent_claims(v, names))
        });
        let chain_issuers = fields.or("chain_issuers", Vec::new(), |v| v.list(issuer));
        let default = AgentRules::default();
        let max_chain = fields.or("max_chain", default.max_chain, |v| v.whole(1..=16));
        let scope_subset = fields.or("scope_subset", default.scope_subset, |v| {
            v.parse(|text| {
                let words = [("exact", ScopeSubset::Exact), ("hierarchical", ScopeSubset::Hierarchical)];
                values::word(text, &words)
            })
        });
        let known_constraints = fields.or("known_constraints", Vec::new(), |v| v.list(Value::string));
        let attestation = fields.or("attestation", Vec::new(), |list| list.some(|v| attester(v, names)));
        let (issuers, access_tokens) = (issuers?, access_tokens?);
        if issuers.is_empty() && access_tokens.is_empty() {
            fields.map().complain("believes nobody", "name issuers, access_tokens, or both");
            return None;
        }
        Some(AgentsConfig {
            header: header?,
            issuers,
            access_tokens,
            chain_issuers: chain_issuers?,
            rules: AgentRules {
                max_chain: max_chain?,
                scope_subset: scope_subset?,
                known_constraints: known_constraints?,
            },
            attestation: attestation?,
        })
    })
}

fn agent_issuer(value: &Value<'_>, names: &Names<'_>) -> Option<AgentIssuerConfig> {
    value.map(|fields| {
        let issuer = fields.required("issuer", |v| reference(v, "issuer", &names.issuers));
        let audiences = fields.or("audiences", Vec::new(), |v| v.some(Value::string));
        let id_tokens = fields.or("accept_id_tokens", true, Value::flag);
        let own = issuer.clone().into_iter().collect();
        let delegators = fields.or("delegators", own, |v| v.some(|v| reference(v, "issuer", &names.issuers)));
        let chain = chain_claim(fields);
        Some(AgentIssuerConfig {
            issuer: issuer?,
            audiences: audiences?,
            token_types: if id_tokens? { TokenTypes::WithIdTokens } else { TokenTypes::AnyButIdToken },
            delegators: delegators?,
            chain: chain?,
        })
    })
}

fn agent_claims(value: &Value<'_>, names: &Names<'_>) -> Option<AgentClaimsConfig> {
    let words = [("oidc_a", Form::OidcA), ("act", Form::Act), ("entra", Form::Entra)];
    value.map(|fields| {
        let issuer = fields.required("issuer", |v| reference(v, "issuer", &names.issuers));
        let claims = fields.required("claims", |v| v.some(|v| v.parse(|text| values::word(text, &words))));
        let chain = chain_claim(fields);
        Some(AgentClaimsConfig { issuer: issuer?, claims: claims?, chain: chain? })
    })
}

fn chain_claim(fields: &mut Fields<'_, '_>) -> Option<ChainClaim> {
    let words = [("oidc_a", ChainClaim::OidcA), ("ignore", ChainClaim::Ignore)];
    fields.or("delegation_chain", ChainClaim::OidcA, |v| v.parse(|text| values::word(text, &words)))
}

fn attester(value: &Value<'_>, names: &Names<'_>) -> Option<AttesterConfig> {
    let words = [("required", NonceRule::Required), ("optional", NonceRule::Optional)];
    value.map(|fields| {
        let issuer = fields.required("issuer", |v| reference(v, "issuer", &names.issuers));
        let providers = fields.or("providers", Vec::new(), |v| v.list(Value::string));
        let max_age = fields.or("max_age", HOUR, |v| v.duration(Duration::from_secs(1)..=30 * DAY));
        let nonce = fields.or("nonce", NonceRule::Required, |v| v.parse(|text| values::word(text, &words)));
        Some(AttesterConfig { issuer: issuer?, providers: providers?, max_age: max_age?, nonce: nonce? })
    })
}

/// `routes[].agents`.
pub(super) fn agent_use(value: &Value<'_>, names: &Names<'_>) -> Option<AgentUse> {
    let words = [("optional", AgentUse::Optional), ("required", AgentUse::Required)];
    let used = value.parse(|text| values::word(text, &words))?;
    if !names.has_agents {
        value.complain("nobody is believed about agents", "write a section agents, beside issuers");
        return None;
    }
    Some(used)
}

/// `source.agent` of a rule: a condition that holds for everybody is written by leaving it out.
pub(super) fn source(value: &Value<'_>) -> Option<AgentSpec> {
    value.map(|fields| {
        let mut texts = |key: &'static str| fields.or(key, Vec::new(), |v| v.some(Value::string::<Box<str>>));
        let (types, providers, models) = (texts("types"), texts("providers"), texts("models"));
        let (trust_levels, capabilities) = (texts("trust_levels"), texts("capabilities"));
        let instances = texts("instances");
        Some(AgentSpec {
            types: types?,
            providers: providers?,
            models: models?,
            trust_levels: trust_levels?,
            capabilities: capabilities?,
            instances: instances?,
        })
    })
}

/// `servers[].identity`.
pub(super) fn server_identity(
    value: &Value<'_>,
    server: Option<&str>,
    around: &Around<'_>,
) -> Option<ServerIdentityConfig> {
    value.map(|fields| {
        let issuer = fields.required("issuer", |v| reference(v, "issuer", &around.names.issuers));
        let url = fields.required("url", |v| {
            v.parse(|text| values::callable_url(text, around.plain_http_hosts).map(|_| text.to_owned()))
        });
        let header = fields.optional("header", |v| v.parse(values::own_header));
        let name = fields.or("name", server.unwrap_or_default().into(), Value::string::<Box<str>>);
        let audience = fields.or("audience", around.public_url.into(), Value::string::<Box<str>>);
        let mut texts = |key: &'static str| fields.or(key, Vec::new(), |v| v.list(Value::string::<Box<str>>));
        let (versions, trust_levels) = (texts("versions"), texts("trust_levels"));
        let capabilities = texts("capabilities");
        let refresh = fields.or("refresh", 5 * MINUTE, |v| v.duration(Duration::from_secs(1)..=DAY));
        let required = fields.or("required", true, Value::flag);
        Some(ServerIdentityConfig {
            issuer: issuer?,
            url: url?,
            header: header?,
            rules: ServerRules {
                name: name?,
                audience: audience?,
                versions: versions?,
                trust_levels: trust_levels?,
                capabilities: capabilities?,
            },
            refresh: refresh?,
            required: required?,
        })
    })
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
