//! Who vouches for the sample users? An OAuth 2.0 authorization server for this process alone: metadata, keys, and a
//! token endpoint that logs a sample user in and exchanges tokens (RFC 8693).
//!
//! It is strict where a real one is, so that a gateway that works with it asks rightly: parameters once, one audience, a
//! client that proves who it is, a subject token that was meant for the gateway. Keys, passwords and the client's secret
//! are made at start and end with the process.

use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::header::CACHE_CONTROL;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::demo::sign_in;
use crate::demo::sign_in::Codes;
use crate::demo::token::NoRandomness;
use crate::demo::token::SigningKey;
use crate::demo::token::TokenError;
use crate::demo::token::random_text;
use crate::secret::Secret;
use crate::time::Clock;
use crate::time::UnixSeconds;

/// A person who exists only in the demo.
#[derive(Clone, Debug)]
pub struct SampleUser {
    /// `sub` of the tokens, and the name to log in with.
    pub name: &'static str,
    /// What a token of this user may hold.
    pub scopes: &'static [&'static str],
    /// Made at start.
    pub password: Secret<String>,
}

/// The sample authorization server.
pub struct Issuer {
    url: String,
    /// What sample users get tokens for; the first when they name none.
    resources: Vec<String>,
    key: SigningKey,
    users: [SampleUser; 3],
    client_secret: Secret<String>,
    /// Where people who sign in to the admin pages are sent back to; none: nobody signs in.
    redirect_uri: Option<String>,
    codes: Codes,
}

/// The names behind one token.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// `sub`.
    pub user: &'a str,
    /// `scope`, joined by spaces; no claim when empty.
    pub scopes: &'a [&'a str],
    /// `aud`.
    pub audience: &'a str,
    /// `client_id`, and `act`: the client acts for the user (RFC 8693 §4.1).
    pub client: Client,
    /// `exp` less `iat`.
    pub lifetime: Duration,
}

/// Who asked for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The sample agent, in which the user has logged in.
    Agent,
    /// The gateway, which acts for the user.
    Gateway,
}

impl Issuer {
    /// Makes keys, passwords and the gateway's client secret. `url` is the issuer identifier, `resource` the gateway's
    /// resource identifier: the `aud` of the tokens that sample users get.
    ///
    /// # Errors
    /// [`NoRandomness`] when the system's random source fails.
    pub fn new(url: String, resource: String) -> Result<Self, NoRandomness> {
        let user = |name, scopes| {
            Ok::<_, NoRandomness>(SampleUser { name, scopes, password: Secret::new(random_text::<12>()?) })
        };
        Ok(Self {
            url,
            resources: vec![resource],
            key: SigningKey::generate()?,
            users: [user("alice", &[READ])?, user("bob", &[READ, WRITE])?, user("carol", &[])?],
            client_secret: Secret::new(random_text::<32>()?),
            redirect_uri: None,
            codes: Codes::default(),
        })
    }

    /// Gives sample users tokens for another resource of the gateway's, too.
    #[must_use]
    pub fn granting_for(mut self, resource: String) -> Self {
        self.resources.push(resource);
        self
    }

    /// Signs sample people in for the client at `redirect_uri`, too.
    #[must_use]
    pub fn signing_in_for(mut self, redirect_uri: String) -> Self {
        self.redirect_uri = Some(redirect_uri);
        self
    }

    /// Where people who have signed in are sent back to.
    #[must_use]
    pub fn redirect_uri(&self) -> Option<&str> {
        self.redirect_uri.as_deref()
    }

    /// Sign-ins that are under way.
    pub(super) fn codes(&self) -> &Codes {
        &self.codes
    }

    /// The issuer identifier: `iss` of every token, and the base of its endpoints.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Alice, who may read; Bob, who may write too; Carol, who may do nothing.
    #[must_use]
    pub fn users(&self) -> &[SampleUser; 3] {
        &self.users
    }

    /// What [`GATEWAY_CLIENT`] proves itself with.
    #[must_use]
    pub fn client_secret(&self) -> &Secret<String> {
        &self.client_secret
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`NoRandomness`] when the system's random source fails.
    pub fn mint(&self, grant: &Grant<'_>, now: UnixSeconds) -> Result<String, NoRandomness> {
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim("iss", json!(self.url));
        claim("sub", json!(grant.user));
        claim("aud", json!(grant.audience));
        claim("client_id", json!(grant.client.id()));
        claim("act", grant.client.actor());
        if !grant.scopes.is_empty() {
            claim("scope", json!(grant.scopes.join(" ")));
        }
        claim("iat", json!(now.0));
        claim("exp", json!(now.plus(grant.lifetime).0));
        claim("jti", json!(random_text::<12>()?));
        self.key.sign(&claims)
    }

    /// Believes a token of this issuer for `audience` and returns its claims.
    ///
    /// # Errors
    /// As [`SigningKey::verify`].
    pub fn verify(
        &self,
        unverified_token: &str,
        audience: &str,
        now: UnixSeconds,
    ) -> Result<Map<String, Value>, TokenError> {
        self.key.verify(unverified_token, &self.url, audience, now)
    }

    /// Its endpoints.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/.well-known/openid-configuration", get(metadata)) // OpenID Connect Discovery 1.0 §4
            .route("/.well-known/oauth-authorization-server", get(metadata)) // RFC 8414 §3
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/authorize", get(sign_in::choose).post(sign_in::chosen))
            .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
            .with_state(self)
    }

    fn resource(&self) -> &str {
        self.resources.first().map_or("", String::as_str)
    }

    fn metadata(&self) -> Value {
        json!({
            "issuer": self.url,
            "token_endpoint": format!("{}/token", self.url),
            "jwks_uri": format!("{}/jwks", self.url),
            "authorization_endpoint": format!("{}/authorize", self.url),
            "grant_types_supported": [CODE_GRANT, PASSWORD_GRANT, EXCHANGE_GRANT],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
            "scopes_supported": [READ, WRITE],
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn answer(&self, headers: &HeaderMap, form: &Parameters, now: UnixSeconds) -> Result<Value, Refusal> {
        match form.one("grant_type")? {
            Some(CODE_GRANT) => self.redeem(headers, form, now),
            Some(EXCHANGE_GRANT) => self.exchange(headers, form, now),
            Some(PASSWORD_GRANT) => self.log_in(form, now),
            Some(_) => Err(Refusal::UnsupportedGrantType),
            None => Err(Refusal::InvalidRequest("grant_type is missing")),
        }
    }

    /// The end of a sign-in to the admin pages: RFC 6749 §4.1.3, with the proof of RFC 7636 §4.5.
    fn redeem(&self, headers: &HeaderMap, form: &Parameters, now: UnixSeconds) -> Result<Value, Refusal> {
        self.authenticate_gateway(headers)?;
        if self.redirect_uri.is_none() || form.one("redirect_uri")? != self.redirect_uri.as_deref() {
            return Err(Refusal::InvalidGrant);
        }
        let code = form.one("code")?.ok_or(Refusal::InvalidRequest("code is missing"))?;
        let verifier = form.one("code_verifier")?.ok_or(Refusal::InvalidRequest("code_verifier is missing"))?;
        let mut claims = self.codes.redeem(code, verifier, now).ok_or(Refusal::InvalidGrant)?;
        claims.insert("iss".to_owned(), json!(self.url));
        let id_token = self.key.sign_id(&claims).map_err(|_| Refusal::ServerError)?;
        // Nothing here takes an access token of such a sign-in: what the person may do stands in the ID token.
        let access_token = random_text::<32>().map_err(|_| Refusal::ServerError)?;
        Ok(json!({ "access_token": access_token, "token_type": "Bearer", "expires_in": 120, "id_token": id_token }))
    }

    /// The password grant of RFC 6749 §4.3. OAuth 2.1 has dropped it, and rightly: an agent must not see a password. It
    /// is here so that one `curl` line gets a fresh sample token.
    fn log_in(&self, form: &Parameters, now: UnixSeconds) -> Result<Value, Refusal> {
        if form.one("client_id")? != Some(Client::Agent.id()) {
            return Err(Refusal::InvalidClient);
        }
        let name = form.one("username")?.ok_or(Refusal::InvalidRequest("username is missing"))?;
        let password = form.one("password")?.ok_or(Refusal::InvalidRequest("password is missing"))?;
        let user = self
            .users
            .iter()
            .find(|user| user.name == name && same(user.password.expose(), password))
            .ok_or(Refusal::InvalidGrant)?;
        // RFC 8707 §2: the resource the token is for. One is usual, so naming it is optional.
        let audience = match form.one("resource")? {
            None => self.resource(),
            Some(asked) => {
                self.resources.iter().find(|resource| *resource == asked).ok_or(Refusal::InvalidTarget)?.as_str()
            }
        };
        let scopes = granted(form.one("scope")?, |scope| user.scopes.contains(&scope))?;
        let grant =
            Grant { user: user.name, scopes: &scopes, audience, client: Client::Agent, lifetime: USER_TOKEN_LIFETIME };
        let token = self.mint(&grant, now).map_err(|_| Refusal::ServerError)?;
        Ok(json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": grant.lifetime.as_secs(),
            "scope": scopes.join(" "),
        }))
    }

    /// RFC 8693 §2: the gateway hands in a token that was minted for it, and gets a short one for the tool server, with
    /// the same subject, itself as the actor, and no scope that the user's token did not have.
    fn exchange(&self, headers: &HeaderMap, form: &Parameters, now: UnixSeconds) -> Result<Value, Refusal> {
        self.authenticate_gateway(headers)?;
        if form.one("subject_token_type")? != Some(ACCESS_TOKEN) {
            return Err(Refusal::InvalidRequest("subject_token_type must be an access token"));
        }
        if form.one("requested_token_type")?.is_some_and(|kind| kind != ACCESS_TOKEN && kind != JWT) {
            return Err(Refusal::InvalidRequest("only access tokens are issued"));
        }
        if form.one("actor_token")?.is_some() {
            return Err(Refusal::InvalidRequest("the client is the actor; actor_token is not supported"));
        }
        if form.one("resource")?.is_some() || form.one("audience")? != Some(TOOLS_AUDIENCE) {
            return Err(Refusal::InvalidTarget);
        }
        let subject_token = form.one("subject_token")?.ok_or(Refusal::InvalidRequest("subject_token is missing"))?;
        // RFC 8693 §2.2.2: a subject token that is not acceptable is `invalid_request`.
        let subject = self
            .verify(subject_token, self.resource(), now)
            .map_err(|_| Refusal::InvalidRequest("subject_token is not acceptable"))?;
        let claim = |name| subject.get(name).and_then(Value::as_str);
        let user = claim("sub").ok_or(Refusal::InvalidRequest("subject_token has no subject"))?;
        let held = claim("scope").unwrap_or_default();
        let scopes = granted(form.one("scope")?, |scope| held.split(' ').any(|one| one == scope))?;
        let expires_at = UnixSeconds(subject.get("exp").and_then(Value::as_u64).unwrap_or(now.0));
        let grant = Grant {
            user,
            scopes: &scopes,
            audience: TOOLS_AUDIENCE,
            client: Client::Gateway,
            lifetime: EXCHANGED_TOKEN_LIFETIME.min(now.until(expires_at)),
        };
        let token = self.mint(&grant, now).map_err(|_| Refusal::ServerError)?;
        Ok(json!({
            "access_token": token,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": grant.lifetime.as_secs(),
            "scope": scopes.join(" "),
        }))
    }

    /// HTTP Basic with id and secret form-urlencoded first (RFC 6749 §2.3.1).
    fn authenticate_gateway(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return Err(Refusal::InvalidClient) };
        let (scheme, encoded) =
            field.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::InvalidClient)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Refusal::InvalidClient);
        }
        let pair = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (id, secret) = pair.as_deref().and_then(|pair| pair.split_once(':')).ok_or(Refusal::InvalidClient)?;
        let proven = form_decoded(id).as_deref() == Some(GATEWAY_CLIENT)
            && form_decoded(secret).is_some_and(|secret| same(&secret, self.client_secret.expose()));
        if proven { Ok(()) } else { Err(Refusal::InvalidClient) }
    }
}

impl Client {
    /// What tokens say of it as the actor: of an agent also what OIDC-A 1.0 has words for.
    fn actor(self) -> Value {
        match self {
            Self::Agent => json!({
                "sub": self.id(), "agent_type": "assistant", "agent_provider": "agents.example",
                "agent_model": "sample-1", "agent_version": env!("CARGO_PKG_VERSION"), "agent_instance_id": "demo-agent-1",
            }),
            Self::Gateway => json!({ "sub": self.id() }),
        }
    }

    /// Its client id.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Agent => "demo-agent",
            Self::Gateway => GATEWAY_CLIENT,
        }
    }
}

/// The gateway's client id.
pub const GATEWAY_CLIENT: &str = "portcullis";
/// `aud` of exchanged tokens: the tool server.
pub const TOOLS_AUDIENCE: &str = "demo-tools";
/// Lets a user see.
pub const READ: &str = "tools:read";
/// Lets a user change.
pub const WRITE: &str = "tools:write";
/// How long a sample user's token lasts: long enough to try the printed lines without a hurry.
pub const USER_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long an exchanged token lasts.
pub const EXCHANGED_TOKEN_LIFETIME: Duration = Duration::from_secs(120);

const CODE_GRANT: &str = "authorization_code";
const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const PASSWORD_GRANT: &str = "password";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const FORM_BYTES_MAX: usize = 64 * 1024;

async fn metadata(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    Json(issuer.metadata())
}

async fn jwks(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    Json(issuer.key.jwks())
}

async fn token(
    State(issuer): State<Arc<Issuer>>,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let answer = match form {
        Ok(Form(pairs)) => issuer.answer(&headers, &Parameters(pairs), Clock.now()),
        Err(_) => Err(Refusal::InvalidRequest("the body is not a form")),
    };
    // RFC 6749 §5.1: an answer with a token is never cached.
    let mut response = answer.map_or_else(IntoResponse::into_response, |answer| Json(answer).into_response());
    response.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}

/// The parameters of a form, in order.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The value of `name`. RFC 6749 §3.2: a parameter comes at most once, and an empty one counts as absent.
    fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() {
            return Err(Refusal::InvalidRequest("a parameter comes twice"));
        }
        Ok(first.filter(|value| !value.is_empty()))
    }
}

/// The known scopes that were asked for (all of them when nothing was) and that `may_hold` grants. RFC 6749 §3.3 lets an
/// issuer grant less than was asked, when it says so in the answer's `scope`.
fn granted(asked: Option<&str>, may_hold: impl Fn(&str) -> bool) -> Result<Vec<&'static str>, Refusal> {
    let asked: Vec<&str> = asked.map_or_else(|| vec![READ, WRITE], |asked| asked.split(' ').collect());
    if asked.iter().any(|scope| ![READ, WRITE].contains(scope)) {
        return Err(Refusal::InvalidScope);
    }
    Ok([READ, WRITE].into_iter().filter(|scope| asked.contains(scope) && may_hold(scope)).collect())
}

/// Why there is no token: the error codes of RFC 6749 §5.2 and RFC 8693 §2.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    InvalidClient,
    InvalidGrant,
    InvalidRequest(&'static str),
    InvalidScope,
    InvalidTarget,
    ServerError,
    UnsupportedGrantType,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, description) = match self {
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client", "unknown client or wrong secret"),
            Self::InvalidGrant => (StatusCode::BAD_REQUEST, "invalid_grant", "unknown user or wrong password"),
            Self::InvalidRequest(why) => (StatusCode::BAD_REQUEST, "invalid_request", why),
            Self::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope", "no such scope"),
            Self::InvalidTarget => (StatusCode::BAD_REQUEST, "invalid_target", "tokens are issued for one target only"),
            Self::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "no randomness"),
            Self::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type", "no such grant type"),
        };
        let body = Json(json!({ "error": code, "error_description": description }));
        if self == Self::InvalidClient {
            return (status, [(WWW_AUTHENTICATE, "Basic realm=\"portcullis demo\"")], body).into_response();
        }
        (status, body).into_response()
    }
}

/// Compares secrets by their digests, so that the time it takes tells nothing about either.
fn same(one: &str, other: &str) -> bool {
    let digest_of = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    digest_of(one).as_ref() == digest_of(other).as_ref()
}

/// Undoes `application/x-www-form-urlencoded` for one value; `None` when it is not that, or not UTF-8.
fn form_decoded(encoded: &str) -> Option<String> {
    let mut bytes = encoded.bytes();
    let mut decoded = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;
