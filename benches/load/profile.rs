//! One load on a bridge and nothing else, so that a profiler sees what one kind of request costs. `make flamegraph` runs it
//! under perf.

use std::time::Duration;

use crate::body::Fleet;
use crate::brokers::{Guard, Nats, unique};
use crate::drive::{Load, Loop};
use crate::kafka::{VEHICLES, broker};
use crate::process::Cores;
use crate::subject::Subject;

/// Which load.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The bus.
    #[arg(long, value_enum, default_value = "kafka")]
    bus: Which,
    /// Connections.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Events a request.
    #[arg(long, default_value_t = 1)]
    events: usize,
    /// Requests a second, sent whether or not those before are answered; none: each connection's next when its last is.
    #[arg(long)]
    rate: Option<f64>,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Which {
    Kafka,
    Nats,
}

/// Runs it.
pub async fn run(args: Args) {
    let (prefix, dir) = (unique("profile"), tempfile::tempdir().expect("a folder"));
    match args.bus {
        Which::Kafka => {
            let kafka = broker(&format!("{prefix}.position")).await;
            let bus = format!(
                "bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}",
                kafka.brokers
            );
            load(dir.path(), &bus, &args).await;
        }
        Which::Nats => {
            let nats = Nats::start(Guard::Open, "");
            let bus = format!(
                "bus: {{ nats: {{ url: \"{}\", subject: \"{prefix}.{{type}}.{{account}}.{{subject}}\", stream: \"{prefix}\", create: true }} }}",
                nats.url
            );
            load(dir.path(), &bus, &args).await;
        }
    }
}

async fn load(dir: &std::path::Path, bus: &str, args: &Args) {
    let bridge = Subject::simple(dir, bus, &Cores::Shared(0)).await;
    let fleet = Fleet::new(VEHICLES);
    bridge.touch(&["/webhooks/acme".to_owned()], &fleet).await;
    println!("pid {}", bridge.as_bridge().expect("a bridge").pid());
    let (connections, events) = (args.connections, args.events);
    let measured = Duration::from_secs_f64(args.seconds);
    let pace = args.rate.map_or(Loop::Closed, Loop::Open);
    let load = Load { connections, events, pace, warm_up: measured / 10, measured };
    let seen = bridge.drive(&fleet, load).await;
    let cpu = seen.cpu * 1e6 / seen.events as f64;
    println!(
        "{:.0} events/s, p50 {:.0} µs, p99 {:.0} µs, {cpu:.2} µs of CPU an event, {:.0} MB at the peak",
        seen.event_rate(),
        seen.quantile(0.5),
        seen.quantile(0.99),
        bridge.usage.peak()
    );
}
