//! `fleetbus check --connect`: tries what a configuration names, and prints a table of what works: the data folder, the bus and
//! its topics, each provider's host with its credential. Invariant: nothing is published, nothing is fetched but what says
//! whether a credential opens.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::output::{Column, Output};
use super::runtime::runtime;
use crate::bus::{Bus, Finding};
use crate::clock;
use crate::config::{self, Config};
use crate::intake::poll::fault::Fault;
use crate::intake::poll::host::Host;
use crate::intake::poll::http::{Bounds, Client};
use crate::route::Router;

/// For one host.
const PATIENCE: Duration = Duration::from_secs(30);

const COLUMNS: [Column; 4] = [("STATE", "state"), ("WHAT", "what"), ("FOUND", "found"), ("TO DO", "fix")];

/// What was found of one thing.
struct Row {
    state: State,
    what: String,
    found: String,
    fix: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    Weak,
    Fails,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Weak => "weak",
            Self::Fails => "fails",
        }
    }
}

/// Tries everything. Fails where something does not work.
///
/// # Errors
/// Where the table cannot be printed.
pub fn connect(config: &Config, output: Output) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    let mut rows = vec![folder(&config.data_dir)];
    runtime.block_on(async {
        rows.extend(Box::pin(bus(config)).await);
        rows.extend(providers(config).await);
    });
    runtime.shutdown_background();
    let failed = rows.iter().any(|row| row.state == State::Fails);
    let values: Vec<Value> = rows
        .into_iter()
        .map(|Row { state, what, found, fix }| json!({"state": state.as_str(), "what": what, "found": found, "fix": fix}))
        .collect();
    output.list(&values, &COLUMNS, "nothing is named that could be tried")?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// A running bridge may hold the folder: it is only asked whether a file can be written there.
fn folder(path: &Path) -> Row {
    let what = format!("data folder {}", path.display());
    let there = path.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    let there = there.unwrap_or_else(|| Path::new("."));
    let probe = there.join(format!(".fleetbus-check-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) if there == path => works(what, "can be written"),
        Ok(()) => works(what, "can be made"),
        Err(error) => {
            fails(what, error.to_string(), "let this user write there, or name another folder as data_dir")
        }
    }
}

async fn bus(config: &Config) -> Vec<Row> {
    if matches!(config.bus, config::Bus::Local(_)) {
        return vec![works("bus".to_owned(), "the local one needs no connection")];
    }
    let bus = match Bus::open(&config.bus, &config.data_dir) {
        Ok(bus) => bus,
        Err(error) => {
            return vec![fails(
                "bus".to_owned(),
                format!("{:#}", anyhow::Error::from(error)),
                "mend the configuration",
            )];
        }
    };
    let router = Router::new(&config.bus);
    let topics: BTreeSet<_> =
        config.accounts.iter().flat_map(|account| router.topics(account.provider, &account.id)).collect();
    let topics: Vec<_> = topics.into_iter().collect();
    let checked = bus.check(&topics);
    tokio::pin!(checked);
    let findings = tokio::select! {
        findings = &mut checked => findings,
        () = bus.run(CancellationToken::new()) => checked.await,
    };
    let row = |finding| match finding {
        Finding::Fine(found) => works("bus".to_owned(), &found),
        Finding::Made(found) => works("bus".to_owned(), &format!("made: {found}")),
        Finding::Weak(found) => Row { state: State::Weak, what: "bus".to_owned(), found, fix: String::new() },
        Finding::Missing { what, command } => {
            fails("bus".to_owned(), format!("missing: {what}"), &format!("make it with: {command}"))
        }
        Finding::Unusable { what, fix } | Finding::Barred { what, fix } => {
            fails("bus".to_owned(), what, &fix)
        }
        Finding::Unreachable(found) => {
            fails("bus".to_owned(), format!("unreachable: {found}"), "start it, or name it rightly")
        }
    };
    findings.into_iter().map(row).collect()
}

async fn providers(config: &Config) -> Vec<Row> {
    let mut rows = Vec::new();
    for account in &config.accounts {
        for poll in &account.poll {
            let api = poll.api.pulls().as_str();
            let what = format!("account {}, API {api} at {}", account.id, poll.base_url);
            rows.push(provider(what, poll).await);
        }
    }
    rows
}

async fn provider(what: String, poll: &config::Poll) -> Row {
    let client = match Client::new(Bounds::default()) {
        Ok(client) => client,
        Err(error) => return fails(what, error.to_string(), "see the message"),
    };
    let host = Host::new(client, &poll.base_url, &poll.api, Arc::new(clock::now));
    match timeout(PATIENCE, host.knock()).await {
        Ok(Ok(())) => works(what, "answers, and takes the credential"),
        // Some tokens may not ask for the company: the feeds will tell.
        Ok(Err(Fault::Refused(why))) => Row {
            state: State::Weak,
            what,
            found: format!("answers, but: {why}"),
            fix: "see whether the feeds work".to_owned(),
        },
        Ok(Err(fault @ Fault::Unauthorized(_))) => {
            fails(what, fault.to_string(), "take the token or key from the provider's portal anew")
        }
        Ok(Err(fault @ (Fault::Host(_) | Fault::TimedOut | Fault::Limited(_) | Fault::TooLarge(_)))) => {
            fails(what, fault.to_string(), "look at base_url and the way there")
        }
        Err(_) => fails(what, "no answer in time".to_owned(), "look at base_url and the way there"),
    }
}

fn works(what: String, found: &str) -> Row {
    Row { state: State::Works, what, found: found.to_owned(), fix: String::new() }
}

fn fails(what: String, found: String, fix: &str) -> Row {
    Row { state: State::Fails, what, found, fix: fix.to_owned() }
}
