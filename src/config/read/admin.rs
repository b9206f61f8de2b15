//! `admin`: where the process is looked at, and who may sign in to govern it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{issuer, process, server};
use crate::config::fields::{Fields, Value};
use crate::config::problem::Complaint;
use crate::config::secrets::Look;
use crate::config::values::{self, quote};
use crate::config::{AdminSettings, IssuerConfig, RoleGroups, SignIn};

/// The address, when the section has one; whatever is wrong with it is said by [`admin`].
pub(super) fn address_in(section: &Value<'_>) -> Option<SocketAddr> {
    section.quietly("address")?.parse().ok()
}

/// `issuers` is `None` when they have problems of their own.
pub(super) fn admin(section: &Value<'_>, issuers: Option<&[IssuerConfig]>, look: Look<'_>) -> Option<AdminSettings> {
    section.map(|fields| {
        let tls = fields.optional("tls", |v| process::listen_tls(v, look));
        // An address with TLS and a sign-in may be reached by others: that is what both are for.
        let is_closed = fields.map().quietly_has("tls") && fields.map().quietly_has("sign_in");
        let address = process::inner_address_of(fields, is_closed);
        let public_url = fields.optional("public_url", |v| v.parse(public_url));
        let connections = fields.or("connections", 256, |v| v.whole(1..=65_536));
        let body_bytes = fields.or("body_bytes", MIB, |v| v.size(KIB..=64 * MIB));
        let recent = fields.or("recent", 4096, |v| v.whole(1..=1 << 20));
        let revocations = fields.or("revocations", 4096, |v| v.whole(1..=1 << 20));
        let sign_in = fields.optional("sign_in", |v| sign_in(v, issuers, look));
        let (address, tls) = (address?, tls?);
        let scheme = if tls.is_some() { "https" } else { "http" };
        Some(AdminSettings {
            address,
            tls,
            public_url: public_url?.unwrap_or_else(|| format!("{scheme}://{address}")),
            connections: connections?,
            body_bytes: body_bytes?,
            recent: recent?,
            revocations: revocations?,
            sign_in: sign_in?,
        })
    })
}

/// Cookies with the prefix `__Host-` belong to a host as a whole, so there is no path.
fn public_url(text: &str) -> Result<String, Complaint> {
    let read = process::public_url(text)?;
    if values::url(&read)?.path != "/" {
        return Err(Complaint::new(format!("{} has a path", quote(text)), "end it after host and port"));
    }
    Ok(read)
}

fn sign_in(value: &Value<'_>, issuers: Option<&[IssuerConfig]>, look: Look<'_>) -> Option<SignIn> {
    value.map(|fields| {
        let issuer = fields.required("issuer", |v| issuer_of(v, issuers));
        let client = fields.required("client", |v| server::client(v, look));
        let scopes = fields.or("scopes", vec!["openid".into(), "profile".into()], |v| {
            let scopes: Vec<Box<str>> = v.some(|v| v.parse(|text| values::scope(text).map(Box::from)))?;
            if !scopes.iter().any(|scope| **scope == *"openid") {
                v.complain("lacks openid", "without it the issuer gives no ID token (OpenID Connect Core §3.1.2.1)");
                return None;
            }
            Some(scopes)
        });
        let claim = fields.or("claim", "groups".into(), Value::string);
        let roles = fields.required("roles", roles);
        let session_ttl = fields.or("session_ttl", seconds(8 * 3600), |v| v.duration(seconds(1)..=seconds(7 * 86_400)));
        let session_idle = fields.or("session_idle", seconds(3600), |v| v.duration(seconds(1)..=seconds(7 * 86_400)));
        let sessions = fields.or("sessions", 4096, |v| v.whole(1..=1 << 20));
        let attempt_ttl = fields.or("attempt_ttl", seconds(600), |v| v.duration(seconds(10)..=seconds(3600)));
        let timeout = fields.or("timeout", seconds(5), |v| v.duration(Duration::from_millis(100)..=seconds(60)));
        let server::Client { id, secret, auth } = client?;
        Some(SignIn {
            issuer: issuer?,
            client_id: id,
            client_secret: secret,
            client_auth: auth,
            scopes: scopes?,
            claim: claim?,
            roles: roles?,
            session_ttl: session_ttl?,
            session_idle: session_idle?,
            sessions: sessions?,
            attempt_ttl: attempt_ttl?,
            timeout: timeout?,
        })
    })
}

/// The name of an entry of `issuers`, or an issuer's URL.
fn issuer_of(value: &Value<'_>, issuers: Option<&[IssuerConfig]>) -> Option<Arc<IssuerConfig>> {
    let text = value.text()?;
    if text.contains("://") {
        let url = value.parse(issuer::issuer_identifier)?;
        return Some(Arc::new(issuer::of_its_own("sign-in", url)));
    }
    let issuers = issuers?;
    let found = issuers.iter().find(|issuer| *issuer.name == *text);
    if found.is_none() {
        let names: Vec<&str> = issuers.iter().map(|issuer| &*issuer.name).collect();
        let hint = format!("write a URL, or one of {}", names.join(", "));
        value.complain(format!("there is no issuer {}", quote(text)), hint);
    }
    found.cloned().map(Arc::new)
}

fn roles(value: &Value<'_>) -> Option<RoleGroups> {
    value.map(|fields| {
        let admin = groups(fields, "admin");
        let approver = groups(fields, "approver");
        let auditor = groups(fields, "auditor");
        let viewer = groups(fields, "viewer");
        let roles = RoleGroups { admin: admin?, approver: approver?, auditor: auditor?, viewer: viewer? };
        if roles == RoleGroups::default() {
            fields.map().complain("nobody could do anything", "name a group for at least one role");
            return None;
        }
        Some(roles)
    })
}

fn groups(fields: &mut Fields<'_, '_>, role: &'static str) -> Option<Vec<Box<str>>> {
    fields.or(role, Vec::new(), |v| v.list(Value::string))
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
