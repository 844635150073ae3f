//! Senders that hang up: what they sent is seen through, once, whether they come again or not.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::bridge::{Bridge, TOKEN};
use crate::brokers::{Guard, Nats, shared_kafka, unique};
use crate::checker::Fact;
use crate::fleet::{Ledger, client, flat, imei, start};
use crate::{behind, compare, kafka_config, nats_config, reaches, read_stream, read_topic};

/// Elements of a request that are in work at once: `portion::EVENTS` of the bridge.
const PORTION: usize = 4_096;

/// Opens a connection and sends so much of a request. Who drops it hangs up.
fn open(address: &str, body: &str, upto: usize) -> TcpStream {
    let request = format!(
        "POST /webhooks/acme HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(address.trim_start_matches("http://")).expect("it listens");
    socket.write_all(&request.as_bytes()[..upto.min(request.len())]).expect("it reads");
    socket
}

/// Waits until the bridge has begun to deliver so many positions.
async fn received(bridge: &Bridge, events: usize) {
    let series = "fleetbus_events_received_total{account=\"acme\",type=\"position\"}";
    reaches(bridge, series, |found| found >= events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_hangs_up_changes_nothing_and_the_next_event_follows() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("hang"));
    let config = kafka_config(kafka, dir.path(), &prefix, "delivery: { drain_delay: 0s }");
    let bridge = Bridge::start(&config);
    let (from, client) = (start(), client());
    let mut ledger = Ledger::default();
    for round in 0..60_i64 {
        let (first, second) = (from + round * 2_000, from + round * 2_000 + 1_000);
        // Now with the whole request sent, now anywhere between its first byte and its last.
        let body = flat(1, first).to_string();
        let upto = if round % 2 == 0 { usize::MAX } else { (150 + body.len()) * round as usize / 60 };
        drop(open(&bridge.webhook, &body, upto));
        for at in [first, second] {
            let url = format!("{}/webhooks/acme", bridge.webhook);
            let answer = client.post(url).bearer_auth(TOKEN).json(&flat(1, at)).send().await.unwrap();
            assert_eq!(answer.status(), 201);
            let fact = Fact { subject: imei(1), at };
            ledger.sent.insert(fact.clone());
            ledger.answered.push(fact);
        }
    }
    let topic = format!("{prefix}.position");
    let report = compare(&bridge, &ledger, async || read_topic(kafka, &topic)).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (120, 0), "each event once");
}

/// One request of one event, and one of more than one portion, whose second is not even decoded when its sender hangs up.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_sender_hung_up_on_is_delivered_although_it_never_comes_again() {
    const VEHICLES: usize = PORTION + 100;
    let (nats, dir, prefix) = (Nats::start(Guard::Open, ""), tempfile::tempdir().unwrap(), unique("left"));
    let mut bridge = Bridge::start(&nats_config(&nats, dir.path(), &prefix, ""));
    bridge.wait_for_log("bus.checked", Duration::from_secs(40));
    let from = start();
    nats.pause();
    let rows: Vec<Value> = (1..=VEHICLES).map(|vehicle| flat(vehicle, from)).collect();
    let one = open(&bridge.webhook, &flat(0, from).to_string(), usize::MAX);
    let many = open(&bridge.webhook, &Value::from(rows).to_string(), usize::MAX);
    received(&bridge, 1 + PORTION).await;
    drop((one, many));
    // What they sent is kept although nobody waits for the answer.
    behind(&bridge, 1 + VEHICLES).await;
    nats.resume();
    let facts: Vec<Fact> = (0..=VEHICLES).map(|vehicle| Fact { subject: imei(vehicle), at: from }).collect();
    let ledger = Ledger { sent: facts.iter().cloned().collect(), answered: facts, ..Ledger::default() };
    let report = compare(&bridge, &ledger, async || read_stream(&nats, &prefix).await).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (1 + VEHICLES, 0), "each event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_while_the_first_copy_is_in_flight_or_parked_is_not_published_twice() {
    let (nats, dir, prefix) = (Nats::start(Guard::Open, ""), tempfile::tempdir().unwrap(), unique("again"));
    let bridge = Bridge::start(&nats_config(&nats, dir.path(), &prefix, ""));
    let (from, client, url) = (start(), client(), format!("{}/webhooks/acme", bridge.webhook));
    let mut ledger = Ledger::default();
    // JetStream would forgive the bridge a second copy for two minutes: it is to say itself that it knows it.
    let mut send = async |vehicle: usize, at: i64, duplicates: u64| {
        let answer = client.post(&url).bearer_auth(TOKEN).json(&flat(vehicle, at)).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let counts: Value = answer.json().await.unwrap();
        assert_eq!(counts["duplicates"], duplicates, "vehicle {vehicle}: {counts}");
        let fact = Fact { subject: imei(vehicle), at };
        ledger.sent.insert(fact.clone());
        ledger.answered.push(fact);
    };
    send(0, from, 0).await;
    nats.pause();
    // The first copy's sender leaves; the second comes while it is in flight, the third when it is parked.
    let first: Vec<TcpStream> =
        (1..=8).map(|vehicle| open(&bridge.webhook, &flat(vehicle, from).to_string(), usize::MAX)).collect();
    received(&bridge, 9).await;
    drop(first);
    for _ in 0..2 {
        for vehicle in 1..=8 {
            send(vehicle, from, 1).await;
        }
    }
    nats.resume();
    for vehicle in 1..=8 {
        send(vehicle, from + 1_000, 0).await;
        send(vehicle, from, 1).await;
    }
    let report = compare(&bridge, &ledger, async || read_stream(&nats, &prefix).await).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (17, 0), "each event once");
}
