//! `fleetbus tokens`: what senders of webhooks authenticate with, at a running bridge. A new token is printed once, on standard
//! output alone, so that it can be piped to where it belongs. Invariant: where it did not get there, the exit code tells.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::input;
use super::output::{Column, Output};
use super::remote::{At, Mistake, Reader, Remote, say, segment, wait};
use super::{Exit, complain};

/// The longest file of a token: longer than any token.
const TOKEN_BYTES: u64 = 4_096;

/// Arguments of `fleetbus tokens`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token, or import one that exists; it is shown once.
    Create(CreateArgs),
    /// List an account's tokens.
    List(ListArgs),
    /// End a token: it opens nothing from the next request on.
    Revoke(OneArgs),
    /// Make a token in the place of another; both open until the overlap ends.
    Rotate(RotateArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The account's id.
    account: String,
    /// What to call it, such as the partner's name.
    #[arg(long)]
    name: Option<String>,
    /// From when on it opens nothing, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Take the token in this file (`-`: standard input) instead of making one.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The account's id.
    account: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct OneArgs {
    /// The account's id.
    account: String,
    /// The token's id.
    token: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct RotateArgs {
    /// The account's id.
    account: String,
    /// The token's id.
    token: String,
    /// How long the old one opens still.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    overlap: String,
    #[command(flatten)]
    at: At,
}

#[derive(Serialize)]
struct Asked {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct Rotation {
    overlap: String,
}

#[derive(Deserialize)]
struct List {
    tokens: Vec<Value>,
}

#[derive(Deserialize)]
struct Made {
    id: String,
    token: Option<String>,
}

const COLUMNS: [Column; 7] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("PREFIX", "prefix"),
    ("ORIGIN", "origin"),
    ("CREATED", "created_at"),
    ("LAST USED", "last_used_at"),
    ("EXPIRES", "expires_at"),
];

/// Runs it.
///
/// # Errors
/// Where the bridge cannot be asked, with the reason.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::Create(args) => wait(create(args)),
        Command::List(args) => wait(list(args)),
        Command::Revoke(args) => wait(revoke(args)),
        Command::Rotate(args) => wait(rotate(args)),
    }
}

fn of(account: &str) -> String {
    format!("/v1/accounts/{}/tokens", segment(account))
}

async fn create(args: CreateArgs) -> anyhow::Result<Exit> {
    let token = args.import.as_deref().map(imported).transpose()?;
    let asked = Asked { name: args.name, token, expires_at: args.expires_at };
    let made: Made = Remote::new(&args.at)?.post(&of(&args.account), &asked).await?;
    show(&made)
}

async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    let list: List = Remote::new(&args.at)?.get(&of(&args.account), &[]).await?;
    args.output.list(&list.tokens, &COLUMNS, "the account has no token: its webhooks are refused")?;
    Ok(Exit::Done)
}

async fn revoke(args: OneArgs) -> anyhow::Result<Exit> {
    let path = format!("{}/{}", of(&args.account), segment(&args.token));
    let _: Value = Remote::new(&args.at)?.delete(&path, &[]).await?;
    complain(&format!("token {} opens nothing any more", args.token));
    Ok(Exit::Done)
}

async fn rotate(args: RotateArgs) -> anyhow::Result<Exit> {
    let path = format!("{}/{}/rotate", of(&args.account), segment(&args.token));
    let made: Made = Remote::new(&args.at)?.post(&path, &Rotation { overlap: args.overlap.clone() }).await?;
    complain(&format!("token {} opens for {} still", args.token, args.overlap));
    show(&made)
}

fn show(made: &Made) -> anyhow::Result<Exit> {
    let Some(token) = &made.token else {
        complain(&format!("token {} was imported", made.id));
        return Ok(Exit::Done);
    };
    complain(&format!("token {}, shown this once:", made.id));
    let unprinted = || format!("token {} could not be printed: revoke it", made.id);
    match say(token).with_context(unprinted)? {
        Reader::Reads => Ok(Exit::Done),
        // Elsewhere it has had enough; here it never had the token, which nobody shows again.
        Reader::Left => {
            complain(&unprinted());
            Ok(Exit::Failed)
        }
    }
}

/// A token is read from a file or a pipe: an argument would stand in the history of the shell.
fn imported(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" && io::stdin().is_terminal() {
        complain("type the token, then Ctrl-D:");
    }
    let name = input::name(path);
    let unreadable = |source| Mistake::NoInput { name: name.to_string(), source };
    let bytes = input::whole(path, TOKEN_BYTES).map_err(unreadable)?;
    let text = String::from_utf8(bytes).with_context(|| format!("{name} cannot be read"))?;
    match text.trim() {
        "" => bail!("there is no token in it"),
        token => Ok(token.to_owned()),
    }
}
