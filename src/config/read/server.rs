//! `servers`: the MCP servers, their instances, and what they get in place of the caller's token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Around, Names, agents, content, governance, routing};
use crate::config::fields::{Fields, Value};
use crate::config::pem;
use crate::config::problem::Complaint;
use crate::config::secrets::{self, Keep, Look};
use crate::config::values::{self, quote};
use crate::config::yaml::Kind;
use crate::config::{Declared, HealthSettings, InstanceConfig, ServerConfig, UpstreamTimeouts, UpstreamTls};
use crate::credential::{ActorToken, ClientAuth, ExchangePlan, Plan};
use crate::routing::rule::OnInstanceLoss;
use crate::secret::Secret;

pub(super) fn server(value: &Value<'_>, around: &Around<'_>, look: Look<'_>) -> Option<ServerConfig> {
    value.map(|fields| {
        let name = fields.required("name", |v| v.parse(values::name));
        let path = fields.or("path", "/mcp", |v| v.parse(values::upstream_path));
        let instances = fields.required("instances", instances);
        let routing = routing::routing(fields, instances.as_deref());
        let circuit = fields.optional("circuit", routing::circuit);
        let on_instance_loss = fields.or("on_instance_loss", OnInstanceLoss::NotFound, routing::on_instance_loss);
        let idempotent = fields.or("idempotent", Vec::new(), routing::idempotent);
        let shadow = fields.optional("shadow", |v| routing::shadow(v, instances.as_deref()));
        let health = health(fields);
        let timeouts = timeouts(fields);
        let tls = fields.or("tls", UpstreamTls::default(), |v| upstream_tls(v, look));
        let http2 = fields.or("http2", false, Value::flag);
        let identity = fields.optional("identity", |v| agents::server_identity(v, name, around));
        let credential = fields.required("credential", |v| credential(v, around, look));
        let forward_claims = fields.or("forward_claims", Vec::new(), forward_claims);
        let content = content::content(fields, around.plain_http_hosts, look);
        let is_registered = around.declared == Declared::InTheRegistry;
        let governed = governance::governed(fields, around.store, is_registered, credential.as_ref(), look);

        // Pingora would hold the certificate against another name, with a hyphen (connectors/tls, replace_leftmost_underscore).
        let named = tls.as_ref().is_some_and(|tls| tls.server_name.is_some());
        let odd = |instance: &InstanceConfig| instance.tls && instance.host.contains('_') && !named;
        if let Some(nth) = instances.as_ref().and_then(|all| all.iter().position(odd)) {
            let place = fields.map().follow(&format!("instances[{nth}].url"));
            place.complain(
                "no certificate names a host with an underscore",
                "write the certificate's name in tls.server_name",
            );
        }
        let all_clear = instances.as_ref().is_some_and(|all| all.iter().all(|instance| !instance.tls));
        if all_clear && tls.as_ref().is_some_and(|tls| *tls != UpstreamTls::default()) {
            let place = fields.map().follow("tls");
            place.complain("no instance is reached over TLS", "write https URLs, or leave tls out");
        }
        if let (Some(Plan::Static { header, .. }), Some(claims)) = (&credential, &forward_claims)
            && claims.iter().any(|(_, taken)| taken == header)
        {
            let place = fields.map().follow("forward_claims");
            place.complain(format!("{header} is the header of the static credential"), "use another header");
        }
        Some(ServerConfig {
            name: name?.into(),
            path: path?.to_owned(),
            instances: instances?,
            routing: routing?,
            circuit: circuit?,
            on_instance_loss: on_instance_loss?,
            idempotent: idempotent?,
            shadow: shadow?,
            health: health?,
            timeouts: timeouts?,
            tls: tls?,
            http2: http2?,
            identity: identity?,
            credential: credential?,
            forward_claims: forward_claims?,
            governed: governed?,
            content: content?,
            declared: around.declared,
        })
    })
}

fn instances(list: &Value<'_>) -> Option<Vec<InstanceConfig>> {
    let instances = list.some(instance)?;
    let (mut ids, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    let mut distinct = true;
    for (nth, instance) in instances.iter().enumerate() {
        if let Some(first) = ids.insert(instance.id.clone(), nth) {
            let message = format!("the id {} is already that of instance {first}", quote(&instance.id));
            list.follow(&format!("[{nth}].id")).complain(message, "each must be different");
            distinct = false;
        }
        if let Some(first) = addresses.insert((instance.host.to_ascii_lowercase(), instance.port), nth) {
            let message = format!("{}:{} is already instance {first}", instance.host, instance.port);
            let hint = "write each address once; weight gives it a larger share";
            list.follow(&format!("[{nth}].url")).complain(message, hint);
            distinct = false;
        }
    }
    distinct.then_some(instances)
}

fn instance(value: &Value<'_>) -> Option<InstanceConfig> {
    value.map(|fields| {
        let url = fields.required("url", |v| v.parse(instance_url));
        let id = fields.optional("id", |v| v.parse(values::name));
        let weight = fields.or("weight", 1, |v| v.whole(1..=1000));
        let traits = routing::traits(fields);
        let (url, port) = url.map(|url| (url.clone(), url.port_or_default()))?;
        let id: Arc<str> = match id? {
            Some(id) => id.into(),
            None => format!("{}:{port}", url.host).into(),
        };
        Some(InstanceConfig { id, tls: url.tls, host: url.host, port, weight: weight?, traits: traits? })
    })
}

fn instance_url(text: &str) -> Result<values::Url, Complaint> {
    let url = values::url(text)?;
    if url.path != "/" || url.query.is_some() {
        let message = format!("{} has a path or query", quote(text));
        return Err(Complaint::new(message, "end it after the port; the path goes into the server's path"));
    }
    Ok(url)
}

fn health(server: &mut Fields<'_, '_>) -> Option<HealthSettings> {
    let default = HealthSettings {
        interval: seconds(5),
        timeout: seconds(1),
        unhealthy_after: 3,
        healthy_after: 1,
        http_path: None,
        mcp: false,
    };
    let Some(section) = server.find("health") else { return Some(default) };
    section.map(|fields| {
        let interval = fields.or("interval", default.interval, |v| v.duration(milliseconds(100)..=seconds(3600)));
        let timeout = fields.or("timeout", default.timeout, |v| v.duration(milliseconds(10)..=seconds(60)));
        let unhealthy_after = fields.or("unhealthy_after", default.unhealthy_after, |v| v.whole(1..=100));
        let healthy_after = fields.or("healthy_after", default.healthy_after, |v| v.whole(1..=100));
        let http_path = fields.optional("http", |v| {
            v.map(|fields| fields.required("path", |v| v.parse(values::upstream_path).map(str::to_owned)))
        });
        let mcp = fields.or("mcp", false, Value::flag);
        if mcp == Some(true) && matches!(http_path, Some(Some(_))) {
            fields.map().follow("mcp").complain("http asks already", "keep one of the two");
            return None;
        }
        Some(HealthSettings {
            interval: interval?,
            timeout: timeout?,
            unhealthy_after: unhealthy_after?,
            healthy_after: healthy_after?,
            http_path: http_path?,
            mcp: mcp?,
        })
    })
}

fn timeouts(server: &mut Fields<'_, '_>) -> Option<UpstreamTimeouts> {
    let default = UpstreamTimeouts {
        connect: seconds(2),
        first_byte: seconds(60),
        idle: seconds(300),
        keepalive: seconds(4),
        total: seconds(12 * 3600),
    };
    let Some(section) = server.find("timeouts") else { return Some(default) };
    section.map(|fields| {
        let connect = fields.or("connect", default.connect, |v| v.duration(milliseconds(10)..=seconds(60)));
        let first_byte = fields.or("first_byte", default.first_byte, |v| v.duration(milliseconds(100)..=DAY));
        let idle = fields.or("idle", default.idle, |v| v.duration(milliseconds(100)..=DAY));
        let keepalive = fields.or("keepalive", default.keepalive, |v| v.duration(milliseconds(100)..=seconds(3600)));
        let total = fields.or("total", default.total, |v| v.duration(seconds(1)..=seconds(30 * 86_400)));
        Some(UpstreamTimeouts {
            connect: connect?,
            first_byte: first_byte?,
            idle: idle?,
            keepalive: keepalive?,
            total: total?,
        })
    })
}

fn upstream_tls(value: &Value<'_>, look: Look<'_>) -> Option<UpstreamTls> {
    value.map(|fields| {
        let ca = fields.optional("ca", |v| secrets::pem(v, look, Keep::Public, pem::authorities));
        let certificate =
            fields.optional("client_certificate", |v| secrets::pem(v, look, Keep::Public, pem::certificates));
        let key = fields.optional("client_key", |v| secrets::pem(v, look, Keep::Private, pem::private_key));
        let server_name = fields.optional("server_name", |v| v.parse(host_name));
        let pair = match (certificate, key) {
            (Some(None), Some(None)) => Some(None),
            (_, Some(None)) => {
                fields.must("client_key", None);
                None
            }
            (Some(None), _) => {
                fields.must("client_certificate", None);
                None
            }
            (certificate, key) => {
                secrets::key_pair(certificate.flatten(), key.flatten(), &fields.map().follow("client_key")).map(Some)
            }
        };
        let (client_certificate, client_key) = pair?.unzip();
        Some(UpstreamTls { ca: ca?.map(|(path, _)| path), client_certificate, client_key, server_name: server_name? })
    })
}

fn host_name(text: &str) -> Result<String, Complaint> {
    if values::is_host(text) && !text.contains('_') {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(format!("{} is not a host name", quote(text)), "write the name in the server's certificate"))
}

fn credential(value: &Value<'_>, around: &Around<'_>, look: Look<'_>) -> Option<Plan> {
    const HINT: &str = "write none, or a map with one of static and token_exchange";
    if let Kind::Text(word) = value.kind() {
        if word == "none" {
            return Some(Plan::None);
        }
        value.complain(format!("{} is not a kind of credential", quote(word)), HINT);
        return None;
    }
    value.map(|fields| {
        let (kind, plan) = fields.exactly_one(&["static", "token_exchange"])?;
        if kind == "static" { static_secret(&plan, look) } else { token_exchange(&plan, around, look) }
    })
}

pub(super) fn static_secret(value: &Value<'_>, look: Look<'_>) -> Option<Plan> {
    value.map(|fields| {
        let header = fields.or("header", http::header::AUTHORIZATION, |v| v.parse(credential_header));
        let prefix = fields.or("prefix", "", Value::text_or_blank);
        let secret = fields.find("secret");
        let place = fields.must("secret", secret)?;
        let secret = secrets::text(&place, look);
        let (header, prefix, secret) = (header?, prefix?, secret?);
        let whole = Secret::new(format!("{prefix}{}", secret.expose()));
        if HeaderValue::from_str(whole.expose()).is_err() {
            place.complain("prefix and secret together are no header value", "use visible ASCII characters");
            return None;
        }
        Some(Plan::Static { header, secret: whole })
    })
}

fn credential_header(text: &str) -> Result<HeaderName, Complaint> {
    if text.eq_ignore_ascii_case("authorization") {
        return Ok(http::header::AUTHORIZATION);
    }
    values::own_header(text)
}

fn token_exchange(value: &Value<'_>, around: &Around<'_>, look: Look<'_>) -> Option<Plan> {
    value.map(|fields| {
        let token_endpoint = fields.required("token_endpoint", |v| {
            v.parse(|text| values::callable_url(text, around.plain_http_hosts).map(|_| text.to_owned()))
        });
        let client = fields.required("client", |v| client(v, look));
        let audience = fields.or("audience", Vec::new(), |v| v.list(Value::string));
        let resource = fields.or("resource", Vec::new(), |v| v.list(|v| v.parse(resource)));
        let scope = fields.or("scope", Vec::new(), |v| v.list(|v| v.parse(values::scope).map(str::to_owned)));
        let subject_token_type = fields.or("subject_token_type", ACCESS_TOKEN.to_owned(), Value::string);
        let requested_token_type = fields.or("requested_token_type", None, |v| {
            if *v.kind() == Kind::Null { Some(None) } else { v.string().map(Some) }
        });
        let actor_token = fields.optional("actor_token", |v| actor_token(v, &around.names));
        let timeout = fields.or("timeout", seconds(5), |v| v.duration(milliseconds(100)..=seconds(60)));
        let accept_missing = fields.or("accept_missing_token_type", false, Value::flag);
        let Client { id, secret, auth } = client?;
        Some(Plan::TokenExchange(Box::new(ExchangePlan {
            token_endpoint: token_endpoint?,
            client_id: id,
            client_secret: secret,
            client_auth: auth,
            audience: audience?,
            resource: resource?,
            scope: scope?,
            subject_token_type: subject_token_type?,
            requested_token_type: requested_token_type?,
            actor_token: actor_token?,
            timeout: timeout?,
            accept_missing_token_type: accept_missing?,
        })))
    })
}

/// RFC 8693 §2.1: who acts, beside whom it is for.
fn actor_token(value: &Value<'_>, names: &Names<'_>) -> Option<ActorToken> {
    value.map(|fields| {
        let from = fields.required("from", |v| v.parse(|text| values::word(text, &[("agent", ())])));
        let token_type = fields.or("token_type", JWT.to_owned(), Value::string);
        from?;
        if !names.has_agents {
            fields.map().complain("nobody is believed about agents", "write a section agents, beside issuers");
            return None;
        }
        Some(ActorToken { token_type: token_type? })
    })
}

/// RFC 8693 §3: the type of an agent's token, which may be an access token or an ID token.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// RFC 8693 §2.1: the type of the token a caller brings.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// RFC 8693 §2.1: an absolute URI without a fragment.
fn resource(text: &str) -> Result<String, Complaint> {
    let uri = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && !rest.is_empty()
    });
    if uri && !text.contains(|c: char| c == '#' || !c.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let hint = "write an absolute URI without a fragment (RFC 8693 section 2.1)";
    Err(Complaint::new(format!("{} is not a resource", quote(text)), hint))
}

/// A client of an issuer.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Option<Secret<String>>,
    pub(super) auth: ClientAuth,
}

pub(super) fn client(value: &Value<'_>, look: Look<'_>) -> Option<Client> {
    let words = [
        ("client_secret_basic", ClientAuth::ClientSecretBasic),
        ("client_secret_post", ClientAuth::ClientSecretPost),
        ("none", ClientAuth::None),
    ];
    value.map(|fields| {
        let id = fields.required("id", Value::string);
        let auth = fields.or("auth", ClientAuth::ClientSecretBasic, |v| v.parse(|text| values::word(text, &words)));
        let secret = fields.find("secret");
        let secret = match (auth?, secret) {
            (ClientAuth::None, None) => None,
            (ClientAuth::None, Some(secret)) => {
                secret.complain("is not sent with auth: none", "leave it out, or choose client_secret_basic");
                return None;
            }
            (_, secret) => Some(secrets::text(&fields.must("secret", secret)?, look)?),
        };
        Some(Client { id: id?, secret, auth: auth? })
    })
}

fn forward_claims(value: &Value<'_>) -> Option<Vec<(Box<str>, HeaderName)>> {
    let mut claims: Vec<(Box<str>, HeaderName)> = Vec::new();
    let mut sound = true;
    for (claim, header) in value.entries()? {
        match header.parse(values::own_header) {
            Some(name) if claims.iter().any(|(_, taken)| *taken == name) => {
                header.complain(format!("{name} already carries another claim"), "use one header for each claim");
                sound = false;
            }
            Some(name) => claims.push((claim.into(), name)),
            None => sound = false,
        }
    }
    sound.then_some(claims)
}

const DAY: Duration = seconds(86_400);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
