//! SIGTERM under 64 busy connections, again and again: each request is answered, nothing is lost or out of order, and the
//! process exits 0 inside its grace time. Three times by default; `STOPS=50` is what `make stops` runs.

#[expect(dead_code, reason = "shared with the tests of the promises")]
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

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleetbus::event::pb;
use nix::sys::signal::Signal;
use prost::Message as _;

use bridge::{Bridge, acme, configure};
use brokers::{Nats, shared_nats, unique};
use checker::{Fact, Seen, check};
use fleet::{Address, Ledger, client, drive, start};
use metrics::metric;

const CONNECTIONS: usize = 64;
/// Positions of each vehicle between two stops.
const LEG: usize = 12;
/// `delivery.drain_delay` of the test.
const DELAY: Duration = Duration::from_millis(500);
/// Within this the process must be gone.
const GRACE: Duration = Duration::from_secs(60);

/// What one stop showed.
struct Stop {
    answered: usize,
    refused: usize,
    cut: usize,
    took: Duration,
    status: std::process::ExitStatus,
}

/// Everything in a stream, as a stock consumer that knows only the schema reads it.
async fn read(nats: &Nats, stream: &str) -> Vec<Seen> {
    let read = nats.read(stream).await;
    let events = read.iter().map(|one| pb::FleetEvent::decode(&*one.payload).expect("an event"));
    let seen = |event: pb::FleetEvent| {
        let at = event.occur_time.expect("a time");
        let at = at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
        Seen { fact: Fact { subject: event.subject, at }, id: event.id }
    };
    events.map(seen).collect()
}

async fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nothing is parked for the bus any more.
async fn drained(bridge: &Bridge) {
    let begun = Instant::now();
    while metric(&bridge.admin, "fleetbus_events_behind").await > 0 {
        assert!(begun.elapsed() < GRACE, "it is not drained\n{}", bridge.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_busy_connections_cuts_no_request_and_exits_zero() {
    let stops: usize = std::env::var("STOPS").map_or(3, |said| said.parse().expect("STOPS is a number"));
    let (nats, dir, prefix) = (shared_nats(), tempfile::tempdir().unwrap(), unique("stops"));
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\", create: true }} }}",
        nats.url
    );
    let delay = format!("delivery: {{ drain_delay: {}ms }}", DELAY.as_millis());
    let config = configure(dir.path(), &bus, acme(), &delay);
    let mut bridge = Bridge::start(&config);
    let address: Address = Arc::new(Mutex::new(bridge.webhook.clone()));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut vehicles = tokio::task::JoinSet::new();
    for vehicle in 0..CONNECTIONS {
        // Each has a client of its own, and so a connection.
        let (address, ledger) = (Arc::clone(&address), Arc::clone(&ledger));
        vehicles.spawn(drive(client(), address, ledger, vehicle, (stops + 1) * LEG, start()));
    }
    let counts = || {
        let ledger = ledger.lock().unwrap();
        (ledger.answered.len(), ledger.refused.iter().filter(|status| **status != 0).count(), ledger.cut)
    };
    let mut told = Vec::new();
    for stop in 1..=stops {
        until("the fleet drives", Duration::from_secs(120), || {
            counts().0 >= (stop * LEG - LEG / 2) * CONNECTIONS
        })
        .await;
        let (before, begun) = (counts(), Instant::now());
        bridge.signal(Signal::SIGTERM);
        // Endpoints are removed late: requests go on for a while.
        tokio::time::sleep(DELAY / 2).await;
        address.lock().unwrap().clear();
        let status = tokio::task::block_in_place(|| bridge.ended(GRACE));
        let took = begun.elapsed();
        let after = counts();
        told.push(Stop {
            answered: after.0 - before.0,
            refused: after.1 - before.1,
            cut: after.2 - before.2,
            took,
            status,
        });
        assert!(status.success(), "{status}\n{}", bridge.log_text());
        bridge = Bridge::start(&config);
        address.lock().unwrap().clone_from(&bridge.webhook);
    }
    while let Some(ended) = vehicles.join_next().await {
        ended.expect("a vehicle that drives on");
    }
    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    // A second copy that was parked is on the stream by then, too.
    drained(&bridge).await;
    let report = check(&ledger.sent, &ledger.answered, &read(nats, &prefix).await);
    let sum = |of: fn(&Stop) -> usize| told.iter().map(of).sum::<usize>();
    let exits = told.iter().filter(|stop| stop.status.success()).count();
    let longest = told.iter().map(|stop| stop.took).max().unwrap_or_default();
    println!(
        "| stops | exit 0 | answered 2xx after the signal | told to come again | cut | longest stop | events |"
    );
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| {stops} | {exits} | {} | {} | {} | {:.1} s | {report} |",
        sum(|stop| stop.answered),
        sum(|stop| stop.refused),
        sum(|stop| stop.cut),
        longest.as_secs_f64(),
    );
    assert_eq!(ledger.cut, 0, "a request was cut without an answer");
    assert!(report.holds(), "{report}\n{}", bridge.log_text());
    assert_eq!((report.distinct, report.duplicates), (CONNECTIONS * (stops + 1) * LEG, 0), "each event once");
    assert!(bridge.stop().success());
}
