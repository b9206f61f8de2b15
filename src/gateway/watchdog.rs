//! Who wakes a request whose server has fallen silent?
//!
//! Pingora has one time limit for reads, fixed before it knows what it will wait for, and calls nobody while a server
//! says nothing. So one task looks at every HTTP/1.1 connection to a server a few times a second, and shuts down the
//! socket of each whose request is over its time. The request then wakes with a read error, ends as every failed request
//! does, and finds here that it was its time that ran out.
//!
//! A watch belongs to a connection, not to a request: it is made and listed once per connection, and a request only moves
//! its limits. An HTTP/2 connection carries the requests of many callers, so it has no watch.

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, GetProxyDigest as _};
use pingora::{Error, ErrorType, OrErr as _};
use tokio::time::MissedTickBehavior;

use crate::lifecycle::Lifecycle;
use crate::snapshot::Live;
use crate::time::Clock;

use super::stops::{Owner, Stops};

/// Connects to servers, and watches over the connections.
pub(super) struct Watchdog {
    watches: Arc<Mutex<Vec<Arc<Watch>>>>,
    lifecycle: Arc<Lifecycle>,
    live: Arc<Live>,
    started: Once,
}

/// One request's use of one connection, from its sending to the end of its answer. Dropping it ends it.
pub(super) struct Turn {
    watch: Arc<Watch>,
    number: u64,
}

/// How long a request may go on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// It is over at this time, whatever the server does.
    pub(super) until: Instant,
    /// It is over when the server has said nothing for this long.
    pub(super) silence: Option<Duration>,
}

/// The request's time has run out, and its connection was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RanOut;

/// One connection, as long as it is open.
struct Watch {
    /// Alive as long as Pingora keeps the connection.
    socket: Weak<TcpStream>,
    state: Mutex<State>,
}

/// What Pingora keeps with the connection: in a [`Digest`], where a request finds it.
struct Line {
    watch: Arc<Watch>,
    /// A second descriptor of the socket. The first is Pingora's, and its number may stand for another connection at any
    /// time; this one is of this connection for as long as it is open.
    _socket: Arc<TcpStream>,
}

#[derive(Default)]
struct State {
    /// The latest turn.
    number: u64,
    /// Its limits, and when the server was last heard; `None` when it is over.
    running: Option<(Limits, Instant)>,
    /// Whose turn it is.
    owner: Option<Arc<Owner>>,
    /// The socket was shut down, in the latest turn. INVARIANT: there is no other turn after it.
    is_shut: bool,
}

impl Watchdog {
    /// When `lifecycle` says so, every request has waited long enough; when `live` says that somebody's sessions were
    /// ended, that somebody or something was stopped, or that a server or tool was taken out of use, theirs have.
    pub(super) fn new(lifecycle: Arc<Lifecycle>, live: Arc<Live>) -> Self {
        Self { watches: Arc::default(), lifecycle, live, started: Once::new() }
    }

    fn watch(&self, socket: std::os::fd::OwnedFd) -> Line {
        let socket = Arc::new(TcpStream::from(socket));
        let watch = Arc::new(Watch { socket: Arc::downgrade(&socket), state: Mutex::default() });
        locked(&self.watches).push(Arc::clone(&watch));
        self.started.call_once(|| {
            let (lifecycle, live) = (Arc::clone(&self.lifecycle), Arc::clone(&self.live));
            drop(tokio::spawn(patrol(Arc::downgrade(&self.watches), lifecycle, live)));
        });
        Line { watch, _socket: socket }
    }
}

#[async_trait]
impl L4Connect for Watchdog {
    /// Connects as Pingora does by itself, under its `total_connection_timeout`.
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let address = address.as_inet();
        let address = address.ok_or_else(|| Error::explain(ErrorType::ConnectError, "no internet address"))?;
        let socket = ext::connect(address, None).await?;
        let second = socket.as_fd().try_clone_to_owned();
        let second = second.or_err(ErrorType::ConnectError, "no second descriptor for the connection")?;
        let line = self.watch(second);
        let mut stream = Stream::from(socket);
        // Pingora keeps this for what a CONNECT proxy says of a connection. There is none between us and a server, and
        // it is the one place where something of ours stays with a connection, in the pool too.
        stream.set_proxy_digest(ProxyDigest::new(Box::new(ResponseHeader::build(200, Some(0))?), Some(Box::new(line))));
        Ok(stream)
    }
}

impl Turn {
    /// Begins a turn of `owner` on the connection of `digest` at `now`, within `limits`. `Ok(None)` when it is not watched.
    ///
    /// # Errors
    /// [`RanOut`] when the connection was shut down for an earlier request: nothing may be sent on it.
    pub(super) fn begin(
        digest: Option<&Digest>,
        owner: &Arc<Owner>,
        limits: Limits,
        now: Instant,
    ) -> Result<Option<Self>, RanOut> {
        let kept = digest.and_then(|digest| digest.proxy_digest.as_deref());
        let line = kept.and_then(|kept| kept.user_data.as_ref()).and_then(|line| line.downcast_ref::<Line>());
        line.map(|line| line.watch.begin(Some(Arc::clone(owner)), limits, now)).transpose()
    }

    /// The server was heard at `now`: from here on `limits` hold.
    ///
    /// # Errors
    /// [`RanOut`] when it was too late. The end of an answer may look proper then, because the end of the connection ends
    /// an answer of unknown length.
    pub(super) fn heard(&self, limits: Limits, now: Instant) -> Result<(), RanOut> {
        let mut state = self.watch.state();
        if state.number == self.number {
            if state.is_shut {
                return Err(RanOut);
            }
            state.running = Some((limits, now));
        }
        Ok(())
    }

    /// Whether the request's time has run out.
    pub(super) fn ran_out(&self) -> bool {
        let state = self.watch.state();
        state.number == self.number && state.is_shut
    }

    /// Ends the turn: the answer is whole, and the connection may go back to the pool.
    pub(super) fn end(&self) {
        let mut state = self.watch.state();
        if state.number == self.number {
            state.running = None;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

impl Watch {
    fn begin(self: &Arc<Self>, owner: Option<Arc<Owner>>, limits: Limits, now: Instant) -> Result<Turn, RanOut> {
        let mut state = self.state();
        if state.is_shut {
            return Err(RanOut);
        }
        state.number += 1;
        state.running = Some((limits, now));
        state.owner = owner;
        Ok(Turn { watch: Arc::clone(self), number: state.number })
    }

    /// Shuts the connection down if its request is over its time at `now`, or was ended from outside, as `is_ended` says. False when
    /// the connection is no more.
    fn look(&self, now: Instant, is_ended: &dyn Fn(&Owner) -> bool) -> bool {
        let mut state = self.state();
        let is_ended = state.owner.as_deref().is_some_and(is_ended);
        let now = if is_ended { now + FAR_AWAY } else { now };
        let Some((limits, heard_at)) = &mut state.running else { return self.socket.strong_count() > 0 };
        let is_silent = limits.silence.is_some_and(|silence| now >= *heard_at + silence);
        if now < limits.until && !is_silent {
            return self.socket.strong_count() > 0;
        }
        let Some(socket) = self.socket.upgrade() else { return false };
        // Bytes that wait were not read because the client does not take what came before: the server is not silent.
        if now < limits.until && socket.peek(&mut [0]).is_ok_and(|waiting| waiting > 0) {
            *heard_at = now;
            return true;
        }
        // INVARIANT: only the running turn's connection is ever shut down. A turn ends, and the next begins, under the
        // lock that is held here; and the socket is this connection's own, whatever became of Pingora's descriptor.
        state.running = None;
        state.is_shut = true;
        // It fails when the other side was quicker, and then the request is awake already.
        let _ = socket.shutdown(Shutdown::Both);
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").finish_non_exhaustive()
    }
}

/// Looks at every connection, again and again, until the gateway is gone.
async fn patrol(watches: Weak<Mutex<Vec<Arc<Watch>>>>, lifecycle: Arc<Lifecycle>, live: Arc<Live>) {
    let mut ticks = tokio::time::interval(PATROL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(watches) = watches.upgrade() else { return };
        // At the end of the process everybody's time is over.
        let now = Instant::now() + if lifecycle.is_ending() { FAR_AWAY } else { Duration::ZERO };
        let (quarantines, world) = (live.quarantines(), live.peek());
        let revocations = live.revocations();
        let stops = Stops { revocations, quarantines: &quarantines, catalog: &world.catalog, now: Clock.now() };
        let is_ended = |owner: &Owner| owner.ended(&stops).is_some();
        locked(&watches).retain(|watch| watch.look(now, &is_ended));
    }
}

/// No code panics while it holds one of these locks, and each value is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time limit is kept up to this much late. Ten thousand connections take well under a millisecond each time.
const PATROL_INTERVAL: Duration = Duration::from_millis(100);

/// Longer than any limit that can be configured.
const FAR_AWAY: Duration = Duration::from_secs(10 * 365 * 86_400);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::super::stops::Extent;
    use super::*;
    use crate::identity::Principal;
    use crate::policy::quarantine::{Quarantine, Quarantines, Stopped};
    use crate::registry::Catalog;
    use crate::registry::lifecycle::State;
    use crate::registry::record::Cause;
    use crate::registry::testkit::{pinned, server, waiting};
    use crate::session::Revocations;
    use crate::time::UnixSeconds;

    const SECOND: Duration = Duration::from_secs(1);

    /// A watched connection, and its other end.
    struct Pair {
        line: Line,
        here: TcpStream,
        there: TcpStream,
    }

    impl Pair {
        fn open() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            here.set_nonblocking(true).unwrap();
            let there = listener.accept().unwrap().0;
            there.set_read_timeout(Some(SECOND)).unwrap();
            let socket = Arc::new(TcpStream::from(here.as_fd().try_clone_to_owned().unwrap()));
            let watch = Arc::new(Watch { socket: Arc::downgrade(&socket), state: Mutex::default() });
            Self { line: Line { watch, _socket: socket }, here, there }
        }

        fn turn(&self, limits: Limits) -> Turn {
            self.line.watch.begin(None, limits, Instant::now()).unwrap()
        }

        fn look_in(&self, time: Duration) {
            self.line.watch.look(Instant::now() + time, &|_owner| false);
        }

        /// Whether bytes still flow.
        fn is_open(&mut self) -> bool {
            let mut byte = [0];
            self.here.write_all(b"x").is_ok() && matches!(self.there.read(&mut byte), Ok(1))
        }
    }

    fn principal(subject: &str) -> Principal {
        Principal { issuer: "https://idp.test".into(), subject: subject.into() }
    }

    fn owner(subject: &str, tool: Option<&str>) -> Arc<Owner> {
        Arc::new(Owner {
            principal: principal(subject),
            agent: None,
            server: "mail".into(),
            tool: tool.map(Into::into),
            more_tools: Vec::new(),
            governed: Extent::Nothing,
            since: Instant::now(),
        })
    }

    /// A quarantine ends what was open before it and what comes after.
    #[test]
    fn a_turn_of_somebody_or_something_that_is_stopped_loses_its_connection() {
        let stopped = [
            Stopped::Principal { subject: "alice".into(), issuer: None },
            Stopped::Tool { name: "send".into(), server: Some("mail".into()) },
        ];
        let stopped = stopped.map(|stopped| {
            let (since, why, by) = (UnixSeconds(1), "".into(), "test".into());
            Quarantine { id: stopped.id(), stopped, since, until: Some(UnixSeconds(9)), why, by }
        });
        let (quarantines, revocations) = (Quarantines::new(stopped.into()), Revocations::new(0));
        for (subject, tool, at, is_open) in [
            ("alice", None, 5, false),
            ("bob", Some("send"), 5, false),
            ("bob", Some("read"), 5, true),
            ("alice", None, 9, true),
        ] {
            let mut pair = Pair::open();
            let turn = pair.line.watch.begin(Some(owner(subject, tool)), limits(60 * SECOND, None), Instant::now());
            let (catalog, now) = (Catalog::default(), UnixSeconds(at));
            let stops = Stops { revocations: &revocations, quarantines: &quarantines, catalog: &catalog, now };
            pair.line.watch.look(Instant::now(), &|owner| owner.ended(&stops).is_some());
            assert_eq!(pair.is_open(), is_open, "{subject} {tool:?} at {at}");
            drop(turn);
        }
    }

    /// Calls that were let in go on while a change waits for approval, and no longer than somebody lets them.
    #[test]
    fn a_turn_of_a_server_or_tool_that_is_taken_out_of_use_loses_its_connection() {
        let mut items = ["read", "send", "drop"].map(|name| pinned("mail", name, 1));
        items[1].waiting = waiting("mail", "send", 2, Cause::Changed).waiting;
        items[2].state = State::Suspended;
        let catalog_of = |state| Catalog::new([&server("mail", state)], &items);
        let (revocations, quarantines) = (Revocations::new(0), Quarantines::default());
        for (state, governed, tool, is_open) in [
            (State::Approved, Extent::ServerAndTools, "read", true),
            (State::Approved, Extent::ServerAndTools, "send", true),
            (State::Approved, Extent::ServerAndTools, "drop", false),
            (State::Approved, Extent::Server, "drop", true),
            (State::Suspended, Extent::Server, "read", false),
            (State::Suspended, Extent::ServerAndTools, "read", false),
            (State::Retired, Extent::Server, "read", false),
            (State::Suspended, Extent::Nothing, "read", true),
        ] {
            let mut pair = Pair::open();
            let owner = Arc::new(Owner { governed, ..Owner::clone(&owner("alice", Some(tool))) });
            let turn = pair.line.watch.begin(Some(owner), limits(60 * SECOND, None), Instant::now());
            let (catalog, now) = (catalog_of(state), UnixSeconds(1));
            let stops = Stops { revocations: &revocations, quarantines: &quarantines, catalog: &catalog, now };
            pair.line.watch.look(Instant::now(), &|owner| owner.ended(&stops).is_some());
            assert_eq!(pair.is_open(), is_open, "{state:?} {governed:?} {tool}");
            drop(turn);
        }
    }

    fn limits(until: Duration, silence: Option<Duration>) -> Limits {
        Limits { until: Instant::now() + until, silence }
    }

    #[test]
    fn a_turn_over_its_time_loses_its_connection() {
        let mut pair = Pair::open();
        let turn = pair.turn(limits(2 * SECOND, None));
        pair.look_in(SECOND);
        assert!(pair.is_open() && !turn.ran_out());
        pair.look_in(3 * SECOND);
        assert!(!pair.is_open() && turn.ran_out());
        assert_eq!(turn.heard(limits(SECOND, None), Instant::now()), Err(RanOut));
    }

    #[test]
    fn a_turn_of_somebody_whose_sessions_were_ended_loses_its_connection() {
        let (mut alices, mut bobs) = (Pair::open(), Pair::open());
        let turn = |pair: &Pair, subject| {
            pair.line.watch.begin(Some(owner(subject, None)), limits(60 * SECOND, None), Instant::now()).unwrap()
        };
        let (alice, bob) = (turn(&alices, "alice"), turn(&bobs, "bob"));
        let revocations = Revocations::new(1);
        revocations.revoke(&principal("alice"), UnixSeconds(1), Instant::now()).unwrap();
        let later = turn(&Pair::open(), "alice");
        let (nothing, catalog, now) = (Quarantines::default(), Catalog::default(), UnixSeconds(1));
        let stops = Stops { revocations: &revocations, quarantines: &nothing, catalog: &catalog, now };
        let is_ended = |owner: &Owner| owner.ended(&stops).is_some();
        for pair in [&alices, &bobs] {
            pair.line.watch.look(Instant::now(), &is_ended);
        }
        later.watch.look(Instant::now(), &is_ended);
        assert!(!alices.is_open() && alice.ran_out());
        assert!(bobs.is_open() && !bob.ran_out());
        assert!(!later.ran_out(), "what comes later is not concerned");
    }

    #[test]
    fn a_server_that_is_heard_now_and_then_is_not_silent() {
        let mut pair = Pair::open();
        let turn = pair.turn(limits(60 * SECOND, None));
        assert_eq!(turn.heard(limits(60 * SECOND, Some(5 * SECOND)), Instant::now()), Ok(()));
        pair.look_in(4 * SECOND);
        assert!(pair.is_open());
        pair.look_in(6 * SECOND);
        assert!(turn.ran_out());
    }

    #[test]
    fn bytes_that_nobody_has_read_are_no_silence_but_do_not_move_the_hard_end() {
        let mut pair = Pair::open();
        let turn = pair.turn(limits(60 * SECOND, Some(SECOND)));
        pair.there.write_all(b"data").unwrap();
        pair.look_in(2 * SECOND);
        assert!(!turn.ran_out() && pair.is_open());
        pair.look_in(61 * SECOND);
        assert!(turn.ran_out());
    }

    #[test]
    fn a_connection_between_two_turns_is_left_alone() {
        let mut pair = Pair::open();
        pair.turn(limits(SECOND, None)).end();
        pair.look_in(2 * SECOND);
        drop(pair.turn(limits(SECOND, None)));
        pair.look_in(2 * SECOND);
        assert!(pair.is_open());
    }

    /// The pool may hand a connection on before the request that had it is quite gone.
    #[test]
    fn a_turn_that_lingers_touches_nothing_of_the_next() {
        let mut pair = Pair::open();
        let lingering = pair.turn(limits(SECOND, None));
        let next = pair.turn(limits(5 * SECOND, None));
        assert_eq!(lingering.heard(limits(Duration::ZERO, None), Instant::now()), Ok(()));
        pair.look_in(2 * SECOND);
        assert!(pair.is_open());
        drop(lingering);
        pair.look_in(6 * SECOND);
        assert!(next.ran_out(), "the limits of the next turn still hold");
    }

    #[test]
    fn no_turn_begins_on_a_connection_that_was_shut_down() {
        let pair = Pair::open();
        let turn = pair.turn(limits(SECOND, None));
        pair.look_in(2 * SECOND);
        assert!(pair.line.watch.begin(None, limits(SECOND, None), Instant::now()).is_err());
        assert!(turn.ran_out());
    }

    /// The number of a closed descriptor goes to the next connection at once.
    #[test]
    fn a_connection_that_was_closed_meanwhile_costs_no_other_its_socket() {
        let Pair { line, here, .. } = Pair::open();
        let turn = line.watch.begin(None, limits(SECOND, None), Instant::now()).unwrap();
        let watch = Arc::clone(&line.watch);
        drop((line, here));
        let mut other = Pair::open();
        assert!(!watch.look(Instant::now() + 2 * SECOND, &|_owner| false), "it is taken off the list");
        assert!(other.is_open() && !turn.ran_out());
    }
}
