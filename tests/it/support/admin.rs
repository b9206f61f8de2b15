//! Somebody with a browser in front of the admin pages.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::idp::{ADMIN_CLIENT, ADMIN_SECRET};
use super::{Api, Conf, Gateway, Idp, Opened, Person, Request, Response, open, send};

/// Lets people of the issuer sign in: groups `viewers`, `auditors`, `approvers` and `admins` have the roles of these names.
pub fn with_sign_in(conf: Conf) -> Conf {
    let conf = conf.file("admin.secret", ADMIN_SECRET, 0o600);
    conf.set(
        "admin",
        json!({
            "address": "ADMIN",
            "sign_in": {
                "issuer": "corp",
                "client": { "id": ADMIN_CLIENT, "secret": { "file": "DIR/admin.secret" } },
                "roles": {
                    "viewer": ["viewers"], "auditor": ["auditors"], "approver": ["approvers"], "admin": ["admins"],
                },
            },
        }),
    )
}

/// A browser: it keeps cookies, and sends an `Origin` with what it posts.
#[derive(Clone)]
pub struct Browser {
    address: SocketAddr,
    pub cookies: BTreeMap<String, String>,
    csrf_token: Option<String>,
}

impl Browser {
    pub fn new(gateway: &Gateway) -> Self {
        Self { address: gateway.admin_address(), cookies: BTreeMap::new(), csrf_token: None }
    }

    /// Signed in as somebody with these groups.
    #[track_caller]
    pub fn signed_in(gateway: &Gateway, idp: &Idp, subject: &str, groups: &[&str]) -> Self {
        let mut browser = Self::new(gateway);
        let answer = browser.sign_in(idp, &Person::new(subject, groups));
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer}");
        let me = browser.get("/api/v1/me");
        assert_eq!(me.status, 200, "{me}");
        browser.csrf_token = me.json()["csrf_token"].as_str().map(str::to_owned);
        browser
    }

    /// The whole way to the issuer and back.
    pub fn sign_in(&mut self, idp: &Idp, person: &Person) -> Response {
        let location = self.leave();
        let back = idp.let_in(&location, person);
        self.come_back(&back)
    }

    /// Begins; where the browser is sent to.
    #[track_caller]
    pub fn leave(&mut self) -> String {
        let answer = self.get("/signin");
        assert_eq!(answer.status, 303, "{answer}");
        answer.header("location").unwrap().to_owned()
    }

    /// Follows the issuer's way back.
    pub fn come_back(&mut self, url: &str) -> Response {
        let origin = self.origin();
        let target = url.strip_prefix(&origin).unwrap_or_else(|| panic!("{url} does not lead back to {origin}"));
        self.get(target)
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send(self.request("GET", target))
    }

    /// As our page does it.
    pub fn post(&mut self, target: &str, body: &Value) -> Response {
        self.post_with(target, body, &[])
    }

    pub fn post_with(&mut self, target: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
        let mut request = self.writing(target, body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request)
    }

    /// The request that our page would send.
    pub fn writing(&self, target: &str, body: &Value) -> Request {
        self.writing_by("POST", target, body)
    }

    pub fn writing_by(&self, method: &str, target: &str, body: &Value) -> Request {
        let request = self.request(method, target).header("Origin", &self.origin());
        let request = request.header("X-CSRF-Token", self.csrf_token.as_deref().unwrap_or_default());
        request.header("Content-Type", "application/json").body(body.to_string())
    }

    /// A request with the browser's cookies and nothing else.
    pub fn request(&self, method: &str, target: &str) -> Request {
        let request = Request::new(method, target);
        if self.cookies.is_empty() {
            return request;
        }
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header("Cookie", &cookies.join("; "))
    }

    /// Sends it, keeps the cookies that come, and holds answers of the API against its description.
    #[track_caller]
    pub fn send(&mut self, request: Request) -> Response {
        let answer = send(self.address, &request);
        for (_name, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            for wanted in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(attributes.split(';').any(|one| one.trim() == wanted), "{wanted} in {cookie}");
            }
            assert!(name.starts_with("__Host-") && !attributes.contains("Domain"), "{cookie}");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        if request.target.starts_with("/api/v1") {
            Api::read().check(&request.method, &request.target, &answer);
        }
        answer
    }

    /// Opens a stream of events.
    pub fn open(&self, target: &str) -> Opened {
        open(self.address, &self.request("GET", target).header("Accept", "text/event-stream"))
    }
}
