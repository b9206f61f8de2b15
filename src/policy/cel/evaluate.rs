//! What does an expression give for this request? A walk over the tree that borrows, counts its steps and keeps what is
//! not known apart from what is wrong.

use std::sync::{Arc, LazyLock};

use chrono::DateTime;
use regex::RegexBuilder;
use serde_json::{Map, Value as Json};

use super::lower::{Arithmetic, Collect, Comprehension, Fold, Node, Search, Variable};
use super::stdlib;
use super::value::{Absurd, HeaderValues, Headers, Mapping, Sequence, Text, Value, same_key, whole};
use crate::identity::Caller;
use crate::mcp::{JsonText, Message, Method, Part};
use crate::policy::Facts;

/// What an expression may read.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Inputs<'a> {
    pub(in crate::policy) caller: &'a Caller,
    pub(in crate::policy) server: &'a str,
    /// The tool's bare name; empty for anything else.
    pub(in crate::policy) tool: &'a str,
    /// The method; none for a client's response.
    pub(in crate::policy) method: Option<Method>,
    /// `None` in a list: what a call would carry is not known.
    pub(in crate::policy) message: Option<&'a Message>,
    pub(in crate::policy) facts: &'a Facts<'a>,
}

/// Why a condition has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Stop {
    /// The expression does not fit the data: a missing key, a wrong type, a division by zero, not a `bool`.
    Error,
    /// It took more than [`STEPS_MAX`].
    Exhausted,
    /// The answer depends on what a list does not know. Only without a message.
    Unknown,
}

/// Steps one evaluation may take: nodes visited, plus what long texts, lists and regular expressions cost. A step is some
/// ten nanoseconds, so the worst condition is over in some ten milliseconds.
pub(super) const STEPS_MAX: usize = 1_000_000;

/// Bytes that are searched or compared in the time of one step.
const BYTES_A_STEP: usize = 64;

/// Bytes that a regular expression sees in the time of one step, when it is a slow one.
const REGEX_BYTES_A_STEP: usize = 8;

/// Steps it costs to compile a pattern that depends on the request: up to a hundred microseconds.
const PATTERN_STEPS: usize = 20_000;

/// Longest pattern that depends on the request.
const PATTERN_BYTES_MAX: usize = 512;

/// Compiled size of such a pattern. It is compiled anew each time: a cache would be filled by whoever sends patterns.
const PATTERN_COMPILED_BYTES_MAX: usize = 64 << 10;

/// Stands for arguments, `_meta` or params that were not sent.
static EMPTY: LazyLock<Map<String, Json>> = LazyLock::new(Map::new);

pub(super) fn holds(root: &Node, inputs: &Inputs<'_>) -> Result<bool, Stop> {
    Evaluation { inputs, locals: Vec::new(), steps: STEPS_MAX }.truth(root)
}

/// The value of an expression, for tests.
#[cfg(test)]
pub(super) fn value<'a>(root: &'a Node, inputs: &'a Inputs<'a>) -> Result<Value<'a>, Stop> {
    Evaluation { inputs, locals: Vec::new(), steps: STEPS_MAX }.value(root)
}

impl From<Absurd> for Stop {
    fn from(Absurd: Absurd) -> Self {
        Self::Error
    }
}

struct Evaluation<'a> {
    inputs: &'a Inputs<'a>,
    /// The variables of the comprehensions around the current node, outermost first.
    locals: Vec<Value<'a>>,
    /// What is left of [`STEPS_MAX`].
    steps: usize,
}

impl<'a> Evaluation<'a> {
    fn charge(&mut self, steps: usize) -> Result<(), Stop> {
        self.steps = self.steps.checked_sub(steps).ok_or(Stop::Exhausted)?;
        Ok(())
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Stop> {
        self.charge(1)?;
        match node {
            Node::And(operands) => self.junction(operands, Junction::All),
            Node::Or(operands) => self.junction(operands, Junction::Any),
            Node::Not(of) => Ok(!self.truth(of)?),
            Node::Equal(pair) => {
                let [left, right] = self.pair(pair)?;
                self.equal(&left, &right)
            }
            Node::Compare(comparison, pair) => {
                let [left, right] = self.pair(pair)?;
                self.charge(left.bytes().min(right.bytes()) / BYTES_A_STEP)?;
                Ok(stdlib::ordered(*comparison, left.compare(&right).ok_or(Stop::Error)?))
            }
            Node::Matches(of, pattern) => {
                let of = self.value(of)?;
                let text = text(&of)?;
                self.charge(text.len() / REGEX_BYTES_A_STEP)?;
                Ok(pattern.is_match(text))
            }
            Node::MatchesDynamic(pair) => self.matches(pair),
            Node::Search(search, pair) => {
                let [of, with] = self.pair(pair)?;
                let (of, with) = (text(&of)?, text(&with)?);
                self.charge(of.len() / BYTES_A_STEP)?;
                Ok(match search {
                    Search::Contains => of.contains(with),
                    Search::EndsWith => of.ends_with(with),
                    Search::StartsWith => of.starts_with(with),
                })
            }
            Node::Has(of, field) => Ok(self.member(of, field)?.is_some()),
            Node::In(pair) => {
                let [needle, haystack] = self.pair(pair)?;
                self.contains(&haystack, &needle)
            }
            Node::Fold(fold, comprehension) => self.fold(*fold, comprehension),
            Node::Arithmetic(..)
            | Node::Call(..)
            | Node::Collect(_)
            | Node::Conditional(_)
            | Node::Index(_)
            | Node::List(_)
            | Node::Literal(_)
            | Node::Local(_)
            | Node::Map(_)
            | Node::Negate(_)
            | Node::Select(..)
            | Node::Size(_)
            | Node::TypeOf(_)
            | Node::Variable(_) => {
                let Value::Bool(truth) = self.value(node)? else { return Err(Stop::Error) };
                Ok(truth)
            }
        }
    }

    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Stop> {
        self.charge(1)?;
        match node {
            Node::And(_)
            | Node::Compare(..)
            | Node::Equal(_)
            | Node::Fold(..)
            | Node::Has(..)
            | Node::In(_)
            | Node::Matches(..)
            | Node::MatchesDynamic(_)
            | Node::Not(_)
            | Node::Or(_)
            | Node::Search(..) => self.truth(node).map(Value::Bool),
            Node::Arithmetic(operator, pair) => {
                let [left, right] = self.pair(pair)?;
                self.arithmetic(*operator, &left, &right)
            }
            Node::Call(function, args) => {
                let mut args: Vec<_> = args.iter().map(|arg| self.value(arg)).collect::<Result<_, _>>()?;
                if args.first().is_some_and(|first| function.keeps(first))
                    && let Some(first) = args.pop()
                {
                    return Ok(first);
                }
                // The crate looks functions up by name and copies what it is given.
                self.charge(50 + args.iter().map(Value::bytes).sum::<usize>() / REGEX_BYTES_A_STEP)?;
                Ok(function.call(&args)?)
            }
            Node::Collect(collect) => self.collect(collect),
            Node::Conditional(branches) => {
                let [test, then, otherwise] = &**branches;
                if self.truth(test)? { self.value(then) } else { self.value(otherwise) }
            }
            Node::Index(pair) => {
                let [of, index] = self.pair(pair)?;
                self.index(&of, &index)
            }
            Node::List(items) => {
                self.charge(items.len())?;
                items.iter().map(|item| self.value(item)).collect::<Result<Arc<[_]>, _>>().map(Value::List)
            }
            Node::Literal(literal) => Ok(literal.borrowed()),
            Node::Local(depth) => self.locals.get(*depth).cloned().ok_or(Stop::Error),
            Node::Map(entries) => self.map(entries),
            Node::Negate(of) => {
                let of = self.value(of)?;
                if let Value::Int(int) = of {
                    return int.checked_neg().map(Value::Int).ok_or(Stop::Error);
                }
                let Value::Double(double) = of else { return Err(Stop::Error) };
                Ok(Value::Double(-double))
            }
            Node::Select(of, field) => self.member(of, field)?.ok_or(Stop::Error),
            Node::Size(of) => {
                let of = self.value(of)?;
                self.size(&of)
            }
            Node::TypeOf(of) => Ok(Value::Type(self.value(of)?.type_name().into())),
            Node::Variable(variable) => self.variable(*variable),
        }
    }

    fn pair(&mut self, pair: &'a [Node; 2]) -> Result<[Value<'a>; 2], Stop> {
        let [left, right] = pair;
        Ok([self.value(left)?, self.value(right)?])
    }

    fn variable(&self, variable: Variable) -> Result<Value<'a>, Stop> {
        let Inputs { caller, server, tool, method, message, facts } = *self.inputs;
        let object = |json: Option<&'a JsonText>| json.map_or(Value::Object(&EMPTY), |json| Value::json(json.value()));
        let method = || method.map_or(Value::Null, |method| Value::text(method.as_str()));
        let pairs = |pairs: [(&'static str, &'a str); 2]| {
            Value::Map(pairs.map(|(key, value)| (Value::text(key), Value::text(value))).into())
        };
        Ok(match variable {
            Variable::Agent => facts.agent.map_or(Value::Null, |agent| Value::Object(agent.fields())),
            Variable::Args => object(message.ok_or(Stop::Unknown)?.arguments.as_ref()),
            Variable::Bytes => match message {
                Some(_) => Value::Int(i64::try_from(facts.body_bytes).unwrap_or(i64::MAX)),
                None => return Err(Stop::Unknown),
            },
            Variable::Claims => Value::Object(caller.claims()),
            Variable::ClientCertificate => {
                facts.client_certificate.map_or(Value::Null, |certificate| Value::Object(certificate.fields()))
            }
            Variable::ClientIp => {
                facts.client_ip.map_or(Value::Null, |ip| Value::Text(Text::Shared(ip.to_string().into())))
            }
            Variable::Headers => Value::Headers(Headers { map: facts.headers, values: HeaderValues::First }),
            Variable::HeadersAll => Value::Headers(Headers { map: facts.headers, values: HeaderValues::All }),
            Variable::Host => Value::text(facts.host),
            Variable::HttpMethod => Value::text(facts.http_method),
            Variable::Issuer => Value::text(&caller.principal().issuer),
            Variable::Meta => object(message.ok_or(Stop::Unknown)?.meta.as_ref()),
            Variable::Method => method(),
            Variable::Now => {
                let seconds = i64::try_from(facts.now.0).map_err(|_| Stop::Error)?;
                Value::Timestamp(DateTime::from_timestamp(seconds, 0).ok_or(Stop::Error)?.fixed_offset())
            }
            Variable::Params => object(message.ok_or(Stop::Unknown)?.params.as_ref()),
            Variable::Path => Value::text(facts.path),
            Variable::Principal => {
                let principal = caller.principal();
                pairs([("issuer", &principal.issuer), ("subject", &principal.subject)])
            }
            Variable::ProtocolVersion => Value::text(facts.revision.as_str()),
            Variable::Region => facts.region.map_or(Value::Null, Value::text),
            Variable::Scopes => Value::Scopes(caller.scopes()),
            Variable::Server => Value::text(server),
            Variable::ServerIdentity => {
                facts.server_identity.map_or(Value::Null, |identity| Value::Object(identity.fields()))
            }
            Variable::Subject => Value::text(&caller.principal().subject),
            Variable::Tool => pairs([("server", server), ("name", tool)]),
            Variable::ToolName => Value::text(tool),
        })
    }

    /// `&&` and `||` as CEL has them: an operand that decides wins over errors beside it, in any order.
    fn junction(&mut self, operands: &'a [Node], junction: Junction) -> Result<bool, Stop> {
        let mut verdict = Fading::new(junction);
        for operand in operands {
            let truth = self.truth(operand);
            if let Some(decided) = verdict.take(truth)? {
                return Ok(decided);
            }
        }
        verdict.finish()
    }

    fn fold(&mut self, fold: Fold, comprehension: &'a Comprehension) -> Result<bool, Stop> {
        let range = self.value(&comprehension.range)?;
        let items = self.items(&range)?;
        let mut verdict = match fold {
            Fold::All => Fading::new(Junction::All),
            Fold::Exists => Fading::new(Junction::Any),
            Fold::ExistsOne => return self.exists_one(&items, &comprehension.body),
        };
        for index in 0..items.len() {
            let Some(item) = items.get(index) else { break };
            let truth = self.with_local(item, |evaluation| evaluation.truth(&comprehension.body));
            if let Some(decided) = verdict.take(truth)? {
                return Ok(decided);
            }
        }
        verdict.finish()
    }

    fn exists_one(&mut self, items: &Items<'_, 'a>, body: &'a Node) -> Result<bool, Stop> {
        let mut found = 0_usize;
        for index in 0..items.len() {
            let Some(item) = items.get(index) else { break };
            found += usize::from(self.with_local(item, |evaluation| evaluation.truth(body))?);
        }
        Ok(found == 1)
    }

    fn collect(&mut self, collect: &'a Collect) -> Result<Value<'a>, Stop> {
        let range = self.value(&collect.range)?;
        let items = self.items(&range)?;
        let mut collected = Vec::new();
        for index in 0..items.len() {
            let Some(item) = items.get(index) else { break };
            // Each element takes a place in the result.
            self.charge(1)?;
            let kept = self.with_local(item.clone(), |evaluation| {
                if let Some(keep) = &collect.keep
                    && !evaluation.truth(keep)?
                {
                    return Ok(None);
                }
                collect.item.as_ref().map_or(Ok(item), |item| evaluation.value(item)).map(Some)
            })?;
            collected.extend(kept);
        }
        Ok(Value::List(collected.into()))
    }

    fn with_local<T>(&mut self, local: Value<'a>, evaluate: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(local);
        let result = evaluate(self);
        self.locals.pop();
        result
    }

    /// The elements of a list, the keys of a map. What is asked of each of them is charged where it is asked.
    fn items<'v>(&mut self, range: &'v Value<'a>) -> Result<Items<'v, 'a>, Stop> {
        if let Some(sequence) = range.sequence() {
            return Ok(Items::Sequence(sequence));
        }
        let mapping = self.whole_mapping(range)?.ok_or(Stop::Error)?;
        self.charge(mapping.len())?;
        Ok(Items::Keys(mapping.keys()))
    }

    /// A map of which everything will be looked at. The headers of a call are not those of the list.
    fn whole_mapping<'v>(&self, value: &'v Value<'a>) -> Result<Option<Mapping<'v, 'a>>, Stop> {
        match (value, self.inputs.message) {
            (Value::Headers(_), None) => Err(Stop::Unknown),
            (value, _) => Ok(value.mapping()),
        }
    }

    /// The value under a name of a map. What the client sent is not parsed whole for one member of it.
    fn member(&mut self, of: &'a Node, field: &'a str) -> Result<Option<Value<'a>>, Stop> {
        let sent = if let Node::Variable(variable) = of { self.sent(*variable)? } else { None };
        let Some(json) = sent else {
            let of = self.value(of)?;
            return self.lookup(&of, &Value::text(field));
        };
        self.charge(1)?;
        Ok(json.and_then(|json| json.member(field)).map(|part| match part {
            Part::Parsed(value) => Value::json(value),
            Part::Scalar(value) => Value::scalar(&value),
            Part::Text(text) => Value::text(text),
        }))
    }

    /// The JSON that the client sent under this variable, if it is one of those that stand for such; `Some(None)` when it
    /// sent none.
    fn sent(&self, variable: Variable) -> Result<Option<Option<&'a JsonText>>, Stop> {
        let sent: fn(&'a Message) -> Option<&'a JsonText> = if variable == Variable::Args {
            |message| message.arguments.as_ref()
        } else if variable == Variable::Meta {
            |message| message.meta.as_ref()
        } else if variable == Variable::Params {
            |message| message.params.as_ref()
        } else {
            return Ok(None);
        };
        self.inputs.message.map(|message| Some(sent(message))).ok_or(Stop::Unknown)
    }

    /// The value under a key of a map; `None` when the key is not there.
    fn lookup(&mut self, of: &Value<'a>, key: &Value<'_>) -> Result<Option<Value<'a>>, Stop> {
        if let (Value::Headers(_), None, Value::Text(name)) = (of, self.inputs.message, key)
            && differs_in_a_call(name.as_str())
        {
            return Err(Stop::Unknown);
        }
        let mapping = of.mapping().ok_or(Stop::Error)?;
        if !matches!(key, Value::Bool(_) | Value::Double(_) | Value::Int(_) | Value::Text(_) | Value::UInt(_)) {
            return Err(Stop::Error);
        }
        if let Mapping::Values(entries) = mapping {
            self.charge(entries.len())?;
        }
        Ok(mapping.get(key)?)
    }

    fn index(&mut self, of: &Value<'a>, index: &Value<'a>) -> Result<Value<'a>, Stop> {
        let Some(sequence) = of.sequence() else {
            return self.lookup(of, index)?.ok_or(Stop::Error);
        };
        let index = if let Value::Int(int) = index {
            usize::try_from(*int).ok()
        } else if let Value::UInt(uint) = index {
            usize::try_from(*uint).ok()
        } else if let Value::Double(double) = index {
            whole(*double).and_then(|int| usize::try_from(int).ok())
        } else {
            None
        };
        index.and_then(|index| sequence.get(index)).ok_or(Stop::Error)
    }

    fn contains(&mut self, haystack: &Value<'a>, needle: &Value<'a>) -> Result<bool, Stop> {
        let Some(sequence) = haystack.sequence() else {
            return Ok(self.lookup(haystack, needle)?.is_some());
        };
        if let (Sequence::Scopes(scopes), Value::Text(scope)) = (sequence, needle) {
            return Ok(scopes.contains(scope.as_str()));
        }
        for index in 0..sequence.len() {
            if let Some(item) = sequence.get(index)
                && self.equal(&item, needle)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn size(&mut self, of: &Value<'a>) -> Result<Value<'a>, Stop> {
        self.charge(of.bytes() / BYTES_A_STEP)?;
        let size = if let Value::Text(text) = of {
            text.as_str().chars().count()
        } else if let Value::Bytes(bytes) = of {
            bytes.len()
        } else if let Some(sequence) = of.sequence() {
            sequence.len()
        } else {
            self.whole_mapping(of)?.ok_or(Stop::Error)?.len()
        };
        Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
    }

    fn map(&mut self, entries: &'a [(Node, Node)]) -> Result<Value<'a>, Stop> {
        let mut map: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let (key, value) = (self.value(key)?, self.value(value)?);
            self.charge(1 + map.len())?;
            if !matches!(key, Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::UInt(_))
                || map.iter().any(|(known, _)| same_key(known, &key))
            {
                return Err(Stop::Error);
            }
            map.push((key, value));
        }
        Ok(Value::Map(map.into()))
    }

    fn matches(&mut self, pair: &'a [Node; 2]) -> Result<bool, Stop> {
        let [of, pattern] = self.pair(pair)?;
        let (of, pattern) = (text(&of)?, text(&pattern)?);
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(Stop::Error);
        }
        self.charge(PATTERN_STEPS + of.len() / REGEX_BYTES_A_STEP)?;
        let mut builder = RegexBuilder::new(pattern);
        let limits = builder.size_limit(PATTERN_COMPILED_BYTES_MAX).dfa_size_limit(PATTERN_COMPILED_BYTES_MAX);
        Ok(limits.build().map_err(|_| Stop::Error)?.is_match(of))
    }

    fn arithmetic(&mut self, operator: Arithmetic, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Stop> {
        if let (Value::Int(left), Value::Int(right)) = (left, right) {
            let result = match operator {
                Arithmetic::Add => left.checked_add(*right),
                Arithmetic::Divide => left.checked_div(*right),
                Arithmetic::Multiply => left.checked_mul(*right),
                Arithmetic::Remainder => left.checked_rem(*right),
                Arithmetic::Subtract => left.checked_sub(*right),
            };
            return result.map(Value::Int).ok_or(Stop::Error);
        }
        if let (Arithmetic::Add, Some(first), Some(second)) = (operator, left.sequence(), right.sequence()) {
            self.charge(first.len() + second.len())?;
            let items = |sequence: Sequence<'_, 'a>| -> Vec<Value<'a>> {
                (0..sequence.len()).filter_map(|index| sequence.get(index)).collect()
            };
            return Ok(Value::List(items(first).into_iter().chain(items(second)).collect()));
        }
        self.charge((left.bytes() + right.bytes()) / REGEX_BYTES_A_STEP)?;
        Ok(stdlib::arithmetic(operator, left, right)?)
    }

    /// `==`: values of different types are unequal, except numbers, which compare as numbers.
    fn equal(&mut self, left: &Value<'a>, right: &Value<'a>) -> Result<bool, Stop> {
        self.charge(1)?;
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                let (left, right) = (left.as_str(), right.as_str());
                if left.len() == right.len() {
                    self.charge(left.len() / BYTES_A_STEP)?;
                }
                return Ok(left == right);
            }
            (Value::Null, Value::Null) => return Ok(true),
            (Value::Type(left), Value::Type(right)) => return Ok(left == right),
            _ => {}
        }
        if let (Some(left), Some(right)) = (left.sequence(), right.sequence()) {
            if left.len() != right.len() {
                return Ok(false);
            }
            for index in 0..left.len() {
                match (left.get(index), right.get(index)) {
                    (Some(left), Some(right)) if self.equal(&left, &right)? => {}
                    _ => return Ok(false),
                }
            }
            return Ok(true);
        }
        if let (Some(left), Some(right)) = (self.whole_mapping(left)?, self.whole_mapping(right)?) {
            if left.len() != right.len() {
                return Ok(false);
            }
            for key in left.keys() {
                self.charge(1)?;
                match (left.get(&key)?, right.get(&key)?) {
                    (Some(left), Some(right)) if self.equal(&left, &right)? => {}
                    _ => return Ok(false),
                }
            }
            return Ok(true);
        }
        self.charge(left.bytes().min(right.bytes()) / BYTES_A_STEP)?;
        Ok(left.compare(right).is_some_and(std::cmp::Ordering::is_eq))
    }
}

/// What a comprehension goes through.
enum Items<'v, 'a> {
    Keys(Vec<Value<'a>>),
    Sequence(Sequence<'v, 'a>),
}

impl<'a> Items<'_, 'a> {
    fn len(&self) -> usize {
        match self {
            Self::Keys(keys) => keys.len(),
            Self::Sequence(sequence) => sequence.len(),
        }
    }

    fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Keys(keys) => keys.get(index).cloned(),
            Self::Sequence(sequence) => sequence.get(index),
        }
    }
}

/// `&&` or `||`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Junction {
    All,
    Any,
}

/// The verdict over operands seen so far. One that decides ends it; what had no answer is remembered, the unknown before
/// the wrong, since knowing it could have decided.
struct Fading {
    junction: Junction,
    stop: Option<Stop>,
}

impl Fading {
    fn new(junction: Junction) -> Self {
        Self { junction, stop: None }
    }

    fn take(&mut self, truth: Result<bool, Stop>) -> Result<Option<bool>, Stop> {
        let decides = self.junction == Junction::Any;
        match truth {
            Ok(truth) if truth == decides => return Ok(Some(decides)),
            Ok(_) => {}
            // Out of steps is out of steps: no operand after it is looked at.
            Err(Stop::Exhausted) => return Err(Stop::Exhausted),
            Err(Stop::Unknown) => self.stop = Some(Stop::Unknown),
            Err(Stop::Error) => self.stop = self.stop.or(Some(Stop::Error)),
        }
        Ok(None)
    }

    fn finish(self) -> Result<bool, Stop> {
        self.stop.map_or(Ok(self.junction == Junction::All), Err)
    }
}

fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, Stop> {
    if let Value::Text(text) = value { Ok(text.as_str()) } else { Err(Stop::Error) }
}

/// Headers that a call carries with its own content (MCP 2026-07-28, Streamable HTTP, standard request headers), so that
/// a list's own values say nothing about it.
fn differs_in_a_call(header: &str) -> bool {
    header.starts_with("mcp-") || header == "content-length"
}
