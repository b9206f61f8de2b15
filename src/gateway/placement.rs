//! Where does an admitted request go? What the rules of the server say, and what comes of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use pingora_proxy::Session as Client;

use crate::audit;
use crate::identity::Caller;
use crate::identity::agent::ServerIdentity;
use crate::policy::{Facts, budget};
use crate::registry::Route;
use crate::routing::instance::Turn;
use crate::routing::region::Signs;
use crate::routing::router::{Asked, Choice, NoPlace, Path};
use crate::routing::{Instance, Router};
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Placement;

use super::Shell;
use super::pipeline::{Ask, SESSION_ID, Who};
use super::record::Record;
use super::rejection::Rejection;

/// Where a request goes.
pub(super) struct Placed {
    pub(super) instance: Arc<Instance>,
    /// Must be told how it ended; none where nobody looks.
    pub(super) turn: Option<Turn>,
    /// What the rules have to do with it; none without rules, and for what belongs to a session.
    pub(super) path: Option<Path>,
    /// It belongs to a session whose instance is gone, and which is to be opened anew here.
    pub(super) takes_over: bool,
}

/// A request as rules see it.
pub(super) struct Seen<'a> {
    pub(super) who: Who<'a>,
    pub(super) server_identity: Option<&'a ServerIdentity>,
    pub(super) ask: &'a Ask,
    pub(super) client: &'a Client,
}

impl<'a> Seen<'a> {
    /// What rules may read of it besides caller and message.
    pub(super) fn facts(&self, record: &'a Record) -> Facts<'a> {
        let head = self.client.req_header();
        let body_bytes = match self.ask {
            Ask::Messages(request) => request.body.len(),
            Ask::EndSession(_) | Ask::OpenStream(_) => 0,
        };
        Facts {
            now: record.arrived_at,
            http_method: head.method.as_str(),
            host: &record.host,
            path: head.uri.path(),
            headers: &head.headers,
            client_ip: record.client_ip,
            client_certificate: record.client_certificate().map(|certificate| &**certificate),
            agent: self.who.agent.map(|agent| &*agent.identity),
            server_identity: self.server_identity,
            body_bytes,
            region: record.region.as_deref(),
            revision: self.ask.revision(),
        }
    }

    /// The request as budgets and taint rules are asked about it.
    pub(super) fn asked<'f>(&self, route: &'f Route, facts: &'f Facts<'f>) -> budget::Asked<'f>
    where
        'a: 'f,
    {
        let server = route.server.name();
        budget::Asked { caller: self.who.caller, server, messages: self.ask.messages(), facts }
    }
}

/// Finds out where the caller is, if anybody wants to know.
pub(super) fn locate(world: &Snapshot, caller: &Caller, client: &Client, record: &mut Record) {
    let Some(locator) = &world.locator else { return };
    let header = locator.header().and_then(|name| {
        let peer = client.as_downstream().client_addr()?.as_inet()?.ip().to_canonical();
        let is_trusted = |ip: IpAddr| world.config.trusted_proxies.iter().any(|range| range.contains(&ip));
        // Of several values none can be believed more than another.
        is_trusted(peer).then(|| only(&client.req_header().headers, name)).flatten()
    });
    record.region = locator.locate(Signs { claims: caller.claims(), header, ip: record.client_ip });
}

fn only<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<&'h http::HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Where: the instance of the session, else what the rules say, else any that takes new work.
///
/// # Errors
/// [`Rejection::UnknownSession`] when the session's instance is gone, [`Rejection::NoInstanceInRegion`] when a strict rule
/// has no place for it, [`Rejection::NoHealthyInstance`].
pub(super) fn pick(
    shell: &Shell,
    route: &Route,
    session: Option<&Session>,
    seen: &Seen<'_>,
    record: &mut Record,
) -> Result<Placed, Rejection> {
    let now = record.started;
    let server = &route.server;
    let placed = match session {
        Some(session) => {
            let own = server.pool.named(&session.instance).filter(|instance| instance.is_healthy());
            match own {
                Some(own) => stay(shell, route, own, seen, now, record)?,
                None if may_move(shell, route, seen.client) => {
                    Placed { takes_over: true, ..anywhere(shell, route, seen, now, record)? }
                }
                // A request that belongs to an instance which is gone is never sent to another one as it is.
                None => return Err(Rejection::UnknownSession),
            }
        }
        None => anywhere(shell, route, seen, now, record)?,
    };
    record.instance = Some(Arc::clone(&placed.instance));
    Ok(placed)
}

/// Where a request goes that was not sent, because its instance could not be reached.
///
/// # Errors
/// As [`pick`].
pub(super) fn pick_again(
    route: &Route,
    caller: &Caller,
    path: Option<Path>,
    record: &mut Record,
) -> Result<Placed, Rejection> {
    let now = Instant::now();
    let placed = match (&route.server.router, path) {
        (Some(router), Some(path)) => {
            let choice = router.choose_again(path, caller.principal(), now).map_err(|no_place| match no_place {
                NoPlace::Strict(_) => Rejection::NoInstanceInRegion,
                NoPlace::Unhealthy(_) => Rejection::UpstreamUnreachable,
            })?;
            record.routing = told(router, choice.path, Some(&choice.instance), record);
            Placed::chosen(choice)
        }
        _ => Placed::any(route.server.pool.pick(now).ok_or(Rejection::UpstreamUnreachable)?),
    };
    record.instance = Some(Arc::clone(&placed.instance));
    Ok(placed)
}

/// Whether the session that a request names can be opened anew elsewhere.
fn may_move(shell: &Shell, route: &Route, client: &Client) -> bool {
    let id = client.req_header().headers.get(SESSION_ID);
    id.is_some_and(|id| shell.handovers.of(route, id.as_bytes()).is_some())
}

fn stay(
    shell: &Shell,
    route: &Route,
    instance: &Arc<Instance>,
    seen: &Seen<'_>,
    now: Instant,
    record: &mut Record,
) -> Result<Placed, Rejection> {
    if let Some(router) = &route.server.router {
        let facts = seen.facts(record);
        let asked = Asked { caller: seen.who.caller, messages: seen.ask.messages(), facts: &facts, now };
        if let Err(no_place) = router.let_stay(&asked, instance) {
            return Err(refused(shell, router, no_place, record));
        }
    }
    let turn = instance.begin(now).map_err(|_left_alone| Rejection::NoHealthyInstance)?;
    Ok(Placed { instance: Arc::clone(instance), turn, path: None, takes_over: false })
}

fn anywhere(
    shell: &Shell,
    route: &Route,
    seen: &Seen<'_>,
    now: Instant,
    record: &mut Record,
) -> Result<Placed, Rejection> {
    let server = &route.server;
    let Some(router) = &server.router else {
        return server.pool.pick(now).map(Placed::any).ok_or(Rejection::NoHealthyInstance);
    };
    let facts = seen.facts(record);
    let asked = Asked { caller: seen.who.caller, messages: seen.ask.messages(), facts: &facts, now };
    let choice = match router.choose(&asked) {
        Ok(choice) => choice,
        Err(no_place) => return Err(refused(shell, router, no_place, record)),
    };
    record.routing = told(router, choice.path, Some(&choice.instance), record);
    if let Some(failed) = router.failed_rule(choice.path) {
        shell.metrics.routing.decided(server.name(), failed, "", Placement::Error);
    }
    if let Some(rule) = router.rule(choice.path) {
        let to = router.side(choice.path).map_or("", |side| side);
        let placement = if choice.path.fell_back { Placement::FellBack } else { Placement::Placed };
        shell.metrics.routing.decided(server.name(), rule, to, placement);
    }
    Ok(Placed::chosen(choice))
}

fn refused(shell: &Shell, router: &Router, no_place: NoPlace, record: &mut Record) -> Rejection {
    let (path, rejection) = match no_place {
        NoPlace::Strict(path) => (path, Rejection::NoInstanceInRegion),
        NoPlace::Unhealthy(path) => (path, Rejection::NoHealthyInstance),
    };
    record.routing = told(router, path, None, record);
    if let Some(rule) = router.rule(path) {
        shell.metrics.routing.decided(router.server(), rule, "", Placement::Refused);
    }
    rejection
}

/// For the audit record; none when there is nothing to tell.
fn told(router: &Router, path: Path, instance: Option<&Arc<Instance>>, record: &Record) -> Option<audit::Routing> {
    let routing = audit::Routing {
        rule: router.rule(path).cloned(),
        split: router.side(path).cloned(),
        version: instance.and_then(|instance| instance.traits.version.clone()),
        region: record.region.clone(),
        fell_back: path.fell_back,
        failed_rule: router.failed_rule(path).cloned(),
    };
    (routing != audit::Routing::default()).then_some(routing)
}

impl Placed {
    fn any((instance, turn): (Arc<Instance>, Option<Turn>)) -> Self {
        Self { instance, turn, path: None, takes_over: false }
    }

    fn chosen(Choice { instance, turn, path }: Choice) -> Self {
        Self { instance, turn, path: Some(path), takes_over: false }
    }
}
