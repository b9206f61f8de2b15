#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use serde_json::json;

use super::*;
use crate::policy::tests::{bare, call, caller, facts, read};

fn budget(by: &[Axis]) -> Budget {
    Budget {
        name: "b".into(),
        by: by.to_vec(),
        routes: Vec::new(),
        servers: Vec::new(),
        tools: Vec::new(),
        methods: vec![Method::ToolsCall, Method::ResourcesRead],
        when: None,
        limits: vec![Limit { kind: LimitKind::Calls, meter: Meter::Quota { most: 5, window: 1_000_000 } }],
    }
}

fn somebody(subject: &str, client: &str) -> Caller {
    caller(&[], json!({ "sub": subject })).named_for_test(subject, client)
}

/// The keys that a call of `tool` draws on.
fn keys(budget: &Budget, caller: &Caller, server: &str, tool: &str) -> Vec<CellKey> {
    let messages = [call(tool, json!({}))];
    let facts = facts();
    let asked = Asked { caller, server, messages: &messages, facts: &facts };
    charges(&[Arc::new(budget.clone())], &asked).into_iter().map(|charge| charge.key).collect()
}

#[test]
fn an_axis_keeps_apart_what_it_names_and_nothing_else() {
    let (alice, bob) = (somebody("alice", "ide"), somebody("bob", "ide"));
    let alices_other = somebody("alice", "cli");
    let table: [(&[Axis], [bool; 4]); 6] = [
        //                            caller  client  server  tool
        (&[], [false, false, false, false]),
        (&[Axis::Principal], [true, false, false, false]),
        (&[Axis::Client], [false, true, false, false]),
        (&[Axis::Server], [false, false, true, false]),
        (&[Axis::Tool], [false, false, true, true]),
        (&[Axis::Principal, Axis::Tool], [true, false, true, true]),
    ];
    for (by, apart) in table {
        let budget = budget(by);
        let usual = keys(&budget, &alice, "crm", "read");
        let others = [
            keys(&budget, &bob, "crm", "read"),
            keys(&budget, &alices_other, "crm", "read"),
            keys(&budget, &alice, "files", "read"),
            keys(&budget, &alice, "crm", "write"),
        ];
        assert_eq!(others.map(|keys| keys != usual), apart, "{by:?}");
    }
}

/// Names that could be read as two lists of parts are two keys all the same.
#[test]
fn parts_of_a_key_do_not_run_into_each_other() {
    let budget = budget(&[Axis::Tool]);
    let alice = somebody("alice", "");
    assert_ne!(keys(&budget, &alice, "ab", "c"), keys(&budget, &alice, "a", "bc"));
}

#[test]
fn only_named_tools_are_counted_and_only_their_calls() {
    let tools = vec![NamePattern::Prefix("search".into()), NamePattern::Exact("read".into())];
    let budget = Arc::new(Budget { tools, ..budget(&[]) });
    let (alice, facts) = (somebody("alice", ""), facts());
    for (message, counted) in [
        (call("search_web", json!({})), 1),
        (call("read", json!({})), 1),
        (call("reader", json!({})), 0),
        (read("file:///read"), 0),
        (bare(Method::ToolsList), 0),
    ] {
        let messages = [message];
        let asked = Asked { caller: &alice, server: "crm", messages: &messages, facts: &facts };
        assert_eq!(charges(&[Arc::clone(&budget)], &asked).len(), counted, "{messages:?}");
    }
}

#[test]
fn several_messages_of_one_request_add_up() {
    let budget = Arc::new(budget(&[Axis::Tool]));
    let (alice, facts) = (somebody("alice", ""), facts());
    let messages = [call("a", json!({})), call("b", json!({})), call("a", json!({})), bare(Method::Ping)];
    let asked = Asked { caller: &alice, server: "crm", messages: &messages, facts: &facts };
    let costs: Vec<u64> = charges(&[budget], &asked).iter().map(|charge| charge.cost).collect();
    assert_eq!(costs, [2, 1]);
}

#[test]
fn a_loop_is_the_same_tool_with_the_same_bytes() {
    let limits = vec![Limit { kind: LimitKind::Repeat, meter: Meter::Quota { most: 5, window: 1_000_000 } }];
    let budget = Arc::new(Budget { limits, ..budget(&[Axis::Principal]) });
    let (alice, facts) = (somebody("alice", ""), facts());
    let key = |message: Message| {
        let messages = [message];
        let asked = Asked { caller: &alice, server: "crm", messages: &messages, facts: &facts };
        charges(&[Arc::clone(&budget)], &asked)[0].key
    };
    let usual = key(call("search", json!({ "q": "a" })));
    assert_eq!(key(call("search", json!({ "q": "a" }))), usual);
    assert_ne!(key(call("search", json!({ "q": "b" }))), usual);
    assert_ne!(key(call("find", json!({ "q": "a" }))), usual);
}

/// Invariant 7, for budgets: a condition that errs does not get anybody out of one.
#[test]
fn a_condition_decides_and_one_without_an_answer_counts() {
    let (alice, facts) = (somebody("alice", ""), facts());
    for (when, counted) in [
        ("args.n > 3", 1),
        ("args.n > 5", 0),
        ("args.missing > 5", 1),
        (r#"principal.subject == "alice""#, 1),
        (r#"!(principal.subject == "alice")"#, 0),
    ] {
        let when = Some(Arc::new(When::compile(when).unwrap()));
        let budget = Arc::new(Budget { when, ..budget(&[]) });
        let messages = [call("read", json!({ "n": 4 }))];
        let asked = Asked { caller: &alice, server: "crm", messages: &messages, facts: &facts };
        assert_eq!(charges(&[Arc::clone(&budget)], &asked).len(), counted, "{:?}", budget.when);
    }
}

#[test]
fn a_stream_draws_on_bytes_alone() {
    let all = LimitKind::ALL.map(|kind| Limit { kind, meter: Meter::Quota { most: 5, window: 1_000_000 } });
    let budget = Arc::new(Budget { limits: all.to_vec(), ..budget(&[]) });
    let (alice, facts) = (somebody("alice", ""), facts());
    let asked = Asked { caller: &alice, server: "crm", messages: &[], facts: &facts };
    let kinds: Vec<LimitKind> = charges(&[budget], &asked).iter().map(|charge| charge.limit.kind).collect();
    assert_eq!(kinds, [LimitKind::Bytes]);
}

#[test]
fn a_budget_names_its_routes_and_servers_or_is_for_all() {
    let named = Budget { routes: vec!["/a".into()], servers: vec!["crm".into()], ..budget(&[]) };
    assert!(budget(&[]).is_for("/x", "y"));
    assert!(named.is_for("/a", "crm"));
    assert!(!named.is_for("/b", "crm") && !named.is_for("/a", "files"));
}
