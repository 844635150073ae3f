//! `fleetbus check`: the code that `run` starts with, and nothing started. Invariant: what would end the start of `run` for what is
//! in the configuration or in a file that it names is a problem here, and nobody is asked for it. With `--connect` what it
//! names is tried too (`connect`); with `--schema` the form of a configuration is printed instead.

use std::path::{Path, PathBuf};

use super::output::Output;
use super::remote::{Reader, say, wait};
use super::{Exit, complain};
use crate::bus::Bus;
use crate::config::tree::{self, Place};
use crate::config::{self, Account, Config, Loaded, Problem};
use crate::intake::serve::{Tls, TlsError, certificates};
use crate::trace;

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
    if args.schema {
        say(&format!("{:#}", config::schema()))?;
        return Ok(Exit::Done);
    }
    if !args.connect && !args.output.is_for_people() {
        complain("--output goes with --connect: what is wrong with a configuration is told in sentences");
        return Ok(Exit::Usage);
    }
    let path = config::locate(args.config);
    let loaded = match super::run::read_config(Some(path.clone()))? {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let mut unopened = wait(async { Ok(open(&loaded.config).await) })?;
    // Not among the others: it must not be made on an async task.
    if let Some(otlp) = &loaded.config.otlp
        && let Err(error) = trace::exporter(otlp)
    {
        unopened.push(Unopened::new(
            "telemetry.otlp",
            error,
            "mend its endpoint, the secret of its token, or what CA certificates this system has",
        ));
    }
    if !unopened.is_empty() {
        return Ok(super::run::complain_of(&placed(unopened, &path), &path));
    }
    if args.output.is_for_people() {
        for line in summary(&loaded) {
            if say(&line)? == Reader::Left {
                break;
            }
        }
    }
    if args.connect { super::connect::connect(&loaded.config, args.output) } else { Ok(Exit::Done) }
}

/// What cannot be opened.
struct Unopened {
    /// The key that names it.
    key: &'static str,
    what: String,
    fix: &'static str,
}

impl Unopened {
    fn new(key: &'static str, error: impl Into<anyhow::Error>, fix: &'static str) -> Self {
        Self { key, what: format!("{:#}", error.into()), fix }
    }
}

/// Opens what `run` opens by the configuration and its files alone: no port, no folder, no connection.
async fn open(config: &Config) -> Vec<Unopened> {
    let mut unopened = Vec::new();
    if let Some(files) = &config.listen.tls
        && let Err(error) = Tls::load(files.clone()).await
    {
        let fix = "name the PEM files of a certificate and of its key";
        unopened.push(Unopened::new("listen.tls", error, fix));
    }
    match &config.bus {
        config::Bus::Kafka(kafka) => {
            // A client without brokers is made of the same properties and files, and connects to nobody.
            let alone = config::Bus::Kafka(config::Kafka { brokers: String::new(), ..kafka.clone() });
            if let Err(error) = Bus::open(&alone, &config.data_dir) {
                let fix = "mend what it names: a property, or the file of one";
                unopened.push(Unopened::new("bus.kafka", error, fix));
            }
        }
        config::Bus::Nats(nats) => {
            if let Err(error) = Bus::open(&config.bus, &config.data_dir) {
                let fix = "name the file that `nsc generate creds` wrote";
                unopened.push(Unopened::new("bus.nats", error, fix));
            }
            if let Some(ca) = &nats.ca
                && let Err(error) = authorities(ca)
            {
                unopened.push(Unopened::new("bus.nats.ca", error, "name a file of CA certificates in PEM"));
            }
        }
        // A file in data_dir, which a running bridge may hold.
        config::Bus::Local(_) => {}
    }
    unopened
}

/// Looks for certificates in a file that the client itself reads only when it connects.
fn authorities(path: &Path) -> Result<(), TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(unreadable)?;
    certificates(path, &bytes).map(|_| ())
}

/// With their places in the file. It was read already: where that was a pipe, nothing but the lines is lost.
fn placed(unopened: Vec<Unopened>, path: &Path) -> Vec<Problem> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let root = tree::parse(text.trim_start_matches('\u{feff}')).ok();
    let place = |key: &str| root.as_ref().map_or(Place { line: 1, column: 1 }, |root| root.place_of(key));
    let problem = |Unopened { key, what, fix }| Problem {
        place: place(key),
        path: key.to_owned(),
        what,
        fix: fix.to_owned(),
    };
    let mut problems: Vec<Problem> = unopened.into_iter().map(problem).collect();
    problems.sort_by_key(|problem| problem.place);
    problems
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
