//! `fleetbus convert`: payloads in, one event a line out, without a server. Invariant: one directory and one set of states
//! live through the whole run, nothing is deduplicated, and one element that cannot be decoded costs no other.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::Timestamp;

use super::input::{self, MOST};
use super::remote::escaped;
use super::{Exit, complain};
use crate::event::ids::Ids;
use crate::event::{AccountId, Millis, json, pb};
use crate::provider::{
    self, AnswerError, Context, Decoded, Directory, Draft, Feed, LastState, Outcome, Provider, PullApi,
    Resolved, Source, StateKey,
};

/// Arguments of `fleetbus convert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The provider that the payloads are from: linxup.
    #[arg(long, value_parser = parse_provider)]
    provider: Provider,
    /// The account, a part of every event id.
    #[arg(long, value_name = "ID", default_value = "local", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    account: String,
    /// How the payloads came.
    #[arg(long, value_enum, default_value_t = Api::Push)]
    api: Api,
    /// The feed that a pulled answer is from, where the answer does not make it plain: locations, history, trips, stops, alerts,
    /// usage-hours, geofence-activity, trackers, geofences or media of v2; positions, stops or trackers of v3.
    #[arg(long, value_name = "NAME", value_parser = parse_feed)]
    feed: Option<Feed>,
    /// The message type that the webhook's URL named; it breaks ties.
    #[arg(long, value_name = "TYPE")]
    hint: Option<String>,
    /// When the payloads were received (RFC 3339); now by default.
    #[arg(long, value_name = "RFC3339")]
    received_at: Option<Timestamp>,
    /// Print with each event the ids by which it is known, and those that are remembered.
    #[arg(long)]
    explain: bool,
    /// Files with payloads; standard input where there are none, or for `-`.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Api {
    /// Webhook bodies, of either generation.
    Push,
    /// Answers of the V2 pull API.
    V2,
    /// Answers of the V3 pull API.
    V3,
}

fn parse_provider(text: &str) -> Result<Provider, String> {
    let linxup = Provider::Linxup;
    (text == linxup.as_str()).then_some(linxup).ok_or_else(|| format!("known: {}", linxup.as_str()))
}

fn parse_feed(text: &str) -> Result<Feed, String> {
    // The media of an alert are asked for one by one: their answer is read with the alerts.
    let feed = if text == "media" { Some(Feed::Alerts) } else { Feed::parse(text) };
    feed.ok_or_else(|| format!("known: {}, media", Feed::ALL.map(Feed::as_str).join(", ")))
}

/// Runs it.
///
/// # Errors
/// Where standard output cannot be written.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    if let Some(misuse) = misuse(&args) {
        complain(&misuse);
        return Ok(Exit::Usage);
    }
    let now = args.received_at.unwrap_or_else(Timestamp::now);
    let stdout = BufWriter::new(io::stdout().lock());
    let mut conversion = Conversion {
        provider: args.provider,
        account: AccountId::new(&args.account),
        api: args.api,
        feed: args.feed,
        hint: args.hint.map(|hint| hint.to_lowercase()),
        received_at: Millis(now.as_millisecond()),
        form: if args.explain { Form::Explained } else { Form::Event },
        directory: Directory::default(),
        states: HashMap::new(),
        worst: Worst::Nothing,
        out: stdout,
    };
    let standard_input = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &standard_input[..] } else { &args.files };
    match conversion.files(files) {
        Ok(()) => Ok(conversion.worst.exit()),
        // Who reads has enough.
        Err(problem) if problem.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(problem) => Err(problem).context("cannot write to standard output"),
    }
}

/// What contradicts itself, in words.
fn misuse(args: &Args) -> Option<String> {
    match (args.api, args.feed) {
        (Api::Push, Some(_)) => Some("--feed goes with --api v2 or v3".to_owned()),
        (Api::V2 | Api::V3, _) if args.hint.is_some() => Some("--hint goes with --api push".to_owned()),
        (Api::V2, Some(Feed::Positions)) => Some("v2 has no feed positions: locations or history".to_owned()),
        (
            Api::V3,
            Some(
                feed @ (Feed::Locations
                | Feed::History
                | Feed::UsageHours
                | Feed::GeofenceActivity
                | Feed::Geofences),
            ),
        ) => Some(format!("v3 has no feed {}", feed.as_str())),
        (Api::Push | Api::V2, _) => None,
        (
            Api::V3,
            Some(Feed::Positions | Feed::Stops | Feed::Trackers | Feed::Trips | Feed::Alerts) | None,
        ) => None,
    }
}

/// What a line of the output holds.
#[derive(Debug, Clone, Copy)]
enum Form {
    Event,
    /// With the ids that dedup would use.
    Explained,
}

/// What decides the exit code, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worst {
    Nothing,
    Undecodable,
    Unreadable,
    Misuse,
}

impl Worst {
    const fn exit(self) -> Exit {
        match self {
            Self::Nothing => Exit::Done,
            Self::Undecodable => Exit::Data,
            Self::Unreadable => Exit::NoInput,
            Self::Misuse => Exit::Usage,
        }
    }
}

struct Conversion<W> {
    provider: Provider,
    account: AccountId,
    api: Api,
    feed: Option<Feed>,
    hint: Option<String>,
    received_at: Millis,
    form: Form,
    directory: Directory,
    states: HashMap<StateKey, LastState>,
    worst: Worst,
    out: W,
}

impl<W: Write> Conversion<W> {
    fn files(&mut self, files: &[PathBuf]) -> io::Result<()> {
        for file in files {
            let name = input::name(file);
            match input::whole(file, MOST) {
                Ok(bytes) => self.input(&name, &bytes)?,
                Err(problem) if problem.kind() == io::ErrorKind::FileTooLarge => {
                    self.says(&format!("{name}: {problem}"), Worst::Undecodable);
                }
                Err(problem) => self.says(&format!("{name}: cannot be read: {problem}"), Worst::Unreadable),
            }
        }
        self.out.flush()
    }

    fn input(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (mut documents, mut problems) = provider::documents(bytes);
        // As polls read what is not quite JSON.
        let repaired = match self.api {
            Api::V2 | Api::V3 if !problems.is_empty() => provider::repaired(bytes),
            Api::Push | Api::V2 | Api::V3 => None,
        };
        if let Some(repaired) = &repaired {
            (documents, problems) = provider::documents(repaired);
        }
        let is_one = documents.len() == 1;
        for (number, document) in (1..).zip(documents) {
            let place = if is_one { name.to_owned() } else { format!("{name}: document {number}") };
            match self.api {
                Api::Push => self.body(&place, document)?,
                Api::V2 => self.answer(&place, PullApi::V2, document)?,
                Api::V3 => self.answer(&place, PullApi::V3, document)?,
            }
        }
        for problem in problems {
            self.says(&format!("{name}: {problem}"), Worst::Undecodable);
        }
        Ok(())
    }

    /// The body of a webhook.
    fn body(&mut self, name: &str, document: &str) -> io::Result<()> {
        let source = Source::Push { hint: self.hint.clone() };
        match provider::elements(document) {
            Ok(elements) => self.rows(name, "element", &source, &elements),
            Err(problem) => {
                self.says(&format!("{name}: {problem}"), Worst::Undecodable);
                Ok(())
            }
        }
    }

    /// The answer of a pull API, or one of its rows.
    fn answer(&mut self, name: &str, api: PullApi, document: &str) -> io::Result<()> {
        let feed = self.feed.or_else(|| provider::feed_of(api, document.as_bytes()));
        let rows = match provider::pulled_rows(api, feed.unwrap_or(Feed::Locations), document.as_bytes()) {
            Ok(rows) => rows,
            Err(problem) => match provider::single_row(document) {
                Some(row) if problem == AnswerError::NoList => vec![row],
                Some(_) | None => {
                    self.says(&format!("{name}: {problem}"), Worst::Undecodable);
                    return Ok(());
                }
            },
        };
        match feed {
            Some(feed) => self.rows(name, "row", &Source::Pull { api, feed }, &rows),
            None if rows.is_empty() => Ok(()),
            None => {
                self.says(&format!("{name}: say with --feed which feed this is"), Worst::Misuse);
                Ok(())
            }
        }
    }

    fn rows(&mut self, name: &str, noun: &str, source: &Source, rows: &[&str]) -> io::Result<()> {
        for (index, row) in rows.iter().enumerate() {
            let context = Context {
                account: &self.account,
                channel: match source {
                    Source::Push { .. } => pb::origin::Channel::Webhook,
                    Source::Pull { .. } => pb::origin::Channel::Poll,
                },
                received_at: self.received_at,
                directory: &self.directory,
            };
            let Decoded { outcome, learnt, hint: _ } =
                provider::decode(self.provider, source, row.as_bytes(), &context);
            self.directory.learn(&learnt);
            let place = format!("{name}: {noun} {}", index + 1);
            match outcome {
                Outcome::Events(drafts) => self.drafts(&place, drafts)?,
                Outcome::Skipped { reason, drafts } => {
                    self.says(&format!("{place}: skipped: {reason}"), Worst::Nothing);
                    self.drafts(&place, drafts)?;
                }
                Outcome::Unrecognized(reason) => {
                    self.says(&format!("{place}: unrecognized: {reason}"), Worst::Undecodable);
                }
                Outcome::Undecodable(reason) => {
                    self.says(&format!("{place}: undecodable: {reason}"), Worst::Undecodable);
                }
            }
        }
        Ok(())
    }

    fn drafts(&mut self, place: &str, drafts: Vec<Draft>) -> io::Result<()> {
        for draft in drafts {
            let key = draft.state_key().cloned();
            let last = key.as_ref().and_then(|key| self.states.get(key));
            let (event, checks, enters) = match provider::resolve_state(draft, last) {
                Resolved::Event { event, checks, enters, new_last } => {
                    if let Some((key, last)) = key.zip(new_last) {
                        self.states.insert(key, last);
                    }
                    let text = |ids: Ids| ids.iter().map(ToString::to_string).collect();
                    (event, text(checks), text(enters))
                }
                // Nothing is deduplicated here: the state is printed again, under the id that it has. All is received at one time,
                // so that none is seen later than the last.
                Resolved::Duplicate { event, new_last: _ } => {
                    let id = vec![event.id.clone()];
                    (event, id.clone(), id)
                }
                Resolved::Silent { new_last: _ } => continue,
            };
            self.print(place, &event, &checks, &enters)?;
        }
        Ok(())
    }

    fn print(
        &mut self,
        place: &str,
        event: &pb::FleetEvent,
        checks: &[String],
        enters: &[String],
    ) -> io::Result<()> {
        let text = match json::to_json(event) {
            Ok(text) => text,
            Err(problem) => {
                self.says(&format!("{place}: {problem}"), Worst::Undecodable);
                return Ok(());
            }
        };
        let text = escaped(&text);
        match self.form {
            Form::Event => writeln!(self.out, "{text}"),
            Form::Explained => {
                let quoted = |ids: &[String]| serde_json::Value::from(ids.to_vec()).to_string();
                let (checks, enters) = (quoted(checks), quoted(enters));
                writeln!(self.out, r#"{{"event":{text},"checks":{checks},"enters":{enters}}}"#)
            }
        }
    }

    fn says(&mut self, sentence: &str, severity: Worst) {
        complain(sentence);
        self.worst = self.worst.max(severity);
    }
}
