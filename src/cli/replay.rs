//! `fleetbus replay`: sends messages again that wait for the operator, or what the local bus has delivered, and shows how far it
//! is. An interrupt cancels it; where the connection breaks, it goes on in the bridge.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Exit;
use super::job::{Progress, count, exit, follow};
use super::remote::{At, Filter, Remote, say, wait};

/// Arguments of `fleetbus replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Publish again what the local bus has delivered; --from and --until are times of receipt then.
    #[arg(long)]
    history: bool,
    /// Only say how many.
    #[arg(long)]
    dry_run: bool,
    /// At most so many messages a second.
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    at: At,
}

#[derive(Serialize)]
struct Asked<'a> {
    source: &'static str,
    #[serde(flatten)]
    filter: &'a Filter,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
}

#[derive(Deserialize)]
struct WouldReplay {
    messages: u64,
    bytes: u64,
}

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    wait(replay(&args, &remote))
}

async fn replay(args: &Args, remote: &Remote) -> anyhow::Result<Exit> {
    let source = if args.history { "history" } else { "parked" };
    let asked = Asked { source, filter: &args.filter, dry_run: args.dry_run, rate: args.rate };
    if args.dry_run {
        let would: WouldReplay = remote.post("/v1/replays", &asked).await?;
        say(&format!("would replay {} messages ({} bytes)", would.messages, would.bytes))?;
        return Ok(Exit::Done);
    }
    let begun: Value = remote.post("/v1/replays", &asked).await?;
    let path = format!("/v1/replays/{}", begun["id"].as_str().unwrap_or_default());
    let progress = |job: &Value| Progress {
        done: count(job, "tried"),
        all: count(job, "found"),
        words: match count(job, "errors") {
            0 => String::new(),
            errors => format!(", {errors} errors"),
        },
    };
    let bar = "{bar:40} {pos}/{len} messages, {rate}, {eta} to go{msg}";
    let ended = follow(remote, &path, begun, bar, progress).await?;
    let (sent, events, left) = (count(&ended, "sent"), count(&ended, "events"), count(&ended, "left"));
    let gone = match count(&ended, "gone") {
        0 => String::new(),
        gone => format!("; {gone} were gone meanwhile"),
    };
    say(&if args.history {
        format!("published {events} events again")
    } else {
        format!("replayed {sent} messages; {events} events came of raw ones; {left} stay parked{gone}")
    })?;
    Ok(exit(&ended, "replay"))
}
