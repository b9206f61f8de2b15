//! DATA PLANE: the Pingora adapter. Thin: each phase is one call into the file that answers its question.

mod agents;
mod annotations;
mod body;
mod budgets;
mod content;
mod credentials;
mod decisions;
pub mod door;
pub mod exchange;
mod forward;
pub mod governance;
mod handover;
mod local;
mod meters;
mod outside;
mod pipeline;
mod placement;
mod recent;
mod record;
mod rejection;
mod respond;
mod shadow;
mod stops;
pub mod sweep;
mod taint;
mod tokens;
mod trial;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, Session as Client};
use ring::rand::{SecureRandom, SystemRandom};

use crate::identity::Shown;
use crate::lifecycle::Lifecycle;
use crate::net::Outbound;
use crate::routing::instance::is_lack_of_files;
use crate::snapshot::Live;
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::{CacheName, Metrics, SessionEvent};
use crate::time::{Clock, UnixSeconds};

use self::agents::Agents;
use self::annotations::Annotations;
use self::budgets::{Counters, Spent};
use self::decisions::Decisions;
use self::exchange::Exchanger;
use self::forward::Patience;
use self::governance::{DIGESTS_MAX, Digests, Observer};
use self::handover::Handovers;
use self::meters::Meters;
use self::pipeline::{Admitted, Who};
use self::recent::Recent;
use self::record::{Record, RequestIds};
use self::rejection::Rejection;
use self::respond::Answer;
use self::shadow::{Comparison, ReadOnlyTools};
use self::stops::Owner;
use self::sweep::Sweep;
use self::taint::Marks;
use self::tokens::Tokens;
use self::trial::Trial;
use self::watchdog::Watchdog;

/// The gateway as Pingora sees it.
pub struct Gateway {
    shell: Arc<Shell>,
}

/// What the stages of [`pipeline::admit`] need of the world outside a request.
struct Shell {
    live: Arc<Live>,
    clock: Clock,
    metrics: Arc<Metrics>,
    meters: Meters,
    audit: AuditSink,
    tokens: Tokens,
    agents: Agents,
    decisions: Decisions,
    exchanger: Exchanger,
    /// Session ids that their callers have ended, until they would have expired by themselves. It is a courtesy, not the truth: the
    /// server forgets the session too, so an id that is dropped here early still ends in a 404.
    revoked: Recent<UnixSeconds>,
    budgets: Arc<Counters>,
    marks: Marks,
    annotations: Annotations,
    read_only: ReadOnlyTools,
    handovers: Handovers,
    /// For what the gateway asks servers beside the requests of clients.
    connector: Connector,
    digests: Digests,
    observer: Option<Observer>,
    request_ids: RequestIds,
    random: SystemRandom,
    lifecycle: Arc<Lifecycle>,
    watchdog: Arc<Watchdog>,
    /// For calls of our own: guards of content.
    outbound: Outbound,
}

/// One request on its way. The stage only moves forward.
pub struct Exchange {
    stage: Stage,
    record: Record,
}

enum Stage {
    /// Nothing is decided.
    Received,
    /// It may go on, or has gone.
    Admitted(Box<Forwarded>),
    /// It was refused, before or after it was admitted.
    Refused(Rejection),
}

/// An admitted request, and how far it has come.
struct Forwarded {
    admitted: Admitted,
    answer: Answer,
    attempt: Attempt,
    patience: Patience,
    /// Waits for the answer, to hold it against another.
    shadow: Option<Comparison>,
    /// Why its answer is not passed on, or not further.
    failure: Option<Rejection>,
}

/// What the next call of `upstream_peer` is for.
#[derive(Default)]
struct Attempt {
    /// Calls of `upstream_peer` so far.
    count: usize,
    /// The instance could not be reached: another one may take the request.
    elsewhere: bool,
    /// The server refused the exchanged credential: a new one is due.
    renew_credential: bool,
    /// A renewed credential is in use: a second refusal is final.
    renewed: bool,
    /// The instance does not know the session any more: it is to be opened anew.
    reinitialize: bool,
    /// It was; a second time it is lost.
    reinitialized: bool,
    /// The connection was found unusable before anything was sent on it.
    unsent: bool,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Self::CTX {
        Exchange { stage: Stage::Received, record: Record::start(&self.shell) }
    }

    /// None: what Pingora would add by itself is a compressor, which is switched off and yet asked at every step.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// Called for a connection that its [`door::Door`] has left something with, once the head of its request is whole.
    fn on_connection_reuse(
        &self,
        _client: &mut Client,
        _exchange: &mut Self::CTX,
        left: Box<dyn std::any::Any + Send + Sync>,
    ) {
        if let Ok(arrival) = left.downcast::<door::Arrival>() {
            arrival.note();
        }
    }

    async fn request_filter(&self, client: &mut Client, exchange: &mut Self::CTX) -> pingora::Result<bool> {
        self.receive(client, exchange).await
    }

    async fn upstream_peer(&self, client: &mut Client, exchange: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        self.choose_peer(client, exchange).await
    }

    async fn connected_to_upstream(
        &self,
        _client: &mut Client,
        _reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        connection: Option<&Digest>,
        exchange: &mut Self::CTX,
    ) -> pingora::Result<()> {
        let Stage::Admitted(forwarded) = &mut exchange.stage else { return Err(not_admitted()) };
        forwarded.patience.begin(connection).map_err(|_ran_out| {
            forwarded.attempt.unsent = true;
            Error::explain(ErrorType::ConnectionClosed, "the connection was shut down")
        })
    }

    async fn upstream_request_filter(
        &self,
        client: &mut Client,
        upstream: &mut RequestHeader,
        exchange: &mut Self::CTX,
    ) -> pingora::Result<()> {
        let Stage::Admitted(forwarded) = &mut exchange.stage else { return Err(not_admitted()) };
        forward::write_head(&forwarded.admitted, client, &exchange.record, upstream)?;
        in_a_bunch().await;
        exchange.record.sent_upstream();
        forwarded.admitted.trial.sent();
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _client: &mut Client,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> pingora::Result<()> {
        *body = forward::judged_body(&exchange.stage.forwarded()?.admitted);
        Ok(())
    }

    async fn response_filter(
        &self,
        client: &mut Client,
        head: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> pingora::Result<()> {
        self.answer_head(client, head, exchange)?;
        in_a_bunch().await;
        Ok(())
    }

    fn response_body_filter(
        &self,
        client: &mut Client,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> pingora::Result<Option<Duration>> {
        self.answer_body(client, body, end_of_stream, exchange)?;
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _client: &mut Client,
        _peer: &HttpPeer,
        exchange: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let again = self.try_elsewhere(exchange, &error);
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        client: &mut Client,
        mut error: Box<Error>,
        exchange: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        let answered = client.response_written().is_some();
        let Stage::Admitted(forwarded) = &mut exchange.stage else {
            error.set_retry(false);
            return error;
        };
        let Forwarded { admitted, attempt, patience, .. } = &mut **forwarded;
        let may_try = attempt.count < TRIES_MAX;
        let goes_on = attempt.renew_credential || attempt.reinitialize || attempt.unsent;
        let repeats =
            may_try && !goes_on && !patience.ran_out() && forward::may_repeat(admitted, &error, reused, answered);
        if repeats && !reused {
            // It broke on a connection that was made for it: another instance may do better.
            admitted.trial.refused(&self.shell, &admitted.route, &Rejection::UpstreamUnreachable);
            attempt.elsewhere = admitted.session.is_none();
        }
        error.set_retry(may_try && goes_on || repeats);
        error
    }

    async fn fail_to_proxy(&self, client: &mut Client, error: &Error, exchange: &mut Self::CTX) -> FailToProxy {
        if let Some(status) = self.settle_outside(client, exchange).await {
            return FailToProxy { error_code: status, can_reuse_downstream: false };
        }
        let mut rejection = exchange.stage.rejection(error);
        if self.shell.lifecycle.is_ending() && matches!(rejection, Rejection::UpstreamTimeout) {
            rejection = Rejection::ShuttingDown;
        } else if matches!(rejection, Rejection::UpstreamTimeout)
            && let Some(ended) = exchange.ended()
        {
            rejection = ended;
        }
        exchange.record.refused(&rejection);
        if let Stage::Admitted(forwarded) = &mut exchange.stage {
            let Admitted { trial, route, .. } = &mut forwarded.admitted;
            trial.refused(&self.shell, route, &rejection);
        }
        tracing::debug!(request = %exchange.record.request_id, %error, "The request failed on its way.");
        respond::report_failure(client, &rejection, exchange).await;
        FailToProxy { error_code: rejection.status().as_u16(), can_reuse_downstream: false }
    }

    async fn logging(&self, client: &mut Client, _error: Option<&Error>, exchange: &mut Self::CTX) {
        if let Stage::Admitted(forwarded) = &mut exchange.stage {
            let Admitted { trial, route, .. } = &mut forwarded.admitted;
            trial.end(&self.shell, route, exchange.record.generation);
        }
        record::finish(&self.shell, client, &mut exchange.record).await;
    }

    fn suppress_error_log(&self, _client: &Client, _exchange: &Self::CTX, _error: &Error) -> bool {
        // The audit record and the metrics tell it once, and without the addresses in Pingora's text.
        true
    }

    fn request_summary(&self, _client: &Client, exchange: &Self::CTX) -> String {
        format!("request {}", exchange.record.request_id)
    }
}

impl Gateway {
    /// A gateway that serves what is live, and tells `metrics` and `audit` of it. `outbound` reaches token endpoints;
    /// `lifecycle` says when the process is on its way out; `observer` is told what lists show for the first time.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        audit: AuditSink,
        outbound: Outbound,
        lifecycle: Arc<Lifecycle>,
        observer: Option<Observer>,
    ) -> Result<Self, ring::error::Unspecified> {
        let random = SystemRandom::new();
        let mut process = [0; 8];
        random.fill(&mut process)?;
        let limits = live.peek().config.limits.clone();
        let shell = Shell {
            clock: Clock,
            meters: Meters::new(Arc::clone(&metrics), Arc::clone(&live)),
            tokens: Tokens::new(limits.token_cache, metrics.cache(CacheName::Token).clone()),
            agents: Agents::new(limits.agent_cache, metrics.cache(CacheName::Agent).clone()),
            decisions: Decisions::new(limits.decision_cache, metrics.cache(CacheName::Decision).clone()),
            exchanger: credentials::exchanger(outbound.clone(), limits.credential_cache, &metrics),
            outbound,
            revoked: Recent::new(limits.revoked_sessions),
            budgets: {
                let store = live.peek().config.budgets_store.clone();
                Arc::new(Counters::new(limits.budget_cells, store.as_ref(), Arc::clone(&metrics)))
            },
            marks: Marks::new(limits.taint_marks),
            annotations: Annotations::default(),
            read_only: ReadOnlyTools::default(),
            handovers: Handovers::new(limits.handover_sessions),
            connector: Connector::new(None),
            digests: Digests::new(DIGESTS_MAX),
            observer,
            request_ids: RequestIds::new(u64::from_be_bytes(process)),
            watchdog: Arc::new(Watchdog::new(Arc::clone(&lifecycle), Arc::clone(&live))),
            live,
            metrics,
            audit,
            random,
            lifecycle,
        };
        Ok(Self { shell: Arc::new(shell) })
    }

    /// Forgets, for as long as the process runs, what this gateway remembers in vain.
    #[must_use]
    pub fn sweep(&self) -> Sweep {
        Sweep::new(Arc::clone(&self.shell))
    }

    /// Decides about a request; `Ok(true)` when the answer is already written.
    async fn receive(&self, client: &mut Client, exchange: &mut Exchange) -> pingora::Result<bool> {
        let world = self.shell.live.take();
        client.set_write_timeout(Some(world.config.limits.client_write_timeout));
        // What is left of a body that nobody read, before the connection is used again.
        client.as_downstream_mut().set_total_drain_timeout(Some(world.config.limits.request_body_timeout));
        // 1xx of a server say nothing that a client of the gateway could use.
        client.as_downstream_mut().set_ignore_info_resp(true);
        if self.shell.is_draining() {
            client.set_keepalive(None);
        }
        exchange.record.arrived(&self.shell, &world, client);
        if exchange.record.shown == Some(Shown::Distrusted) {
            return self.refuse(client, exchange, Rejection::ForbiddenCertificate).await;
        }
        let origin = match local::check_head(&world.config, client.req_header(), &exchange.record.host) {
            Ok(origin) => origin,
            Err(rejection) => return self.refuse(client, exchange, rejection).await,
        };
        exchange.record.origin = origin;
        if let Some(answer) = local::answer(&world, client.req_header(), exchange.record.origin.as_ref()) {
            exchange.record.answered_locally();
            respond::write(client, answer, &exchange.record).await?;
            return Ok(true);
        }
        match pipeline::admit(&self.shell, world, client, &mut exchange.record).await {
            Ok(admitted) => {
                let timeouts = &admitted.route.server.config.timeouts;
                let patience = Patience::new(timeouts, Owner::of(&admitted), &self.shell.live);
                let (answer, attempt) = (Answer::Awaited, Attempt::default());
                let shadow = shadow::begin(&self.shell, &admitted, client, &exchange.record);
                let forwarded = Forwarded { admitted, answer, attempt, patience, shadow, failure: None };
                exchange.stage = Stage::Admitted(Box::new(forwarded));
                Ok(false)
            }
            Err(rejection) => self.refuse(client, exchange, rejection).await,
        }
    }

    /// Finishes an answer that waits for a guard outside; says its status. None: no answer waits.
    async fn settle_outside(&self, client: &mut Client, exchange: &mut Exchange) -> Option<u16> {
        let Exchange { stage: Stage::Admitted(forwarded), record } = exchange else { return None };
        let Forwarded { admitted, answer, .. } = &mut **forwarded;
        let outside = answer.outside().filter(|outside| outside.waits())?;
        if let Err(error) = outside::settle(&self.shell, client, admitted, outside, record).await {
            tracing::debug!(request = %record.request_id, %error, "The client was gone before it had its answer.");
        }
        Some(client.response_written().map_or(0, |head| head.status.as_u16()))
    }

    async fn refuse(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        rejection: Rejection,
    ) -> pingora::Result<bool> {
        exchange.record.refused(&rejection);
        if matches!(rejection, Rejection::UnknownSession) {
            self.shell.metrics.session(SessionEvent::Refused);
        }
        if !rejection.leaves_connection_clean() {
            client.set_keepalive(None);
        }
        let answer = rejection.render(exchange.record.id.as_ref(), &exchange.record.request_id);
        exchange.stage = Stage::Refused(rejection);
        respond::write(client, answer, &exchange.record).await?;
        Ok(true)
    }

    /// The peer of this attempt: the admitted instance; after a failed connection another one; with a renewed credential
    /// when the server has refused the first.
    async fn choose_peer(&self, client: &Client, exchange: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
        let Stage::Admitted(forwarded) = &mut exchange.stage else { return Err(not_admitted()) };
        forwarded.attempt.count += 1;
        forwarded.attempt.unsent = false;
        forwarded.patience.give_up_connection();
        let chosen = self.next_attempt(client, forwarded, &mut exchange.record).await;
        chosen.map_err(|rejection| {
            forwarded.failure = Some(rejection);
            Error::explain(ErrorType::InternalError, "no peer")
        })
    }

    async fn next_attempt(
        &self,
        client: &Client,
        forwarded: &mut Forwarded,
        record: &mut Record,
    ) -> Result<Box<HttpPeer>, Rejection> {
        let admitted = &mut forwarded.admitted;
        if std::mem::take(&mut forwarded.attempt.elsewhere) {
            let placed = placement::pick_again(&admitted.route, &admitted.caller, admitted.path, record)?;
            // What could not be reached has failed, whatever becomes of the request elsewhere.
            admitted.trial.end(&self.shell, &admitted.route, record.generation);
            admitted.trial = Trial::new(&admitted.route, placed.turn, placed.path);
            (admitted.instance, admitted.path) = (placed.instance, placed.path);
        }
        if std::mem::take(&mut forwarded.attempt.renew_credential) {
            forwarded.attempt.renewed = true;
            let shell = &self.shell;
            let who = Who { caller: &admitted.caller, token: &admitted.subject_token, agent: admitted.agent.as_ref() };
            let (route, now) = (&admitted.route, shell.clock.now());
            let meters = shell.meters.of(route);
            admitted.credential = Box::pin(credentials::obtain(shell, route, &meters, who, now)).await?;
        }
        if std::mem::take(&mut forwarded.attempt.reinitialize) {
            forwarded.attempt.reinitialized = true;
            Box::pin(pipeline::reopen(&self.shell, admitted, client, record)).await?;
        }
        forward::peer(&self.shell, admitted)
    }

    /// Notes that the instance could not be reached. Whether the request may go to another one: nothing of it was sent,
    /// so yes, unless it belongs to a session.
    fn try_elsewhere(&self, exchange: &mut Exchange, error: &Error) -> bool {
        let Stage::Admitted(forwarded) = &mut exchange.stage else { return false };
        let admitted = &mut forwarded.admitted;
        admitted.instance.connection_failed(error);
        if !is_lack_of_files(error) {
            admitted.trial.refused(&self.shell, &admitted.route, &Rejection::UpstreamUnreachable);
        }
        let may_move = admitted.session.is_none() && forwarded.attempt.count < TRIES_MAX;
        forwarded.attempt.elsewhere = may_move;
        may_move
    }
}

impl Stage {
    /// The admitted request.
    ///
    /// # Errors
    /// An internal error when it was not admitted: Pingora calls no upstream phase then.
    fn forwarded(&self) -> pingora::Result<&Forwarded> {
        match self {
            Self::Admitted(forwarded) => Ok(forwarded),
            Self::Received | Self::Refused(_) => Err(not_admitted()),
        }
    }

    /// Why a request failed: what a stage has said of it, else what Pingora's error means.
    fn rejection(&self, error: &Error) -> Rejection {
        match self {
            Self::Admitted(forwarded) => match (&forwarded.failure, error.esource()) {
                (Some(rejection), _) => rejection.clone(),
                (None, ErrorSource::Downstream) => Rejection::ClientGone,
                (None, _) if forwarded.patience.ran_out() => Rejection::UpstreamTimeout,
                (None, _) => forward::rejection_of(error),
            },
            Self::Received => Rejection::ClientGone,
            Self::Refused(rejection) => rejection.clone(),
        }
    }
}

impl Forwarded {
    /// The answer is whole.
    fn end(&mut self) {
        self.patience.end();
        self.admitted.spent.iter_mut().for_each(Spent::release);
    }
}

impl Exchange {
    /// How somebody has ended the request from outside, if somebody has.
    fn ended(&self) -> Option<Rejection> {
        self.stage.forwarded().ok().and_then(|forwarded| forwarded.patience.ended())
    }
}

impl Shell {
    fn is_draining(&self) -> bool {
        self.lifecycle.is_draining()
    }
}

fn not_admitted() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the request was not admitted")
}

/// Lets whatever else is ready come as far as this, so that it is sent in a bunch. To wake a process that sleeps costs the
/// kernel more than a small write does, and one that finds a bunch of requests, or answers, stays awake for all of them:
/// under load that took 14 % off a request's CPU. What is alone waits for nobody.
async fn in_a_bunch() {
    tokio::task::yield_now().await;
}

/// Attempts at one request, the first included.
const TRIES_MAX: usize = 3;
