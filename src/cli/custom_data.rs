//! `fleetbus custom-data`: what an operator says about trackers, vehicles, people and the rest, on a running bridge.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::input::whole_or_exit;
use super::remote::{At, Reader, Remote, say, say_json, segment, wait};
use super::{Exit, complain};

/// The most objects that the bridge gives at once.
const PAGE: usize = 1_000;

/// Arguments of `fleetbus custom-data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say something about an object, in place of what was said before.
    Set(ChangeArgs),
    /// Change some of what is said, by a merge patch (RFC 7386): null removes a key.
    Patch(ChangeArgs),
    /// Show what is said about an object.
    Get(TargetArgs),
    /// List an account's objects, one JSON document a line: `import` takes it again.
    List(ListArgs),
    /// Say something about many objects, from NDJSON or CSV: all of it, or nothing.
    Import(ImportArgs),
    /// Say nothing about an object any more.
    Remove(TargetArgs),
}

/// Which object.
#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// The account's id.
    account: String,
    /// tracker, vehicle, person, fleet, company, geofence or item.
    kind: String,
    /// The object's id: a tracker's is its IMEI, a vehicle's its VIN.
    id: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// A JSON object, such as '{"depot":"north"}'.
    data: String,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The account's id.
    account: String,
    /// Only of this kind.
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The account's id.
    account: String,
    /// The file; - is standard input.
    file: PathBuf,
    /// How it is written; by its name, where nobody says.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only check it.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// `{"kind": …, "id": …, "data": {…}}` a line.
    Ndjson,
    /// A heading with kind and id; other columns become keys.
    Csv,
}

#[derive(Deserialize)]
struct Said {
    data: Box<RawValue>,
}

#[derive(Deserialize)]
struct Page {
    custom_data: Vec<Box<RawValue>>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Imported {
    imported: u64,
}

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::Set(args) => change(args, Remote::put),
        Command::Patch(args) => change(args, Remote::patch),
        Command::Get(target) => wait(async move {
            let said: Said = Remote::new(&target.at)?.get(&target.path(), &[]).await?;
            say_json(said.data.get()).map(|_| Exit::Done)
        }),
        Command::List(args) => wait(list(args)),
        Command::Import(args) => import(args),
        Command::Remove(target) => wait(async move {
            let said: Said = Remote::new(&target.at)?.delete(&target.path(), &[]).await?;
            complain("removed; this is what was said");
            say_json(said.data.get()).map(|_| Exit::Done)
        }),
    }
}

impl TargetArgs {
    fn path(&self) -> String {
        let [account, kind, id] = [&self.account, &self.kind, &self.id].map(|part| segment(part));
        format!("/v1/accounts/{account}/custom-data/{kind}/{id}")
    }
}

fn change(
    args: ChangeArgs,
    send: impl AsyncFnOnce(&Remote, &str, &Value) -> anyhow::Result<Said>,
) -> anyhow::Result<Exit> {
    let data: Value = match serde_json::from_str(&args.data) {
        Ok(data) => data,
        Err(error) => {
            complain(&format!("the data is not JSON: {error}"));
            return Ok(Exit::Usage);
        }
    };
    let remote = Remote::new(&args.target.at)?;
    wait(async move {
        let said = send(&remote, &args.target.path(), &data).await?;
        say_json(said.data.get()).map(|_| Exit::Done)
    })
}

async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    let remote = Remote::new(&args.at)?;
    let path = format!("/v1/accounts/{}/custom-data", segment(&args.account));
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(args.kind.clone().map(|kind| ("kind", kind)));
        query.extend(after.map(|after| ("after", after)));
        let page: Page = remote.get(&path, &query).await?;
        for object in &page.custom_data {
            if say_json(object.get())? == Reader::Left {
                return Ok(Exit::Done);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(Exit::Done);
        }
    }
}

fn import(args: ImportArgs) -> anyhow::Result<Exit> {
    let is_csv = args.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let content_type = match args.format {
        Some(Format::Csv) => "text/csv",
        None if is_csv => "text/csv",
        Some(Format::Ndjson) | None => "application/x-ndjson",
    };
    let body = match whole_or_exit(&args.file) {
        Ok(body) => body,
        Err(exit) => return Ok(exit),
    };
    let remote = Remote::new(&args.at)?;
    let path = format!("/v1/accounts/{}/custom-data", segment(&args.account));
    let query = args.dry_run.then(|| ("dry_run", "true".to_owned()));
    wait(async move {
        let imported: Imported = remote.upload(&path, query.as_slice(), content_type, body).await?;
        let verb = if args.dry_run { "would import" } else { "imported" };
        say(&format!("{verb} {} objects", imported.imported)).map(|_| Exit::Done)
    })
}
