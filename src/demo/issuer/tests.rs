#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use super::*;
use crate::demo::loopback::LoopbackListener;
use crate::demo::token::unverified_claims;

const RESOURCE: &str = "http://127.0.0.1:8080/mcp";

#[tokio::test]
async fn publishes_the_same_metadata_at_both_well_known_paths() {
    let running = Running::start();
    let url = running.issuer.url();
    for document in ["openid-configuration", "oauth-authorization-server"] {
        let metadata = running.get(&format!("/.well-known/{document}")).await;
        assert_eq!(metadata["issuer"], *url, "{document}");
        assert_eq!(metadata["jwks_uri"], format!("{url}/jwks"), "{document}");
        assert_eq!(metadata["token_endpoint"], format!("{url}/token"), "{document}");
    }
    assert_eq!(running.get("/jwks").await, running.issuer.key.jwks());
}

#[tokio::test]
async fn signs_sample_people_in_for_the_gateway_and_nobody_else() {
    let running = Running::start();
    let back = "http://127.0.0.1:9091/signin/callback";
    let (state, nonce, verifier) = ("s".repeat(43), "n".repeat(43), "v".repeat(43));
    let challenge = {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()).as_ref())
    };
    let asked = [
        ("response_type", "code"),
        ("client_id", "portcullis"),
        ("redirect_uri", back),
        ("scope", "openid profile"),
        ("state", &*state),
        ("nonce", &*nonce),
        ("code_challenge", &*challenge),
        ("code_challenge_method", "S256"),
    ];
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = |asked: &[(&str, &str)]| {
        reqwest::Url::parse_with_params(&format!("{}/authorize", running.issuer.url()), asked).unwrap()
    };
    let page = http.get(url(&asked)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("value=\"dana\"") && page.contains("value=\"erin\""), "{page}");
    for (nth, value) in [(1, "another"), (2, "https://evil.example/"), (3, "profile"), (4, "\"><script>"), (7, "plain")]
    {
        let mut asked = asked;
        asked[nth].1 = value;
        assert_eq!(http.get(url(&asked)).send().await.unwrap().status(), 400, "{value}");
    }

    let form = format!("state={state}&nonce={nonce}&code_challenge={challenge}&person=erin");
    let chosen = http.post(url(&[])).header("content-type", "application/x-www-form-urlencoded").body(form);
    let chosen = chosen.send().await.unwrap();
    assert_eq!(chosen.status(), 303);
    let location = reqwest::Url::parse(chosen.headers()["location"].to_str().unwrap()).unwrap();
    let answer = |name: &str| location.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    assert!(location.as_str().starts_with(back));
    assert_eq!((answer("state"), answer("iss")), (state, running.issuer.url().to_owned()));
    let code = answer("code");
    let form =
        [("grant_type", "authorization_code"), ("code", &*code), ("code_verifier", &*verifier), ("redirect_uri", back)];
    let (status, _refused) = running.post(None, &form).await;
    assert_eq!(status, 401, "nobody but the gateway redeems a code");
    let (status, tokens) = running.post(Some(&running.gateway()), &form).await;
    assert_eq!(status, 200, "{tokens}");
    let claims = unverified_claims(tokens["id_token"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["aud"], &claims["nonce"]),
        (&json!("erin"), &json!("portcullis"), &json!(nonce))
    );
    assert_eq!(claims["groups"], json!(["security"]));
    let (status, again) = running.post(Some(&running.gateway()), &form).await;
    assert_eq!((status, again["error"].as_str()), (400, Some("invalid_grant")), "a code is good once");
}

#[tokio::test]
async fn logs_each_sample_user_in_with_the_scopes_of_that_user() {
    let running = Running::start();
    for (name, scopes) in [("alice", Some("tools:read")), ("bob", Some("tools:read tools:write")), ("carol", None)] {
        let (status, answer) = running.log_in(name, &[]).await;
        assert_eq!(status, 200, "{name}");
        let token = answer["access_token"].as_str().unwrap();
        let claims = running.issuer.verify(token, RESOURCE, Clock.now()).unwrap();
        assert_eq!(claims["sub"], name);
        assert_eq!(claims.get("scope").and_then(Value::as_str), scopes, "{name}");
        assert_eq!(claims["act"]["sub"], "demo-agent", "{name}");
        assert_eq!(answer["expires_in"], 3600);
    }
}

#[tokio::test]
async fn refuses_a_login_for_its_own_reason() {
    let running = Running::start();
    let table = [
        (vec![("password", "guessed")], 400, "invalid_request"), // twice: the right one and a guess
        (vec![("scope", "tools:admin")], 400, "invalid_scope"),
        (vec![("resource", "https://elsewhere.test/mcp")], 400, "invalid_target"),
    ];
    for (extra, status, code) in table {
        let (seen, answer) = running.log_in("alice", &extra).await;
        assert_eq!((seen, answer["error"].as_str()), (status, Some(code)), "{extra:?}");
    }
    let guess = [("grant_type", "password"), ("client_id", "demo-agent"), ("username", "alice"), ("password", "alice")];
    let (status, answer) = running.post(None, &guess).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")));
    let (status, answer) = running.post(None, &guess[..1]).await;
    assert_eq!((status, answer["error"].as_str()), (401, Some("invalid_client")));
    let (status, answer) = running.post(None, &[("grant_type", "client_credentials")]).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("unsupported_grant_type")));
}

/// RFC 8693 §2.2.1 and §4.1: same subject, narrower audience, the gateway as actor, never longer than the subject token.
#[tokio::test]
async fn exchanges_a_token_meant_for_the_gateway_for_a_short_one_for_the_tools() {
    let running = Running::start();
    let subject = running.token("bob", &[READ, WRITE], RESOURCE, 3600);
    let (status, answer) = running.exchange(&subject, &[("scope", READ)]).await;
    assert_eq!(status, 200);
    assert_eq!(answer["issued_token_type"], ACCESS_TOKEN);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 120);
    assert_eq!(answer["scope"], READ);
    let exchanged = answer["access_token"].as_str().unwrap();
    let claims = running.issuer.verify(exchanged, TOOLS_AUDIENCE, Clock.now()).unwrap();
    assert_eq!(claims["sub"], "bob");
    assert_eq!(claims["act"], json!({ "sub": "portcullis" }));
    assert_eq!(claims["client_id"], "portcullis");
    assert_eq!(claims["scope"], READ);
    assert_ne!(claims["jti"], unverified_claims(&subject).unwrap()["jti"]);
}

#[tokio::test]
async fn an_exchanged_token_never_outlives_the_subject_token() {
    let running = Running::start();
    let subject = running.token("alice", &[READ], RESOURCE, 30);
    let (status, answer) = running.exchange(&subject, &[]).await;
    assert_eq!(status, 200);
    let ends = |token: &str| unverified_claims(token).unwrap()["exp"].as_u64().unwrap();
    assert!(ends(answer["access_token"].as_str().unwrap()) <= ends(&subject));
}

#[tokio::test]
async fn an_exchange_never_adds_a_scope() {
    let running = Running::start();
    let both = format!("{READ} {WRITE}");
    for (held, granted) in [(&[READ][..], READ), (&[], "")] {
        let subject = running.token("alice", held, RESOURCE, 3600);
        let (status, answer) = running.exchange(&subject, &[("scope", &both)]).await;
        assert_eq!((status, answer["scope"].as_str()), (200, Some(granted)), "{held:?}");
    }
}

#[tokio::test]
async fn refuses_a_subject_token_that_was_not_minted_for_the_gateway_and_now() {
    let running = Running::start();
    let stranger = Issuer::new(running.issuer.url().to_owned(), RESOURCE.to_owned()).unwrap();
    let grant = |audience| Grant {
        user: "alice",
        scopes: &[READ],
        audience,
        client: Client::Agent,
        lifetime: Duration::from_secs(60),
    };
    let long_ago = UnixSeconds(1_700_000_000);
    let table = [
        ("expired", running.issuer.mint(&grant(RESOURCE), long_ago).unwrap()),
        ("signed by another key", stranger.mint(&grant(RESOURCE), Clock.now()).unwrap()),
        ("for another resource", running.token("alice", &[READ], "https://elsewhere.test/mcp", 60)),
        ("already exchanged", running.token("alice", &[READ], TOOLS_AUDIENCE, 60)),
        ("no token", "opaque".to_owned()),
    ];
    for (name, subject) in table {
        let (status, answer) = running.exchange(&subject, &[]).await;
        assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_request")), "{name}");
        assert_eq!(answer.get("access_token"), None, "{name}");
    }
}

#[tokio::test]
async fn refuses_an_exchange_by_anybody_but_the_gateway() {
    let running = Running::start();
    let subject = running.token("alice", &[READ], RESOURCE, 60);
    let secret = running.issuer.client_secret().expose();
    let table = [
        ("nobody", None),
        ("wrong secret", Some(basic("portcullis", "guessed"))),
        ("wrong id", Some(basic("portcullis2", secret))),
        ("empty secret", Some(basic("portcullis", ""))),
        ("another scheme", Some(format!("Bearer {secret}"))),
        ("no base64", Some("Basic ~".to_owned())),
    ];
    for (name, authorization) in table {
        let (status, answer) = running.post(authorization.as_deref(), &exchange_form(&subject)).await;
        assert_eq!((status, answer["error"].as_str()), (401, Some("invalid_client")), "{name}");
    }
}

#[tokio::test]
async fn refuses_an_exchange_that_asks_for_what_is_not_offered() {
    let running = Running::start();
    let subject = running.token("alice", &[READ], RESOURCE, 60);
    let table = [
        (("audience", "demo-tools"), "invalid_request"), // twice
        (("resource", "https://tools.test"), "invalid_target"),
        (("actor_token", "x"), "invalid_request"),
        (("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"),
        (("scope", "tools:admin"), "invalid_scope"),
    ];
    for (extra, code) in table {
        let (status, answer) = running.exchange(&subject, &[extra]).await;
        assert_eq!((status, answer["error"].as_str()), (400, Some(code)), "{extra:?}");
    }
    for (changed, value, code) in [
        ("audience", "other-tools", "invalid_target"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token", "invalid_request"),
        ("subject_token", "", "invalid_request"),
    ] {
        let mut form = exchange_form(&subject);
        form.iter_mut().filter(|(name, _)| *name == changed).for_each(|pair| pair.1 = value);
        let (status, answer) = running.post(Some(&running.gateway()), &form).await;
        assert_eq!((status, answer["error"].as_str()), (400, Some(code)), "{changed}");
    }
}

/// RFC 6749 §2.3.1: id and secret are form-urlencoded before they are joined.
#[test]
fn decodes_what_a_client_has_form_urlencoded() {
    let table = [
        ("plain-_.~", Some("plain-_.~")),
        ("a%3Ab+c%2B", Some("a:b c+")),
        ("%C3%A9", Some("é")),
        ("%C3", None),
        ("%4", None),
        ("%zz", None),
    ];
    for (encoded, decoded) in table {
        assert_eq!(form_decoded(encoded).as_deref(), decoded, "{encoded}");
    }
}

#[tokio::test]
async fn refuses_a_host_that_is_not_its_own() {
    let running = Running::start();
    let url = format!("{}/jwks", running.issuer.url());
    let answer = running.http.get(url).header("host", "rebound.test").send().await.unwrap();
    assert_eq!(answer.status(), 403);
}

struct Running {
    issuer: Arc<Issuer>,
    http: reqwest::Client,
    _stop: DropGuard,
}

impl Running {
    fn start() -> Self {
        let listener = LoopbackListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let issuer = Issuer::new(format!("http://{}", listener.address()), RESOURCE.to_owned()).unwrap();
        let issuer = Arc::new(issuer.signing_in_for("http://127.0.0.1:9091/signin/callback".to_owned()));
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(Arc::clone(&issuer).router(), stop.clone()));
        Self { issuer, http: crate::demo::http_client().unwrap(), _stop: stop.drop_guard() }
    }

    async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{}{path}", self.issuer.url())).send().await.unwrap().json().await.unwrap()
    }

    async fn post(&self, authorization: Option<&str>, form: &[(&str, &str)]) -> (u16, Value) {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let mut request = self
            .http
            .post(format!("{}/token", self.issuer.url()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn log_in(&self, name: &str, extra: &[(&str, &str)]) -> (u16, Value) {
        let user = self.issuer.users().iter().find(|user| user.name == name).unwrap();
        let mut form = vec![
            ("grant_type", "password"),
            ("client_id", "demo-agent"),
            ("username", name),
            ("password", user.password.expose()),
        ];
        form.extend(extra);
        self.post(None, &form).await
    }

    async fn exchange(&self, subject: &str, extra: &[(&str, &str)]) -> (u16, Value) {
        let mut form = exchange_form(subject);
        form.extend(extra);
        self.post(Some(&self.gateway()), &form).await
    }

    fn gateway(&self) -> String {
        basic("portcullis", self.issuer.client_secret().expose())
    }

    fn token(&self, user: &str, scopes: &[&str], audience: &str, seconds: u64) -> String {
        let lifetime = Duration::from_secs(seconds);
        self.issuer.mint(&Grant { user, scopes, audience, client: Client::Agent, lifetime }, Clock.now()).unwrap()
    }
}

fn exchange_form(subject: &str) -> Vec<(&str, &str)> {
    vec![
        ("grant_type", EXCHANGE_GRANT),
        ("subject_token", subject),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", "demo-tools"),
    ]
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}
