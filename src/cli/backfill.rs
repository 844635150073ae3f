//! `fleetbus backfill`: fetches a stretch of the past from a provider's pull API, and shows how far it is. It says first what that
//! costs. An interrupt cancels it; where the connection breaks, it goes on in the bridge.

use serde::Serialize;
use serde_json::Value;

use super::job::{Progress, count, exit, follow};
use super::output::{Column, Output};
use super::remote::{At, Remote, say, segment, wait};
use super::{Exit, complain};

/// Arguments of `fleetbus backfill`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    begin: Begin,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the last backfills.
    List(ListArgs),
    /// Cancel one.
    Cancel(CancelArgs),
}

#[derive(Debug, clap::Args)]
struct Begin {
    /// The account's id.
    #[arg(required = true)]
    account: Option<String>,
    /// The feed, such as history, trips or positions.
    #[arg(required = true)]
    feed: Option<String>,
    /// From this time on, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", required = true)]
    from: Option<String>,
    /// Up to this time; up to now, where it is left out.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// v2 or v3, where the account has both.
    #[arg(long)]
    api: Option<String>,
    /// Publish again what was published before.
    #[arg(long)]
    republish: bool,
    /// Only say what it costs.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct CancelArgs {
    /// Its id.
    id: String,
    #[command(flatten)]
    at: At,
}

#[derive(Serialize)]
struct Asked<'a> {
    feed: &'a str,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<&'a str>,
    republish: bool,
    dry_run: bool,
}

/// The columns of a list.
const COLUMNS: [Column; 9] = [
    ("ID", "id"),
    ("STATE", "state"),
    ("ACCOUNT", "account"),
    ("FEED", "feed"),
    ("FROM", "from"),
    ("TO", "to"),
    ("DONE UNTIL", "done_until"),
    ("ROWS", "rows"),
    ("ERROR", "error|last_error"),
];

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        None => {
            let remote = Remote::new(&args.begin.at)?;
            wait(begin(&args.begin, &remote))
        }
        Some(Command::List(args)) => wait(async move {
            let listed: Value = Remote::new(&args.at)?.get("/v1/backfills", &[]).await?;
            let rows = listed["backfills"].as_array().cloned().unwrap_or_default();
            args.output.list(&rows, &COLUMNS, "there were no backfills")?;
            Ok(Exit::Done)
        }),
        Some(Command::Cancel(args)) => wait(async move {
            let path = format!("/v1/backfills/{}", segment(&args.id));
            let ended: Value = Remote::new(&args.at)?.delete(&path, &[]).await?;
            say(&format!("it is {}", ended["state"].as_str().unwrap_or_default())).map(|_| Exit::Done)
        }),
    }
}

async fn begin(args: &Begin, remote: &Remote) -> anyhow::Result<Exit> {
    // Both are required where there is no subcommand.
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (account, feed, from) = (text(&args.account), text(&args.feed), text(&args.from));
    let (to, api) = (args.to.as_deref(), args.api.as_deref());
    let path = format!("/v1/accounts/{}/backfills", segment(&account));
    let asked = |dry_run| Asked { feed: &feed, from: &from, to, api, republish: args.republish, dry_run };
    let cost: Value = remote.post(&path, &asked(true)).await?;
    let calls = count(&cost, "calls_at_least");
    let minutes = cost["minutes_at_least"].as_f64().unwrap_or(0.0).ceil();
    let words =
        if minutes > 1.0 { format!(", which takes {minutes} minutes or more") } else { String::new() };
    let words = format!("{calls} calls or more{words}");
    if args.dry_run {
        return say(&format!("would cost {words}")).map(|_| Exit::Done);
    }
    complain(&format!("this costs {words}; live polls go first"));
    let begun: Value = remote.post(&path, &asked(false)).await?;
    let path = format!("/v1/backfills/{}", begun["id"].as_str().unwrap_or_default());
    let progress = |job: &Value| Progress {
        done: (job["share"].as_f64().unwrap_or(0.0) * 1_000.0) as u64,
        all: 1_000,
        words: format!(
            "{} rows, {} calls, {} errors",
            count(job, "rows"),
            count(job, "calls"),
            count(job, "errors")
        ),
    };
    let ended = follow(remote, &path, begun, "{bar:40} {percent} %, {msg}, {eta} to go", progress).await?;
    let [rows, delivered, parked, known] =
        ["rows", "delivered", "parked", "duplicates"].map(|name| count(&ended, name));
    say(&format!(
        "fetched {rows} rows: {delivered} events delivered, {parked} parked, {known} published before"
    ))?;
    Ok(exit(&ended, "backfill"))
}
