//! What can be asked and done? Every call of the API in one table, as `openapi.json` describes it.

mod agents;
mod audit;
mod config;
mod input;
mod instances;
mod me;
mod overview;
mod policy;
mod quarantines;
mod servers;
mod sessions;
mod splits;
mod when;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use http::Method;
use http::header::CONTENT_TYPE;
use std::sync::Arc;

use crate::audit::AdminEvent as Event;

pub(super) use overview::Sample;

use super::Admin;
use super::access::{Access, Endpoint};
use super::health;

/// Every call. The gate that stands in front of each knows from here whom to let in and what to write down.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    read("/api/v1/health", Access::Stranger, || get(health::status)),
    read("/api/v1/openapi.json", Access::SignedIn, || get(openapi)),
    read("/api/v1/me", Access::SignedIn, || get(me::show)),
    write("/api/v1/signout", Access::SignedIn, Event::SignOut, || post(me::sign_out)),
    read("/api/v1/overview", Access::Read, || get(overview::show)),
    read("/api/v1/overview/history", Access::Read, || get(overview::history)),
    read("/api/v1/instances", Access::Read, || get(instances::list)),
    write("/api/v1/splits/reopen", Access::Administer, Event::SplitReopen, || post(splits::reopen)),
    read("/api/v1/agents", Access::Read, || get(agents::list)),
    read("/api/v1/sessions", Access::Read, || get(sessions::list)),
    write("/api/v1/sessions/revoke", Access::Administer, Event::SessionsRevoke, || post(sessions::revoke)),
    read("/api/v1/quarantines", Access::Administer, || get(quarantines::list)),
    write("/api/v1/quarantines", Access::Administer, Event::QuarantineSet, || post(quarantines::stop)),
    Endpoint {
        method: Method::DELETE,
        path: "/api/v1/quarantines/{id}",
        access: Access::Administer,
        event: Some(Event::QuarantineLift),
        handler: || delete(quarantines::lift),
    },
    read("/api/v1/audit", Access::Audit, || get(audit::list)),
    read("/api/v1/audit/stream", Access::Audit, || get(audit::stream)),
    read("/api/v1/config", Access::Administer, || get(config::show)),
    write("/api/v1/config/check", Access::Administer, Event::ConfigCheck, || post(config::check)),
    write("/api/v1/config/reload", Access::Administer, Event::ConfigReload, || post(config::reload)),
    read("/api/v1/servers", Access::Read, || get(servers::list)),
    write("/api/v1/servers", Access::Administer, Event::ServerRegister, || post(servers::register)),
    read("/api/v1/servers/{name}", Access::Read, || get(servers::show)),
    Endpoint {
        method: Method::PUT,
        path: "/api/v1/servers/{name}",
        access: Access::Administer,
        event: Some(Event::ServerChange),
        handler: || put(servers::put),
    },
    write("/api/v1/servers/{name}/actions", Access::Approve, Event::ServerAction, || post(servers::act)),
    read("/api/v1/servers/{name}/acts", Access::Read, || get(servers::acts)),
    read("/api/v1/servers/{name}/items", Access::Read, || get(servers::items)),
    read("/api/v1/servers/{name}/items/{kind}/{id}", Access::Read, || get(servers::item)),
    write("/api/v1/servers/{name}/items/{kind}/{id}/actions", Access::Approve, Event::ItemAction, || {
        post(servers::act_on_item)
    }),
    read("/api/v1/servers/{name}/items/{kind}/{id}/acts", Access::Read, || get(servers::item_acts)),
    read("/api/v1/servers/{name}/items/{kind}/{id}/versions", Access::Read, || get(servers::versions)),
    read("/api/v1/servers/{name}/items/{kind}/{id}/diff", Access::Read, || get(servers::diff)),
    read("/api/v1/approvals", Access::Read, || get(servers::approvals)),
    write("/api/v1/policy/explain", Access::Read, Event::PolicyExplain, || post(policy::explain)),
];

const fn read(path: &'static str, access: Access, handler: Handler) -> Endpoint {
    Endpoint { method: Method::GET, path, access, event: None, handler }
}

const fn write(path: &'static str, access: Access, event: Event, handler: Handler) -> Endpoint {
    Endpoint { method: Method::POST, path, access, event: Some(event), handler }
}

type Handler = fn() -> axum::routing::MethodRouter<Arc<Admin>>;

async fn openapi(State(_admin): State<Arc<Admin>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// The description of all this (OpenAPI 3.1).
const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
