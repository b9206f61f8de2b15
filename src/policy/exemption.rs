//! Who is let see what others are not? A condition about the caller, outside the rules of a route.

use std::fmt;

use super::cel::{Condition, Inputs};
use super::compile::roomily;
use super::decision::Facts;
use crate::identity::Caller;

/// A CEL condition that reads the caller, their agent, and which tool of which server it is about; never arguments or the
/// HTTP request.
pub struct Exemption(Condition);

impl Exemption {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence: it does not compile, or reads more than it may.
    pub fn compile(source: &str) -> Result<Self, String> {
        match roomily(|| Condition::compile(source)) {
            Some(Ok(condition)) if condition.reads_request => {
                Err("it may read scopes, claims, principal, agent and tool, nothing else".to_owned())
            }
            Some(Ok(condition)) => Ok(Self(condition)),
            Some(Err(refused)) => Err(refused.0),
            None => Err("the compiler of expressions could not run or has failed".to_owned()),
        }
    }

    /// Whether it holds. One that errs does not: nobody is let see more for it.
    #[must_use]
    pub fn holds(&self, caller: &Caller, server: &str, tool: &str, facts: &Facts<'_>) -> bool {
        let inputs = Inputs { caller, server, tool, method: None, message: None, facts };
        self.0.holds(&inputs).unwrap_or(false)
    }
}

impl fmt::Debug for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exemption(…)")
    }
}
