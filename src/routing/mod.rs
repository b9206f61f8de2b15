//! WHERE does it go? Instances, their health as the data plane sees it, and the choice among them.
//!
//! A [`Pool`] holds a server's instances. Without rules it chooses by itself; with rules, a [`Router`] chooses among
//! subsets of the same instances. A request that belongs to a session goes to the session's instance in either case.

pub mod breaker;
pub mod hash;
pub mod instance;
pub mod members;
pub mod pool;
pub mod region;
pub mod router;
pub mod rule;
pub mod shadow;
pub mod subset;
pub mod window;

pub use instance::Instance;
pub use pool::Pool;
pub use router::Router;
