//! `fleetbus accounts`: how the accounts of a running bridge do; pausing and resuming of their polls; moving a cursor.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::{Column, Output};
use super::remote::{At, Remote, plain, segment, wait};
use super::{Exit, complain};

/// Arguments of `fleetbus accounts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List an account's polled feeds.
    Feeds(FeedsArgs),
    /// Ask the provider for nothing, until it is resumed; outlives a restart.
    Pause(SteerArgs),
    /// Go on where the polls stopped.
    Resume(SteerArgs),
    /// Move a feed's cursor: from there on it is asked for again.
    MoveCursor(MoveArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Only this account, with everything about it.
    id: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct FeedsArgs {
    /// The account's id.
    account: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct SteerArgs {
    /// The account's id.
    account: String,
    /// Only this feed, such as v2/trips.
    #[arg(long, value_name = "API/FEED")]
    feed: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct MoveArgs {
    /// The account's id.
    account: String,
    /// The feed, such as v2/trips.
    #[arg(value_name = "API/FEED")]
    feed: String,
    /// Where to, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    to: String,
    /// Leave out what a move forward passes.
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Deserialize)]
struct List {
    accounts: Vec<Value>,
}

#[derive(Deserialize)]
struct Feeds {
    feeds: Vec<Value>,
}

#[derive(Deserialize)]
struct Steered {
    changed: bool,
}

#[derive(Serialize)]
struct Move {
    position: String,
    confirm: bool,
}

#[derive(Deserialize)]
struct Moved {
    from: Option<String>,
    to: String,
}

const COLUMNS: [Column; 9] = [
    ("ID", "id"),
    ("PROVIDER", "provider"),
    ("PAUSED", "paused"),
    ("RECEIVED", "events/received"),
    ("DELIVERED", "events/delivered"),
    ("DUPLICATES", "events/duplicates"),
    ("PARKED NOW", "parked/messages"),
    ("WEBHOOKS", "webhook/taken"),
    ("LAST WEBHOOK", "webhook/last_taken"),
];

const FEEDS: [Column; 8] = [
    ("API", "api"),
    ("FEED", "feed"),
    ("DOING", "doing"),
    ("PAUSED", "paused"),
    ("LAST SUCCESS", "last_success"),
    ("FETCHED UNTIL", "fetched_until"),
    ("LAG (S)", "lag_seconds"),
    ("LAST ERROR", "last_error/error"),
];

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        None => wait(show(args.show)),
        Some(Command::Feeds(args)) => wait(feeds(args)),
        Some(Command::Pause(args)) => wait(steer(args, Way::Pause)),
        Some(Command::Resume(args)) => wait(steer(args, Way::Resume)),
        Some(Command::MoveCursor(args)) => wait(move_cursor(args)),
    }
}

async fn show(args: ShowArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    match args.id {
        Some(id) => {
            let account: Value = remote.get(&of(&id), &[]).await?;
            args.output.one(&account)?;
        }
        None => {
            let list: List = remote.get("/v1/accounts", &[]).await?;
            args.output.list(&list.accounts, &COLUMNS, "no account is configured")?;
        }
    }
    Ok(Exit::Done)
}

async fn feeds(args: FeedsArgs) -> anyhow::Result<Exit> {
    let account: Feeds = Remote::new(&args.at)?.get(&of(&args.account), &[]).await?;
    args.output.list(&account.feeds, &FEEDS, "nothing is polled for the account")?;
    Ok(Exit::Done)
}

/// How polls are steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pause,
    Resume,
}

async fn steer(args: SteerArgs, way: Way) -> anyhow::Result<Exit> {
    let go = match way {
        Way::Pause => "pause",
        Way::Resume => "resume",
    };
    let path = match &args.feed {
        Some(feed) => format!("{}/{go}", of_feed(&args.account, feed)),
        None => format!("{}/{go}", of(&args.account)),
    };
    let remote = Remote::new(&args.at)?;
    let steered: Steered = remote.post(&path, &serde_json::json!({})).await?;
    let all = args.feed.is_none();
    let what = args.feed.map_or_else(|| "polls".to_owned(), |feed| format!("feed {feed}"));
    let done = if steered.changed { "now" } else { "already" };
    complain(&format!("{what} of {}: {go}d {done}", args.account));
    if all && way == Way::Resume {
        let account: Feeds = remote.get(&of(&args.account), &[]).await?;
        for feed in paused(&account.feeds) {
            let account = &args.account;
            complain(&format!(
                "{feed} was paused by itself, and still is: fleetbus accounts resume {account} --feed {feed}"
            ));
        }
    }
    Ok(Exit::Done)
}

/// The feeds that are paused, as `--feed` names them.
fn paused(feeds: &[Value]) -> Vec<String> {
    let text = |feed: &Value, key: &str| plain(feed[key].as_str().unwrap_or_default());
    let paused = feeds.iter().filter(|feed| feed["paused"] == true);
    paused.map(|feed| format!("{}/{}", text(feed, "api"), text(feed, "feed"))).collect()
}

async fn move_cursor(args: MoveArgs) -> anyhow::Result<Exit> {
    let path = format!("{}/cursor", of_feed(&args.account, &args.feed));
    let asked = Move { position: args.to, confirm: args.confirm };
    let moved: Moved = Remote::new(&args.at)?.put(&path, &asked).await?;
    let from = moved.from.unwrap_or_else(|| "the beginning".to_owned());
    complain(&format!("the cursor of {} moved from {from} to {}", args.feed, moved.to));
    Ok(Exit::Done)
}

fn of(account: &str) -> String {
    format!("/v1/accounts/{}", segment(account))
}

fn of_feed(account: &str, feed: &str) -> String {
    let (api, feed) = feed.split_once('/').unwrap_or(("v2", feed));
    format!("{}/feeds/{}/{}", of(account), segment(api), segment(feed))
}
