//! What do the standard functions give? The `cel` crate's own implementation, on scalars carried over to its types.

use std::cmp::Ordering;
use std::sync::Arc;

use cel_interpreter::common::types::{
    CelBool, CelBytes, CelDouble, CelDuration, CelInt, CelNull, CelString, CelTimestamp, CelType, CelUInt,
};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::context::VariableResolver;
use cel_interpreter::{Context, Program, Value as CelValue};

use super::lower::{Arithmetic, ENV};
use super::value::{Absurd, Text, Value};

/// A call compiled once, with the names of [`ARGUMENTS`] where the arguments go.
#[derive(Debug)]
pub(super) struct Function {
    call: Program,
    /// The type it converts to: a value that has it already stays as it is.
    converts_to: Option<&'static str>,
}

const ARGUMENTS: [&str; 2] = ["a", "b"];

/// Functions of one argument.
const GLOBAL: &[&str] = &["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];

/// Members of timestamps, with an optional time zone; the last four also of durations, without one.
const MEMBERS: &[&str] = &[
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getMonth",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getSeconds",
];

/// Finds a standard function by name, form and number of arguments (without the receiver).
pub(super) fn find(name: &str, member: bool, args: usize) -> Option<Function> {
    let call = match (member, args) {
        (false, 1) if GLOBAL.contains(&name) => format!("{name}(a)"),
        (true, 0) if MEMBERS.contains(&name) => format!("a.{name}()"),
        (true, 1) if MEMBERS.contains(&name) => format!("a.{name}(b)"),
        _ => return None,
    };
    let converts_to = GLOBAL.iter().copied().find(|known| *known == name);
    ENV.compile(&call).ok().map(|call| Function { call, converts_to })
}

impl Function {
    /// Whether the call would give back what it is given.
    pub(super) fn keeps(&self, value: &Value<'_>) -> bool {
        self.converts_to == Some(value.type_name())
    }

    /// Whether this member of timestamps has an answer in a time zone: an IANA name or an offset such as `+01:00`.
    pub(super) fn knows_zone(&self, zone: &str) -> bool {
        let epoch = Value::Timestamp(chrono::DateTime::UNIX_EPOCH.fixed_offset());
        self.call(&[epoch, Value::text(zone)]).is_ok()
    }

    /// Calls it. Lists and maps are no argument of any function here.
    pub(super) fn call(&self, args: &[Value<'_>]) -> Result<Value<'static>, Absurd> {
        let args = Arguments(args);
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&args);
        let result = CelValue::resolve_val(self.call.expression(), &context).map_err(|_| Absurd)?;
        from_cel(result.as_ref()).ok_or(Absurd)
    }
}

#[derive(Debug)]
struct Arguments<'v, 'a>(&'v [Value<'a>]);

impl VariableResolver for Arguments<'_, '_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let index = ARGUMENTS.iter().position(|name| *name == variable)?;
        to_cel(self.0.get(index)?).map(CowVal::Owned)
    }
}

/// `left operator right` for everything but two `int`s and two lists.
pub(super) fn arithmetic(operator: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, Absurd> {
    let (left, right) = (to_cel(left).ok_or(Absurd)?, to_cel(right).ok_or(Absurd)?);
    let result = match operator {
        Arithmetic::Add => left.as_adder().ok_or(Absurd)?.add(right.as_ref()),
        Arithmetic::Divide => left.as_divider().ok_or(Absurd)?.div(right.as_ref()),
        Arithmetic::Multiply => left.as_multiplier().ok_or(Absurd)?.mul(right.as_ref()),
        Arithmetic::Remainder => left.as_modder().ok_or(Absurd)?.modulo(right.as_ref()),
        Arithmetic::Subtract => left.as_subtractor().ok_or(Absurd)?.sub(right.as_ref()),
    };
    let result = result.map_err(|_| Absurd)?;
    from_cel(result.as_ref()).ok_or(Absurd)
}

fn to_cel<'b>(value: &'b Value<'_>) -> Option<Box<dyn Val + 'b>> {
    Some(match value {
        Value::Bool(truth) => Box::new(CelBool::from(*truth)),
        Value::Bytes(bytes) => Box::new(CelBytes::from(bytes.as_ref())),
        Value::Double(double) => Box::new(CelDouble::from(*double)),
        Value::Duration(duration) => Box::new(CelDuration::from(*duration)),
        Value::Int(int) => Box::new(CelInt::from(*int)),
        Value::Null => Box::new(CelNull),
        Value::Text(text) => Box::new(CelString::from(text.as_str())),
        Value::Timestamp(timestamp) => Box::new(CelTimestamp::from(*timestamp)),
        Value::Type(name) => Box::new(CelType::new(name.as_ref())),
        Value::UInt(uint) => Box::new(CelUInt::from(*uint)),
        Value::Array(_) | Value::Headers(_) | Value::List(_) | Value::Map(_) | Value::Object(_) | Value::Scopes(_) => {
            return None;
        }
    })
}

fn from_cel(value: &dyn Val) -> Option<Value<'static>> {
    Some(if let Some(truth) = value.downcast_ref::<CelBool>() {
        Value::Bool(*truth.inner())
    } else if let Some(int) = value.downcast_ref::<CelInt>() {
        Value::Int(*int.inner())
    } else if let Some(text) = value.downcast_ref::<CelString>() {
        Value::Text(Text::Shared(text.inner().into()))
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        Value::Double(*double.inner())
    } else if let Some(uint) = value.downcast_ref::<CelUInt>() {
        Value::UInt(*uint.inner())
    } else if let Some(timestamp) = value.downcast_ref::<CelTimestamp>() {
        Value::Timestamp(*timestamp.inner())
    } else if let Some(duration) = value.downcast_ref::<CelDuration>() {
        Value::Duration(*duration.inner())
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        Value::Bytes(bytes.inner().into())
    } else {
        return None;
    })
}

/// Whether an ordering answers `<`, `<=`, `>` or `>=` with yes.
pub(super) fn ordered(comparison: super::lower::Comparison, ordering: Ordering) -> bool {
    use super::lower::Comparison;
    match comparison {
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
        Comparison::Less => ordering.is_lt(),
        Comparison::LessOrEqual => ordering.is_le(),
    }
}
