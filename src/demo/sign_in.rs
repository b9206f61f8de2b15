//! Who governs the demo? Three sample people, whom the sample issuer signs in on its own page: no passwords, because
//! whoever can open a page on this machine's loopback may be any of them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest;
use serde_json::{Map, Value, json};

use crate::demo::issuer::{GATEWAY_CLIENT, Issuer};
use crate::demo::token::{NoRandomness, random_text};
use crate::time::{Clock, UnixSeconds};

/// Somebody who may sign in to the admin pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staff {
    /// `sub`.
    pub name: &'static str,
    /// What the page says of them.
    pub about: &'static str,
    /// `groups` of the ID token.
    pub groups: &'static [&'static str],
}

/// Dana runs the gateway; Erin and Frank decide what may be used.
pub const STAFF: [Staff; 3] = [
    Staff {
        name: "dana",
        about: "platform: registers and retires servers, reads the audit log",
        groups: &["platform"],
    },
    Staff { name: "erin", about: "security: approves servers and tools", groups: &["security"] },
    Staff { name: "frank", about: "security, too: the second pair of eyes", groups: &["security"] },
];

/// Sign-ins that are under way.
#[derive(Default)]
pub struct Codes(Mutex<HashMap<String, Grant>>);

/// What a code is good for.
struct Grant {
    code_challenge: String,
    nonce: String,
    staff: Staff,
    until: UnixSeconds,
}

/// What a client asks the authorization endpoint for (RFC 6749 §4.1.1, RFC 7636 §4.3), checked.
struct Asked {
    state: String,
    nonce: String,
    code_challenge: String,
}

impl Codes {
    fn issue(&self, asked: Asked, staff: Staff, now: UnixSeconds) -> Result<(String, String), NoRandomness> {
        let code = random_text::<32>()?;
        let grant =
            Grant { code_challenge: asked.code_challenge, nonce: asked.nonce, staff, until: now.plus(CODE_LIFETIME) };
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_code, grant| grant.until > now);
        if codes.len() < CODES_MAX {
            codes.insert(code.clone(), grant);
        }
        Ok((code, asked.state))
    }

    /// The claims of the ID token for a code (OpenID Connect Core §2), but for those that every token has. A code is good
    /// once, and only with the verifier whose digest it was asked for with (RFC 7636 §4.6).
    pub(super) fn redeem(&self, code: &str, verifier: &str, now: UnixSeconds) -> Option<Map<String, Value>> {
        let grant = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(code)?;
        let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()).as_ref());
        if grant.until <= now || challenge != grant.code_challenge {
            return None;
        }
        let claims = json!({
            "sub": grant.staff.name, "aud": GATEWAY_CLIENT, "nonce": grant.nonce,
            "groups": grant.staff.groups, "name": grant.staff.name,
            "iat": now.0, "exp": now.plus(CODE_LIFETIME).0,
        });
        claims.as_object().cloned()
    }
}

/// `GET /authorize`: the choice of people.
pub(super) async fn choose(
    State(issuer): State<Arc<Issuer>>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Result<Response, StatusCode> {
    let asked_for = Asked::read(&issuer, &asked)?;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Sample issuer</title><style>{STYLE}</style>\
         <main><h1>Sample issuer</h1><p>This page belongs to the demo. Who are you?</p>\n",
    );
    for staff in STAFF {
        // Everything here is ours, or made of the characters of base64url.
        let _written = writeln!(
            page,
            "<form method=\"post\" action=\"/authorize\">\
             <input type=\"hidden\" name=\"state\" value=\"{}\"><input type=\"hidden\" name=\"nonce\" value=\"{}\">\
             <input type=\"hidden\" name=\"code_challenge\" value=\"{}\">\
             <p><button name=\"person\" value=\"{name}\">{name}</button> <span>{}</span></p></form>",
            asked_for.state,
            asked_for.nonce,
            asked_for.code_challenge,
            staff.about,
            name = staff.name,
        );
    }
    page.push_str("</main></html>\n");
    let digest = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()).as_ref());
    let policy = format!("{PAGE_POLICY}; style-src 'sha256-{digest}'");
    let headers = [(CACHE_CONTROL, "no-store".to_owned()), (CONTENT_SECURITY_POLICY, policy)];
    Ok((headers, Html(page)).into_response())
}

/// `POST /authorize`: one of them was chosen.
pub(super) async fn chosen(
    State(issuer): State<Arc<Issuer>>,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, StatusCode> {
    let redirect_uri = issuer.redirect_uri().ok_or(StatusCode::NOT_FOUND)?.to_owned();
    let person = one(&form, "person")?;
    let staff = STAFF.into_iter().find(|staff| staff.name == person).ok_or(StatusCode::BAD_REQUEST)?;
    let asked = Asked {
        state: plain(&form, "state")?,
        nonce: plain(&form, "nonce")?,
        code_challenge: plain(&form, "code_challenge")?,
    };
    let issued = issuer.codes().issue(asked, staff, Clock.now());
    let (code, state) = issued.map_err(|_no_randomness| StatusCode::INTERNAL_SERVER_ERROR)?;
    let iss: String = issuer.url().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let location = format!("{redirect_uri}?code={code}&state={state}&iss={iss}");
    Ok((StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response())
}

impl Asked {
    /// Exactly what the gateway asks for, and for nobody else: nothing is sent to an address that somebody else has put in.
    fn read(issuer: &Issuer, query: &[(String, String)]) -> Result<Self, StatusCode> {
        let is = |name: &str, wanted: &str| one(query, name).is_ok_and(|value| value == wanted);
        let redirect_uri = issuer.redirect_uri().ok_or(StatusCode::NOT_FOUND)?;
        let is_in_order = is("response_type", "code")
            && is("client_id", GATEWAY_CLIENT)
            && is("redirect_uri", redirect_uri)
            && is("code_challenge_method", "S256")
            && one(query, "scope")?.split(' ').any(|scope| scope == "openid");
        if !is_in_order {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(Self {
            state: plain(query, "state")?,
            nonce: plain(query, "nonce")?,
            code_challenge: plain(query, "code_challenge")?,
        })
    }
}

/// RFC 6749 §3.1: a parameter comes at most once.
fn one<'f>(form: &'f [(String, String)], name: &str) -> Result<&'f str, StatusCode> {
    let mut values = form.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// A value of base64url characters, as the gateway makes them: nothing in it could mean anything to a page or an address.
fn plain(form: &[(String, String)], name: &str) -> Result<String, StatusCode> {
    let value = one(form, name)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (16..=128).contains(&value.len()) && value.bytes().all(is_plain) {
        return Ok(value.to_owned());
    }
    Err(StatusCode::BAD_REQUEST)
}

const CODE_LIFETIME: Duration = Duration::from_secs(120);
const CODES_MAX: usize = 64;
const STYLE: &str = ":root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
                     body{margin:0;background:light-dark(#f5f6f8,#0c0f13);color:light-dark(#171b21,#e3e7ed)}\
                     main{max-width:34rem;margin:min(14vh,7rem) auto;padding:0 1rem}h1{font-size:1.6rem;margin:0}\
                     form p{display:flex;gap:1rem;align-items:center;margin:.6rem 0;padding:.7rem .9rem;border-radius:9px;\
                     background:light-dark(#fff,#13171d);border:1px solid light-dark(#e2e5ea,#252c35)}\
                     button{font:inherit;font-weight:600;min-width:5rem;padding:.35rem .8rem;border:0;border-radius:6px;\
                     background:light-dark(#2450b8,#3865d6);color:#fff;cursor:pointer}\
                     button:focus-visible{outline:2px solid light-dark(#2450b8,#8caefb);outline-offset:2px}";

// `form-action` holds for where a form leads in the end, too: the gateway's own page.
const PAGE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'";
