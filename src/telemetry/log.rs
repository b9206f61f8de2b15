//! How does the process log? One set-up for our own events and for those of Pingora and other libraries that use `log`.
//!
//! To standard error, because standard output may carry the audit log. [`FILTER_VAR`] chooses what is shown, in the
//! syntax of `tracing_subscriber::EnvFilter`; [`FORMAT_VAR`]`=json` writes one JSON object a line.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::Event;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is one already.
    #[error("a log is set up already")]
    AlreadySet,
    /// [`FILTER_VAR`] cannot be read.
    #[error("{FILTER_VAR}: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// [`FORMAT_VAR`] names no format.
    #[error("{FORMAT_VAR} must be `text` or `json`")]
    Format,
}

/// Sets the process log up from the two variables of the environment; `default` is the filter where they say nothing. To
/// be called once, first of all.
///
/// # Errors
/// [`LogError`] when a variable is wrong or a log is set up already.
pub fn init(default: &str) -> Result<(), LogError> {
    let filter = filter(std::env::var(FILTER_VAR).ok().as_deref(), default)?;
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(filter).with(QuietPerConnection);
    let set = match std::env::var(FORMAT_VAR).as_deref() {
        Ok("json") => subscriber.with(stderr.json().flatten_event(true)).try_init(),
        Ok("text" | "") | Err(_) => subscriber.with(stderr.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Ok(_) => return Err(LogError::Format),
    };
    set.map_err(|_| LogError::AlreadySet)
}

/// What is shown: `asked` when there is something in it, else `default`.
fn filter(asked: Option<&str>, default: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let directives = asked.map(str::trim).filter(|asked| !asked.is_empty()).unwrap_or(default);
    EnvFilter::builder().parse(directives)
}

/// Drops what Pingora reports at ERROR of a single connection and nobody has to act on: one that a scanner, a health check or
/// a closed laptop ends during the TLS handshake; one of the pool that was still being watched when a request wanted it, which
/// makes a new one then. The same targets report what someone must see, such as a failing `accept`, so that a filter by target
/// cannot part the two.
struct QuietPerConnection;

impl<S: Subscriber> Layer<S> for QuietPerConnection {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > tracing::Level::WARN {
            return true;
        }
        let mut record = Record::default();
        event.record(&mut record);
        let target = record.target.as_deref().unwrap_or(event.metadata().target());
        !PER_CONNECTION.iter().any(|(of, starts)| target.starts_with(of) && record.message.starts_with(starts))
    }
}

/// The parts of an event that tell what it is. A record of `log` comes under the target `log` with its own in a field.
#[derive(Default)]
struct Record {
    target: Option<String>,
    message: String,
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "log.target" => self.target = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// Chooses what is logged, e.g. `info,portcullis=debug`.
pub const FILTER_VAR: &str = "PORTCULLIS_LOG";

/// `text` (default) or `json`.
pub const FORMAT_VAR: &str = "PORTCULLIS_LOG_FORMAT";

/// What the demonstration shows: its own screen is what is to be seen.
pub const FILTER_DEMO: &str = "warn,pingora_proxy=off,pingora_core::apps=off";

/// What is shown when nobody asks for something else.
///
/// Pingora's proxy and HTTP applications report each request that a client or a server breaks off at ERROR, with the
/// request's summary in the text. The audit record and the metrics have each of these with its cause, ERROR is kept for
/// what someone should get up for, and request data does not belong into the process log. `info,pingora_proxy=error`
/// brings them back.
pub const FILTER_DEFAULT: &str = "info,pingora_proxy=off,pingora_core::apps=off";

/// Target and beginning of messages that are about a single connection.
const PER_CONNECTION: &[(&str, &str)] = &[
    ("pingora_core::connectors", "failed to acquire reusable stream"),
    ("pingora_core::services::listening", "Downstream handshake"),
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_pingora_says_of_single_requests_is_quiet_and_the_rest_is_heard() {
        let heard = heard(filter(None, FILTER_DEFAULT).unwrap(), || {
            tracing::error!(target: "pingora_proxy", "Fail to proxy: client gone");
            tracing::error!(target: "pingora_proxy::proxy_h1", "Error finish sending body to downstream");
            tracing::error!(target: "pingora_core::apps::http_app", "HTTP server fails to read from downstream");
            tracing::error!(target: "pingora_core::services::listening", "Downstream handshake error from 1.2.3.4");
            tracing::error!(target: "pingora_core::services::listening", "Accept() failed: too many open files");
            tracing::error!(target: "pingora_core::connectors", "failed to acquire reusable stream");
            tracing::info!(target: "pingora_core::server", "Server starting");
            tracing::info!(target: "portcullis::app", "ready");
            tracing::debug!(target: "portcullis::app", "detail");
        });
        assert_eq!(heard, ["Accept() failed: too many open files", "Server starting", "ready"]);
    }

    #[test]
    fn an_operator_can_ask_for_more() {
        let heard = heard(filter(Some(" warn,pingora_proxy=error,portcullis=debug "), FILTER_DEFAULT).unwrap(), || {
            tracing::error!(target: "pingora_proxy", "Fail to proxy: client gone");
            tracing::info!(target: "other", "not asked for");
            tracing::debug!(target: "portcullis::app", "detail");
        });
        assert_eq!(heard, ["Fail to proxy: client gone", "detail"]);
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        assert_eq!(
            filter(Some(" "), FILTER_DEFAULT).unwrap().to_string(),
            filter(None, FILTER_DEFAULT).unwrap().to_string()
        );
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error() {
        assert!(filter(Some("portcullis=loud"), FILTER_DEFAULT).is_err());
    }

    /// The messages that come through, in order.
    fn heard(filter: EnvFilter, say: impl FnOnce()) -> Vec<String> {
        let ear = Ear::default();
        let writer = ear.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_level(false)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(QuietPerConnection).with(layer);
        tracing::subscriber::with_default(subscriber, say);
        let bytes = ear.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Ear {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
