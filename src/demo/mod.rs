//! How does it feel? A whole installation on one machine: an issuer, a tool server of two instances, a mail server that is
//! to be registered, and a self-check.
//!
//! [`prepare`] binds the sockets and writes the gateway's configuration; the caller starts the gateway with it, in the
//! same process; [`spawn`] serves the rest beside it, makes the calls that a visitor would make, and says what it saw.
//! Everything listens on loopback only, and every key, password and secret is made at start.

pub mod call;
pub mod issuer;
pub mod loopback;
pub mod mail;
pub mod private_dir;
mod scenario;
mod screen;
pub mod selfcheck;
pub mod setup;
pub mod sign_in;
pub mod token;
pub mod tools;

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::demo::call::Call;
use crate::demo::call::Sender;
use crate::demo::issuer::Client;
use crate::demo::issuer::Issuer;
use crate::demo::screen::Screen;
use crate::demo::selfcheck::SelfCheck;
use crate::demo::selfcheck::Tokens;
use crate::demo::selfcheck::calls;
use crate::demo::setup::MAIL_ROUTE;
use crate::demo::setup::Places;
use crate::demo::setup::ROUTE;

pub use scenario::Scenario;
pub use selfcheck::Outcome;
pub use setup::DemoError;
pub use setup::Prepared;
pub use setup::prepare;

/// When a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After the self-check (`--once`).
    SelfCheck,
    /// When the process is told to stop.
    Signal,
}

/// Starts issuer and tool server on a thread with a runtime of its own, waits for the gateway to be ready, and runs the
/// self-check.
///
/// `on_end` is called on that thread, after the private directory is gone: with [`Until::SelfCheck`] when the self-check
/// is done, with either when the gateway did not get ready within [`READY_WITHIN`]. It is the place to end the process.
/// On SIGINT and SIGTERM the private directory is removed and `on_end` is not called: to end the process then is the
/// gateway's business, and until it has, its open streams keep the tool server that they talk to.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(
    prepared: Prepared,
    until: Until,
    on_end: impl FnOnce(Outcome) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("demo".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "The demo has no runtime");
                return on_end(Outcome::default());
            }
        };
        let Prepared { directory, config_path, places, scenario, issuer, issuer_listener, instances, mail, .. } =
            prepared;
        let (mail, mail_listener) = mail;
        let programme = Programme { places, config: config_path, scenario, until };
        let stop = CancellationToken::new();
        runtime.spawn(mail_listener.serve(mail.router(stop.child_token()), stop.child_token()));
        let mut tool_server = Vec::new();
        runtime.spawn(issuer_listener.serve(Arc::clone(&issuer).router(), stop.child_token()));
        for (instance, listener) in instances {
            runtime.spawn(listener.serve(instance.router(stop.child_token()), stop.child_token()));
            tool_server.push(instance);
        }
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = show(&programme, &issuer, tool_server, Screen::stdout()) => Some(outcome),
                () = told_to_stop() => None,
            }
        });
        drop(directory);
        match outcome {
            Some(outcome) => on_end(outcome),
            None => runtime.block_on(std::future::pending()),
        }
    })
}

/// How long the gateway may take to say that it is ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

const READY_LOOK_EVERY: Duration = Duration::from_millis(50);
const AUDIT_LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is shown where, and for how long.
struct Programme {
    places: Places,
    /// The gateway's configuration.
    config: PathBuf,
    scenario: Option<Scenario>,
    until: Until,
}

/// The programme from the first line on the screen to the last.
async fn show(programme: &Programme, issuer: &Issuer, instances: Vec<tools::Instance>, mut screen: Screen) -> Outcome {
    let Programme { places, config, scenario, until } = programme;
    let tokens = async {
        let http = http_client()?;
        ready(&http, places).await?;
        let [alice, bob, carol] = issuer.users();
        let tokens = Tokens {
            alice: log_in(&http, issuer, alice).await?,
            bob: log_in(&http, issuer, bob).await?,
            carol: log_in(&http, issuer, carol).await?,
        };
        Ok::<_, StartError>((http, tokens))
    };
    let (http, tokens) = match tokens.await {
        Ok(ready) => ready,
        Err(why) => {
            screen.say(format_args!("The demo did not start: {why}"));
            let outcome = Outcome::default();
            screen.say(outcome);
            return outcome;
        }
    };
    introduce(&mut screen, places, issuer, &instances, &tokens);
    let check = SelfCheck {
        http,
        mcp_url: format!("http://{}{ROUTE}", places.gateway),
        metrics_url: format!("http://{}/metrics", places.metrics),
        issuer_url: issuer.url().to_owned(),
        audit: places.audit.clone(),
        config: config.clone(),
        instances,
        tokens,
    };
    match scenario {
        Some(scenario) => screen.say(scenario.introduction()),
        None => screen.say("What the demo sees when it makes these calls itself:\n"),
    }
    let outcome = check.run(*scenario, &mut screen).await;
    match until {
        Until::SelfCheck => outcome,
        Until::Signal => {
            screen.say("\nThe gateway runs until Ctrl-C. Your calls show here as audit records:\n");
            follow(&places.audit, &mut screen).await;
            outcome
        }
    }
}

fn introduce(screen: &mut Screen, places: &Places, issuer: &Issuer, instances: &[tools::Instance], tokens: &Tokens) {
    let gateway = places.gateway;
    let url = format!("http://{gateway}{ROUTE}");
    let ids: Vec<&str> = instances.iter().map(tools::Instance::id).collect();
    screen.say(format_args!(
        "Portcullis demo: everything in one process, on loopback, with keys made just now.

  gateway      {url}
  issuer       {issuer}
  tool server  instances {ids}, behind the gateway
  metrics      http://{metrics}/metrics
  admin pages  http://{admin}/
  sign in      http://{admin}/signin   as {staff}: no password, the sample issuer asks who you are
  status       http://{admin}/status
  audit        {audit}
  mail server  http://{mail}   of a vendor; nobody has registered it yet, so nobody can call it

The sample users, with tokens for an hour. Alice may read, Bob may write too, Carol may do nothing.

ALICE='{alice}'
BOB='{bob}'
CAROL='{carol}'
",
        issuer = issuer.url(),
        ids = ids.join(" and "),
        metrics = places.metrics,
        admin = places.admin,
        staff = sign_in::STAFF.map(|staff| staff.name).join(", "),
        mail = places.mail,
        audit = places.audit.display(),
        alice = tokens.alice,
        bob = tokens.bob,
        carol = tokens.carol,
    ));
    let mut line = |about: &str, line: String| screen.say(format_args!("# {about}\n{line}\n"));
    line("What may Alice call?", calls::list().curl("-s", &url, tokens.alice()));
    line("An allowed call.", calls::echo().curl("-s", &url, tokens.alice()));
    line("Refused: Alice lacks a scope. See the challenge.", calls::add_note().curl("-si", &url, tokens.alice()));
    line("The same by Bob, who holds it.", calls::add_note().curl("-s", &url, tokens.bob()));
    line("Refused for what the argument says.", calls::echo_the_unsaid().curl("-si", &url, tokens.alice()));
    line("What did the tool server receive?", calls::whoami().curl("-s", &url, tokens.alice()));
    line("Progress, event by event.", calls::slow().curl("-sN", &url, tokens.alice()));
    let initialize = Call::initialize().curl("-si", &url, tokens.alice());
    line(
        "A session that sticks: open it, then count three times on the same instance.",
        [
            format!("SESSION=$({initialize} | tr -d '\\r' | awk 'tolower($1) == \"mcp-session-id:\" {{ print $2 }}')"),
            Call::initialized("$SESSION").curl("-s", &url, tokens.alice()),
            format!(
                "for _ in 1 2 3; do {}; done",
                Call::tool_in_session("$SESSION", "counter", json!({})).curl("-s", &url, tokens.alice())
            ),
        ]
        .join("\n"),
    );
    if let Some(alice) = issuer.users().first() {
        let mail_url = format!("http://{gateway}{MAIL_ROUTE}");
        line(
            "Govern a tool. On the admin pages dana registers the server mail, at the address above and the public path /mail, for\n\
             # callers with the scope tools:read; erin and frank approve it, then its tools. Then Alice may call it:",
            [
                format!(
                    "MAIL=$(curl -s {}/token {} -d resource={mail_url} | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')",
                    issuer.url(),
                    log_in_form(alice).map(|(name, value)| format!("-d {name}={value}")).join(" ")
                ),
                calls::search_mail().curl("-s", &mail_url, Sender::User { variable: "MAIL", token: "" }),
            ]
            .join("\n"),
        );
        line(
            "Its vendor ships another release, with the same names: from then on the call is refused. See the approvals page.",
            format!("curl -sX POST http://{}/release/2", places.mail),
        );
        line(
            "When the hour is over: a fresh token for Alice.",
            format!(
                "curl -s {}/token {}",
                issuer.url(),
                log_in_form(alice).map(|(name, value)| format!("-d {name}={value}")).join(" ")
            ),
        );
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the gateway was not ready within {} seconds: {last}", READY_WITHIN.as_secs())]
    NotReady { last: String },
    #[error("the sample issuer gave no token")]
    NoToken,
}

/// Waits until the gateway's `/readyz` says 200 and its listener takes a connection: they are two services, and either
/// may be up first.
async fn ready(http: &reqwest::Client, places: &Places) -> Result<(), StartError> {
    let url = format!("http://{}/readyz", places.admin);
    let deadline = tokio::time::Instant::now() + READY_WITHIN;
    loop {
        let last = match http.get(&url).timeout(Duration::from_secs(1)).send().await {
            Ok(answer) if answer.status().is_success() => match TcpStream::connect(places.gateway).await {
                Ok(_connection) => return Ok(()),
                Err(error) => format!("{}: {error}", places.gateway),
            },
            Ok(answer) => format!("{url} says {}", answer.status()),
            Err(error) => error.to_string(),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(StartError::NotReady { last });
        }
        tokio::time::sleep(READY_LOOK_EVERY).await;
    }
}

/// Gets a token for a sample user from the issuer's token endpoint, as the printed line does.
async fn log_in(http: &reqwest::Client, issuer: &Issuer, user: &issuer::SampleUser) -> Result<String, StartError> {
    // Every value is made of characters that a form carries as they are.
    let form = log_in_form(user).map(|(name, value)| format!("{name}={value}")).join("&");
    let answer: Value = http
        .post(format!("{}/token", issuer.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await?
        .json()
        .await?;
    answer.get("access_token").and_then(Value::as_str).map(str::to_owned).ok_or(StartError::NoToken)
}

fn log_in_form(user: &issuer::SampleUser) -> [(&'static str, &str); 4] {
    [
        ("grant_type", "password"),
        ("client_id", Client::Agent.id()),
        ("username", user.name),
        ("password", user.password.expose()),
    ]
}

/// Shows what is appended to the audit file, line by line, for ever.
async fn follow(path: &Path, screen: &mut Screen) {
    let mut file = None;
    let mut unfinished = Vec::new();
    loop {
        // Small reads of a local file on a runtime that has nothing urgent to do: blocking is fine here.
        file = file.or_else(|| at_end(path).ok());
        if let Some(file) = &mut file
            && file.read_to_end(&mut unfinished).is_ok()
            && let Some(lines) = finished_lines(&mut unfinished)
        {
            screen.say(lines);
        }
        tokio::time::sleep(AUDIT_LOOK_EVERY).await;
    }
}

/// Takes the finished lines off the front; what has no line end yet stays.
fn finished_lines(unfinished: &mut Vec<u8>) -> Option<String> {
    let end = unfinished.iter().rposition(|byte| *byte == b'\n')?;
    let rest = unfinished.split_off(end + 1);
    let lines = std::mem::replace(unfinished, rest);
    Some(String::from_utf8_lossy(&lines).trim_end().to_owned())
}

fn at_end(path: &Path) -> io::Result<File> {
    let mut file = File::open(path)?;
    io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    Ok(file)
}

/// Waits for SIGINT or SIGTERM; others may listen for them at the same time.
async fn told_to_stop() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    let _interrupted = tokio::signal::ctrl_c().await;
}

/// A client for calls on loopback: no proxy from the environment.
pub(crate) fn http_client() -> reqwest::Result<reqwest::Client> {
    // reqwest is built without a TLS provider of its own and asks for the process-wide one, even for clear text.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::time::Clock;

    #[test]
    fn shows_audit_records_only_when_they_are_whole() {
        let mut unfinished = b"one\ntwo\nthr".to_vec();
        assert_eq!(finished_lines(&mut unfinished).as_deref(), Some("one\ntwo"));
        assert_eq!(finished_lines(&mut unfinished), None);
        unfinished.extend(b"ee\n");
        assert_eq!(finished_lines(&mut unfinished).as_deref(), Some("three"));
        assert_eq!(unfinished, b"");
    }

    #[tokio::test]
    async fn every_sample_user_gets_a_token_from_the_token_endpoint() {
        let prepared = prepare((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        let issuer = Arc::clone(&prepared.issuer);
        let stop = CancellationToken::new();
        tokio::spawn(prepared.issuer_listener.serve(Arc::clone(&issuer).router(), stop.clone()));
        let _stop = stop.drop_guard();
        let resource = format!("http://{}{ROUTE}", prepared.places.gateway);
        for user in issuer.users() {
            let token = log_in(&http_client().unwrap(), &issuer, user).await.unwrap();
            let claims = issuer.verify(&token, &resource, Clock.now()).unwrap();
            assert_eq!(claims.get("sub"), Some(&json!(user.name)));
        }
    }
}
