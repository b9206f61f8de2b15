//! Does a condition hold that stands outside the rules of a route?

use super::cel::{Condition, Inputs, Stop};
use super::compile::roomily;
use super::decision::Facts;
use crate::identity::Caller;
use crate::mcp::{Message, Target};

/// A condition (CEL) that other parts of a configuration ask, in the same language and with the same variables as `when` in
/// a rule. What follows from it, and from its having no answer, is theirs to say.
#[derive(Debug)]
pub struct Guard(Condition);

/// Why a condition has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It does not fit the data, or took too long.
    Error,
    /// It reads a message where there is none: a request without a body.
    Unknown,
}

impl Guard {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// What is wrong with it, with its position: as for `when` in a rule.
    pub fn compile(source: &str) -> Result<Self, String> {
        roomily(|| Condition::compile(source))
            .ok_or_else(|| "the compiler of conditions could not run or has failed".to_owned())?
            .map(Self)
            .map_err(|refused| refused.0)
    }

    /// Whether it holds of a request of `caller` to `server`; `message` is none for a request without a body.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn holds(
        &self,
        caller: &Caller,
        server: &str,
        message: Option<&Message>,
        facts: &Facts<'_>,
    ) -> Result<bool, Unanswered> {
        let tool = message.map_or("", |message| match &message.target {
            Target::Tool(name) => name,
            Target::None | Target::Prompt(_) | Target::Resource(_) | Target::Task(_) => "",
        });
        let method = message.and_then(Message::method);
        self.0.holds(&Inputs { caller, server, tool, method, message, facts }).map_err(|stop| match stop {
            Stop::Unknown => Unanswered::Unknown,
            // Without a message, what is too much may have been cut short with it.
            Stop::Exhausted if message.is_none() => Unanswered::Unknown,
            Stop::Error | Stop::Exhausted => Unanswered::Error,
        })
    }
}
