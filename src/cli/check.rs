//! `fleetbus check`: the code that `run` starts with, and nothing started. With `--connect` the bus is asked for its
//! topics, stream and rights too; with `--schema` the form of a configuration is printed instead.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::{Exit, complain};
use crate::bus::{Bus, Finding};
use crate::config::{self, Account, Config, Loaded};
use crate::route::Router;

/// Arguments of `fleetbus check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; else FLEETBUS_CONFIG, else ./fleetbus.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask the bus too: what is missing is listed with the command that makes it.
    #[arg(long)]
    connect: bool,
    /// Print the JSON Schema of a configuration, for editors.
    #[arg(long, conflicts_with_all = ["config", "connect"])]
    schema: bool,
}

/// Runs it.
///
/// # Errors
/// Where the answer cannot be printed; what is wrong with the configuration is an [`Exit`] with sentences.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    if args.schema {
        writeln!(out, "{:#}", config::schema())?;
        return Ok(Exit::Done);
    }
    let loaded = match super::run::read_config(args.config)? {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    for line in summary(&loaded) {
        writeln!(out, "{line}")?;
    }
    if args.connect { connect(&loaded.config, &mut out) } else { Ok(Exit::Done) }
}

fn summary(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let bus = match &config.bus {
        config::Bus::Kafka(kafka) => format!("bus: kafka at {}, topics {}", kafka.brokers, kafka.topic),
        config::Bus::Nats(nats) => {
            format!("bus: nats at {}, stream {}, subjects {}", nats.url, nats.stream, nats.subject)
        }
        config::Bus::Local(_) => format!("bus: local, a log in {}", config.data_dir.display()),
    };
    let mut lines = vec!["configuration is valid".to_owned(), bus];
    lines.extend(config.accounts.iter().map(account_line));
    lines.extend(loaded.notes.iter().map(|note| format!("note: {note}")));
    lines
}

fn account_line(account: &Account) -> String {
    let webhook = account.webhook.as_ref().map(|_| format!("webhooks at /webhooks/{}", account.id));
    let polled = account.poll.iter().map(|poll| {
        let api = match &poll.api {
            config::PollApi::V2 { .. } => "v2",
            config::PollApi::V3 { .. } => "v3",
        };
        let feeds: Vec<&str> = poll.feeds.iter().map(|(feed, _)| feed.as_str()).collect();
        format!("polls {api} for {}", feeds.join(", "))
    });
    let ways: Vec<String> = webhook.into_iter().chain(polled).collect();
    format!("account {} ({}): {}", account.id, account.provider.as_str(), ways.join("; "))
}

/// Asks the bus. The local one is a file that a running bridge may hold, and needs nothing that could be missing.
fn connect(config: &Config, out: &mut impl io::Write) -> anyhow::Result<Exit> {
    if matches!(config.bus, config::Bus::Local(_)) {
        writeln!(out, "bus: the local bus needs no connection")?;
        return Ok(Exit::Done);
    }
    let bus = match Bus::open(&config.bus, &config.data_dir) {
        Ok(bus) => bus,
        Err(error) => {
            complain(&format!("{:#}", anyhow::Error::from(error)));
            return Ok(Exit::Failed);
        }
    };
    let router = Router::new(&config.bus);
    let accounts = config.accounts.iter();
    let topics: BTreeSet<_> = accounts.flat_map(|one| router.topics(one.provider, &one.id)).collect();
    let topics: Vec<_> = topics.into_iter().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime")?;
    let stop = CancellationToken::new();
    let findings = runtime.block_on(async {
        let checked = bus.check(&topics);
        tokio::pin!(checked);
        tokio::select! {
            findings = &mut checked => findings,
            () = bus.run(stop) => checked.await,
        }
    });
    drop(bus);
    runtime.shutdown_background();
    let mut exit = Exit::Done;
    for finding in findings {
        match finding {
            Finding::Fine(what) => writeln!(out, "fine: {what}")?,
            Finding::Made(what) => writeln!(out, "made: {what}")?,
            Finding::Weak(what) => writeln!(out, "warning: {what}")?,
            Finding::Missing { what, command } => {
                writeln!(out, "missing: {what}; make it with: {command}")?;
                exit = Exit::Failed;
            }
            Finding::Unreachable(what) => {
                writeln!(out, "unreachable: {what}")?;
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}
