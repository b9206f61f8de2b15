//! Where do requests go? What `servers` says of subsets, rules, splits, circuits and shadows, and `region` of callers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::InstanceConfig;
use crate::config::fields::{Fields, Value};
use crate::config::problem::Complaint;
use crate::config::values::{self, quote};
use crate::config::yaml::Kind;
use crate::policy::When;
use crate::routing::region::{MaxMindSpec, RegionSpec, WORD_BYTES_MAX};
use crate::routing::rule::{
    AbortWhen, CircuitSpec, ErrorRate, OnInstanceLoss, RoutingSpec, RuleSpec, ShadowSpec, SideSpec, Slow, Way,
};
use crate::routing::subset::{Subset, Traits};

/// What an instance is: `version`, `region`, `labels`.
pub(super) fn traits(instance: &mut Fields<'_, '_>) -> Option<Traits> {
    let version = instance.optional("version", |v| v.parse(values::name).map(Arc::from));
    let region = instance.optional("region", |v| v.parse(region_name).map(Arc::from));
    let labels = instance.or("labels", BTreeMap::new(), labels);
    Some(Traits { version: version?, region: region?, labels: labels? })
}

/// `routing` and `default` of a server; `None` inside when it has neither.
pub(super) fn routing(
    server: &mut Fields<'_, '_>,
    instances: Option<&[InstanceConfig]>,
) -> Option<Option<Arc<RoutingSpec>>> {
    let rules = server.optional("routing", |list| {
        list.refuse_repeated("name");
        let rules = list.items()?.into_iter().enumerate();
        let rules: Vec<Option<RuleSpec>> =
            rules.map(|(nth, value)| value.map(|fields| rule(fields, nth + 1, instances))).collect();
        let rules: Vec<RuleSpec> = rules.into_iter().collect::<Option<_>>()?;
        if rules.is_empty() {
            list.complain("is an empty list", "name at least one rule, or leave it out");
            return None;
        }
        Some(rules)
    });
    let default = server.optional("default", |v| subset(v, instances));
    let (rules, default) = (rules?, default?);
    if rules.is_none() && default.is_none() {
        return Some(None);
    }
    Some(Some(Arc::new(RoutingSpec { rules: rules.unwrap_or_default(), default })))
}

fn rule(fields: &mut Fields<'_, '_>, nth: usize, instances: Option<&[InstanceConfig]>) -> Option<RuleSpec> {
    let name = fields.optional("name", |v| v.parse(values::name).map(Arc::from));
    let when = fields.optional("when", |v| {
        let source = v.text()?;
        if let Err(message) = When::compile(source) {
            v.complain(message, "correct the expression, or remove it");
            return None;
        }
        Some(Box::from(source))
    });
    let tools = fields.or("tools", Vec::new(), tools);
    let strict = fields.or("strict", false, Value::flag);
    let sticky = fields.optional("sticky", |v| v.parse(|text| values::word(text, &[("principal", ())])));
    let abort = fields.find("abort_when");
    let abort_when = abort.as_ref().map(abort_when);
    let (key, way) = fields.exactly_one(&["to", "split"])?;
    let way = if key == "to" {
        if let Some(abort) = &abort {
            abort.complain("there is no split that could end", "write split instead of to, or leave it out");
        }
        subset(&way, instances).map(Way::To)
    } else {
        let sides = sides(&way, instances);
        let abort_when = match abort_when {
            Some(read) => read.map(Some),
            None => Some(None),
        };
        sides.zip(abort_when).map(|(sides, abort_when)| Way::Split { sides, abort_when })
    };
    if abort.is_some() && key == "to" {
        return None;
    }
    Some(RuleSpec {
        name: name?.unwrap_or_else(|| format!("rule-{nth}").into()),
        when: when?,
        tools: tools?,
        way: way?,
        strict: strict?,
        sticky: sticky?.is_some(),
    })
}

fn sides(list: &Value<'_>, instances: Option<&[InstanceConfig]>) -> Option<Vec<SideSpec>> {
    let sides = list.list(|v| {
        v.map(|fields| {
            let to = fields.required("to", |v| subset(v, instances));
            let weight = fields.required("weight", |v| v.whole(0..=10_000));
            Some(SideSpec { to: to?, weight: weight? })
        })
    })?;
    if sides.len() < 2 {
        list.complain("has fewer than two sides", "name two or more, or write to");
        return None;
    }
    if sides.iter().all(|side| side.weight == 0) {
        list.complain("has weights of 0 only", "give at least one side a weight of 1 or more");
        return None;
    }
    for (nth, side) in sides.iter().enumerate() {
        if let Some(first) = sides.iter().take(nth).position(|before| before.to == side.to) {
            let place = list.follow(&format!("[{nth}].to"));
            place.complain(format!("is the same as that of side {first}"), "each must be different");
            return None;
        }
    }
    Some(sides)
}

fn abort_when(value: &Value<'_>) -> Option<AbortWhen> {
    value.map(|fields| {
        let error_rate_above = fields.required("error_rate_above", part);
        let over = fields.or("over", seconds(60), |v| v.duration(seconds(1)..=seconds(86_400)));
        let at_least = fields.or("at_least", 50, |v| v.whole(1..=1_000_000));
        let tool_errors = fields.or("tool_errors", false, Value::flag);
        Some(AbortWhen {
            error_rate_above: error_rate_above?,
            over: over?,
            at_least: at_least?,
            tool_errors: tool_errors?,
        })
    })
}

/// Instances by what they are; at least one of the server's must be meant.
fn subset(value: &Value<'_>, instances: Option<&[InstanceConfig]>) -> Option<Subset> {
    let subset = value.map(|fields| {
        let named = fields.or("instances", Vec::new(), |v| v.some(Value::string));
        let version = fields.optional("version", |v| v.parse(values::name).map(Box::from));
        let region = fields.optional("region", |v| v.parse(region_name).map(Box::from));
        let labels = fields.or("labels", BTreeMap::new(), labels);
        Some(Subset { instances: named?, version: version?, region: region?, labels: labels? })
    })?;
    if subset == Subset::default() {
        value.complain("names nothing", "name at least one of instances, version, region and labels");
        return None;
    }
    // Instances with problems of their own are no reason for more.
    let Some(instances) = instances else { return Some(subset) };
    if let Some(unknown) = subset.instances.iter().find(|id| !instances.iter().any(|known| *known.id == ***id)) {
        let known: Vec<&str> = instances.iter().map(|instance| &*instance.id).collect();
        let hint = match values::nearest(unknown, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("known: {}", known.join(", ")),
        };
        value.follow("instances").complain(format!("there is no instance {}", quote(unknown)), hint);
        return None;
    }
    if !instances.iter().any(|instance| subset.takes_in(&instance.id, &instance.traits)) {
        value.complain("no instance is like this", "give one of the instances this version, region and labels");
        return None;
    }
    Some(subset)
}

fn labels(value: &Value<'_>) -> Option<BTreeMap<Box<str>, Box<str>>> {
    let entries = value.entries()?;
    let read = entries.into_iter().map(|(name, value)| {
        let name = values::name(name).map_err(|wrong| value.complain(wrong.message, wrong.hint)).ok();
        Some((name?.into(), value.parse(values::name)?.into()))
    });
    // Every label is read before the first bad one ends it.
    let read: Vec<Option<(Box<str>, Box<str>)>> = read.collect();
    read.into_iter().collect()
}

/// Exact names, or prefixes with a `*` at the end; at least one.
fn tools(value: &Value<'_>) -> Option<Vec<Box<str>>> {
    value.some(tool)
}

/// `idempotent` of a server: the same, if any.
pub(super) fn idempotent(value: &Value<'_>) -> Option<Vec<Box<str>>> {
    value.list(tool)
}

fn tool(value: &Value<'_>) -> Option<Box<str>> {
    let text = value.text()?;
    if text.strip_suffix('*').unwrap_or(text).contains('*') {
        value.complain(format!("{} has a * before its end", quote(text)), "only a * at the end matches anything");
        return None;
    }
    Some(text.into())
}

/// `circuit` of a server.
pub(super) fn circuit(value: &Value<'_>) -> Option<CircuitSpec> {
    value.map(|fields| {
        let consecutive_failures = fields.optional("consecutive_failures", |v| v.whole(1..=10_000));
        let errors = fields.optional("error_rate", |v| {
            v.map(|fields| {
                let above = fields.required("above", part);
                let over = fields.or("over", seconds(30), |v| v.duration(seconds(1)..=seconds(3600)));
                let at_least = fields.or("at_least", 20, |v| v.whole(1..=1_000_000));
                Some(ErrorRate { above: above?, over: over?, at_least: at_least? })
            })
        });
        let slow = fields.optional("slow", |v| {
            v.map(|fields| {
                let times = fields.required("times", |v| number(v, 1.0, 1000.0));
                let above = fields.or("above", milliseconds(100), |v| v.duration(milliseconds(1)..=seconds(3600)));
                let at_least = fields.or("at_least", 20, |v| v.whole(1..=1_000_000));
                Some(Slow { times: times?, above: above?, at_least: at_least? })
            })
        });
        let open_for = fields.or("open_for", seconds(10), |v| v.duration(milliseconds(100)..=seconds(3600)));
        let probes = fields.or("probes", 1, |v| v.whole(1..=100));
        let (consecutive_failures, errors, slow) = (consecutive_failures?, errors?, slow?);
        if consecutive_failures.is_none() && errors.is_none() && slow.is_none() {
            let hint = "name consecutive_failures, error_rate or slow, or leave circuit out";
            value.complain("would never open", hint);
            return None;
        }
        Some(CircuitSpec { consecutive_failures, errors, slow, open_for: open_for?, probes: probes? })
    })
}

/// `on_instance_loss` of a server.
pub(super) fn on_instance_loss(value: &Value<'_>) -> Option<OnInstanceLoss> {
    let words = [("not_found", OnInstanceLoss::NotFound), ("reinitialize", OnInstanceLoss::Reinitialize)];
    value.parse(|text| values::word(text, &words))
}

/// `shadow` of a server.
pub(super) fn shadow(value: &Value<'_>, instances: Option<&[InstanceConfig]>) -> Option<ShadowSpec> {
    value.map(|fields| {
        let to = fields.required("to", |v| subset(v, instances));
        let tools = fields.required("tools", tools);
        let sample = fields.or("sample", 1.0, part);
        let concurrency = fields.or("concurrency", 8, |v| v.whole(1..=1000));
        let timeout = fields.or("timeout", seconds(10), |v| v.duration(milliseconds(100)..=seconds(600)));
        Some(ShadowSpec { to: to?, tools: tools?, sample: sample?, concurrency: concurrency?, timeout: timeout? })
    })
}

/// `region:` where callers are.
pub(super) fn region(value: &Value<'_>, has_trusted_proxies: bool) -> Option<RegionSpec> {
    value.map(|fields| {
        let claim = fields.optional("claim", Value::string::<Box<str>>);
        let header = fields.optional("header", |v| {
            let header = v.parse(values::own_header)?;
            if !has_trusted_proxies {
                v.complain("nobody is trusted to send it", "name the proxies in trusted_proxies");
                return None;
            }
            Some(header)
        });
        let networks = fields.or("networks", Vec::new(), |v| {
            v.list(|v| {
                v.map(|fields| {
                    let network = fields.required("network", |v| v.parse(values::network));
                    let region = fields.required("region", |v| v.parse(region_name).map(Arc::from));
                    Some((network?, region?))
                })
            })
        });
        let maxmind = fields.optional("maxmind", maxmind);
        let spec = RegionSpec { claim: claim?, header: header?, networks: networks?, maxmind: maxmind? };
        if spec == RegionSpec::default() {
            value.complain("names nothing", "name claim, header, networks or maxmind, or leave region out");
            return None;
        }
        Some(spec)
    })
}

fn maxmind(value: &Value<'_>) -> Option<MaxMindSpec> {
    value.map(|fields| {
        let file = fields.required("file", |v| v.text().map(std::path::PathBuf::from));
        let countries = fields.or("countries", BTreeMap::new(), regions_by_code);
        let continents = fields.or("continents", BTreeMap::new(), regions_by_code);
        let (countries, continents) = (countries?, continents?);
        if countries.is_empty() && continents.is_empty() {
            value.complain("gives no code a region", "write countries: { DE: eu } or continents: { EU: eu }");
            return None;
        }
        Some(MaxMindSpec { file: file?, countries, continents })
    })
}

/// Two capital letters → region.
fn regions_by_code(value: &Value<'_>) -> Option<BTreeMap<Box<str>, Arc<str>>> {
    let entries = value.entries()?.into_iter().map(|(code, value)| {
        if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            value.complain(format!("{} is no code", quote(code)), "write two capital letters, e.g. DE");
            return None;
        }
        Some((Box::from(code), Arc::from(value.parse(region_name)?)))
    });
    let read: Vec<Option<(Box<str>, Arc<str>)>> = entries.collect();
    read.into_iter().collect()
}

fn region_name(text: &str) -> Result<&str, Complaint> {
    if text.len() > WORD_BYTES_MAX {
        let message = format!("{} is too long", quote(text));
        return Err(Complaint::new(message, format!("write at most {WORD_BYTES_MAX} characters")));
    }
    values::name(text)
}

/// A part of a whole.
fn part(value: &Value<'_>) -> Option<f64> {
    number(value, 0.0, 1.0)
}

fn number(value: &Value<'_>, least: f64, most: f64) -> Option<f64> {
    let hint = format!("write a number from {least} to {most}");
    let number = if let Kind::Number(number) = value.kind() {
        Some(*number)
    } else if let Kind::Integer(number) = value.kind() {
        i32::try_from(*number).ok().map(f64::from)
    } else {
        None
    };
    let Some(number) = number else {
        value.complain("must be a number", hint);
        return None;
    };
    if !(least..=most).contains(&number) {
        value.complain(format!("{number} is out of bounds"), hint);
        return None;
    }
    Some(number)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
