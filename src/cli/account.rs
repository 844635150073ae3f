//! `fleetbus account export | import`: an account moves from one instance to another. Both are stopped: the tool takes their `data_dir`
//! for itself, and waits for a process that is just stopping.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use super::input::unreadable;
use super::{Exit, complain};
use crate::clock;
use crate::event::AccountId;
use crate::replay::moving::{self, MoveError, Moved};
use crate::replay::{DataDir, LockError};

/// Arguments of `fleetbus account`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take an account out of a stopped instance, into a file.
    Export {
        /// Its id.
        account: String,
        /// The stopped instance's data_dir.
        #[arg(long, value_name = "FOLDER")]
        data_dir: PathBuf,
        /// A new file: what is parked is in it, so keep it as you keep data_dir.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Take an exported account into another stopped instance.
    Import {
        /// The exported file.
        file: PathBuf,
        /// The stopped instance's data_dir.
        #[arg(long, value_name = "FOLDER")]
        data_dir: PathBuf,
    },
}

/// Moves it.
///
/// # Errors
/// Where the runtime cannot be made; all else is an [`Exit`] with a sentence.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let data_dir = match &args.command {
        Command::Export { data_dir, .. } | Command::Import { data_dir, .. } => data_dir.clone(),
    };
    let is_new = !data_dir.join("store.db").exists();
    let why_none = match &args.command {
        Command::Export { .. } => is_new.then_some(""),
        Command::Import { .. } => (is_new && holds_something(&data_dir))
            .then_some(", and holds something else; name a data_dir, or a new folder"),
    };
    if let Some(more) = why_none {
        complain(&format!("{} is no data_dir of fleetbus: it has no store.db{more}", data_dir.display()));
        return Ok(Exit::NoInput);
    }
    // Before a folder is made for it.
    if let Command::Import { file, .. } = &args.command
        && let Err(error) = std::fs::File::open(file)
    {
        return Ok(unreadable(file, &error));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    let dir = match runtime.block_on(DataDir::lock(&data_dir)) {
        Ok(dir) => dir,
        Err(error @ LockError::Held { .. }) => {
            complain(&format!("{error}: stop it first; an account moves between stopped instances"));
            return Ok(Exit::Locked);
        }
        Err(error @ (LockError::Unwritable { .. } | LockError::ReadOnly { .. })) => {
            complain(&format!("{:#}", anyhow::Error::from(error)));
            return Ok(Exit::Failed);
        }
    };
    let (done, next) = match args.command {
        Command::Export { account, to, .. } => {
            let next = format!(
                "exported. Take the account out of this instance's configuration; then: fleetbus account import {} --data-dir …",
                to.display()
            );
            (moving::export(&dir, &AccountId::new(&account), &to, clock::now()), next)
        }
        Command::Import { file, .. } => {
            let next = format!(
                "imported into {}{}. Have the account in that instance's configuration before it starts",
                data_dir.display(),
                if is_new { " (a new data_dir)" } else { "" }
            );
            (moving::import(&dir, &file, clock::now()), next)
        }
    };
    Ok(match done {
        Ok(Moved { account, parked, entries, damaged, seen }) => {
            if damaged > 0 {
                complain(&format!(
                    "{damaged} entries of the store were not as they were saved: the audit log says which, and what became of them"
                ));
            }
            complain(&format!("{account}: {parked} parked messages, {entries} entries, {seen} known ids"));
            complain(&next);
            Exit::Done
        }
        Err(error) => {
            let exit = exit_of(&error);
            complain(&format!("{:#}", anyhow::Error::from(error)));
            exit
        }
    })
}

/// Whether there is more in a folder than a volume has by itself, or a process that only locked it left.
fn holds_something(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else { return false };
    entries.any(|entry| {
        entry.is_ok_and(|entry| !["LOCK", "lost+found"].map(OsStr::new).contains(&&*entry.file_name()))
    })
}

const fn exit_of(error: &MoveError) -> Exit {
    match error {
        MoveError::Unknown(_)
        | MoveError::Out(_)
        | MoveError::Here(_)
        | MoveError::Again
        | MoveError::Exists(_)
        | MoveError::Left(_) => Exit::Usage,
        MoveError::Unreadable { .. } => Exit::Data,
        MoveError::Store(_) => Exit::Store,
        MoveError::Seen(_) | MoveError::Unwritable { .. } => Exit::Failed,
    }
}
