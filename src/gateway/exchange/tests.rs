#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use prometheus::Registry;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::credential::ClientAuth;
use crate::credential::Credential;
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::CacheName;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const LATER: UnixSeconds = UnixSeconds(NOW.0 + 100_000);

#[tokio::test]
async fn a_token_is_asked_for_once_and_then_remembered() {
    let world = World::new(tokens(300));
    let first = world.ask(&ALICE, NOW).await.unwrap();
    let second = world.ask(&ALICE, NOW).await.unwrap();
    assert_eq!((first.origin, second.origin), (Origin::Fresh, Origin::Cached));
    assert!(Arc::ptr_eq(&first.token, &second.token));
    assert_eq!(bearer(&first), "Bearer token-0");
    assert_eq!(world.sts.calls(), 1);
    let page = String::from_utf8(world.metrics.render()).unwrap();
    for line in [
        r#"portcullis_token_cache_total{cache="credential",result="hit"} 1"#,
        r#"portcullis_token_cache_total{cache="credential",result="miss"} 1"#,
        r#"portcullis_token_exchanges_total{outcome="ok",server="tickets"} 1"#,
        r#"portcullis_token_exchange_duration_seconds_count{server="tickets"} 1"#,
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[tokio::test]
async fn the_form_carries_the_callers_token_and_our_credentials() {
    let world = World::new(tokens(300));
    world.ask(&ALICE, NOW).await.unwrap();
    let seen = world.sts.seen.lock().unwrap();
    assert_eq!(seen[0].0, "https://sts.test/token");
    assert_eq!(seen[0].1.as_deref(), Some("Basic cG9ydGN1bGxpczpzM2NyM3Q="));
    assert!(seen[0].2.ends_with("&subject_token=alices-token"), "{}", seen[0].2);
}

// ── Single flight ──

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_at_once_make_one_exchange() {
    let world = World::gated(tokens(300));
    let callers = world.spawn(100);
    world.sts.called(1).await;
    world.sts.gate.add_permits(1000);
    for caller in callers {
        assert_eq!(bearer(&caller.await.unwrap().unwrap()), "Bearer token-0");
    }
    assert_eq!(world.sts.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_at_once_share_one_failure() {
    let world = World::gated(|_| Ok((400, r#"{"error":"invalid_grant"}"#.into())));
    let callers = world.spawn(100);
    world.sts.called(1).await;
    world.sts.gate.add_permits(1000);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap_err(), ExchangeError::InvalidGrant);
    }
    assert_eq!(world.sts.calls(), 1);
}

/// The leading request belongs to a client, and clients go away.
#[tokio::test]
async fn when_the_leader_is_cancelled_another_takes_over() {
    let world = World::gated(tokens(300));
    let mut callers = world.spawn(10);
    world.sts.called(1).await;
    for calls in 2..=4 {
        let leader = *world.sts.leaders.lock().unwrap().last().unwrap();
        let leader = callers.iter().position(|caller| caller.id() == leader).unwrap();
        callers.remove(leader).abort();
        world.sts.called(calls).await;
    }
    world.sts.gate.add_permits(1000);
    for caller in callers {
        assert_eq!(bearer(&caller.await.unwrap().unwrap()), "Bearer token-3");
    }
    assert_eq!(world.sts.calls(), 4);
}

#[tokio::test]
async fn when_everybody_is_cancelled_the_next_caller_is_served() {
    let world = World::gated(tokens(300));
    let callers = world.spawn(10);
    world.sts.called(1).await;
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    world.sts.gate.add_permits(1000);
    world.ask(&ALICE, NOW).await.unwrap();
}

/// A token that expires at once cannot be kept, but those who wait for it need not queue for one each.
#[tokio::test]
async fn callers_that_wait_share_a_token_that_cannot_be_kept() {
    let world = World::gated(tokens(300)).with_subject_expiry(NOW);
    let callers = world.spawn(20);
    world.sts.called(1).await;
    // Let everyone join the queue.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.sts.gate.add_permits(1000);
    for caller in callers {
        let obtained = caller.await.unwrap().unwrap();
        assert_eq!(bearer(&obtained), "Bearer token-0");
        assert_eq!(obtained.token.expires_at(), NOW);
    }
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap().origin, Origin::Fresh);
    assert_eq!(world.sts.calls(), 2);
}

// ── Who may share ──

/// Incidents: a stored token served to another user (ContextForge), data served to another tenant (Asana). Leaving any
/// of these out of the key must fail here.
#[tokio::test]
async fn callers_that_differ_in_anything_never_share_a_token() {
    let other_plan = ExchangePlan { scope: vec!["tickets:write".to_owned()], ..plan() };
    let others = [
        Who { issuer: "https://other.test", ..ALICE },
        Who { subject: "bob", ..ALICE },
        Who { client_id: Some("other-agent"), ..ALICE },
        Who { client_id: None, ..ALICE },
        Who { token_digest: [8; 32], ..ALICE },
        Who { server: "wiki", ..ALICE },
    ];
    let world = World::new(tokens(300));
    let alices = bearer(&world.ask(&ALICE, NOW).await.unwrap());
    let mut seen = vec![alices.clone()];
    for other in &others {
        seen.push(bearer(&world.ask(other, NOW).await.unwrap()));
    }
    let key = ExchangeKey { plan: other_plan.fingerprint(), ..ALICE.key() };
    let obtained = world.exchanger.credential(key, &other_plan, world.subject(), &world.server, NOW).await.unwrap();
    seen.push(bearer(&obtained));
    for agent in [[7; 32], [8; 32]] {
        let key = ExchangeKey { agent: Some(&agent), ..ALICE.key() };
        let obtained = world.exchanger.credential(key, &plan(), world.subject(), &world.server, NOW).await.unwrap();
        seen.push(bearer(&obtained));
    }
    let asked = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), asked);
    assert_eq!(world.sts.calls(), asked);
    assert_eq!(bearer(&world.ask(&ALICE, NOW).await.unwrap()), alices);
}

// ── Ends ──

#[tokio::test]
async fn a_token_near_its_end_is_replaced() {
    let world = World::new(tokens(300));
    world.ask(&ALICE, NOW).await.unwrap();
    let rows = [(269, Origin::Cached, 1), (270, Origin::Fresh, 2), (539, Origin::Cached, 2), (540, Origin::Fresh, 3)];
    for (seconds, origin, calls) in rows {
        let obtained = world.ask(&ALICE, UnixSeconds(NOW.0 + seconds)).await.unwrap();
        assert_eq!((obtained.origin, world.sts.calls()), (origin, calls), "{seconds}");
    }
}

#[tokio::test]
async fn no_token_is_served_past_the_callers_own() {
    let end = UnixSeconds(NOW.0 + 100);
    let world = World::new(tokens(86_400)).with_subject_expiry(end);
    let first = world.ask(&ALICE, NOW).await.unwrap();
    assert_eq!(first.token.expires_at(), end);
    // A fifth of its life before the end.
    assert_eq!(world.ask(&ALICE, UnixSeconds(NOW.0 + 79)).await.unwrap().origin, Origin::Cached);
    assert_eq!(world.ask(&ALICE, UnixSeconds(NOW.0 + 80)).await.unwrap().origin, Origin::Fresh);
    assert_eq!(world.ask(&ALICE, end).await.unwrap().origin, Origin::Fresh);
}

#[tokio::test]
async fn stale_tokens_are_wiped_on_request() {
    let world = World::new(tokens(300));
    world.ask(&ALICE, NOW).await.unwrap();
    world.ask(&Who { subject: "bob", ..ALICE }, UnixSeconds(NOW.0 + 200)).await.unwrap();
    world.exchanger.drop_stale(UnixSeconds(NOW.0 + 300));
    assert_eq!(world.exchanger.entries(), 1);
}

#[tokio::test]
async fn what_is_kept_has_a_bound() {
    let world = World::new(tokens(300));
    for index in 0..2000_u32 {
        let mut who = ALICE;
        who.token_digest[..4].copy_from_slice(&index.to_be_bytes());
        world.ask(&who, NOW).await.unwrap();
    }
    assert!(world.exchanger.entries() <= ENTRIES_MAX, "{}", world.exchanger.entries());
}

#[tokio::test]
async fn a_refused_token_is_forgotten_and_a_newer_one_is_not() {
    let world = World::new(tokens(300));
    let refused = world.ask(&ALICE, NOW).await.unwrap();
    world.exchanger.forget(Who { subject: "bob", ..ALICE }.key(), &refused.token);
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap().origin, Origin::Cached, "another's key drops nothing");

    world.exchanger.forget(ALICE.key(), &refused.token);
    let newer = world.ask(&ALICE, NOW).await.unwrap();
    assert_eq!((newer.origin, bearer(&newer).as_str()), (Origin::Fresh, "Bearer token-1"));

    // A second request that was refused with the old token reports it late.
    world.exchanger.forget(ALICE.key(), &refused.token);
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap().origin, Origin::Cached);
    assert_eq!(world.sts.calls(), 2);
}

// ── Failures ──

#[tokio::test]
async fn a_failure_is_remembered_for_its_caller_only() {
    let world = World::new(|call| match call {
        0 => Ok((400, r#"{"error":"invalid_grant"}"#.into())),
        _ => tokens(300)(call),
    });
    for _ in 0..3 {
        assert_eq!(world.ask(&ALICE, NOW).await.unwrap_err(), ExchangeError::InvalidGrant);
    }
    assert_eq!(world.sts.calls(), 1);
    world.ask(&Who { token_digest: [8; 32], ..ALICE }, NOW).await.unwrap();
}

#[tokio::test]
async fn a_failure_is_forgotten_after_its_time() {
    let obtained = |error, ago| Entry::new(Err(error), Instant::now().checked_sub(ago).unwrap());
    let second = Duration::from_secs(1);
    let rows = [
        (ExchangeError::InvalidGrant, second * 4, true),
        (ExchangeError::InvalidGrant, second * 5, false),
        (ExchangeError::ServerError, second / 2, true),
        (ExchangeError::ServerError, second, false),
    ];
    for (error, ago, fresh) in rows {
        // Neither the wall clock nor a jump of it counts.
        assert_eq!(obtained(error, ago).is_fresh(NOW), fresh, "{error:?} {ago:?}");
        assert_eq!(obtained(error, ago).is_fresh(LATER), fresh, "{error:?} {ago:?}");
    }
}

#[tokio::test]
async fn a_passing_failure_is_tried_once_more_and_no_other_is() {
    type Answer = Result<(u16, Bytes), PostError>;
    let good = || tokens(300)(0);
    let code = |status, code: &str| Ok((status, format!(r#"{{"error":"{code}"}}"#).into()));
    let rows: [(Answer, Answer, usize, Result<(), ExchangeError>); 8] = [
        (code(503, "temporarily_unavailable"), good(), 2, Ok(())),
        (Err(PostError::Unreachable), good(), 2, Ok(())),
        (code(429, ""), good(), 2, Ok(())),
        (code(500, ""), code(500, ""), 2, Err(ExchangeError::ServerError)),
        (code(500, ""), code(400, "invalid_grant"), 2, Err(ExchangeError::InvalidGrant)),
        (code(400, "invalid_client"), good(), 1, Err(ExchangeError::InvalidClient)),
        (Err(PostError::TooLarge), good(), 1, Err(ExchangeError::TooLarge)),
        (Err(PostError::Timeout), good(), 1, Err(ExchangeError::Timeout)),
    ];
    for (index, (first, second, calls, expected)) in rows.into_iter().enumerate() {
        let world = World::new(move |call| if call == 0 { first.clone() } else { second.clone() });
        let outcome = world.ask(&ALICE, NOW).await.map(|_| ());
        assert_eq!((outcome, world.sts.calls()), (expected, calls), "row {index}");
    }
}

#[tokio::test]
async fn there_is_no_second_try_without_time_for_it() {
    let world = World::new(|_| Ok((500, Bytes::new()))).with_timeout(RETRY_PAUSE / 2);
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap_err(), ExchangeError::ServerError);
    assert_eq!(world.sts.calls(), 1);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_costs_the_plans_time_once() {
    let world = World::gated(tokens(300)).with_timeout(Duration::from_millis(30));
    let started = Instant::now();
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap_err(), ExchangeError::Timeout);
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap_err(), ExchangeError::Timeout);
    assert_eq!(world.sts.calls(), 1);
}

#[tokio::test]
async fn an_echo_of_the_callers_token_is_no_credential() {
    let world = World::new(|_| Ok((200, r#"{"access_token":"alices-token","token_type":"Bearer"}"#.into())));
    assert_eq!(world.ask(&ALICE, NOW).await.unwrap_err(), ExchangeError::TokenUnchanged);
}

// ── Helpers ──

const ENTRIES_MAX: usize = 256;

const ALICE: Who = Who {
    issuer: "https://idp.test",
    subject: "alice",
    client_id: Some("agent"),
    token_digest: [7; 32],
    server: "tickets",
};

#[derive(Clone, Copy)]
struct Who {
    issuer: &'static str,
    subject: &'static str,
    client_id: Option<&'static str>,
    token_digest: [u8; 32],
    server: &'static str,
}

impl Who {
    fn key(&self) -> ExchangeKey<'_> {
        let Self { issuer, subject, client_id, ref token_digest, server } = *self;
        ExchangeKey { issuer, subject, client_id, token_digest, agent: None, server, plan: plan().fingerprint() }
    }
}

/// What the n-th call is answered.
type Script = dyn Fn(usize) -> Result<(u16, Bytes), PostError> + Send + Sync;

/// A token endpoint in memory: counts calls, answers by their number, and waits at its gate first.
struct Sts {
    calls: AtomicUsize,
    gate: Semaphore,
    leaders: Mutex<Vec<tokio::task::Id>>,
    seen: Mutex<Vec<(String, Option<String>, String)>>,
    answer: Box<Script>,
}

impl Sts {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until there were `calls` in all.
    async fn called(&self, calls: usize) {
        let wait = async {
            while self.calls() < calls {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    }
}

#[async_trait]
impl PostForm for Sts {
    async fn post_form(
        &self,
        url: &str,
        authorization: Option<&str>,
        body: &str,
        _: Duration,
    ) -> Result<(u16, Bytes), PostError> {
        self.leaders.lock().unwrap().extend(tokio::task::try_id());
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push((url.to_owned(), authorization.map(str::to_owned), body.to_owned()));
        self.gate.acquire().await.unwrap().forget();
        (self.answer)(call)
    }
}

struct World {
    sts: Arc<Sts>,
    exchanger: Arc<Exchanger>,
    server: Arc<ServerMetrics>,
    metrics: Metrics,
    timeout: Duration,
    subject_expires_at: UnixSeconds,
}

impl World {
    fn new(answer: impl Fn(usize) -> Result<(u16, Bytes), PostError> + Send + Sync + 'static) -> Self {
        let world = Self::gated(answer);
        world.sts.gate.add_permits(1_000_000);
        world
    }

    fn gated(answer: impl Fn(usize) -> Result<(u16, Bytes), PostError> + Send + Sync + 'static) -> Self {
        let sts = Arc::new(Sts {
            calls: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            leaders: Mutex::default(),
            seen: Mutex::default(),
            answer: Box::new(answer),
        });
        let metrics = Metrics::new(Registry::new()).unwrap();
        Self {
            exchanger: Arc::new(Exchanger::new(
                Arc::clone(&sts) as Arc<dyn PostForm>,
                ENTRIES_MAX,
                metrics.cache(CacheName::Credential).clone(),
            )),
            server: Arc::new(metrics.server("tickets", [])),
            sts,
            metrics,
            timeout: Duration::from_secs(20),
            subject_expires_at: LATER,
        }
    }

    fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn with_subject_expiry(self, subject_expires_at: UnixSeconds) -> Self {
        Self { subject_expires_at, ..self }
    }

    fn subject(&self) -> Subject<'static> {
        Subject { token: "alices-token", expires_at: self.subject_expires_at, actor: None }
    }

    async fn ask(&self, who: &Who, now: UnixSeconds) -> Result<Obtained, ExchangeError> {
        let plan = ExchangePlan { timeout: self.timeout, ..plan() };
        self.exchanger.credential(who.key(), &plan, self.subject(), &self.server, now).await
    }

    /// Alice, many times at once.
    fn spawn(&self, callers: usize) -> Vec<JoinHandle<Result<Obtained, ExchangeError>>> {
        (0..callers)
            .map(|_| {
                let (exchanger, server) = (Arc::clone(&self.exchanger), Arc::clone(&self.server));
                let (subject, plan) = (self.subject(), ExchangePlan { timeout: self.timeout, ..plan() });
                tokio::spawn(async move { exchanger.credential(ALICE.key(), &plan, subject, &server, NOW).await })
            })
            .collect()
    }
}

/// Answers each call with a token of its own.
fn tokens(expires_in: u64) -> impl Fn(usize) -> Result<(u16, Bytes), PostError> + Send + Sync + 'static {
    move |call| {
        let answer = serde_json::json!({
            "access_token": format!("token-{call}"),
            "token_type": "Bearer",
            "expires_in": expires_in,
        });
        Ok((200, answer.to_string().into()))
    }
}

fn bearer(obtained: &Obtained) -> String {
    let credential = Credential::from_exchanged(&obtained.token, obtained.origin);
    credential.value().to_str().unwrap().to_owned()
}

fn plan() -> ExchangePlan {
    ExchangePlan {
        token_endpoint: "https://sts.test/token".to_owned(),
        client_id: "portcullis".to_owned(),
        client_secret: Some(Secret::new("s3cr3t".to_owned())),
        client_auth: ClientAuth::ClientSecretBasic,
        audience: vec!["tickets".to_owned()],
        resource: vec![],
        scope: vec!["tickets:read".to_owned()],
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        requested_token_type: None,
        actor_token: None,
        timeout: Duration::from_secs(5),
        accept_missing_token_type: false,
    }
}
