//! The store's files while they are open, against what others do to them: removed, replaced, cut or written over. What is
//! written then is lost with the process, so nothing is promised any more. Invariant: only the move of the log into it
//! changes `store.db` ([`left`](Files::left) is told of each), and the log's header is never taken away.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::data_dir::has_lost_its_name;
use super::{DataDir, StoreError, log};

/// SQLite's header of a file: <https://sqlite.org/fileformat2.html#the_database_header>.
const HEADER: usize = 100;

/// Handles of `store.db` and its log, to be closed after the connection: its locks would go with them.
pub(super) struct Files {
    path: PathBuf,
    file: File,
    log: File,
    left: Option<Left>,
    /// The log has been seen to have a header: one to which nothing could be written yet has none.
    is_log_begun: bool,
}

/// `store.db` as the last move of the log left it.
#[derive(PartialEq, Eq)]
struct Left {
    length: u64,
    header: [u8; HEADER],
}

/// What became of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lost {
    /// What is open has no name any more, and is whole: closing it moves the log into the file, as it should.
    Elsewhere(&'static str),
    /// What is open is not what was written: to move anything would take what is left, too.
    Spoilt(&'static str),
}

impl Lost {
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Elsewhere(what) | Self::Spoilt(what) => what,
        }
    }
}

impl Files {
    /// Opens both, which are there once something was written.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let open =
            |path: PathBuf| File::open(&path).map_err(|source| StoreError::Unreadable { path, source });
        let (file, log) = (open(path.to_owned())?, open(log::path_of(path))?);
        let mut files = Self { path: path.to_owned(), file, log, left: None, is_log_begun: false };
        files.left();
        Ok(files)
    }

    /// Where `store.db` is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log was moved into the file, or as much of it as could be.
    pub(super) fn left(&mut self) {
        // Where it cannot be read nothing can be told of it.
        self.left = self.look().ok();
    }

    fn look(&self) -> io::Result<Left> {
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, 0)?;
        Ok(Left { length: self.file.metadata()?.len(), header })
    }

    /// What is not there any more, or is another.
    pub(super) fn lost(&mut self, dir: &DataDir) -> Option<Lost> {
        if has_lost_its_name(&self.file, &self.path) {
            Some(Lost::Elsewhere("store.db, or the data directory, was removed, replaced or moved away"))
        } else if has_lost_its_name(&self.log, &log::path_of(&self.path)) {
            Some(Lost::Elsewhere("store.db-wal was removed, replaced or moved away"))
        } else if dir.is_gone() {
            Some(Lost::Elsewhere("LOCK in the data directory was removed or replaced"))
        } else if self.is_changed() {
            Some(Lost::Spoilt("store.db was cut or written over"))
        } else if !log::is_headless(&self.log) {
            self.is_log_begun = true;
            None
        } else {
            self.is_log_begun.then_some(Lost::Spoilt("store.db-wal was cut or written over"))
        }
    }

    fn is_changed(&self) -> bool {
        let Some(left) = &self.left else { return false };
        match self.look() {
            Ok(now) => now != *left,
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }
}
