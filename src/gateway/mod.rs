//! DATA PLANE: the Pingora adapter. Thin: each phase is one call into the file that answers its question.

mod agents;
mod annotations;
mod body;
mod content;
mod credentials;
mod decisions;
pub mod door;
pub mod exchange;
mod forward;
pub mod governance;
mod local;
mod meters;
mod outside;
mod pipeline;
mod record;
mod rejection;
mod respond;
mod revoked;
pub mod sweep;
mod tokens;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
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
use crate::snapshot::Live;
use crate::telemetry::audit::AuditSink;
use crate::telemetry::metrics::{CacheName, Metrics, SessionEvent};
use crate::time::Clock;

use self::agents::Agents;
use self::annotations::Annotations;
use self::decisions::Decisions;
use self::exchange::Exchanger;
use self::forward::Patience;
use self::governance::{DIGESTS_MAX, Digests, Observer};
use self::meters::Meters;
use self::pipeline::{Admitted, Who};
use self::record::{Record, RequestIds};
use self::rejection::Rejection;
use self::respond::Answer;
use self::revoked::Revoked;
use self::sweep::Sweep;
use self::tokens::Tokens;
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
    revoked: Revoked,
    annotations: Annotations,
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

    async fn upstream_peer(&self, _client: &mut Client, exchange: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        self.choose_peer(exchange).await
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
        let forwarded = exchange.stage.forwarded()?;
        exchange.record.sent_upstream();
        forward::write_head(&forwarded.admitted, client, &exchange.record, upstream)
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
        self.answer_head(client, head, exchange)
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
        let again = exchange.stage.forwarded().is_ok_and(|forwarded| {
            let Forwarded { admitted, attempt, patience, .. } = forwarded;
            attempt.count < TRIES_MAX
                && (attempt.renew_credential
                    || attempt.unsent
                    || !patience.ran_out() && forward::may_repeat(admitted, &error, reused, answered))
        });
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, client: &mut Client, error: &Error, exchange: &mut Self::CTX) -> FailToProxy {
        if let Some(status) = self.settle_outside(client, exchange).await {
            return FailToProxy { error_code: status, can_reuse_downstream: false };
        }
        let mut rejection = exchange.stage.rejection(error);
        if self.shell.lifecycle.is_ending() && matches!(rejection, Rejection::UpstreamTimeout) {
            rejection = Rejection::ShuttingDown;
        } else if matches!(rejection, Rejection::UpstreamTimeout) && exchange.is_ended() {
            rejection = Rejection::UnknownSession;
        }
        exchange.record.refused(&rejection);
        tracing::debug!(request = %exchange.record.request_id, %error, "The request failed on its way.");
        respond::report_failure(client, &rejection, exchange).await;
        FailToProxy { error_code: rejection.status().as_u16(), can_reuse_downstream: false }
    }

    async fn logging(&self, client: &mut Client, _error: Option<&Error>, exchange: &mut Self::CTX) {
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
            revoked: Revoked::new(limits.revoked_sessions),
            annotations: Annotations::default(),
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
                let patience = Patience::new(timeouts, admitted.caller.principal(), &self.shell.live);
                let (answer, attempt) = (Answer::Awaited, Attempt::default());
                let forwarded = Forwarded { admitted, answer, attempt, patience, failure: None };
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
    async fn choose_peer(&self, exchange: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
        let Stage::Admitted(forwarded) = &mut exchange.stage else { return Err(not_admitted()) };
        forwarded.attempt.count += 1;
        forwarded.attempt.unsent = false;
        forwarded.patience.give_up_connection();
        let chosen = self.next_attempt(forwarded, &mut exchange.record).await;
        chosen.map_err(|rejection| {
            forwarded.failure = Some(rejection);
            Error::explain(ErrorType::InternalError, "no peer")
        })
    }

    async fn next_attempt(&self, forwarded: &mut Forwarded, record: &mut Record) -> Result<Box<HttpPeer>, Rejection> {
        let admitted = &mut forwarded.admitted;
        if std::mem::take(&mut forwarded.attempt.elsewhere) {
            admitted.instance = admitted.route.server.pool.pick().ok_or(Rejection::UpstreamUnreachable)?;
            record.instance = Some(Arc::clone(&admitted.instance));
        }
        if std::mem::take(&mut forwarded.attempt.renew_credential) {
            forwarded.attempt.renewed = true;
            let shell = &self.shell;
            let who = Who { caller: &admitted.caller, token: &admitted.subject_token, agent: admitted.agent.as_ref() };
            let (route, now) = (&admitted.route, shell.clock.now());
            admitted.credential = credentials::obtain(shell, route, &shell.meters.of(route), who, now).await?;
        }
        forward::peer(&self.shell, admitted)
    }

    /// Notes that the instance could not be reached. Whether the request may go to another one: nothing of it was sent,
    /// so yes, unless it belongs to a session.
    fn try_elsewhere(&self, exchange: &mut Exchange, error: &Error) -> bool {
        let Stage::Admitted(forwarded) = &mut exchange.stage else { return false };
        let admitted = &forwarded.admitted;
        admitted.instance.connection_failed(error);
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

impl Exchange {
    /// Whether somebody has ended the sessions of whoever asked.
    fn is_ended(&self) -> bool {
        self.stage.forwarded().is_ok_and(|forwarded| forwarded.patience.is_ended())
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

/// Attempts at one request, the first included.
const TRIES_MAX: usize = 3;
