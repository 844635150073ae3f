//! JetStream: the bridge, and the async client by itself with message ids and a window of unacknowledged messages, the
//! best window of several. Goal 5.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::Plan;
use crate::body::Fleet;
use crate::brokers::{Guard, Nats, unique};
use crate::drive::{Load, Loop};
use crate::hot;
use crate::kafka::{VEHICLES, connections_of};
use crate::process::Cores;
use crate::report::Report;
use crate::subject::Subject;

const PART: &str = "JetStream, one event a request";
const CONNECTIONS: [usize; 4] = [1, 16, 256, 1024];
const WINDOWS: [usize; 3] = [64, 256, 1024];

/// Measures.
pub async fn measure(plan: Plan, cores: &Cores, report: &mut Report) {
    let nats = Nats::start(Guard::Open, "");
    let (stream, dir) = (unique("load"), tempfile::tempdir().expect("a folder"));
    let bus = format!(
        "bus: {{ nats: {{ url: \"{}\", subject: \"{stream}.{{type}}.{{account}}.{{subject}}\", stream: \"{stream}\", create: true }} }}",
        nats.url
    );
    let bridge = Subject::simple(dir.path(), &bus, cores).await;
    let fleet = Fleet::new(VEHICLES);
    bridge.touch(&["/webhooks/acme".to_owned()], &fleet).await;
    report.begin(PART, &[5]);
    for repeat in 0..plan.repeats {
        for at in 0..CONNECTIONS.len() {
            let connections = CONNECTIONS[(at + repeat) % CONNECTIONS.len()];
            let (warm_up, measured) = (plan.warm_up, plan.measured);
            let load = Load { connections, events: 1, pace: Loop::Closed, warm_up, measured };
            let seen = bridge.drive(&fleet, load).await;
            report.add_seen(PART, &bridge.name, &connections_of(connections), &seen);
            let window = WINDOWS[(at + repeat) % WINDOWS.len()];
            let rate = client(&nats.url, &stream, window, plan.measured).await;
            report.add(PART, "client alone", &format!("window of {window}"), "events/s", rate);
            eprintln!("    client alone, window of {window}: {rate:.0}/s");
        }
    }
    let windows = WINDOWS.map(|window| format!("window of {window}"));
    let of = |window: &String| report.median(PART, "client alone", window, "events/s");
    let client = windows.iter().map(of).fold(f64::NAN, f64::max);
    let of = |connections: usize| report.median(PART, "fleetbus", &connections_of(connections), "events/s");
    let ours = CONNECTIONS.into_iter().map(of).fold(f64::NAN, f64::max);
    let seen = format!("{ours:.0}/s against {client:.0}/s: {:.0} %", 100.0 * ours / client);
    report.goal(5, "JetStream: ≥ 80 % of the client's best windowed rate", seen, ours >= 0.8 * client);
}

/// The client by itself: so many messages of the bridge's size unacknowledged, each with its id.
async fn client(url: &str, stream: &str, window: usize, measured: Duration) -> f64 {
    let client = async_nats::connect(url).await.expect("NATS");
    let context = async_nats::jetstream::new(client);
    let payload = bytes::Bytes::from(vec![b'x'; hot::message_bytes()]);
    let mut waits = FuturesUnordered::new();
    let begun = Instant::now();
    let (mut sent, mut kept) = (0_u64, 0_u64);
    while begun.elapsed() < measured {
        while waits.len() < window {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", unique("id"));
            let subject = format!("{stream}.position.client.{}", sent % 10_000);
            sent += 1;
            let wait =
                context.publish_with_headers(subject, headers, payload.clone()).await.expect("a publish");
            waits.push(wait.into_future());
        }
        if let Some(acknowledged) = waits.next().await {
            acknowledged.expect("an acknowledgement");
            kept += 1;
        }
    }
    let rate = kept as f64 / begun.elapsed().as_secs_f64();
    while let Some(acknowledged) = waits.next().await {
        acknowledged.expect("an acknowledgement");
    }
    rate
}
