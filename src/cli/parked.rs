//! `fleetbus parked`: lists, shows and discards what waits in a running bridge's replay store.

use serde::Deserialize;
use serde_json::Value;

use super::output::{Column, Output};
use super::remote::{At, Filter, Remote, say, wait};
use super::{Exit, complain};

/// The most rows that the bridge gives at once.
const PAGE: usize = 1_000;

/// Arguments of `fleetbus parked`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List messages, oldest first, without their payloads.
    List(ListArgs),
    /// Show one message.
    Show(ShowArgs),
    /// Throw messages away: they are gone, and a poller may fetch them anew.
    Discard(DiscardArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Begin after this number.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The message's number.
    seq: u64,
    /// Show the payload too: an event as ProtoJSON, raw bytes as text.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct DiscardArgs {
    #[command(flatten)]
    filter: Filter,
    /// Everything; instead of a filter.
    #[arg(long)]
    all: bool,
    /// Only say how many.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Deserialize)]
struct Page {
    parked: Vec<Value>,
    next: Option<u64>,
}

#[derive(Deserialize)]
struct WouldDiscard {
    messages: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Discarded {
    discarded: u64,
    events: u64,
    raw: u64,
}

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::List(args) => wait(list(args)),
        Command::Show(args) => wait(show(args)),
        Command::Discard(args) => wait(discard(args)),
    }
}

async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    let (mut rows, mut after) = (Vec::new(), args.after);
    loop {
        let mut query = args.filter.pairs();
        query.extend(after.map(|after| ("after", after.to_string())));
        query.push(("limit", (args.limit - rows.len()).clamp(1, PAGE).to_string()));
        let page: Page = remote.get("/v1/parked", &query).await?;
        rows.extend(page.parked);
        after = page.next;
        if after.is_none() || rows.len() >= args.limit {
            break;
        }
    }
    args.output.list(&rows, &COLUMNS, "nothing is parked that the filter asks for")?;
    if let Some(after) = after {
        complain(&format!("there are more: --after {after}"));
    }
    Ok(Exit::Done)
}

async fn show(args: ShowArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    let mut query = Vec::new();
    query.extend(args.payload.then(|| ("payload", "json".to_owned())));
    let row: Value = remote.get(&format!("/v1/parked/{}", args.seq), &query).await?;
    args.output.one(&row)?;
    Ok(Exit::Done)
}

async fn discard(args: DiscardArgs) -> anyhow::Result<Exit> {
    let mut query = args.filter.pairs();
    if query.is_empty() != args.all {
        complain(
            "say what to discard: either by a filter such as --reason not-json, or --all for everything",
        );
        return Ok(Exit::Usage);
    }
    let remote = Remote::new(&args.at)?;
    query.extend(args.all.then(|| ("all", "true".to_owned())));
    if args.dry_run {
        query.push(("dry_run", "true".to_owned()));
        let would: WouldDiscard = remote.delete("/v1/parked", &query).await?;
        say(&format!("would discard {} messages ({} bytes)", would.messages, would.bytes))?;
        return Ok(Exit::Done);
    }
    let gone: Discarded = remote.delete("/v1/parked", &query).await?;
    say(&format!("discarded {} messages: {} events, {} raw", gone.discarded, gone.events, gone.raw))?;
    Ok(Exit::Done)
}

/// The columns of a list. Raw messages have a source where events have a type.
const COLUMNS: [Column; 8] = [
    ("SEQ", "seq"),
    ("REASON", "reason"),
    ("ACCOUNT", "account"),
    ("TYPE", "type|source"),
    ("SUBJECT", "subject"),
    ("PARKED AT", "parked_at"),
    ("BYTES", "bytes"),
    ("ERROR", "error"),
];
