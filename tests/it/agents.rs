//! Which software acts, on whose behalf, and is the server the one it should be?

use serde_json::{Value, json};

use crate::support::{AUDIENCE, Alg, Answer, Caller, Conf, Gateway, Idp, McpServer, Sts, Token, conf, now, poll_until};

/// People sign in at `corp`; `fleet` runs the agents; `attester` vouches for what runs. The server `mail` has tools
/// `send`, `read` and `file_write`.
struct Cast {
    corp: Idp,
    fleet: Idp,
    attester: Idp,
    sts: Sts,
    mail: McpServer,
    gateway: Gateway,
}

impl Cast {
    #[track_caller]
    fn start() -> Self {
        Self::with(|conf| conf.allow_all())
    }

    #[track_caller]
    fn with(change: impl FnOnce(Conf) -> Conf) -> Self {
        Self::knowing(|conf, _sts| change(conf))
    }

    #[track_caller]
    fn knowing(change: impl FnOnce(Conf, &Sts) -> Conf) -> Self {
        let (corp, fleet, attester, sts) = (Idp::start(), Idp::start(), Idp::start(), Sts::start());
        let mail = McpServer::start().tool("send").tool("read").tool("file_write");
        let conf = usual(&corp, &fleet, &attester, &mail);
        let gateway = Gateway::start(change(conf, &sts));
        Self { corp, fleet, attester, sts, mail, gateway }
    }

    /// The agent `drafter`, to which alice has delegated.
    fn agent(&self) -> Token {
        described(self.fleet.token().subject("drafter").typ("JWT"))
            .claim("delegator_sub", "alice")
            .claim("agent_capabilities", json!(["email:draft", "calendar:view"]))
    }

    fn alice(&self) -> Caller {
        self.person("alice")
    }

    fn person(&self, subject: &str) -> Caller {
        self.gateway.caller(self.corp.token().subject(subject))
    }

    /// Alice, with this token of an agent.
    fn acting(&self, agent: impl Into<String>) -> Caller {
        self.alice().header("X-Agent-Token", &agent.into())
    }

    fn step(&self, delegator: &str, delegatee: &str, scope: &str, ago: i64) -> Value {
        step(&self.corp.issuer(), delegator, delegatee, scope, ago)
    }

    fn attestation(&self, change: impl FnOnce(Token) -> Token) -> Value {
        let token = self.attester.token().typ("eat+jwt").subject("drafter-7").without("aud").without("exp");
        let token = change(token.claim("eat_nonce", format!("nonce-{}", now())));
        json!({ "format": "urn:ietf:params:oauth:token-type:eat", "token": token.sign() })
    }
}

fn usual(corp: &Idp, fleet: &Idp, attester: &Idp, mail: &McpServer) -> Conf {
    conf()
        .issuer("corp", corp, json!({ "jwks_cooldown": "1s" }))
        .issuer("fleet", fleet, json!({ "jwks_cooldown": "1s" }))
        .issuer("attester", attester, json!({ "jwks_cooldown": "1s" }))
        .server("mail", mail)
        .of_route("issuers", json!(["corp"]))
        .of_route("agents", json!("optional"))
        .set(
            "agents",
            json!({
                "issuers": [{ "issuer": "fleet", "delegators": ["corp", "fleet"] }],
                "attestation": [{ "issuer": "attester", "providers": ["agents.test"], "max_age": "10m" }],
            }),
        )
}

/// What every agent's token has, and some of what it may have.
fn described(token: Token) -> Token {
    token
        .claim("agent_type", "assistant")
        .claim("agent_model", "m-1")
        .claim("agent_version", "2026-07")
        .claim("agent_provider", "agents.test")
        .claim("agent_instance_id", "drafter-7")
        .claim("delegation_purpose", "answer mail")
        .claim("agent_context_id", "conversation-9")
}

fn step(issuer: &str, delegator: &str, delegatee: &str, scope: &str, ago: i64) -> Value {
    json!({ "iss": issuer, "sub": delegator, "aud": delegatee, "delegated_at": now() - ago, "scope": scope })
}

fn send(caller: &Caller) -> Answer {
    caller.call("send", json!({ "to": "bob" }))
}

#[track_caller]
fn refused_as(answer: &Answer, status: u16, reason: &str, detail: &str) {
    answer.assert_refused(status, reason);
    assert_eq!(answer.json()["error"]["data"]["detail"], detail, "{}", answer.0);
}

// ── The three examples ──

#[test]
fn only_agents_with_a_capability_may_call_a_tool() {
    let cast = Cast::with(|conf| {
        conf.rule(json!({
            "name": "drafters", "source": { "agent": { "capabilities": ["email:draft"] } },
            "target": { "tools": [{ "server": "mail", "tool": "send" }] },
        }))
    });
    assert_eq!(send(&cast.acting(cast.agent())).status(), 200);
    let reader = cast.agent().claim("agent_capabilities", json!(["email:read", "email:draft2"]));
    send(&cast.acting(reader.clone())).assert_refused(403, "denied");
    send(&cast.acting(cast.agent().without("agent_capabilities"))).assert_refused(403, "denied");
    send(&cast.alice()).assert_refused(403, "denied");
    assert_eq!(cast.mail.seen_of("tools/call").len(), 1);

    let tools = |caller: &Caller| -> Vec<String> {
        let listed = caller.list().result()["tools"].clone();
        listed.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tools(&cast.acting(cast.agent())), ["send"]);
    assert_eq!(tools(&cast.acting(reader)), [""; 0]);
}

#[test]
fn no_agent_acts_at_a_depth_over_two() {
    let cast = Cast::with(|conf| {
        conf.allow_all().rule(json!({
            "name": "shallow", "action": "deny", "when": "agent != null && agent.depth > 2",
        }))
    });
    let chained = |people: &[&str]| {
        let steps: Vec<Value> = people.windows(2).map(|pair| cast.step(pair[0], pair[1], "mail", 60)).collect();
        cast.agent().claim("delegation_chain", json!(steps))
    };
    assert_eq!(send(&cast.acting(chained(&["alice", "drafter"]))).status(), 200);
    assert_eq!(send(&cast.acting(chained(&["alice", "planner", "drafter"]))).status(), 200);
    let deep = send(&cast.acting(chained(&["alice", "planner", "broker", "drafter"])));
    deep.assert_refused(403, "denied");
    assert_eq!(send(&cast.alice()).status(), 200, "a person alone has no depth");
    let record = cast.gateway.audited_as(&deep.request_id());
    assert_eq!((&record["agent"]["depth"], &record["decision"]["rule"]), (&json!(3), &json!("shallow")));
}

#[test]
fn an_unattested_agent_is_denied_what_writes() {
    let cast = Cast::with(|conf| {
        conf.allow_all().rule(json!({
            "name": "attested-writers", "action": "deny",
            "when": r#"tool.name.endsWith("_write") && agent != null && agent.attestation != "verified""#,
        }))
    });
    let write = |agent: Token| cast.acting(agent).call("file_write", json!({}));
    let vouched = |change: fn(Token) -> Token| cast.agent().claim("agent_attestation", cast.attestation(change));
    write(cast.agent()).assert_refused(403, "denied");
    assert_eq!(write(vouched(|token| token)).status(), 200);
    assert_eq!(send(&cast.acting(cast.agent())).status(), 200, "what does not write needs no attestation");
}

// ── Attestation ──

/// The verdict is data: it refuses nobody by itself, and every way of being wrong has its word.
#[test]
fn an_attestation_that_is_forged_lifted_stale_or_repeated_has_failed() {
    let cast = Cast::start();
    let verdict = |agent: Token| {
        let answer = send(&cast.acting(agent));
        assert_eq!(answer.status(), 200, "{}", answer.0);
        let agent = cast.gateway.audited_as(&answer.request_id())["agent"].clone();
        let detail = agent["attestation_detail"].as_str().unwrap_or("-");
        format!("{} {detail}", agent["attestation"].as_str().unwrap())
    };
    let vouched = |attestation: Value| cast.agent().claim("agent_attestation", attestation);
    assert_eq!(verdict(cast.agent()), "unverified -");
    assert_eq!(verdict(vouched(cast.attestation(|token| token))), "verified -");
    let forged = vouched(cast.attestation(|token| token.signed_by_an_attacker()));
    assert_eq!(verdict(forged), "failed wrong_signature");
    let unsigned =
        cast.attester.token().typ("eat+jwt").subject("drafter-7").claim("eat_nonce", "nonce-none").unsigned();
    assert_eq!(verdict(vouched(json!({ "format": "eat", "token": unsigned }))), "failed malformed");
    let lifted = vouched(cast.attestation(|token| token.subject("another-agent")));
    assert_eq!(verdict(lifted), "failed wrong_subject");
    let stale = vouched(cast.attestation(|token| token.claim("iat", now() - 601)));
    assert_eq!(verdict(stale), "failed stale");
    let stranger = cast.fleet.token().typ("eat+jwt").subject("drafter-7").claim("eat_nonce", "nonce-stranger").sign();
    assert_eq!(verdict(vouched(json!({ "format": "eat", "token": stranger }))), "failed untrusted_attester");
    let nameless = vouched(cast.attestation(|token| token.without("eat_nonce")));
    assert_eq!(verdict(nameless), "failed nonce_missing");

    let once = cast.attestation(|token| token.claim("eat_nonce", "nonce-of-one-token"));
    let first = vouched(once.clone());
    assert_eq!(verdict(first.clone()), "verified -");
    assert_eq!(verdict(first), "verified -", "the same token may come again");
    assert_eq!(verdict(vouched(once).claim("jti", "another")), "failed nonce_replayed");
}

#[test]
fn an_attester_may_rotate_its_keys() {
    let cast = Cast::start();
    let kid = cast.attester.add_key();
    let vouched = cast.agent().claim("agent_attestation", cast.attestation(|token| token.signed_by(&kid)));
    let answer = send(&cast.acting(vouched));
    assert_eq!(cast.gateway.audited_as(&answer.request_id())["agent"]["attestation"], "verified");
}

// ── The token ──

#[test]
fn the_agents_token_goes_nowhere_and_is_written_nowhere() {
    let cast = Cast::start();
    let token = cast.agent().sign();
    assert_eq!(send(&cast.acting(&token)).status(), 200);
    let refused = cast.agent().audience("https://other.test/mcp").sign();
    send(&cast.acting(&refused)).assert_refused(401, "invalid_agent_token");
    let seen = cast.mail.only("tools/call");
    assert_eq!(seen.header("x-agent-token"), None);
    assert!(!seen.everything().contains(&token));
    cast.gateway.audit(2);
    let written = cast.gateway.everything_written();
    for token in [&token, &refused] {
        assert!(!written.contains(token.as_str()));
        assert!(!written.contains(token.rsplit('.').next().unwrap()), "its signature alone");
    }
}

#[test]
fn an_agents_token_is_judged_as_strictly_as_a_persons() {
    let cast = Cast::start();
    let agent = || cast.agent();
    for (token, detail) in [
        (agent().unsigned(), "unsupported_algorithm"),
        (agent().hs256_with_the_public_key(), "unsupported_algorithm"),
        (agent().signature_stripped(), "bad_signature"),
        (agent().alg(Alg::Es256).signed_by_an_attacker().sign(), "bad_signature"),
        (agent().expires_in(-60).sign(), "expired"),
        (agent().claim("iat", now() + 300).sign(), "not_yet_valid"),
        (agent().claim("nbf", now() + 300).sign(), "not_yet_valid"),
        (agent().audience("https://other.test/mcp").sign(), "wrong_audience"),
        (agent().without("sub").sign(), "missing_claim"),
        (agent().claim("iss", "https://stranger.test").sign(), "wrong_issuer"),
        (agent().typ("logout+jwt").sign(), "wrong_type"),
        (agent().claim("cnf", json!({ "jkt": "x" })).sign(), "sender_constrained"),
        (agent().claim("agent_capabilities", "email:draft").sign(), "invalid_claim"),
        (agent().payload(|text| text.replacen('{', "{\"sub\":\"x\",", 1)).sign(), "duplicate_claim"),
        (agent().without("agent_instance_id").sign(), "not_an_agent"),
        ("x".to_owned(), "malformed"),
        ("Bearer abc".to_owned(), "malformed"),
        ("a".repeat(8200), "malformed"),
    ] {
        let answer = send(&cast.acting(token));
        refused_as(&answer, 401, "invalid_agent_token", detail);
        let challenge = answer.challenge();
        assert!(challenge.starts_with("Agent header=\"x-agent-token\", error=\"invalid_agent_token\""), "{challenge}");
        assert!(!challenge.contains("Bearer"), "the person's token is good: {challenge}");
    }
    let twice = cast.acting(agent()).header("X-Agent-Token", &agent().sign());
    send(&twice).assert_refused(400, "malformed_request");
    cast.mail.assert_saw_nothing();
}

#[test]
fn a_persons_token_is_no_agents_and_an_agents_no_persons() {
    let cast = Cast::with(|conf| {
        conf.allow_all().set("agents.issuers.0.issuer", "corp").set("agents.issuers.0.delegators", json!(["corp"]))
    });
    let person = cast.corp.token().sign();
    refused_as(&send(&cast.acting(cast.corp.token().subject("bob"))), 401, "invalid_agent_token", "not_an_agent");
    let both = cast.gateway.caller(&person).header("X-Agent-Token", &person);
    refused_as(&send(&both), 401, "invalid_agent_token", "same_token");

    // The same issuer has signed it, for the same audience: what it says of itself tells it from a person's.
    let agent = described(cast.corp.token().subject("drafter")).claim("delegator_sub", "alice").sign();
    assert_eq!(send(&cast.acting(&agent)).status(), 200);
    let posing = send(&cast.gateway.caller(&agent));
    refused_as(&posing, 401, "invalid_token", "wrong_type");
    assert!(posing.challenge().starts_with("Bearer error=\"invalid_token\""));
    cast.mail.only("tools/call");
}

/// Where some claims about agents count in access tokens, an agent's own token is still none for a person.
#[test]
fn an_agents_token_poses_as_no_person_where_other_claims_about_agents_count() {
    for claims in [json!(["act"]), json!(["entra"]), json!(["act", "entra"])] {
        let access_tokens = json!([{ "issuer": "corp", "claims": claims }]);
        let cast = Cast::with(|conf| conf.allow_all().set("agents.access_tokens", access_tokens));
        let posing = described(cast.corp.token().subject("drafter")).claim("delegator_sub", "alice");
        refused_as(&send(&cast.gateway.caller(posing)), 401, "invalid_token", "wrong_type");
        assert_eq!(send(&cast.alice()).status(), 200);
    }
}

/// A constraint that is left to the rules is one that they can read.
#[test]
fn rules_see_to_the_constraints_that_are_left_to_them() {
    let cast = Cast::with(|conf| {
        conf.set("agents.known_constraints", json!(["max_amount"])).rule(json!({
            "name": "small", "when": "agent != null && args.amount <= agent.constraints.max_amount",
        }))
    });
    let limited = cast.acting(cast.agent().claim("delegation_constraints", json!({ "max_amount": 50 })));
    assert_eq!(limited.call("send", json!({ "amount": 50 })).status(), 200);
    limited.call("send", json!({ "amount": 51 })).assert_refused(403, "denied");
    send(&cast.acting(cast.agent())).assert_refused(403, "denied");
}

#[test]
fn an_agent_acts_for_nobody_but_who_delegated_to_it() {
    let cast = Cast::start();
    let with = |subject: &str, agent: &Token| cast.person(subject).header("X-Agent-Token", &agent.sign());
    let agent = cast.agent();
    assert_eq!(send(&with("alice", &agent)).status(), 200);
    // The agent is known and cached by then; the binding is asked each time.
    refused_as(&send(&with("bob", &agent)), 403, "delegation_refused", "wrong_delegator");
    assert_eq!(send(&with("alice", &agent)).status(), 200);
    refused_as(
        &send(&with("alice", &agent.clone().claim("delegator_sub", "bob"))),
        403,
        "delegation_refused",
        "wrong_delegator",
    );
    refused_as(&send(&with("alice", &agent.without("delegator_sub"))), 403, "delegation_refused", "missing_delegator");
    assert_eq!(cast.mail.seen_of("tools/call").len(), 2);
    let record = cast.gateway.audit(5).remove(1);
    assert_eq!((&record["reason"], &record["detail"]), (&json!("delegation_refused"), &json!("wrong_delegator")));
    assert_eq!((&record["principal"]["subject"], &record["agent"]["delegator"]), (&json!("bob"), &json!("alice")));
}

#[test]
fn an_agent_may_be_required() {
    let cast = Cast::with(|conf| conf.allow_all().of_route("agents", json!("required")));
    let answer = send(&cast.alice());
    answer.assert_refused(401, "missing_agent_token");
    assert_eq!(answer.challenge(), "Agent header=\"x-agent-token\"");
    assert_eq!(cast.gateway.audited_as(&answer.request_id())["event"], "auth.refused");
    // Who is not known at all is told of the person's token alone, as ever.
    let stranger = send(&cast.gateway.stranger().header("X-Agent-Token", &cast.agent().sign()));
    stranger.assert_refused(401, "missing_token");
    assert!(stranger.challenge().starts_with("Bearer resource_metadata="));
    assert_eq!(send(&cast.acting(cast.agent())).status(), 200);
}

#[test]
fn a_route_that_looks_for_no_agent_does_not_read_the_header() {
    let cast = Cast::with(|mut conf| {
        conf.value["routes"][0].as_object_mut().unwrap().remove("agents");
        conf.allow_all()
    });
    let answer = send(&cast.acting("not a token at all"));
    assert_eq!(answer.status(), 200);
    assert_eq!(cast.mail.only("tools/call").header("x-agent-token"), None);
    assert_eq!(cast.gateway.audited_as(&answer.request_id()).get("agent"), None);
}

#[test]
fn the_header_may_have_another_name() {
    let cast =
        Cast::with(|conf| conf.allow_all().set("agents.header", "X-Acting-For").of_route("agents", json!("required")));
    send(&cast.acting(cast.agent())).assert_refused(401, "missing_agent_token");
    assert_eq!(send(&cast.alice().header("x-acting-for", &cast.agent().sign())).status(), 200);
    assert_eq!(cast.mail.only("tools/call").header("x-acting-for"), None);
}

#[test]
fn an_agents_token_that_expires_between_two_calls_is_refused_at_the_second() {
    let cast = Cast::with(|conf| conf.allow_all().set("issuers.1.clock_leeway", "0s"));
    let agent = cast.agent().expires_in(2).sign();
    assert_eq!(send(&cast.acting(&agent)).status(), 200);
    let refused = poll_until("the end of the agent's token", || {
        let answer = send(&cast.acting(&agent));
        (answer.status() != 200).then_some(answer)
    });
    refused_as(&refused, 401, "invalid_agent_token", "expired");
}

#[test]
fn an_agents_token_ends_with_the_key_that_signed_it() {
    let cast = Cast::with(|conf| conf.allow_all().set("issuers.1.jwks_refresh", "10s"));
    let kid = cast.fleet.add_key();
    let agent = described(cast.fleet.token().subject("drafter")).claim("delegator_sub", "alice").signed_by(&kid).sign();
    assert_eq!(send(&cast.acting(&agent)).status(), 200, "a key that is newer than our copy is fetched");
    cast.fleet.remove_key(&kid);
    poll_until("the key's end", || (send(&cast.acting(&agent)).status() == 401).then_some(()));
}

// ── The chain ──

#[test]
fn a_chain_that_breaks_a_rule_is_refused() {
    let cast = Cast::start();
    let one = |change: Value| {
        let mut step = cast.step("alice", "drafter", "mail", 60);
        for (name, value) in change.as_object().unwrap() {
            step[name] = value.clone();
        }
        json!([step])
    };
    let step = |from: &str, to: &str, scope: &str, ago: i64| cast.step(from, to, scope, ago);
    let planner = || step("alice", "planner", "mail", 120);
    for (chain, detail) in [
        (json!([planner(), step("planner", "drafter", "mail", 180)]), "chain_order"),
        (one(json!({ "delegated_at": now() + 300 })), "from_the_future"),
        (one(json!({ "iss": "https://stranger.test" })), "chain_untrusted_issuer"),
        (json!([planner(), step("broker", "drafter", "mail", 60)]), "chain_broken"),
        (json!([planner(), step("planner", "alice", "mail", 90), step("alice", "drafter", "mail", 60)]), "chain_cycle"),
        (json!([planner(), step("planner", "drafter", "mail files", 60)]), "chain_scope_grows"),
        (one(json!({ "constraints": { "max_duration": 10 } })), "duration_passed"),
        (one(json!({ "constraints": { "weekdays_only": true } })), "unknown_constraint"),
        (one(json!({ "constraints": { "allowed_resources": ["crm", "mail/read"] } })), "resource_not_allowed"),
        (one(json!({ "aud": "another" })), "wrong_delegatee"),
        (json!(vec![planner(); 5]), "chain_too_long"),
        (json!([{ "delegator_id": "alice", "delegatee_id": "drafter", "as_signature": "x" }]), "chain_malformed"),
    ] {
        let answer = send(&cast.acting(cast.agent().claim("delegation_chain", chain.clone())));
        assert_eq!(answer.status(), 403, "{chain}: {}", answer.0);
        refused_as(&answer, 403, "delegation_refused", detail);
        assert_eq!(answer.header("www-authenticate"), None, "no other token of the person would help");
    }
    cast.mail.assert_saw_nothing();
}

#[test]
fn a_delegation_reaches_what_it_names_and_lists_show_no_more() {
    let cast = Cast::start();
    let constraints = json!({ "allowed_resources": ["mail/read"] });
    let agent = cast.acting(cast.agent().claim("delegation_constraints", constraints));
    assert_eq!(agent.call("read", json!({})).status(), 200);
    refused_as(&send(&agent), 403, "delegation_refused", "resource_not_allowed");
    let listed = agent.list().result()["tools"].clone();
    assert_eq!(listed.as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect::<Value>(), json!(["read"]));
    // The person alone, and an agent of wider reach, are not held to it: nothing of it is remembered for them.
    assert_eq!(send(&cast.alice()).status(), 200);
    assert_eq!(send(&cast.acting(cast.agent())).status(), 200);
    let whole = json!({ "allowed_resources": [AUDIENCE] });
    assert_eq!(send(&cast.acting(cast.agent().claim("delegation_constraints", whole))).status(), 200);
}

#[test]
fn a_delegation_ends_between_two_calls() {
    let cast = Cast::with(|conf| conf.allow_all().set("issuers.1.clock_leeway", "0s"));
    let mut step = cast.step("alice", "drafter", "mail", 0);
    step["constraints"] = json!({ "max_duration": 3 });
    let agent = cast.agent().claim("delegation_chain", json!([step])).sign();
    assert_eq!(send(&cast.acting(&agent)).status(), 200);
    let refused = poll_until("the end of the delegation", || {
        let answer = send(&cast.acting(&agent));
        (answer.status() != 200).then_some(answer)
    });
    refused_as(&refused, 403, "delegation_refused", "duration_passed");
}

// ── What access tokens say ──

#[test]
fn an_actor_in_the_access_token_is_the_agent() {
    let access_tokens = json!([{ "issuer": "corp", "claims": ["act", "entra"] }]);
    let cast = Cast::with(|conf| {
        let conf = conf.set("agents.access_tokens", access_tokens).of_route("agents", json!("required"));
        conf.rule(json!({ "name": "agents", "when": r#"agent.agent == "drafter" && agent.delegator == "planner""# }))
            .rule(json!({ "name": "entra", "when": r#"agent.source == "entra" && agent.agent == "entra-agent""# }))
    });
    let nested = json!({ "sub": "drafter", "sub_profile": "ai_agent", "act": { "sub": "planner" } });
    let answer = send(&cast.gateway.caller(cast.corp.token().claim("act", nested.clone())));
    assert_eq!(answer.status(), 200);
    let agent = cast.gateway.audited_as(&answer.request_id())["agent"].clone();
    assert_eq!(
        (&agent["id"], &agent["type"], &agent["source"]),
        (&json!("drafter"), &json!("ai_agent"), &json!("act"))
    );
    assert_eq!((&agent["depth"], &agent["chain_assurance"]), (&json!(2), &json!("issuer-asserted")));

    let entra = cast.corp.token().without("client_id").claim("azp", "entra-agent").claim("xms_act_fct", "3 9 11");
    assert_eq!(send(&cast.gateway.caller(entra)).status(), 200);
    let cycle = json!({ "sub": "drafter", "act": { "sub": "drafter" } });
    let cycle = send(&cast.gateway.caller(cast.corp.token().claim("act", cycle)));
    refused_as(&cycle, 403, "delegation_refused", "chain_cycle");
    // The header names one agent, the access token another.
    let conflicting = cast.gateway.caller(cast.corp.token().claim("act", json!({ "sub": "planner" })));
    let conflicting = send(&conflicting.header("X-Agent-Token", &cast.agent().sign()));
    refused_as(&conflicting, 403, "delegation_refused", "conflicting_agents");
    send(&cast.alice()).assert_refused(401, "missing_agent_token");
}

#[test]
fn claims_about_agents_count_only_where_they_are_configured() {
    let cast = Cast::with(|conf| conf.allow_all().of_route("agents", json!("required")));
    let claiming = cast.corp.token().claim("act", json!({ "sub": "drafter" })).claim("xms_act_fct", "11");
    send(&cast.gateway.caller(claiming)).assert_refused(401, "missing_agent_token");
}

#[test]
fn the_claims_of_oidc_a_may_stand_in_the_access_token() {
    let cast = Cast::with(|conf| {
        conf.set("agents.access_tokens", json!([{ "issuer": "corp", "claims": ["oidc_a"] }])).rule(
            json!({ "name": "a", "source": { "agent": { "providers": ["agents.test"], "types": ["assistant"] } } }),
        )
    });
    let person = described(cast.corp.token()).claim("delegator_sub", "alice").claim("client_id", "drafter");
    let answer = send(&cast.gateway.caller(person));
    assert_eq!(answer.status(), 200);
    let record = cast.gateway.audited_as(&answer.request_id());
    assert_eq!((&record["principal"]["subject"], &record["agent"]["id"]), (&json!("alice"), &json!("drafter")));
    let own = described(cast.corp.token().subject("drafter")).claim("delegator_sub", "alice");
    assert_eq!(send(&cast.gateway.caller(own)).status(), 200);
}

// ── The exchange ──

fn exchanging(actor: Value) -> Cast {
    Cast::knowing(|conf, sts| conf.allow_all().exchange(sts, json!({ "actor_token": actor })))
}

#[test]
fn the_exchange_carries_the_agent() {
    let cast = exchanging(json!({ "from": "agent" }));
    let agent = cast.agent().sign();
    assert_eq!(send(&cast.acting(&agent)).status(), 200);
    assert_eq!(send(&cast.alice()).status(), 200);
    let exchanges = cast.sts.exchanges();
    assert_eq!(exchanges.len(), 2);
    assert_eq!(exchanges[0].all("actor_token"), [agent.as_str()]);
    assert_eq!(exchanges[0].all("actor_token_type"), ["urn:ietf:params:oauth:token-type:jwt"]);
    assert_eq!((exchanges[1].one("actor_token"), exchanges[1].one("actor_token_type")), (None, None));
}

#[test]
fn a_credential_of_one_agent_serves_no_other_and_not_the_person_alone() {
    let cast = exchanging(json!({ "from": "agent", "token_type": "urn:ietf:params:oauth:token-type:id_token" }));
    let (one, other) =
        (cast.agent().sign(), described(cast.fleet.token().subject("planner")).claim("delegator_sub", "alice").sign());
    let person = cast.corp.token().sign();
    let alice = |agent: Option<&String>| {
        let caller = cast.gateway.caller(&person);
        agent.map_or(caller.clone(), |agent| caller.header("X-Agent-Token", agent))
    };
    let callers = [alice(None), alice(Some(&one)), alice(Some(&other))];
    for caller in callers.iter().chain(&callers) {
        assert_eq!(send(caller).status(), 200);
    }
    let sent: Vec<String> =
        cast.mail.seen_of("tools/call").iter().map(|seen| seen.bearer().unwrap().to_owned()).collect();
    assert_eq!(sent[..3], sent[3..], "each is used again for its own");
    assert!(sent[0] != sent[1] && sent[1] != sent[2] && sent[0] != sent[2], "and for no other");
    assert_eq!(cast.sts.exchanges().len(), 3);
}

#[test]
fn the_agents_own_token_never_comes_back_as_the_credential() {
    let cast = exchanging(json!({ "from": "agent" }));
    let agent = cast.agent().sign();
    cast.sts.amend(json!({ "access_token": agent }));
    send(&cast.acting(&agent)).assert_refused(502, "exchange_failed");
    cast.mail.assert_saw_nothing();
}

#[test]
fn no_token_is_exchanged_for_an_agent_that_is_refused() {
    let cast = exchanging(json!({ "from": "agent" }));
    send(&cast.acting(cast.agent().claim("delegator_sub", "bob"))).assert_refused(403, "delegation_refused");
    send(&cast.acting(cast.agent().expires_in(-60))).assert_refused(401, "invalid_agent_token");
    assert_eq!(cast.sts.exchanges().len(), 0);
}

// ── What is told ──

#[test]
fn audit_and_metrics_tell_the_agent() {
    let cast = Cast::with(|conf| {
        conf.allow_all().set(
            "routes.0.authorization.rules",
            json!([
                { "name": "evil", "action": "deny", "source": { "agent": { "providers": ["evil.test"] } } },
            ]),
        )
    });
    let attestation = cast.attestation(|token| token);
    let chain =
        json!([cast.step("alice", "planner", "mail calendar", 120), cast.step("planner", "drafter", "mail", 60)]);
    let agent = cast.agent().claim("delegation_chain", chain.clone()).claim("agent_attestation", attestation);
    let answer = send(&cast.acting(agent.claim("agent_trust_level", "verified")));
    let record = cast.gateway.audited_as(&answer.request_id());
    let corp = cast.corp.issuer();
    let expected = json!({
        "id": "drafter", "issuer": cast.fleet.issuer(), "instance": "drafter-7", "type": "assistant",
        "provider": "agents.test", "model": "m-1", "version": "2026-07",
        "capabilities": ["calendar:view", "email:draft"], "trust_level": "verified", "delegator": "planner",
        "chain": [
            { "issuer": corp, "delegator": "alice", "delegatee": "planner", "delegated_at": chain[0]["delegated_at"],
              "scopes": ["calendar", "mail"] },
            { "issuer": corp, "delegator": "planner", "delegatee": "drafter", "delegated_at": chain[1]["delegated_at"],
              "scopes": ["mail"] },
        ],
        "chain_assurance": "issuer-asserted", "depth": 2, "purpose": "answer mail", "context": "conversation-9",
        "attestation": "verified", "source": "agent_token",
    });
    assert_eq!(record["agent"], expected);

    let strange = cast.agent().claim("agent_type", "evil\"} 1\nx").claim("agent_provider", "stranger.test");
    assert_eq!(send(&cast.acting(strange)).status(), 200);
    send(&cast.acting(cast.agent().claim("agent_provider", "evil.test"))).assert_refused(403, "denied");
    cast.gateway.audit(3);
    for (labels, count) in [
        ([r#"type="assistant""#, r#"provider="agents.test""#, r#"outcome="ok""#], 1.0),
        ([r#"type="other""#, r#"provider="other""#, r#"outcome="ok""#], 1.0),
        ([r#"type="assistant""#, r#"provider="evil.test""#, r#"outcome="refused""#], 1.0),
    ] {
        assert_eq!(cast.gateway.metric("portcullis_agent_requests_total", &labels), count, "{labels:?}");
    }
    assert!(!cast.gateway.metrics().contains("stranger.test"));
}

// ── The server ──

/// A server whose resource token stands in a header of its answers, even of those that refuse.
struct Identified {
    tools: Idp,
    page: McpServer,
    mail: McpServer,
    corp: Idp,
}

impl Identified {
    fn new() -> Self {
        let (tools, corp) = (Idp::start(), Idp::start());
        Self { tools, page: McpServer::start(), mail: McpServer::start().tool("send"), corp }
    }

    fn token(&self) -> Token {
        let claims =
            [("version", json!("2.1")), ("trust_level", json!("certified")), ("capabilities", json!(["mail:send"]))];
        let token = self.tools.token().typ("resource+jwt").subject("mail").audience("https://mcp.example.test");
        claims.into_iter().fold(token, |token, (name, value)| token.claim(name, value))
    }

    fn shows(&self, token: impl Into<String>) {
        let token = token.into();
        self.page.on("GET", move |_seen| crate::support::Reply::json(405, &json!({})).with("x-resource-token", &token));
    }

    fn conf(&self, more: Value) -> Conf {
        let mut identity = json!({
            "issuer": "tools", "url": format!("http://{}/mcp", self.page.instances[0].address()),
            "header": "X-Resource-Token", "refresh": "1s", "trust_levels": ["certified"], "capabilities": ["mail:send"],
        });
        for (name, value) in more.as_object().unwrap() {
            identity[name] = value.clone();
        }
        conf()
            .issuer("corp", &self.corp, json!({}))
            .issuer("tools", &self.tools, json!({ "jwks_cooldown": "1s" }))
            .server("mail", &self.mail)
            .of_server("identity", identity)
            .of_route("issuers", json!(["corp"]))
            .allow_all()
    }
}

#[test]
fn nothing_goes_to_a_server_before_it_has_proved_what_it_is() {
    let cast = Identified::new();
    let gateway = Gateway::start_unready(cast.conf(json!({})));
    let alice = gateway.caller(cast.corp.token());
    let wrong = [
        cast.token().subject("files"),
        cast.token().claim("trust_level", "experimental"),
        cast.token().claim("capabilities", json!(["mail:read"])),
        cast.token().audience("https://elsewhere.test"),
        cast.token().expires_in(-60),
        cast.token().signed_by_an_attacker(),
        cast.corp.token().subject("mail").audience("https://mcp.example.test"),
    ];
    send(&alice).assert_refused(503, "unidentified_server");
    let checks = |gateway: &Gateway| gateway.metric("portcullis_server_identity_checks_total", &[]);
    for token in wrong {
        cast.shows(token);
        let before = checks(&gateway);
        poll_until("two looks at the token", || (checks(&gateway) >= before + 2.0).then_some(()));
        send(&alice).assert_refused(503, "unidentified_server");
    }
    assert_eq!(gateway.admin("/readyz").status, 503);
    cast.mail.assert_saw_nothing();

    cast.shows(cast.token());
    poll_until("the server's identity", || (send(&alice).status() == 200).then_some(()));
    assert_eq!(gateway.admin("/readyz").status, 200);
    // What it shows next is somebody else's: it is closed again.
    cast.shows(cast.token().subject("files"));
    poll_until("the end of it", || (send(&alice).status() == 503).then_some(()));
    assert!(gateway.log().contains("wrong_name"));
    assert!(!gateway.everything_written().contains(&cast.token().sign()));
}

#[test]
fn what_a_server_has_proved_is_data_for_rules() {
    let cast = Identified::new();
    let body = cast.token().sign();
    cast.page.on("GET", move |_seen| crate::support::Reply::json(200, &json!({ "resource_token": body })));
    let identity = json!({ "header": null, "required": false, "trust_levels": [], "capabilities": [] });
    let mut conf = cast.conf(identity);
    conf.value["servers"][0]["identity"].as_object_mut().unwrap().remove("header");
    conf.value["routes"][0]["authorization"]["default"] = "deny".into();
    let gateway = Gateway::start(conf.rule(json!({
        "name": "certified",
        "when": r#"tool.server_identity != null && tool.server_identity.trust_level == "certified" && "mail:send" in tool.server_identity.capabilities"#,
    })));
    let alice = gateway.caller(cast.corp.token());
    assert_eq!(send(&alice).status(), 200);
    cast.page.on("GET", |_seen| crate::support::Reply::json(404, &json!({})));
    assert_eq!(send(&alice).status(), 200, "it was proved, and has not expired");
    let experimental = cast.token().claim("trust_level", "experimental").sign();
    cast.page.on("GET", move |_seen| crate::support::Reply::json(200, &json!({ "resource_token": experimental })));
    poll_until("a decision that is not kept", || (send(&alice).status() == 403).then_some(()));
}
