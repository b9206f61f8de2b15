//! How fast is Portcullis, and what does it cost? Everything that stands around a gateway under load, in one program;
//! `run.sh` builds and starts it.
//!
//! ```text
//! load run OPTIONS               measures, prints the table (measure.rs)
//! load backend PORT… [tls CERTIFICATE KEY PORT…]   a fast MCP server, which is a token endpoint too (backend.rs)
//! load first-seen|sessions|streams …   clients that oha cannot be (clients.rs)
//! load soak OPTIONS              hours in minutes: sessions, tokens, keys and instances come and go (soak.rs)
//! load tools PORT JOURNAL        an MCP server that knows its sessions and writes down its calls (tools.rs)
//! ```
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a measurement that cannot be set up should fail loudly, and its table goes to standard output"
)]
#![expect(unreachable_pub, reason = "nothing is public outside this program")]

mod backend;
mod certificates;
mod clients;
mod measure;
mod process;
mod rows;
mod soak;
mod stage;
mod table;
mod tokens;
mod tools;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", options @ ..] => measure::run(options),
        ["backend", ports @ ..] => backend::serve(ports),
        ["first-seen", options @ ..] => clients::first_seen(options),
        ["sessions", options @ ..] => clients::sessions(options),
        ["streams", options @ ..] => clients::streams(options),
        ["soak", options @ ..] => soak::run(options),
        ["tools", port, journal] => tools::serve(port, journal),
        _ => println!("benches/load/run.sh starts this"),
    }
}
