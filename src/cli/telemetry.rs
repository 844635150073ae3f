//! Logs, and spans where they are configured. Logs: text on a terminal, JSON otherwise. Stable event names are the messages
//! (docs/logs.md has them all); fields are dotted and carry units. No payload, name, coordinate or token is ever a field; of a
//! panic only its place is said, for its words may quote a payload.

use std::io::IsTerminal as _;

use tracing::Dispatch;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::logs;
use crate::trace::Exporter;

/// What is logged where nobody says: the client libraries speak of every retry, and fleetbus says what they end in. One calls each of
/// them an error, which is `nats.login_refused` once.
const FILTER: &str = "warn,fleetbus=info,librdkafka=error,async_nats=error,async_nats::connector=off";

/// Starts logging to standard error, and sending spans. `FLEETBUS_LOG` sets the filter of the logs; one that cannot be read is said, and the
/// default taken. What is given back writes the last lines as it is dropped.
pub fn start(spans: Option<&Exporter>) -> WorkerGuard {
    let said = std::env::var("FLEETBUS_LOG").ok().filter(|said| !said.is_empty());
    let read = filter(said.as_deref().unwrap_or(FILTER));
    let unread = read.as_ref().err().cloned();
    let events = events_of(read.unwrap_or_else(|_| EnvFilter::new(FILTER)));
    let colour = std::env::var_os("NO_COLOR").is_none();
    let (lines, written) = logs::to_stderr();
    let layer = fmt::layer().with_writer(lines);
    let layer = if std::io::stderr().is_terminal() {
        layer.with_ansi(colour).with_target(false).with_filter(events).boxed()
    } else {
        layer.json().flatten_event(true).with_filter(events).boxed()
    };
    // A subscriber is set once a process; a second call changes nothing.
    subscriber(layer, spans).try_init().unwrap_or_default();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name(), "process.panicked");
    }));
    if let Some(error) = unread {
        tracing::warn!(error, variable = "FLEETBUS_LOG", taken = FILTER, "log.filter_unreadable");
    }
    written
}

/// A filter, as it was meant: a word alone is a level, though the library takes it for a part of the program, and everything else is silent
/// then.
fn filter(said: &str) -> Result<EnvFilter, String> {
    let mut parts: Vec<&str> = said.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    for part in &parts {
        let is_level = part.parse::<LevelFilter>().is_ok();
        let names_a_level = part.contains(['=', '[']) && !part.contains(char::is_whitespace);
        if !is_level && !names_a_level {
            return Err(format!(
                "`{part}` is not a level: error, warn, info, debug, trace or off, or TARGET=LEVEL"
            ));
        }
    }
    // Its words name subjects, and so vehicles: who wants them names it.
    if !said.contains("async_nats") {
        parts.extend(["async_nats=error", "async_nats::connector=off"]);
    }
    EnvFilter::try_new(parts.join(",")).map_err(|error| error.to_string())
}

/// Spans are none of the logs': where they are not sent, they are not even made.
fn events_of(filter: EnvFilter) -> impl Filter<Registry> {
    filter.and(filter_fn(|metadata| metadata.is_event()))
}

/// What takes logs and spans.
fn subscriber(logs: impl Layer<Registry> + Send + Sync, spans: Option<&Exporter>) -> Dispatch {
    let registry = tracing_subscriber::registry().with(logs);
    // Where it may be there or not, a layer has no filter while it is not: every span of every library would be made.
    match spans {
        Some(spans) => registry.with(spans.layer()).into(),
        None => registry.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace;

    #[test]
    fn a_word_alone_is_a_level_or_nothing() {
        for said in [FILTER, "debug", " info ", "warn, fleetbus=debug", "off", "fleetbus[publish]=trace"] {
            assert!(filter(said).is_ok(), "{said}");
        }
        for said in ["warning", "verbose", "info fleetbus=debug", "fleetbus:debug", "fleetbus"] {
            assert!(filter(said).is_err(), "{said}");
        }
    }

    #[test]
    fn where_spans_are_not_sent_none_is_made() {
        let logs = fmt::layer().with_writer(std::io::sink).with_filter(events_of(EnvFilter::new(FILTER)));
        tracing::dispatcher::with_default(&subscriber(logs, None), || {
            assert!(trace::publish("kafka", 1).is_disabled());
            assert!(tracing::error_span!("somebody else's").is_disabled());
            assert!(tracing::event_enabled!(tracing::Level::INFO));
        });
    }
}
