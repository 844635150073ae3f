//! The file `store.db`: its tables, how it is opened, and how an older one becomes a newer one. Invariant: a file of a
//! newer version is only looked at; each step forward is one transaction with its number.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::log::{self, Look};
use super::whole::Covered;
use super::{Routing, StoreError, TopicOf, rows};
use crate::event::{AccountId, Text};
use crate::faults::{self, Point};

/// The steps from an empty file to today's; the file's `user_version` is how many it has. Never change one, only add.
/// A new code or spelling in a row is a step too (it may be empty), for an older program could not read it.
const STEPS: &[&str] = &["
-- What must survive beside rows: next_seq, run (how often the file was opened), routing (how topics are made).
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('next_seq', 1), ('run', 0);

-- Events. reason: 0 unavailable, 1 refused (both wait for the bus), 2 unfit (waits for the operator).
-- held: the run in which an attempt is unresolved, else 0. The payload comes last: a look at the rest never reads it.
CREATE TABLE parked (
    seq INTEGER PRIMARY KEY, account TEXT NOT NULL, topic TEXT NOT NULL, subject TEXT NOT NULL, type TEXT NOT NULL,
    id BLOB NOT NULL, reason INTEGER NOT NULL, held INTEGER NOT NULL, parked_at INTEGER NOT NULL, cost INTEGER NOT NULL,
    error TEXT NOT NULL, trace TEXT, for_bus INTEGER NOT NULL CHECK (for_bus = (reason < 2)),
    enters BLOB NOT NULL, payload BLOB NOT NULL) STRICT;
-- The order of lanes (seq is part of each entry), and what waits for the operator. Each more costs a third of the speed.
-- A condition that is an equation with a column of its own needs no look at the row: hence for_bus.
CREATE INDEX lane ON parked (account, topic, subject) WHERE for_bus = 1;
CREATE INDEX unfit ON parked (reason) WHERE reason = 2;

-- Raw bytes. reason: 3 unrecognized, 4 undecodable, 5 not-json. seq is of the same sequence as above.
CREATE TABLE raw (
    seq INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, account TEXT NOT NULL, source TEXT NOT NULL,
    received_at INTEGER NOT NULL, reason INTEGER NOT NULL, cost INTEGER NOT NULL, error TEXT NOT NULL,
    body BLOB NOT NULL) STRICT;

-- How many there are, kept by each transaction. kind: the reasons above. population: 0 bus, 1 unfit, 2 raw.
CREATE TABLE tally (account TEXT, kind INTEGER, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (account, kind)) STRICT, WITHOUT ROWID;
CREATE TABLE ages (population INTEGER, minute INTEGER, rows INTEGER NOT NULL,
    PRIMARY KEY (population, minute)) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE directory (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE states (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE custom_data (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT;
CREATE TABLE tokens (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
", "
-- What an operator did, in the order in which it was done; never changed, oldest cut off beyond a bound.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, act TEXT NOT NULL,
    account TEXT NOT NULL, object TEXT NOT NULL, before TEXT, after TEXT) STRICT;
-- Long work that goes on after a restart (replays, backfills), and what an operator switched (paused feeds).
CREATE TABLE jobs (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE switches (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
", "
-- How often a row was tried since it was parked.
ALTER TABLE parked ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
-- What was parked before an operator edited it: the newest of them, by the number that it had.
CREATE TABLE originals (
    place INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, saved_at INTEGER NOT NULL, who TEXT NOT NULL,
    topic TEXT NOT NULL, bytes BLOB NOT NULL) STRICT;
CREATE INDEX original ON originals (seq);
", "
-- What a row's bytes had when it was parked, so that a bit that turns on the disk is noticed: see whole.rs. Rows from before
-- have none: to read millions of them would hold a start up, and would say of bytes that turned already that they are right.
ALTER TABLE parked ADD COLUMN checksum INTEGER;
ALTER TABLE raw ADD COLUMN checksum INTEGER;
INSERT INTO meta (name, value) SELECT 'checksums_from',
    max(value, coalesce((SELECT max(seq) FROM parked), 0) + 1, coalesce((SELECT max(seq) FROM raw), 0) + 1)
    FROM meta WHERE name = 'next_seq';
", "
-- The same for entries: see entries.rs. Those from before get theirs when they are saved anew.
ALTER TABLE cursors ADD COLUMN checksum BLOB;
ALTER TABLE directory ADD COLUMN checksum BLOB;
ALTER TABLE states ADD COLUMN checksum BLOB;
ALTER TABLE custom_data ADD COLUMN checksum BLOB;
ALTER TABLE tokens ADD COLUMN checksum BLOB;
ALTER TABLE jobs ADD COLUMN checksum BLOB;
ALTER TABLE switches ADD COLUMN checksum BLOB;
-- What a loss of would cost events, access or an operator's word is kept twice, so that one of them is whole.
CREATE TABLE cursors_copy (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL, checksum BLOB,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE tokens_copy (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL, checksum BLOB,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE jobs_copy (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL, checksum BLOB,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
CREATE TABLE switches_copy (account TEXT, key TEXT, value TEXT NOT NULL, saved_at INTEGER NOT NULL, checksum BLOB,
    PRIMARY KEY (account, key)) STRICT, WITHOUT ROWID;
INSERT INTO cursors_copy SELECT * FROM cursors;
INSERT INTO tokens_copy SELECT * FROM tokens;
INSERT INTO switches_copy SELECT * FROM switches;
INSERT INTO jobs_copy SELECT * FROM jobs WHERE substr(key, 1, 7) <> 'staged/';
"];

/// What has a meaning in a URI.
const IN_A_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');
/// Pages in memory: lanes are inserted all over their index.
const CACHE_KIB: i64 = 16 * 1024;
/// What a large transaction leaves of the write-ahead log is cut to this.
const WAL_LIMIT_BYTES: i64 = 64 << 20;
/// Rows moved to another topic in one transaction.
const REROUTE_ROWS: i64 = 5000;

/// The newest format.
pub(super) fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// A connection that cannot write, to a file that nobody else has.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// The same for a copy, which is a file by itself: nothing is made beside it.
pub(super) fn open_copy(path: &Path) -> rusqlite::Result<Connection> {
    let path = utf8_percent_encode(&path.to_string_lossy(), IN_A_PATH).to_string();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)
}

/// Opens the file, makes it where it is missing, and brings it forward.
pub(super) fn open(path: &Path, page_cap: Option<u32>) -> Result<Connection, StoreError> {
    let failed = |e| StoreError::of(path, e);
    let unwritable = |source| StoreError::Unwritable { path: path.to_owned(), source };
    let known = known();
    if has_bytes(path) {
        // SQLite would say that it is of no use, and not why.
        File::options().read(true).write(true).open(path).map_err(unwritable)?;
        let found = version_of(path).map_err(failed)?;
        if found > known {
            return Err(StoreError::Newer { path: path.to_owned(), found, known });
        }
        // SQLite would begin the log anew, and with it what is left of its evidence.
        match log::look(path).map_err(|source| StoreError::Unreadable { path: path.to_owned(), source })? {
            Look::Sound => {}
            Look::Torn => tracing::warn!(store.path = %path.display(), "store.log_torn"),
            Look::Damaged { commits } => {
                return Err(StoreError::LogDamaged { path: path.to_owned(), commits });
            }
        }
    } else if has_bytes(&log::path_of(path)) {
        // SQLite would begin the log anew, and what is parked in it would be gone.
        return Err(StoreError::Missing { path: path.to_owned() });
    } else {
        private(path).map_err(unwritable)?;
    }
    let mut conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    prepare(&conn, page_cap).map_err(failed)?;
    migrate(&mut conn).map_err(failed)?;
    Ok(conn)
}

/// Whether it is there, and something in it.
fn has_bytes(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() > 0)
}

/// Looks, and writes nothing, not even by closing: the log is not moved into the file. Without a log the file's own header says it, and a full disk need not make room for looking.
fn version_of(path: &Path) -> rusqlite::Result<i64> {
    if !has_bytes(&log::path_of(path)) {
        // What cannot be read so is for the opening to complain about.
        return Ok(header_version(path).unwrap_or(0));
    }
    // Who may not write needs a file of shared memory beside a log, which a full disk has no room for.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// `user_version` is the big-endian number at byte 60 of a file that begins with SQLite's name.
fn header_version(path: &Path) -> std::io::Result<i64> {
    let mut header = [0; 64];
    File::open(path)?.read_exact(&mut header)?;
    let [.., a, b, c, d] = header;
    let known = header.starts_with(b"SQLite format 3\0");
    Ok(if known { i64::from(i32::from_be_bytes([a, b, c, d])) } else { 0 })
}

/// An empty file that only its owner reads, in a folder that knows of it after a power cut: what is parked is personal.
pub(super) fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?.sync_all()?;
    sync_folder_of(path)
}

/// Whatever names a file has is on disk.
pub(super) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        // A bare name has an empty text for its folder, which cannot be opened.
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The same, where no such file is there yet.
pub(crate) fn private_where_missing(path: &Path) -> std::io::Result<()> {
    if path.exists() { Ok(()) } else { private(path) }
}

/// What a file is called for as long as it is written: all of its name stands in it, so that it is no other file's.
pub(crate) fn part_of(name: &Path) -> PathBuf {
    let mut part = name.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Removes a file; that there is none is as good.
pub(crate) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn prepare(conn: &Connection, page_cap: Option<u32>) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    // The counts are right only while nobody else writes; it also does without shared memory.
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    // The writer moves the log into the file itself, where it sees what fails.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.set_prepared_statement_cache_capacity(64);
    if let Some(pages) = page_cap {
        conn.pragma_update(None, "max_page_count", pages)?;
    }
    Ok(())
}

fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found).unwrap_or(0);
    for (number, step) in STEPS.iter().enumerate().skip(done) {
        let transaction = conn.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", rows::int(number as u64 + 1))?;
        faults::point(Point::InMigration);
        transaction.commit()?;
    }
    Ok(())
}

/// A bit that turned in what an index is made of, or in it: the rows count, and which of them are damaged their checksums say.
pub(super) fn make_indexes_anew(conn: &Connection, error: &dyn Display) -> rusqlite::Result<()> {
    tracing::error!(error = %error, "store.indexes_made_anew");
    conn.execute_batch("REINDEX parked; REINDEX raw")
}

/// The number of this run: each opening has its own.
pub(super) fn next_run(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("UPDATE meta SET value = value + 1 WHERE name = 'run' RETURNING value", [], |row| {
        row.get(0)
    })
}

/// Another [`Era`](super::Era) begins. The name is made when it is first asked for: an older version leaves it as it is.
pub(super) fn next_era(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "INSERT INTO meta (name, value) VALUES ('era', 1)
               ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
    conn.query_row(sql, [], |row| row.get(0))
}

/// The sequence number that was never given.
pub(super) fn next_seq(conn: &Connection) -> rusqlite::Result<u64> {
    let next: i64 = conn.query_row(
        "SELECT max((SELECT value FROM meta WHERE name = 'next_seq'),
                    coalesce((SELECT max(seq) FROM parked), 0) + 1, coalesce((SELECT max(seq) FROM raw), 0) + 1)",
        [],
        |row| row.get(0),
    )?;
    u64::try_from(next).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, next))
}

/// Remembers the sequence number that is given next.
pub(super) fn save_next_seq(conn: &Connection, next: u64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'next_seq'")?
        .execute([rows::int(next)])
        .map(|_| ())
}

/// Rows from `first` on came from another instance, and nobody here knows how they were routed: what is known of the routing holds for
/// those before. It gets another name, for an older version goes by the usual one, and is to look at all rows.
pub(super) fn rows_came(conn: &Connection, first: u64) -> rusqlite::Result<()> {
    // After an import that no start has followed there is no usual one, and the rows of that one come first.
    conn.execute(
        "INSERT OR REPLACE INTO meta (name, value) SELECT 'routing_until', ?1 FROM meta WHERE name = 'routing'",
        [rows::int(first)],
    )?;
    conn.execute("UPDATE OR REPLACE meta SET name = 'routing_before' WHERE name = 'routing'", []).map(|_| ())
}

fn meta<T: FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    conn.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

/// Moves rows to the topics of today's configuration, where it differs from the one they were parked under. In steps;
/// the old fingerprint goes with the first and the new one comes with the last, so that what a start that was cut short
/// has moved is looked at again, also where the next one has the old configuration.
pub(super) fn reroute(conn: &mut Connection, routing: &Routing) -> rusqlite::Result<u64> {
    let known: Option<String> = meta(conn, "routing")?;
    if known.as_ref() == Some(&routing.fingerprint) {
        return Ok(0);
    }
    let (known, until) = match known {
        Some(known) => (Some(known), i64::MAX),
        None => (meta(conn, "routing_before")?, meta(conn, "routing_until")?.unwrap_or(0)),
    };
    let before = known.and_then(|known: String| (routing.before)(&known)).map(|before| (before, until));
    let mut moved = 0;
    let mut after = Some(-1);
    while let Some(from) = after {
        let transaction = conn.transaction()?;
        let known = "DELETE FROM meta WHERE name IN ('routing', 'routing_before', 'routing_until')";
        transaction.execute(known, [])?;
        let (more, last) = reroute_some(&transaction, routing, before.as_ref(), from)?;
        moved += more;
        after = last;
        if after.is_none() {
            transaction
                .execute("INSERT INTO meta (name, value) VALUES ('routing', ?1)", [&routing.fingerprint])?;
        }
        transaction.commit()?;
        conn.pragma_query(None, "wal_checkpoint", |_| Ok(()))?;
    }
    Ok(moved)
}

fn reroute_some(
    conn: &Connection,
    routing: &Routing,
    before: Option<&(TopicOf, i64)>,
    from: i64,
) -> rusqlite::Result<(u64, Option<i64>)> {
    let mut query = conn.prepare_cached(
        "SELECT seq, account, type, subject, topic, id, trace, enters, checksum FROM parked WHERE seq > ?1
         ORDER BY seq LIMIT ?2",
    )?;
    let mut found = query.query([from, REROUTE_ROWS])?;
    let mut moves = Vec::new();
    let mut last = None;
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        last = Some(seq);
        let before = before.filter(|(_, until)| seq < *until).map(|(before, _)| before);
        // One that cannot be read stays where it is.
        moves.extend(rows::readable(reroute_one(row, routing, before))?.flatten().map(|to| (seq, to)));
    }
    drop(found);
    let mut update = conn.prepare_cached("UPDATE parked SET topic = ?2, checksum = ?3 WHERE seq = ?1")?;
    for (seq, (topic, checksum)) in &moves {
        update.execute(rusqlite::params![seq, &**topic, checksum])?;
    }
    Ok((moves.len() as u64, last))
}

/// The topic to which a row goes from now on, where that is another, and its checksum then.
fn reroute_one(
    row: &Row<'_>,
    routing: &Routing,
    before: Option<&TopicOf>,
) -> rusqlite::Result<Option<(Text, Option<i64>)>> {
    let (account, subject, topic) =
        (row.get_ref(1)?.as_str()?, row.get_ref(3)?.as_str()?, row.get_ref(4)?.as_str()?);
    let (of, event_type) = (AccountId::new(account), rows::event_type(row, 2)?);
    let to = (routing.topic)(&of, event_type, subject);
    let Some(to) = to.filter(|to| **to != *topic) else { return Ok(None) };
    let had = before.and_then(|before| before(&of, event_type, subject));
    if had.is_some_and(|had| *had != *topic) {
        return Ok(None);
    }
    let covered = |topic| -> rusqlite::Result<_> {
        Ok(Covered {
            account: account.as_bytes(),
            topic,
            subject: subject.as_bytes(),
            event_type: row.get_ref(2)?.as_bytes()?,
            id: row.get_ref(5)?.as_blob()?,
            trace: row.get_ref(6)?.as_bytes_or_null()?,
            enters: row.get_ref(7)?.as_blob()?,
        })
    };
    let (before, after) = (covered(topic.as_bytes())?, covered(to.as_bytes())?);
    let checksum = row.get::<_, Option<i64>>(8)?.map(|checksum| before.moved(&after, checksum));
    Ok(Some((to, checksum)))
}
