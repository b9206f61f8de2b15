//! How keys come, change, and stay, against an issuer on loopback that does what the test says.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]

use std::sync::Mutex as SyncMutex;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::*;
use crate::identity::Algorithm;
use crate::identity::TokenTypes;
use crate::identity::testkit::TestKey;

const OPENID: &str = "/.well-known/openid-configuration";
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

// ── Where keys are found ───────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn keys_are_found_through_openid_discovery() {
    let idp = Idp::start().await.with_metadata(OPENID).with_keys(&["a"]);
    assert!(fetch(&idp, JwksSource::Discover).await.unwrap().knows(Some("a"), Algorithm::EdDSA));
    assert_eq!(idp.asked(), [OPENID, "/jwks"]);
}

#[tokio::test]
async fn keys_are_found_through_rfc_8414_metadata() {
    let place = "/.well-known/oauth-authorization-server";
    let idp = Idp::start().await.with_metadata(place).with_keys(&["a"]);
    assert!(fetch(&idp, JwksSource::Discover).await.unwrap().knows(Some("a"), Algorithm::EdDSA));
    assert_eq!(idp.asked(), [OPENID, place, "/jwks"]);
}

/// Hosts of single-page applications answer every path with their start page.
#[tokio::test]
async fn a_page_for_people_in_the_first_place_does_not_hide_the_metadata_in_the_next() {
    let place = "/.well-known/oauth-authorization-server";
    let idp = Idp::start().await.with_metadata(place).with_keys(&["a"]);
    idp.set(OPENID, "<!doctype html>");
    assert!(fetch(&idp, JwksSource::Discover).await.unwrap().knows(Some("a"), Algorithm::EdDSA));
}

#[test]
fn the_well_known_name_stands_after_the_issuers_path_for_openid_and_before_it_for_oauth() {
    let cases: [(&str, &[&str]); 4] = [
        (
            "https://idp.test",
            &[
                "https://idp.test/.well-known/openid-configuration",
                "https://idp.test/.well-known/oauth-authorization-server",
            ],
        ),
        (
            "https://idp.test/",
            &[
                "https://idp.test/.well-known/openid-configuration",
                "https://idp.test/.well-known/oauth-authorization-server",
            ],
        ),
        (
            "https://idp.test/realms/a",
            &[
                "https://idp.test/realms/a/.well-known/openid-configuration",
                "https://idp.test/.well-known/oauth-authorization-server/realms/a",
                "https://idp.test/.well-known/openid-configuration/realms/a",
            ],
        ),
        (
            "https://idp.test:8443/v2/",
            &[
                "https://idp.test:8443/v2/.well-known/openid-configuration",
                "https://idp.test:8443/.well-known/oauth-authorization-server/v2",
                "https://idp.test:8443/.well-known/openid-configuration/v2",
            ],
        ),
    ];
    for (issuer, expected) in cases {
        let urls = metadata_urls(client::checked_url(issuer, &[]).unwrap()).unwrap();
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), expected, "{issuer}");
    }
}

#[test]
fn an_issuer_that_cannot_be_asked_is_refused() {
    for (issuer, expected) in [
        ("http://idp.test", NetError::InsecureUrl),
        ("https://idp.test?a=b", NetError::BadUrl),
        ("https://idp.test#a", NetError::BadUrl),
        ("corp", NetError::BadUrl),
    ] {
        let urls = client::checked_url(issuer, &[]).map_err(FetchError::from).and_then(metadata_urls);
        assert_eq!(urls.unwrap_err(), FetchError::Net(expected), "{issuer}");
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    let idp = Idp::start().await.with_keys(&["a"]);
    for issuer in ["https://idp.test".to_owned(), format!("{}/", idp.url), idp.url.to_uppercase()] {
        idp.set(OPENID, &json!({ "issuer": issuer, "jwks_uri": format!("{}/jwks", idp.url) }).to_string());
        assert_eq!(fetch(&idp, JwksSource::Discover).await.unwrap_err(), FetchError::IssuerMismatch, "{issuer}");
    }
    assert!(!idp.asked().contains(&"/jwks".to_owned()));
}

#[tokio::test]
async fn metadata_cannot_send_us_to_plain_http() {
    let idp = Idp::start().await;
    for (uri, expected) in [
        ("http://keys.test/jwks", NetError::InsecureUrl),
        ("http://169.254.169.254/latest", NetError::ForbiddenAddress),
        ("file:///etc/passwd", NetError::BadUrl),
        ("/jwks", NetError::BadUrl),
    ] {
        idp.set(OPENID, &json!({ "issuer": idp.url, "jwks_uri": uri }).to_string());
        assert_eq!(fetch(&idp, JwksSource::Discover).await.unwrap_err(), FetchError::Net(expected), "{uri}");
    }
}

#[test]
fn a_remote_issuer_cannot_send_us_to_this_machine() {
    let fetcher = KeyFetcher::new(&issuer("https://idp.test", JwksSource::Discover), Outbound::new().unwrap());
    let at = Url::parse("https://idp.test/.well-known/openid-configuration").unwrap();
    for uri in ["https://127.0.0.1/jwks", "http://localhost:9091/jwks", "https://[::1]/jwks"] {
        let metadata = json!({ "issuer": "https://idp.test", "jwks_uri": uri }).to_string();
        assert_eq!(
            fetcher.jwks_uri(&at, metadata.as_bytes()).unwrap_err(),
            FetchError::Net(NetError::InsecureUrl),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn metadata_without_issuer_or_keys_is_refused() {
    let idp = Idp::start().await;
    let no_keys = json!({ "issuer": idp.url }).to_string();
    let no_issuer = json!({ "jwks_uri": format!("{}/jwks", idp.url) }).to_string();
    for metadata in ["", "[]", "<html>", &no_keys, &no_issuer] {
        idp.set(OPENID, metadata);
        assert_eq!(fetch(&idp, JwksSource::Discover).await.unwrap_err(), FetchError::MetadataMalformed, "{metadata}");
    }
}

#[tokio::test]
async fn an_issuer_without_metadata_is_told_by_its_status() {
    let idp = Idp::start().await;
    assert_eq!(fetch(&idp, JwksSource::Discover).await.unwrap_err(), FetchError::Net(NetError::BadStatus(404)));
}

#[tokio::test]
async fn keys_come_from_a_url_without_metadata() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let url = JwksSource::Url(format!("{}/jwks", idp.url));
    assert!(fetch(&idp, url).await.unwrap().knows(Some("a"), Algorithm::EdDSA));
    assert_eq!(idp.asked(), ["/jwks"]);
}

#[tokio::test]
async fn a_redirect_of_the_keys_is_not_followed() {
    let idp = Idp::start().await.with_keys(&["a"]);
    idp.set("/moved", "redirect:/jwks");
    let url = JwksSource::Url(format!("{}/moved", idp.url));
    assert_eq!(fetch(&idp, url).await.unwrap_err(), FetchError::Net(NetError::BadStatus(302)));
    assert_eq!(idp.asked(), ["/moved"]);
}

#[tokio::test]
async fn a_set_over_the_bound_is_refused() {
    let idp = Idp::start().await;
    idp.set("/jwks", &format!("{{\"keys\":[]{}}}", " ".repeat(JWKS_BYTES_MAX)));
    let url = JwksSource::Url(format!("{}/jwks", idp.url));
    assert_eq!(fetch(&idp, url).await.unwrap_err(), FetchError::Net(NetError::TooLarge));
}

#[tokio::test]
async fn keys_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let fetcher =
        KeyFetcher::new(&issuer("https://idp.test", JwksSource::File(path.clone())), Outbound::new().unwrap());
    assert_eq!(fetcher.fetch().await.unwrap_err(), FetchError::FileUnreadable);
    std::fs::write(&path, TestKey::jwks([&TestKey::new("f", Algorithm::EdDSA)])).unwrap();
    assert!(fetcher.fetch().await.unwrap().knows(Some("f"), Algorithm::EdDSA));
    std::fs::write(&path, "{").unwrap();
    assert_eq!(fetcher.fetch().await.unwrap_err(), FetchError::KeysMalformed);
    std::fs::write(&path, " ".repeat(JWKS_BYTES_MAX + 1)).unwrap();
    assert_eq!(fetcher.fetch().await.unwrap_err(), FetchError::FileUnreadable);
}

// ── How keys change ────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_rotation_is_seen_by_the_next_refresh() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    assert_eq!((ring.current().len(), ring.fetched_at()), (0, None));
    assert_eq!(ring.refresh(NOW).await, RefreshOutcome::Updated);
    assert_eq!(ring.refresh(NOW.plus(MINUTE)).await, RefreshOutcome::Unchanged);
    let before = ring.current();

    idp.rotate(&["b", "c"]);
    assert_eq!(ring.refresh(NOW.plus(MINUTE * 2)).await, RefreshOutcome::Updated);
    let after = ring.current();
    assert_eq!((after.knows(Some("a"), Algorithm::EdDSA), after.knows(Some("b"), Algorithm::EdDSA)), (false, true));
    // A request that took the keys before goes on with what it took.
    assert!(before.knows(Some("a"), Algorithm::EdDSA));
    assert_eq!(ring.fetched_at(), Some(NOW.plus(MINUTE * 2)));
}

#[tokio::test]
async fn the_last_good_keys_stay_while_the_issuer_is_down_or_talks_nonsense() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    ring.refresh(NOW).await;
    for (answer, error) in [
        ("status:500", FetchError::Net(NetError::BadStatus(500))),
        ("status:404", FetchError::Net(NetError::BadStatus(404))),
        ("<html>maintenance</html>", FetchError::KeysMalformed),
        ("{}", FetchError::KeysMalformed),
    ] {
        idp.set("/jwks", answer);
        assert_eq!(ring.refresh(NOW.plus(MINUTE)).await, RefreshOutcome::Failed(error), "{answer}");
        assert!(ring.current().knows(Some("a"), Algorithm::EdDSA), "{answer}");
    }
    assert_eq!(ring.fetched_at(), Some(NOW));

    idp.stop().await;
    assert_eq!(ring.refresh(NOW.plus(MINUTE)).await, RefreshOutcome::Failed(FetchError::Net(NetError::Connect)));
    assert!(ring.current().knows(Some("a"), Algorithm::EdDSA));
}

#[tokio::test]
async fn a_set_published_empty_withdraws_every_key() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    ring.refresh(NOW).await;
    idp.set("/jwks", r#"{"keys":[]}"#);
    assert_eq!(ring.refresh(NOW).await, RefreshOutcome::Updated);
    assert!(ring.current().is_empty());
}

#[tokio::test]
async fn keys_are_fetched_for_unknown_ones_at_most_once_per_cool_down() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    ring.refresh(NOW).await;
    idp.rotate(&["b"]);
    assert_eq!(ring.refetch_for_unknown_key(NOW).await, Refetch::Fetched(RefreshOutcome::Updated));
    assert!(ring.current().knows(Some("b"), Algorithm::EdDSA));
    idp.rotate(&["c"]);
    for second in 0..30 {
        let now = NOW.plus(Duration::from_secs(second));
        assert_eq!(ring.refetch_for_unknown_key(now).await, Refetch::CoolingDown, "{second}");
    }
    assert_eq!(idp.asked().len(), 2);
    let later = NOW.plus(Duration::from_secs(30));
    assert_eq!(ring.refetch_for_unknown_key(later).await, Refetch::Fetched(RefreshOutcome::Updated));
}

#[tokio::test]
async fn a_fetch_that_failed_cools_down_too() {
    let idp = Idp::start().await;
    let ring = idp.keyring();
    let failed = RefreshOutcome::Failed(FetchError::Net(NetError::BadStatus(404)));
    assert_eq!(ring.refetch_for_unknown_key(NOW).await, Refetch::Fetched(failed));
    assert_eq!(ring.refetch_for_unknown_key(NOW).await, Refetch::CoolingDown);
}

#[tokio::test]
async fn the_background_refresh_does_not_use_up_the_cool_down() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    ring.refresh(NOW).await;
    assert_eq!(ring.refetch_for_unknown_key(NOW).await, Refetch::Fetched(RefreshOutcome::Unchanged));
}

#[tokio::test]
async fn callers_with_unknown_keys_share_one_fetch() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    idp.hold();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let ring = Arc::clone(&ring);
            tokio::spawn(async move { ring.refetch_for_unknown_key(NOW).await })
        })
        .collect();
    idp.until_asked().await;
    idp.release();
    let mut outcomes = Vec::new();
    for caller in callers {
        outcomes.push(caller.await.unwrap());
    }
    let fetched = outcomes.iter().filter(|it| **it == Refetch::Fetched(RefreshOutcome::Updated)).count();
    let joined = outcomes.iter().filter(|it| **it == Refetch::Joined).count();
    assert_eq!((fetched, joined, idp.asked().len()), (1, 19, 1));
}

/// Were it dropped with its caller, a client could ask, leave, and so keep everyone from the keys for a cool-down.
#[tokio::test]
async fn a_fetch_goes_on_when_its_caller_leaves() {
    let idp = Idp::start().await.with_keys(&["a"]);
    let ring = idp.keyring();
    idp.hold();
    let leaving = tokio::spawn({
        let ring = Arc::clone(&ring);
        async move { ring.refetch_for_unknown_key(NOW).await }
    });
    idp.until_asked().await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let waiting = tokio::spawn({
        let ring = Arc::clone(&ring);
        async move { ring.refetch_for_unknown_key(NOW).await }
    });
    tokio::task::yield_now().await;
    idp.release();
    assert_eq!(waiting.await.unwrap(), Refetch::Joined);
    assert!(ring.current().knows(Some("a"), Algorithm::EdDSA));
}

#[tokio::test]
async fn a_ring_goes_on_serving_after_a_reload_unless_its_source_changed() {
    let ring = Keyring::new(Arc::new(issuer("https://idp.test", JwksSource::Discover)), Outbound::new().unwrap());
    let mut reloaded = issuer("https://idp.test", JwksSource::Discover);
    reloaded.audiences = vec!["other".into()];
    assert!(ring.serves(&reloaded));
    assert!(!ring.serves(&issuer("https://idp.test/", JwksSource::Discover)));
    assert!(!ring.serves(&issuer("https://idp.test", JwksSource::Url("https://idp.test/jwks".into()))));
}

const MINUTE: Duration = Duration::from_secs(60);

async fn fetch(idp: &Idp, source: JwksSource) -> Result<KeySet, FetchError> {
    KeyFetcher::new(&issuer(&idp.url, source), Outbound::new().unwrap()).fetch().await
}

fn issuer(url: &str, jwks: JwksSource) -> IssuerConfig {
    IssuerConfig {
        name: "corp".into(),
        issuer: url.into(),
        audiences: Vec::new(),
        algorithms: vec![Algorithm::EdDSA],
        jwks,
        clock_leeway: Duration::from_secs(30),
        scope_claims: Vec::new(),
        token_types: TokenTypes::AnyButIdToken,
        jwks_refresh: Duration::from_secs(300),
        jwks_cooldown: Duration::from_secs(30),
    }
}

/// An issuer on loopback. Every path answers what the test has set there, and 404 otherwise.
struct Idp {
    url: String,
    script: Arc<Script>,
    server: tokio::task::JoinHandle<()>,
}

struct Script {
    /// Path and body; a body of `status:N` or `redirect:PATH` is that instead.
    pages: SyncMutex<Vec<(String, String)>>,
    asked: SyncMutex<Vec<String>>,
    arrivals: Semaphore,
    gate: Semaphore,
    held: AtomicUsize,
}

impl Idp {
    async fn start() -> Self {
        let script = Arc::new(Script {
            pages: SyncMutex::default(),
            asked: SyncMutex::default(),
            arrivals: Semaphore::new(0),
            gate: Semaphore::new(0),
            held: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, script, server }
    }

    fn with_metadata(self, path: &str) -> Self {
        self.set(path, &json!({ "issuer": self.url, "jwks_uri": format!("{}/jwks", self.url) }).to_string());
        self
    }

    fn with_keys(self, kids: &[&'static str]) -> Self {
        self.rotate(kids);
        self
    }

    fn rotate(&self, kids: &[&'static str]) {
        let keys: Vec<TestKey> = kids.iter().map(|kid| TestKey::new(kid, Algorithm::EdDSA)).collect();
        self.set("/jwks", &String::from_utf8(TestKey::jwks(&keys)).unwrap());
    }

    fn set(&self, path: &str, body: &str) {
        let mut pages = self.script.pages.lock().unwrap();
        pages.retain(|(at, _)| at != path);
        pages.push((path.to_owned(), body.to_owned()));
    }

    fn keyring(&self) -> Arc<Keyring> {
        let source = JwksSource::Url(format!("{}/jwks", self.url));
        Arc::new(Keyring::new(Arc::new(issuer(&self.url, source)), Outbound::new().unwrap()))
    }

    fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }

    /// From here on answers wait for [`Idp::release`].
    fn hold(&self) {
        self.script.held.store(1, Ordering::SeqCst);
    }

    fn release(&self) {
        self.script.held.store(0, Ordering::SeqCst);
        self.script.gate.add_permits(1000);
    }

    async fn until_asked(&self) {
        self.script.arrivals.acquire().await.unwrap().forget();
    }

    async fn stop(self) {
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
    }
}

async fn answer(State(script): State<Arc<Script>>, uri: Uri) -> Response {
    script.asked.lock().unwrap().push(uri.path().to_owned());
    script.arrivals.add_permits(1);
    if script.held.load(Ordering::SeqCst) == 1 {
        script.gate.acquire().await.unwrap().forget();
    }
    let page = script.pages.lock().unwrap().iter().find(|(at, _)| at == uri.path()).map(|(_, body)| body.clone());
    let Some(body) = page else { return StatusCode::NOT_FOUND.into_response() };
    if let Some(status) = body.strip_prefix("status:") {
        return StatusCode::from_bytes(status.as_bytes()).unwrap().into_response();
    }
    if let Some(target) = body.strip_prefix("redirect:") {
        return (StatusCode::FOUND, [(header::LOCATION, target.to_owned())]).into_response();
    }
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
