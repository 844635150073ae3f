//! What can go wrong with the store, one variant for each reaction, and how SQLite's own errors are read. Invariant: a
//! failed fsync and a corrupt page are never taken for something that passes.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer version of the program wrote the file; nothing was changed.
    #[error(
        "{path} has format {found}, and this version knows {known} at most: run the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// The file is damaged, or is no database.
    #[error(
        "{path} is damaged: save what can be read with `fleetbus store export`, then restore a backup, or move the file away"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Transactions that were committed would be passed over.
    #[error(
        "the log of {path} is damaged, and at least {commits} transactions in it cannot be read: save what can be read with `fleetbus store export`, then restore a backup, or move the file and its log away"
    )]
    LogDamaged {
        /// The file.
        path: PathBuf,
        /// How many, at least.
        commits: u64,
    },
    /// The disk is full.
    #[error("there is no room to open {path}")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// It cannot be opened or read.
    #[error("{path} cannot be opened")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// It is not there, or is empty, and its log is not.
    #[error(
        "{path} is missing or empty, and its log, {path}-wal, is not: put the file back, or move the log away, with what is parked in it"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It, or its log, cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder or a file in it cannot be written or synced.
    #[error("{path} cannot be written")]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl StoreError {
    /// What SQLite said about the file `path`.
    pub(super) fn of(path: &std::path::Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match Trouble::of(&source) {
            Trouble::Full => Self::NoRoom { path, source },
            Trouble::Index | Trouble::Fatal => Self::Damaged { path, source },
            Trouble::Passing | Trouble::Unwritten => Self::Unusable { path, source },
        }
    }
}

/// Rows were not parked, surely so as far as the sender may rely on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParkError {
    /// The account's quota of parked events is spent.
    #[error("the account's quota of parked events is spent")]
    AccountFull,
    /// The store's quota is spent, or the disk is full.
    #[error("the replay store is full")]
    Full,
    /// What waits for the operator is far beyond its share: it is evicted more slowly than more of it comes.
    #[error("more that waits for the operator came than can be kept")]
    OperatorFull,
    /// The row in whose place it was to be parked is gone.
    #[error("it is gone meanwhile")]
    Gone,
    /// More is waiting to be written than may wait.
    #[error("the replay store is busy")]
    Busy,
    /// Writing failed.
    #[error("the replay store cannot write: {0}")]
    Failing(String),
    /// The store is closed, or broke.
    #[error("the replay store is closed")]
    Closed,
}

/// A question to the store, or a change of what it keeps beside parked rows, was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The disk is full.
    #[error("the replay store's disk is full")]
    Full,
    /// Reading or writing failed.
    #[error("the replay store fails: {0}")]
    Failing(String),
    /// The store is closed, or broke.
    #[error("the replay store is closed")]
    Closed,
}

/// What an error of SQLite means for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No room: the transaction was rolled back, and another may succeed when there is room.
    Full,
    /// A write failed: it may pass by itself, or a quota is spent, which SQLite does not tell from that.
    Unwritten,
    /// It may pass by itself.
    Passing,
    /// An index says other than its rows do: it can be made anew of them.
    Index,
    /// What is on disk cannot be trusted any more.
    Fatal,
}

impl Trouble {
    /// Reads an error of SQLite.
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        let Some(error) = error.sqlite_error() else {
            return Self::Passing;
        };
        match error.extended_code {
            // After a failed fsync nobody knows what the disk has, and a second fsync would succeed without cause.
            ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_READ
            | ffi::SQLITE_IOERR_SHORT_READ
            | ffi::SQLITE_IOERR_DATA
            | ffi::SQLITE_IOERR_CORRUPTFS
            | ffi::SQLITE_READONLY_DBMOVED => return Self::Fatal,
            // The shared memory beside the file is a file too.
            ffi::SQLITE_IOERR_SHMSIZE => return Self::Full,
            ffi::SQLITE_IOERR_WRITE => return Self::Unwritten,
            ffi::SQLITE_CORRUPT_INDEX => return Self::Index,
            _ => {}
        }
        match error.code {
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Fatal,
            // A set of SQLite's that grows with it: whatever else it says may pass, and is reported each time.
            _ => Self::Passing,
        }
    }
}

impl From<&rusqlite::Error> for ParkError {
    fn from(error: &rusqlite::Error) -> Self {
        match Trouble::of(error) {
            Trouble::Full => Self::Full,
            Trouble::Passing | Trouble::Unwritten | Trouble::Index | Trouble::Fatal => {
                Self::Failing(error.to_string())
            }
        }
    }
}

impl From<&rusqlite::Error> for AskError {
    fn from(error: &rusqlite::Error) -> Self {
        match Trouble::of(error) {
            Trouble::Full => Self::Full,
            Trouble::Passing | Trouble::Unwritten | Trouble::Index | Trouble::Fatal => {
                Self::Failing(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(extended: i32, expected: Trouble) {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None);
        assert_eq!(Trouble::of(&error), expected, "{error}");
    }

    #[test]
    fn only_a_failed_fsync_and_a_damaged_file_are_fatal() {
        check(ffi::SQLITE_IOERR_FSYNC, Trouble::Fatal);
        check(ffi::SQLITE_IOERR_DIR_FSYNC, Trouble::Fatal);
        check(ffi::SQLITE_IOERR_READ, Trouble::Fatal);
        check(ffi::SQLITE_CORRUPT, Trouble::Fatal);
        check(ffi::SQLITE_CORRUPT_INDEX, Trouble::Index);
        check(ffi::SQLITE_NOTADB, Trouble::Fatal);
        check(ffi::SQLITE_FULL, Trouble::Full);
        check(ffi::SQLITE_IOERR_SHMSIZE, Trouble::Full);
        check(ffi::SQLITE_IOERR_WRITE, Trouble::Unwritten);
        check(ffi::SQLITE_BUSY, Trouble::Passing);
    }

    #[test]
    fn an_error_that_is_not_sqlites_may_pass() {
        assert_eq!(Trouble::of(&rusqlite::Error::QueryReturnedNoRows), Trouble::Passing);
    }
}
