//! The data directory, locked: one process at a time has it, for as long as a [`DataDir`] lives. Two processes on one
//! store would each count its lanes and give out its sequence numbers.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Volume;

const LOCK: &str = "LOCK";
/// The files of which SQLite would say no more than that it cannot: those of another user, whose process ran here once. `store.db` is
/// looked at where it is opened.
const SQLITES: [&str; 3] = ["store.db-wal", "seen.db", "seen.db-wal"];
/// How long a start waits for another process to give the directory up: as long as a rolling update takes to stop it.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Between two looks at the lock: there is no notice of its release.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// A data directory that this process has for itself. Clones share the lock.
#[derive(Debug, Clone)]
pub struct DataDir {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    volume: Volume,
    // Closing the file gives the lock up.
    lock: File,
}

/// The data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it, and kept it: exit 75, for it may be free later.
    #[error("the data directory {path} is held by another process")]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing can be written there, not even the lock.
    #[error(
        "{path} is on a volume that can only be read: copy the data directory to one that can be written, and name the copy"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be made or written: somebody has to change that.
    #[error("{path}, which is data_dir or in it, cannot be written")]
    Unwritable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it; waits 30 s for another process to give it up.
    ///
    /// # Errors
    /// [`LockError::Held`] where another process keeps it, [`LockError::Unwritable`] where it, or a file in it, is of no use.
    pub async fn lock(path: &Path) -> Result<Self, LockError> {
        let dir = Self::lock_within(path, LOCK_WAIT).await?;
        match unwritable_among(&SQLITES, dir.path()) {
            Some((path, source)) => Err(LockError::Unwritable { path, source }),
            None => Ok(dir),
        }
    }

    /// As [`lock`](Self::lock), with another patience, and whatever files there are.
    ///
    /// # Errors
    /// As there.
    pub async fn lock_within(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let unwritable = |path: &Path, source: io::Error| match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => LockError::ReadOnly { path: path.to_owned() },
            _ => LockError::Unwritable { path: path.to_owned(), source },
        };
        make(path).map_err(|e| unwritable(path, e))?;
        let path = path.canonicalize().map_err(|e| unwritable(path, e))?;
        let file = path.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            // Who may open it may hold it. Those of the folder's group may have to take it over.
            .mode(0o660)
            .open(&file)
            .map_err(|e| unwritable(&file, e))?;
        let deadline = tokio::time::Instant::now() + patience;
        let mut told = Told::NotYet;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(unwritable(&file, source)),
                Err(TryLockError::WouldBlock) => {}
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(LockError::Held { path });
            }
            if matches!(told, Told::NotYet) {
                told = Told::Once;
                tracing::info!(data_dir.path = %path.display(), wait.seconds = patience.as_secs(), "data_dir.held");
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
        let volume = Volume::of(&path);
        Ok(Self { held: Arc::new(Held { path, volume, lock }) })
    }

    /// Where it is, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.held.path
    }

    /// Whether its lock was removed or replaced behind our back: another process may have the directory then.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        has_lost_its_name(&self.held.lock, &self.held.path.join(LOCK))
    }

    /// What kind of file system it is on.
    #[must_use]
    pub fn volume(&self) -> &Volume {
        &self.held.volume
    }
}

/// The first that is there and cannot be written, and why.
fn unwritable_among(names: &[&str], dir: &Path) -> Option<(PathBuf, io::Error)> {
    names.iter().find_map(|name| {
        let path = dir.join(name);
        match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some((path, error)),
            Ok(_) | Err(_) => None,
        }
    })
}

/// Whether an open file is not what has its name any more: what is written to it is lost with the process.
pub(crate) fn has_lost_its_name(open: &File, name: &Path) -> bool {
    match (open.metadata(), name.metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) != (named.dev(), named.ino()),
        (Ok(_), Err(error)) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        // It cannot be told.
        (Err(_), _) => false,
    }
}

/// Only its owner reads it, for what is in it is personal; each folder that something new is in knows of it after a power cut.
fn make(path: &Path) -> io::Result<()> {
    let grown = grown(path);
    if grown.is_empty() {
        return Ok(());
    }
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "it is a link to a folder that is not there",
            ));
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder")),
        // It is missing, or making it says what is wrong.
        Err(_) => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    grown.iter().try_for_each(|folder| File::open(folder)?.sync_all())
}

/// The folders that get an entry where a path is made: the parents of all that is missing.
fn grown(path: &Path) -> Vec<&Path> {
    let missing = path.ancestors().take_while(|level| !level.as_os_str().is_empty() && !level.is_dir());
    missing
        .filter_map(Path::parent)
        .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
        .collect()
}

/// Whether it was said that the start waits.
enum Told {
    NotYet,
    Once,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_with_a_new_entry_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path();
        let path = there.join("a/b/c");
        assert_eq!(grown(&path), [&there.join("a/b"), &there.join("a"), there]);
        make(&path).unwrap();
        assert!(path.is_dir());
        assert!(grown(&path).is_empty());
        assert_eq!(grown(&there.join("a/d")), [there.join("a")]);
        assert_eq!(grown(Path::new("no-such-folder/b")), [Path::new("no-such-folder"), Path::new(".")]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("store.db-wal"), "").unwrap();
        assert!(unwritable_among(&SQLITES, dir.path()).is_none());
        // Not even root writes to a folder.
        std::fs::create_dir(dir.path().join("seen.db")).unwrap();
        let (path, error) = unwritable_among(&SQLITES, dir.path()).unwrap();
        assert_eq!(path, dir.path().join("seen.db"));
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_is_in_a_folders_place_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        let said = |path: &Path| make(path).unwrap_err().to_string();
        assert_eq!(said(&file), "it is not a folder");
        assert_eq!(said(&link), "it is a link to a folder that is not there");
    }
}
