//! What can an operator say about where requests go?

use std::sync::Arc;
use std::time::Duration;

use super::subset::Subset;

/// `servers[].routing` and `servers[].default`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingSpec {
    /// In order: the first that matches decides.
    pub rules: Vec<RuleSpec>,
    /// Where everything else goes; `None`: to every instance.
    pub default: Option<Subset>,
}

/// One entry of `servers[].routing`.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// For metrics and the audit record.
    pub name: Arc<str>,
    /// A condition (CEL) on the request; `None`: none.
    pub when: Option<Box<str>>,
    /// Tools that are called: exact names, or prefixes with a trailing `*`. Empty: whatever is asked.
    pub tools: Vec<Box<str>>,
    /// Where it goes.
    pub way: Way,
    /// Whether it goes nowhere else, whatever happens there.
    pub strict: bool,
    /// Whether the same principal is always sent the same way.
    pub sticky: bool,
}

/// Where the requests of a rule go.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// `split`: to one of several subsets, by their weights.
    Split {
        /// At least two.
        sides: Vec<SideSpec>,
        /// When a side other than the first gets no more requests; `None`: never.
        abort_when: Option<AbortWhen>,
    },
    /// `to`: to one subset.
    To(Subset),
}

/// One entry of `split`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideSpec {
    /// Which instances.
    pub to: Subset,
    /// Its share; not all are 0.
    pub weight: u32,
}

/// `abort_when:` too many of a side's requests have failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AbortWhen {
    /// More than this part of them, 0 to 1.
    pub error_rate_above: f64,
    /// Of those that ended within this time.
    pub over: Duration,
    /// Once there are so many.
    pub at_least: u32,
    /// Whether a tool's result with `isError` counts as a failure, too.
    pub tool_errors: bool,
}

/// `servers[].circuit`: when an instance is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitSpec {
    /// So many failures in a row; `None`: that is not looked at.
    pub consecutive_failures: Option<u32>,
    /// Too many of its requests have failed; `None`: that is not looked at.
    pub errors: Option<ErrorRate>,
    /// It is much slower than the others; `None`: that is not looked at.
    pub slow: Option<Slow>,
    /// How long it is left alone.
    pub open_for: Duration,
    /// So many requests are then let through at once, and so many must succeed.
    pub probes: u32,
}

/// `circuit.error_rate:`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorRate {
    /// More than this part, 0 to 1.
    pub above: f64,
    /// Of those that ended within this time.
    pub over: Duration,
    /// Once there are so many.
    pub at_least: u32,
}

/// `circuit.slow:`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// Its answers take more than so many times as long as those of the others.
    pub times: f64,
    /// And longer than this.
    pub above: Duration,
    /// Once there were so many.
    pub at_least: u32,
}

/// What becomes of a session whose instance is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInstanceLoss {
    /// The client is told 404, and opens another.
    #[default]
    NotFound,
    /// The gateway opens another in its place at another instance.
    Reinitialize,
}

/// `servers[].shadow`: calls that are made once more, for comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowSpec {
    /// Where.
    pub to: Subset,
    /// Tools: exact names, or prefixes with a trailing `*`. At least one.
    pub tools: Vec<Box<str>>,
    /// Which part of the calls, 0 to 1.
    pub sample: f64,
    /// So many at once; what is more is left out.
    pub concurrency: u32,
    /// Time for one.
    pub timeout: Duration,
}

/// Whether a tool is one of those that `patterns` name.
#[must_use]
pub fn names_tool(patterns: &[Box<str>], tool: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => tool.starts_with(prefix),
        None => **pattern == *tool,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_star_is_a_prefix_and_nothing_else_is() {
        let patterns = ["search*".into(), "read".into()];
        for (tool, named) in
            [("search", true), ("search_all", true), ("read", true), ("read_all", false), ("Search", false)]
        {
            assert_eq!(names_tool(&patterns, tool), named, "{tool}");
        }
        assert!(names_tool(&["*".into()], "anything"));
        assert!(!names_tool(&[], "anything"));
    }
}
