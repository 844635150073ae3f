//! Logs: text on a terminal, JSON otherwise. Stable event names are the messages; fields are dotted and carry units. No
//! payload, name, coordinate or token is ever a field; of a panic only its place is said, for its words may quote a payload.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged where nobody says: the client libraries speak of every retry, and fleetbus says what they end in.
const FILTER: &str = "warn,fleetbus=info,librdkafka=error,async_nats=error";

/// Starts logging to standard error. `FLEETBUS_LOG` sets the filter; one that cannot be read is said, and the default taken.
pub fn start() {
    let said = std::env::var("FLEETBUS_LOG").ok().filter(|said| !said.is_empty());
    let read = EnvFilter::try_new(said.as_deref().unwrap_or(FILTER));
    let unread = read.as_ref().err().map(ToString::to_string);
    let filter = read.unwrap_or_else(|_| EnvFilter::new(FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::env::var_os("NO_COLOR").is_none();
    // A subscriber is set once a process; a second call changes nothing.
    let started = if std::io::stderr().is_terminal() {
        builder.with_ansi(colour).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.unwrap_or_default();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name(), "process.panicked");
    }));
    if let Some(error) = unread {
        tracing::warn!(error, variable = "FLEETBUS_LOG", taken = FILTER, "log.filter_unreadable");
    }
}
