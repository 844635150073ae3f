//! `fleetbus parked`: lists, shows and discards what waits in a running bridge's replay store.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::remote::{At, Filter, Reader, Remote, plain, say, wait};
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
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Output::Table)]
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
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
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

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
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
    match args.output {
        Output::Table if rows.is_empty() => complain("nothing is parked that the filter asks for"),
        Output::Table => {
            say(&table(&rows))?;
        }
        Output::Json => {
            say(&serde_json::to_string_pretty(&rows)?)?;
        }
        Output::Ndjson => {
            for row in &rows {
                if say(&row.to_string())? == Reader::Left {
                    return Ok(Exit::Done);
                }
            }
        }
    }
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
    match args.output {
        Output::Table => say(&lines(&row))?,
        Output::Json => say(&serde_json::to_string_pretty(&row)?)?,
        Output::Ndjson => say(&row.to_string())?,
    };
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

/// The columns of a list, and what they are called in it.
const COLUMNS: [(&str, &str); 8] = [
    ("SEQ", "seq"),
    ("REASON", "reason"),
    ("ACCOUNT", "account"),
    ("TYPE", "type"),
    ("SUBJECT", "subject"),
    ("PARKED AT", "parked_at"),
    ("BYTES", "bytes"),
    ("ERROR", "error"),
];

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => plain(text),
        Some(other) => other.to_string(),
    }
}

fn table(rows: &[Value]) -> String {
    // Raw messages have a source where events have a type.
    let cell = |row: &Value, key: &str| {
        let fallback = if key == "type" { row.get("source") } else { None };
        text(row.get(key).or(fallback))
    };
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| COLUMNS.iter().map(|(_, key)| cell(row, key)).collect()).collect();
    let mut all = vec![COLUMNS.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    all.extend(cells);
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            write!(line, "{cell:<width$}  ").unwrap_or_default();
        }
        line.trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn lines(row: &Value) -> String {
    let fields = row.as_object().into_iter().flatten();
    let lines = fields.map(|(name, value)| match value {
        Value::Object(_) => format!("{name}:\n{value:#}"),
        other => format!("{:<12}{}", format!("{name}:"), text(Some(other))),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_a_raw_messages_source_for_its_type() {
        let rows = [
            serde_json::json!({"seq": 7, "reason": "unfit", "account": "acme", "type": "position",
                "subject": "350", "parked_at": "2026-01-01T00:00:00Z", "bytes": 10, "error": "too\u{1b} large"}),
            serde_json::json!({"seq": 12, "reason": "not-json", "account": "acme", "source": "push/stop",
                "parked_at": "2026-01-01T00:00:00Z", "bytes": 3, "error": ""}),
        ];
        let expected = "\
SEQ  REASON    ACCOUNT  TYPE       SUBJECT  PARKED AT             BYTES  ERROR
7    unfit     acme     position   350      2026-01-01T00:00:00Z  10     too\u{fffd} large
12   not-json  acme     push/stop           2026-01-01T00:00:00Z  3";
        assert_eq!(table(&rows), expected);
    }
}
