//! No account hurts another: one sends at its own pace while a second one sends ten times what it may, has its share of the store
//! full and its topics missing. Beside it, in the same run, the second one's requests go to a wall that answers at once: what a
//! sender costs by sharing the cores is not the bridge's doing. Goal 10, the bulkheads of the promises.

use std::time::Duration;

use crate::Plan;
use crate::body::Fleet;
use crate::brokers::{Kafka, unique};
use crate::drive::{Load, Loop, Seen, drive};
use crate::kafka::broker;
use crate::process::Cores;
use crate::report::Report;
use crate::subject::Subject;

const PART: &str = "Bulkheads";
/// Events a second that the loud account may send; it sends ten times as many.
const RATE: u32 = 40;
/// Requests a second of the quiet one, and over how many connections.
const QUIET: (f64, usize) = (160.0, 8);
/// Connections of the loud one.
const LOUD: usize = 20;
/// A turn is long enough for a 99th percentile.
const TURN: u32 = 4;
const TURNS: [&str; 3] = ["alone", "beside a wall that takes the loud one's requests", "beside the loud one"];

/// Measures.
pub async fn measure(plan: Plan, report: &mut Report) {
    report.begin(PART, &[10]);
    let prefix = unique("bulkheads");
    let kafka = broker(&format!("{prefix}.quiet.position")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let bridge = bridge(&kafka, &prefix, dir.path()).await;
    let wall = Subject::floor("wall", &[], &Cores::Shared(0));
    let (quiet, loud) = (Fleet::new(1_000), Fleet::new(1_000));
    let paths = ["/webhooks/quiet".to_owned()];
    bridge.touch(&paths, &quiet).await;
    // Its share of the store is full before anything is measured.
    while noise(&bridge.address, "loud", &loud, plan.measured, &bridge).await.refused == 0 {}
    for _ in 0..plan.repeats {
        for turn in TURNS {
            let measured = plan.measured * TURN;
            let load = load(QUIET.1, QUIET.0, plan.warm_up, measured);
            let ours = drive(&bridge.address, &paths, &quiet, load, &bridge.usage);
            let time = plan.warm_up + measured;
            let seen = match turn {
                "alone" => ours.await,
                "beside the loud one" => {
                    let (seen, noise) =
                        tokio::join!(ours, noise(&bridge.address, "loud", &loud, time, &bridge));
                    assert!(noise.refused > noise.requests, "the loud one was within its limits");
                    seen
                }
                _ => tokio::join!(ours, noise(&wall.address, "acme", &loud, time, &bridge)).0,
            };
            report.add_seen(PART, "the quiet account", turn, &seen);
        }
    }
    judge(report, "requests/s", "throughput", |ratio| ratio >= 0.8);
    judge(report, "p99 µs", "99th percentile", |ratio| ratio <= 1.2);
}

/// Beside the loud one against beside a wall.
fn judge(report: &mut Report, name: &str, what: &str, met: impl Fn(f64) -> bool) {
    let [alone, control, beside] = TURNS.map(|turn| report.median(PART, "the quiet account", turn, name));
    let ratio = beside / control;
    let seen = format!("{beside:.0} against {control:.0} (alone {alone:.0}): {ratio:.2} ×");
    report.goal(10, &format!("bulkheads: {what} within 20 % beside a loud account"), seen, met(ratio));
}

const fn load(connections: usize, rate: f64, warm_up: Duration, measured: Duration) -> Load {
    Load { connections, events: 1, pace: Loop::Open(rate), warm_up, measured }
}

/// Ten times what the loud account may send.
async fn noise(address: &str, account: &str, fleet: &Fleet, time: Duration, bridge: &Subject) -> Seen {
    let load = load(LOUD, f64::from(RATE * 10), Duration::ZERO, time);
    drive(address, &[format!("/webhooks/{account}")], fleet, load, &bridge.usage).await
}

async fn bridge(kafka: &Kafka, prefix: &str, dir: &std::path::Path) -> Subject {
    let bus = format!(
        "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{account}}.{{type}}\" }} }}",
        kafka.brokers
    );
    let accounts = format!(
        "accounts:\n  - {{ id: quiet, provider: linxup, webhook: {{ token: {{ env: TEST_TOKEN }} }} }}\n  \
         - {{ id: loud, provider: linxup, webhook: {{ token: {{ env: TEST_TOKEN }} }}, \
         limits: {{ rate: {RATE}/s, parked: 64KiB, in_flight: 1MiB }} }}"
    );
    Subject::bridge(dir, &bus, &accounts, "delivery: { drain_delay: 0s }", &Cores::Shared(0)).await
}
