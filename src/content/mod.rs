//! WHAT may come back? Rules about answers: what is replaced, taken out, limited, marked or refused on its way to the caller.
//!
//! [`Plan`] holds the rules of a route. A [`Filter`] is made for each exchange and sees its answer: [`Filter::document`] one
//! that is whole, [`Filter::event`] one that comes as a stream. Both read what a string stands for, however it was escaped or
//! spelled in base64, and write anew only what a rule changes: every other byte stays.

pub mod detect;
mod edit;
mod encoded;
mod filter;
mod guard;
mod partial;
mod plan;
pub mod pointer;
mod redact;
pub mod rule;
mod slots;
mod stream;
mod texts;
mod tree;
pub mod unseen;

#[cfg(test)]
mod tests;

pub use filter::{Done, MARK, Refusal};
pub use plan::{Answered, Filter, Plan, RULES_MAX, Refuse, RuleSet, Unreadable, answered};
pub use rule::Rule;
pub use stream::{HELD_BYTES_MAX, HELD_EVENTS_MAX};
