//! What else can be shown? Scenarios: a few more lines of configuration, and the calls that show what they do.
//!
//! To add one: a file with `additions` and `steps`, a variant here, and an arm in each of the three functions. One that is
//! not there is not offered.

mod budgets;
mod filtering;
mod routing;

use std::pin::Pin;

use super::selfcheck::{Seen, SelfCheck};

/// A scenario that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Budgets: rates, quotas, loops, calls at once, and the kill switch.
    Budgets,
    /// Filters of answers: what is replaced, taken out, refused and marked.
    Filtering,
    /// Routing: by audience, size and region, a canary, and a rule that lets nothing out.
    Routing,
}

/// What a scenario adds to the configuration of the demo, as YAML.
#[derive(Clone, Debug, Default)]
pub(super) struct Additions {
    /// Whole sections.
    pub(super) sections: &'static str,
    /// Keys of the server `tools`, indented by four.
    pub(super) server: &'static str,
    /// More keys of the instances `a` and `b`, each as `, key: value`.
    pub(super) instances: [&'static str; 2],
    /// Keys of the route, indented by four.
    pub(super) route: &'static str,
}

/// One thing that is shown: its title, and the calls that show it.
pub(super) type Step<'a> = (&'static str, Pin<Box<dyn Future<Output = Seen> + Send + 'a>>);

impl Scenario {
    /// What the screen says of it first.
    pub(super) fn introduction(self) -> &'static str {
        match self {
            Self::Budgets => budgets::INTRODUCTION,
            Self::Filtering => filtering::INTRODUCTION,
            Self::Routing => routing::INTRODUCTION,
        }
    }

    pub(super) fn additions(self) -> Additions {
        match self {
            Self::Budgets => budgets::additions(),
            Self::Filtering => filtering::additions(),
            Self::Routing => routing::additions(),
        }
    }

    pub(super) fn steps(self, check: &SelfCheck) -> Vec<Step<'_>> {
        match self {
            Self::Budgets => budgets::steps(check),
            Self::Filtering => filtering::steps(check),
            Self::Routing => routing::steps(check),
        }
    }
}
