//! Who gets in, and how do they leave?

use serde_json::{Value, json};

use crate::support::{Browser, Conf, Gateway, Idp, Person, Request, World, poll_until, send, with_sign_in};

fn world() -> World {
    World::with(with_sign_in)
}

fn world_with(more: impl FnOnce(Conf) -> Conf) -> World {
    World::with(|conf| more(with_sign_in(conf)))
}

fn problem(answer: &crate::support::Response) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
    answer.json()["type"].as_str().unwrap().strip_prefix("urn:portcullis:problem:").unwrap().to_owned()
}

/// The last record of what people did.
fn last_sign_in(gateway: &Gateway, count: usize) -> Value {
    let path = gateway.path("audit.jsonl");
    let mut records = poll_until("the records of sign-ins", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let records: Vec<Value> =
            records.into_iter().filter(|record: &Value| record["event"] == "admin.sign_in").collect();
        (records.len() >= count).then_some(records)
    });
    assert_eq!(records.len(), count);
    records.pop().unwrap()
}

#[test]
fn somebody_with_a_role_signs_in_and_is_who_the_issuer_says() {
    let world = world();
    let mut browser = Browser::signed_in(&world.gateway, &world.idp, "ann", &["viewers", "approvers", "others"]);
    let me = browser.get("/api/v1/me").json();
    assert_eq!(me["issuer"], world.idp.issuer());
    assert_eq!((&me["subject"], &me["name"]), (&json!("ann"), &json!("ann Example")));
    assert_eq!(me["roles"], json!(["approver", "viewer"]));
    let record = last_sign_in(&world.gateway, 1);
    assert_eq!((&record["outcome"], &record["principal"]["subject"]), (&json!("ok"), &json!("ann")));
    let written = world.gateway.everything_written();
    for secret in browser.cookies.values().chain([&me["csrf_token"].as_str().unwrap().to_owned()]) {
        assert!(!written.contains(secret.as_str()), "a secret of the browser is written somewhere");
    }
}

#[test]
fn somebody_without_a_role_does_not_get_in() {
    let world = world();
    let mut browser = Browser::new(&world.gateway);
    let answer = browser.sign_in(&world.idp, &Person::new("eve", &["others"]));
    assert_eq!((answer.status, problem(&answer)), (403, "no_role".to_owned()));
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    let record = last_sign_in(&world.gateway, 1);
    assert_eq!((&record["outcome"], &record["reason"]), (&json!("refused"), &json!("no_role")));
    assert_eq!(record["principal"]["subject"], "eve");
}

/// Login CSRF: the answer to a sign-in that somebody else has begun.
#[test]
fn an_answer_to_another_browsers_sign_in_is_refused() {
    let world = world();
    let person = Person::new("mallory", &["admins"]);
    let (mut attacker, mut victim) = (Browser::new(&world.gateway), Browser::new(&world.gateway));
    let back = world.idp.let_in(&attacker.leave(), &person);
    let answer = victim.come_back(&back);
    assert_eq!((answer.status, problem(&answer)), (403, "sign_in_forged".to_owned()));
    victim.leave();
    let answer = victim.come_back(&back);
    assert_eq!((answer.status, problem(&answer)), (403, "sign_in_forged".to_owned()));
    assert!(!victim.cookies.contains_key("__Host-portcullis"));
    assert_eq!(last_sign_in(&world.gateway, 2)["reason"], "sign_in_forged");
}

#[test]
fn an_answer_is_good_once() {
    let world = world();
    let mut browser = Browser::new(&world.gateway);
    let back = world.idp.let_in(&browser.leave(), &Person::new("ann", &["viewers"]));
    let before = browser.clone();
    assert_eq!(browser.come_back(&back).status, 303);
    assert!(!browser.cookies.contains_key("__Host-portcullis-signin"), "the attempt is over");
    let replayed = before.clone().come_back(&back);
    assert_eq!((replayed.status, problem(&replayed)), (403, "sign_in_replayed".to_owned()));
}

#[test]
fn what_was_tampered_with_is_refused() {
    let world = world();
    let ann = Person::new("ann", &["viewers"]);
    let begun = || {
        let mut browser = Browser::new(&world.gateway);
        let back = world.idp.let_in(&browser.leave(), &ann);
        (browser, back)
    };
    type Change = fn(String, &Idp) -> String;
    let changes: [(&str, Change); 7] = [
        ("another state", |back, _| back.replace("&state=", "&state=x")),
        ("no state", |back, _| back.replace("&state=", "&stat=")),
        ("two states", |back, _| format!("{back}&state=x")),
        ("no code", |back, _| back.replace("?code=", "?cod=")),
        ("another issuer (RFC 9207)", |back, _| back.replace("&iss=", "&iss=x")),
        ("no issuer, though it always names itself", |back, _| back.replace("&iss=", "&is=")),
        ("two codes", |back, _| format!("{back}&code=x")),
    ];
    for (what, change) in changes {
        let (mut browser, back) = begun();
        let answer = browser.come_back(&change(back, &world.idp));
        assert_eq!((answer.status, problem(&answer)), (403, "sign_in_forged".to_owned()), "{what}");
        assert!(browser.cookies.is_empty(), "{what}: {:?}", browser.cookies);
    }
    let (mut browser, back) = begun();
    let cookie = browser.cookies.get_mut("__Host-portcullis-signin").unwrap();
    let flipped = if cookie.ends_with('A') { "B" } else { "A" };
    cookie.replace_range(cookie.len() - 1.., flipped);
    let middle = if &cookie[40..41] == "x" { "y" } else { "x" };
    cookie.replace_range(40..41, middle);
    assert_eq!(problem(&browser.come_back(&back)), "sign_in_forged");
}

#[test]
fn a_wrong_code_or_id_token_is_refused() {
    let (world, ann) = (world(), Person::new("ann", &["viewers"]));
    let mut browser = Browser::new(&world.gateway);
    let back = world.idp.let_in(&browser.leave(), &ann);
    let answer = browser.come_back(&back.replace("?code=", "?code=x"));
    assert_eq!((answer.status, problem(&answer)), (403, "issuer_refused".to_owned()));

    for (claim, value, word) in [
        ("nonce", json!("another"), "sign_in_forged"),
        ("aud", json!("another-client"), "issuer_refused"),
        ("aud", json!(["portcullis-admin", "another"]), "issuer_refused"),
        ("azp", json!("another-client"), "issuer_refused"),
        ("iss", json!("https://evil.example"), "issuer_refused"),
        ("exp", json!(1), "issuer_refused"),
    ] {
        let world = self::world();
        world.idp.put_into_id_tokens(claim, value.clone());
        let answer = Browser::new(&world.gateway).sign_in(&world.idp, &ann);
        assert_eq!((answer.status, problem(&answer)), (403, word.to_owned()), "{claim}: {value}");
    }
}

#[test]
fn an_issuer_that_does_not_name_itself_is_not_asked_to() {
    let idp = Idp::start();
    idp.hide_iss();
    let tickets = crate::support::McpServer::start().tool("read");
    let gateway = Gateway::start(with_sign_in(crate::support::usual(&idp, &tickets)));
    Browser::signed_in(&gateway, &idp, "ann", &["viewers"]);
}

#[test]
fn an_issuer_that_says_no_is_told_as_such() {
    let world = world();
    let mut browser = Browser::new(&world.gateway);
    let back = world.idp.let_in(&browser.leave(), &Person::new("ann", &[]));
    let (page, query) = back.split_once('?').unwrap();
    let answer = browser.come_back(&format!("{page}?error=access_denied&{query}"));
    assert_eq!((answer.status, problem(&answer)), (403, "issuer_refused".to_owned()));
}

#[test]
fn an_attempt_that_takes_too_long_is_over() {
    let world = world_with(|conf| conf.set("admin.sign_in.attempt_ttl", "10s"));
    let mut browser = Browser::new(&world.gateway);
    let answer = browser.get("/signin");
    let cookie = answer.headers.iter().find(|(name, _)| name == "set-cookie").unwrap();
    assert!(cookie.1.contains("Max-Age=10"), "{cookie:?}");
}

#[test]
fn people_come_back_to_where_they_were_and_nowhere_else() {
    let world = world();
    for (return_to, expected) in [("/%23/audit", "/#/audit"), ("//evil.example", "/"), ("https://evil.example/", "/")] {
        let mut browser = Browser::new(&world.gateway);
        let answer = browser.get(&format!("/signin?return_to={return_to}"));
        let location = answer.header("location").unwrap().to_owned();
        let back = world.idp.let_in(&location, &Person::new("ann", &["viewers"]));
        assert_eq!(browser.come_back(&back).header("location"), Some(expected), "{return_to}");
    }
}

#[test]
fn whoever_signs_out_is_out() {
    let world = world();
    let mut browser = Browser::signed_in(&world.gateway, &world.idp, "ann", &["viewers"]);
    let before = browser.clone();
    let answer = browser.post("/api/v1/signout", &json!({}));
    assert_eq!(answer.status, 200, "{answer}");
    let end_session = answer.json()["end_session"].as_str().unwrap().to_owned();
    assert!(
        end_session.starts_with(&format!("{}/logout?client_id=portcullis-admin", world.idp.issuer())),
        "{end_session}"
    );
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    assert_eq!(before.clone().get("/api/v1/me").status, 401, "the cookie of before opens nothing");
}

#[test]
fn a_session_ends_with_its_time_used_or_not() {
    let ends = |world: &World, what: &str| {
        let mut browser = Browser::signed_in(&world.gateway, &world.idp, "ann", &["viewers"]);
        poll_until(what, || (browser.get("/api/v1/me").status == 401).then_some(()));
    };
    ends(&world_with(|conf| conf.set("admin.sign_in.session_ttl", "3s")), "the end of a session that is used");
    let idle = world_with(|conf| conf.set("admin.sign_in.session_idle", "2s"));
    let mut browser = Browser::signed_in(&idle.gateway, &idle.idp, "ann", &["viewers"]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(browser.get("/api/v1/me").status, 401, "the end of a session that is not used");
}

#[test]
fn a_role_that_is_taken_away_is_gone_at_once() {
    let world = world();
    let mut browser = Browser::signed_in(&world.gateway, &world.idp, "ann", &["auditors"]);
    assert_eq!(browser.get("/api/v1/audit").status, 200);
    let path = world.gateway.path("portcullis.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"auditors\"", "\"nobodies\"");
    std::fs::write(&path, text).unwrap();
    world.gateway.signal("HUP");
    poll_until("the role to go", || (browser.get("/api/v1/audit").status == 403).then_some(()));
}

#[test]
fn an_access_token_of_the_issuer_opens_the_api_when_it_is_meant_for_it() {
    let world = world();
    let admin = world.gateway.admin_address();
    let token = |audience: String| world.idp.token().audience(audience).claim("groups", json!(["admins"]));
    let get =
        |token: &str| send(admin, &Request::get("/api/v1/me").header("Authorization", &format!("Bearer {token}")));
    let answer = get(&token(format!("http://{admin}")).sign());
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!((&answer.json()["csrf_token"], &answer.json()["roles"]), (&Value::Null, &json!(["admin"])));
    for (what, bad) in [
        ("for the gateway itself", token("https://mcp.example.test/mcp".into()).sign()),
        ("expired", token(format!("http://{admin}")).expires_in(-600).sign()),
        ("forged", token(format!("http://{admin}")).signed_by_an_attacker().sign()),
        ("no token", "x".into()),
    ] {
        let answer = get(&bad);
        assert_eq!((answer.status, problem(&answer)), (401, "invalid_token".to_owned()), "{what}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "), "{what}");
    }
    let refused = send(
        admin,
        &Request::new("POST", "/api/v1/policy/explain")
            .header("Authorization", &format!("Bearer {}", token(format!("http://{admin}")).sign()))
            .header("Content-Type", "application/json")
            .body(r#"{"route":"/mcp"}"#),
    );
    assert_eq!(refused.status, 200, "a token needs no proof that a page of ours sends it: {refused}");
}

#[test]
fn a_page_is_shown_to_browsers_that_are_not_let_in() {
    let world = world();
    let answer = send(
        world.gateway.admin_address(),
        &Request::get("/signin/callback?code=%3Cscript%3E").header("Accept", "text/html"),
    );
    assert_eq!((answer.status, answer.header("content-type")), (403, Some("text/html; charset=utf-8")));
    assert!(!answer.text().contains("script"), "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}
