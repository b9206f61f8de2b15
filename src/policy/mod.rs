//! MAY they? Rules, CEL conditions, decisions, the scopes of a challenge.

pub mod rule;

pub use rule::Effect;
