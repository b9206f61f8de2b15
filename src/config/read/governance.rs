//! `store`, `registry`, and what `servers[]` says of how they are governed.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::fields::{Fields, Value};
use crate::config::problem::Complaint;
use crate::config::secrets::{self, Look};
use crate::config::values::{self, quote};
use crate::config::yaml::Kind;
use crate::config::{Discovery, DiscoveryProtocol, Governed, Pins, RegistrySettings, StoreConfig, StorePlace};
use crate::credential::Plan;
use crate::mcp::ItemKind;
use crate::secret::Secret;

pub(super) fn store(value: &Value<'_>, look: Look<'_>) -> Option<StoreConfig> {
    value.map(|fields| {
        let place = fields.exactly_one(&["sqlite", "postgres"]);
        let poll = fields
            .or("poll", Duration::from_secs(1), |v| v.duration(Duration::from_millis(100)..=Duration::from_secs(60)));
        let (kind, place) = place?;
        let place = if kind == "sqlite" {
            StorePlace::Sqlite(PathBuf::from(place.text()?))
        } else {
            place.map(|fields| fields.required("url", |v| postgres_url(v, look)).map(StorePlace::Postgres))?
        };
        Some(StoreConfig { place, poll: poll? })
    })
}

/// A URL with a password in it is a secret as a whole.
fn postgres_url(value: &Value<'_>, look: Look<'_>) -> Option<Secret<String>> {
    let url = secrets::text(value, look)?;
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
    if !is_postgres && matches!(look, Look::Inside(_)) {
        value.complain("the secret is no PostgreSQL URL", "write postgres://USER:PASSWORD@HOST/DATABASE there");
        return None;
    }
    Some(url)
}

pub(super) fn registry(top: &mut Fields<'_, '_>) -> Option<RegistrySettings> {
    let default = RegistrySettings::default();
    let Some(section) = top.find("registry") else { return Some(default) };
    section.map(|fields| {
        let approvals = match fields.find("approvals") {
            Some(approvals) => approvals.map(|fields| {
                let claim = fields.or("claim", default.claim.clone(), Value::string);
                let groups = fields.required("groups", |v| v.some(Value::string));
                let required = fields.or("required", default.approvals_required, |v| v.whole(1..=5));
                Some((claim?, groups?, required?))
            }),
            None => Some((default.claim.clone(), Vec::new(), default.approvals_required)),
        };
        let refresh = fields.or("refresh", default.refresh, |v| v.duration(seconds(1)..=seconds(86_400)));
        let read_timeout = fields.or("read_timeout", default.read_timeout, |v| v.duration(seconds(1)..=seconds(600)));
        let pages = fields.or("pages", default.pages, |v| v.whole(1..=10_000));
        let page_bytes = fields.or("page_bytes", default.page_bytes, |v| v.size(KIB..=1024 * MIB));
        let items = fields.or("items", default.items, |v| v.whole(1..=100_000));
        let definition_bytes = fields.or("definition_bytes", default.definition_bytes, |v| v.size(KIB..=16 * MIB));
        let server_bytes = fields.or("server_bytes", default.server_bytes, |v| v.size(MIB..=16 * 1024 * MIB));
        let history = fields.or("history", default.history, |v| v.whole(2..=10_000));
        let servers = fields.or("servers", default.servers, |v| v.whole(0..=10_000));
        let credentials = fields.or("credentials", Vec::new(), |v| v.list(|v| v.parse(credential_name)));
        let (claim, approvers, approvals_required) = approvals?;
        Some(RegistrySettings {
            claim,
            approvers,
            approvals_required,
            refresh: refresh?,
            read_timeout: read_timeout?,
            pages: pages?,
            page_bytes: page_bytes?,
            items: items?,
            definition_bytes: definition_bytes?,
            server_bytes: server_bytes?,
            history: history?,
            servers: servers?,
            credentials: credentials?,
        })
    })
}

fn credential_name(text: &str) -> Result<Box<str>, Complaint> {
    if text.contains('/') || text.starts_with('.') {
        let message = format!("{} is not a credential's name", quote(text));
        return Err(Complaint::new(message, "write the name given to LoadCredential="));
    }
    Ok(text.into())
}

/// Whether a registry is there to govern a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Missing,
    There,
}

/// What a server says of how it is governed; none inside when it is not. `of_its_own` is the credential that everybody has.
pub(super) fn governed(
    server: &mut Fields<'_, '_>,
    store: Store,
    is_managed_by_default: bool,
    own: Option<&Plan>,
    look: Look<'_>,
) -> Option<Option<Governed>> {
    let managed = server.find("managed");
    let is_managed = managed.as_ref().map_or(Some(is_managed_by_default), Value::flag);
    let words = [("enforce", Pins::Enforce), ("warn", Pins::Warn), ("off", Pins::Off)];
    let pins = server.find("pins");
    let pins_read = pins.as_ref().map_or(Some(Pins::default()), |v| v.parse(|text| values::word(text, &words)));
    let kinds = server.find("governs");
    let kinds_read = kinds.as_ref().map_or(Some(ItemKind::ALL.to_vec()), |v| {
        v.some(|v| {
            v.parse(|text| {
                values::word(
                    text,
                    &[
                        ("prompts", ItemKind::Prompt),
                        ("resource_templates", ItemKind::ResourceTemplate),
                        ("resources", ItemKind::Resource),
                        ("tools", ItemKind::Tool),
                    ],
                )
            })
        })
    });
    let discovery = server.find("discovery");
    let fallback = || Discovery {
        // A secret that is the same for everybody is the gateway's own; a token that is made for a caller is not.
        credential: match own {
            Some(plan @ Plan::Static { .. }) => plan.clone(),
            Some(_) | None => Plan::None,
        },
        protocol: DiscoveryProtocol::Auto,
    };
    let discovery_read = match &discovery {
        Some(value) => discovery_of(value, &fallback, look),
        None => Some(Some(fallback())),
    };
    if is_managed? {
        if store == Store::Missing {
            let place = managed.unwrap_or_else(|| server.map().clone());
            place.complain("nothing is there to keep what is approved", "name a store, or leave managed out");
            return None;
        }
        let mut kinds = kinds_read?;
        kinds.sort_unstable();
        kinds.dedup();
        return Some(Some(Governed { pins: pins_read?, kinds, discovery: discovery_read? }));
    }
    for value in [pins, kinds, discovery].into_iter().flatten() {
        value.complain("says how a server is governed that is not", "write managed: true, or leave it out");
    }
    Some(None)
}

fn discovery_of(value: &Value<'_>, fallback: &dyn Fn() -> Discovery, look: Look<'_>) -> Option<Option<Discovery>> {
    if let Kind::Text(word) = value.kind() {
        if word == "none" {
            return Some(None);
        }
        value.complain(format!("{} says nothing of it", quote(word)), "write none, or a map");
        return None;
    }
    value.map(|fields| {
        let fallback = fallback();
        let credential = match fields.find("credential") {
            Some(place) => reader_credential(&place, look),
            None => Some(fallback.credential),
        };
        let words = [
            ("auto", DiscoveryProtocol::Auto),
            ("legacy", DiscoveryProtocol::Legacy),
            ("modern", DiscoveryProtocol::Modern),
        ];
        let protocol =
            fields.or("protocol", DiscoveryProtocol::default(), |v| v.parse(|text| values::word(text, &words)));
        Some(Some(Discovery { credential: credential?, protocol: protocol? }))
    })
}

/// What the gateway shows in its own name: nobody's token is there to be exchanged.
fn reader_credential(value: &Value<'_>, look: Look<'_>) -> Option<Plan> {
    if let Kind::Text(word) = value.kind() {
        if word == "none" {
            return Some(Plan::None);
        }
        value.complain(format!("{} is not a kind of credential", quote(word)), "write none, or a map with static");
        return None;
    }
    value.map(|fields| fields.required("static", |v| super::server::static_secret(v, look)))
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
