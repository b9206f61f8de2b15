//! Is it alive, is it ready, what does it do?

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::control::governance::{Governance, StoreStatus};

use super::Admin;

/// `/healthz`: whoever answers is alive.
pub(super) async fn healthz() -> Response {
    text(StatusCode::OK, "alive\n")
}

/// `/readyz`: 200 when requests can be served, else 503 and why.
pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let status = Status::of(&admin);
    if !status.ready {
        return json(StatusCode::SERVICE_UNAVAILABLE, &status);
    }
    let is_away = status.store == Some("away");
    let away = "ready; the store is away, and what was approved stays in force\n";
    text(StatusCode::OK, if is_away { away } else { "ready\n" })
}

/// `/status`, for the operator's tools.
pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Response {
    json(StatusCode::OK, &Status::of(&admin))
}

/// What `/status` tells, and `/readyz` when it is not.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) ready: bool,
    draining: bool,
    version: &'static str,
    config_generation: u64,
    /// Which parts decide on requests. All of them always do: none can be switched off.
    enforcing: [&'static str; 4],
    /// How it goes with the store of the registry: `up`, `away` (what was in force stays) or `never_read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'static str>,
    issuers: Vec<IssuerStatus>,
    servers: Vec<ServerStatus>,
    routes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct IssuerStatus {
    name: String,
    keys: usize,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    name: String,
    /// Whether it has proved what it must; left out when it must prove nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    identified: Option<bool>,
    instances: Vec<InstanceStatus>,
}

#[derive(Debug, Serialize)]
struct InstanceStatus {
    id: String,
    healthy: bool,
    takes_new_work: bool,
}

impl Status {
    /// Of this very moment.
    pub(super) fn of(admin: &Admin) -> Self {
        let (world, draining) = (admin.live.take(), admin.lifecycle.is_draining());
        let issuers: Vec<IssuerStatus> = world
            .issuers
            .iter()
            .map(|issuer| IssuerStatus { name: issuer.config.name.to_string(), keys: issuer.keys.current().len() })
            .collect();
        let now = std::time::Instant::now();
        let servers: Vec<ServerStatus> = world
            .servers
            .iter()
            .map(|server| ServerStatus {
                name: server.name().to_string(),
                identified: server.proof.as_ref().map(|proof| proof.current(admin.clock.now()).is_some()),
                instances: server
                    .pool
                    .instances()
                    .iter()
                    .map(|instance| InstanceStatus {
                        id: instance.id.to_string(),
                        healthy: instance.is_healthy(),
                        takes_new_work: instance.takes_new_work(now),
                    })
                    .collect(),
            })
            .collect();
        let has_keys = issuers.iter().all(|issuer| issuer.keys > 0);
        let has_instances =
            servers.iter().all(|server| server.instances.iter().any(|instance| instance.takes_new_work));
        let are_identified = world.servers.iter().zip(&servers).all(|(server, status)| {
            let required = server.proof.as_ref().is_some_and(|proof| proof.config.required);
            !required || status.identified == Some(true)
        });
        let mut routes: Vec<String> = world.routes().map(|route| route.config.path.to_string()).collect();
        routes.sort_unstable();
        let store = admin.governance.as_ref().map(Governance::status);
        // A gateway whose store is away serves what was in force: were it not ready, the loss of one database would take all
        // gateways out of service.
        let has_store = store != Some(StoreStatus::NeverRead);
        Self {
            ready: has_keys && has_instances && are_identified && has_store && !draining,
            store: store.map(|store| match store {
                StoreStatus::Away => "away",
                StoreStatus::NeverRead => "never_read",
                StoreStatus::Up => "up",
            }),
            draining,
            version: env!("CARGO_PKG_VERSION"),
            config_generation: world.generation,
            enforcing: ["identity", "policy", "sessions", "audit"],
            issuers,
            servers,
            routes,
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
