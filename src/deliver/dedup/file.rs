//! `seen.db`: the tail's journal, what was forgotten, and the ids of each (account, type, hour) in sorted *runs*, cut into
//! pieces so that a look-up reads one piece a run, however many ids an hour has; `merge` keeps runs few. Everything in it may be
//! lost: that costs duplicates with the same ids. Invariant: what the map of runs says is there can be found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::merge::{Merge, PIECE, Progress, Run, alike, delete_step};
use super::reach::Reach;
use super::tail::{Bucket, Short, Tail, Unwritten};
use crate::event::{AccountId, EventType};

/// The layout of the file.
const VERSION: i64 = 2;

const SCHEMA: &str = "
    CREATE TABLE journal (row INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE piece (account TEXT NOT NULL, type TEXT NOT NULL, hour INTEGER NOT NULL, run INTEGER NOT NULL,
        first BLOB NOT NULL, ids BLOB NOT NULL) STRICT;
    CREATE UNIQUE INDEX piece_place ON piece (account, type, hour, run, first);
    CREATE TABLE forgotten (id BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// What the second layout added.
const REACH: &str = "
    CREATE TABLE reach (account TEXT NOT NULL, type TEXT NOT NULL, newest INTEGER NOT NULL, ahead INTEGER NOT NULL,
        PRIMARY KEY (account, type)) STRICT, WITHOUT ROWID;
";

/// The store's era in which it was open last. No layout of its own: an older version goes on without it.
const ERA: &str = "CREATE TABLE IF NOT EXISTS era (only INTEGER PRIMARY KEY CHECK (only = 0), number INTEGER NOT NULL) STRICT;";

/// Without a file of shared memory, which a full disk has no room for; the page cache is 16 MiB; no commit waits for the disk; the log
/// is cut back after a checkpoint.
const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;
    PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;
";

/// It cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A newer version of the program wrote it; nothing was changed.
    #[error(
        "seen.db has format {0}, and this version knows {VERSION} at most: run the version that wrote it, or move the file away, which costs duplicates with the same ids"
    )]
    Newer(i64),
    /// It cannot be made.
    #[error("seen.db cannot be made")]
    Unwritable(#[from] std::io::Error),
    /// What SQLite says.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl FileError {
    /// Whether the file itself is broken: what passes, as a full disk does, or a want of file descriptors, breaks nothing.
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Sqlite(error) => is_broken(error),
            Self::Newer(_) | Self::Unwritable(_) => false,
        }
    }
}

/// See the module.
pub struct File {
    pub(super) connection: Connection,
    /// The runs of each hour on disk. Bound: accounts × types × hours within the horizon.
    runs: BTreeMap<Bucket, Vec<Run>>,
    /// Hours whose runs changed, so that some may be alike: `next_merge` looks.
    changed: BTreeSet<Bucket>,
    /// The era of the store in which it was open last; none where no version has said so.
    era: Option<u64>,
}

/// Whether the file itself is broken. SQLite has no checksums: a bit that turned in a cell shows only where the cell is read.
pub fn is_broken(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    let is_unreadable = matches!(
        error,
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)
    );
    let code = error.sqlite_error_code();
    is_unreadable || matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames a broken file, so that a new one can be begun.
pub fn set_aside(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        let to = PathBuf::from(format!("{}.broken{suffix}", path.display()));
        if from.exists()
            && let Err(error) = std::fs::rename(&from, &to)
        {
            tracing::warn!(error = %error, "dedup.set_aside_failed");
        }
    }
}

impl File {
    /// Opens it, or makes it; with what its journal holds.
    pub fn open(path: &Path) -> Result<(Self, Tail), FileError> {
        crate::replay::private_where_missing(path)?;
        let connection = Connection::open(path)?;
        connection.execute_batch(SETTINGS)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let missing = match version {
            0 => [SCHEMA, REACH].concat(),
            1 => REACH.to_owned(),
            VERSION => String::new(),
            newer => return Err(FileError::Newer(newer)),
        };
        if !missing.is_empty() {
            connection
                .execute_batch(&format!("BEGIN; {missing} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        }
        connection.execute_batch(ERA)?;
        let era = connection.query_row("SELECT number FROM era", [], |row| row.get(0)).optional()?;
        let tail = read_tail(&connection)?;
        let runs = read_runs(&connection)?;
        let changed = runs.iter().filter(|(_, runs)| alike(runs).is_some());
        let changed = changed.map(|(bucket, _)| bucket.clone()).collect();
        Ok((Self { connection, runs, changed, era }, tail))
    }

    /// One that keeps nothing, in place of one that broke.
    pub fn none() -> rusqlite::Result<Self> {
        Ok(Self {
            connection: Connection::open_in_memory()?,
            runs: BTreeMap::new(),
            changed: BTreeSet::new(),
            era: None,
        })
    }

    /// Whether it has been open in this era of the store, or in a later one.
    pub fn has_seen(&self, era: u64) -> bool {
        self.era.is_some_and(|seen| seen >= era)
    }

    /// Forgets all that it holds.
    pub fn empty(&mut self) -> rusqlite::Result<()> {
        let all = "DELETE FROM journal; DELETE FROM piece; DELETE FROM forgotten; DELETE FROM reach;";
        self.connection.execute_batch(&format!("BEGIN; {all} COMMIT;"))?;
        self.runs.clear();
        self.changed.clear();
        Ok(())
    }

    /// Writes one row of the journal, and with it that the file is open in this era of the store.
    pub fn write(&mut self, unwritten: &Unwritten, era: u64) -> rusqlite::Result<()> {
        if unwritten.is_empty() && self.era == Some(era) {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        if self.era != Some(era) {
            let sql = "INSERT OR REPLACE INTO era (only, number) VALUES (0, ?1)";
            transaction.execute(sql, [era])?;
        }
        if !unwritten.entered.is_empty() {
            let mut insert = transaction.prepare_cached("INSERT INTO journal (body) VALUES (?1)")?;
            insert.execute([write_journal(&unwritten.entered)])?;
        }
        for (id, at) in &unwritten.forgotten {
            if let Some(at) = at {
                let sql = "INSERT OR REPLACE INTO forgotten (id, at) VALUES (?1, ?2)";
                transaction.prepare_cached(sql)?.execute(params![id.as_slice(), at])?;
            } else {
                let sql = "DELETE FROM forgotten WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute([id.as_slice()])?;
            }
        }
        for ((account, event_type), reach) in &unwritten.reaches {
            let sql = "INSERT OR REPLACE INTO reach (account, type, newest, ahead) VALUES (?1, ?2, ?3, ?4)";
            let row = params![account.as_str(), event_type.as_str(), reach.newest, reach.ahead];
            transaction.prepare_cached(sql)?.execute(row)?;
        }
        transaction.commit()?;
        self.era = Some(era);
        Ok(())
    }

    /// Ids of an account come from elsewhere: how far they reach is not known.
    pub fn forget_reach(&self, account: &AccountId) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM reach WHERE account = ?1", [account.as_str()]).map(|_| ())
    }

    /// The journal's last row.
    pub fn last_row(&self) -> rusqlite::Result<i64> {
        let sql = "SELECT coalesce(max(row), 0) FROM journal";
        self.connection.query_row(sql, [], |row| row.get(0))
    }

    /// Rows that have been folded go.
    pub fn clear_journal(&self, last: i64) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM journal WHERE row <= ?1", [last])?;
        Ok(())
    }

    /// Adds runs to hours, all or none of them: the ids of each are in order.
    pub fn add_runs(&mut self, hours: &[(Bucket, Vec<Short>)]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut added = Vec::with_capacity(hours.len());
        for (bucket, ids) in hours.iter().filter(|(_, ids)| !ids.is_empty()) {
            let number = next_number(self.runs.get(bucket));
            for piece in ids.chunks(PIECE) {
                insert_piece(&transaction, bucket, number, piece)?;
            }
            added.push((bucket, Run { number, pieces: ids.len().div_ceil(PIECE) }));
        }
        transaction.commit()?;
        for (bucket, run) in added {
            self.runs.entry(bucket.clone()).or_default().push(run);
            self.changed.insert(bucket.clone());
        }
        Ok(())
    }

    /// Of an hour that has runs alike, if there is one.
    pub fn next_merge(&mut self) -> Option<Merge> {
        while let Some(bucket) = self.changed.pop_first() {
            let Some(runs) = self.runs.get_mut(&bucket) else { continue };
            let Some(sources) = alike(runs) else { continue };
            let into = next_number(Some(runs));
            runs.push(Run { number: into, pieces: 0 });
            return Some(Merge::new(bucket, &sources, into));
        }
        None
    }

    /// A run has so many more pieces.
    pub(super) fn grew(&mut self, bucket: &Bucket, number: i64, pieces: usize) {
        let runs = self.runs.get_mut(bucket).into_iter().flatten();
        for run in runs.filter(|run| run.number == number) {
            run.pieces += pieces;
        }
        self.changed.insert(bucket.clone());
    }

    /// These are not needed any more.
    pub(super) fn forget_runs(&mut self, bucket: &Bucket, numbers: &[i64]) {
        if let Some(runs) = self.runs.get_mut(bucket) {
            runs.retain(|run| !numbers.contains(&run.number));
        }
        self.changed.insert(bucket.clone());
    }

    /// Merges until no runs are alike.
    #[cfg(test)]
    pub(super) fn merge_all(&mut self) {
        while let Some(mut merge) = self.next_merge() {
            while merge.step(self).expect("steps") == Progress::More {}
        }
    }

    /// How many runs an hour has.
    #[cfg(test)]
    pub(super) fn runs_of(&self, bucket: &Bucket) -> usize {
        self.runs.get(bucket).map_or(0, Vec::len)
    }

    /// One of the ids that is in the bucket.
    pub fn one_of(&self, bucket: &Bucket, ids: &[Short]) -> rusqlite::Result<Option<Short>> {
        self.runs.get(bucket).map_or(Ok(None), |runs| self.find(bucket, runs, ids))
    }

    /// Whether one of the ids is in the bucket.
    #[cfg(test)]
    pub(super) fn holds(&self, bucket: &Bucket, ids: &[Short]) -> rusqlite::Result<bool> {
        self.one_of(bucket, ids).map(|found| found.is_some())
    }

    /// Which of these ids are in any hour of the bucket's account and type. An hour that has no more pieces than ids are asked for is
    /// read once for all of them. None where it is over before it ends.
    pub fn find_in_any_hour(
        &self,
        bucket: &Bucket,
        mut ids: Vec<Short>,
        is_over: impl Fn() -> bool,
    ) -> rusqlite::Result<Option<BTreeSet<Short>>> {
        let (first, last) =
            (Bucket { hour: i64::MIN, ..bucket.clone() }, Bucket { hour: i64::MAX, ..bucket.clone() });
        let mut found = BTreeSet::new();
        ids.sort_unstable();
        for (bucket, runs) in self.runs.range(first..=last) {
            if is_over() {
                return Ok(None);
            }
            if ids.len() < runs.iter().map(|run| run.pieces).sum() {
                for id in &ids {
                    found.extend(self.find(bucket, runs, &[*id])?);
                }
            } else {
                self.each_piece(bucket, |piece| {
                    found.extend(piece.iter().filter(|id| ids.binary_search(id).is_ok()));
                })?;
            }
            ids.retain(|id| !found.contains(id));
        }
        Ok(Some(found))
    }

    fn find(&self, bucket: &Bucket, runs: &[Run], ids: &[Short]) -> rusqlite::Result<Option<Short>> {
        let mut piece = self.connection.prepare_cached(
            "SELECT ids FROM piece WHERE account = ?1 AND type = ?2 AND hour = ?3 AND run = ?4 AND first <= ?5
             ORDER BY first DESC LIMIT 1",
        )?;
        for run in runs {
            for id in ids {
                let place = params![
                    bucket.account.as_str(),
                    bucket.event_type.as_str(),
                    bucket.hour,
                    run.number,
                    id.as_slice()
                ];
                let found = piece.query_row(place, |row| {
                    Ok(row.get_ref(0)?.as_blob()?.as_chunks::<12>().0.binary_search(id).is_ok())
                });
                if found.optional()? == Some(true) {
                    return Ok(Some(*id));
                }
            }
        }
        Ok(None)
    }

    /// All ids of an hour.
    pub fn ids(&self, bucket: &Bucket) -> rusqlite::Result<Vec<Short>> {
        let mut ids = Vec::new();
        self.each_piece(bucket, |piece| ids.extend(piece))?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn each_piece(&self, bucket: &Bucket, mut with: impl FnMut(&[Short])) -> rusqlite::Result<()> {
        let sql = "SELECT ids FROM piece WHERE account = ?1 AND type = ?2 AND hour = ?3";
        let mut pieces = self.connection.prepare_cached(sql)?;
        let place = params![bucket.account.as_str(), bucket.event_type.as_str(), bucket.hour];
        let mut rows = pieces.query(place)?;
        while let Some(row) = rows.next()? {
            with(row.get_ref(0)?.as_blob()?.as_chunks::<12>().0);
        }
        Ok(())
    }

    /// An id counts as unknown from now on.
    pub fn forget(&self, id: &[u8], at: i64) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO forgotten (id, at) VALUES (?1, ?2)";
        self.connection.prepare_cached(sql)?.execute(params![id, at]).map(|_| ())
    }

    /// An id that was forgotten is known again.
    pub fn remember(&self, id: &Short) -> rusqlite::Result<()> {
        let sql = "DELETE FROM forgotten WHERE id = ?1";
        self.connection.prepare_cached(sql)?.execute([id.as_slice()]).map(|_| ())
    }

    /// What was written is on the disk when this returns.
    pub fn settle(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE);")
    }

    /// The hours on disk.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.runs.keys()
    }

    /// One step of an hour that goes.
    pub fn drop_step(&mut self, bucket: &Bucket) -> rusqlite::Result<Progress> {
        let Some(run) = self.runs.get(bucket).and_then(|runs| runs.last()).map(|run| run.number) else {
            self.runs.remove(bucket);
            return Ok(Progress::Done);
        };
        if delete_step(&self.connection, bucket, run)? == Progress::Done {
            self.forget_runs(bucket, &[run]);
        }
        Ok(Progress::More)
    }

    /// Ids older than `before` are nowhere remembered any more.
    pub fn expire(&self, before: i64) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM forgotten WHERE at < ?1", [before])?;
        self.connection.execute("DELETE FROM reach WHERE max(newest, ahead) < ?1", [before])?;
        Ok(())
    }
}

/// A number that no run of an hour has.
fn next_number(runs: Option<&Vec<Run>>) -> i64 {
    runs.into_iter().flatten().map(|run| run.number + 1).max().unwrap_or(0)
}

/// Writes one piece of a run: ids in order, and at least one.
pub(super) fn insert_piece(
    connection: &Connection,
    bucket: &Bucket,
    run: i64,
    ids: &[Short],
) -> rusqlite::Result<()> {
    let Some(first) = ids.first() else { return Ok(()) };
    let sql = "INSERT INTO piece (account, type, hour, run, first, ids) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (account, event_type) = (bucket.account.as_str(), bucket.event_type.as_str());
    let row = params![account, event_type, bucket.hour, run, first.as_slice(), ids.as_flattened()];
    connection.prepare_cached(sql)?.execute(row).map(|_| ())
}

fn read_tail(connection: &Connection) -> rusqlite::Result<Tail> {
    let mut tail = Tail::default();
    let mut journal = connection.prepare("SELECT body FROM journal ORDER BY row")?;
    let mut rows = journal.query([])?;
    while let Some(row) = rows.next()? {
        for (bucket, id) in read_journal(row.get_ref(0)?.as_blob()?) {
            tail.restore(&bucket, id);
        }
    }
    let mut forgotten = connection.prepare("SELECT id, at FROM forgotten")?;
    let mut rows = forgotten.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(id) = Short::try_from(row.get_ref(0)?.as_blob()?) {
            tail.restore_forgotten(id, row.get(1)?);
        }
    }
    let mut reach = connection.prepare("SELECT account, type, newest, ahead FROM reach")?;
    let mut rows = reach.query([])?;
    while let Some(row) = rows.next()? {
        let Some(event_type) = EventType::parse(row.get_ref(1)?.as_str()?) else { continue };
        let kind = (AccountId::new(row.get_ref(0)?.as_str()?), event_type);
        tail.restore_reach(kind, Reach { newest: row.get(2)?, ahead: row.get(3)? });
    }
    Ok(tail)
}

fn read_runs(connection: &Connection) -> rusqlite::Result<BTreeMap<Bucket, Vec<Run>>> {
    let mut runs: BTreeMap<Bucket, Vec<Run>> = BTreeMap::new();
    let mut places = connection.prepare(
        "SELECT account, type, hour, run, count(*) FROM piece INDEXED BY piece_place GROUP BY account, type, hour, run",
    )?;
    let mut rows = places.query([])?;
    while let Some(row) = rows.next()? {
        let (account, event_type): (String, String) = (row.get(0)?, row.get(1)?);
        let Some(event_type) = EventType::parse(&event_type) else { continue };
        let bucket = Bucket { account: AccountId::new(&account), event_type, hour: row.get(2)? };
        runs.entry(bucket).or_default().push(Run { number: row.get(3)?, pieces: row.get(4)? });
    }
    Ok(runs)
}

/// A row of the journal: per bucket, lengths and texts of account and type, the hour, how many ids, the ids.
fn write_journal(entered: &[(Bucket, Short)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(entered.len() * 16 + 64);
    for group in entered.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((bucket, _)) = group.first() else { continue };
        for text in [bucket.account.as_str(), bucket.event_type.as_str()] {
            body.extend_from_slice(&length(text.len()));
            body.extend_from_slice(text.as_bytes());
        }
        body.extend_from_slice(&bucket.hour.to_be_bytes());
        body.extend_from_slice(&length(group.len()));
        for (_, id) in group {
            body.extend_from_slice(id);
        }
    }
    body
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// What a row holds, up to where it cannot be read.
fn read_journal(mut body: &[u8]) -> Vec<(Bucket, Short)> {
    fn number(body: &mut &[u8]) -> Option<usize> {
        let (number, rest) = body.split_first_chunk()?;
        *body = rest;
        usize::try_from(u32::from_be_bytes(*number)).ok()
    }
    fn text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
        let length = number(body)?;
        let (text, rest) = body.split_at_checked(length)?;
        *body = rest;
        std::str::from_utf8(text).ok()
    }
    fn group(body: &mut &[u8], entries: &mut Vec<(Bucket, Short)>) -> Option<()> {
        let account = AccountId::new(text(body)?);
        let event_type = EventType::parse(text(body)?)?;
        let (hour, rest) = body.split_first_chunk()?;
        *body = rest;
        let bucket = Bucket { account, event_type, hour: i64::from_be_bytes(*hour) };
        for _ in 0..number(body)? {
            let (id, rest) = body.split_first_chunk()?;
            *body = rest;
            entries.push((bucket.clone(), *id));
        }
        Some(())
    }
    let mut entries = Vec::new();
    while group(&mut body, &mut entries).is_some() {}
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(event_type: EventType, hour: i64) -> Bucket {
        Bucket { account: AccountId::new("acme"), event_type, hour }
    }

    #[test]
    fn a_journal_row_is_read_as_it_was_written_and_a_torn_one_up_to_the_tear() {
        let (trip, media) = (bucket(EventType::Trip, -3), bucket(EventType::Media, i64::MAX));
        let entries =
            vec![(trip.clone(), [1; 12]), (trip.clone(), [2; 12]), (media, [3; 12]), (trip, [4; 12])];
        let body = write_journal(&entries);
        assert_eq!(read_journal(&body), entries);
        for cut in 0..body.len() {
            let read = read_journal(&body[..cut]);
            assert!(read.len() < entries.len() && entries.starts_with(&read));
        }
    }

    #[test]
    fn every_id_is_found_in_its_hour_and_in_no_other_however_many_runs_and_pieces() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("seen.db");
        let (mut file, _) = File::open(&path).expect("opens");
        let here = bucket(EventType::Position, 7);
        let id = |run: u64, n: u64| {
            let mut id = [0; 12];
            id[..8]
                .copy_from_slice(&((run * 6_000 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
            id
        };
        let runs = 19;
        for run in 0..runs {
            let mut ids: Vec<Short> = (0..2_500).map(|n| id(run, n)).collect();
            ids.sort_unstable();
            file.add_runs(&[(here.clone(), ids)]).expect("written");
            // Some are merged, and some are not.
            if run % 5 == 0 {
                file.merge_all();
            }
        }
        for _ in 0..2 {
            for run in 0..runs {
                for n in (0..2_500).step_by(7) {
                    assert!(file.holds(&here, &[[0; 12], id(run, n)]).expect("answers"));
                    assert!(!file.holds(&here, &[id(run, n + 2_500)]).expect("answers"));
                }
            }
            assert!(!file.holds(&bucket(EventType::Position, 8), &[id(0, 0)]).expect("answers"));
            for asked in [1, 50_000] {
                // So many that are not there: of the hour each piece is read, or of each id one.
                let mut ids: Vec<Short> = (0..asked).map(|n| id(runs, n)).collect();
                let there = [id(0, 7), id(18, 2_499)];
                ids.extend(there);
                let find = |event_type, over: bool| {
                    file.find_in_any_hour(&bucket(event_type, 0), ids.clone(), || over).expect("answers")
                };
                assert_eq!(find(EventType::Position, false), Some(BTreeSet::from(there)));
                assert_eq!(find(EventType::Trip, false), Some(BTreeSet::new()));
                assert_eq!(find(EventType::Position, true), None);
            }
            drop(file);
            (file, _) = File::open(&path).expect("opens again");
        }
    }
}
