//! WHERE does it go? Instances, their health as the data plane sees it, and the choice among them.

pub mod instance;
pub mod pool;

pub use instance::Instance;
pub use pool::Pool;
