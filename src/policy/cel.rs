//! Does a condition hold? CEL expressions, compiled once at load and evaluated on values borrowed from the request.
//!
//! The `cel` crate reads the text and supplies the standard functions that are more than a line (conversions,
//! timestamps). The walk over the tree is ours, for three things its interpreter does not have: a budget of steps, so
//! that no argument makes a condition run away; a third answer, [`Stop::Unknown`], for lists, where arguments are not
//! known yet; and names, request members and regular expressions resolved at load, so that an evaluation costs a
//! fraction of a microsecond.
//!
//! The language is CEL without optional syntax (`a.?b`), `cel.bind`, protocol buffer messages and extension libraries.
//! An `==` between numbers of different types is exact, also beyond 2⁵³, where going through `double` would not be.

mod evaluate;
mod lower;
mod pattern;
mod stdlib;
#[cfg(test)]
mod tests;
mod value;

pub(super) use evaluate::{Inputs, Stop};

/// Longest source text of one expression.
const SOURCE_BYTES_MAX: usize = 4096;

/// A compiled condition.
#[derive(Debug)]
pub(super) struct Condition {
    root: lower::Node,
    /// Whether it reads anything beyond the caller and what is asked for: arguments, `_meta`, the HTTP request, time.
    pub(super) reads_request: bool,
}

/// Why an expression was refused at load: a sentence with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

impl Condition {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// When the text is too long, is not CEL, names a variable, request member or function that does not exist, calls
    /// one with the wrong number of arguments, or holds a regular expression that does not compile.
    pub(super) fn compile(source: &str) -> Result<Self, Refused> {
        if source.len() > SOURCE_BYTES_MAX {
            let bytes = source.len();
            return Err(Refused(format!("the expression has {bytes} bytes, {SOURCE_BYTES_MAX} are the most")));
        }
        lower::lower(source)
    }

    /// Whether the condition holds. A result that is no `bool` is an error.
    ///
    /// # Errors
    /// [`Stop`] says which of the three ways there was no answer.
    pub(super) fn holds(&self, inputs: &Inputs<'_>) -> Result<bool, Stop> {
        evaluate::holds(&self.root, inputs)
    }
}
