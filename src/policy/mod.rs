//! MAY they? Rules, CEL conditions, decisions, the scopes of a challenge.
//!
//! [`Policy::compile`] reads the rules of a route once; [`decide`] answers for one message, [`is_visible`] for one
//! entry of a list. All three are pure: what a rule may read is in [`Question`] and [`Facts`].
//!
//! First match decides, else the default. An error inside a rule never opens a door: an allow rule that errs does not
//! match, a deny rule that errs denies. The verdict does not depend on the protocol revision.

mod decision;
mod explain;
mod visibility;

pub mod budget;
pub mod quarantine;
pub mod rule;
pub mod taint;

mod cel;
mod claim;
mod compile;
mod index;
mod when;

#[cfg(test)]
mod tests;

pub use compile::{Policy, RuleProblem};
pub use decision::{Decision, Denial, DenialReason, Facts, Permit, Question, decide, depends_only_on_caller};
pub use explain::{Explained, Verdict, explain};
pub use rule::Effect;
pub use visibility::{Item, is_visible};
pub use when::{Circumstances, NoAnswer, When};
