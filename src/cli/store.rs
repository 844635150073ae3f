//! `fleetbus store`: checks a replay store, saves what can be read of a damaged one, and makes backups, of a running bridge
//! through its operator's port or of the folder of one that is stopped. Invariants: nothing here changes a store; a file is
//! never written over; what is written is complete, or has another name.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::new_file::NewFile;
use super::remote::{At, Remote, escaped, say, wait};
use super::run::read_config;
use super::{Exit, complain};
use crate::replay::{self, Checked, DataDir, Exported, LockError, Salvage, SalvageError};

/// How long a running bridge is waited for: it is not about to stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// Arguments of `fleetbus store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Look whether the files of a stopped bridge are sound. Exits 74 where one is not.
    Check(Folder),
    /// Write what can be read of a stopped bridge's store, also of a damaged one, as NDJSON. Exits 74 where something cannot.
    Export(ExportArgs),
    /// Copy the store into a new file: of the running bridge, or with --data-dir of a stopped one.
    Backup(BackupArgs),
}

/// Whose files.
#[derive(Debug, clap::Args)]
struct Folder {
    /// The data_dir of a bridge that is stopped.
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
    /// A configuration that names it; else FLEETBUS_CONFIG, else ./fleetbus.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    folder: Folder,
    /// Write into this new file instead of to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct BackupArgs {
    /// The new file.
    file: PathBuf,
    /// The data_dir of a bridge that is stopped, instead of asking a running one.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

/// Runs it.
///
/// # Errors
/// Where something cannot be read or written; what is wrong with a store is an [`Exit`] with sentences.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::Check(folder) => check(folder),
        Command::Export(args) => export(args),
        Command::Backup(args) => backup(&args),
    }
}

impl Folder {
    /// The folder, where no bridge has it.
    fn hold(self) -> anyhow::Result<Result<DataDir, Exit>> {
        let path = match self.data_dir {
            Some(path) => path,
            None => match read_config(self.config)? {
                Ok(loaded) => loaded.config.data_dir,
                Err(exit) => return Ok(Err(exit)),
            },
        };
        hold(&path)
    }
}

fn hold(path: &Path) -> anyhow::Result<Result<DataDir, Exit>> {
    if !path.join("store.db").exists() {
        complain(&format!("there is no store in {}", path.display()));
        return Ok(Err(Exit::NoInput));
    }
    match wait(async { Ok(DataDir::lock_within(path, PATIENCE).await) })? {
        Ok(dir) => Ok(Ok(dir)),
        Err(error @ LockError::Held { .. }) => {
            complain(&format!("{error}: stop it, or take a backup of it with `fleetbus store backup FILE`"));
            Ok(Err(Exit::Locked))
        }
        Err(error @ (LockError::Unwritable { .. } | LockError::ReadOnly { .. })) => Err(error.into()),
    }
}

fn check(folder: Folder) -> anyhow::Result<Exit> {
    let dir = match folder.hold()? {
        Ok(dir) => dir,
        Err(exit) => return Ok(exit),
    };
    let checked = replay::check(&dir);
    for file in &checked {
        say(&told(file))?;
    }
    if checked.iter().all(Checked::is_sound) {
        return Ok(Exit::Done);
    }
    if checked.iter().all(|file| file.findings.is_empty()) {
        complain("look as the user that the bridge runs as, with the version that wrote the files");
        return Ok(Exit::Failed);
    }
    complain("save what can be read with `fleetbus store export`; what to do then: docs/operate.md");
    Ok(Exit::Store)
}

/// What was found of one file.
fn told(checked: &Checked) -> String {
    let state = if checked.is_sound() {
        "sound"
    } else if checked.findings.is_empty() {
        "not judged"
    } else {
        "damaged"
    };
    let lines = checked.findings.iter().chain(&checked.unjudged).chain(&checked.notes);
    let lines = lines.map(|line| format!("\n  {line}"));
    format!("{}: {state}{}", checked.file, lines.collect::<String>())
}

fn export(args: ExportArgs) -> anyhow::Result<Exit> {
    let dir = match args.folder.hold()? {
        Ok(dir) => dir,
        Err(exit) => return Ok(exit),
    };
    let salvage = match Salvage::open(&dir.path().join("store.db")) {
        Ok(salvage) => salvage,
        Err(error) => {
            complain(&format!("{:#}", anyhow::Error::from(error)));
            return Ok(Exit::Store);
        }
    };
    let exported = match args.out {
        Some(path) => {
            let new = NewFile::create(path)?;
            let mut out = BufWriter::new(&new.file);
            let exported = salvage.export(&mut out)?;
            drop(out);
            new.finish()?;
            exported
        }
        None => match salvage.export(&mut Escaped(BufWriter::new(io::stdout().lock()))) {
            // Who reads has enough.
            Err(SalvageError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Exit::Done);
            }
            exported => exported?,
        },
    };
    for sentence in summary(&exported) {
        complain(&sentence);
    }
    Ok(if exported.is_whole() { Exit::Done } else { Exit::Store })
}

/// JSON on its way to standard output, [escaped].
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever writes JSON writes whole characters.
        match std::str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(escaped(text).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn summary(exported: &Exported) -> Vec<String> {
    let mut said = [exported.notes.clone(), exported.damage.clone()].concat();
    let Exported { unread, changed, .. } = exported;
    if unread.count > 0 {
        said.push(format!("{} rows cannot be read: {unread}", unread.count));
    }
    if changed.count > 0 {
        let count = changed.count;
        said.push(format!("{count} rows are not as they were parked, and not exported: {changed}"));
    }
    said.extend(exported.told_entries());
    said.push(format!("exported {} events and {} raw messages", exported.events, exported.raw));
    said
}

fn backup(args: &BackupArgs) -> anyhow::Result<Exit> {
    let mut new = NewFile::create(args.file.clone())?;
    match &args.data_dir {
        Some(path) => {
            let dir = match hold(path)? {
                Ok(dir) => dir,
                Err(exit) => return Ok(exit),
            };
            replay::backup(&dir, &new.part).context("the store cannot be copied")?;
        }
        None => {
            let remote = Remote::new(&args.at)?;
            wait(remote.bytes("/v1/store/backup", |piece| {
                new.file.write_all(piece).with_context(|| format!("{} cannot be written", new.part.display()))
            }))?;
        }
    }
    let checked = replay::check_copy(&new.part);
    if !checked.is_sound() {
        complain(&told(&checked));
        return Ok(Exit::Store);
    }
    let name = new.finish()?;
    say(&format!("{}: {}", name.display(), checked.notes.join("; ")))?;
    Ok(Exit::Done)
}
