//! Spans over OTLP: `webhook` or `poll`, below it `decode` and `publish`, whose context travels in each message's
//! `traceparent`; `drain` and `replay`, below them `publish`, with links to the traces of what they send. Invariants: ids of
//! accounts, counts and statuses are all that a span says; where `telemetry` is not configured no span is made, and the
//! sender's own `traceparent` is handed on; what was not sent is counted and said. Neighbours: `cli::telemetry` installs it, `intake`, `replay`
//! and `admin` make the spans.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self, Sampler, SdkTracerProvider, SpanData};
use reqwest::blocking::Client;
use tracing::field::Empty;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Otlp, SecretError};
use crate::deliver::seldom::Seldom;
use crate::outbound::Way;

/// The target of all spans: no filter of the logs names it.
pub const SPANS: &str = "spans";
/// How long the collector may take with one batch, and with the last one at the stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two lines about spans that were not sent.
const QUIET: Duration = Duration::from_secs(60);
/// Traces that one span links to, at most.
const LINKS: usize = 32;

/// The exporter is the process's, and so is the count of what it did not send.
static NOT_SENT: AtomicU64 = AtomicU64::new(0);

/// Spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The collector's token.
    #[error("the token of `telemetry.otlp` cannot be read")]
    Secret(#[from] SecretError),
    /// The exporter.
    #[error("the exporter of spans cannot be made")]
    Exporter(#[from] ExporterBuildError),
    /// Its client.
    #[error("the client of the exporter of spans cannot be made")]
    Client(#[from] reqwest::Error),
}

/// What sends spans to the collector, which need not be up. Not to be called on an async task.
///
/// # Errors
/// Where the token cannot be read, or the endpoint is none.
pub fn exporter(otlp: &Otlp) -> Result<SpanExporter, OpenError> {
    let mut headers = HashMap::new();
    if let Some(token) = &otlp.token {
        let token = token.read_sendable()?;
        headers.insert("authorization".to_owned(), format!("Bearer {}", token.reveal().trim_ascii()));
    }
    let mut builder = SpanExporter::builder().with_http();
    // The exporter's own client would go through a proxy, also to this machine.
    if Way::to(&otlp.endpoint) == Way::Loopback {
        builder = builder.with_http_client(Client::builder().timeout(PATIENCE).no_proxy().build()?);
    }
    Ok(builder
        .with_endpoint(format!("{}/v1/traces", otlp.endpoint))
        .with_timeout(PATIENCE)
        .with_headers(headers)
        .build()?)
}

/// Spans that were not sent since the start: the collector was away, or refused them.
pub fn not_sent() -> u64 {
    NOT_SENT.load(Ordering::Relaxed)
}

/// Says what was not sent, and why: the library keeps it to itself.
#[derive(Debug)]
struct Saying {
    exporter: SpanExporter,
    seldom: Seldom,
}

impl trace::SpanExporter for Saying {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        if let Err(error) = &sent {
            NOT_SENT.fetch_add(spans, Ordering::Relaxed);
            if let Some(spans) = self.seldom.happened_times(spans) {
                tracing::warn!(spans, error = %error, "trace.not_sent");
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The exporter: a bounded queue, and a thread that sends what is in it. What does not fit is dropped: it is never waited for.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Makes it. Not to be called on an async task.
    ///
    /// # Errors
    /// As for [`exporter`].
    pub fn open(otlp: &Otlp) -> Result<Self, OpenError> {
        let exporter = exporter(otlp)?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("fleetbus").with_attribute(version).build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Saying { exporter, seldom: Seldom::of(1, QUIET) })
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// What takes the spans of this process.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("fleetbus"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == SPANS))
    }

    /// Sends what is left. Not to be called on an async task.
    pub fn close(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(error = %error, "trace.not_flushed");
        }
    }
}

/// Makes `span` a child of the sender's, where it gave a well-formed `traceparent`.
pub fn follow(span: &Span, sender: Option<&str>) {
    if span.is_disabled() {
        return;
    }
    if let Some(context) = sender.and_then(context_of) {
        // A span that has begun keeps its parent; this one has not.
        span.set_parent(Context::new().with_remote_span_context(context)).unwrap_or_default();
    }
}

/// The `traceparent` by which a message's reader becomes a child of `span`: none where no spans are made.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let (trace, id, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    context.is_valid().then(|| format!("00-{trace}-{id}-{flags:02x}"))
}

/// The span in which so many events are published, on this kind of bus.
#[must_use]
pub fn publish(system: &'static str, events: usize) -> Span {
    tracing::info_span!(
        target: SPANS,
        "publish",
        otel.kind = "producer",
        messaging.system = system,
        messaging.operation.type = "send",
        messaging.batch.message_count = number(events),
        fleetbus.delivered = Empty,
        fleetbus.parked = Empty,
        fleetbus.duplicates = Empty,
        fleetbus.rejected = Empty,
    )
}

/// Links `span` to the traces in which what it sends came, each once.
pub fn link<'a>(span: &Span, traceparents: impl Iterator<Item = &'a str>) {
    if span.is_disabled() {
        return;
    }
    let mut linked = BTreeSet::new();
    for traceparent in traceparents {
        if linked.len() == LINKS {
            return;
        }
        if linked.insert(traceparent)
            && let Some(context) = context_of(traceparent)
        {
            span.add_link(context);
        }
    }
}

/// A number as spans take it: one without a sign would become a text.
#[must_use]
pub fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// The trace's id, where somebody keeps the trace: what a metric's exemplar points to.
#[must_use]
pub fn sampled(traceparent: &str) -> Option<&str> {
    let (id, flags) = (traceparent.get(3..35)?, traceparent.get(53..55)?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (flags & 1 == 1).then_some(id)
}

fn context_of(traceparent: &str) -> Option<SpanContext> {
    let trace = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    let flags = u8::from_str_radix(traceparent.get(53..55)?, 16).ok()?;
    Some(SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_a_trace_that_is_kept_is_pointed_to() {
        assert_eq!(sampled(SAMPLED), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), None);
        assert_eq!(sampled(""), None);
    }

    #[test]
    fn a_senders_context_is_read_and_remote() {
        let context = context_of(SAMPLED).unwrap();
        assert!(context.is_valid() && context.is_remote() && context.is_sampled());
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context_of("00-").is_none());
    }

    #[test]
    fn without_an_exporter_there_is_no_span_and_nothing_to_hand_on() {
        let span = tracing::info_span!(target: SPANS, "webhook");
        follow(&span, Some(SAMPLED));
        assert_eq!(traceparent(&span), None);
    }
}
