//! `fleetbus replay`: sends messages again that wait for the operator, and shows how far it is. An interrupt cancels it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::remote::{At, Filter, Remote, say, wait};
use super::{Exit, complain};

/// How often the bridge is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `fleetbus replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
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

#[derive(Deserialize)]
struct Replay {
    id: String,
    state: State,
    found: u64,
    tried: u64,
    sent: u64,
    events: u64,
    left: u64,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    Done,
    Cancelled,
    Failed,
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
    let asked = Asked { filter: &args.filter, dry_run: args.dry_run, rate: args.rate };
    if args.dry_run {
        let would: WouldReplay = remote.post("/v1/replays", &asked).await?;
        say(&format!("would replay {} messages ({} bytes)", would.messages, would.bytes))?;
        return Ok(Exit::Done);
    }
    let mut replay: Replay = remote.post("/v1/replays", &asked).await?;
    let path = format!("/v1/replays/{}", replay.id);
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new(replay.found).with_style(style());
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut asked_to_end = false;
    while replay.state == State::Running {
        tokio::select! {
            _ = &mut interrupted, if !asked_to_end => {
                asked_to_end = true;
                replay = remote.delete(&path, &[]).await?;
            }
            () = tokio::time::sleep(LOOK) => replay = remote.get(&path, &[]).await?,
        }
        bar.set_length(replay.found.max(replay.tried));
        bar.set_position(replay.tried);
    }
    bar.finish_and_clear();
    let Replay { sent, events, left, .. } = replay;
    say(&format!("replayed {sent} messages; {events} events came of raw ones; {left} stay parked"))?;
    Ok(match replay.state {
        State::Done | State::Running => Exit::Done,
        State::Cancelled => {
            complain("the replay was cancelled: what is left stays parked");
            Exit::Failed
        }
        State::Failed => {
            complain(&format!("the replay ended early: {}", replay.error.unwrap_or_default()));
            Exit::Failed
        }
    })
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} messages, {per_sec}, {eta} to go");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}
