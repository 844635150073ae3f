//! `make bench`: drives the built bridge, its floor and real brokers, and writes what it saw to `docs/performance.md`. Not part
//! of what is shipped. Every figure is one of five runs in mixed order, given as median and spread; every goal is judged by
//! ratios of runs made side by side. `--part` runs one part; only a run of all of them is written into the docs by default.

#[expect(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support/bridge.rs"]
mod bridge;
#[expect(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support/brokers.rs"]
mod brokers;
#[path = "../../tests/support/hot.rs"]
mod hot;

mod body;
mod bulkheads;
mod drive;
mod floor;
mod growth;
mod kafka;
mod nats;
mod outage;
mod process;
mod profile;
mod report;
mod single;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use process::Cores;
use report::Report;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Only these parts.
    #[arg(long = "part", value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Repeats of every figure.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Seconds of every run, after a warm-up of a quarter.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Parked events before the store's growth is measured.
    #[arg(long, default_value_t = 1_000_000)]
    parked: usize,
    /// Where figures are written, as JSON; and, with the same name and `.md`, as tables between two marks.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.json"))]
    into: PathBuf,
    /// What `cargo bench` adds.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve as the floor.
    Floor(floor::Args),
    /// One load on a bridge and nothing else, for a profiler: says the process's number, then what was seen.
    Profile(profile::Args),
    /// Produce without HTTP, and say how much.
    Alone {
        #[command(flatten)]
        floor: floor::Args,
        /// Callers that await their acknowledgements.
        #[arg(long)]
        callers: usize,
        /// Seconds before it counts.
        #[arg(long)]
        warm_up: f64,
        /// Seconds that it counts.
        #[arg(long)]
        measured: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Kafka: one event a request, a hundred, and the open loop. Goals 1 to 4.
    Kafka,
    /// JetStream. Goal 5.
    Nats,
    /// The bus gone, and back. Goal 6.
    Outage,
    /// Decoding alone. Goal 7.
    Decode,
    /// Start, idle memory, binary. Goal 8.
    Memory,
    /// Accounts, subjects, the store, feeds. Goal 9.
    Growth,
    /// One account beside another that is over its limits. Goal 10.
    Bulkheads,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    repeats: usize,
    warm_up: Duration,
    measured: Duration,
    parked: usize,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match args.role {
        Some(Role::Floor(floor)) => return runtime.block_on(floor::serve(floor)),
        Some(Role::Profile(args)) => {
            // As where all is measured: the generator has one thread.
            let generator =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            return generator.block_on(profile::run(args));
        }
        Some(Role::Alone { floor, callers, warm_up, measured }) => {
            let [warm_up, measured] = [warm_up, measured].map(Duration::from_secs_f64);
            return runtime.block_on(floor::alone(floor, callers, warm_up, measured));
        }
        None => {}
    }
    let parts = if args.parts.is_empty() { Part::value_variants().to_vec() } else { args.parts.clone() };
    let plan = Plan {
        repeats: args.repeats,
        warm_up: Duration::from_secs_f64(args.seconds / 4.0),
        measured: Duration::from_secs_f64(args.seconds),
        parked: args.parked,
    };
    let cores = Cores::here();
    let mut report = Report::read(&args.into, &cores);
    for part in parts {
        eprintln!("==> {part:?}");
        // The generator has one thread: what it takes is taken from what it measures.
        let generator =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        generator.block_on(async {
            match part {
                Part::Kafka => kafka::measure(plan, &cores, &mut report).await,
                Part::Nats => nats::measure(plan, &cores, &mut report).await,
                Part::Outage => outage::measure(plan, &mut report).await,
                Part::Decode => single::decode(plan, &mut report),
                Part::Memory => single::memory(plan, &mut report).await,
                Part::Growth => growth::measure(plan, &mut report).await,
                Part::Bulkheads => bulkheads::measure(plan, &mut report).await,
            }
        });
        report.write(&args.into);
    }
    println!("{}", report.tables());
}
