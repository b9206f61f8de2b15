//! Rules about the software that acts.

use serde_json::json;

use super::kit::*;
use crate::identity::AgentIdentity;
use crate::mcp::Method;
use crate::policy::rule::{AgentSpec, RuleSpec};
use crate::policy::{
    Decision, DenialReason, Facts, Item, Policy, Question, decide, depends_only_on_caller, is_visible,
};

fn drafter() -> AgentIdentity {
    let claims = json!({
        "agent_type": "assistant", "agent_provider": "agents.test", "agent_model": "m-1", "agent_trust_level": "verified",
        "agent_instance_id": "i-7", "agent_capabilities": ["email:draft", "calendar:view"], "delegator_sub": "alice",
    });
    AgentIdentity::for_test("drafter", &claims)
}

fn limited_to(resources: &[&str]) -> AgentIdentity {
    let claims = json!({ "delegator_sub": "alice", "delegation_constraints": { "allowed_resources": resources } });
    AgentIdentity::for_test("drafter", &claims)
}

fn about(agent: AgentSpec) -> RuleSpec {
    RuleSpec { agent: Some(agent), ..allow() }
}

fn verdict_for(policy: &Policy, agent: Option<&AgentIdentity>, tool: &str) -> String {
    let (caller, message) = (caller(&[], json!({})), call(tool, json!({})));
    let facts = Facts { agent, ..facts() };
    verdict(&decide(policy, &Question { caller: &caller, server: "crm", message: &message, facts: &facts }))
}

#[test]
fn a_rule_about_agents_holds_when_all_of_it_does() {
    let drafter = drafter();
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<Box<str>>>();
    let none = AgentSpec::default;
    for (spec, holds) in [
        (none(), true),
        (AgentSpec { types: names(&["coding", "assistant"]), ..none() }, true),
        (AgentSpec { types: names(&["Assistant"]), ..none() }, false),
        (AgentSpec { providers: names(&["agents.test"]), ..none() }, true),
        (AgentSpec { providers: names(&["test"]), ..none() }, false),
        (AgentSpec { models: names(&["m-1"]), trust_levels: names(&["verified"]), ..none() }, true),
        (AgentSpec { models: names(&["m-1"]), trust_levels: names(&["experimental"]), ..none() }, false),
        (AgentSpec { instances: names(&["i-7"]), ..none() }, true),
        (AgentSpec { instances: names(&["i-8"]), ..none() }, false),
        (AgentSpec { capabilities: names(&["email:draft"]), ..none() }, true),
        (AgentSpec { capabilities: names(&["calendar:view", "email:draft"]), ..none() }, true),
        (AgentSpec { capabilities: names(&["email:draft", "email:send"]), ..none() }, false),
    ] {
        let policy = policy(&[about(spec.clone()).tool("send")]);
        let expected = if holds { "permit by allow" } else { "deny" };
        assert_eq!(verdict_for(&policy, Some(&drafter), "send"), expected, "{spec:?}");
        assert_eq!(verdict_for(&policy, None, "send"), "deny", "without an agent nothing holds of one: {spec:?}");
    }
}

#[test]
fn conditions_read_the_agent() {
    let drafter = drafter();
    for (when, with, without) in [
        ("agent == null", "deny", "permit by allow"),
        (r#"agent.agent == "drafter" && agent.type == "assistant""#, "permit by allow", "deny"),
        (r#""email:draft" in agent.capabilities"#, "permit by allow", "deny"),
        ("agent != null && agent.depth <= 1 && agent.chain.size() == 0", "permit by allow", "deny"),
        (r#"agent.attestation == "verified""#, "deny", "deny"),
        (r#"agent.version == null && agent.delegator == "alice""#, "permit by allow", "deny"),
        ("agent.no_such_thing == 1", "deny", "deny"),
    ] {
        let policy = policy(&[allow().tool("send").when(when)]);
        assert_eq!(verdict_for(&policy, Some(&drafter), "send"), with, "{when}");
        assert_eq!(verdict_for(&policy, None, "send"), without, "{when}");
    }
}

#[test]
fn a_delegation_reaches_no_further_than_it_says_whatever_the_rules_allow() {
    let open = open_policy(&[]);
    let agent = limited_to(&["crm/read*", "crm://open/*"]);
    assert_eq!(verdict_for(&open, Some(&agent), "read_all"), "permit");
    assert_eq!(verdict_for(&open, Some(&agent), "write"), "deny");
    let facts = Facts { agent: Some(&agent), ..facts() };
    let caller = caller(&[], json!({}));
    let ask = |message| decide(&open, &Question { caller: &caller, server: "crm", message: &message, facts: &facts });
    let Decision::Deny(denial) = ask(call("write", json!({}))) else { panic!("it was permitted") };
    assert_eq!((denial.reason, denial.challenge), (DenialReason::DelegationRefused, None));
    for (message, expected) in [
        (read("crm://open/1"), "permit"),
        (read("crm://closed/1"), "deny"),
        (bare(Method::ToolsList), "permit"),
        (bare(Method::Initialize), "permit"),
        (bare(Method::TasksList), "deny"),
    ] {
        assert_eq!(verdict(&ask(message.clone())), expected, "{message:?}");
    }
    for (item, shown) in [
        (Item::Tool("read_all"), true),
        (Item::Tool("write"), false),
        (Item::Resource("crm://open/1"), true),
        (Item::Resource("crm://closed/1"), false),
        (Item::ResourceTemplate("crm://open/{id}"), true),
        (Item::ResourceTemplate("crm://{state}/{id}"), true),
        (Item::ResourceTemplate("crm://closed/{id}"), false),
    ] {
        assert_eq!(is_visible(&open, &caller, "crm", item, &facts), shown, "{item:?}");
    }
}

#[test]
fn what_a_server_has_proved_is_data_and_may_change_between_calls() {
    let policy = policy(&[allow().tool("send").when(r#"tool.server_identity.trust_level == "certified""#)]);
    assert_eq!(verdict_for(&policy, None, "send"), "deny", "nothing is proved");
    assert!(!depends_only_on_caller(&policy, "crm", &call("send", json!({}))));
    let proved = self::policy(&[allow().tool("send").when("tool.server_identity == null && tool.server == \"crm\"")]);
    assert_eq!(verdict_for(&proved, None, "send"), "permit by allow");
}
