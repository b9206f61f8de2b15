//! What lists show.

use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::policy::rule::RuleSpec;
use crate::policy::{Facts, Item, is_visible};

const TOOL: Item<'static> = Item::Tool("echo");

fn shown(rules: &[RuleSpec]) -> bool {
    sees(&policy(rules), &caller(&["a"], json!({"groups": ["g"]})), TOOL)
}

#[test]
fn a_tool_is_hidden_only_when_every_call_would_be_denied() {
    for (rules, expected) in [
        (vec![], false),
        (vec![allow()], true),
        (vec![allow().tool("other")], false),
        (vec![allow().scopes(&["a"])], true),
        (vec![allow().scopes(&["b"])], false),
        (vec![allow().claim("x", "y")], false),
        (vec![deny(), allow()], false),
        (vec![deny().scopes(&["b"]), allow()], true),
        (vec![allow(), deny()], true),
        // What needs arguments neither hides nor shows by erring.
        (vec![allow().when("args.n == 1")], true),
        (vec![deny().when("args.n == 1"), allow()], true),
        (vec![deny().when("args.n == 1")], false),
        (vec![allow().tool_when("echo", "args.n == 1")], true),
        // What does not, is known already.
        (vec![allow().when("'g' in claims.groups")], true),
        (vec![allow().when("'h' in claims.groups")], false),
        (vec![deny().when("'g' in claims.groups"), allow()], false),
        (vec![allow().when("claims.missing == 1")], false),
        (vec![deny().when("claims.missing == 1"), allow()], false),
        // A part that is known can decide the whole, on either side.
        (vec![allow().when("'h' in claims.groups && args.n == 1")], false),
        (vec![allow().when("args.n == 1 && 'h' in claims.groups")], false),
        (vec![deny().when("args.n == 1 || 'g' in claims.groups"), allow()], false),
        (vec![deny().when("args.n == 1 || 'h' in claims.groups"), allow()], true),
        (vec![allow().when("args.n == 1 || claims.missing == 1")], true),
        (vec![allow().when("args.n == 1 && claims.missing == 1")], true),
        (vec![allow().when("claims.missing == 1 && 'h' in claims.groups || args.n == 1")], true),
        (vec![allow().when("claims.groups.all(g, g == args.group)")], true),
        (vec![allow().when("[].exists(g, g == args.group)")], false),
        (vec![allow().when("has(args.n) ? true : false")], true),
        (vec![allow().when("args == {}")], true),
        (vec![deny().when("!has(args.n)"), allow()], true),
        // All that a call carries is unknown.
        (vec![allow().when("has(meta.x)")], true),
        (vec![allow().when("request.mcp.params.arguments.n == 1")], true),
        (vec![allow().when("request.bytes > 1000")], true),
        (vec![allow().when("request.headers['mcp-name'] == 'echo'")], true),
        (vec![allow().when("'mcp-name' in request.headers && has(args.x)")], true),
        (vec![allow().when("'mcp-param-region' in request.headers")], true),
        (vec![allow().when("size(request.headers) == 7")], true),
        // The rest is that of the list, and the method that of the call.
        (vec![allow().when("request.method == 'POST' && tool.name == 'echo' && method == 'tools/call'")], true),
        (vec![allow().when("method == 'tools/list'")], false),
        (vec![allow().when("request.headers['x-team'] == 'blue'")], false),
        (vec![allow().method("tools/call")], true),
        (vec![deny().method("tools/*"), allow()], false),
        (vec![deny().method("tools/list"), allow()], true),
    ] {
        assert_eq!(shown(&rules), expected, "{rules:?}");
    }
    assert!(sees(&open_policy(&[]), &caller(&[], json!({})), TOOL));
}

#[test]
fn a_condition_too_expensive_without_arguments_may_hold_with_them() {
    let groups: Vec<u32> = (0..3000).collect();
    let caller = caller(&[], json!({ "groups": groups }));
    let expensive = "claims.groups.all(x, claims.groups.all(y, x + y >= 0))";
    assert!(sees(&policy(&[allow().when(&format!("args.ok || {expensive}"))]), &caller, TOOL));
}

#[test]
fn headers_of_the_list_count_for_the_calls() {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_static("blue"));
    let facts = Facts { headers: &headers, ..facts() };
    let policy = policy(&[allow().when("request.headers['x-team'] == 'blue'")]);
    assert!(is_visible(&policy, &caller(&[], json!({})), "crm", TOOL, &facts));
}

#[test]
fn prompts_and_resources_are_shown_for_any_use_of_them() {
    let policy = policy(&[
        allow().prompt("greet"),
        allow().resource("file:///public/*"),
        allow().resource("file:///watched").when("method == 'resources/subscribe'"),
        deny().method("prompts/get"),
    ]);
    let nobody = caller(&[], json!({}));
    for (item, expected) in [
        (Item::Prompt("greet"), true),
        (Item::Prompt("other"), false),
        (Item::Resource("file:///public/a"), true),
        (Item::Resource("file:///public/../a"), false),
        (Item::Resource("file:///private"), false),
        (Item::Resource("file:///watched"), true),
        (Item::Tool("greet"), false),
    ] {
        assert_eq!(sees(&policy, &nobody, item), expected, "{item:?}");
    }
    assert!(!is_visible(&policy, &nobody, "elsewhere", Item::Prompt("greet"), &facts()));
}

#[test]
fn a_template_is_shown_when_something_it_expands_to_could_be_read() {
    let nobody = caller(&[], json!({}));
    for (rules, template, expected) in [
        (vec![allow().resource("file:///public/*")], "file:///public/{name}", true),
        (vec![allow().resource("file:///public/*")], "file:///{+path}", true),
        (vec![allow().resource("file:///public/*")], "file:///private/{name}", false),
        (vec![allow().resource("file:///public/readme")], "file:///public/{name}", true),
        (vec![allow().resource("*")], "{+uri}", true),
        (vec![allow()], "{+uri}", true),
        (vec![], "{+uri}", false),
        (vec![allow().scopes(&["x"])], "{+uri}", false),
        (vec![deny().resource("file:///public/*"), allow()], "file:///public/{name}", false),
        (vec![deny().resource("file:///public/secret*"), allow()], "file:///public/{name}", true),
        (vec![deny().resource("file:///*").when("args.x == 1"), allow()], "file:///{name}", true),
        (vec![deny().method("resources/*"), allow().resource("file:///*")], "file:///{name}", true),
        (vec![deny().method("*"), allow().resource("file:///*")], "file:///{name}", false),
        (vec![allow().resource("file:///{name}")], "file:///{name}", true),
    ] {
        assert_eq!(sees(&policy(&rules), &nobody, Item::ResourceTemplate(template)), expected, "{rules:?} {template}");
    }
}
