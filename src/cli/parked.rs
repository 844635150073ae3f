//! `fleetbus parked`: what waits in a running bridge's replay store, listed, shown, counted, thrown away, edited, and carried from
//! one store into another.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::input::{self, whole_or_exit};
use super::job::{bar, count};
use super::new_file::NewFile;
use super::output::{Column, Output};
use super::remote::{At, Filter, Reader, Remote, say, say_json, wait};
use super::{Exit, complain};

/// How much of a file is sent at once.
const PART: u64 = 8 << 20;

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
    /// Count them by account and reason.
    Summary(SummaryArgs),
    /// Show one message.
    Show(ShowArgs),
    /// Throw messages away: they are gone, and a poller may fetch them anew.
    Discard(DiscardArgs),
    /// Write messages to a file, one JSON document a line, with their payloads.
    Export(ExportArgs),
    /// Park messages that were exported; what is known already is passed over.
    Import(ImportArgs),
    /// Change one message and send it again; the original is kept.
    Edit(EditArgs),
    /// Show what a message was before it was edited.
    Originals(OriginalsArgs),
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
struct SummaryArgs {
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
    #[arg(long, conflicts_with = "hex")]
    payload: bool,
    /// Show the payload too, as hexadecimal digits.
    #[arg(long)]
    hex: bool,
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

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// A new file; standard output where it is left out.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The file; - is standard input.
    file: PathBuf,
    /// Only check it.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct EditArgs {
    /// The message's number.
    seq: u64,
    /// Of an event: where it goes instead.
    #[arg(long, conflicts_with = "body_file", required_unless_present = "body_file")]
    topic: Option<String>,
    /// Of raw bytes: a file with what is decoded instead; - is standard input.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct OriginalsArgs {
    /// The number that the message had.
    seq: u64,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Deserialize)]
struct Page {
    parked: Vec<Value>,
    next: Option<u64>,
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

const COUNTED: [Column; 5] = [
    ("ACCOUNT", "account"),
    ("REASON", "reason"),
    ("WAITS FOR", "waits_for"),
    ("MESSAGES", "messages"),
    ("BYTES", "bytes"),
];

const KEPT: [Column; 4] =
    [("SAVED AT", "saved_at"), ("BY", "who"), ("TOPIC", "topic"), ("BYTES (BASE 64)", "bytes_base64")];

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::List(args) => wait(list(args)),
        Command::Summary(args) => wait(summary(args)),
        Command::Show(args) => wait(show(args)),
        Command::Discard(args) => wait(discard(args)),
        Command::Export(args) => wait(export(args)),
        Command::Import(args) => import(args),
        Command::Edit(args) => edit(args),
        Command::Originals(args) => wait(originals(args)),
    }
}

async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    let split = |Page { parked, next }| (parked, next);
    let (rows, after) =
        remote.pages("/v1/parked", &args.filter.pairs(), ("after", args.after), args.limit, split).await?;
    args.output.list(&rows, &COLUMNS, "nothing is parked that the filter asks for")?;
    if let Some(after) = after {
        complain(&format!("there are more: --after {after}"));
    }
    Ok(Exit::Done)
}

async fn summary(args: SummaryArgs) -> anyhow::Result<Exit> {
    let said: Value = Remote::new(&args.at)?.get("/v1/parked/summary", &[]).await?;
    let rows = said["reasons"].as_array().cloned().unwrap_or_default();
    args.output.list(&rows, &COUNTED, "nothing is parked")?;
    for (whom, oldest) in [("the bus", "oldest_for_bus"), ("you", "oldest_for_operator")] {
        if let Some(age) = said[oldest]["age_seconds"].as_u64() {
            complain(&format!("the oldest that waits for {whom} has waited for {} minutes", age / 60));
        }
    }
    Ok(Exit::Done)
}

async fn show(args: ShowArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    let form = if args.hex { Some("hex") } else { args.payload.then_some("json") };
    let query = form.map(|form| ("payload", form.to_owned()));
    let row: Value = remote.get(&format!("/v1/parked/{}", args.seq), query.as_slice()).await?;
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
        let would: Value = remote.delete("/v1/parked", &query).await?;
        let (messages, bytes) = (count(&would, "messages"), count(&would, "bytes"));
        say(&format!("would discard {messages} messages ({bytes} bytes)"))?;
        return Ok(Exit::Done);
    }
    let gone: Value = remote.delete("/v1/parked", &query).await?;
    let [all, events, raw] = ["discarded", "events", "raw"].map(|name| count(&gone, name));
    say(&format!("discarded {all} messages: {events} events, {raw} raw"))?;
    Ok(Exit::Done)
}

async fn export(args: ExportArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    // A name that is taken is told before anything is asked for.
    let new = args.to.map(NewFile::create).transpose()?;
    let mut lines = remote.lines("/v1/parked/export", &args.filter.pairs()).await?;
    let Some(new) = new else {
        while let Some(line) = lines.whole().await? {
            if say_json(&line)? == Reader::Left {
                break;
            }
        }
        return Ok(Exit::Done);
    };
    let unwritable = || format!("{} cannot be written", new.part.display());
    let mut file = BufWriter::new(&new.file);
    let bar = bar(0, "{spinner} {pos} messages, {rate}");
    while let Some(line) = lines.whole().await? {
        writeln!(file, "{line}").with_context(unwritable)?;
        bar.inc(1);
    }
    file.flush().with_context(unwritable)?;
    drop(file);
    let name = new.finish()?;
    let written = bar.position();
    bar.finish_and_clear();
    complain(&format!("exported {written} messages to {}", name.display()));
    Ok(Exit::Done)
}

fn import(args: ImportArgs) -> anyhow::Result<Exit> {
    let (mut file, length) = match input::open(&args.file) {
        Ok(opened) => opened,
        Err(error) => return Ok(input::unreadable(&args.file, &error)),
    };
    let remote = Remote::new(&args.at)?;
    let query = args.dry_run.then(|| ("dry_run", "true".to_owned()));
    wait(async move {
        let bar = match length {
            Some(length) => bar(length, "{bar:40} {bytes}/{total_bytes}, {eta} to go"),
            None => bar(0, "{spinner} {bytes}"),
        };
        let (mut sums, mut before) = ([0; 4], 0);
        let dry_run = args.dry_run;
        let where_to_go_on = |before: usize| match (before, dry_run) {
            (0, _) => "nothing was imported".to_owned(),
            (_, true) => format!("lines are counted from line {}", before + 1),
            (_, false) => format!(
                "the lines before {} are imported, and are known when they are sent again; lines are counted from there",
                before + 1
            ),
        };
        while let Some(part) = input::part(&mut file, PART).with_context(|| where_to_go_on(before))? {
            let (part_lines, part_bytes) = (part.iter().filter(|byte| **byte == b'\n').count(), part.len());
            let uploaded =
                remote.upload("/v1/parked/import", query.as_slice(), "application/x-ndjson", part).await;
            let imported: Value = uploaded.with_context(|| where_to_go_on(before))?;
            before += part_lines;
            bar.inc(part_bytes as u64);
            for (sum, name) in sums.iter_mut().zip(["messages", "parked", "duplicates", "raw"]) {
                *sum += count(&imported, name);
            }
        }
        bar.finish_and_clear();
        let [messages, parked, known, raw] = sums;
        say(&if args.dry_run {
            format!("would import {messages} messages")
        } else {
            format!("imported {messages} messages: {parked} events parked, {known} known already, {raw} raw")
        })?;
        Ok(Exit::Done)
    })
}

fn edit(args: EditArgs) -> anyhow::Result<Exit> {
    let asked = match (&args.topic, &args.body_file) {
        (Some(topic), _) => json!({"topic": topic}),
        (None, Some(file)) => match whole_or_exit(file) {
            Ok(body) => json!({"body_base64": data_encoding::BASE64.encode(&body)}),
            Err(exit) => return Ok(exit),
        },
        (None, None) => return Ok(Exit::Usage),
    };
    let remote = Remote::new(&args.at)?;
    wait(async move {
        let edited: Value = remote.post(&format!("/v1/parked/{}/edit", args.seq), &asked).await?;
        let (events, left) = (count(&edited, "events"), count(&edited, "left"));
        say(&match &args.topic {
            // It is not awaited: where the topic takes nothing, it waits there.
            Some(topic) => {
                format!("it goes to {topic} now, and waits for that where it has to: fleetbus parked list")
            }
            None => {
                format!("sent again: {events} events came of it, {left} elements are still not understood")
            }
        })?;
        complain(&format!("the original is kept: fleetbus parked originals {}", args.seq));
        Ok(Exit::Done)
    })
}

async fn originals(args: OriginalsArgs) -> anyhow::Result<Exit> {
    let path = format!("/v1/parked/{}/originals", args.seq);
    let said: Value = Remote::new(&args.at)?.get(&path, &[]).await?;
    let rows = said["originals"].as_array().cloned().unwrap_or_default();
    args.output.list(&rows, &KEPT, "nothing under that number was edited")?;
    Ok(Exit::Done)
}
