//! Logs: text on a terminal, JSON otherwise. Stable event names are the messages; fields are dotted and carry units. No
//! payload, name, coordinate or token is ever a field.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `FLEETBUS_LOG` sets the filter; the default is `info`, with the client libraries at
/// `warn`.
pub fn start() {
    let filter = EnvFilter::try_from_env("FLEETBUS_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,fleetbus=info,librdkafka=error,async_nats=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::env::var_os("NO_COLOR").is_none();
    // A subscriber is set once a process; a second call changes nothing.
    let started = if std::io::stderr().is_terminal() {
        builder.with_ansi(colour).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.unwrap_or_default();
}
