//! `fleetbus audit`: what operators did to a running bridge, newest first.

use serde::Deserialize;
use serde_json::Value;

use super::output::{Column, Output};
use super::remote::{At, Remote, wait};
use super::{Exit, complain};

/// Arguments of `fleetbus audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only acts on this account.
    #[arg(long)]
    account: Option<String>,
    /// Only acts of this kind, such as token.create; `token.` is every act on tokens.
    #[arg(long)]
    act: Option<String>,
    /// Begin before this number.
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Deserialize)]
struct Page {
    acts: Vec<Value>,
    next: Option<u64>,
}

const COLUMNS: [Column; 8] = [
    ("SEQ", "seq"),
    ("AT", "at"),
    ("WHO", "who"),
    ("ACT", "act"),
    ("ACCOUNT", "account"),
    ("OBJECT", "object"),
    ("BEFORE", "before"),
    ("AFTER", "after"),
];

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    wait(list(args))
}

async fn list(args: Args) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    let mut query = Vec::new();
    query.extend(args.account.map(|account| ("account", account)));
    query.extend(args.act.map(|act| ("act", act)));
    let split = |Page { acts, next }| (acts, next);
    let (acts, before) =
        remote.pages("/v1/audit", &query, ("before", args.before), args.limit, split).await?;
    args.output.list(&acts, &COLUMNS, "nothing was done that the filter asks for")?;
    if let Some(before) = before {
        complain(&format!("there are more: --before {before}"));
    }
    Ok(Exit::Done)
}
