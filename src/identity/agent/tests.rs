//! Agents of every kind, honest and not.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is surprised should fail loudly")]

mod attestations;
mod laws;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::embedded::Form;
use super::token::AgentIssuer;
use super::trust::Attester;
use super::trust::Trusted;
use super::*;
use crate::identity::Algorithm;
use crate::identity::AuthnError;
use crate::identity::Caller;
use crate::identity::IssuerPolicy;
use crate::identity::KeySet;
use crate::identity::TokenTypes;
use crate::identity::jwt;
use crate::identity::testkit::TestKey;

const NOW: UnixSeconds = UnixSeconds(1_785_144_600);
const CORP: &str = "https://idp.test";
const FLEET: &str = "https://fleet.test";
const STRANGER: &str = "https://stranger.test";
const MCP: &str = "https://mcp.test/mcp";

/// Who signs what, and what is asked.
struct World {
    corp: TestKey,
    fleet: TestKey,
    corp_keys: KeySet,
    fleet_keys: KeySet,
    rules: AgentRules,
    delegators: Vec<Arc<str>>,
    chain: ChainClaim,
}

fn policy(issuer: &str) -> IssuerPolicy {
    IssuerPolicy {
        name: issuer.trim_start_matches("https://").into(),
        issuer: issuer.into(),
        audiences: vec![],
        algorithms: vec![Algorithm::ES256],
        clock_leeway: Duration::from_secs(30),
        scope_claims: vec!["scope".into()],
        token_types: TokenTypes::WithIdTokens,
    }
}

fn keys(key: &TestKey) -> KeySet {
    KeySet::parse(&TestKey::jwks([key])).unwrap()
}

impl World {
    fn new() -> Self {
        let (corp, fleet) = (TestKey::new("corp", Algorithm::ES256), TestKey::new("fleet", Algorithm::ES256));
        Self {
            corp_keys: keys(&corp),
            fleet_keys: keys(&fleet),
            corp,
            fleet,
            rules: AgentRules::default(),
            delegators: vec![CORP.into()],
            chain: ChainClaim::OidcA,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut AgentRules)) -> Self {
        change(&mut self.rules);
        self
    }

    fn verify(&self, claims: &Value) -> Result<VerifiedAgent, AgentError> {
        self.verify_trusting(claims, &[], NOW)
    }

    fn verify_trusting(
        &self,
        claims: &Value,
        attesters: &[Attester<'_>],
        now: UnixSeconds,
    ) -> Result<VerifiedAgent, AgentError> {
        let (corp, fleet) = (policy(CORP), policy(FLEET));
        let chain_issuers =
            [Trusted { policy: &corp, keys: &self.corp_keys }, Trusted { policy: &fleet, keys: &self.fleet_keys }];
        let trust = Trust { rules: &self.rules, chain_issuers: &chain_issuers, attesters };
        let token = self.fleet.sign(claims);
        let unverified = jwt::peek(&token).map_err(AgentError::Token)?;
        let issuer =
            AgentIssuer { policy: &fleet, keys: &self.fleet_keys, delegators: &self.delegators, chain: self.chain };
        token::verify(unverified, issuer, &trust, MCP, now)
    }

    /// What the access token of a person says of an agent.
    fn read(&self, claims: &Value, forms: &[Form]) -> Result<Option<AgentIdentity>, AgentError> {
        let corp = policy(CORP);
        let mut whole = json!({ "iss": CORP, "sub": "alice", "aud": MCP, "exp": NOW.0 + 600, "iat": NOW.0 - 60 });
        merge(&mut whole, claims);
        let caller = jwt::verify(&self.corp.sign(&whole), &corp, &self.corp_keys, MCP, NOW).unwrap();
        let chain_issuers = [Trusted { policy: &corp, keys: &self.corp_keys }];
        let trust = Trust { rules: &self.rules, chain_issuers: &chain_issuers, attesters: &[] };
        let read = embedded::read(&caller, forms, self.chain, &trust, MCP, NOW)?;
        Ok(read.map(|read| read.identity))
    }
}

fn merge(whole: &mut Value, more: &Value) {
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            whole.as_object_mut().unwrap().remove(name);
        } else {
            whole[name] = value.clone();
        }
    }
}

/// The agent `drafter`, to which alice has delegated; `more` changes claims, null takes one away.
fn agent(more: &Value) -> Value {
    let mut claims = json!({
        "iss": FLEET, "sub": "drafter", "aud": MCP, "exp": NOW.0 + 600, "iat": NOW.0 - 60,
        "agent_type": "assistant", "agent_model": "m-1", "agent_version": "2026-07", "agent_provider": "agents.test",
        "agent_instance_id": "drafter-7", "agent_capabilities": ["email:draft", "calendar:view"],
        "agent_trust_level": "verified", "agent_context_id": "conversation-9",
        "delegator_sub": "alice", "delegation_purpose": "answer mail",
    });
    merge(&mut claims, more);
    claims
}

/// A step of a chain, `ago` seconds before now.
fn step(delegator: &str, delegatee: &str, scope: &str, ago: u64) -> Value {
    json!({ "iss": CORP, "sub": delegator, "aud": delegatee, "delegated_at": NOW.0 - ago, "scope": scope })
}

fn step_with(more: Value) -> Value {
    let mut step = step("alice", "drafter", "email", 60);
    merge(&mut step, &more);
    step
}

fn principal(issuer: &str, subject: &str) -> Principal {
    Principal { issuer: issuer.into(), subject: subject.into() }
}

fn delegation(error: DelegationError) -> AgentError {
    AgentError::Delegation(error)
}

#[test]
fn an_agents_token_becomes_one_identity() {
    let verified = World::new().verify(&agent(&json!({ "delegation_chain": [step("alice", "drafter", "email", 60)] })));
    let VerifiedAgent { identity, valid_until, expires_at, .. } = verified.unwrap();
    assert_eq!((valid_until, expires_at), (UnixSeconds(NOW.0 + 630), UnixSeconds(NOW.0 + 600)));
    let expected = json!({
        "agent": "drafter", "issuer": FLEET, "instance": "drafter-7", "type": "assistant", "provider": "agents.test",
        "model": "m-1", "version": "2026-07", "capabilities": ["calendar:view", "email:draft"],
        "trust_level": "verified", "delegator": "alice", "depth": 1, "scopes": ["email"], "constraints": {}, "purpose": "answer mail",
        "chain": [{
            "issuer": CORP, "delegator": "alice", "delegatee": "drafter", "delegated_at": NOW.0 - 60,
            "scopes": ["email"], "purpose": null, "constraints": {}, "id": null,
        }],
        "context": "conversation-9", "attestation": "unverified", "assurance": "issuer-asserted",
        "source": "agent_token",
    });
    assert_eq!(Value::Object(identity.fields().clone()), expected);
}

#[test]
fn a_token_that_is_not_an_agents_is_refused() {
    for missing in claims::REQUIRED {
        let refused = World::new().verify(&agent(&json!({ missing: null }))).unwrap_err();
        assert_eq!(refused, AgentError::NotAnAgent, "{missing}");
    }
}

/// As strictly as a person's token: one line for each check that [`jwt`] makes.
#[test]
fn a_token_that_is_not_believed_is_refused() {
    for (claims, error) in [
        (json!({ "exp": NOW.0 - 31 }), AuthnError::Expired),
        (json!({ "exp": null }), AuthnError::MissingClaim),
        (json!({ "iat": NOW.0 + 31 }), AuthnError::NotYetValid),
        (json!({ "nbf": NOW.0 + 31 }), AuthnError::NotYetValid),
        (json!({ "aud": "https://other.test/mcp" }), AuthnError::WrongAudience),
        (json!({ "iss": CORP }), AuthnError::WrongIssuer),
        (json!({ "sub": null }), AuthnError::MissingClaim),
        (json!({ "cnf": { "jkt": "x" } }), AuthnError::SenderConstrained),
        (json!({ "typ": "refresh" }), AuthnError::WrongType),
        (json!({ "agent_type": 7 }), AuthnError::InvalidClaim),
        (json!({ "agent_type": "" }), AuthnError::InvalidClaim),
        (json!({ "agent_trust_level": ["verified"] }), AuthnError::InvalidClaim),
        (json!({ "agent_capabilities": "email:draft" }), AuthnError::InvalidClaim),
        (json!({ "agent_capabilities": ["email:draft", 7] }), AuthnError::InvalidClaim),
        (json!({ "delegator_sub": ["alice"] }), AuthnError::InvalidClaim),
    ] {
        assert_eq!(World::new().verify(&agent(&claims)).unwrap_err(), AgentError::Token(error), "{claims}");
    }
    let (world, stranger) = (World::new(), TestKey::new("fleet", Algorithm::ES256));
    let forged = World { fleet: stranger, ..world };
    assert_eq!(forged.verify(&agent(&json!({}))).unwrap_err(), AgentError::Token(AuthnError::BadSignature));
}

#[test]
fn a_chain_that_breaks_a_rule_is_refused() {
    let two = |first: Value, second: Value| json!([first, second]);
    let alice = || step("alice", "planner", "email calendar", 120);
    let planner = || step("planner", "drafter", "email", 60);
    let change = |mut step: Value, more: Value| {
        merge(&mut step, &more);
        step
    };
    use DelegationError as E;
    let good = two(alice(), planner());
    for (chain, error) in [
        // (1) chronological, and not in the future.
        (two(alice(), change(planner(), json!({ "delegated_at": NOW.0 - 121 }))), E::ChainOrder),
        (json!([step_with(json!({ "delegated_at": NOW.0 + 31 }))]), E::FromTheFuture),
        // (2) every issuer is trusted.
        (json!([step_with(json!({ "iss": STRANGER }))]), E::ChainUntrustedIssuer),
        (json!([step_with(json!({ "iss": format!("{CORP}/") }))]), E::ChainUntrustedIssuer),
        // (3) each takes over from the one before; nobody twice.
        (two(alice(), step("intruder", "drafter", "email", 60)), E::ChainBroken),
        (two(alice(), change(planner(), json!({ "sub": "Planner" }))), E::ChainBroken),
        (json!([alice(), step("planner", "alice", "email", 90), step("alice", "drafter", "email", 60)]), E::ChainCycle),
        (json!([step_with(json!({ "aud": "alice" }))]), E::ChainCycle),
        // (4) scope never grows.
        (two(alice(), change(planner(), json!({ "scope": "email files" }))), E::ChainScopeGrows),
        (two(alice(), change(planner(), json!({ "scope": "email:read" }))), E::ChainScopeGrows),
        (two(change(alice(), json!({ "scope": "" })), planner()), E::ChainScopeGrows),
        // (5) constraints are enforced.
        (json!([step_with(json!({ "constraints": { "max_duration": 29 } }))]), E::DurationPassed),
        (json!([step_with(json!({ "constraints": { "max_calls": 3 } }))]), E::UnknownConstraint),
        (json!([step_with(json!({ "constraints": { "max_duration": "1h" } }))]), E::ConstraintMalformed),
        (json!([step_with(json!({ "constraints": { "max_duration": -1 } }))]), E::ConstraintMalformed),
        (json!([step_with(json!({ "constraints": { "allowed_resources": "mail" } }))]), E::ConstraintMalformed),
        (json!([step_with(json!({ "constraints": ["max_duration"] }))]), E::ConstraintMalformed),
        // (7) not too long.
        (Value::Array(vec![json!({}); 5]), E::ChainTooLong),
        // 3.4.4: it ends with the agent and is by the person.
        (json!([step_with(json!({ "aud": "other" }))]), E::WrongDelegatee),
        (json!([step_with(json!({ "sub": "bob" }))]), E::WrongDelegator),
        // 3.4.6: another specification's chain, and nonsense.
        (json!([{ "delegator_id": "alice", "as_signature": "x" }]), E::ChainMalformed),
        (json!("alice drafter"), E::ChainMalformed),
        (json!({ "steps": [] }), E::ChainMalformed),
        (json!([7]), E::ChainMalformed),
        (json!(["not.a.token"]), E::ChainMalformed),
        (json!([step_with(json!({ "scope": null }))]), E::ChainMalformed),
        (json!([step_with(json!({ "scope": ["email"] }))]), E::ChainMalformed),
        (json!([step_with(json!({ "aud": ["drafter"] }))]), E::ChainMalformed),
        (json!([step_with(json!({ "delegated_at": null }))]), E::ChainMalformed),
        (json!([step_with(json!({ "delegated_at": "yesterday" }))]), E::ChainMalformed),
    ] {
        let refused = World::new().verify(&agent(&json!({ "delegation_chain": chain }))).unwrap_err();
        assert_eq!(refused, delegation(error), "{chain}");
    }
    let accepted = World::new().verify(&agent(&json!({ "delegation_chain": good }))).unwrap();
    assert_eq!((accepted.identity.depth(), accepted.identity.delegator.as_deref()), (2, Some("planner")));
}

/// OIDC-A says "the subject who most recently delegated"; some issuers name the person. Anybody else is a contradiction.
#[test]
fn delegator_sub_is_one_end_of_the_chain() {
    let chain = json!([step("alice", "planner", "email", 120), step("planner", "drafter", "email", 60)]);
    for (delegator, expected) in [
        (json!("alice"), Ok(())),
        (json!("planner"), Ok(())),
        (json!("bob"), Err(delegation(DelegationError::WrongDelegator))),
        (json!(null), Err(delegation(DelegationError::MissingDelegator))),
    ] {
        let verified = World::new().verify(&agent(&json!({ "delegation_chain": chain, "delegator_sub": delegator })));
        assert_eq!(verified.map(|_| ()), expected, "{delegator}");
    }
}

#[test]
fn the_example_of_appendix_b_holds_in_hierarchical_mode_only() {
    let chain =
        json!([step("alice", "planner", "email calendar", 120), step("planner", "drafter", "calendar:view", 60)]);
    let claims = agent(&json!({ "delegation_chain": chain }));
    assert_eq!(World::new().verify(&claims).unwrap_err(), delegation(DelegationError::ChainScopeGrows));
    let hierarchical = World::new().with(|rules| rules.scope_subset = ScopeSubset::Hierarchical);
    assert_eq!(hierarchical.verify(&claims).unwrap().identity.scopes, Some(Scopes::new(["calendar:view"])));
}

#[test]
fn a_chain_of_another_specification_is_not_looked_at_where_the_issuer_is_configured_so() {
    let world = World { chain: ChainClaim::Ignore, ..World::new() };
    let claims = agent(&json!({ "delegation_chain": [{ "delegator_id": "alice" }] }));
    let identity = world.verify(&claims).unwrap().identity;
    assert_eq!((identity.chain.len(), identity.assurance, identity.depth()), (0, Assurance::None, 1));
}

#[test]
fn a_constraint_that_is_named_is_left_to_the_rules() {
    let world = World::new().with(|rules| rules.known_constraints = vec!["max_amount".into()]);
    let chain = json!([step_with(json!({ "constraints": { "max_amount": 50 } }))]);
    let identity = world.verify(&agent(&json!({ "delegation_chain": chain }))).unwrap().identity;
    assert_eq!(identity.fields()["chain"][0]["constraints"]["max_amount"], 50);
}

#[test]
fn what_ends_first_ends_the_verification() {
    let chain = json!([step_with(json!({ "constraints": { "max_duration": 100 } }))]);
    let claims = agent(&json!({ "delegation_chain": chain, "delegation_constraints": { "max_duration": 90 } }));
    // Delegated 60 s ago, for 90 s, with 30 s of leeway.
    assert_eq!(World::new().verify(&claims).unwrap().valid_until, UnixSeconds(NOW.0 + 60));
    let later = World::new().verify_trusting(&claims, &[], UnixSeconds(NOW.0 + 60));
    assert_eq!(later.unwrap_err(), delegation(DelegationError::DurationPassed));
    let unknown = agent(&json!({ "delegation_constraints": { "only_on": "monday" } }));
    assert_eq!(World::new().verify(&unknown).unwrap_err(), delegation(DelegationError::UnknownConstraint));
}

#[test]
fn a_delegation_reaches_what_every_list_of_resources_names() {
    let reaches = |lists: &[Value], server: &str, name: Option<&str>| {
        let steps: Vec<Value> = match lists {
            [one] => vec![step_with(json!({ "constraints": { "allowed_resources": one } }))],
            [one, two] => {
                let mut first = step("alice", "planner", "email", 120);
                let mut second = step("planner", "drafter", "email", 60);
                first["constraints"] = json!({ "allowed_resources": one });
                second["constraints"] = json!({ "allowed_resources": two });
                vec![first, second]
            }
            _ => vec![],
        };
        let verified = World::new().verify(&agent(&json!({ "delegation_chain": steps })));
        verified.unwrap().identity.reaches(server, name)
    };
    for (lists, server, name, expected) in [
        (vec![], "mail", Some("send"), true),
        (vec![json!(["mail"])], "mail", Some("send"), true),
        (vec![json!(["mail"])], "mail", None, true),
        (vec![json!(["mail/send"])], "mail", Some("send"), true),
        (vec![json!(["mail/send"])], "mail", Some("send_all"), false),
        (vec![json!(["mail/send"])], "mail", None, false),
        (vec![json!(["mail/read*"])], "mail", Some("read_all"), true),
        (vec![json!(["mail/read*"])], "mail", Some("send"), false),
        (vec![json!(["send"])], "mail", Some("send"), false),
        (vec![json!(["crm://open/*"])], "mail", Some("crm://open/1"), true),
        (vec![json!(["crm://open/*"])], "mail", Some("crm://closed/1"), false),
        (vec![json!([MCP])], "mail", Some("send"), true),
        (vec![json!(["https://mcp.test/*"])], "mail", Some("send"), true),
        (vec![json!(["https://mcp.test"])], "mail", Some("send"), false),
        (vec![json!([])], "mail", Some("send"), false),
        (vec![json!(["mail"]), json!(["mail/send"])], "mail", Some("read"), false),
        (vec![json!(["mail/send"]), json!(["mail"])], "mail", Some("send"), true),
        (vec![json!(["mail/send"]), json!(["mail/read"])], "mail", Some("send"), false),
    ] {
        assert_eq!(reaches(&lists, server, name), expected, "{lists:?} {server} {name:?}");
    }
}

#[test]
fn an_agent_acts_for_nobody_but_who_delegated_to_it() {
    let verified = World::new().verify(&agent(&json!({}))).unwrap().identity;
    for (issuer, subject, expected) in [
        (CORP, "alice", Ok(())),
        (CORP, "bob", Err(DelegationError::WrongDelegator)),
        (CORP, "drafter", Err(DelegationError::WrongDelegator)),
        // The same name at an issuer whose people the fleet may not speak for.
        (STRANGER, "alice", Err(DelegationError::WrongDelegator)),
        (FLEET, "alice", Err(DelegationError::WrongDelegator)),
    ] {
        assert_eq!(verified.check_caller(&principal(issuer, subject)), expected, "{subject} of {issuer}");
    }
    let chain = json!([step("alice", "planner", "email", 120), step("planner", "drafter", "email", 60)]);
    let chained = World::new().verify(&agent(&json!({ "delegation_chain": chain }))).unwrap().identity;
    assert_eq!(chained.check_caller(&principal(CORP, "alice")), Ok(()));
    assert_eq!(chained.check_caller(&principal(CORP, "planner")), Err(DelegationError::WrongDelegator));
}

#[test]
fn an_agent_without_a_delegator_acts_for_itself_alone() {
    let world = World { delegators: vec![CORP.into(), FLEET.into()], ..World::new() };
    let alone = world.verify(&agent(&json!({ "delegator_sub": null }))).unwrap().identity;
    assert_eq!((alone.depth(), &alone.delegator), (0, &None));
    assert_eq!(alone.check_caller(&principal(FLEET, "drafter")), Ok(()));
    assert_eq!(alone.check_caller(&principal(CORP, "alice")), Err(DelegationError::MissingDelegator));
    let own = world.verify(&agent(&json!({ "delegator_sub": "drafter" }))).unwrap_err();
    assert_eq!(own, delegation(DelegationError::ChainCycle));
}

/// Rule 6: a step that is signed is only as good as its signature.
#[test]
fn a_signed_step_is_believed_for_its_signature() {
    let world = World::new();
    let good = world.corp.sign(&step("alice", "drafter", "email", 60));
    let verified = world.verify(&agent(&json!({ "delegation_chain": [good.as_str()] }))).unwrap();
    assert_eq!(verified.identity.assurance, Assurance::StepsSigned);
    let signers: Vec<&str> = verified.signed_by.iter().map(|it| &*it.issuer).collect();
    assert_eq!(signers, [CORP, FLEET]);

    let mixed = json!([
        world.corp.sign(&step("alice", "planner", "email", 120)).as_str(),
        step("planner", "drafter", "email", 60)
    ]);
    let mixed = world.verify(&agent(&json!({ "delegation_chain": mixed }))).unwrap();
    assert_eq!(mixed.identity.assurance, Assurance::IssuerAsserted);

    let forged = TestKey::new("corp", Algorithm::ES256).sign(&step("alice", "drafter", "email", 60));
    let by_another = world.fleet.sign(&step("alice", "drafter", "email", 60));
    let over = world.corp.sign(&step_with(json!({ "exp": NOW.0 - 31 })));
    for (token, error) in [
        (forged, DelegationError::ChainSignature),
        (by_another, DelegationError::ChainSignature),
        (over, DelegationError::DurationPassed),
    ] {
        let refused = world.verify(&agent(&json!({ "delegation_chain": [token.as_str()] }))).unwrap_err();
        assert_eq!(refused, delegation(error));
    }
}

#[test]
fn an_actor_of_the_access_token_is_an_agent() {
    let world = World::new();
    let claims = json!({ "act": {
        "sub": "drafter", "iss": CORP, "sub_profile": "ai_agent", "agent_provider": "agents.test",
        "act": { "sub": "planner" },
    } });
    let identity = world.read(&claims, &[Form::OidcA, Form::Act]).unwrap().unwrap();
    assert_eq!((&*identity.agent, identity.kind.as_deref()), ("drafter", Some("ai_agent")));
    assert_eq!((identity.depth(), identity.delegator.as_deref()), (2, Some("planner")));
    let people: Vec<(&str, &str)> = identity.chain.iter().map(|it| (&*it.delegator, &*it.delegatee)).collect();
    assert_eq!(people, [("alice", "planner"), ("planner", "drafter")]);
    assert_eq!((identity.source, identity.assurance), (Source::Act, Assurance::IssuerAsserted));
    assert_eq!(world.read(&claims, &[Form::Entra]), Ok(None), "only the forms that count are read");

    use DelegationError as E;
    let deep = json!({ "sub": "a", "act": { "sub": "b", "act": { "sub": "c", "act": { "sub": "d", "act": { "sub": "e" } } } } });
    for (act, error) in [
        (json!({ "sub": "drafter", "act": { "sub": "drafter" } }), E::ChainCycle),
        (json!({ "sub": "alice" }), E::ChainCycle),
        (json!({ "sub": "drafter", "iss": STRANGER }), E::ChainUntrustedIssuer),
        (json!({ "iss": CORP }), E::ChainMalformed),
        (json!({ "sub": 7 }), E::ChainMalformed),
        (json!("drafter"), E::ChainMalformed),
        (deep, E::ChainTooLong),
    ] {
        let refused = world.read(&json!({ "act": act }), &[Form::Act]).unwrap_err();
        assert_eq!(refused, delegation(error), "{act}");
    }
}

#[test]
fn entras_facets_tell_agents_from_people() {
    let world = World::new();
    let read = |claims: Value| {
        let identity = world.read(&claims, &[Form::Entra]).unwrap()?;
        Some((identity.agent.to_string(), identity.delegator.map(String::from), identity.source))
    };
    let agent = Some(("agent-app".to_owned(), Some("alice".to_owned()), Source::Entra));
    let itself = Some(("agent-app".to_owned(), None, Source::Entra));
    assert_eq!(read(json!({ "xms_act_fct": "3 9 11", "idtyp": "user", "azp": "agent-app" })), agent);
    assert_eq!(read(json!({ "xms_act_fct": "11 3", "appid": "agent-app" })), agent);
    assert_eq!(
        read(json!({ "xms_act_fct": "3 9 11", "xms_sub_fct": "9 3 11", "idtyp": "app", "azp": "agent-app" })),
        itself
    );
    assert_eq!(read(json!({ "xms_act_fct": "3 9 111", "xms_sub_fct": "1", "azp": "some-app" })), None);
    assert_eq!(read(json!({})), None);
}

/// Fact sheet 3.4.1: the same names are read from an access token, whether it names the person or the agent.
#[test]
fn oidc_a_claims_are_read_from_an_access_token() {
    let world = World::new();
    let describe = |more: Value| {
        let mut claims = agent(&json!({ "iss": null, "sub": null, "delegator_sub": null }));
        merge(&mut claims, &more);
        world.read(&claims, &[Form::OidcA, Form::Act]).map(|read| read.unwrap())
    };
    let of_the_person = describe(json!({ "delegator_sub": "alice", "client_id": "drafter" })).unwrap();
    assert_eq!((&*of_the_person.agent, of_the_person.delegator.as_deref()), ("drafter", Some("alice")));
    let of_the_agent = describe(json!({ "sub": "drafter", "delegator_sub": "alice" })).unwrap();
    assert_eq!((&*of_the_agent.agent, of_the_agent.source), ("drafter", Source::AccessToken));
    let by_actor =
        describe(json!({ "delegator_sub": "alice", "client_id": "app", "act": { "sub": "drafter" } })).unwrap();
    assert_eq!(&*by_actor.agent, "drafter");
    let two = describe(json!({ "sub": "drafter", "delegator_sub": "alice", "act": { "sub": "other" } })).unwrap_err();
    assert_eq!(two, delegation(DelegationError::ConflictingAgents));
    let nameless = describe(json!({ "delegator_sub": "alice" })).unwrap_err();
    assert_eq!(nameless, AgentError::Token(AuthnError::MissingClaim));
    let half = describe(json!({ "sub": "drafter", "agent_model": null })).unwrap_err();
    assert_eq!(half, AgentError::NotAnAgent);
}

#[test]
fn a_token_of_an_agents_own_is_told_from_a_persons() {
    let caller = Caller::for_test(&[], agent(&json!({})).as_object().unwrap().clone());
    assert!(embedded::describes_an_agent(&caller));
    assert!(!embedded::describes_an_agent(&Caller::for_test(&[], serde_json::Map::new())));
}
