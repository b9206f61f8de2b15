//! What holds for every chain.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::identity::agent::scope;

const SCOPES: [&str; 8] = ["mail", "mail:read", "mail:read:own", "mail:send", "files", "files:read", "mailx", "admin"];

fn scopes() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(SCOPES.to_vec()), 0..4)
}

/// Steps from `p0` to `p1` to … with these scopes, each a second after the one before.
fn chain(scopes: &[Vec<&str>]) -> Value {
    let steps = scopes
        .iter()
        .enumerate()
        .map(|(nth, scopes)| step(&format!("p{nth}"), &format!("p{}", nth + 1), &scopes.join(" "), 100 - nth as u64));
    steps.collect::<Vec<Value>>().into()
}

fn verified(mode: ScopeSubset, steps: &[Vec<&str>]) -> Option<AgentIdentity> {
    let world = World::new().with(|rules| {
        rules.max_chain = 16;
        rules.scope_subset = mode;
    });
    let claims = agent(&json!({
        "sub": format!("p{}", steps.len()), "delegator_sub": "p0", "delegation_chain": chain(steps),
    }));
    world.verify(&claims).ok().map(|verified| verified.identity)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A step that is added to a chain never widens what it hands over: what the longer chain covers, the shorter one did.
    #[test]
    fn adding_a_step_never_widens_the_scope(
        steps in vec(scopes(), 1..4),
        added in scopes(),
        hierarchical in any::<bool>(),
    ) {
        let mode = if hierarchical { ScopeSubset::Hierarchical } else { ScopeSubset::Exact };
        let longer: Vec<Vec<&str>> = steps.iter().cloned().chain([added]).collect();
        if let Some(after) = verified(mode, &longer) {
            // Whatever holds with the step holds without it.
            let before = verified(mode, &steps);
            prop_assert!(before.is_some());
            let (before, after) = (before.and_then(|it| it.scopes).unwrap(), after.scopes.unwrap());
            for scope in SCOPES {
                prop_assert!(!scope::covers(&after, scope, mode) || scope::covers(&before, scope, mode), "{}", scope);
            }
        }
    }

    /// What a longer chain of constraints reaches, the shorter one did.
    #[test]
    fn adding_a_step_never_widens_the_reach(
        lists in vec(vec(select(vec!["mail", "mail/send", "mail/*", "files", "crm://*", MCP]), 0..3), 2..5),
    ) {
        let reach = |lists: &[Vec<&str>]| {
            let mut steps = chain(&vec![vec!["mail"]; lists.len()]);
            for (nth, list) in lists.iter().enumerate() {
                steps[nth]["constraints"] = json!({ "allowed_resources": list });
            }
            let sub = format!("p{}", lists.len());
            World::new().verify(&agent(&json!({ "sub": sub, "delegator_sub": "p0", "delegation_chain": steps }))).unwrap()
        };
        let (before, after) = (reach(&lists[..lists.len() - 1]).identity, reach(&lists).identity);
        for (server, name) in [("mail", "send"), ("mail", "read"), ("files", "get"), ("crm", "crm://a"), ("x", "y")] {
            prop_assert!(!after.reaches(server, Some(name)) || before.reaches(server, Some(name)));
        }
    }
}
