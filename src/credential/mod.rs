//! WITH WHOSE authority? What the upstream sees in `Authorization`: credential plans, and the RFC 8693 form and answer
//! as bytes.

pub mod plan;

pub use plan::{ClientAuth, ExchangePlan, Plan};
