//! `budgets`, `budgets_store` and `taint`: how much is enough, and what must not meet.

use std::sync::Arc;
use std::time::Duration;

use redis::IntoConnectionInfo as _;

use super::reference;
use crate::config::BudgetsStore;
use crate::config::fields::{Fields, Value};
use crate::config::pem;
use crate::config::problem::Complaint;
use crate::config::secrets::{self, Keep, Look};
use crate::config::values::{self, quote};
use crate::config::yaml::Kind;
use crate::mcp::Method;
use crate::policy::When;
use crate::policy::budget::meter::Meter;
use crate::policy::budget::{Axis, Budget, Limit, LimitKind, NamePattern};
use crate::policy::taint::{Context, Labelled, TaintRules};
use crate::secret::Secret;

/// The names that budgets and labels may refer to.
pub(super) struct Known<'a> {
    pub(super) routes: Vec<&'a str>,
    pub(super) servers: Vec<&'a str>,
}

pub(super) fn budgets(list: &Value<'_>, known: &Known<'_>) -> Option<Vec<Arc<Budget>>> {
    list.refuse_repeated("name");
    let budgets = list.list(|value| budget(value, known).map(Arc::new))?;
    if budgets.len() > BUDGETS_MAX {
        list.complain(format!("names more than {BUDGETS_MAX} budgets"), "a call is held against each: keep fewer");
        return None;
    }
    Some(budgets)
}

fn budget(value: &Value<'_>, known: &Known<'_>) -> Option<Budget> {
    value.map(|fields| {
        let name = fields.required("name", |v| v.parse(values::name));
        let by = fields.or("by", Vec::new(), axes);
        let routes = fields.or("routes", Vec::new(), |v| v.some(|v| reference(v, "route", &known.routes)));
        let servers = fields.or("servers", Vec::new(), |v| v.some(|v| reference(v, "server", &known.servers)));
        let tools = fields.or("tools", Vec::new(), |v| v.some(|v| v.parse(pattern)));
        let methods = fields.find("methods");
        let read_methods = methods.as_ref().map_or(Some(COUNTED.to_vec()), |v| {
            let methods = v.some(|v| v.parse(methods_of))?;
            Some(methods.concat())
        });
        if let (Some(methods), Some(true)) = (&methods, tools.as_ref().map(|tools| !tools.is_empty())) {
            methods.complain("says what tools say already", "name tools, whose calls are counted, or methods");
        }
        let when = when(fields, "when");
        let limits = limits(fields);
        Some(Budget {
            name: name?.into(),
            by: by?,
            routes: routes?,
            servers: servers?,
            tools: tools?,
            methods: read_methods?,
            when: when?,
            limits: limits?,
        })
    })
}

/// One axis, or several.
fn axes(value: &Value<'_>) -> Option<Vec<Axis>> {
    let words = [
        ("agent", Axis::Agent),
        ("client", Axis::Client),
        ("principal", Axis::Principal),
        ("server", Axis::Server),
        ("tool", Axis::Tool),
    ];
    let axis = |value: &Value<'_>| value.parse(|text| values::word(text, &words));
    if matches!(value.kind(), Kind::Text(_)) {
        return axis(value).map(|axis| vec![axis]);
    }
    let mut axes = value.some(axis)?;
    axes.sort_unstable();
    axes.dedup();
    Some(axes)
}

fn limits(fields: &mut Fields<'_, '_>) -> Option<Vec<Limit>> {
    let rate = fields.optional("rate", |v| {
        v.map(|fields| {
            let burst = fields.required("burst", |v| v.whole(1..=COUNT_MAX));
            let refill = fields.required("refill", |v| amount_per(v, count));
            let (burst, (refill, window)) = (burst?, refill?);
            let interval = (window / refill).max(1);
            if burst.saturating_mul(interval) > WINDOW_MAX * 1_000_000 {
                v.complain("takes longer than 31d to come back", "refill faster, or keep the burst smaller");
                return None;
            }
            Some(Meter::Rate { burst, interval })
        })
    });
    let concurrency =
        fields.optional("concurrency", |v| v.whole(1..=COUNT_MAX).map(|most| Meter::Concurrency { most }));
    let calls = fields.optional("calls", |v| quota(v, count));
    let bytes = fields.optional("bytes", |v| quota(v, bytes));
    let repeat = fields.optional("repeat", |v| quota(v, count));
    let read = [
        (LimitKind::Rate, rate?),
        (LimitKind::Concurrency, concurrency?),
        (LimitKind::Calls, calls?),
        (LimitKind::Bytes, bytes?),
        (LimitKind::Repeat, repeat?),
    ];
    let limits: Vec<Limit> = read.into_iter().filter_map(|(kind, meter)| Some(Limit { kind, meter: meter? })).collect();
    if limits.is_empty() {
        let kinds = LimitKind::ALL.map(LimitKind::label).join(", ");
        fields.map().complain("limits nothing", format!("give at least one of {kinds}"));
        return None;
    }
    Some(limits)
}

fn quota(value: &Value<'_>, amount: fn(&str) -> Result<u64, Complaint>) -> Option<Meter> {
    amount_per(value, amount).map(|(most, window)| Meter::Quota { most, window })
}

/// `1000 per day`, `100MiB per 12h`: the amount, and the time in microseconds.
fn amount_per(value: &Value<'_>, amount: fn(&str) -> Result<u64, Complaint>) -> Option<(u64, u64)> {
    value.parse(|text| {
        let wrong = || Complaint::new(format!("{} is not an amount per time", quote(text)), AMOUNT_HINT);
        let (many, time) = text.split_once(" per ").ok_or_else(wrong)?;
        let time = time.trim();
        let window = match time {
            "second" => seconds(1),
            "minute" => seconds(60),
            "hour" => seconds(3600),
            "day" => seconds(DAY),
            "week" => seconds(7 * DAY),
            time => values::duration(time).map_err(|_| wrong())?,
        };
        if !(seconds(1)..=seconds(WINDOW_MAX)).contains(&window) {
            return Err(Complaint::new(format!("{} is out of bounds", quote(time)), "write a time from 1s to 31d"));
        }
        let micros = u64::try_from(window.as_micros()).map_err(|_| wrong())?;
        Ok((amount(many.trim())?, micros))
    })
}

fn count(text: &str) -> Result<u64, Complaint> {
    let count = text.replace('_', "").parse::<u64>().ok().filter(|count| (1..=COUNT_MAX).contains(count));
    count.ok_or_else(|| {
        Complaint::new(format!("{} is not a count", quote(text)), format!("write a whole number from 1 to {COUNT_MAX}"))
    })
}

fn bytes(text: &str) -> Result<u64, Complaint> {
    // `100 MiB` reads as well as `100MiB`.
    let bytes = values::size(&text.replace(' ', ""))? as u64;
    if (1..=BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Complaint::new(format!("{} is out of bounds", quote(text)), "write a size from 1B to 1048576GiB"))
}

/// An exact name, or the beginning of one with `*` behind it.
fn pattern(text: &str) -> Result<NamePattern, Complaint> {
    let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
    if name.contains('*') {
        let message = format!("{} has a * before its end", quote(text));
        return Err(Complaint::new(message, "only a * at the end matches anything"));
    }
    Ok(if is_prefix { NamePattern::Prefix(name.into()) } else { NamePattern::Exact(name.into()) })
}

fn methods_of(text: &str) -> Result<Vec<Method>, Complaint> {
    let known: Vec<Method> = match text.strip_suffix('*') {
        Some(prefix) => Method::ALL.iter().copied().filter(|method| method.as_str().starts_with(prefix)).collect(),
        None => Method::parse(text).into_iter().collect(),
    };
    if !known.is_empty() {
        return Ok(known);
    }
    let hint = match values::nearest(text, Method::ALL.iter().map(|method| method.as_str())) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "write one of MCP, e.g. tools/call, or the beginning of some, e.g. resources/*".to_owned(),
    };
    Err(Complaint::new(format!("{} is not a method", quote(text)), hint))
}

/// A condition; a blank one is none.
fn when(fields: &mut Fields<'_, '_>, key: &'static str) -> Option<Option<Arc<When>>> {
    let Some(value) = (if key == "when" { fields.find_either("when") } else { fields.find(key) }) else {
        return Some(None);
    };
    let source = value.text_or_blank()?;
    if source.trim().is_empty() {
        return Some(None);
    }
    match When::compile(source) {
        Ok(when) => Some(Some(Arc::new(when))),
        Err(message) => {
            value.complain(message, "correct the expression, or remove it");
            None
        }
    }
}

pub(super) fn store(value: &Value<'_>, look: Look<'_>) -> Option<BudgetsStore> {
    value.map(|fields| {
        fields.required("redis", |v| {
            v.map(|fields| {
                let url = fields.required("url", |v| redis_url(v, look));
                let ca = fields.optional("ca", |v| secrets::pem(v, look, Keep::Public, pem::authorities));
                let prefix = fields.or("prefix", "portcullis".into(), |v| v.parse(values::name).map(Box::from));
                let timeout = fields
                    .or("timeout", Duration::from_millis(50), |v| v.duration(Duration::from_millis(1)..=seconds(10)));
                Some(BudgetsStore { url: url?, ca: ca?.map(|(path, _)| path), prefix: prefix?, timeout: timeout? })
            })
        })
    })
}

/// A URL with a password in it is a secret as a whole.
fn redis_url(value: &Value<'_>, look: Look<'_>) -> Option<Secret<String>> {
    let url = secrets::text(value, look)?;
    let text = url.expose().as_str();
    // By the reader of whoever connects: what passes here is not refused at the start.
    let is_redis =
        ["redis://", "rediss://"].iter().any(|scheme| text.starts_with(scheme)) && text.into_connection_info().is_ok();
    if !is_redis && matches!(look, Look::Inside(_)) {
        value.complain("the secret is no Redis URL", "write rediss://USER:PASSWORD@HOST:PORT/DATABASE there");
        return None;
    }
    Some(url)
}

pub(super) fn taint(value: &Value<'_>, known: &Known<'_>) -> Option<TaintRules> {
    value.map(|fields| {
        let ttl = fields.or("ttl", seconds(3600), |v| v.duration(seconds(1)..=seconds(30 * DAY)));
        let words = [("caller", Context::Caller), ("session", Context::Session)];
        let context = fields.or("context", Context::default(), |v| v.parse(|text| values::word(text, &words)));
        let sources = fields.required("untrusted_sources", |v| v.some(|v| labelled(v, known)));
        let sinks = fields.required("sinks", |v| v.some(|v| labelled(v, known)));
        let unless = when(fields, "unless");
        Some(TaintRules { ttl: ttl?, context: context?, sources: sources?, sinks: sinks?, unless: unless? })
    })
}

fn labelled(value: &Value<'_>, known: &Known<'_>) -> Option<Labelled> {
    value.map(|fields| {
        let server = match fields.find_either("server") {
            Some(server) => reference(&server, "server", &known.servers).map(Some),
            None => Some(None),
        };
        let tool = fields.find_either("tool");
        let tool = fields.must("tool", tool).and_then(|v| v.parse(pattern));
        Some(Labelled { server: server?, tool: tool? })
    })
}

/// What carries intent, as rules decide it.
const COUNTED: [Method; 5] = [
    Method::CompletionComplete,
    Method::PromptsGet,
    Method::ResourcesRead,
    Method::ResourcesSubscribe,
    Method::ToolsCall,
];

const BUDGETS_MAX: usize = 64;
const COUNT_MAX: u64 = 1_000_000_000;
const BYTES_MAX: u64 = 1 << 50;
const DAY: u64 = 86_400;
const WINDOW_MAX: u64 = 31 * DAY;
const AMOUNT_HINT: &str = "write an amount, per, and a time: 1000 per day, 100MiB per hour, 5 per 30s";

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
