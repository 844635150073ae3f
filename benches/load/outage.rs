//! The bus gone, and back: how fast events are parked and answered, how fast the drain sends them, and whether the order of
//! every vehicle was kept. Goal 6.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fleetbus::event::pb;
use prost::Message as _;

use crate::Plan;
use crate::body::Fleet;
use crate::brokers::{Kafka, unique};
use crate::drive::{Load, Loop};
use crate::kafka::broker;
use crate::process::Cores;
use crate::report::Report;
use crate::subject::Subject;

const PART: &str = "The bus gone, and back";
/// A multiple of the connections: each has vehicles of its own, for of two senders none is first.
const VEHICLES: usize = 1_600;
/// What is waited for comes, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures.
pub async fn measure(plan: Plan, report: &mut Report) {
    report.begin(PART, &[6]);
    // Not more often than three times: each is a broker's death.
    for _ in 0..plan.repeats.min(3) {
        once(plan, report).await;
    }
    let of = |name: &str| report.median(PART, "fleetbus", "16 connections, bodies of 100", name);
    let (rate, p99, drain) = (of("events/s"), of("p99 µs") / 1e3, of("drained/s"));
    let seen = format!("{rate:.0}/s, p99 {p99:.0} ms");
    report.goal(6, "≥ 30,000 events/s parked, p99 ≤ 50 ms", seen, rate >= 30_000.0 && p99 <= 50.0);
    let seen = format!("{drain:.0}/s, order kept");
    report.goal(6, "drain ≥ 100,000 events/s, order kept", seen, drain >= 100_000.0);
}

async fn once(plan: Plan, report: &mut Report) {
    let prefix = unique("outage");
    let topic = format!("{prefix}.position");
    let (kafka, dir) = (broker(&topic).await, tempfile::tempdir().expect("a folder"));
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}", kafka.brokers);
    let bridge = Subject::simple(dir.path(), &bus, &Cores::Shared(0)).await;
    let fleet = Fleet::new(VEHICLES);
    bridge.touch(&["/webhooks/acme".to_owned()], &fleet).await;
    kafka.kill9(0);
    let load = |connections: usize, events: usize, measured: Duration| Load {
        connections,
        events,
        pace: Loop::Closed,
        warm_up: plan.warm_up,
        measured,
    };
    // Until the breaker opens every request waits for its deadline.
    let begun = Instant::now();
    loop {
        let seen = bridge.drive(&fleet, load(16, 1, Duration::from_millis(500))).await;
        if seen.requests > 0 && seen.quantile(0.9) < 1_000_000.0 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the breaker opens");
    }
    let case = "16 connections, bodies of 100";
    let seen = bridge.drive(&fleet, load(16, 100, plan.measured * 2)).await;
    report.add_seen(PART, &bridge.name, case, &seen);
    let parked = behind(&bridge).await;
    kafka.restart(0);
    // From the first that is drained to the last.
    let (mut begun, mut left) = (Instant::now(), parked);
    let asked = Instant::now();
    while left > 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = behind(&bridge).await;
        if left >= parked {
            begun = Instant::now();
        }
        assert!(asked.elapsed() < PATIENCE, "{left} of {parked} are still parked");
    }
    let rate = parked / begun.elapsed().as_secs_f64();
    report.add(PART, &bridge.name, case, "drained/s", rate);
    eprintln!("    drained {parked:.0} at {rate:.0}/s");
    kafka.wait();
    in_order(&kafka, &topic);
}

/// How many events wait, as the operator's port tells.
async fn behind(bridge: &Subject) -> f64 {
    let admin = &bridge.as_bridge().expect("a bridge").admin;
    let text = reqwest::get(format!("{admin}/metrics")).await.expect("metrics").text().await.expect("text");
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, number)| number.parse::<f64>().ok());
    let lines = text.lines().filter(|line| line.starts_with("fleetbus_events_behind"));
    lines.filter_map(value).sum()
}

/// Each vehicle's times only rise.
fn in_order(kafka: &Kafka, topic: &str) {
    let mut last: HashMap<String, (i64, i32)> = HashMap::new();
    for message in kafka.read(topic) {
        let event = pb::FleetEvent::decode(message.payload.as_slice()).expect("an event");
        let time = event.occur_time.map(|at| (at.seconds, at.nanos)).expect("a time");
        let before = last.insert(event.subject, time);
        assert!(before.is_none_or(|before| before < time), "order was not kept");
    }
}
