//! Hostile ids through the real binary to real brokers: whatever a sender calls its vehicles, an event goes under the topic,
//! subject, key and headers that it would have anyhow, or stands aside; neither another vehicle nor its own next event waits for
//! what the bus can never take.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;

use std::collections::BTreeSet;
use std::time::Duration;

use fleetbus::event::pb;
use prost::Message as _;
use serde_json::{Value, json};

use bridge::{Bridge, TOKEN, acme, configure};
use brokers::{Consumed, shared_kafka, shared_nats, unique, until};

/// What is sent is to be delivered at once: a busy machine may take longer than the deadline that is the default.
const PATIENT: &str = "delivery: { publish_deadline: 30s, drain_delay: 0s }";

/// Headers of an event without a trace, as both buses name them.
const HEADERS: [&str; 9] = [
    "ce_id",
    "ce_source",
    "ce_specversion",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_dataschema",
    "ce_partitionkey",
    "ce_recordedtime",
];

/// Ids as a sender may write them, and what is left of each.
fn ids() -> Vec<(String, String)> {
    let as_is = |id: &str| (id.to_owned(), id.to_owned());
    vec![
        as_is("350000000000017"),
        ("a\r\nInjected: yes\r\n\r\nb".to_owned(), "aInjected: yesb".to_owned()),
        ("nul\0l".to_owned(), "null".to_owned()),
        as_is("a.b.c"),
        as_is("*"),
        as_is(">"),
        as_is("a.>"),
        as_is("a b  c"),
        as_is("%0D%0A"),
        as_is("{type}"),
        as_is("$JS.API.STREAM.DELETE.FLEET"),
        as_is("../../etc"),
        as_is("\u{feff}é\u{202e}漢\u{2028}z"),
        ("x\u{7f}\u{85}y".to_owned(), "xy".to_owned()),
        ("7".repeat(256), "7".repeat(256)),
        as_is("350000000000018"),
    ]
}

fn position(id: &str) -> Value {
    json!({ "pushType": "POSITION", "deviceNumber": id, "date": jiff::Timestamp::now().as_millisecond() - 60_000,
            "latitude": 38.62701, "longitude": -90.19941, "speed": 34 })
}

async fn send(bridge: &Bridge, id: &str) -> Value {
    let sent = reqwest::Client::new()
        .post(format!("{}/webhooks/acme", bridge.webhook))
        .bearer_auth(TOKEN)
        // Into a header only what is well formed may come, however it is meant.
        .header("traceparent", "00-x-y-01")
        .json(&position(id));
    let answer = sent.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 201, "{id:?}");
    answer.json().await.unwrap()
}

/// Longer than a server reads, and than any id: it stands aside, and takes nobody's connection away.
async fn send_what_is_too_long(bridge: &Bridge) {
    let answer = send(bridge, &"7".repeat(10_000)).await;
    assert_eq!((&answer["events"], &answer["undecodable"]), (&json!(0), &json!(1)), "{answer}");
}

fn subject(consumed: &Consumed) -> String {
    pb::FleetEvent::decode(&*consumed.payload).unwrap().subject
}

/// What a failing test shows of ten thousand bytes.
fn short(text: String) -> String {
    if text.len() > 99 { format!("{} bytes", text.len()) } else { text }
}

fn check_headers(consumed: &Consumed, more: &[&str]) {
    let names: BTreeSet<String> =
        consumed.headers.iter().map(|(name, _)| name.to_lowercase().replace('-', "_")).collect();
    let expected: BTreeSet<String> = HEADERS.iter().chain(more).map(|name| (*name).to_owned()).collect();
    assert_eq!(names, expected, "{consumed:?}");
    for (name, value) in &consumed.headers {
        assert!(!value.contains(char::is_control), "{name}: {value:?}");
    }
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.map(short).collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_injected_into_subjects_and_headers_of_nats() {
    let (nats, dir, prefix) = (shared_nats(), tempfile::tempdir().unwrap(), unique("hostile"));
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\", create: true }} }}",
        nats.url
    );
    let bridge = Bridge::start(&configure(dir.path(), &bus, acme(), PATIENT));
    send_what_is_too_long(&bridge).await;
    let mut last = Value::Null;
    for (id, _) in ids() {
        last = send(&bridge, &id).await;
    }
    assert_eq!(last["delivered"], 1, "{last}\n{}", bridge.log_text());
    let expected = sorted(ids().into_iter().map(|(_, clean)| clean));
    let mut read = nats.read(&prefix).await;
    for _ in 0..200 {
        if read.len() >= expected.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        read = nats.read(&prefix).await;
    }
    assert_eq!(sorted(read.iter().map(subject)), expected);
    for one in &read {
        check_headers(one, &["nats_msg_id", "ce_datacontenttype"]);
        let token = one.key.strip_prefix(&format!("{prefix}.position.acme.")).expect("its own account's");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'%');
        assert!(!token.is_empty() && token.bytes().all(plain), "{}", one.key);
    }
    let parked: Value =
        reqwest::get(format!("{}/v1/parked", bridge.admin)).await.unwrap().json().await.unwrap();
    let rows = parked["parked"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{parked}");
    assert_eq!(rows[0]["reason"], "undecodable", "{parked}");
    poison_holds_nothing_back(&bridge).await;
    assert!(!bridge.log_text().contains("nats.disconnected"), "{}", bridge.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_one_line_and_not_one_a_vehicle_with_its_name() {
    let (nats, dir, prefix) = (shared_nats(), tempfile::tempdir().unwrap(), unique("unsaid"));
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\" }} }}",
        nats.url
    );
    let mut bridge = Bridge::start(&configure(dir.path(), &bus, acme(), "delivery: { drain_delay: 0s }"));
    for vehicle in 0..20 {
        assert_eq!(send(&bridge, &format!("John Doe {vehicle}")).await["parked"], 1);
    }
    bridge.wait_for_log("topic.refused", Duration::from_secs(60));
    let log = bridge.log_text();
    let lines = log.lines().filter(|line| line.contains("\"message\":\"topic.refused\""));
    let topics: Vec<Value> = lines
        .map(|line| serde_json::from_str::<Value>(line).expect("logs are JSON")["topic"].clone())
        .collect();
    assert_eq!(topics, [json!(format!("{prefix}.position.acme.*"))]);
    assert!(!log.contains("John"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_injected_into_topics_and_headers_of_kafka() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("hostile"));
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\", create: true }} }}",
        kafka.brokers
    );
    let bridge = Bridge::start(&configure(dir.path(), &bus, acme(), PATIENT));
    send_what_is_too_long(&bridge).await;
    for (id, _) in ids() {
        send(&bridge, &id).await;
    }
    let expected = sorted(ids().into_iter().map(|(_, clean)| clean));
    let mut read = Vec::new();
    until("all is on the topic", Duration::from_secs(60), || {
        read = kafka.read(&format!("{prefix}.position"));
        read.len() >= expected.len()
    });
    assert_eq!(sorted(read.iter().map(subject)), expected);
    for one in &read {
        check_headers(one, &["content_type"]);
        assert_eq!(one.key, subject(one));
    }
    poison_holds_nothing_back(&bridge).await;
}

/// Three positions of one vehicle, of which the bus can never take the second; what stands aside is shown with its reason.
async fn poison_holds_nothing_back(bridge: &Bridge) {
    let at = jiff::Timestamp::now().as_millisecond() - 60_000;
    let client = reqwest::Client::new();
    let mut fates = Vec::new();
    for step in 0..3 {
        let mut row = position("350000000000019");
        row["date"] = json!(at + step * 1_000);
        if step == 1 {
            row["note"] = json!("x".repeat(1_500_000));
        }
        let url = format!("{}/webhooks/acme", bridge.webhook);
        let answer: Value =
            client.post(url).bearer_auth(TOKEN).json(&row).send().await.unwrap().json().await.unwrap();
        fates.push((answer["delivered"].clone(), answer["parked"].clone()));
    }
    assert_eq!(fates, [(json!(1), json!(0)), (json!(0), json!(1)), (json!(1), json!(0))]);
    let parked = reqwest::get(format!("{}/v1/parked?subject=350000000000019", bridge.admin)).await.unwrap();
    let parked: Value = parked.json().await.unwrap();
    let rows = parked["parked"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{parked}");
    assert_eq!(rows[0]["reason"], "unfit", "{parked}");
    assert!(!rows[0]["error"].as_str().unwrap_or_default().is_empty(), "{parked}");
}

/// A broker refuses whole batches for one message that is too large, which says nothing about the bus: the breaker stays closed, and
/// the others are delivered, whatever waits of it.
#[tokio::test(flavor = "multi_thread")]
async fn poison_of_one_account_stops_no_other() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("poison"));
    let topic = |account: &str| format!("{prefix}.{account}.position");
    kafka.create(&topic("acme"), 2, 1, &[("max.message.bytes", "300")]).await;
    kafka.create(&topic("beta"), 2, 1, &[]).await;
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{account}}.{{type}}\" }} }}",
        kafka.brokers
    );
    let account = |id: &str| {
        format!("  - id: {id}\n    provider: linxup\n    webhook: {{ token: {{ env: TEST_TOKEN }} }}\n")
    };
    let accounts = format!("accounts:\n{}{}", account("acme"), account("beta"));
    // A busy machine sends two hundred messages, one by one, slower than the deadline that is the default.
    let rest = "delivery: { drain_delay: 0s, publish_deadline: 10s }";
    let bridge = Bridge::start(&configure(dir.path(), &bus, &accounts, rest));
    let at = jiff::Timestamp::now().as_millisecond() - 600_000;
    let client = reqwest::Client::new();
    let push = async |account: &str, vehicles: std::ops::Range<i64>, step: i64| -> Value {
        let row = |vehicle: i64| {
            let mut row = position(&format!("{:015}", 350_000_000_000_000 + vehicle));
            row["date"] = json!(at + step * 1_000);
            row
        };
        let rows: Vec<Value> = vehicles.map(row).collect();
        let url = format!("{}/webhooks/{account}", bridge.webhook);
        let answer = client.post(url).bearer_auth(TOKEN).json(&rows).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    };
    for step in 0..10 {
        assert_eq!(push("acme", 0..200, step).await["parked"], 200, "it is too large");
        push("beta", 0..1, step).await;
    }
    // What was parked of beta while messages went one by one comes to the topic by itself.
    until("all of beta is on its topic", Duration::from_secs(60), || kafka.read(&topic("beta")).len() == 10);
    let log = bridge.log_text();
    assert!(!log.contains("breaker.opened"), "{log}");
}
