//! JetStream: the bridge with one event a request and with a hundred, and the async client by itself with message ids and a
//! window of unacknowledged messages, the best window of several: with the id alone, and with all headers that the bridge
//! sends, which is what it can reach at most. Goal 5.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderName};
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
const MANY: &str = "JetStream, 100 events a request";
const CONNECTIONS: [usize; 4] = [1, 16, 256, 1024];
const WINDOWS: [usize; 3] = [64, 256, 1024];

/// What the client by itself sends with a message.
#[derive(Debug, Clone, Copy)]
enum Headers {
    /// The id; as many bytes as the bridge's headers have are in the payload.
    Id,
    /// What the bridge sends.
    All,
}

impl Headers {
    const fn subject(self) -> &'static str {
        match self {
            Self::Id => "client alone",
            Self::All => "client alone, the bridge's headers",
        }
    }
}

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
    report.begin(MANY, &[]);
    for repeat in 0..plan.repeats {
        for at in 0..CONNECTIONS.len() {
            let connections = CONNECTIONS[(at + repeat) % CONNECTIONS.len()];
            let (warm_up, measured) = (plan.warm_up, plan.measured);
            let load = Load { connections, events: 1, pace: Loop::Closed, warm_up, measured };
            let seen = bridge.drive(&fleet, load).await;
            report.add_seen(PART, &bridge.name, &connections_of(connections), &seen);
            let window = WINDOWS[(at + repeat) % WINDOWS.len()];
            for headers in [Headers::Id, Headers::All] {
                let rate = client(&nats.url, &stream, window, headers, plan.measured).await;
                report.add(PART, headers.subject(), &window_of(window), "events/s", rate);
                eprintln!("    {}, window of {window}: {rate:.0}/s", headers.subject());
            }
        }
        let (warm_up, measured) = (plan.warm_up, plan.measured);
        let load = Load { connections: 16, events: 100, pace: Loop::Closed, warm_up, measured };
        let seen = bridge.drive(&fleet, load).await;
        report.add_seen(MANY, &bridge.name, &connections_of(16), &seen);
    }
    let best = |headers: Headers| {
        let of = |window| report.median(PART, headers.subject(), &window_of(window), "events/s");
        WINDOWS.into_iter().map(of).fold(f64::NAN, f64::max)
    };
    let [client, all] = [Headers::Id, Headers::All].map(best);
    let of = |connections| report.median(PART, "fleetbus", &connections_of(connections), "events/s");
    let single = CONNECTIONS.into_iter().map(of).fold(f64::NAN, f64::max);
    let many = report.median(MANY, "fleetbus", &connections_of(16), "events/s");
    let share = |rate: f64, of: f64| 100.0 * rate / of;
    let seen = format!(
        "in bodies of 100 {many:.0}/s, one a request {single:.0}/s, against {client:.0}/s: {:.0} and {:.0} %; against \
         {all:.0}/s with the bridge's headers: {:.0} and {:.0} %",
        share(many, client),
        share(single, client),
        share(many, all),
        share(single, all),
    );
    let met = single.max(many) >= 0.8 * client;
    report.goal(5, "JetStream: ≥ 80 % of the client's best windowed rate", seen, met);
}

fn window_of(window: usize) -> String {
    format!("window of {window}")
}

/// The client by itself: so many messages of the bridge's size unacknowledged, each with its id.
async fn client(url: &str, stream: &str, window: usize, headers: Headers, measured: Duration) -> f64 {
    let client = async_nats::connect(url).await.expect("NATS");
    let context = async_nats::jetstream::new(client);
    let message = hot::Bench::new(&[hot::FLAT]).message(hot::FLAT);
    let payload = match headers {
        Headers::Id => bytes::Bytes::from(vec![b'x'; hot::message_bytes()]),
        Headers::All => message.payload.clone(),
    };
    let mut waits = FuturesUnordered::new();
    let begun = Instant::now();
    let (mut sent, mut kept) = (0_u64, 0_u64);
    while begun.elapsed() < measured {
        while waits.len() < window {
            let mut sends = HeaderMap::new();
            sends.insert("Nats-Msg-Id", unique("id"));
            if let Headers::All = headers {
                for (name, value) in &message.headers {
                    sends.insert(HeaderName::from_static(name), value);
                }
            }
            let subject = format!("{stream}.position.client.{}", sent % 10_000);
            sent += 1;
            let wait =
                context.publish_with_headers(subject, sends, payload.clone()).await.expect("a publish");
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
