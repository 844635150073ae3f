//! The promises, by their names, against the real binary and real brokers: 2xx means durable, one fact has one id, order
//! per vehicle holds, through kills, hangs and hang-ups.

#[expect(dead_code, reason = "shared with the tests of the operator's side")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/checker.rs"]
mod checker;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/metrics.rs"]
mod metrics;

#[path = "promises/hangups.rs"]
mod hangups;
#[path = "promises/streams.rs"]
mod streams;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleetbus::event::pb;
use prost::Message as _;

use bridge::{Bridge, TOKEN, acme, configure};
use brokers::{Kafka, Nats, shared_kafka, unique};
use checker::{Fact, Report, Seen, check};
use fleet::{Address, Ledger, client, drive, flat, imei, start};
use metrics::metric;

/// Where a test wants what is sent delivered at once: a busy machine may take longer than the deadline that is the default.
const PATIENT: &str = ", publish_deadline: 30s";

/// A position on the topic, as a consumer that knows only the schema reads it.
fn seen(payload: &[u8]) -> Seen {
    let event = pb::FleetEvent::decode(payload).expect("a FleetEvent");
    let at = event.occur_time.map(|t| t.seconds * 1_000 + i64::from(t.nanos) / 1_000_000);
    Seen { fact: Fact { subject: event.subject, at: at.expect("a time") }, id: event.id }
}

fn kafka_config(kafka: &Kafka, dir: &Path, prefix: &str, rest: &str) -> std::path::PathBuf {
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\", create: true }} }}",
        kafka.brokers
    );
    configure(dir, &bus, acme(), rest)
}

fn nats_bus(nats: &Nats, prefix: &str) -> String {
    format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\", create: true }} }}",
        nats.url
    )
}

fn nats_config(nats: &Nats, dir: &Path, prefix: &str, rest: &str) -> std::path::PathBuf {
    let rest = format!("delivery: {{ drain_delay: 0s{rest} }}");
    configure(dir, &nats_bus(nats, prefix), acme(), &rest)
}

/// The positions of a stream, oldest first.
async fn read_stream(nats: &Nats, stream: &str) -> Vec<Seen> {
    let read = nats.read(stream).await;
    let positions = read.iter().filter(|message| message.key.contains(".position."));
    positions.map(|message| seen(&message.payload)).collect()
}

/// Everything in a topic, in the order of each partition.
fn read_topic(kafka: &Kafka, topic: &str) -> Vec<Seen> {
    kafka.read(topic).iter().map(|message| seen(&message.payload)).collect()
}

/// A fleet that pushes in the background.
struct Driving {
    address: Address,
    ledger: Arc<Mutex<Ledger>>,
    fleet: tokio::task::JoinSet<()>,
}

impl Driving {
    fn begin(bridge: &Bridge, vehicles: usize, positions: usize) -> Self {
        let address: Address = Arc::new(Mutex::new(bridge.webhook.clone()));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (client, from) = (client(), start());
        let mut fleet = tokio::task::JoinSet::new();
        for vehicle in 0..vehicles {
            let (client, address, ledger) = (client.clone(), Arc::clone(&address), Arc::clone(&ledger));
            fleet.spawn(drive(client, address, ledger, vehicle, positions, from));
        }
        Self { address, ledger, fleet }
    }

    fn moved(&self, bridge: &Bridge) {
        self.address.lock().unwrap().clone_from(&bridge.webhook);
    }

    /// Until so many positions have been answered.
    async fn answered(&self, count: usize) {
        let begun = Instant::now();
        while self.ledger.lock().unwrap().answered.len() < count {
            let ledger = self.ledger.lock().unwrap();
            let stuck = begun.elapsed() >= Duration::from_secs(90);
            assert!(!stuck, "{} answered; refused: {:?}", ledger.answered.len(), ledger.refused.last());
            drop(ledger);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(mut self) -> Ledger {
        while let Some(ended) = self.fleet.join_next().await {
            ended.expect("a vehicle that drives on");
        }
        std::mem::take(&mut *self.ledger.lock().unwrap())
    }
}

/// Reads until every answered fact is there, or the patience is over; then compares.
async fn found(ledger: &Ledger, mut read: impl AsyncFnMut() -> Vec<Seen>) -> Report {
    let begun = Instant::now();
    loop {
        let report = check(&ledger.sent, &ledger.answered, &read().await);
        if report.lost.is_empty() || begun.elapsed() > Duration::from_secs(60) {
            return report;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The same once nothing is behind: a second copy that was parked would be there by then, too.
async fn compare(bridge: &Bridge, ledger: &Ledger, read: impl AsyncFnMut() -> Vec<Seen>) -> Report {
    behind(bridge, 0).await;
    found(ledger, read).await
}

/// Waits until so many events are parked for the bus.
async fn behind(bridge: &Bridge, events: usize) {
    reaches(bridge, "fleetbus_events_behind", |found| found == events).await;
}

/// Waits until a series has such a value.
async fn reaches(bridge: &Bridge, series: &str, holds: impl Fn(usize) -> bool) {
    let begun = Instant::now();
    loop {
        let found = metric(&bridge.admin, series).await;
        if holds(found) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{series} is {found}\n{}", bridge.log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_gone_hung_and_back_loses_nothing_and_keeps_order() {
    let (kafka, dir, prefix) =
        (Kafka::start(1, brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("gone"));
    let config = kafka_config(&kafka, dir.path(), &prefix, "delivery: { drain_delay: 0s }");
    let bridge = Bridge::start(&config);
    let driving = Driving::begin(&bridge, 24, 80);
    driving.answered(300).await;
    kafka.pause(0);
    driving.answered(700).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    kafka.resume(0);
    driving.answered(1_000).await;
    kafka.kill9(0);
    driving.answered(1_300).await;
    kafka.restart(0);
    kafka.wait();
    let ledger = driving.end().await;
    let topic = format!("{prefix}.position");
    let report = compare(&bridge, &ledger, async || read_topic(&kafka, &topic)).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (24 * 80, 0), "each event once");
    assert_eq!(ledger.refused, Vec::<u16>::new(), "no sender was refused");
    assert!(bridge.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_gone_hung_and_back_loses_nothing_and_keeps_order() {
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("gone"));
    let bridge = Bridge::start(&nats_config(&nats, dir.path(), &prefix, ""));
    let driving = Driving::begin(&bridge, 24, 80);
    driving.answered(300).await;
    nats.pause();
    driving.answered(700).await;
    nats.resume();
    driving.answered(1_000).await;
    nats.kill9();
    driving.answered(1_300).await;
    nats.restart();
    nats.wait();
    let ledger = driving.end().await;
    let report = compare(&bridge, &ledger, async || read_stream(&nats, &prefix).await).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (24 * 80, 0), "each event once");
    assert_eq!(ledger.refused, Vec::<u16>::new(), "no sender was refused");
    assert!(bridge.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_the_first_connection_to_nats_is_delivered_and_opens_no_breaker() {
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("first"));
    let config = nats_config(&nats, dir.path(), &prefix, PATIENT);
    let mut bridge = Bridge::start(&config);
    bridge.wait_for_log("bus.checked", Duration::from_secs(40));
    assert!(bridge.stop().success());
    // The stream is there now. The port listens some ten milliseconds before NATS has answered.
    for round in 0..5 {
        let bridge = Bridge::start(&config);
        let body: Vec<_> = (0..50).map(|vehicle| flat(vehicle, start() + round * 1_000)).collect();
        let url = format!("{}/webhooks/acme", bridge.webhook);
        let answer = client().post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
        let counts: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(
            (&counts["delivered"], &counts["parked"]),
            (&50.into(), &0.into()),
            "{}",
            bridge.log_text()
        );
        assert!(!bridge.log_text().contains("breaker.opened"), "{}", bridge.log_text());
        assert!(bridge.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_killed_three_times_loses_nothing_that_it_answered() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("kill"));
    let config = kafka_config(kafka, dir.path(), &prefix, "delivery: { drain_delay: 0s }");
    let mut bridge = Bridge::start(&config);
    let driving = Driving::begin(&bridge, 24, 80);
    for kill in 1..=3 {
        driving.answered(kill * 400).await;
        bridge.kill9();
        bridge = Bridge::start(&config);
        driving.moved(&bridge);
    }
    let ledger = driving.end().await;
    let topic = format!("{prefix}.position");
    let report = compare(&bridge, &ledger, async || read_topic(kafka, &topic)).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!(report.distinct, 24 * 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_refuses_what_the_bus_does_not_take_and_recovers() {
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("full"));
    let accounts = format!("{}    limits: {{ parked: 64KiB }}\n", acme());
    let bus = nats_bus(&nats, &prefix);
    let config = configure(dir.path(), &bus, &accounts, "delivery: { drain_delay: 0s }");
    let bridge = Bridge::start(&config);
    let driving = Driving::begin(&bridge, 16, 60);
    driving.answered(200).await;
    nats.kill9();
    let begun = Instant::now();
    while !driving.ledger.lock().unwrap().refused.contains(&503) {
        assert!(begun.elapsed() < Duration::from_secs(60), "a full store says so");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nats.restart();
    nats.wait();
    let ledger = driving.end().await;
    let report = compare(&bridge, &ledger, async || read_stream(&nats, &prefix).await).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!(report.distinct, 16 * 60);
    assert!(bridge.log_text().contains("park.refused"), "the operator is told of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_stops_its_own_lanes_and_nothing_else() {
    let (kafka, dir, prefix) = (shared_kafka(), tempfile::tempdir().unwrap(), unique("topic"));
    let (positions, trips) = (format!("{prefix}.position"), format!("{prefix}.trip"));
    kafka.create(&positions, 2, 1, &[]).await;
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}", kafka.brokers);
    let config = configure(dir.path(), &bus, acme(), "delivery: { drain_delay: 0s }");
    let bridge = Bridge::start(&config);
    let (from, client, url) = (start(), client(), format!("{}/webhooks/acme", bridge.webhook));
    let mut ledger = Ledger::default();
    for round in 0..40_i64 {
        let at = from + round * 60_000;
        let trip = serde_json::json!({
            "pushType": "TRIP", "deviceNumber": imei(1), "startDateTime": at - 30_000, "endDateTime": at
        });
        for body in [flat(1, at), trip] {
            let answer = client.post(&url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 201);
        }
        let fact = Fact { subject: imei(1), at };
        ledger.sent.insert(fact.clone());
        ledger.answered.push(fact);
    }
    let report = found(&ledger, async || read_topic(kafka, &positions)).await;
    assert!(report.holds(), "positions go on: {report}");
    kafka.create(&trips, 2, 1, &[]).await;
    let report = compare(&bridge, &ledger, async || read_topic(kafka, &trips)).await;
    assert!(report.holds(), "trips are drained in order: {report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (40, 0), "each event once");
}

/// The store has no room, and the first copy's attempt is in flight when its sender is told so: who comes again waits for that
/// attempt as long as for one of his own, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_while_the_bus_hangs_and_the_store_is_full_is_told_so_by_his_deadline() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("twice"));
    let bus = nats_bus(&nats, &prefix);
    let accounts = format!("{}    limits: {{ parked: 64KiB }}\n", acme());
    // The breaker stays out of it: what comes is sent.
    let rest = "delivery: { publish_deadline: 1s, drain_delay: 0s, breaker: { failure_rate: 1.0 } }";
    let bridge = Bridge::start(&configure(dir.path(), &bus, &accounts, rest));
    let (from, client, url) = (start(), client(), format!("{}/webhooks/acme", bridge.webhook));
    let send = async |vehicles: std::ops::Range<usize>| {
        let rows: Vec<_> = vehicles.map(|vehicle| flat(vehicle, from)).collect();
        let begun = Instant::now();
        let answer = client.post(&url).bearer_auth(TOKEN).json(&rows).send().await.unwrap();
        (answer.status().as_u16(), begun.elapsed())
    };
    assert_eq!(send(0..1).await.0, 201);
    nats.pause();
    // More than the quota holds. Then the first copy of one more is refused while its attempt is in flight, and comes again.
    for vehicles in [1..400, 400..401, 400..401, 400..401] {
        let (status, took) = send(vehicles).await;
        assert_eq!(status, 503);
        assert!(took < DEADLINE * 4, "{took:?}\n{}", bridge.log_text());
    }
    nats.resume();
    let begun = Instant::now();
    while send(0..401).await.0 != 201 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the bus is back");
    }
    let facts: Vec<_> = (0..401).map(|vehicle| Fact { subject: imei(vehicle), at: from }).collect();
    let ledger = Ledger { sent: facts.iter().cloned().collect(), answered: facts, ..Ledger::default() };
    let report = compare(&bridge, &ledger, async || read_stream(&nats, &prefix).await).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (401, 0), "each event once");
}

/// Requests that bear states take turns to decide what is news, and not with the bus: while that hangs, the store has all of them.
#[tokio::test(flavor = "multi_thread")]
async fn states_are_answered_by_their_deadline_while_the_bus_hangs() {
    const DEADLINE: Duration = Duration::from_secs(4);
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("states"));
    let bridge = Bridge::start(&nats_config(&nats, dir.path(), &prefix, ", publish_deadline: 4s"));
    let (client, url) = (client(), format!("{}/webhooks/acme", bridge.webhook));
    let fence: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/linxup/push-v3/geofence_change.json")).unwrap();
    let change = async |id: u64| {
        let mut fence = fence.clone();
        fence["geofenceId"] = id.into();
        let begun = Instant::now();
        let answer = client.post(&url).bearer_auth(TOKEN).json(&fence).send().await.unwrap();
        (answer.status().as_u16(), begun.elapsed())
    };
    assert_eq!(change(1).await.0, 201);
    nats.pause();
    let answers = futures_util::future::join_all((2..=100).map(&change)).await;
    for (status, took) in &answers {
        assert!(*status == 201 && *took < DEADLINE * 2, "{answers:?}\n{}", bridge.log_text());
    }
    nats.resume();
    for id in 1..=9 {
        assert_eq!(change(id).await.0, 201);
    }
}

/// Of a request that is refused in part a state may be delivered all the same: what it was before is news again when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_delivered_by_a_request_that_was_refused_is_the_last_one() {
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("part"));
    let context = async_nats::jetstream::new(nats.client().await);
    let fences = format!("{prefix}.geofence-definition.>");
    let wanted = async_nats::jetstream::stream::Config {
        name: prefix.clone(),
        subjects: vec![fences],
        ..Default::default()
    };
    context.create_stream(wanted).await.unwrap();
    let accounts = format!("{}    limits: {{ parked: 64KiB }}\n", acme());
    let rest = format!("delivery: {{ drain_delay: 0s{PATIENT} }}");
    let bridge = Bridge::start(&configure(dir.path(), &nats_bus(&nats, &prefix), &accounts, &rest));
    let fence: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/linxup/push-v3/geofence_change.json")).unwrap();
    let named = |name: &str| {
        let mut fence = fence.clone();
        fence["name"] = name.into();
        fence
    };
    let positions = |vehicles: std::ops::Range<usize>| vehicles.map(|vehicle| flat(vehicle, start()));
    let (client, url) = (client(), format!("{}/webhooks/acme", bridge.webhook));
    let send = async |body: Vec<serde_json::Value>| {
        client.post(&url).bearer_auth(TOKEN).json(&body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(vec![named("Depot A")]).await, 201);
    // No stream takes these: they fill the account's share of the store.
    assert_eq!(send(positions(0..400).collect()).await, 503);
    assert_eq!(send([named("Depot B")].into_iter().chain(positions(400..500)).collect()).await, 503);
    assert_eq!(send(vec![named("Depot A")]).await, 201);
    let last = context.get_stream(&prefix).await.unwrap().info().await.unwrap().state.messages;
    assert_eq!(last, 3, "A, B, and A again\n{}", bridge.log_text());
}

/// As many vehicles as one request may have are more than the client has room for at once: they wait for their turn, and nothing of that
/// is a failure.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_request_is_delivered_by_a_bus_that_is_well_and_opens_no_breaker() {
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("largest"));
    let mut bridge = Bridge::start(&nats_config(&nats, dir.path(), &prefix, PATIENT));
    bridge.wait_for_log("bus.checked", Duration::from_secs(40));
    let from = start();
    let small = |vehicle: usize| serde_json::json!({ "pushType": "POSITION", "deviceNumber": imei(vehicle), "date": from, "latitude": 38.6, "longitude": -90.2 });
    let body: Vec<_> = (0..10_000).map(small).collect();
    let (url, client) = (format!("{}/webhooks/acme", bridge.webhook), reqwest::Client::new());
    let answer = client.post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    let counts: serde_json::Value = answer.json().await.unwrap();
    let told = (&counts["delivered"], &counts["parked"]);
    assert_eq!(told, (&10_000.into(), &0.into()), "{}", bridge.log_text());
    assert!(!bridge.log_text().contains("breaker.opened"), "{}", bridge.log_text());
    assert!(bridge.stop().success());
}

/// One of two brokers stays away with its partition, on which more vehicles wait than are drained at once: they hold up none of
/// those on the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_holds_up_only_its_own_vehicles() {
    const VEHICLES: usize = 2_600;
    let (kafka, dir, prefix) =
        (Kafka::start(2, brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("leaderless"));
    let topic = format!("{prefix}.position");
    kafka.create(&topic, 2, 1, &[]).await;
    let away = kafka.leaders(&topic, 2).iter().position(|leader| *leader == 1).expect("each leads one");
    let config = kafka_config(&kafka, dir.path(), &prefix, "delivery: { drain_delay: 0s }");
    let mut bridge = Bridge::start(&config);
    bridge.wait_for_log("bus.checked", Duration::from_secs(40));
    let (from, client, url) = (start(), client(), format!("{}/webhooks/acme", bridge.webhook));
    let mut ledger = Ledger::default();
    let mut send = async |vehicles: &[usize], at: i64| {
        let rows: Vec<_> = vehicles.iter().map(|vehicle| flat(*vehicle, at)).collect();
        let answer = client.post(&url).bearer_auth(TOKEN).json(&rows).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let facts = vehicles.iter().map(|vehicle| Fact { subject: imei(*vehicle), at });
        ledger.sent.extend(facts.clone());
        ledger.answered.extend(facts);
        let counts: serde_json::Value = answer.json().await.unwrap();
        counts["delivered"].as_u64().unwrap()
    };
    let all: Vec<usize> = (0..VEHICLES).collect();
    send(&all, from).await;
    // Where each vehicle's events go.
    let mut lanes = [Vec::new(), Vec::new()];
    let begun = Instant::now();
    while lanes.iter().map(Vec::len).sum::<usize>() < VEHICLES {
        assert!(begun.elapsed() < Duration::from_secs(60), "all are delivered");
        lanes = [Vec::new(), Vec::new()];
        for message in kafka.read(&topic) {
            let imei: usize = seen(&message.payload).fact.subject.parse().unwrap();
            lanes[usize::try_from(message.partition).unwrap()].push(imei - 350_000_000_000_000);
        }
    }
    let (hang, go_on) = (lanes[away].len(), &lanes[1 - away]);
    assert!(hang > 1_100, "{hang}");
    kafka.kill9(1);
    kafka.kill9(0);
    for vehicles in all.chunks(200) {
        send(vehicles, from + 1_000).await;
    }
    kafka.restart(0);
    let begun = Instant::now();
    loop {
        let behind = metric(&bridge.admin, "fleetbus_lanes_behind").await;
        if behind <= hang {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{behind} wait\n{}", bridge.log_text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // And they are live.
    let begun = Instant::now();
    let mut at = from + 2_000;
    while send(&go_on[..1], at).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the breaker closes\n{}", bridge.log_text());
        at += 1_000;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    kafka.restart(1);
    kafka.wait();
    let report = compare(&bridge, &ledger, async || read_topic(&kafka, &topic)).await;
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (ledger.answered.len(), 0), "each event once");
    assert!(bridge.stop().success());
}

/// Types may have streams of their own: what one of them stored is stored, and it is said that nobody looked how.
#[tokio::test(flavor = "multi_thread")]
async fn another_stream_that_takes_the_subjects_counts_and_is_said() {
    let (nats, dir, prefix) =
        (Nats::start(brokers::Guard::Open, ""), tempfile::tempdir().unwrap(), unique("other"));
    let of = |subject: &str| async_nats::jetstream::stream::Config {
        name: format!("{prefix}-{subject}"),
        subjects: vec![format!("{prefix}.{subject}.>")],
        ..Default::default()
    };
    for subject in ["position", "trip"] {
        nats.create(of(subject)).await;
    }
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}-trip\" }} }}",
        nats.url
    );
    let rest = format!("delivery: {{ drain_delay: 0s{PATIENT} }}");
    let mut bridge = Bridge::start(&configure(dir.path(), &bus, acme(), &rest));
    let url = format!("{}/webhooks/acme", bridge.webhook);
    let answer = client().post(url).bearer_auth(TOKEN).json(&flat(1, start())).send().await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["delivered"], 1);
    bridge.wait_for_log("nats.other_stream", Duration::from_secs(20));
    assert_eq!(read_stream(&nats, &format!("{prefix}-position")).await.len(), 1);
}
