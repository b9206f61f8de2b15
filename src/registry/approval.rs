//! Who has approved, and is that enough?

use serde::{Deserialize, Serialize};

use crate::time::UnixSeconds;

use super::definition::Digest;

/// Who did something: a person that has signed in, or the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// `iss` of the token; empty for the gateway itself.
    pub issuer: Box<str>,
    /// `sub`; `gateway` for the gateway itself.
    pub subject: Box<str>,
    /// What to call them; data of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// The groups of the claim that approvals go by. Not kept: they are those of the moment.
    #[serde(skip)]
    pub groups: Vec<Box<str>>,
}

/// Somebody's approval of what they have looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub actor: Actor,
    /// Of what.
    pub digest: Digest,
    /// When.
    pub at: UnixSeconds,
    /// Why, in their words.
    pub reason: Box<str>,
}

/// Whose approvals are asked for, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// Groups whose members may approve. Empty: nobody.
    pub groups: Vec<Box<str>>,
    /// How many different people must; at least 1.
    pub required: usize,
}

/// Why somebody's approval does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnApprover {
    /// They have approved this very thing before: two people are needed, not one twice.
    #[error("you have approved this already; somebody else must, too")]
    Again,
    /// They belong to none of the groups.
    #[error("you belong to no group whose members may approve")]
    NoMember,
    /// They have registered the server.
    #[error("you have registered this server; somebody else must approve")]
    OwnWork,
}

impl Actor {
    /// The gateway itself.
    #[must_use]
    pub fn gateway() -> Self {
        Self { issuer: "".into(), subject: "gateway".into(), name: None, groups: Vec::new() }
    }

    /// Whether both are one person: the pair (issuer, subject), whatever they are called.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}

impl ApprovalRule {
    /// Whether `actor` may approve `digest`, which `given` have approved before, on a server that `registrant` has entered.
    ///
    /// # Errors
    /// [`NotAnApprover`].
    pub fn check(
        &self,
        actor: &Actor,
        digest: Digest,
        given: &[Approval],
        registrant: Option<&Actor>,
    ) -> Result<(), NotAnApprover> {
        if !actor.groups.iter().any(|group| self.groups.contains(group)) {
            return Err(NotAnApprover::NoMember);
        }
        if self.required > 1 && registrant.is_some_and(|registrant| registrant.is_same(actor)) {
            return Err(NotAnApprover::OwnWork);
        }
        if given.iter().any(|approval| approval.digest == digest && approval.actor.is_same(actor)) {
            return Err(NotAnApprover::Again);
        }
        Ok(())
    }

    /// How many more people must approve `digest`. Approvals of anything else do not count.
    #[must_use]
    pub fn missing(&self, digest: Digest, given: &[Approval]) -> usize {
        let mut people: Vec<&Actor> = Vec::new();
        for approval in given.iter().filter(|approval| approval.digest == digest) {
            if !people.iter().any(|known| known.is_same(&approval.actor)) {
                people.push(&approval.actor);
            }
        }
        self.required.max(1).saturating_sub(people.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_approve_who_belongs_to_no_group() {
        let rule = rule(1);
        assert_eq!(rule.check(&person("ann", &["staff"]), digest(1), &[], None), Err(NotAnApprover::NoMember));
        assert_eq!(rule.check(&person("ann", &[]), digest(1), &[], None), Err(NotAnApprover::NoMember));
        assert_eq!(rule.check(&person("ann", &["staff", "security"]), digest(1), &[], None), Ok(()));
        let nobody = ApprovalRule { groups: Vec::new(), required: 1 };
        assert_eq!(nobody.check(&person("ann", &["security"]), digest(1), &[], None), Err(NotAnApprover::NoMember));
    }

    #[test]
    fn two_approvals_are_those_of_two_people() {
        let rule = rule(2);
        let given = [approval("ann", 1)];
        assert_eq!(rule.check(&person("ann", &["security"]), digest(1), &given, None), Err(NotAnApprover::Again));
        assert_eq!(rule.check(&person("bob", &["security"]), digest(1), &given, None), Ok(()));
        assert_eq!(rule.missing(digest(1), &given), 1);
        assert_eq!(rule.missing(digest(1), &[approval("ann", 1), approval("ann", 1)]), 1);
        assert_eq!(rule.missing(digest(1), &[approval("ann", 1), approval("bob", 1)]), 0);
        // The same name at another issuer is somebody else.
        let mut other = approval("ann", 1);
        other.actor.issuer = "https://other.test".into();
        assert_eq!(rule.missing(digest(1), &[approval("ann", 1), other]), 0);
    }

    #[test]
    fn an_approval_is_for_what_was_looked_at() {
        let rule = rule(2);
        let given = [approval("ann", 1), approval("bob", 2)];
        assert_eq!(rule.missing(digest(1), &given), 1);
        assert_eq!(rule.missing(digest(2), &given), 1);
        assert_eq!(rule.missing(digest(3), &given), 2);
    }

    #[test]
    fn nobody_approves_their_own_work_where_two_are_needed() {
        let ann = person("ann", &["security"]);
        assert_eq!(rule(2).check(&ann, digest(1), &[], Some(&ann)), Err(NotAnApprover::OwnWork));
        assert_eq!(rule(1).check(&ann, digest(1), &[], Some(&ann)), Ok(()));
        assert_eq!(rule(2).check(&ann, digest(1), &[], Some(&Actor::gateway())), Ok(()));
    }

    fn rule(required: usize) -> ApprovalRule {
        ApprovalRule { groups: vec!["security".into(), "platform".into()], required }
    }

    fn person(subject: &str, groups: &[&str]) -> Actor {
        Actor {
            issuer: "https://idp.test".into(),
            subject: subject.into(),
            name: None,
            groups: groups.iter().map(|group| Box::from(*group)).collect(),
        }
    }

    fn approval(subject: &str, of: u8) -> Approval {
        Approval { actor: person(subject, &[]), digest: digest(of), at: UnixSeconds(1), reason: "ok".into() }
    }

    fn digest(of: u8) -> Digest {
        Digest::of(&[of])
    }
}
