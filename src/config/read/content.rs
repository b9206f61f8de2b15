//! `content`: what is done with answers, of servers and of routes.

use std::sync::Arc;
use std::time::Duration;

use crate::config::fields::{Fields, Value};
use crate::config::problem::Complaint;
use crate::config::secrets::{self, Look};
use crate::config::values::{self, quote};
use crate::content::detect::{Detector, Detectors};
use crate::content::pointer::Pointer;
use crate::content::rule::{
    About, Action, External, Guard, GuardAction, Limit, Name, OnFailure, Pattern, Place, Places, Protection, Redact,
    Replacement, Rule, Threat, Threats,
};
use crate::content::{RULES_MAX, Rule as ContentRule};
use crate::policy::When;
use crate::secret::Secret;

/// Reads the list `content` of a server or a route.
pub(super) fn content(
    fields: &mut Fields<'_, '_>,
    plain_http_hosts: &[String],
    look: Look<'_>,
) -> Option<Vec<Arc<ContentRule>>> {
    let Some(list) = fields.find("content") else { return Some(Vec::new()) };
    list.refuse_repeated("name");
    if list.items()?.len() > RULES_MAX {
        list.complain(format!("has more than {RULES_MAX} rules"), "put what belongs together into one rule");
        return None;
    }
    let rules: Vec<Option<Arc<Rule>>> = list
        .items()?
        .iter()
        .enumerate()
        .map(|(nth, value)| value.map(|fields| rule(fields, nth + 1, plain_http_hosts, look)).map(Arc::new))
        .collect();
    rules.into_iter().collect()
}

fn rule(fields: &mut Fields<'_, '_>, nth: usize, plain_http_hosts: &[String], look: Look<'_>) -> Option<Rule> {
    let name = fields.optional("name", |v| v.parse(values::name).map(Box::<str>::from));
    let names = |v: &Value<'_>| v.some(|v| v.parse(pattern_of_names));
    let tools = fields.or("tools", Vec::new(), names);
    let prompts = fields.or("prompts", Vec::new(), names);
    let resources = fields.or("resources", Vec::new(), names);
    let unless = fields.optional("unless", |v| {
        v.parse(|text| When::about_caller(text).map_err(|wrong| Complaint::new(wrong, UNLESS_HINT)))
    });
    let (kind, action) =
        fields.exactly_one(&["redact", "drop", "limit", "guard", "sensitive", "require_encryption", "external"])?;
    let action = match kind {
        "redact" => redact(&action, look),
        "drop" => action.some(|v| v.parse(pointer)).map(|pointers| Action::Drop(pointers.into())),
        "limit" => limit(&action),
        "guard" => guard(&action),
        "sensitive" => yes(&action).map(|()| Action::Protect(Protection::Sensitive)),
        "require_encryption" => yes(&action).map(|()| Action::Protect(Protection::Encrypted)),
        _ => external(&action, plain_http_hosts, look),
    };
    Some(Rule {
        name: name?.unwrap_or_else(|| format!("rule-{nth}").into()).into(),
        about: About { tools: tools?, prompts: prompts?, resources: resources? },
        unless: unless?,
        action: action?,
    })
}

fn redact(value: &Value<'_>, look: Look<'_>) -> Option<Action> {
    value.map(|fields| {
        let words: Vec<(&str, Detector)> = Detector::ALL.iter().map(|what| (what.label(), *what)).collect();
        let detect = fields.or("detect", Vec::new(), |v| v.some(|v| v.parse(|text| values::word(text, &words))));
        let patterns = fields.or("patterns", Vec::new(), |v| {
            v.refuse_repeated("name");
            v.some(|v| v.map(own_pattern))
        });
        let places: Vec<(&str, Place)> = Place::ALL.iter().map(|place| (place.label(), *place)).collect();
        let places = fields.or("in", Places::ALL, |v| {
            v.some(|v| v.parse(|text| values::word(text, &places))).map(|list| Places::of(&list))
        });
        let base64 = fields.or("base64", true, Value::flag);
        let with = replacement(fields, look);
        let (detect, patterns) = (detect?, patterns?);
        if detect.is_empty() && patterns.is_empty() {
            value.complain("looks for nothing", "name detectors under detect, or expressions under patterns");
            return None;
        }
        if patterns.len() > PATTERNS_MAX {
            value.complain(format!("has more than {PATTERNS_MAX} patterns"), "put alternatives into one: (?:a|b)");
            return None;
        }
        let detectors = Detectors::of(&detect);
        let patterns = patterns.into();
        Some(Action::Redact(Redact { detectors, patterns, with: with?, places: places?, base64: base64? }))
    })
}

fn own_pattern(fields: &mut Fields<'_, '_>) -> Option<Pattern> {
    let name = fields.required("name", |v| v.parse(values::name));
    let regex = fields.required("regex", |v| {
        let text = v.text()?;
        let hint = "correct the expression (syntax of the Rust crate regex)";
        Pattern::new(name.unwrap_or_default(), text).map_err(|wrong| v.complain(wrong, hint)).ok()
    });
    name?;
    regex
}

/// At most one of `replace`, `mask` and `hash`.
fn replacement(fields: &mut Fields<'_, '_>, look: Look<'_>) -> Option<Replacement> {
    let replace = fields.optional("replace", |v| v.text_or_blank().map(|text| Replacement::Text(text.into())));
    let mask = fields.optional("mask", |v| {
        v.map(|fields| {
            let keep_last = fields.or("keep_last", 4, |v| v.whole(0..=64));
            Some(Replacement::Mask { keep_last: keep_last? })
        })
    });
    let hash = fields.optional("hash", |v| {
        v.map(|fields| {
            let secret = fields.find("secret");
            let place = fields.must("secret", secret)?;
            let secret = secrets::text(&place, look)?;
            if secret.expose().len() < HASH_KEY_BYTES_MIN && matches!(look, Look::Inside(_)) {
                let hint = "make one with portcullis keygen";
                place.complain(format!("the secret has less than {HASH_KEY_BYTES_MIN} characters"), hint);
                return None;
            }
            Some(Replacement::Hash(Secret::new(secret.expose().clone().into_bytes())))
        })
    });
    let mut given: Vec<Replacement> = [replace?, mask?, hash?].into_iter().flatten().collect();
    if given.len() > 1 {
        fields.map().complain("says more than once what comes in place", "give one of replace, mask and hash");
        return None;
    }
    Some(given.pop().unwrap_or(Replacement::Text("[redacted:{kind}]".into())))
}

fn pointer(text: &str) -> Result<Pointer, Complaint> {
    let hint = "write a JSON Pointer below structuredContent, e.g. /employees/*/salary";
    Pointer::read(text).map_err(|wrong| Complaint::new(format!("{}: {wrong}", quote(text)), hint))
}

fn limit(value: &Value<'_>) -> Option<Action> {
    value.map(|fields| {
        let result_bytes = fields.optional("result_bytes", |v| v.size(1..=1 << 30));
        let items = fields.optional("items", |v| v.whole(0..=1_000_000));
        let media = fields.optional("media", |v| v.list(|v| v.parse(media_type)));
        let limit = Limit { result_bytes: result_bytes?, items: items?, media: media?.map(Into::into) };
        if limit == Limit::default() {
            value.complain("bounds nothing", "give result_bytes, items or media");
            return None;
        }
        Some(Action::Limit(limit))
    })
}

fn media_type(text: &str) -> Result<Box<str>, Complaint> {
    let fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let is_type = text.split_once('/').is_some_and(|(group, kind)| fits(group) && (kind == "*" || fits(kind)));
    if is_type {
        return Ok(text.to_ascii_lowercase().into());
    }
    Err(Complaint::new(format!("{} is not a media type", quote(text)), "write one like image/png or audio/*"))
}

fn guard(value: &Value<'_>) -> Option<Action> {
    let actions = [("block", GuardAction::Block), ("flag", GuardAction::Flag), ("wrap", GuardAction::Wrap)];
    let words: Vec<(&str, Threat)> = Threat::ALL.iter().map(|threat| (threat.label(), *threat)).collect();
    value.map(|fields| {
        let find = fields.or("find", Threat::ALL.to_vec(), |v| v.some(|v| v.parse(|text| values::word(text, &words))));
        let hosts = fields.or("hosts", Vec::new(), |v| v.list(|v| v.parse(listed_host)));
        let base64 = fields.or("base64", true, Value::flag);
        let action = fields.required("action", |v| v.parse(|text| values::word(text, &actions)));
        let threats = Threats::of(&find?);
        Some(Action::Guard(Guard { threats, hosts: hosts?.into(), base64: base64?, action: action? }))
    })
}

fn listed_host(text: &str) -> Result<Box<str>, Complaint> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if values::is_host(name) {
        return Ok(text.to_ascii_lowercase().into());
    }
    let hint = "write a host like docs.example.com, or *.example.com for all below it";
    Err(Complaint::new(format!("{} is not a host", quote(text)), hint))
}

fn external(value: &Value<'_>, plain_http_hosts: &[String], look: Look<'_>) -> Option<Action> {
    let failures = [("block", OnFailure::Block), ("pass", OnFailure::Pass)];
    let deadlines = Duration::from_millis(50)..=Duration::from_secs(30);
    value.map(|fields| {
        let url = fields.required("url", |v| {
            v.parse(|text| values::callable_url(text, plain_http_hosts).map(|_| Box::<str>::from(text)))
        });
        let token = fields.optional("token", |v| v.map(|fields| fields.required("secret", |v| secrets::text(v, look))));
        let deadline = fields.or("deadline", Duration::from_secs(2), |v| v.duration(deadlines.clone()));
        let on_failure = fields.or("on_failure", OnFailure::Block, |v| v.parse(|text| values::word(text, &failures)));
        Some(Action::External(External { url: url?, token: token?, deadline: deadline?, on_failure: on_failure? }))
    })
}

fn yes(value: &Value<'_>) -> Option<()> {
    if value.flag()? {
        return Some(());
    }
    value.complain("says that nothing is done", "write true, or leave the rule out");
    None
}

fn pattern_of_names(text: &str) -> Result<Name, Complaint> {
    let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
    if name.contains('*') {
        let message = format!("{} has a * before its end", quote(text));
        return Err(Complaint::new(message, "write a whole name, or the beginning of names and *"));
    }
    Ok(if is_prefix { Name::Prefix(name.into()) } else { Name::Exact(name.into()) })
}

const UNLESS_HINT: &str = "write a condition about the caller, e.g. '\"pii:read\" in scopes'";

/// As long as the output of `portcullis keygen` is for 16 bytes.
const HASH_KEY_BYTES_MIN: usize = 22;

const PATTERNS_MAX: usize = 64;
