//! Does a condition hold that stands outside the rules? One of a budget, of a taint.

use std::fmt;
use std::thread;

use crate::identity::Caller;
use crate::mcp::{Message, Target};

use super::Facts;
use super::cel::{Condition, Inputs};
use super::compile::PARSER_STACK_BYTES;

/// A condition in the language of `when`, compiled.
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
    /// What is asked; none for a stream that somebody opens.
    pub message: Option<&'a Message>,
    /// The request it came in.
    pub facts: &'a Facts<'a>,
}

/// The condition does not fit the data, costs too much, or reads what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the condition has no answer")]
pub struct NoAnswer;

impl When {
    /// Reads an expression.
    ///
    /// # Errors
    /// A sentence with the position in the expression.
    pub fn compile(source: &str) -> Result<Self, String> {
        // The CEL parser takes more stack than a thread may have left; see `Policy::compile`.
        let condition = thread::scope(|scope| {
            let roomy = thread::Builder::new().name("policy-compiler".into()).stack_size(PARSER_STACK_BYTES);
            let compiler = roomy.spawn_scoped(scope, || Condition::compile(source));
            compiler.ok().and_then(|compiler| compiler.join().ok())
        });
        let condition = condition.ok_or("the compiler of conditions could not run or has failed")?;
        Ok(Self { source: source.into(), condition: condition.map_err(|refused| refused.0)? })
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
        self.condition.holds(&inputs).map_err(|_stop| NoAnswer)
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
