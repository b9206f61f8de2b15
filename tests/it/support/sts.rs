//! A test RFC 8693 server: records what it is asked and mints an opaque token per exchange, bound to its user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Form, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};

use super::host::Host;
use super::idp::{random_word, unverified_claims};

/// One exchange request.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub form: Vec<(String, String)>,
    pub authorization: Option<String>,
}

impl Exchange {
    /// Every value of a form field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.form.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn one(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

#[derive(Clone)]
struct Scripted {
    status: u16,
    body: String,
}

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    /// Live tokens and whose they are.
    users: HashMap<String, String>,
    always: Option<Scripted>,
    /// Added to, or with null taken from, the usual answer.
    amend: Option<Value>,
    hang: bool,
}

/// The exchange server. By default every exchange succeeds with a Bearer token good for 300 s.
pub struct Sts {
    state: Arc<Mutex<State>>,
    host: Mutex<Option<Host>>,
    port: u16,
}

impl Sts {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let host = Host::start(router(&state), None);
        Self { state, port: host.address().port(), host: Mutex::new(Some(host)) }
    }

    pub fn token_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    pub fn stop(&self) {
        drop(self.host.lock().unwrap().take());
    }

    pub fn exchanges(&self) -> Vec<Exchange> {
        self.state.lock().unwrap().exchanges.clone()
    }

    /// Every exchange gets this answer.
    pub fn answer(&self, status: u16, body: impl ToString) {
        self.state.lock().unwrap().always = Some(Scripted { status, body: body.to_string() });
    }

    /// Changes members of the usual answer; null takes one away.
    pub fn amend(&self, members: Value) {
        self.state.lock().unwrap().amend = Some(members);
    }

    /// Exchanges get no answer at all.
    pub fn hang(&self) {
        self.state.lock().unwrap().hang = true;
    }

    /// Every token minted so far stops being good.
    pub fn revoke_all(&self) {
        self.state.lock().unwrap().users.clear();
    }

    /// Whose token it is, if it is good.
    pub fn user_of(&self, token: &str) -> Option<String> {
        self.state.lock().unwrap().users.get(token).cloned()
    }

    /// For a server that must tell good tokens from others while it runs elsewhere.
    pub fn checker(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static + use<> {
        let state = Arc::clone(&self.state);
        move |token| state.lock().unwrap().users.contains_key(token)
    }
}

fn router(state: &Arc<Mutex<State>>) -> Router {
    let state = Arc::clone(state);
    Router::new().route(
        "/token",
        any(move |headers: HeaderMap, request: Request| {
            let state = Arc::clone(&state);
            async move { exchange(&state, &headers, request).await }
        }),
    )
}

async fn exchange(state: &Mutex<State>, headers: &HeaderMap, request: Request) -> Response {
    use axum::extract::FromRequest as _;
    let Ok(Form(form)) = Form::<Vec<(String, String)>>::from_request(request, &()).await else {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    };
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let exchange = Exchange { form, authorization };
    let (scripted, hang) = {
        let mut state = state.lock().unwrap();
        state.exchanges.push(exchange.clone());
        (state.always.clone(), state.hang)
    };
    if hang {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let (status, body) = match scripted {
        Some(Scripted { status, body }) => (status, body),
        None => (200, mint(state, &exchange).to_string()),
    };
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn mint(state: &Mutex<State>, exchange: &Exchange) -> Value {
    let user = exchange.one("subject_token").map(|token| unverified_claims(token)["sub"].clone());
    let mut state = state.lock().unwrap();
    let token = format!("xchg-{}-{}", state.exchanges.len(), random_word());
    state.users.insert(token.clone(), user.as_ref().and_then(Value::as_str).unwrap_or("nobody").to_owned());
    let mut answer = json!({
        "access_token": token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 300,
    });
    if let Some(Value::Object(members)) = &state.amend {
        for (name, value) in members {
            if value.is_null() {
                answer.as_object_mut().unwrap().remove(name);
            } else {
                answer[name] = value.clone();
            }
        }
    }
    answer
}
