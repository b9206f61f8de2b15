//! Who and what is stopped? Principals, agents and tools that somebody has taken out of use at once, for a while or until
//! further notice.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{AgentIdentity, Principal};
use crate::time::UnixSeconds;

/// What is stopped. Names are compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stopped {
    /// Software that acts for somebody.
    Agent {
        /// Its name.
        name: Arc<str>,
        /// Who says so; none: whoever says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<Arc<str>>,
    },
    /// Somebody who calls.
    Principal {
        /// Their name.
        subject: Arc<str>,
        /// At this issuer; none: at any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<Arc<str>>,
    },
    /// A tool.
    Tool {
        /// Its name.
        name: Arc<str>,
        /// At this server; none: at any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<Arc<str>>,
    },
}

/// One decision to stop something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Names it: what is stopped has at most one.
    pub id: Box<str>,
    /// What is stopped.
    pub stopped: Stopped,
    /// Since when.
    pub since: UnixSeconds,
    /// Until when; none: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixSeconds>,
    /// Why, in the words of whoever did it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Box<str>,
    /// Who did it.
    pub by: Box<str>,
}

/// Every quarantine, sorted so that a request finds its own.
#[derive(Debug, Default)]
pub struct Quarantines {
    list: Vec<Quarantine>,
    /// Places in the list, by the name that must match.
    agents: HashMap<Arc<str>, Vec<usize>>,
    principals: HashMap<Arc<str>, Vec<usize>>,
    tools: HashMap<Arc<str>, Vec<usize>>,
}

impl Stopped {
    /// The key of an option, of the API, and the word in audit records.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "agent",
            Self::Principal { .. } => "principal",
            Self::Tool { .. } => "tool",
        }
    }

    /// Names what is stopped in a store or a list: the same for the same.
    #[must_use]
    pub fn id(&self) -> Box<str> {
        let digest = crate::identity::crypto::sha256(format!("{self:?}").as_bytes());
        let hex: String = digest.iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect();
        hex.into()
    }

    /// Whether its names can be names.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let (name, place) = match self {
            Self::Agent { name, issuer } => (name, issuer),
            Self::Principal { subject, issuer } => (subject, issuer),
            Self::Tool { name, server } => (name, server),
        };
        let fits = |name: &Arc<str>| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        fits(name) && place.as_ref().is_none_or(fits)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, place, word) = match self {
            Self::Agent { name, issuer } => (name, issuer, "of"),
            Self::Principal { subject, issuer } => (subject, issuer, "of"),
            Self::Tool { name, server } => (name, server, "at"),
        };
        write!(f, "{} {name}", self.label())?;
        place.as_ref().map_or(Ok(()), |place| write!(f, " {word} {place}"))
    }
}

impl Quarantine {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn is_in_force(&self, now: UnixSeconds) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Quarantines {
    /// Sorts them.
    #[must_use]
    pub fn new(list: Vec<Quarantine>) -> Self {
        let mut all = Self { list, ..Self::default() };
        for (place, quarantine) in all.list.iter().enumerate() {
            let (names, name) = match &quarantine.stopped {
                Stopped::Agent { name, .. } => (&mut all.agents, name),
                Stopped::Principal { subject, .. } => (&mut all.principals, subject),
                Stopped::Tool { name, .. } => (&mut all.tools, name),
            };
            names.entry(Arc::clone(name)).or_default().push(place);
        }
        all
    }

    /// Every one, expired ones too.
    #[must_use]
    pub fn list(&self) -> &[Quarantine] {
        &self.list
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What stops this caller at `now`: it is about the principal, or about the agent that acts.
    #[must_use]
    pub fn of_caller(
        &self,
        principal: &Principal,
        agent: Option<&AgentIdentity>,
        now: UnixSeconds,
    ) -> Option<&Quarantine> {
        let about_principal = self.named(&self.principals, &principal.subject, now, |stopped| {
            matches!(stopped, Stopped::Principal { issuer, .. } if is_or_any(issuer.as_deref(), &principal.issuer))
        });
        about_principal.or_else(|| {
            let agent = agent?;
            self.named(&self.agents, &agent.agent, now, |stopped| {
                matches!(stopped, Stopped::Agent { issuer, .. } if is_or_any(issuer.as_deref(), &agent.issuer))
            })
        })
    }

    /// What stops this tool at `now`.
    #[must_use]
    pub fn of_tool(&self, server: &str, tool: &str, now: UnixSeconds) -> Option<&Quarantine> {
        self.named(
            &self.tools,
            tool,
            now,
            |stopped| matches!(stopped, Stopped::Tool { server: at, .. } if is_or_any(at.as_deref(), server)),
        )
    }

    fn named(
        &self,
        names: &HashMap<Arc<str>, Vec<usize>>,
        name: &str,
        now: UnixSeconds,
        is_about: impl Fn(&Stopped) -> bool,
    ) -> Option<&Quarantine> {
        let places = names.get(name)?;
        let quarantines = places.iter().filter_map(|place| self.list.get(*place));
        quarantines.into_iter().find(|quarantine| quarantine.is_in_force(now) && is_about(&quarantine.stopped))
    }
}

fn is_or_any(named: Option<&str>, name: &str) -> bool {
    named.is_none_or(|named| named == name)
}

const ID_BYTES: usize = 8;

/// The longest name of anything that is stopped.
const NAME_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1000);

    fn quarantine(stopped: Stopped, until: Option<u64>) -> Quarantine {
        let until = until.map(UnixSeconds);
        Quarantine { id: stopped.id(), stopped, since: NOW, until, why: "".into(), by: "test".into() }
    }

    fn principal(issuer: &str, subject: &str) -> Principal {
        Principal { issuer: issuer.into(), subject: subject.into() }
    }

    #[test]
    fn a_principal_is_stopped_by_name_and_where_it_is_said_by_issuer() {
        let anywhere = Stopped::Principal { subject: "alice".into(), issuer: None };
        let there = Stopped::Principal { subject: "bob".into(), issuer: Some("https://a.test".into()) };
        let all = Quarantines::new(vec![quarantine(anywhere, None), quarantine(there, None)]);
        let stops = |issuer: &str, subject: &str| all.of_caller(&principal(issuer, subject), None, NOW).is_some();
        assert!(stops("https://a.test", "alice") && stops("https://b.test", "alice"));
        assert!(stops("https://a.test", "bob") && !stops("https://b.test", "bob"));
        assert!(!stops("https://a.test", "Alice"));
    }

    #[test]
    fn an_agent_is_stopped_whoever_it_acts_for() {
        let stopped = Stopped::Agent { name: "crawler".into(), issuer: None };
        let all = Quarantines::new(vec![quarantine(stopped, None)]);
        let agent = |name: &str| AgentIdentity::for_test(name, &serde_json::json!({}));
        let stops = |name: &str| all.of_caller(&principal("i", "alice"), Some(&agent(name)), NOW).is_some();
        assert!(stops("crawler") && !stops("helper"));
        assert!(all.of_caller(&principal("i", "crawler"), None, NOW).is_none());
    }

    #[test]
    fn a_tool_is_stopped_at_its_server_or_everywhere() {
        let everywhere = Stopped::Tool { name: "purge".into(), server: None };
        let there = Stopped::Tool { name: "send".into(), server: Some("mail".into()) };
        let all = Quarantines::new(vec![quarantine(everywhere, None), quarantine(there, None)]);
        assert!(all.of_tool("mail", "purge", NOW).is_some() && all.of_tool("crm", "purge", NOW).is_some());
        assert!(all.of_tool("mail", "send", NOW).is_some() && all.of_tool("crm", "send", NOW).is_none());
    }

    #[test]
    fn one_that_has_expired_stops_nobody() {
        let stopped = Stopped::Tool { name: "purge".into(), server: None };
        let all = Quarantines::new(vec![quarantine(stopped, Some(1010))]);
        assert!(all.of_tool("crm", "purge", UnixSeconds(1009)).is_some());
        assert!(all.of_tool("crm", "purge", UnixSeconds(1010)).is_none());
    }

    #[test]
    fn the_same_has_the_same_id_and_another_has_another() {
        let tool = |server: Option<&str>| Stopped::Tool { name: "purge".into(), server: server.map(Into::into) };
        assert_eq!(tool(None).id(), tool(None).id());
        assert_ne!(tool(None).id(), tool(Some("crm")).id());
        assert_ne!(tool(None).id(), Stopped::Agent { name: "purge".into(), issuer: None }.id());
    }
}
