//! A test issuer: discovery, RFC 8414 metadata, a JWK set that changes, and tokens of every kind, honest and not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Map, Value, json};

use super::AUDIENCE;
use super::host::Host;

/// What a token is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alg {
    EdDsa,
    Es256,
    Rs256,
}

impl Alg {
    fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A signing key with its public half.
#[derive(Clone)]
enum Key {
    Ec(Arc<EcdsaKeyPair>),
    Ed(Arc<Ed25519KeyPair>),
    Rsa(Arc<RsaKeyPair>),
}

struct State {
    keys: BTreeMap<String, Key>,
    /// Members of the JWK set that are no keys of ours: junk a set may hold.
    junk: Vec<Value>,
    /// What discovery claims as its issuer, when it lies.
    claimed_issuer: Option<String>,
    jwks_fetches: AtomicUsize,
    /// Codes that were given out, each good once.
    codes: BTreeMap<String, Grant>,
    /// Leaves `iss` out of the answers to sign-ins, and does not announce it.
    hides_iss: bool,
    /// Changes the claims of the next ID tokens.
    id_token_claims: Map<String, Value>,
}

/// What a code stands for.
#[derive(Clone)]
struct Grant {
    redirect_uri: String,
    code_challenge: String,
    nonce: String,
    person: Person,
}

/// Somebody who signs in at the issuer.
#[derive(Clone, Debug)]
pub struct Person {
    pub subject: String,
    pub groups: Vec<String>,
}

impl Person {
    pub fn new(subject: &str, groups: &[&str]) -> Self {
        Self { subject: subject.into(), groups: groups.iter().map(|group| (*group).into()).collect() }
    }
}

/// The client that the gateway is to this issuer.
pub const ADMIN_CLIENT: &str = "portcullis-admin";
pub const ADMIN_SECRET: &str = "adm1n-client-value";

/// The issuer. Keys at start: `rsa-1`, `ec-1`, `ed-1`.
pub struct Idp {
    state: Arc<Mutex<State>>,
    port: u16,
    host: Mutex<Option<Host>>,
}

impl Idp {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            keys: BTreeMap::from([
                ("rsa-1".to_owned(), rsa_test_key()),
                ("ec-1".to_owned(), new_ec_key()),
                ("ed-1".to_owned(), new_ed_key()),
            ]),
            junk: Vec::new(),
            claimed_issuer: None,
            jwks_fetches: AtomicUsize::new(0),
            codes: BTreeMap::new(),
            hides_iss: false,
            id_token_claims: Map::new(),
        }));
        let host = Host::start(router(&state), None);
        Self { state, port: host.address().port(), host: Mutex::new(Some(host)) }
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.issuer())
    }

    /// Stops answering; tokens can still be signed.
    pub fn stop(&self) {
        drop(self.host.lock().unwrap().take());
    }

    /// Answers again, at the same address.
    pub fn start_again(&self) {
        *self.host.lock().unwrap() = Some(Host::start(router(&self.state), Some(self.port)));
    }

    pub fn jwks_fetches(&self) -> usize {
        self.state.lock().unwrap().jwks_fetches.load(Ordering::SeqCst)
    }

    /// Adds a fresh ES256 key and returns its id.
    pub fn add_key(&self) -> String {
        let mut state = self.state.lock().unwrap();
        let kid = format!("ec-{}", state.keys.len() + 1);
        state.keys.insert(kid.clone(), new_ec_key());
        kid
    }

    pub fn remove_key(&self, kid: &str) {
        self.state.lock().unwrap().keys.remove(kid).expect("a key of that id");
    }

    /// Puts something into the JWK set that is not one of its keys.
    pub fn publish(&self, jwk: Value) {
        self.state.lock().unwrap().junk.push(jwk);
    }

    /// Makes discovery name another issuer.
    pub fn claim_to_be(&self, issuer: &str) {
        self.state.lock().unwrap().claimed_issuer = Some(issuer.to_owned());
    }

    /// Lets `person` sign in at the address that the gateway has sent their browser to; returns where the browser is sent
    /// back to. Strict, as a real issuer: what it asks for and does not get is a failure of the test.
    #[track_caller]
    pub fn let_in(&self, location: &str, person: &Person) -> String {
        let (page, query) = location.split_once('?').expect("a query");
        assert_eq!(page, format!("{}/authorize", self.issuer()));
        let asked = parse_form(query);
        let one = |name: &str| {
            let values: Vec<_> = asked.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect();
            assert_eq!(values.len(), 1, "{name} in {location}");
            values[0].clone()
        };
        assert_eq!((one("response_type"), one("client_id")), ("code".into(), ADMIN_CLIENT.into()));
        assert_eq!(one("code_challenge_method"), "S256");
        assert!(one("scope").split(' ').any(|scope| scope == "openid"));
        assert!(one("state").len() >= 40 && one("nonce").len() >= 40 && one("code_challenge").len() == 43);
        let code = random_word();
        let grant = Grant {
            redirect_uri: one("redirect_uri"),
            code_challenge: one("code_challenge"),
            nonce: one("nonce"),
            person: person.clone(),
        };
        let mut state = self.state.lock().unwrap();
        state.codes.insert(code.clone(), grant);
        let iss = if state.hides_iss { String::new() } else { format!("&iss={}", url_encode(&self.issuer())) };
        format!("{}?code={code}&state={}{iss}", one("redirect_uri"), one("state"))
    }

    /// Leaves `iss` out of its answers, and does not announce it (RFC 9207).
    pub fn hide_iss(&self) {
        self.state.lock().unwrap().hides_iss = true;
    }

    /// Puts a claim into every ID token from here on.
    pub fn put_into_id_tokens(&self, name: &str, value: impl Into<Value>) {
        self.state.lock().unwrap().id_token_claims.insert(name.into(), value.into());
    }

    /// An access token for alice, good for ten minutes at [`AUDIENCE`], signed RS256, without scopes.
    pub fn token(&self) -> Token {
        let now = now();
        let claims = json!({
            "iss": self.issuer(), "sub": "alice", "aud": AUDIENCE, "client_id": "agent-1",
            "iat": now, "exp": now + 600, "jti": random_word(),
        });
        let header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": "rsa-1" });
        let key = self.key("rsa-1");
        Token { claims: object(claims), header: object(header), key, keys: self.all_keys(), payload: None }
    }

    fn key(&self, kid: &str) -> Key {
        self.state.lock().unwrap().keys[kid].clone()
    }

    fn all_keys(&self) -> BTreeMap<String, Key> {
        self.state.lock().unwrap().keys.clone()
    }
}

/// A token being written.
#[derive(Clone)]
pub struct Token {
    claims: Map<String, Value>,
    header: Map<String, Value>,
    key: Key,
    keys: BTreeMap<String, Key>,
    payload: Option<String>,
}

impl Token {
    #[must_use]
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Space-separated scopes.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.claim("scope", scope)
    }

    #[must_use]
    pub fn audience(self, audience: impl Into<Value>) -> Self {
        self.claim("aud", audience)
    }

    /// Seconds from now; negative is in the past.
    #[must_use]
    pub fn expires_in(self, seconds: i64) -> Self {
        self.claim("exp", now() + seconds)
    }

    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    #[must_use]
    pub fn typ(self, typ: &str) -> Self {
        self.header("typ", typ)
    }

    /// Signs with the issuer's first key of this kind.
    #[must_use]
    pub fn alg(self, alg: Alg) -> Self {
        let kid = match alg {
            Alg::EdDsa => "ed-1",
            Alg::Es256 => "ec-1",
            Alg::Rs256 => "rsa-1",
        };
        self.signed_by(kid)
    }

    /// Signs with a certain key of the issuer.
    #[must_use]
    pub fn signed_by(mut self, kid: &str) -> Self {
        self.key = self.keys[kid].clone();
        let alg = self.key.alg();
        self.header("alg", alg.name()).header("kid", kid)
    }

    /// Signs with a key the issuer has never seen, under the id the header already names.
    #[must_use]
    pub fn signed_by_an_attacker(mut self) -> Self {
        self.key = new_ec_key();
        self.header("alg", "ES256")
    }

    /// Replaces the payload's text, for JSON that no builder would write.
    #[must_use]
    pub fn payload(mut self, text: impl FnOnce(String) -> String) -> Self {
        let written = Value::Object(self.claims.clone()).to_string();
        self.payload = Some(text(written));
        self
    }

    pub fn sign(&self) -> String {
        let signed = self.signing_input();
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// `alg: none`, no signature.
    pub fn unsigned(self) -> String {
        format!("{}.", self.header("alg", "none").signing_input())
    }

    /// Keeps the honest header and drops the signature.
    pub fn signature_stripped(&self) -> String {
        format!("{}.", self.signing_input())
    }

    /// HS256 with the issuer's public RSA key as the secret: the classic confusion of algorithms.
    pub fn hs256_with_the_public_key(self) -> String {
        let Key::Rsa(rsa) = &self.keys["rsa-1"] else { unreachable!("rsa-1 is an RSA key") };
        let secret = rsa.public_key().as_ref().to_vec();
        let token = self.header("alg", "HS256").header("kid", "rsa-1");
        let signed = token.signing_input();
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn signing_input(&self) -> String {
        let payload = self.payload.clone().unwrap_or_else(|| Value::Object(self.claims.clone()).to_string());
        let header = Value::Object(self.header.clone()).to_string();
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.sign()
    }
}

impl Key {
    fn alg(&self) -> Alg {
        match self {
            Self::Ec(_) => Alg::Es256,
            Self::Ed(_) => Alg::EdDsa,
            Self::Rsa(_) => Alg::Rs256,
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Ec(pair) => {
                // Uncompressed point: 0x04, x, y (SEC 1 §2.3.3).
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
            }
            Self::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref()) }),
            Self::Rsa(pair) => {
                let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": b64(&parts.n), "e": b64(&parts.e) })
            }
        };
        jwk["kid"] = kid.into();
        jwk["alg"] = self.alg().name().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

fn router(state: &Arc<Mutex<State>>) -> Router {
    let metadata = {
        let state = Arc::clone(state);
        move |headers: axum::http::HeaderMap| {
            let state = Arc::clone(&state);
            async move {
                let issuer = format!("http://{}", headers["host"].to_str().unwrap());
                let claimed = state.lock().unwrap().claimed_issuer.clone().unwrap_or_else(|| issuer.clone());
                let names_itself = !state.lock().unwrap().hides_iss;
                Json(json!({
                    "authorization_response_iss_parameter_supported": names_itself,
                    "end_session_endpoint": format!("{issuer}/logout"),
                    "code_challenge_methods_supported": ["S256"],
                    "issuer": claimed,
                    "jwks_uri": format!("{issuer}/jwks"),
                    "authorization_endpoint": format!("{issuer}/authorize"),
                    "token_endpoint": format!("{issuer}/token"),
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
                }))
            }
        }
    };
    let jwks = {
        let state = Arc::clone(state);
        move || {
            let state = Arc::clone(&state);
            async move {
                let state = state.lock().unwrap();
                state.jwks_fetches.fetch_add(1, Ordering::SeqCst);
                let keys = state.keys.iter().map(|(kid, key)| key.jwk(kid));
                Json(json!({ "keys": state.junk.iter().cloned().chain(keys).collect::<Vec<_>>() }))
            }
        }
    };
    let token = {
        let state = Arc::clone(state);
        move |headers: axum::http::HeaderMap, form: String| {
            let state = Arc::clone(&state);
            async move { redeem(&state, &headers, &form) }
        }
    };
    Router::new()
        .route("/token", axum::routing::post(token))
        .route("/.well-known/openid-configuration", get(metadata.clone()))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/jwks", get(jwks))
}

/// RFC 6749 §4.1.3 with RFC 7636 §4.6: a code is good once, for the client, address and verifier it was asked for.
fn redeem(
    state: &Arc<Mutex<State>>,
    headers: &axum::http::HeaderMap,
    form: &str,
) -> (axum::http::StatusCode, Json<Value>) {
    use axum::http::StatusCode;
    let form = parse_form(form);
    let one = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let proof = format!("Basic {}", STANDARD.encode(format!("{ADMIN_CLIENT}:{ADMIN_SECRET}")));
    if headers.get("authorization").is_none_or(|value| value.as_bytes() != proof.as_bytes()) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" })));
    }
    let mut state = state.lock().unwrap();
    let challenge = ring::digest::digest(&ring::digest::SHA256, one("code_verifier").as_bytes());
    let grant = state.codes.remove(one("code")).filter(|grant| {
        one("grant_type") == "authorization_code"
            && one("redirect_uri") == grant.redirect_uri
            && URL_SAFE_NO_PAD.encode(challenge.as_ref()) == grant.code_challenge
    });
    let Some(grant) = grant else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
    };
    let issuer = format!("http://{}", headers["host"].to_str().unwrap());
    let mut claims = object(json!({
        "iss": issuer, "sub": grant.person.subject, "aud": ADMIN_CLIENT, "nonce": grant.nonce,
        "iat": now(), "exp": now() + 300, "groups": grant.person.groups, "name": format!("{} Example", grant.person.subject),
    }));
    claims.extend(state.id_token_claims.clone());
    let header = object(json!({ "alg": "ES256", "typ": "JWT", "kid": "ec-1" }));
    let token = Token { claims, header, key: state.keys["ec-1"].clone(), keys: state.keys.clone(), payload: None };
    let answer =
        json!({ "access_token": "not-looked-at", "token_type": "Bearer", "expires_in": 300, "id_token": token.sign() });
    (StatusCode::OK, Json(answer))
}

/// `a=b&c=d`, decoded.
pub fn parse_form(form: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://localhost/?{form}")).unwrap();
    url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

fn url_encode(text: &str) -> String {
    let mut url = reqwest::Url::parse("http://localhost/").unwrap();
    url.query_pairs_mut().append_pair("x", text);
    url.query().unwrap()[2..].to_owned()
}

/// A fixed key: ring cannot make RSA keys. It signs test tokens only.
fn rsa_test_key() -> Key {
    static KEY: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
    Key::Rsa(Arc::clone(KEY.get_or_init(|| {
        let text: String = include_str!("rsa.pkcs8.b64").split_whitespace().collect();
        Arc::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap())
    })))
}

fn new_ec_key() -> Key {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
    Key::Ec(Arc::new(pair.unwrap()))
}

fn new_ed_key() -> Key {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Key::Ed(Arc::new(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()))
}

/// The payload of a token, believed without a look at its signature.
pub fn unverified_claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// A word nobody guesses, for ids and marks.
pub fn random_word() -> String {
    let bytes: [u8; 12] = ring::rand::generate(&SystemRandom::new()).unwrap().expose();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}
