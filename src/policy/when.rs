//! Does a condition hold that stands outside the rules of a route? One of a budget, a way to an instance, a rule about content.

use std::fmt;

use crate::identity::Caller;
use crate::mcp::{Message, Target};

use super::Facts;
use super::cel::{Condition, Inputs, Stop};
use super::compile::roomily;

/// A condition (CEL) that other parts of a configuration ask, in the same language and with the same variables as `when` in
/// a rule. What follows from it, and from its having no answer, is theirs to say.
pub struct When {
    source: Box<str>,
    condition: Condition,
}

/// What a condition reads.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// Which server it is for.
    pub server: &'a str,
    /// What is asked; none for a request without a body.
    pub message: Option<&'a Message>,
    /// The request it came in.
    pub facts: &'a Facts<'a>,
}

/// Why a condition has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It does not fit the data, or took too long.
    Error,
    /// It reads a message where there is none: a request without a body.
    Unknown,
}

impl When {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, with its position: as for `when` in a rule.
    pub fn compile(source: &str) -> Result<Self, String> {
        let condition = roomily(|| Condition::compile(source));
        let condition = condition.ok_or("the compiler of conditions could not run or has failed")?;
        Ok(Self { source: source.into(), condition: condition.map_err(|refused| refused.0)? })
    }

    /// As [`When::compile`], for a condition about callers: who may see what others do not. It reads the caller, their agent, and
    /// which tool of which server is asked for; never arguments or the HTTP request.
    ///
    /// # Errors
    /// As [`When::compile`], and when it reads more than it may.
    pub fn about_caller(source: &str) -> Result<Self, String> {
        let when = Self::compile(source)?;
        if when.condition.reads_request {
            return Err("it may read scopes, claims, principal, agent and tool, nothing else".to_owned());
        }
        Ok(when)
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// [`NoAnswer`]: whoever asks takes the careful side.
    pub fn holds(&self, about: &Circumstances<'_>) -> Result<bool, NoAnswer> {
        let Circumstances { caller, server, message, facts } = *about;
        let tool = message.map_or("", |message| if let Target::Tool(name) = &message.target { name } else { "" });
        let method = message.and_then(Message::method);
        let inputs = Inputs { caller, server, tool, method, message, facts };
        self.condition.holds(&inputs).map_err(|stop| match stop {
            Stop::Unknown => NoAnswer::Unknown,
            // Without a message, what is too much may have been cut short with it.
            Stop::Exhausted if message.is_none() => NoAnswer::Unknown,
            Stop::Error | Stop::Exhausted => NoAnswer::Error,
        })
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.source).finish()
    }
}

impl PartialEq for When {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
