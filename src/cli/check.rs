//! `fleetbus check`: the code that `run` starts with, and nothing started. With `--connect` what it
//! names is tried too (`connect`); with `--schema` the form of a configuration is printed instead.

use std::io::{self, Write as _};
use std::path::PathBuf;

use super::Exit;
use super::output::Output;
use crate::config::{self, Account, Loaded};

/// Arguments of `fleetbus check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; else FLEETBUS_CONFIG, else ./fleetbus.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Try the data folder, the bus, its topics and each provider too: what fails is listed with what to do.
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    output: Output,
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
    if args.output.is_for_people() {
        for line in summary(&loaded) {
            writeln!(out, "{line}")?;
        }
    }
    drop(out);
    if args.connect { super::connect::connect(&loaded.config, args.output) } else { Ok(Exit::Done) }
}

fn summary(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let bus = match &config.bus {
        config::Bus::Kafka(kafka) => {
            let registry = kafka.registry.as_ref();
            let framed =
                registry.map(|registry| format!(", framed by the schema registry at {}", registry.url));
            format!("bus: kafka at {}, topics {}{}", kafka.brokers, kafka.topic, framed.unwrap_or_default())
        }
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
        let api = poll.api.pulls().as_str();
        let feeds: Vec<&str> = poll.feeds.iter().map(|(feed, _)| feed.as_str()).collect();
        format!("polls {api} for {}", feeds.join(", "))
    });
    let ways: Vec<String> = webhook.into_iter().chain(polled).collect();
    format!("account {} ({}): {}", account.id, account.provider.as_str(), ways.join("; "))
}
