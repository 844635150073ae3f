//! Logs, and spans where they are configured. Logs: text on a terminal, JSON otherwise. Stable event names are the messages
//! (docs/logs.md has them all); fields are dotted and carry units. No payload, name, coordinate or token is ever a field; of a
//! panic only its place is said, for its words may quote a payload.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::trace::Exporter;

/// What is logged where nobody says: the client libraries speak of every retry, and fleetbus says what they end in.
const FILTER: &str = "warn,fleetbus=info,librdkafka=error,async_nats=error";

/// Starts logging to standard error, and sending spans. `FLEETBUS_LOG` sets the filter of the logs; one that cannot be read is said, and the
/// default taken.
pub fn start(spans: Option<&Exporter>) {
    let said = std::env::var("FLEETBUS_LOG").ok().filter(|said| !said.is_empty());
    let read = EnvFilter::try_new(said.as_deref().unwrap_or(FILTER));
    let unread = read.as_ref().err().map(ToString::to_string);
    let filter = read.unwrap_or_else(|_| EnvFilter::new(FILTER));
    // Spans are none of the logs': where they are not sent, they are not even made.
    let events = filter.and(filter_fn(|metadata| metadata.is_event()));
    let colour = std::env::var_os("NO_COLOR").is_none();
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = if std::io::stderr().is_terminal() {
        layer.with_ansi(colour).with_target(false).with_filter(events).boxed()
    } else {
        layer.json().flatten_event(true).with_filter(events).boxed()
    };
    let registry = tracing_subscriber::registry().with(layer).with(spans.map(Exporter::layer));
    // A subscriber is set once a process; a second call changes nothing.
    registry.try_init().unwrap_or_default();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name(), "process.panicked");
    }));
    if let Some(error) = unread {
        tracing::warn!(error, variable = "FLEETBUS_LOG", taken = FILTER, "log.filter_unreadable");
    }
}
