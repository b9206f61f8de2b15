//! How do people sign in? OpenID Connect, authorization code flow with PKCE (RFC 7636, RFC 9700 §2.1.1).
//!
//! ```text
//! browser ── GET /signin ──► a sealed note of the attempt as a cookie ──► the issuer
//! browser ◄── the issuer, with code, state (and iss)
//! browser ── GET /signin/callback + the cookie ──► the code redeemed, the ID token believed ──► a session as a cookie
//! ```
//!
//! Nothing is kept here for somebody who has not signed in: state, nonce and code verifier travel in the sealed cookie, so
//! whoever floods `/signin` fills nothing. What was used once is remembered until its note has expired.

pub(super) mod cookies;
pub(super) mod person;
pub(super) mod provider;
pub(super) mod sessions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::audit::{Act, AdminEvent, Event, EventKind};
use crate::config::{AdminSettings, OnFull, SignIn};
use crate::identity::crypto::sha256;
use crate::registry::definition::Digest;
use crate::store::SignIn as Row;
use crate::time::UnixSeconds;

use super::Admin;
use super::access::{self, AUDIT_WAIT_MAX, Operator, Proof};
use super::guard::PAGE;
use super::problem::{Problem, TITLES, Word};
use person::Person;

/// Sign-ins that were used.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<Digest, UnixSeconds>>);

/// A sign-in that was begun, as the browser keeps it for us: sealed.
#[derive(Serialize, Deserialize)]
struct Attempt {
    state: String,
    nonce: String,
    verifier: String,
    issuer: Box<str>,
    return_to: String,
    expires: u64,
}

/// `GET /signin?return_to=/…`: sends the browser to the issuer.
pub(super) async fn begin(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let request_id = admin.request_id();
    let (head, _body) = request.into_parts();
    let answer = leave(&admin, &head).await.unwrap_or_else(|problem| shown(problem, &head.headers));
    access::named(answer, &request_id)
}

async fn leave(admin: &Admin, head: &Parts) -> Result<Response, Problem> {
    let settings = admin.settings().ok_or_else(Problem::not_found)?;
    let sign_in = settings.sign_in.as_ref().ok_or_else(Problem::not_found)?;
    let parameters = Parameters::of(&head.uri)?;
    let return_to = parameters.one("return_to")?.filter(|path| is_local_path(path)).unwrap_or("/").to_owned();
    // Cookies belong to a host: whoever came by another name of this listener goes on by the one the issuer knows.
    let public_host = settings.public_url.split_once("://").map_or("", |(_scheme, host)| host);
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| host != public_host) {
        return Ok(redirect(&format!("{}/signin", settings.public_url), []));
    }
    let endpoints = admin.provider.endpoints(sign_in).await?;
    let now = admin.clock.now();
    let attempt = Attempt {
        state: URL_SAFE_NO_PAD.encode(admin.random::<32>()?),
        nonce: URL_SAFE_NO_PAD.encode(admin.random::<32>()?),
        verifier: URL_SAFE_NO_PAD.encode(admin.random::<32>()?),
        issuer: (&*sign_in.issuer.issuer).into(),
        return_to,
        expires: now.plus(sign_in.attempt_ttl).0,
    };
    let mut url = endpoints.authorization.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &sign_in.client_id)
        .append_pair("redirect_uri", &redirect_uri(&settings))
        .append_pair("scope", &sign_in.scopes.join(" "))
        .append_pair("state", &attempt.state)
        .append_pair("nonce", &attempt.nonce)
        .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(sha256(attempt.verifier.as_bytes())))
        .append_pair("code_challenge_method", "S256");
    let plain = serde_json::to_vec(&attempt).unwrap_or_default();
    let sealed = admin.live.peek().ring.seal_note(PURPOSE, admin.random()?, &plain);
    let sealed = sealed.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "busy"))?;
    let cookie = cookies::set(cookies::ATTEMPT, &URL_SAFE_NO_PAD.encode(sealed), sign_in.attempt_ttl.as_secs());
    Ok(redirect(url.as_str(), cookie))
}

/// `GET /signin/callback`: the issuer has sent the browser back.
pub(super) async fn callback(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let started = Instant::now();
    let request_id = admin.request_id();
    let (head, _body) = request.into_parts();
    let mut who = None;
    let answer = arrive(&admin, &head, &mut who).await;
    let answer = answer.unwrap_or_else(|problem| {
        let mut answer = shown(problem, &head.headers);
        // A sign-in has one try.
        append(answer.headers_mut(), cookies::clear(cookies::ATTEMPT));
        answer
    });
    let event = Event {
        request_id: request_id.clone(),
        event: EventKind::Admin(AdminEvent::SignIn),
        client_ip: access::peer_of(&head).map(|peer| peer.ip().to_canonical()),
        principal: who,
        act: Some(Box::new(Act { call: "GET /signin/callback".into(), ..Act::default() })),
        status: Some(answer.status().as_u16()),
        outcome: access::outcome_of(answer.status()),
        reason: answer.extensions().get::<Word>().map(|word| word.0),
        duration: started.elapsed(),
        config_generation: admin.live.peek().generation,
        ..Event::default()
    };
    let place = tokio::time::timeout(AUDIT_WAIT_MAX, admin.audit.reserve(OnFull::Wait)).await;
    let answer = match place {
        Ok(Ok(place)) => {
            place.record(event);
            answer
        }
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable").into_response(),
    };
    access::named(answer, &request_id)
}

async fn arrive(admin: &Admin, head: &Parts, who: &mut Option<crate::audit::Principal>) -> Result<Response, Problem> {
    let settings = admin.settings().ok_or_else(Problem::not_found)?;
    let sign_in = settings.sign_in.as_ref().ok_or_else(Problem::not_found)?;
    let now = admin.clock.now();
    let parameters = Parameters::of(&head.uri)?;
    let attempt = begun_here(admin, &head.headers, &parameters, sign_in, now)?;
    let endpoints = admin.provider.endpoints(sign_in).await?;
    // RFC 9207 §2.4: an answer that names another issuer, or none where it always does, is not of the one that was asked.
    let names_ours = parameters.one("iss")?.map(|iss| *iss == *attempt.issuer);
    if *attempt.issuer != *sign_in.issuer.issuer || !names_ours.unwrap_or(!endpoints.names_itself) {
        return Err(forged());
    }
    if let Some(error) = parameters.one("error")? {
        let error: String = error.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
        warn!(error, "The issuer did not sign somebody in.");
        return Err(Problem::new(StatusCode::FORBIDDEN, "issuer_refused"));
    }
    let code = parameters.one("code")?.ok_or_else(forged)?;
    let caller = admin.provider.redeem(sign_in, code, &attempt.verifier, &redirect_uri(&settings), now).await?;
    *who = Some(crate::audit::Principal::from(&caller));
    let nonce = caller.claims().get("nonce").and_then(|nonce| nonce.as_str());
    if nonce.is_none_or(|nonce| sha256(nonce.as_bytes()) != sha256(attempt.nonce.as_bytes())) {
        return Err(forged());
    }
    let approval_claim = admin.live.peek().config.registry.claim.clone();
    let person = Person::of(caller.principal(), caller.claims(), &sign_in.claim, &approval_claim);
    if access::roles_of(&sign_in.roles, &person.groups).is_empty() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "no_role"));
    }
    // Whoever was signed in in this browser is so no longer.
    if let Some(secret) = cookies::find(&head.headers, cookies::SESSION) {
        let _best_effort = admin.sessions.delete(Digest::of(secret.as_bytes())).await;
    }
    let secret = URL_SAFE_NO_PAD.encode(admin.random::<32>()?);
    let row = Row {
        id: Digest::of(secret.as_bytes()),
        purpose: SESSION.into(),
        body: serde_json::to_string(&person).unwrap_or_default().into(),
        created: now,
        touched: now,
        expires: now.plus(sign_in.session_ttl),
    };
    admin.sessions.create(row, sign_in.sessions).await.map_err(|_error| store_unavailable())?;
    let session = cookies::set(cookies::SESSION, &secret, sign_in.session_ttl.as_secs());
    Ok(redirect(&attempt.return_to, session.into_iter().chain(cookies::clear(cookies::ATTEMPT))))
}

/// The attempt that this browser has begun, when the answer is to it; no attempt is taken twice.
fn begun_here(
    admin: &Admin,
    headers: &HeaderMap,
    parameters: &Parameters,
    sign_in: &SignIn,
    now: UnixSeconds,
) -> Result<Attempt, Problem> {
    let sealed = cookies::find(headers, cookies::ATTEMPT).and_then(|cookie| URL_SAFE_NO_PAD.decode(cookie).ok());
    let sealed = sealed.ok_or_else(forged)?;
    let plain = admin.live.peek().ring.open_note(PURPOSE, &sealed).ok_or_else(forged)?;
    let attempt: Attempt = serde_json::from_slice(&plain).map_err(|_error| forged())?;
    let state = parameters.one("state")?.ok_or_else(forged)?;
    if sha256(state.as_bytes()) != sha256(attempt.state.as_bytes()) {
        return Err(forged());
    }
    if attempt.expires <= now.0 {
        return Err(Problem::new(StatusCode::FORBIDDEN, "sign_in_expired"));
    }
    if !admin.attempts.take(&attempt.state, now, sign_in.attempt_ttl) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "sign_in_replayed"));
    }
    Ok(attempt)
}

impl Attempts {
    /// Whether this attempt is used for the first time.
    fn take(&self, state: &str, now: UnixSeconds, ttl: Duration) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= ATTEMPTS_MAX {
            used.retain(|_state, until| *until > now);
        }
        // A code is good once at its issuer, too: what is let go early under a flood is refused there.
        if used.len() >= ATTEMPTS_MAX
            && let Some(first) = used.iter().min_by_key(|(_state, until)| **until).map(|(state, _until)| *state)
        {
            used.remove(&first);
        }
        used.insert(Digest::of(state.as_bytes()), now.plus(ttl)).is_none()
    }
}

/// The session whose secret a browser shows, if it lives; used, it lives on for as long as it may be idle.
pub(super) async fn session(
    admin: &Admin,
    sign_in: &SignIn,
    secret: &str,
) -> Result<Option<(Digest, Person, Row)>, Problem> {
    let now = admin.clock.now();
    let id = Digest::of(secret.as_bytes());
    let found = admin.sessions.find(id, now).await.map_err(|_error| store_unavailable())?;
    let Some(row) = found else { return Ok(None) };
    // A shorter time in a configuration that came later holds for sessions that were there before.
    if row.touched.plus(sign_in.session_idle) <= now || row.created.plus(sign_in.session_ttl) <= now {
        let _best_effort = admin.sessions.delete(id).await;
        return Ok(None);
    }
    let Ok(person) = serde_json::from_str::<Person>(&row.body) else { return Ok(None) };
    if *person.issuer != *sign_in.issuer.issuer {
        return Ok(None);
    }
    // Not with every request: a row is written at most sixty times in its idle time.
    if row.touched.plus(sign_in.session_idle / 60) <= now {
        let _best_effort = admin.sessions.touch(id, now).await;
    }
    Ok(Some((id, person, row)))
}

/// Ends the session, and tells where the issuer ends its own (OpenID Connect RP-Initiated Logout §2).
pub(super) async fn end(admin: &Admin, operator: &Operator) -> Result<Option<Url>, Problem> {
    let Proof::Session { id, .. } = &operator.proof else { return Ok(None) };
    admin.sessions.delete(*id).await.map_err(|_error| store_unavailable())?;
    let settings = admin.settings();
    let Some(sign_in) = settings.as_ref().and_then(|settings| settings.sign_in.as_ref()) else { return Ok(None) };
    let Ok(endpoints) = admin.provider.endpoints(sign_in).await else { return Ok(None) };
    let Some(mut url) = endpoints.end_session.clone() else { return Ok(None) };
    let back = settings.as_ref().map_or("", |settings| &settings.public_url);
    url.query_pairs_mut()
        .append_pair("client_id", &sign_in.client_id)
        .append_pair("post_logout_redirect_uri", &format!("{back}/"));
    Ok(Some(url))
}

/// The parameters of a request's query.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let query = uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(Problem::invalid("the query is too long"));
        }
        // The host does not matter: only the query is read.
        let url = Url::parse(&format!("http://localhost/?{query}")).map_err(|_error| Problem::invalid("no query"))?;
        Ok(Self(url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()))
    }

    /// RFC 6749 §3.1: a parameter comes at most once.
    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(forged()),
        }
    }
}

/// A path of ours to come back to: nothing that a browser could take for another host.
fn is_local_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && !path.starts_with("/api/")
        && !path.starts_with("/signin")
        && path.len() <= 512
        && path.chars().all(|c| c.is_ascii_graphic() && c != '\\')
}

fn redirect_uri(settings: &AdminSettings) -> String {
    format!("{}/signin/callback", settings.public_url)
}

fn redirect(to: &str, set_cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    let mut answer = StatusCode::SEE_OTHER.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    for cookie in set_cookies {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    answer
}

fn append(headers: &mut HeaderMap, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        headers.append(SET_COOKIE, cookie);
    }
}

/// A problem as a page, for somebody who looks at it in a browser. Made of our own words only.
fn shown(problem: Problem, headers: &HeaderMap) -> Response {
    let wants_page =
        headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"));
    if !wants_page {
        return problem.into_response();
    }
    let title = TITLES.iter().find(|(word, _)| *word == problem.word).map_or("No", |(_, title)| *title);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Portcullis</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <link rel=\"stylesheet\" href=\"/app.css\"><link rel=\"stylesheet\" href=\"/pages.css\">\
         <body class=\"signed-out\"><main><div class=\"signin\"><h1>Not signed in</h1><p>{title} (<code>{}</code>).</p>\
         <p><a class=\"button primary\" href=\"/\">Begin again</a></p></div></main></html>\n",
        problem.word
    );
    let mut answer = (problem.status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    answer.extensions_mut().insert(Word(problem.word));
    // It may load what our pages load, and is kept no more than any other answer.
    answer.headers_mut().insert(PAGE, HeaderValue::from_static("1"));
    answer
}

fn forged() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "sign_in_forged")
}

fn store_unavailable() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
}

/// Keeps notes of sign-ins from being taken for others.
const PURPOSE: &str = "admin sign-in";

/// Rows of sessions.
pub(super) const SESSION: &str = "session";

/// Used attempts that are remembered.
const ATTEMPTS_MAX: usize = 4096;
const QUERY_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_come_back_to_paths_of_ours_only() {
        for path in ["/", "/#/servers", "/x?y=z"] {
            assert!(is_local_path(path), "{path}");
        }
        for path in
            ["", "x", "//evil.example", "/\\evil.example", "https://evil.example", "/api/v1/me", "/signin", "/\n"]
        {
            assert!(!is_local_path(path), "{path}");
        }
    }

    #[test]
    fn an_attempt_is_taken_once_and_the_memory_of_it_is_bounded() {
        let attempts = Attempts::default();
        let (now, ttl) = (UnixSeconds(100), Duration::from_secs(600));
        assert!(attempts.take("a", now, ttl));
        assert!(!attempts.take("a", now, ttl));
        for number in 0..2 * ATTEMPTS_MAX {
            assert!(attempts.take(&number.to_string(), now, ttl));
        }
        assert!(attempts.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= ATTEMPTS_MAX);
    }
}
