//! Is this scope within that one?

use super::ScopeSubset;
use crate::identity::Scopes;

/// Whether everything in `narrow` is within something of `wide`.
pub(super) fn is_within(narrow: &Scopes, wide: &Scopes, mode: ScopeSubset) -> bool {
    narrow.iter().all(|scope| covers(wide, scope, mode))
}

/// Whether `scope` is within one of `wide`.
pub(super) fn covers(wide: &Scopes, scope: &str, mode: ScopeSubset) -> bool {
    match mode {
        ScopeSubset::Exact => wide.contains(scope),
        ScopeSubset::Hierarchical => {
            let colons = scope.match_indices(':').map(|(at, _)| at);
            wide.contains(scope) || colons.into_iter().any(|at| scope.get(..at).is_some_and(|it| wide.contains(it)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_within_itself_and_in_hierarchical_mode_within_what_it_begins_with() {
        use ScopeSubset::{Exact, Hierarchical};
        for (narrow, wide, exact, hierarchical) in [
            ("email", "email calendar", true, true),
            ("calendar:view", "email calendar", false, true),
            ("calendar:view:own", "calendar", false, true),
            ("calendar:view:own", "calendar:view", false, true),
            ("calendars", "calendar", false, false),
            ("calendar", "calendar:view", false, false),
            ("calendar.view", "calendar", false, false),
            (":view", "", false, false),
            ("", "", true, true),
            ("email files", "email", false, false),
            ("Email", "email", false, false),
        ] {
            let scopes = |text: &str| Scopes::new(text.split(' '));
            assert_eq!(is_within(&scopes(narrow), &scopes(wide), Exact), exact, "{narrow} in {wide}");
            assert_eq!(is_within(&scopes(narrow), &scopes(wide), Hierarchical), hierarchical, "{narrow} in {wide}");
        }
    }
}
