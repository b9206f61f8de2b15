//! Which way may a server or an item go?

use serde::{Deserialize, Serialize};

/// Where a server or an item stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Known, and not approved: neither listed nor callable.
    #[default]
    Registered,
    /// Approved by as many people as the configuration asks for.
    Approved,
    /// Taken out of use for a while.
    Suspended,
    /// Taken out of use for good.
    Retired,
}

/// What somebody does to a server or an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Gives one's approval to what was looked at.
    Approve,
    /// Enters it anew, or changes what is entered.
    Register,
    /// Puts it back to use.
    Resume,
    /// Takes it out of use for good.
    Retire,
    /// Takes it out of use for a while.
    Suspend,
}

/// An action that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is {} cannot be {}", .from.label(), .action.done())]
pub struct NotNow {
    /// Where it stands.
    pub from: State,
    /// What was asked.
    pub action: Action,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Registered, Self::Approved, Self::Suspended, Self::Retired];

    /// The word in records, metrics and answers.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Registered => "registered",
            Self::Retired => "retired",
            Self::Suspended => "suspended",
        }
    }

    /// The state after `action`, taking an approval for the last one that was missing.
    ///
    /// An approved thing is approved again when what it is has changed; a retired one begins anew when it is registered.
    ///
    /// # Errors
    /// [`NotNow`].
    pub fn after(self, action: Action) -> Result<Self, NotNow> {
        match (self, action) {
            (Self::Registered | Self::Approved, Action::Approve) | (Self::Suspended, Action::Resume) => {
                Ok(Self::Approved)
            }
            (Self::Registered | Self::Approved, Action::Suspend) => Ok(Self::Suspended),
            (Self::Registered | Self::Approved | Self::Suspended, Action::Retire) => Ok(Self::Retired),
            (Self::Registered | Self::Retired, Action::Register) => Ok(Self::Registered),
            (from, action) => Err(NotNow { from, action }),
        }
    }
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] = [Self::Approve, Self::Register, Self::Resume, Self::Retire, Self::Suspend];

    /// The word in records and requests.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Register => "register",
            Self::Resume => "resume",
            Self::Retire => "retire",
            Self::Suspend => "suspend",
        }
    }

    /// What has been done when it is done.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Register => "registered",
            Self::Resume => "resumed",
            Self::Retire => "retired",
            Self::Suspend => "suspended",
        }
    }

    /// The action with this [`Self::label`].
    #[must_use]
    pub fn named(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.label() == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_ways_are_open() {
        let mut open = Vec::new();
        for from in State::ALL {
            for action in Action::ALL {
                if let Ok(to) = from.after(action) {
                    open.push(format!("{} {} {}", from.label(), action.label(), to.label()));
                }
            }
        }
        let expected = [
            "registered approve approved",
            "registered register registered",
            "registered retire retired",
            "registered suspend suspended",
            "approved approve approved",
            "approved retire retired",
            "approved suspend suspended",
            "suspended resume approved",
            "suspended retire retired",
            "retired register registered",
        ];
        assert_eq!(open, expected);
    }

    #[test]
    fn a_refusal_says_what_stands_in_the_way() {
        let refusal = State::Retired.after(Action::Resume).map_err(|refusal| refusal.to_string());
        assert_eq!(refusal, Err("what is retired cannot be resumed".to_owned()));
    }
}
