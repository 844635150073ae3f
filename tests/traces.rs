//! Spans, as a collector receives them: a webhook's below its sender's, `decode` and `publish` below both it and a poll's, and the
//! message's `traceparent` that of the span which published it. What spans say is on a list.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use bridge::{Bridge, TOKEN, acme, configure};
use brokers::{shared_kafka, unique};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector that speaks OTLP over HTTP, as far as spans go.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        let address = serve(routes).await;
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits for a span with this name.
    async fn wait_for(&self, name: &str) -> Span {
        let found = async {
            loop {
                if let Some(span) = self.spans().into_iter().find(|span| span.name == name) {
                    return span;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {name} came"))
    }

    fn one(&self, name: &str) -> Span {
        let spans: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(spans.len(), 1, "{name}: {spans:?}");
        spans.into_iter().next().unwrap()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    collector.tokens.lock().unwrap().extend(token);
    let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    collector.spans.lock().unwrap().extend(spans);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(span: &Span, key: &str) -> Option<i64> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref();
    match value {
        Some(Value::IntValue(value)) => Some(*value),
        _ => None,
    }
}

fn documented() -> &'static [u8] {
    include_bytes!("fixtures/linxup/push-v3/position_documented.json")
}

/// The same of another vehicle.
fn another() -> String {
    String::from_utf8_lossy(documented()).replace("350000000000017", "350000000000025")
}

async fn push(bridge: &Bridge, traceparent: Option<&str>) {
    push_body(bridge, traceparent, documented().to_vec()).await;
}

async fn push_body(bridge: &Bridge, traceparent: Option<&str>, body: Vec<u8>) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let mut request = client.post(url).bearer_auth(TOKEN).body(body);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    assert_eq!(request.send().await.unwrap().status(), 201);
}

async fn metrics(bridge: &Bridge) -> String {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    client.get(format!("{}/metrics", bridge.admin)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhooks_spans_hang_below_its_senders_and_its_messages_below_them() {
    let (collector, endpoint) = Collector::start().await;
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("traced"));
    kafka.create(&format!("{prefix}.position"), 1, 1, &[]).await;
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\", create: true }} }}",
        kafka.brokers
    );
    let rest = format!(
        "telemetry: {{ otlp: {{ endpoint: \"{endpoint}/\", sample: 0, token: {{ env: TEST_TOKEN }} }} }}\n\
         delivery: {{ publish_deadline: 30s, drain_delay: 0s }}"
    );
    let bridge = Bridge::start(&configure(dir.path(), &bus, acme(), &rest));
    push(&bridge, Some(SENDER)).await;
    // Nobody upstream decided to keep this one, and of those none is.
    push_body(&bridge, None, another().into_bytes()).await;
    let page = metrics(&bridge).await;
    assert!(bridge.stop().success());

    let (webhook, decode, publish) =
        (collector.one("webhook"), collector.one("decode"), collector.one("publish"));
    for span in [&webhook, &decode, &publish] {
        assert_eq!(hex(&span.trace_id), TRACE);
    }
    assert_eq!(hex(&webhook.parent_span_id), "b7ad6b7169203331");
    assert_eq!((&decode.parent_span_id, &publish.parent_span_id), (&webhook.span_id, &webhook.span_id));
    assert_eq!(number(&webhook, "http.response.status_code"), Some(201));
    assert_eq!(number(&publish, "messaging.batch.message_count"), Some(3));
    assert_eq!(number(&publish, "fleetbus.delivered"), Some(3));
    assert_eq!(collector.tokens.lock().unwrap()[0], format!("Bearer {TOKEN}"));

    let read = kafka.read(&format!("{prefix}.position"));
    let wanted = format!("00-{TRACE}-{}-01", hex(&publish.span_id));
    let traceparents: Vec<&String> = read
        .iter()
        .filter_map(|m| m.headers.iter().find(|(name, _)| name == "traceparent").map(|(_, value)| value))
        .collect();
    assert_eq!(traceparents.len(), 6);
    let (kept, others): (Vec<&&String>, Vec<&&String>) = traceparents.iter().partition(|t| **t == &wanted);
    assert_eq!(kept.len(), 3, "{traceparents:?}");
    assert!(others.iter().all(|other| other.ends_with("-00") && !other.contains(TRACE)), "{others:?}");

    let keys: BTreeSet<String> =
        collector.spans().iter().flat_map(|span| &span.attributes).map(|a| a.key.clone()).collect();
    let allowed = [
        "busy_ns",
        "idle_ns",
        "level",
        "fleetbus.account",
        "fleetbus.delivered",
        "fleetbus.duplicates",
        "fleetbus.elements",
        "fleetbus.parked",
        "fleetbus.rejected",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "messaging.batch.message_count",
        "messaging.operation.type",
        "messaging.system",
    ];
    let unknown: Vec<_> = keys.iter().filter(|key| !allowed.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "a span says more than it may: {unknown:?}");
    let all = format!("{:?}", collector.spans());
    for secret in ["Van 17", "TESTVIN", "38.6", "350000000000017", TOKEN] {
        assert!(!all.contains(secret), "a span says {secret}");
    }

    let exemplar = format!("# {{trace_id=\"{TRACE}\"}}");
    for metric in ["fleetbus_webhook_duration_seconds_bucket", "fleetbus_publish_duration_seconds_bucket"] {
        let points = page.lines().any(|line| line.starts_with(metric) && line.contains(&exemplar));
        assert!(points, "{metric} points to no trace:\n{page}");
    }
}

/// A token that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn spans_that_a_collector_refuses_are_counted_and_said() {
    let endpoint = serve(Router::new().fallback(any(|| async { StatusCode::FORBIDDEN }))).await;
    let dir = tempfile::tempdir().unwrap();
    let rest = format!(
        "telemetry: {{ otlp: {{ endpoint: \"{endpoint}\", token: {{ env: TEST_TOKEN }} }} }}\ndelivery: {{ drain_delay: 0s }}"
    );
    let mut bridge = Bridge::start_with(
        &configure(dir.path(), "bus: { local: {} }", acme(), &rest),
        &[("OTEL_BSP_SCHEDULE_DELAY", "200")],
    );
    push(&bridge, Some(SENDER)).await;
    let line = bridge.wait_for_log("trace.not_sent", PATIENCE);
    assert!(line.contains("403") && !line.contains(TOKEN), "{line}");
    let page = metrics(&bridge).await;
    let counted = page.lines().find_map(|line| line.strip_prefix("fleetbus_spans_not_sent_total "));
    assert!(counted.is_some_and(|spans| spans.parse::<u64>().unwrap() > 0), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polls_spans_hang_together() {
    let (collector, endpoint) = Collector::start().await;
    let rows = include_str!("fixtures/linxup/pull-v2/stops.response.json");
    let provider = serve(Router::new().fallback(any(move || async move { rows }))).await;
    let dir = tempfile::tempdir().unwrap();
    let accounts = format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    poll:\n      - {{ api: v2, base_url: \"{provider}\", \
         token: {{ env: TEST_TOKEN }}, feeds: {{ stops: 1s }} }}\n"
    );
    let rest =
        format!("telemetry: {{ otlp: {{ endpoint: \"{endpoint}\" }} }}\ndelivery: {{ drain_delay: 0s }}");
    let bridge = Bridge::start_with(
        &configure(dir.path(), "bus: { local: {} }", &accounts, &rest),
        &[("OTEL_BSP_SCHEDULE_DELAY", "200")],
    );
    let publish = collector.wait_for("publish").await;
    let poll = collector.wait_for("poll").await;
    assert!(bridge.stop().success());
    let decode = collector.spans().into_iter().find(|span| span.name == "decode").unwrap();
    let polls: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "poll").collect();
    for span in [&decode, &publish] {
        assert!(
            polls.iter().any(|poll| poll.span_id == span.parent_span_id),
            "{span:?} is no poll's: {polls:?}"
        );
    }
    assert_eq!(poll.parent_span_id, Vec::<u8>::new());
}

/// Waits until so many events or more were delivered by `publish` spans below spans with this name; those spans.
async fn published_below(collector: &Collector, name: &str, wanted: i64) -> Vec<Span> {
    let found = async {
        loop {
            let (above, spans): (Vec<_>, Vec<_>) =
                collector.spans().into_iter().partition(|s| s.name == name);
            let is_below = |span: &Span| above.iter().any(|above| above.span_id == span.parent_span_id);
            let below: Vec<_> = spans.into_iter().filter(|s| s.name == "publish" && is_below(s)).collect();
            let delivered: i64 = below.iter().filter_map(|span| number(span, "fleetbus.delivered")).sum();
            if delivered >= wanted {
                assert!(above.iter().all(|span| span.parent_span_id.is_empty()), "{above:?}");
                return below;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {wanted} below {name}"))
}

/// What waited goes out in traces of the drain: each `publish` links to the trace in which its events came.
#[tokio::test(flavor = "multi_thread")]
async fn the_drains_spans_link_to_the_traces_in_which_events_came() {
    let (collector, endpoint) = Collector::start().await;
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("drained"));
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}", kafka.brokers);
    let rest =
        format!("telemetry: {{ otlp: {{ endpoint: \"{endpoint}\" }} }}\ndelivery: {{ drain_delay: 0s }}");
    let mut bridge = Bridge::start_with(
        &configure(dir.path(), &bus, acme(), &rest),
        &[("OTEL_BSP_SCHEDULE_DELAY", "200")],
    );
    push(&bridge, Some(SENDER)).await;
    bridge.wait_for_log("topic.refused", PATIENCE);
    kafka.create(&format!("{prefix}.position"), 1, 1, &[]).await;
    for publish in published_below(&collector, "drain", 1).await {
        let links: Vec<String> = publish.links.iter().map(|link| hex(&link.trace_id)).collect();
        assert_eq!(links, [TRACE], "{publish:?}");
        assert_ne!(hex(&publish.trace_id), TRACE);
    }
    // A reader stays in the trace in which the event came.
    let read = kafka.read(&format!("{prefix}.position"));
    let wanted = format!("00-{TRACE}-");
    let stays = |(name, value): &(String, String)| name == "traceparent" && value.starts_with(&wanted);
    assert!(!read.is_empty() && read.iter().all(|message| message.headers.iter().any(stays)), "{read:?}");
    assert!(bridge.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replays_spans_hang_together() {
    let (collector, endpoint) = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let rest =
        format!("telemetry: {{ otlp: {{ endpoint: \"{endpoint}\" }} }}\ndelivery: {{ drain_delay: 0s }}");
    let bridge = Bridge::start_with(
        &configure(dir.path(), "bus: { local: {} }", acme(), &rest),
        &[("OTEL_BSP_SCHEDULE_DELAY", "200")],
    );
    push(&bridge, None).await;
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let asked = client.post(format!("{}/v1/replays", bridge.admin));
    let begun = asked.json(&serde_json::json!({ "source": "history" })).send().await.unwrap();
    assert!(begun.status().is_success(), "{}", begun.text().await.unwrap());
    assert_eq!(published_below(&collector, "replay", 3).await.len(), 1);
    assert!(bridge.stop().success());
}

/// Off is the default: the sender's own `traceparent` is handed on as it came.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_the_senders_traceparent_is_handed_on() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("untraced"));
    kafka.create(&format!("{prefix}.position"), 1, 1, &[]).await;
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\", create: true }} }}",
        kafka.brokers
    );
    let rest = "delivery: { publish_deadline: 30s, drain_delay: 0s }";
    let bridge = Bridge::start(&configure(dir.path(), &bus, acme(), rest));
    push(&bridge, Some(SENDER)).await;
    // It may have been parked, where the broker did not know its new topic yet.
    let begun = std::time::Instant::now();
    let mut read = kafka.read(&format!("{prefix}.position"));
    while read.len() < 3 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        read = kafka.read(&format!("{prefix}.position"));
    }
    assert!(bridge.stop().success());
    assert_eq!(read.len(), 3);
    for message in read {
        assert!(
            message.headers.contains(&("traceparent".to_owned(), SENDER.to_owned())),
            "{:?}",
            message.headers
        );
    }
}
