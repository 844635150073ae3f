//! `fleetbus tail`: the events of a running bridge's local bus, as they come. Goes on where it was when the bridge has been
//! away.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::remote::{At, NoAnswer, Reader, Remote, escaped, plain, say, wait};
use super::{Exit, complain};

/// The pause before a bridge that went away is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Arguments of `fleetbus tail`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the events of this topic, such as fleet.position.
    #[arg(long)]
    topic: Option<String>,
    /// Begin after this place in the log; 0 is its beginning. Without it: only what comes from now on.
    #[arg(long, value_name = "OFFSET")]
    after: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,
    /// End where the log ends now, instead of waiting for more.
    #[arg(long)]
    no_follow: bool,
    /// Print each event as a line of canonical ProtoJSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Deserialize)]
struct Line<'a> {
    offset: u64,
    topic: &'a str,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    wait(follow(&args, &remote))
}

async fn follow(args: &Args, remote: &Remote) -> anyhow::Result<Exit> {
    let mut place = Place { after: args.after, left: args.limit };
    let mut connected = false;
    loop {
        match stream(args, remote, &mut place, &mut connected).await {
            Ok(Ended::Enough) => return Ok(Exit::Done),
            Ok(Ended::AtEnd) if args.no_follow => return Ok(Exit::Done),
            Ok(Ended::BrokeOff(why)) if args.no_follow => return Err(why),
            Ok(Ended::AtEnd | Ended::BrokeOff(_)) => complain("the bridge has gone away: waiting for it"),
            Err(error) if connected && error.is::<NoAnswer>() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Where the next stream begins, and how many events are still wanted.
struct Place {
    after: Option<u64>,
    left: Option<u64>,
}

enum Ended {
    Enough,
    AtEnd,
    BrokeOff(anyhow::Error),
}

async fn stream(
    args: &Args,
    remote: &Remote,
    place: &mut Place,
    connected: &mut bool,
) -> anyhow::Result<Ended> {
    let mut query = Vec::new();
    query.extend(args.topic.clone().map(|topic| ("topic", topic)));
    query.extend(place.after.map(|after| ("after", after.to_string())));
    query.extend(place.left.map(|left| ("limit", left.to_string())));
    query.extend(args.no_follow.then(|| ("follow", "false".to_owned())));
    let mut lines = remote.lines("/v1/events", &query).await?;
    *connected = true;
    while place.left != Some(0) {
        let text = match lines.whole().await {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Ended::AtEnd),
            Err(why) => return Ok(Ended::BrokeOff(why)),
        };
        let line: Line<'_> = serde_json::from_str(&text)?;
        place.after = Some(line.offset);
        place.left = place.left.map(|left| left - 1);
        let shown = if args.json { escaped(line.event.get()) } else { readable(&line).into() };
        if say(&shown)? == Reader::Left {
            return Ok(Ended::Enough);
        }
    }
    Ok(Ended::Enough)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    subject: String,
    occur_time: Option<String>,
    ingest_time: Option<String>,
    origin: Origin,
    vehicle: Named,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Origin {
    account: String,
    channel: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

/// When, on which topic, whose, about what, and how it came.
fn readable(line: &Line<'_>) -> String {
    let head: Head = serde_json::from_str(line.event.get()).unwrap_or_default();
    let time = head.occur_time.or(head.ingest_time).unwrap_or_default();
    let channel = head.origin.channel.trim_start_matches("CHANNEL_").to_ascii_lowercase();
    let text = format!(
        "{:>8}  {time:<24}  {:<26}  {:<12}  {:<20}  {channel:<8}  {}",
        line.offset, line.topic, head.origin.account, head.subject, head.vehicle.name
    );
    plain(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_becomes_one_readable_line() {
        let text = r#"{"offset":7,"topic":"fleet.position","event":{"subject":"350000000000017","occurTime":"2025-12-29T12:00:00Z","origin":{"account":"acme","channel":"CHANNEL_POLL"},"vehicle":{"name":"Van\n1"}}}"#;
        let line: Line<'_> = serde_json::from_str(text).unwrap();
        let words: Vec<String> = readable(&line).split_whitespace().map(str::to_owned).collect();
        let expected = [
            "7",
            "2025-12-29T12:00:00Z",
            "fleet.position",
            "acme",
            "350000000000017",
            "poll",
            "Van\u{fffd}1",
        ];
        assert_eq!(words, expected);
    }
}
