//! The test kit: everything a black-box test needs to tell a story about the real binary.
//!
//! Nothing here knows how the gateway works inside. Every party listens on a loopback port of its own, so tests run side
//! by side; nothing sleeps except [`poll_until`], which is bounded.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

mod admin;
mod answer;
mod caller;
mod clock;
mod conf;
pub mod frames;
mod gateway;
mod host;
mod http1;
mod http2;
mod idp;
mod mcp_server;
mod mmdb;
mod openapi;
mod pieces;
#[path = "../../../src/store/tests/postgres.rs"]
pub mod postgres;
mod raw_server;
mod real;
mod redis;
pub mod registry;
mod sts;
mod tls;
mod world;

pub use admin::{Browser, with_sign_in};
pub use answer::Answer;
pub use caller::{Caller, Conversation, LEGACY, MODERN, REVISIONS, legacy_message, modern_message};
pub use clock::MovedClock;
pub use conf::{AUDIENCE, Conf, PUBLIC_HOST, SESSION_KEY, conf};
pub use gateway::{Gateway, Output, portcullis, write};
pub use http1::{Connection, Event, Framing, Opened, Request, Response, open, send, send_raw};
pub use http2::send_h2c;
pub use idp::{Alg, Idp, Person, Token, now, random_word};
pub use mcp_server::{McpServer, Reply, Seen, message_with_result};
pub use mmdb::mmdb;
pub use openapi::Api;
pub use pieces::Pieces;
pub use raw_server::{RawRequest, RawServer, Then};
pub use real::{RmcpServer, connect_rmcp};
pub use redis::Redis;
pub use sts::Sts;
pub use tls::{Authority, Identity, TlsClient, TlsFront};
pub use world::{World, usual};

/// The longest a test waits for something that should happen at once, on a machine with much else to do.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The runtime on which async clients run; servers have threads of their own.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        prepare();
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// Prepares the test process once: the crypto provider that reqwest asks for, and room for thousands of sockets.
pub fn prepare() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Best effort: some distributions start with a soft limit of 1024, and the children inherit what is set here.
        let _ = std::process::Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string(), "--nofile=16384:"])
            .stderr(std::process::Stdio::null())
            .status();
    });
}

/// Asks again until there is an answer.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
pub fn poll_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
