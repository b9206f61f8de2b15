#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use proptest::prelude::*;
use serde_json::json;

use super::super::ActorToken;
use super::super::Credential;
use super::super::Origin;
use super::*;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const SUBJECT: Subject<'static> =
    Subject { token: "caller.token.value", expires_at: UnixSeconds(NOW.0 + 3600), actor: None };

// ── The form ──

#[test]
fn asks_with_the_parameters_of_rfc_8693_and_no_others() {
    let plan = ExchangePlan { audience: vec![], scope: vec![], ..plan() };
    let request = request(&plan, subject("subject"));
    assert_eq!(request.url, "https://sts.test/token");
    assert_eq!(
        form(&request),
        pairs(&[("grant_type", GRANT_TYPE), ("subject_token_type", ACCESS_TOKEN), ("subject_token", "subject")])
    );
}

#[test]
fn repeats_audience_and_resource_and_joins_scope() {
    let plan = ExchangePlan {
        audience: vec!["tickets".to_owned(), "wiki".to_owned()],
        resource: vec!["https://a.test/mcp".to_owned(), "https://b.test/?x=1&y=2".to_owned()],
        scope: vec!["tickets:read".to_owned(), "tickets:write".to_owned()],
        requested_token_type: Some(JWT.to_owned()),
        ..plan()
    };
    assert_eq!(
        form(&request(&plan, subject("subject"))),
        pairs(&[
            ("grant_type", GRANT_TYPE),
            ("audience", "tickets"),
            ("audience", "wiki"),
            ("resource", "https://a.test/mcp"),
            ("resource", "https://b.test/?x=1&y=2"),
            ("scope", "tickets:read tickets:write"),
            ("requested_token_type", JWT),
            ("subject_token_type", ACCESS_TOKEN),
            ("subject_token", "subject"),
        ])
    );
}

#[test]
fn a_hostile_subject_token_adds_no_parameter() {
    let plan = plan();
    let request = request(&plan, subject("x&audience=admin&client_id=other\r\n"));
    assert_eq!(
        form(&request).last(),
        Some(&("subject_token".to_owned(), "x&audience=admin&client_id=other\r\n".to_owned()))
    );
    assert!(!form(&request).iter().any(|(name, value)| name == "audience" && value == "admin"));
}

/// RFC 6749 §2.3.1: id and secret are form-urlencoded before they are joined by a colon.
#[test]
fn client_secret_basic_encodes_id_and_secret_first() {
    let plan = ExchangePlan {
        client_id: "port:cullis ä".to_owned(),
        client_secret: Some(Secret::new("p%w+d/=".to_owned())),
        ..plan()
    };
    let request = request(&plan, subject("subject"));
    let value = request.authorization.as_ref().unwrap().expose().clone();
    let pair = STANDARD.decode(value.strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(String::from_utf8(pair).unwrap(), "port%3Acullis+%C3%A4:p%25w%2Bd%2F%3D");
    assert!(!form(&request).iter().any(|(name, _)| name.starts_with("client_")));
}

#[test]
fn client_secret_post_puts_both_into_the_form() {
    let plan = ExchangePlan { client_auth: ClientAuth::ClientSecretPost, ..plan() };
    let request = request(&plan, subject("subject"));
    assert!(request.authorization.is_none());
    assert_eq!(value_of(&request, "client_id").as_deref(), Some("portcullis"));
    assert_eq!(value_of(&request, "client_secret").as_deref(), Some("s3cr3t"));
}

#[test]
fn a_public_client_only_names_itself() {
    let plan = ExchangePlan { client_auth: ClientAuth::None, client_secret: None, ..plan() };
    let request = request(&plan, subject("subject"));
    assert!(request.authorization.is_none());
    assert_eq!(value_of(&request, "client_id").as_deref(), Some("portcullis"));
    assert_eq!(value_of(&request, "client_secret"), None);
}

#[test]
fn debug_shows_neither_token_nor_secret() {
    let plan = plan();
    let shown = format!("{:?} {SUBJECT:?} {plan:?}", request(&plan, subject("caller-token")));
    assert!(!shown.contains("caller-token") && !shown.contains("s3cr3t") && !shown.contains("caller.token"), "{shown}");
}

proptest! {
    /// Whatever stands in it, a value comes out of the form as it went in, and as one parameter.
    #[test]
    fn any_text_survives_the_form(text in any::<String>()) {
        let plan = ExchangePlan { audience: vec![text.clone()], ..plan() };
        let request = request(&plan, subject(&text));
        prop_assert!(request.body.expose().bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(value_of(&request, "audience"), Some(text.clone()));
        prop_assert_eq!(value_of(&request, "subject_token"), Some(text));
    }

    /// The answer comes from outside: nothing in it may crash the reader.
    #[test]
    fn no_answer_crashes_the_reader(status in 0_u16..700, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_answer(&plan(), SUBJECT, status, &body, NOW);
    }

    /// The law of lifetimes: no answer makes a token outlive the caller's.
    #[test]
    fn no_token_outlives_the_subject(
        expires_in in proptest::option::of(any::<i64>()),
        subject_lives in -100_i64..100_000,
    ) {
        let subject = Subject { expires_at: UnixSeconds(NOW.0.saturating_add_signed(subject_lives)), ..SUBJECT };
        let mut answer = answer();
        match expires_in {
            Some(seconds) => answer["expires_in"] = json!(seconds),
            None => { answer.as_object_mut().unwrap().remove("expires_in"); }
        }
        if let Ok(token) = read_answer(&plan(), subject, 200, answer.to_string().as_bytes(), NOW) {
            prop_assert!(token.expires_at() <= subject.expires_at);
            prop_assert!(!token.is_fresh(subject.expires_at));
            prop_assert!(!token.is_fresh(token.expires_at()));
        }
    }
}

// ── The answer ──

#[test]
fn a_good_answer_becomes_a_bearer_credential() {
    let token = read(&answer()).unwrap();
    let credential = Credential::from_exchanged(&token, Origin::Fresh);
    assert_eq!(credential.header(), "authorization");
    assert_eq!(credential.value().as_bytes(), b"Bearer exchanged-token");
    assert!(credential.value().is_sensitive());
    assert_eq!(credential.mode().label(), "token_exchange");
    assert_eq!(credential.audience().iter().map(|a| &**a).collect::<Vec<_>>(), ["tickets"]);
    assert_eq!(&**credential.scope(), "tickets:read");
    assert!(!credential.is_cached());
    assert!(Credential::from_exchanged(&token, Origin::Cached).is_cached());
    assert!(!format!("{token:?} {credential:?}").contains("exchanged-token"));
}

#[test]
fn the_granted_scope_replaces_the_asked_one() {
    let mut answer = answer();
    answer["scope"] = json!("tickets:read:own");
    assert_eq!(&**read(&answer).unwrap().scope(), "tickets:read:own");
}

#[test]
fn resources_stand_for_audiences_that_were_not_asked_for() {
    let plan = ExchangePlan { audience: vec![], resource: vec!["https://r.test".to_owned()], ..plan() };
    let token = read_answer(&plan, SUBJECT, 200, answer().to_string().as_bytes(), NOW).unwrap();
    assert_eq!(token.audience().iter().map(|a| &**a).collect::<Vec<_>>(), ["https://r.test"]);
}

#[test]
fn only_a_bearer_token_is_sent_as_one() {
    let rows = [
        (json!("Bearer"), None),
        (json!("bearer"), None),
        (json!("BEARER"), None),
        (json!("N_A"), Some(ExchangeError::TokenType)),
        (json!("DPoP"), Some(ExchangeError::TokenType)),
        (json!("mac"), Some(ExchangeError::TokenType)),
        (json!(""), Some(ExchangeError::TokenType)),
        (json!(null), Some(ExchangeError::TokenType)),
        (json!(7), Some(ExchangeError::MalformedAnswer)),
    ];
    for (kind, error) in rows {
        let mut answer = answer();
        answer["token_type"] = kind.clone();
        assert_eq!(read(&answer).err(), error, "{kind}");
    }
}

#[test]
fn a_missing_token_type_is_bearer_only_where_the_plan_says_so() {
    let mut answer = answer();
    answer.as_object_mut().unwrap().remove("token_type");
    assert_eq!(read(&answer).err(), Some(ExchangeError::TokenType));
    let lenient = ExchangePlan { accept_missing_token_type: true, ..plan() };
    assert!(read_answer(&lenient, SUBJECT, 200, answer.to_string().as_bytes(), NOW).is_ok());
    answer["token_type"] = json!("N_A");
    let refused = read_answer(&lenient, SUBJECT, 200, answer.to_string().as_bytes(), NOW);
    assert_eq!(refused.err(), Some(ExchangeError::TokenType));
}

#[test]
fn the_issued_type_must_be_the_requested_one() {
    const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
    const REFRESH: &str = "urn:ietf:params:oauth:token-type:refresh_token";
    let wrong = Some(ExchangeError::TokenKind);
    let rows = [
        (None, None, None),
        (None, Some(ACCESS_TOKEN), None),
        (None, Some(JWT), None),
        (None, Some(ID_TOKEN), wrong),
        (None, Some(REFRESH), wrong),
        (Some(ACCESS_TOKEN), Some(JWT), None),
        (Some(ACCESS_TOKEN), Some(ID_TOKEN), wrong),
        (Some(JWT), Some(ACCESS_TOKEN), None),
        (Some(ID_TOKEN), Some(ID_TOKEN), None),
        (Some(ID_TOKEN), Some(ACCESS_TOKEN), wrong),
        (Some("urn:example:own"), Some("urn:example:own"), None),
        (Some("urn:example:own"), Some(ACCESS_TOKEN), wrong),
        (Some("urn:example:own"), None, None),
    ];
    for (requested, issued, error) in rows {
        let plan = ExchangePlan { requested_token_type: requested.map(str::to_owned), ..plan() };
        let mut answer = answer();
        answer["issued_token_type"] = json!(issued);
        let read = read_answer(&plan, SUBJECT, 200, answer.to_string().as_bytes(), NOW);
        assert_eq!(read.err(), error, "{requested:?} {issued:?}");
    }
}

/// The MCP specification forbids token passthrough; a token endpoint that echoes would be one.
#[test]
fn refuses_the_callers_own_token() {
    let mut answer = answer();
    answer["access_token"] = json!(SUBJECT.token);
    assert_eq!(read(&answer).err(), Some(ExchangeError::TokenUnchanged));
}

/// RFC 8693 §2.1: the agent goes as the actor, and only where that is configured.
#[test]
fn the_agents_token_goes_as_the_actor_where_the_plan_says_so() {
    let acting = Subject { actor: Some("agent.token.value"), ..SUBJECT };
    let named = Some(ActorToken { token_type: "urn:ietf:params:oauth:token-type:jwt".to_owned() });
    for (actor_token, subject, sent) in [(named.clone(), acting, true), (named, SUBJECT, false), (None, acting, false)]
    {
        let plan = ExchangePlan { actor_token, ..plan() };
        let request = request(&plan, subject);
        let body = request.body.expose();
        let actor = "&actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&actor_token=agent.token.value";
        assert_eq!(body.contains(actor), sent, "{body}");
        assert_eq!(body.contains("actor"), sent, "{body}");
        assert!(body.contains("subject_token=caller.token.value"), "{body}");
    }
}

#[test]
fn refuses_the_agents_own_token() {
    let mut answer = answer();
    answer["access_token"] = json!("agent.token.value");
    let acting = Subject { actor: Some("agent.token.value"), ..SUBJECT };
    let read = read_answer(&plan(), acting, 200, answer.to_string().as_bytes(), NOW);
    assert_eq!(read.err(), Some(ExchangeError::TokenUnchanged));
}

#[test]
fn a_token_that_is_not_visible_ascii_is_refused() {
    for token in ["", " ", "a b", "a\r\nX-Admin: 1", "a\tb", "é", "a\u{7f}", "a\0"] {
        let mut answer = answer();
        answer["access_token"] = json!(token);
        assert_eq!(read(&answer).err(), Some(ExchangeError::MalformedAnswer), "{token:?}");
    }
}

#[test]
fn a_token_over_its_bound_is_refused() {
    let mut answer = answer();
    answer["access_token"] = json!("x".repeat(TOKEN_BYTES_MAX));
    assert!(read(&answer).is_ok());
    answer["access_token"] = json!("x".repeat(TOKEN_BYTES_MAX + 1));
    assert_eq!(read(&answer).err(), Some(ExchangeError::TooLarge));
    let body = vec![b' '; ANSWER_BYTES_MAX + 1];
    assert_eq!(read_answer(&plan(), SUBJECT, 200, &body, NOW).err(), Some(ExchangeError::TooLarge));
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_malformed() {
    for body in [
        "",
        "null",
        "[]",
        "access_token=abc&token_type=Bearer",
        "{}",
        r#"{"access_token":null,"token_type":"Bearer"}"#,
        r#"{"access_token":["a"],"token_type":"Bearer"}"#,
        r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#,
        r#"{"access_token":"a","token_type":"Bearer"} trailing"#,
        "{\"access_token\":\"\u{0}\",\"token_type\":\"Bearer\"}",
    ] {
        let read = read_answer(&plan(), SUBJECT, 200, body.as_bytes(), NOW);
        assert_eq!(read.err(), Some(ExchangeError::MalformedAnswer), "{body}");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    for status in [100, 201, 204, 301, 302, 307, 308] {
        let read = read_answer(&plan(), SUBJECT, status, answer().to_string().as_bytes(), NOW);
        assert_eq!(read.err(), Some(ExchangeError::MalformedAnswer), "{status}");
    }
}

// ── Its lifetime ──

#[test]
fn expires_in_may_be_a_number_or_a_string_of_digits() {
    let malformed = Err(ExchangeError::MalformedAnswer);
    let rows = [
        (json!(300), Ok(300)),
        (json!("300"), Ok(300)),
        (json!(0), malformed),
        (json!(-1), malformed),
        (json!("0"), malformed),
        (json!("-5"), malformed),
        (json!("+5"), malformed),
        (json!(""), malformed),
        (json!("soon"), malformed),
        (json!(1.5), malformed),
        (json!(true), malformed),
        (json!([300]), malformed),
        // Above every bound: the subject's expiry holds.
        (json!(u64::MAX), Ok(3600)),
        (json!("99999999999999999999999"), malformed),
    ];
    for (expires_in, expected) in rows {
        let mut answer = answer();
        answer["expires_in"] = expires_in.clone();
        let seconds = read(&answer).map(|token| token.expires_at().0 - NOW.0);
        assert_eq!(seconds, expected, "{expires_in}");
    }
}

#[test]
fn the_subjects_expiry_caps_the_tokens() {
    let mut answer = answer();
    answer["expires_in"] = json!(86_400);
    assert_eq!(read(&answer).unwrap().expires_at(), SUBJECT.expires_at);
}

#[test]
fn without_expires_in_the_tokens_own_exp_counts_and_else_a_minute() {
    let rows = [
        (jwt(&json!({"exp": NOW.0 + 100})), 100),
        (jwt(&json!({"exp": NOW.0 as f64 + 100.7})), 100),
        (jwt(&json!({"exp": NOW.0 + 1_000_000})), 3600),
        (jwt(&json!({"exp": u64::MAX})), 3600),
        (jwt(&json!({"sub": "x"})), 60),
        (jwt(&json!({"exp": "tomorrow"})), 60),
        (jwt(&json!({"exp": -5})), 60),
        ("opaque".to_owned(), 60),
        ("two.parts".to_owned(), 60),
        ("f.o.u.r".to_owned(), 60),
        ("a.!!!.c".to_owned(), 60),
    ];
    for (token, seconds) in rows {
        let mut answer = answer();
        answer["access_token"] = json!(token);
        answer.as_object_mut().unwrap().remove("expires_in");
        assert_eq!(read(&answer).unwrap().expires_at().0 - NOW.0, seconds, "{token}");
    }
}

#[test]
fn a_token_is_fresh_until_a_fifth_or_half_a_minute_before_its_end() {
    for (expires_in, fresh_for) in [(300, 270), (150, 120), (100, 80), (10, 8), (4, 4), (1, 1)] {
        let mut answer = answer();
        answer["expires_in"] = json!(expires_in);
        let token = read(&answer).unwrap();
        assert!(token.is_fresh(UnixSeconds(NOW.0 + fresh_for - 1)), "{expires_in}");
        assert!(!token.is_fresh(UnixSeconds(NOW.0 + fresh_for)), "{expires_in}");
    }
}

// ── Its errors ──

#[test]
fn an_error_answer_is_told_by_its_code_and_else_by_its_status() {
    use ExchangeError::*;
    let code = |code: &str| json!({"error": code, "error_description": "token eyJ… is bad"}).to_string();
    let rows = [
        (400, code("invalid_request"), InvalidRequest),
        (401, code("invalid_client"), InvalidClient),
        (400, code("invalid_grant"), InvalidGrant),
        (400, code("invalid_target"), InvalidTarget),
        (400, code("invalid_scope"), InvalidScope),
        (400, code("unauthorized_client"), UnauthorizedClient),
        (400, code("unsupported_grant_type"), UnsupportedGrantType),
        (400, code("interaction_required"), InteractionRequired),
        (400, code("consent_required"), InteractionRequired),
        (400, code("temporarily_unavailable"), TemporarilyUnavailable),
        (403, code("access_denied"), Refused),
        (400, code("Invalid_Grant"), Refused),
        (401, String::new(), InvalidClient),
        (400, "<html>".to_owned(), Refused),
        (404, "{}".to_owned(), Refused),
        (429, code("invalid_grant"), RateLimited),
        (500, code("invalid_grant"), ServerError),
        (502, String::new(), ServerError),
        (503, code("temporarily_unavailable"), TemporarilyUnavailable),
        (503, "busy".to_owned(), ServerError),
        (200, code("invalid_grant"), InvalidGrant),
        (200, json!({"error": null}).to_string(), MalformedAnswer),
        (600, String::new(), MalformedAnswer),
    ];
    for (status, body, error) in rows {
        let read = read_answer(&plan(), SUBJECT, status, body.as_bytes(), NOW);
        assert_eq!(read.err(), Some(error), "{status} {body}");
    }
}

#[test]
fn labels_are_words_and_differ() {
    let mut labels: Vec<_> = ExchangeError::ALL.iter().map(|error| error.label()).collect();
    assert!(labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), ExchangeError::ALL.len());
}

/// Gateways that retry a 4xx turn one bad token into a flood.
#[test]
fn only_passing_failures_are_retried_and_only_the_callers_are_the_callers() {
    let of = |test: fn(ExchangeError) -> bool| {
        ExchangeError::ALL.into_iter().filter(|error| test(*error)).map(ExchangeError::label).collect::<Vec<_>>()
    };
    assert_eq!(
        of(ExchangeError::is_retryable),
        ["rate_limited", "server_error", "temporarily_unavailable", "unreachable"]
    );
    assert_eq!(of(ExchangeError::is_caller_fault), ["interaction_required", "invalid_grant"]);
    assert_eq!(ExchangeError::InvalidGrant.remembered_for(), Duration::from_secs(5));
    assert_eq!(ExchangeError::ServerError.remembered_for(), Duration::from_secs(1));
    assert_eq!(ExchangeError::Timeout.remembered_for(), Duration::from_secs(1));
}

// ── Helpers ──

fn subject(token: &str) -> Subject<'_> {
    Subject { token, ..SUBJECT }
}

fn plan() -> ExchangePlan {
    ExchangePlan {
        token_endpoint: "https://sts.test/token".to_owned(),
        client_id: "portcullis".to_owned(),
        client_secret: Some(Secret::new("s3cr3t".to_owned())),
        client_auth: ClientAuth::ClientSecretBasic,
        audience: vec!["tickets".to_owned()],
        resource: vec![],
        scope: vec!["tickets:read".to_owned()],
        subject_token_type: ACCESS_TOKEN.to_owned(),
        requested_token_type: None,
        actor_token: None,
        timeout: Duration::from_secs(5),
        accept_missing_token_type: false,
    }
}

fn answer() -> Value {
    json!({
        "access_token": "exchanged-token",
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
    })
}

fn read(answer: &Value) -> Result<ExchangedToken, ExchangeError> {
    read_answer(&plan(), SUBJECT, 200, answer.to_string().as_bytes(), NOW)
}

fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Decodes the form as a server would.
fn form(request: &ExchangeRequest<'_>) -> Vec<(String, String)> {
    request
        .body
        .expose()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (urldecode(name), urldecode(value)))
        .collect()
}

fn value_of(request: &ExchangeRequest<'_>, name: &str) -> Option<String> {
    form(request).into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

fn urldecode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(out).unwrap()
}
