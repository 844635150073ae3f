//! What an event costs as things grow: accounts, subjects, rows in the store, feeds. Ratios of CPU, so that a machine's speed
//! does not matter. Goal 9.

use std::fmt::Write as _;

use crate::Plan;
use crate::body::Fleet;
use crate::brokers::{Kafka, unique};
use crate::drive::{Load, Loop, drive};
use crate::kafka::broker;
use crate::process::Cores;
use crate::report::Report;
use crate::subject::Subject;

const PART: &str = "Growth";
const CONNECTIONS: usize = 16;
const CPU: &str = "CPU µs/event";

/// Measures.
pub async fn measure(plan: Plan, report: &mut Report) {
    report.begin(PART, &[9]);
    let topic = unique("growth");
    let kafka = broker(&format!("{topic}.position")).await;
    let accounts = [10, 10_000].map(|accounts| (format!("{accounts} accounts"), accounts, 10_000, 1));
    let subjects = [100, 1_000_000].map(|vehicles| (format!("{vehicles} subjects"), 1, vehicles, 10));
    // The small one and the large one in turn: what changes meanwhile changes for both.
    for pair in [accounts, subjects] {
        let mut cases = Vec::new();
        for (case, accounts, vehicles, events) in pair {
            let dir = tempfile::tempdir().expect("a folder");
            let bridge = bridge(&kafka, &topic, dir.path(), accounts).await;
            let fleet = Fleet::new(vehicles);
            let paths: Vec<String> = (0..accounts).map(|account| format!("/webhooks/a{account}")).collect();
            if accounts == 1 {
                bridge.touch(&paths, &fleet).await;
            }
            let connections = if accounts > 1 { 256 } else { CONNECTIONS };
            cases.push(Case { name: case, _dir: dir, bridge, fleet, paths, connections, events });
        }
        in_turn(plan, &cases, report).await;
        for case in &cases {
            report.add(PART, &case.bridge.name, &case.name, "peak MB", case.bridge.usage.peak());
        }
    }
    flat(report, "from 10 to 10,000 accounts", "10 accounts", "10000 accounts");
    flat(report, "from 100 to 1,000,000 subjects", "100 subjects", "1000000 subjects");
    store(plan, &kafka, &topic, report).await;
    feeds(plan, &kafka, &topic, report).await;
}

/// A bridge, and what is sent to it.
struct Case {
    name: String,
    bridge: Subject,
    fleet: Fleet,
    paths: Vec<String>,
    connections: usize,
    events: usize,
    // Outlives the bridge.
    _dir: tempfile::TempDir,
}

/// Measures each so often as is planned, one after the other.
async fn in_turn(plan: Plan, cases: &[Case], report: &mut Report) {
    for _ in 0..plan.repeats {
        for case in cases {
            let load = Load {
                connections: case.connections,
                events: case.events,
                pace: Loop::Closed,
                warm_up: plan.warm_up,
                measured: plan.measured,
            };
            let seen = drive(&case.bridge.address, &case.paths, &case.fleet, load, &case.bridge.usage).await;
            report.add_seen(PART, &case.bridge.name, &case.name, &seen);
            report.add(PART, &case.bridge.name, &case.name, CPU, seen.cpu * 1e6 / seen.events as f64);
        }
    }
}

fn flat(report: &mut Report, what: &str, small: &str, large: &str) {
    let of = |case: &str| report.median(PART, "fleetbus", case, CPU);
    let (small, large) = (of(small), of(large));
    let seen = format!("{small:.1} µs, then {large:.1} µs: {:+.0} %", 100.0 * (large / small - 1.0));
    report.goal(9, &format!("CPU an event flat (± 10 %) {what}"), seen, (large / small - 1.0).abs() <= 0.1);
}

async fn bridge(kafka: &Kafka, topic: &str, dir: &std::path::Path, accounts: usize) -> Subject {
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{topic}.{{type}}\" }} }}", kafka.brokers);
    let mut list = "accounts:\n".to_owned();
    for account in 0..accounts {
        writeln!(
            list,
            "  - {{ id: a{account}, provider: linxup, webhook: {{ token: {{ env: TEST_TOKEN }} }} }}"
        )
        .expect("a string");
    }
    Subject::bridge(dir, &bus, &list, "delivery: { drain_delay: 0s }", &Cores::Shared(0)).await
}

/// What is parked is of a topic that does not exist: it stays, while the bus is there.
async fn store(plan: Plan, kafka: &Kafka, topic: &str, report: &mut Report) {
    let limits = "    limits: { parked: 100GiB, in_flight: 128MiB }\n";
    let token = "    webhook: { token: { env: TEST_TOKEN } }\n";
    let accounts = format!("accounts:\n  - id: acme\n    provider: linxup\n{token}{limits}");
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{topic}.{{type}}\" }} }}", kafka.brokers);
    let rest = "delivery: { drain_delay: 0s }\nreplay: { max_size: 200GiB }";
    let full = format!("{} parked", plan.parked);
    let mut cases = Vec::new();
    for name in ["empty store", &full] {
        let dir = tempfile::tempdir().expect("a folder");
        let bridge = Subject::bridge(dir.path(), &bus, &accounts, rest, &Cores::Shared(0)).await;
        let (fleet, paths) = (Fleet::new(1_000), vec!["/webhooks/acme".to_owned()]);
        bridge.touch(&paths, &fleet).await;
        if name == full {
            fill(&bridge, plan.parked).await;
        }
        let name = name.to_owned();
        cases.push(Case { name, _dir: dir, bridge, fleet, paths, connections: CONNECTIONS, events: 10 });
    }
    in_turn(plan, &cases, report).await;
    flat(report, &format!("from an empty store to {} parked events", plan.parked), "empty store", &full);
}

/// Parks so many trips, whose topic is missing.
async fn fill(bridge: &Subject, rows: usize) {
    let client = reqwest::Client::new();
    let url = format!("http://{}/webhooks/acme", bridge.address);
    let begins = jiff::Timestamp::now().as_millisecond() - 86_400_000;
    let mut sent = 0;
    while sent < rows {
        let bodies = (0..16).map(|body| {
            let trips: Vec<String> = (0..1_000)
                .map(|trip| {
                    let at = sent + body * 1_000 + trip;
                    let (imei, begin) = (350_000_000_000_000 + at as u64 % 1_000, begins + at as i64);
                    format!(
                        "{{\"pushType\":\"TRIP\",\"deviceNumber\":\"{imei}\",\"startDateTime\":{begin},\"endDateTime\":{}}}",
                        begin + 60_000
                    )
                })
                .collect();
            let body = format!("[{}]", trips.join(","));
            let request = client.post(&url).bearer_auth(crate::body::TOKEN).body(body);
            async move { request.send().await.expect("an answer").status() }
        });
        let answered = futures_util::future::join_all(bodies).await;
        assert!(answered.iter().all(|status| *status == 201), "{answered:?}");
        sent += 16_000;
    }
    eprintln!("    parked {sent}");
}

/// Feeds that are polled once a minute each, of a provider on this machine that has nothing new.
async fn feeds(plan: Plan, kafka: &Kafka, topic: &str, report: &mut Report) {
    const FEEDS: usize = 10_000;
    let provider = axum::Router::new().fallback(async || {
        ([("content-type", "application/json")], "{\"type\":\"locations\",\"data\":{\"locations\":[]}}")
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/ibis/rest/api/v2", listener.local_addr().expect("an address"));
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = listener.into_std().expect("a socket");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            axum::serve(listener, provider).await.expect("a server");
        });
    });
    let dir = tempfile::tempdir().expect("a folder");
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{topic}.{{type}}\" }} }}", kafka.brokers);
    let mut accounts = "accounts:\n".to_owned();
    for account in 0..FEEDS / 5 {
        writeln!(
            accounts,
            "  - {{ id: a{account}, provider: linxup, poll: [ {{ api: v2, base_url: \"{base}\", token: {{ env: TEST_TOKEN }}, \
             feeds: {{ locations: 60s, history: 60s, trips: 60s, stops: 60s, alerts: 60s }} }} ] }}"
        )
        .expect("a string");
    }
    let bridge =
        Subject::bridge(dir.path(), &bus, &accounts, "delivery: { drain_delay: 0s }", &Cores::Shared(0))
            .await;
    for _ in 0..plan.repeats {
        let before = bridge.usage.cpu();
        tokio::time::sleep(plan.measured * 2).await;
        let cores = (bridge.usage.cpu() - before) / (plan.measured * 2).as_secs_f64();
        report.add(PART, &bridge.name, "10,000 feeds, each a minute", "cores", cores);
    }
    drop(bridge);
    assert!(!serving.is_finished(), "the provider is still there");
    let cores = report.median(PART, "fleetbus", "10,000 feeds, each a minute", "cores");
    report.goal(9, "10,000 feeds on one process within one core", format!("{cores:.2} cores"), cores <= 1.0);
}
