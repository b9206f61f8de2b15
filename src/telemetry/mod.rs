//! What can be seen from outside: metrics, the process log, and where audit records go.

pub mod audit;
pub mod log;
pub mod metrics;
pub mod recent;

pub use audit::{AuditPlace, AuditSink, AuditUnavailable};
pub use metrics::Metrics;
