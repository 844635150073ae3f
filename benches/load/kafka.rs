//! Kafka: one event a request and a hundred, closed loop, over connections; then the open loop at half of what the bridge
//! takes. Bridge and floors run side by side and in mixed order. Goals 1 to 4.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::Plan;
use crate::body::Fleet;
use crate::brokers::{Guard, Kafka, unique};
use crate::drive::{Load, Loop};
use crate::hot;
use crate::process::Cores;
use crate::report::Report;
use crate::subject::Subject;

const ONE: &str = "Kafka, one event a request";
const MANY: &str = "Kafka, 100 events a request";
const OPEN: &str = "Kafka, open loop at half of saturation";
/// Vehicles of the fleet.
pub const VEHICLES: usize = 10_000;
const CONNECTIONS: [usize; 5] = [1, 16, 64, 256, 1024];
/// What svix-bridge 1.100 had acknowledged of what librdkafka alone had with its best linger, in one measurement on two cores that all
/// share, by connections. It cannot be installed from a registry, and another machine has other figures: so the peer is taken to be
/// here what it was there, so much of what the client it is built on can do.
const SVIX: [(usize, f64); 4] = [
    (16, 2_600.0 / 8_300.0),
    (64, 9_600.0 / 30_800.0),
    (256, 35_900.0 / 104_000.0),
    (1024, 38_800.0 / 188_000.0),
];
/// With one connection its fixed linger decides, whatever the machine: requests a second.
const SVIX_ALONE: f64 = 166.0;
/// librdkafka without HTTP.
const ALONE: [(&str, &str); 2] =
    [("librdkafka alone, linger 0", "0"), ("librdkafka alone, linger 1 ms", "1")];
/// The floor, with the two settings of which one or the other suits it.
const FLOORS: [&str; 2] = ["floor, linger 0", "floor, linger 1 ms"];

/// Makes a broker and a topic of six partitions.
pub async fn broker(topic: &str) -> Kafka {
    let kafka = Kafka::start_with(1, Guard::Open, "", "-XX:TieredStopAtLevel=4");
    kafka.create(topic, 6, 1, &[]).await;
    kafka
}

/// Measures.
pub async fn measure(plan: Plan, cores: &Cores, report: &mut Report) {
    let prefix = unique("load");
    let kafka = broker(&format!("{prefix}.position")).await;
    kafka.create("floor", 6, 1, &[]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}", kafka.brokers);
    let bridge = Subject::simple(dir.path(), &bus, cores).await;
    let bytes = hot::message_bytes().to_string();
    let floor = |name: &str, linger: &str, events: &str| {
        let brokers = &kafka.brokers;
        let args = [
            "--brokers",
            brokers,
            "--linger",
            linger,
            "--bytes",
            &bytes,
            "--events",
            events,
            "--topic",
            "floor",
        ];
        Subject::floor(name, &args, cores)
    };
    let single =
        [Subject::floor("axum alone", &[], cores), floor(FLOORS[0], "0", "1"), floor(FLOORS[1], "1", "1")];
    let batch = [floor(FLOORS[0], "0", "100"), floor(FLOORS[1], "1", "100")];
    cores.pin_generator();
    let fleet = Fleet::new(VEHICLES);
    bridge.touch(&["/webhooks/acme".to_owned()], &fleet).await;

    report.begin(ONE, &[1, 2]);
    report.begin(MANY, &[3]);
    let mut jobs = Vec::new();
    for subject in single.iter().chain([&bridge]) {
        jobs.extend(CONNECTIONS.map(|connections| (ONE, subject, connections, 1)));
    }
    for subject in batch.iter().chain([&bridge]) {
        jobs.push((MANY, subject, 16, 100));
    }
    let mut order = StdRng::seed_from_u64(1);
    for _ in 0..plan.repeats {
        for (connections, _) in SVIX {
            for (name, linger) in ALONE {
                let args = ["--brokers", &kafka.brokers, "--linger", linger, "--bytes", &bytes];
                let rate = Subject::alone(&args, connections, plan);
                report.add(ONE, name, &connections_of(connections), "requests/s", rate);
                eprintln!("    {name}, {connections} callers: {rate:.0}/s");
            }
        }
        jobs.shuffle(&mut order);
        for (part, subject, connections, events) in &jobs {
            let (warm_up, measured) = (plan.warm_up, plan.measured);
            let load =
                Load { connections: *connections, events: *events, pace: Loop::Closed, warm_up, measured };
            let seen = subject.drive(&fleet, load).await;
            report.add_seen(part, &subject.name, &connections_of(*connections), &seen);
        }
    }
    closed_goals(report);
    report.add("Memory", "fleetbus", "at saturation, 10,000 subjects", "peak MB", bridge.usage.peak());

    report.begin(OPEN, &[4]);
    let rate = report.median(ONE, "fleetbus", &connections_of(256), "requests/s") / 2.0;
    let mut jobs = vec![&bridge, &single[1], &single[2]];
    for _ in 0..plan.repeats {
        jobs.shuffle(&mut order);
        for subject in &jobs {
            let (warm_up, measured) = (plan.warm_up, plan.measured * 2);
            let load = Load { connections: 64, events: 1, pace: Loop::Open(rate), warm_up, measured };
            let seen = subject.drive(&fleet, load).await;
            report.add_seen(OPEN, &subject.name, &connections_of(64), &seen);
        }
    }
    let case = connections_of(64);
    let ours = report.median(OPEN, "fleetbus", &case, "p99 µs");
    let floors = report.best(OPEN, &FLOORS, &case, "p99 µs", f64::min);
    let seen = format!("{ours:.0} µs against {floors:.0} µs at {rate:.0}/s");
    report.goal(4, "open loop at half of saturation: p99 ≤ floor's + 1 ms", seen, ours <= floors + 1_000.0);
}

/// How a case is called.
pub fn connections_of(connections: usize) -> String {
    format!("{connections} connections")
}

fn closed_goals(report: &mut Report) {
    for connections in [1, 16] {
        let case = connections_of(connections);
        let ours = report.median(ONE, "fleetbus", &case, "p50 µs");
        let floor = report.best(ONE, &FLOORS, &case, "p50 µs", f64::min);
        let seen = format!("{ours:.0} µs against {floor:.0} µs: {:.2} ×", ours / floor);
        let wanted = format!("p50 at {connections} connections ≤ 1.3 × floor");
        report.goal(1, &wanted, seen, ours <= 1.3 * floor);
    }
    let scaled = SVIX.map(|(connections, part)| {
        let case = connections_of(connections);
        (connections, part * report.best(ONE, &ALONE.map(|(name, _)| name), &case, "requests/s", f64::max))
    });
    for (connections, svix) in [(1, SVIX_ALONE)].into_iter().chain(scaled) {
        let times = match connections {
            1 | 16 => 10.0,
            64 => 3.0,
            256 | 1024 => 1.5,
            _ => continue,
        };
        let ours = report.median(ONE, "fleetbus", &connections_of(connections), "requests/s");
        let floor = report.best(ONE, &FLOORS, &connections_of(connections), "requests/s", f64::max);
        let seen = format!("{ours:.0}/s: {:.1} × (the floor: {floor:.0}/s)", ours / svix);
        let wanted = format!("throughput at {connections} ≥ {times} × svix-bridge, {svix:.0}/s here");
        report.goal(1, &wanted, seen, ours >= times * svix);
    }
    let case = connections_of(256);
    let ours = report.median(ONE, "fleetbus", &case, "CPU µs/request");
    let floor = report.best(ONE, &FLOORS, &case, "CPU µs/request", f64::min);
    let seen = format!("{ours:.1} µs against {floor:.1} µs: {:.2} ×", ours / floor);
    report.goal(2, "CPU a request at 256 connections ≤ 1.3 × floor", seen, ours <= 1.3 * floor);
    let case = connections_of(16);
    let rate = report.median(MANY, "fleetbus", &case, "events/s");
    let cpu = report.median(MANY, "fleetbus", &case, "CPU µs/request") / 100.0;
    let floor = report.best(MANY, &FLOORS, &case, "events/s", f64::max);
    let floor_cpu = report.best(MANY, &FLOORS, &case, "CPU µs/request", f64::min) / 100.0;
    let seen = format!("{rate:.0}/s (the floor: {floor:.0}/s), {cpu:.2} µs (the floor: {floor_cpu:.2} µs)");
    let met = rate >= 200_000.0 && cpu <= 4.0;
    report.goal(3, "bodies of 100: ≥ 200,000 events/s, ≤ 4 µs CPU an event", seen, met);
}
