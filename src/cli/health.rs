//! `fleetbus health`: asks a running bridge on this machine whether it is ready, as an image's health check must, which has
//! no shell and no curl. Invariants: it needs neither the configuration nor a token, and ends within its deadline.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Exit;
use super::remote::{Admin, plain, say, wait};
use crate::outbound;

/// What a bridge that is ready says.
const READY: &str = "ok";
/// A line or two comes back; more is no bridge's answer.
const ANSWER: usize = 4096;

/// Arguments of `fleetbus health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,
    /// How long to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    within: u64,
}

/// Runs it.
///
/// # Errors
/// Where the address is none; where the bridge is not ready, or does not answer in time, with what it says.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let within = Duration::from_secs(args.within);
    wait(ask(&args.admin.address()?, within))
}

async fn ask(admin: &str, within: Duration) -> anyhow::Result<Exit> {
    // The operator's port is not behind a proxy, whatever the environment says about the world outside.
    let client = outbound::build_for(admin, || reqwest::Client::builder().timeout(within).no_proxy())?;
    let asked = client.get(format!("{admin}/readyz")).send().await;
    let mut answer = asked.with_context(|| format!("no bridge answers at {admin}"))?;
    let status = answer.status();
    let mut said = Vec::new();
    while let Some(chunk) = answer.chunk().await.with_context(|| format!("{admin} answers half"))? {
        said.extend_from_slice(&chunk);
        if said.len() > ANSWER {
            bail!("{admin} does not answer like a bridge");
        }
    }
    let said = plain(String::from_utf8_lossy(&said).trim());
    if !status.is_success() {
        bail!("{said} ({status})");
    }
    if said != READY {
        bail!("{admin} does not answer like a bridge");
    }
    say(&said)?;
    Ok(Exit::Done)
}
