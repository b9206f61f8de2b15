//! What has been used, at all gateways together? Cells in Redis, looked at and written by one script per call.
//!
//! The connection lives on a thread of its own, which opens it anew when it breaks; a request only sends, and waits for a
//! short time. While Redis is away every gateway counts for itself.
//!
//! Redis' own clock decides, so that gateways whose clocks differ agree. What runs is a member with an expiry of a sorted
//! set, which its gateway extends: when a gateway dies its calls are over a while later. All keys have one hash tag, so that
//! in a cluster they are on one node, as a script needs it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, TlsCertificates};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use tracing::{error, info, warn};

use crate::config::BudgetsStore;
use crate::policy::budget::meter::{Exceeded, Left, Meter};
use crate::policy::budget::{CellKey, Charge};
use crate::telemetry::metrics::Metrics;

use super::table::TooMuch;

/// Redis, as far as budgets need it.
pub(super) struct Shared {
    connection: ArcSwapOption<MultiplexedConnection>,
    /// What every key begins with.
    prefix: Box<str>,
    timeout: Duration,
    /// Until when nobody asks, because the last one waited in vain: microseconds since `began`.
    rests_until: AtomicU64,
    began: Instant,
    /// Told of its absence, and not yet of its return.
    is_away: AtomicBool,
    /// Random, so that no two processes name a lease alike.
    process: u64,
    next_lease: AtomicU64,
    /// What runs here, to be extended.
    running: DashMap<u64, Vec<(CellKey, u64)>>,
    errands: mpsc::Sender<Errand>,
    metrics: Arc<Metrics>,
}

/// What has been decided together.
pub(super) enum Verdict {
    /// Everything was used.
    Spent {
        /// What is left, a charge each.
        left: Vec<Left>,
        /// What has to be given back, when something runs.
        lease: Option<Lease>,
    },
    /// Nothing was.
    TooMuch(TooMuch),
}

/// Names what runs.
#[derive(Debug)]
pub(super) struct Lease(u64);

/// What nobody waits for.
enum Errand {
    Charge { key: CellKey, amount: u64, window: u64 },
    Release { lease: u64, keys: Vec<(CellKey, u64)> },
}

impl Shared {
    /// Starts the thread of the connection. None, with a word in the log, when that cannot be: the gateway counts alone.
    pub(super) fn start(store: &BudgetsStore, metrics: Arc<Metrics>) -> Option<Arc<Self>> {
        let client = match open(store) {
            Ok(client) => client,
            Err(error) => {
                error!(
                    reason = error.category(),
                    "budgets_store.redis.url cannot be used: budgets are counted here alone."
                );
                return None;
            }
        };
        let mut process = [0; 8];
        SystemRandom::new().fill(&mut process).ok()?;
        let (errands, queue) = mpsc::channel(ERRANDS_MAX);
        let shared = Arc::new(Self {
            connection: ArcSwapOption::empty(),
            prefix: store.prefix.clone(),
            timeout: store.timeout,
            rests_until: AtomicU64::new(0),
            began: Instant::now(),
            is_away: AtomicBool::new(false),
            process: u64::from_be_bytes(process),
            next_lease: AtomicU64::new(1),
            running: DashMap::new(),
            errands,
            metrics,
        });
        let kept = Arc::clone(&shared);
        let thread = thread::Builder::new().name("budgets".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(keep(&kept, &client, queue)),
                Err(error) => error!(%error, "There is no runtime for budgets_store: budgets are counted here alone."),
            }
        });
        thread.ok().map(|_runs_as_long_as_the_process| shared)
    }

    /// Uses what every charge says, or nothing. None when Redis is away.
    pub(super) async fn spend(&self, charges: &[Charge]) -> Option<Verdict> {
        let lease = charges.iter().any(is_running).then(|| self.next_lease.fetch_add(1, Ordering::Relaxed));
        let answer = match self.connection() {
            Some(mut connection) => {
                let mut call = SPEND.prepare_invoke();
                call.arg(self.member(lease.unwrap_or_default())).arg(LEASE.as_millis() as u64);
                for charge in charges {
                    let (kind, most, time) = parameters(charge.limit.meter);
                    call.key(self.key(charge.key)).arg(kind).arg(most).arg(time).arg(charge.cost);
                }
                let asked: Result<Result<Vec<i64>, RedisError>, _> =
                    timeout(self.timeout, call.invoke_async(&mut connection)).await;
                asked.map_err(|_elapsed| "timeout").and_then(|answer| answer.map_err(|error| category(&error)))
            }
            None => Err("away"),
        };
        match answer.and_then(|answer| self.verdict(charges, &answer, lease).ok_or("answer")) {
            Ok(verdict) => {
                self.is_there();
                Some(verdict)
            }
            Err(reason) => {
                self.was_in_vain(reason);
                None
            }
        }
    }

    /// Uses an amount that has come. Nobody waits for it; when there is too much to do it is counted here alone.
    pub(super) fn charge(&self, charges: &[Charge], amount: u64) {
        for charge in charges {
            let window = charge.limit.meter.window().unwrap_or_default();
            let errand = Errand::Charge { key: charge.key, amount, window };
            if self.errands.try_send(errand).is_err() {
                self.metrics.budget_store_fell_back("busy");
            }
        }
    }

    /// Gives back what ran.
    pub(super) fn release(&self, Lease(lease): Lease) {
        let Some((_lease, keys)) = self.running.remove(&lease) else { return };
        // What cannot be told ends by itself when it is extended no longer.
        let _ = self.errands.try_send(Errand::Release { lease, keys });
    }

    fn verdict(&self, charges: &[Charge], answer: &[i64], lease: Option<u64>) -> Option<Verdict> {
        let number = |place: usize| answer.get(place).and_then(|number| u64::try_from(*number).ok());
        if number(0)? == 0 {
            let charge = usize::try_from(number(1)?).ok()?.checked_sub(1)?;
            return Some(Verdict::TooMuch(TooMuch { charge, exceeded: Exceeded { retry_after: number(2)? } }));
        }
        let left =
            (0..charges.len()).map(|nth| Some(Left { remaining: number(1 + 2 * nth)?, reset: number(2 + 2 * nth)? }));
        let left = left.collect::<Option<Vec<Left>>>()?;
        let lease = lease.map(|lease| {
            let running = charges.iter().filter(|charge| is_running(charge)).map(|charge| (charge.key, charge.cost));
            self.running.insert(lease, running.collect());
            Lease(lease)
        });
        Some(Verdict::Spent { left, lease })
    }

    fn connection(&self) -> Option<MultiplexedConnection> {
        let now = self.began.elapsed().as_micros() as u64;
        if now < self.rests_until.load(Ordering::Relaxed) {
            return None;
        }
        self.connection.load().as_deref().cloned()
    }

    fn was_in_vain(&self, reason: &'static str) {
        self.metrics.budget_store_fell_back(reason);
        if reason != "away" {
            // The next requests do not wait in vain as well.
            let until = self.began.elapsed() + REST;
            self.rests_until.store(until.as_micros() as u64, Ordering::Relaxed);
        }
        if !self.is_away.swap(true, Ordering::Relaxed) {
            warn!(reason, "Redis does not answer: every gateway counts its budgets for itself.");
        }
    }

    fn is_there(&self) {
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            info!("Redis answers again: budgets are counted together.");
        }
    }

    fn key(&self, CellKey(key): CellKey) -> String {
        let mut name = format!("{{{}:budgets}}:", self.prefix);
        for byte in key {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    fn member(&self, lease: u64) -> String {
        format!("{:016x}.{lease}", self.process)
    }
}

fn open(store: &BudgetsStore) -> Result<Client, RedisError> {
    let url = store.url.expose().as_str();
    match &store.ca {
        Some(ca) => {
            let root_cert = Some(std::fs::read(ca)?);
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })
        }
        None => Client::open(url),
    }
}

/// Keeps the connection, does errands, and extends what runs, for as long as the process lives.
async fn keep(shared: &Shared, client: &Client, mut queue: mpsc::Receiver<Errand>) {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_MAX)).set_response_timeout(Some(CONNECT_MAX));
    let mut extend = interval(LEASE / 3);
    let mut look = interval(LOOK);
    loop {
        let Some(connection) = shared.connection.load_full() else {
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => {
                    info!("Connected to Redis: budgets are counted together.");
                    shared.is_away.store(false, Ordering::Relaxed);
                    shared.rests_until.store(0, Ordering::Relaxed);
                    shared.connection.store(Some(Arc::new(connection)));
                }
                Err(error) => {
                    if !shared.is_away.swap(true, Ordering::Relaxed) {
                        let reason = category(&error);
                        warn!(reason, "Redis cannot be reached: every gateway counts its budgets for itself.");
                    }
                    // What is to be told meanwhile is not kept.
                    while queue.try_recv().is_ok() {}
                    tokio::time::sleep(LOOK).await;
                }
            }
            continue;
        };
        let mut connection = MultiplexedConnection::clone(&connection);
        let done: Result<(), RedisError> = tokio::select! {
            errand = queue.recv() => match errand {
                Some(errand) => run(shared, &mut connection, errand).await,
                None => return,
            },
            _ = extend.tick() => extend_running(shared, &mut connection).await,
            // A connection that has broken is found out also when nobody asks anything.
            _ = look.tick() => redis::cmd("PING").query_async(&mut connection).await,
        };
        if let Err(error) = done
            && (error.is_io_error() || error.is_connection_dropped() || error.is_timeout())
        {
            shared.connection.store(None);
            if !shared.is_away.swap(true, Ordering::Relaxed) {
                warn!(reason = category(&error), "Redis is gone: every gateway counts its budgets for itself.");
            }
        }
    }
}

async fn run(shared: &Shared, connection: &mut MultiplexedConnection, errand: Errand) -> Result<(), RedisError> {
    match errand {
        Errand::Charge { key, amount, window } => {
            CHARGE.key(shared.key(key)).arg(amount).arg(window).invoke_async(connection).await
        }
        Errand::Release { lease, keys } => {
            let mut pipeline = redis::pipe();
            for (key, cost) in keys {
                let mut command = redis::cmd("ZREM");
                command.arg(shared.key(key));
                for nth in 0..cost {
                    command.arg(format!("{}.{nth}", shared.member(lease)));
                }
                pipeline.add_command(command).ignore();
            }
            pipeline.query_async(connection).await
        }
    }
}

async fn extend_running(shared: &Shared, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let running: Vec<(u64, Vec<(CellKey, u64)>)> =
        shared.running.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
    for some in running.chunks(EXTENDED_AT_ONCE) {
        let mut pipeline = redis::pipe();
        for (lease, keys) in some {
            for (key, cost) in keys {
                let mut call = EXTEND.prepare_invoke();
                call.key(shared.key(*key)).arg(shared.member(*lease)).arg(LEASE.as_millis() as u64).arg(*cost);
                pipeline.invoke_script(&call).ignore();
            }
        }
        // The script is loaded first: in a pipeline nobody finds out that it is not.
        let _: () = EXTEND.prepare_invoke().load_async(connection).await.map(drop)?;
        let _: () = pipeline.query_async(connection).await?;
    }
    Ok(())
}

fn is_running(charge: &Charge) -> bool {
    matches!(charge.limit.meter, Meter::Concurrency { .. })
}

/// Kind, most, and time in microseconds, as the script has them.
fn parameters(meter: Meter) -> (u8, u64, u64) {
    match meter {
        Meter::Rate { burst, interval } => (1, burst, interval),
        Meter::Quota { most, window } => (2, most, window),
        Meter::Concurrency { most } => (3, most, 0),
    }
}

/// A word of a fixed set: the text of an error may name hosts.
fn category(error: &RedisError) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_io_error() || error.is_connection_dropped() {
        "away"
    } else {
        "error"
    }
}

/// As `policy::budget::meter`, on Redis' clock. All keys are looked at before the first is written.
///
/// Keys: the cells. Arguments: the name of the lease, its milliseconds; then for each cell kind (1 rate, 2 quota, 3
/// concurrency), most, microseconds, cost. The answer is 1 and, for each cell, what is left and the microseconds until all of
/// it is back; or 0, the place of the cell that takes longest, and its microseconds.
static SPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function text(number) return string.format('%.0f', number) end
local lease, lease_ms = ARGV[1], tonumber(ARGV[2])
local worst, wait, out, writes = 0, -1, {1}, {}
local function refuse(nth, micros)
    if micros > wait then worst, wait = nth, micros end
end
for nth, key in ipairs(KEYS) do
    local from = 3 + (nth - 1) * 4
    local kind, most = tonumber(ARGV[from]), tonumber(ARGV[from + 1])
    local micros, cost = tonumber(ARGV[from + 2]), tonumber(ARGV[from + 3])
    local left, reset = 0, 0
    if kind == 1 then
        local whole = most * micros
        local at = tonumber(redis.call('GET', key) or '0')
        local from_when = math.min(math.max(at, now), now + whole)
        local til = from_when + cost * micros
        local ahead = til - now
        if ahead > whole then
            refuse(nth, math.min(ahead - whole, whole))
        else
            left, reset = math.floor((whole - ahead) / micros), ahead
            writes[#writes + 1] = function()
                redis.call('SET', key, text(til), 'PX', text(math.ceil(ahead / 1000) + 1))
            end
        end
    elseif kind == 2 then
        local found = redis.call('HMGET', key, 'at', 'used')
        local at, used = tonumber(found[1] or '0'), tonumber(found[2] or '0')
        if now >= at + micros then at, used = now, 0 end
        if at > now then at = now end
        reset = at + micros - now
        if used + math.max(cost, 1) > most then
            refuse(nth, reset)
        else
            used = used + cost
            left = most - used
            writes[#writes + 1] = function()
                if cost > 0 then
                    redis.call('HSET', key, 'at', text(at), 'used', text(used))
                    redis.call('PEXPIRE', key, text(math.ceil(reset / 1000) + 1))
                end
            end
        end
    else
        redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now / 1000))
        local running = redis.call('ZCARD', key)
        if running + cost > most then
            refuse(nth, 1000000)
        else
            left = most - running - cost
            writes[#writes + 1] = function()
                for member = 0, cost - 1 do
                    redis.call('ZADD', key, text(now / 1000 + lease_ms), lease .. '.' .. member)
                end
                redis.call('PEXPIRE', key, lease_ms)
            end
        end
    end
    out[#out + 1] = left
    out[#out + 1] = reset
end
if worst > 0 then return {0, worst, wait} end
for _, write in ipairs(writes) do write() end
return out
",
    )
});

/// Key: the cell of a quota. Arguments: the amount, and the microseconds of the window.
static CHARGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local micros = tonumber(ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'at', 'used')
local at, used = tonumber(found[1] or '0'), tonumber(found[2] or '0')
if now >= at + micros then at, used = now, 0 end
redis.call('HSET', KEYS[1], 'at', string.format('%.0f', at), 'used', string.format('%.0f', used + tonumber(ARGV[1])))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((at + micros - now) / 1000) + 1))
",
    )
});

/// Key: the cell of a concurrency. Arguments: the name of the lease, its milliseconds, how many it counts. What is there no
/// more is not brought back.
static EXTEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local til = tonumber(time[1]) * 1000 + tonumber(ARGV[2])
for member = 0, tonumber(ARGV[3]) - 1 do
    redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', til), ARGV[1] .. '.' .. member)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
    )
});

/// How long a call counts as running after its gateway has last said so.
const LEASE: Duration = Duration::from_secs(30);

/// How long nobody asks after somebody has waited in vain.
const REST: Duration = Duration::from_secs(1);

/// How often the connection is looked at, or tried again.
const LOOK: Duration = Duration::from_secs(1);

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Errands that wait.
const ERRANDS_MAX: usize = 16_384;

/// Leases that are extended with one message.
const EXTENDED_AT_ONCE: usize = 256;
