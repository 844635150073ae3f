//! A long outage, compressed: the bus is gone while a large fleet goes on sending, then it comes back and the drain has all
//! of it to carry, beside live traffic. Memory and file descriptors stay within what docs/operate.md states, order holds
//! for each vehicle, and nothing is lost or doubled. On NATS, and small, by default; `make memory` runs it as large as the
//! table says.

#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests of the buses")]
#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/checker.rs"]
mod checker;
#[expect(dead_code, reason = "shared with the tests of the promises")]
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/metrics.rs"]
mod metrics;
#[expect(dead_code, reason = "shared with the campaign")]
#[path = "campaign/proxy.rs"]
mod proxy;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fleetbus::event::pb;
use futures_util::StreamExt as _;
use prost::Message as _;
use serde_json::Value;
use tokio::time::timeout;

use bridge::{Bridge, TOKEN, acme, configure};
use brokers::{Guard, Kafka, Nats, QUICK, free_port, unique};
use fleet::{flat, start};
use metrics::metric;
use proxy::{Mood, Proxy};

/// Requests under way at once, each with rows of vehicles of its own.
const SENDERS: usize = 4;
/// Rows of one request.
const ROWS: usize = 100;
/// Vehicles that send beside the others, one row a request, each in its turn: their latency is the live traffic's. Those that
/// were not heard of in the outage, so that they are live but where the bus is still said to be away.
const LIVE: [std::ops::Range<usize>; 2] = [2_000_000..2_001_000, 3_000_000..3_001_000];
/// Requests before the outage: some seconds of them, where percentiles are what is asked for.
const NORMAL: usize = 2_000;
/// Resident memory: what the process has without work, what it may have in work, and what 100,000 lanes take.
const BOUND_MIB: usize = 400;
/// How much more than without work it may have in the outage: requests in work, and no event that is parked,
const BOUND_GROWTH_MIB: usize = 70;
/// and what each vehicle that is behind takes, however much is parked of it.
const BOUND_LANE_BYTES: usize = 1_500;
/// Bytes of each position beside those of [`flat`]: all of them together are more than that by far.
const NOTE: usize = 5_000;
/// What is waited for moves by then on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Open files and sockets.
const BOUND_FILES: usize = 160;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |said| said.parse().expect("a number"))
}

/// Resident memory in KiB, and open files, from the kernel.
fn usage(pid: u32) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let resident = line.trim().trim_end_matches(" kB").parse().expect("a number");
    (resident, std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count())
}

/// The most of both since the last look.
#[derive(Default)]
struct Peaks {
    resident: AtomicUsize,
    files: AtomicUsize,
}

impl Peaks {
    fn see(&self, pid: u32) {
        let (resident, files) = usage(pid);
        self.resident.fetch_max(resident, Ordering::Relaxed);
        self.files.fetch_max(files, Ordering::Relaxed);
    }

    /// MiB, and files.
    fn take(&self) -> (usize, usize) {
        (self.resident.swap(0, Ordering::Relaxed) / 1_024, self.files.swap(0, Ordering::Relaxed))
    }
}

/// Sends one request until it is answered 2xx, for as long as anything is waited for, and says how long the last one took, and how many of its events were parked.
async fn send(client: &reqwest::Client, bridge: &str, rows: &[Value]) -> (Duration, u64) {
    let first = Instant::now();
    loop {
        let begun = Instant::now();
        let sent = client.post(format!("{bridge}/webhooks/acme")).bearer_auth(TOKEN).json(rows).send().await;
        if let Ok(answer) = sent
            && answer.status().is_success()
        {
            let took = begun.elapsed();
            let counts: Value = answer.json().await.expect("counts");
            return (took, counts["parked"].as_u64().expect("a count"));
        }
        assert!(first.elapsed() < PATIENCE, "no 2xx for a request");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What live traffic saw.
#[derive(Default)]
struct Live {
    sent: usize,
    /// How long the bus's acknowledgement took.
    delivered: Vec<Duration>,
    /// How long it took where the store had to do.
    parked: Vec<Duration>,
}

impl Live {
    /// Vehicles send in turn until told to stop, or so often.
    async fn send(bridge: &str, vehicles: std::ops::Range<usize>, stop: &AtomicBool, most: usize) -> Self {
        let (client, from) = (fleet::client(), start());
        let mut seen = Self::default();
        while seen.sent < most && !stop.load(Ordering::Relaxed) {
            let vehicle = vehicles.start + seen.sent % vehicles.len();
            let row = flat(vehicle, from + seen.sent as i64 * 1_000);
            match send(&client, bridge, &[row]).await {
                (took, 0) => seen.delivered.push(took),
                (took, _) => seen.parked.push(took),
            }
            seen.sent += 1;
        }
        seen
    }

    /// Cells of the table: delivered, their percentiles; parked, their last percentile.
    fn cells(&mut self) -> String {
        let [middle, last] = [50, 99].map(|of| percentile(&mut self.delivered, of));
        let parked = percentile(&mut self.parked, 99);
        format!("{} | {middle} | {last} | {} | {parked}", self.delivered.len(), self.parked.len())
    }
}

/// In ms; nothing of nothing.
fn percentile(took: &mut [Duration], of: usize) -> String {
    took.sort();
    let at = took.get((took.len() * of / 100).min(took.len().saturating_sub(1)));
    at.map_or(String::new(), |took| format!("{:.2}", took.as_secs_f64() * 1e3))
}

/// How many messages each vehicle has, where each is newer than the one before.
#[derive(Default)]
struct Topic(HashMap<String, (usize, i64)>);

impl Topic {
    fn add(&mut self, payload: &[u8]) {
        let event = pb::FleetEvent::decode(payload).expect("an event");
        let at = event.occur_time.expect("a time").seconds;
        let (count, newest) = self.0.entry(event.subject.clone()).or_insert((0, i64::MIN));
        assert!(at > *newest, "{} has {at} after {newest}", event.subject);
        (*count, *newest) = (*count + 1, at);
    }

    fn of(&self, vehicles: std::ops::Range<usize>) -> usize {
        vehicles.map(|vehicle| self.0.get(&fleet::imei(vehicle)).map_or(0, |(count, _)| *count)).sum()
    }
}

/// The bus that goes away.
enum Broker {
    Kafka(Kafka),
    Nats(Nats),
}

impl Broker {
    /// It, where there is one behind this proxy, and the bridge's configuration of it.
    async fn start(prefix: &str, proxy: Option<&Proxy>) -> (Self, String) {
        let door = proxy.map(|proxy| proxy.address.port());
        let passes_to = |port: u16| {
            if let Some(proxy) = proxy {
                proxy.passes_to((Ipv4Addr::LOCALHOST, port).into());
            }
        };
        match std::env::var("BUS").as_deref() {
            Ok("kafka") => {
                let port = free_port();
                passes_to(port);
                let kafka = Kafka::start_behind(&[port], door, Guard::Open, "", QUICK);
                kafka.create(&format!("{prefix}.position"), 6, 1, &[]).await;
                let bus = format!(
                    "{{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}",
                    kafka.brokers
                );
                (Self::Kafka(kafka), bus)
            }
            Ok("nats") | Err(_) => {
                let nats = Nats::start(Guard::Open, "");
                passes_to(nats.port);
                let door = door.unwrap_or(nats.port);
                let bus = format!(
                    "{{ nats: {{ url: \"nats://127.0.0.1:{door}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\", create: true }} }}"
                );
                (Self::Nats(nats), bus)
            }
            Ok(other) => panic!("BUS is {other}: kafka or nats"),
        }
    }

    fn kill9(&self) {
        match self {
            Self::Kafka(kafka) => kafka.kill9(0),
            Self::Nats(nats) => nats.kill9(),
        }
    }

    fn restart(&self) {
        match self {
            Self::Kafka(kafka) => kafka.restart(0),
            Self::Nats(nats) => nats.restart(),
        }
    }

    /// What it has.
    async fn read(&self, prefix: &str) -> Topic {
        let mut topic = Topic::default();
        match self {
            Self::Kafka(kafka) => {
                kafka
                    .read(&format!("{prefix}.position"))
                    .iter()
                    .for_each(|message| topic.add(&message.payload));
            }
            Self::Nats(nats) => {
                let context = async_nats::jetstream::new(nats.client().await);
                let mut stream = context.get_stream(prefix).await.expect("the stream");
                let last = stream.info().await.expect("its state").state.last_sequence;
                let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
                let consumer = stream.create_consumer(config).await.expect("a consumer");
                let mut messages = consumer.messages().await.expect("messages");
                loop {
                    let next = timeout(PATIENCE, messages.next()).await.expect("in time");
                    let message = next.expect("a message").expect("a message");
                    if message.subject.contains(".position.") {
                        topic.add(&message.payload);
                    }
                    if message.info().expect("its place").stream_sequence == last {
                        break;
                    }
                }
            }
        }
        topic
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_takes_no_more_memory_than_is_stated_and_its_drain_keeps_order() {
    let (events, subjects) = (number("OUTAGE_EVENTS", 20_000), number("OUTAGE_SUBJECTS", 2_000));
    let note = "n".repeat(number("OUTAGE_NOTE", NOTE));
    let (dir, prefix) = (tempfile::tempdir().unwrap(), unique("outage"));
    // Where the bus is to be far away: so far one way.
    let far = Duration::from_millis(number("OUTAGE_FAR_MS", 0) as u64);
    let proxy = if far.is_zero() { None } else { Some(Proxy::start().await) };
    if let Some(proxy) = &proxy {
        proxy.set(Mood::Delay(far));
    }
    let (broker, bus) = Broker::start(&prefix, proxy.as_ref()).await;
    let accounts = format!("{}    limits: {{ parked: 9GiB }}\n", acme());
    let rate = std::env::var("DRAIN_RATE")
        .map_or_else(|_| "{}".to_owned(), |rate| format!("{{ drain_rate: {rate}/s }}"));
    let rest = format!("delivery: {{ drain_delay: 0s }}\nreplay: {rate}");
    let bridge = Bridge::start(&configure(dir.path(), &format!("bus: {bus}"), &accounts, &rest));
    let (pid, webhook, admin) = (bridge.pid(), bridge.webhook.clone(), bridge.admin.clone());

    let peaks = Arc::new(Peaks::default());
    let done = Arc::new(AtomicBool::new(false));
    let (sees, until) = (Arc::clone(&peaks), Arc::clone(&done));
    let mut looking = tokio::task::JoinSet::new();
    looking.spawn(async move {
        while !until.load(Ordering::Relaxed) {
            sees.see(pid);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });

    let never = AtomicBool::new(false);
    let [before_it, beside_it] = LIVE;
    let normal = number("OUTAGE_NORMAL", NORMAL);
    let mut normal = Live::send(&webhook, before_it.clone(), &never, normal).await;
    let before = peaks.take();

    broker.kill9();
    let begun = Instant::now();
    let mut fleet = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (webhook, note) = (webhook.clone(), note.clone());
        fleet.spawn(async move {
            let (client, from) = (fleet::client(), start());
            let own: Vec<usize> = (0..subjects).filter(|vehicle| vehicle % SENDERS == sender).collect();
            for round in 0..events / subjects {
                for vehicles in own.chunks(ROWS) {
                    let at = from + round as i64 * 1_000;
                    let row = |vehicle: &usize| {
                        let mut row = flat(*vehicle, at);
                        row["note"] = note.as_str().into();
                        row
                    };
                    let rows: Vec<Value> = vehicles.iter().map(row).collect();
                    send(&client, &webhook, &rows).await;
                }
            }
        });
    }
    while let Some(ended) = fleet.join_next().await {
        ended.expect("a sender");
    }
    let (parked_in, lanes) = (begun.elapsed(), metric(&admin, "fleetbus_lanes_behind").await);
    let outage = peaks.take();

    broker.restart();
    let begun = Instant::now();
    let drained = Arc::new(AtomicBool::new(false));
    let drains = async {
        let (mut least, mut moved) = (usize::MAX, Instant::now());
        loop {
            let behind = metric(&admin, "fleetbus_events_behind").await;
            if behind == 0 {
                break;
            }
            if behind < least {
                (least, moved) = (behind, Instant::now());
            }
            assert!(moved.elapsed() < PATIENCE, "{behind} stay behind\n{}", bridge.log_text());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        drained.store(true, Ordering::Relaxed);
    };
    let (mut meanwhile, ()) =
        tokio::join!(Live::send(&webhook, beside_it.clone(), &drained, usize::MAX), drains);
    let (drained_in, drain) = (begun.elapsed(), peaks.take());
    done.store(true, Ordering::Relaxed);
    looking.join_next().await;

    let sent = events / subjects * subjects;
    let rate = |took: Duration| sent as f64 / took.as_secs_f64();
    println!(
        "| phase | events | vehicles behind | s | events/s | RSS MiB, peak | files, peak | live: delivered | p50 ms | p99 ms | parked | p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    println!("| before | | 0 | | | {} | {} | {} |", before.0, before.1, normal.cells());
    println!(
        "| outage | {sent} | {lanes} | {:.0} | {:.0} | {} | {} | | | | | |",
        parked_in.as_secs_f64(),
        rate(parked_in),
        outage.0,
        outage.1
    );
    println!(
        "| drain | {sent} | 0 | {:.0} | {:.0} | {} | {} | {} |",
        drained_in.as_secs_f64(),
        rate(drained_in),
        drain.0,
        drain.1,
        meanwhile.cells()
    );
    let topic = broker.read(&prefix).await;
    assert_eq!(topic.of(0..subjects), sent, "each event once");
    assert_eq!(topic.of(before_it), normal.sent);
    assert_eq!(topic.of(beside_it), meanwhile.sent);
    assert_eq!(lanes, subjects);
    let growth = outage.0.saturating_sub(before.0);
    let bound = BOUND_GROWTH_MIB + ((subjects * BOUND_LANE_BYTES) >> 20);
    assert!(growth < bound, "{growth} MiB more in the outage, bound {bound}");
    for (resident, files) in [before, outage, drain] {
        assert!(resident < BOUND_MIB, "{resident} MiB");
        assert!(files < BOUND_FILES, "{files} files");
    }
    assert!(bridge.stop().success());
}
