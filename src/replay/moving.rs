//! An account on its way from one `data_dir` to another: all that the store has of it goes into one file, is taken out here, and comes
//! in there, in the same order. Both processes are stopped. Invariants: it is taken out only once the file is on disk; what is out is
//! marked, so that this instance refuses it; what came in once does not come in again. What dedup knows of it
//! rides in the same file: `deliver::dedup::moving`.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params};
use uuid::Uuid;

use super::tally::{Delta, Kind, Weight};
use super::{Act, DataDir, Entry, StoreError, Table, audit, entries, mend, rows, schema, staged, whole};
use crate::deliver::dedup::{FileError, moving as seen};
use crate::event::{AccountId, Millis};

/// The form of the file.
const FORM: i64 = 2;
/// The account is elsewhere: the value is the move's id.
pub const OUT: &str = "moved-out";
/// The account came with a move, whose id follows: kept also when it leaves again.
const IN: &str = "moved-in/";

const FILE: &str = "
    CREATE TABLE away.about (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;
    CREATE TABLE away.entry (tab TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, saved_at INTEGER NOT NULL,
        checksum BLOB) STRICT;
    CREATE TABLE away.seen (type TEXT NOT NULL, hour INTEGER NOT NULL, ids BLOB NOT NULL) STRICT;
    CREATE TABLE away.forgotten (id BLOB NOT NULL, at INTEGER NOT NULL) STRICT;
    CREATE TABLE away.parked AS SELECT * FROM main.parked WHERE 0;
    CREATE TABLE away.raw AS SELECT * FROM main.raw WHERE 0;
";

/// What moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Whose.
    pub account: AccountId,
    /// Parked events and raw messages.
    pub parked: u64,
    /// Cursors, pairs, states, tokens and the like.
    pub entries: u64,
    /// Those of all accounts here that were not as they were saved: each was restored, or is gone.
    pub damaged: u64,
    /// Ids that dedup knows.
    pub seen: u64,
}

/// An account cannot move.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no such account here.
    #[error("nothing is kept of account {0}: check its id, and which data_dir it is")]
    Unknown(AccountId),
    /// It has left.
    #[error(
        "account {0} was moved out of here already: import its file where it shall live, or here to take it back"
    )]
    Out(AccountId),
    /// It lives here.
    #[error("account {0} has data here already: an account is imported only where nothing is kept of it")]
    Here(AccountId),
    /// This very file came in before.
    #[error("this file was imported here before")]
    Again,
    /// It would overwrite something.
    #[error("{0} exists already: name a new file")]
    Exists(PathBuf),
    /// It would be written where something is.
    #[error(
        "{0} exists already: an export that was killed left it, another one writes it, or it is somebody else's; remove it or move it away, and export again"
    )]
    Left(PathBuf),
    /// The file is none of these, or is damaged.
    #[error("{path} is not an exported account, or is damaged: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What dedup knows.
    #[error("seen.db cannot be read or written: {0}")]
    Seen(FileError),
    /// The file cannot be written.
    #[error("{path} cannot be written")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes all of an account into the new file `to`, and takes it out of here.
///
/// # Errors
/// See [`MoveError`]: until the file is whole, nothing is taken out.
pub fn export(dir: &DataDir, account: &AccountId, to: &Path, now: Millis) -> Result<Moved, MoveError> {
    let path = dir.path().join("store.db");
    let store = |error| MoveError::Store(StoreError::of(&path, error));
    if to.exists() {
        return Err(MoveError::Exists(to.to_owned()));
    }
    let mut conn = schema::open(&path, None)?;
    let damaged = mended(&mut conn, now).map_err(store)?;
    if switch(&conn, account, OUT).map_err(store)?.is_some() {
        return Err(MoveError::Out(account.clone()));
    }
    let known = seen::read(dir.path(), account).map_err(MoveError::Seen)?;
    if is_unknown(&conn, account).map_err(store)? && known.is_nothing() {
        return Err(MoveError::Unknown(account.clone()));
    }
    let part = new_part(to)?;
    let id = Uuid::now_v7();
    let written = fill(&conn, &known, account, &part, id)
        .and_then(|moved| finish(&part, to).map(|()| moved).map_err(Filling::File));
    let mut moved = match written {
        Ok(moved) => moved,
        Err(error) => {
            // SQLite's journal of the part goes with the connection; the part itself would be in the next export's way.
            drop(conn);
            std::fs::remove_file(&part).unwrap_or_default();
            return Err(match error {
                Filling::Here(error) => store(error),
                Filling::Seen(error) => MoveError::Seen(error.into()),
                Filling::File(source) => MoveError::Unwritable { path: to.to_owned(), source },
            });
        }
    };
    moved.damaged = damaged;
    // Whoever was told the same name may have taken it meanwhile.
    let there =
        move_of(to).map_err(|error| MoveError::Unreadable { path: to.to_owned(), why: error.to_string() })?;
    if there != id.to_string() {
        return Err(MoveError::Exists(to.to_owned()));
    }
    // From here on it lives in the file alone.
    let take_out = |conn: &mut Connection| {
        let transaction = conn.transaction()?;
        count(&transaction, account, Delta::take)?;
        for table in Table::ALL {
            for place in [Some(table.name()), table.copy()].into_iter().flatten() {
                let sql = format!("DELETE FROM {place} WHERE account = ?1{}", but_moves(table));
                transaction.execute(&sql, [account.as_str()])?;
            }
        }
        for table in ["parked", "raw"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE account = ?1"), [account.as_str()])?;
        }
        set_switch(&transaction, account, OUT, &id, now)?;
        audit::record(&transaction, &act("account.export", account, &id, now))?;
        transaction.commit()
    };
    take_out(&mut conn).map_err(store)?;
    Ok(moved)
}

/// As at a start, before anything is read: no entry is damaged, and what was decided on is in its table. How many were damaged.
fn mended(conn: &mut Connection, now: Millis) -> rusqlite::Result<u64> {
    let mut damaged = 0;
    for table in Table::ALL {
        mend::read(conn, table, now, &mut damaged)?;
    }
    staged::settle(conn)?;
    Ok(damaged)
}

/// Makes the file under the name that it has for as long as it is written, where that is nobody else's.
fn new_part(to: &Path) -> Result<PathBuf, MoveError> {
    let part = schema::part_of(to);
    match File::options().write(true).create_new(true).mode(0o600).open(&part) {
        // Another export of that name had the part until now: only who has it gives anything the name.
        Ok(_) if to.exists() => {
            std::fs::remove_file(&part).unwrap_or_default();
            Err(MoveError::Exists(to.to_owned()))
        }
        Ok(_) => Ok(part),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(MoveError::Left(part)),
        Err(source) => Err(MoveError::Unwritable { path: to.to_owned(), source }),
    }
}

/// Gives the file its name, once it is on disk.
fn finish(part: &Path, to: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    std::fs::rename(part, to)?;
    schema::sync_folder_of(to)
}

/// Which move a file is of.
fn move_of(path: &Path) -> rusqlite::Result<String> {
    let conn = schema::open_to_read(path)?;
    conn.query_row("SELECT value FROM about WHERE name = 'move'", [], |row| row.get(0))
}

/// What failed while the file was written.
enum Filling {
    Here(rusqlite::Error),
    Seen(rusqlite::Error),
    File(io::Error),
}

impl From<rusqlite::Error> for Filling {
    /// The store is only read meanwhile: what cannot be written is the file.
    fn from(error: rusqlite::Error) -> Self {
        let is_of_writing = error.sqlite_error().is_some_and(|error| match error.code {
            ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::ReadOnly => true,
            ErrorCode::SystemIoFailure => !matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_READ
                    | ffi::SQLITE_IOERR_SHORT_READ
                    | ffi::SQLITE_IOERR_DATA
                    | ffi::SQLITE_IOERR_CORRUPTFS
            ),
            // A set of SQLite's that grows with it: none of them is of writing.
            _ => false,
        });
        if is_of_writing { Self::File(io::Error::other(error)) } else { Self::Here(error) }
    }
}

fn fill(
    conn: &Connection,
    known: &seen::Known,
    account: &AccountId,
    part: &Path,
    id: Uuid,
) -> Result<Moved, Filling> {
    let name = account.as_str();
    conn.execute("ATTACH DATABASE ?1 AS away", [part.to_string_lossy()])?;
    conn.execute_batch(&format!("PRAGMA away.synchronous = FULL; BEGIN; {FILE}"))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut about = conn.prepare("INSERT INTO away.about (name, value) VALUES (?1, ?2)")?;
    about.execute(params!["form", FORM])?;
    about.execute(params!["store", version])?;
    about.execute(params!["account", name])?;
    about.execute(params!["move", id.to_string()])?;
    let mut entries = 0;
    for table in Table::ALL {
        let sql = format!(
            "INSERT INTO away.entry SELECT '{0}', key, value, saved_at, checksum FROM main.{0} WHERE account = ?1{1}",
            table.name(),
            but_moves(table)
        );
        entries += conn.execute(&sql, [name])? as u64;
    }
    let mut parked = 0;
    for table in ["parked", "raw"] {
        let sql =
            format!("INSERT INTO away.{table} SELECT * FROM main.{table} WHERE account = ?1 ORDER BY seq");
        parked += conn.execute(&sql, [name])? as u64;
    }
    let mut ids = conn.prepare("INSERT INTO away.seen (type, hour, ids) VALUES (?1, ?2, ?3)")?;
    let mut forgotten = conn.prepare("INSERT INTO away.forgotten (id, at) VALUES (?1, ?2)")?;
    let mut seen = 0;
    for hour in known.hours() {
        let (event_type, number, found) = hour.map_err(Filling::Seen)?;
        seen += (found.len() / seen::WIDTH) as u64;
        ids.execute(params![event_type.as_str(), number, found])?;
    }
    for (id, at) in known.forgotten() {
        forgotten.execute(params![id.as_slice(), at])?;
    }
    drop((about, ids, forgotten));
    conn.execute_batch("COMMIT; DETACH DATABASE away")?;
    Ok(Moved { account: account.clone(), parked, entries, damaged: 0, seen })
}

/// Whether its entries are as they were exported. Those of older formats have nothing to compare with.
fn are_whole(away: &Away) -> rusqlite::Result<bool> {
    let mut query =
        away.conn.prepare("SELECT key, value, saved_at, checksum FROM entry WHERE checksum IS NOT NULL")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (key, value) = (row.get_ref(0)?.as_bytes()?, row.get_ref(1)?.as_bytes()?);
        let now = whole::of_entry(away.account.as_str().as_bytes(), key, value, row.get(2)?);
        if row.get_ref(3)?.as_blob()? != &now[..] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes an exported account in, behind what is parked here already. Whose it is, the file says.
///
/// # Errors
/// See [`MoveError`]: nothing came in.
pub fn import(dir: &DataDir, from: &Path, now: Millis) -> Result<Moved, MoveError> {
    let path = dir.path().join("store.db");
    let store = |error| MoveError::Store(StoreError::of(&path, error));
    let unreadable = |why: String| MoveError::Unreadable { path: from.to_owned(), why };
    let away = look(from).map_err(|error| unreadable(error.to_string()))?;
    let mut conn = schema::open(&path, None)?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(store)?;
    if away.form != FORM || away.store != version {
        return Err(unreadable(format!(
            "another version of fleetbus wrote it (form {}, store {}; here {FORM}, {version}): import with that version",
            away.form, away.store
        )));
    }
    let account = &away.account;
    if !are_whole(&away).map_err(|error| unreadable(error.to_string()))? {
        return Err(unreadable("some of it is not as it was exported: copy the file again".to_owned()));
    }
    let damaged = mended(&mut conn, now).map_err(store)?;
    let came = format!("{IN}{}", away.id);
    if switch(&conn, account, &came).map_err(store)?.is_some() {
        return Err(MoveError::Again);
    }
    if !is_unknown(&conn, account).map_err(store)? {
        return Err(MoveError::Here(account.clone()));
    }
    // First what dedup knows: where the rest does not come in, it does no harm, and may come in again.
    let seen = seen::write(dir.path(), account, &away.conn).map_err(MoveError::Seen)?;
    drop(away.conn);
    conn.execute("ATTACH DATABASE ?1 AS away", [from.to_string_lossy()]).map_err(store)?;
    let take_in = |conn: &mut Connection| {
        let first = schema::next_seq(conn)?;
        let transaction = conn.transaction()?;
        let (parked, next) = take_in_rows(&transaction, first)?;
        let mut entries = 0;
        for table in Table::ALL {
            let came_in = |place: &str| {
                let sql = format!(
                    "INSERT INTO main.{place} (account, key, value, saved_at, checksum)
                     SELECT ?1, key, value, saved_at, checksum FROM away.entry WHERE tab = '{}'",
                    table.name()
                );
                transaction.execute(&sql, [account.as_str()])
            };
            entries += came_in(table.name())? as u64;
            table.copy().map_or(Ok(0), came_in)?;
        }
        count(&transaction, account, Delta::add)?;
        schema::save_next_seq(&transaction, next)?;
        // Rows of another configuration may belong to other topics: the next start looks.
        schema::rows_came(&transaction, first)?;
        entries::remove(&transaction, Table::Switches, account, OUT)?;
        set_switch(&transaction, account, &came, &away.id, now)?;
        audit::record(&transaction, &act("account.import", account, &away.id, now))?;
        transaction.commit()?;
        Ok((parked, entries))
    };
    let (parked, entries) = take_in(&mut conn).map_err(store)?;
    conn.execute_batch("DETACH DATABASE away").map_err(store)?;
    Ok(Moved { account: account.clone(), parked, entries, damaged, seen })
}

/// Events and raw bytes in the order that they had, from the number `next` on. How many, and the number after them.
fn take_in_rows(conn: &Connection, next: u64) -> rusqlite::Result<(u64, u64)> {
    // By its own number each row is found at once: the file's tables have no key.
    let mut order = conn.prepare(
        "SELECT seq, 0, rowid FROM away.parked UNION ALL SELECT seq, 1, rowid FROM away.raw ORDER BY 1",
    )?;
    // No attempt is under way: whatever was provisional is so no more.
    let mut event = conn.prepare(
        "INSERT INTO main.parked (seq, account, topic, subject, type, id, reason, held, parked_at, cost, error, trace,
                                  for_bus, enters, payload, checksum)
         SELECT ?2, account, topic, subject, type, id, reason, 0, parked_at, cost, error, trace, for_bus, enters, payload,
                checksum
         FROM away.parked WHERE rowid = ?1",
    )?;
    let mut raw = conn.prepare(
        "INSERT INTO main.raw (seq, digest, account, source, received_at, reason, cost, error, body, checksum)
         SELECT ?2, digest, account, source, received_at, reason, cost, error, body, checksum FROM away.raw WHERE rowid = ?1",
    )?;
    let mut rows = order.query([])?;
    let mut given = next;
    while let Some(row) = rows.next()? {
        let (is_raw, rowid): (i64, i64) = (row.get(1)?, row.get(2)?);
        let insert = if is_raw == 1 { &mut raw } else { &mut event };
        insert.execute(params![rowid, rows::int(given)])?;
        given += 1;
    }
    // Rows of an older version have no checksum, and none is made here of bytes that nobody compared.
    conn.execute(
        "UPDATE main.meta SET value = max(value, ?1) WHERE name = 'checksums_from' AND EXISTS
         (SELECT 1 FROM away.parked WHERE checksum IS NULL UNION ALL SELECT 1 FROM away.raw WHERE checksum IS NULL)",
        [rows::int(given)],
    )?;
    Ok((given - next, given))
}

/// An exported account, looked at.
struct Away {
    conn: Connection,
    form: i64,
    store: i64,
    account: AccountId,
    id: String,
}

fn look(path: &Path) -> rusqlite::Result<Away> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let sound: String = conn.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if sound != "ok" {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let number = |name| conn.query_row("SELECT value FROM about WHERE name = ?1", [name], |row| row.get(0));
    let text = |name| {
        conn.query_row("SELECT value FROM about WHERE name = ?1", [name], |row| row.get::<_, String>(0))
    };
    let (form, store) = (number("form")?, number("store")?);
    let (account, id) = (AccountId::new(&text("account")?), text("move")?);
    Ok(Away { conn, form, store, account, id })
}

/// Accounts that live elsewhere now.
pub(super) fn moved_out(switches: &[Entry]) -> Vec<AccountId> {
    switches.iter().filter(|switch| switch.key == OUT).map(|switch| switch.account.clone()).collect()
}

fn switch(conn: &Connection, account: &AccountId, key: &str) -> rusqlite::Result<Option<String>> {
    Ok(entries::get(conn, Table::Switches, account, key)?.found.map(|switch| switch.value))
}

fn set_switch(
    conn: &Connection,
    account: &AccountId,
    key: &str,
    id: &impl ToString,
    now: Millis,
) -> rusqlite::Result<()> {
    let (account, key) = (account.clone(), key.to_owned());
    entries::put(conn, Table::Switches, &Entry { account, key, value: id.to_string(), saved_at: now })
}

/// Whether nothing is kept of an account, but for marks of moves.
fn is_unknown(conn: &Connection, account: &AccountId) -> rusqlite::Result<bool> {
    let of_entries = Table::ALL.into_iter().map(|table| (table.name(), but_moves(table)));
    let mut known =
        of_entries.chain(["parked", "raw"].map(|table| (table, String::new()))).map(|(table, but)| {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{table} WHERE account = ?1{but})");
            conn.query_row(&sql, [account.as_str()], |row| row.get::<_, bool>(0))
        });
    known.try_fold(true, |unknown, found| Ok(unknown && !found?))
}

/// Marks of moves belong to the instance, not to the account.
fn but_moves(table: Table) -> String {
    match table {
        Table::Switches => format!(" AND key <> '{OUT}' AND substr(key, 1, {}) <> '{IN}'", IN.len()),
        Table::Cursors
        | Table::Directory
        | Table::States
        | Table::CustomData
        | Table::Tokens
        | Table::Jobs => String::new(),
    }
}

/// Books all rows of an account, into or out of the counts.
fn count(conn: &Connection, account: &AccountId, book: fn(&mut Delta, &Weight)) -> rusqlite::Result<()> {
    let mut delta = Delta::default();
    for (table, at) in [("parked", "parked_at"), ("raw", "received_at")] {
        let mut query =
            conn.prepare(&format!("SELECT reason, cost, {at} FROM main.{table} WHERE account = ?1"))?;
        let mut found = query.query([account.as_str()])?;
        while let Some(row) = found.next()? {
            let (code, cost): (i64, i64) = (row.get(0)?, row.get(1)?);
            let kind = Kind::of_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, code))?;
            let cost = u64::try_from(cost).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, cost))?;
            book(&mut delta, &Weight { account: account.clone(), kind, cost, at: Millis(row.get(2)?) });
        }
    }
    delta.write(conn)
}

fn act(act: &'static str, account: &AccountId, id: &impl ToString, now: Millis) -> Act {
    Act {
        at: now,
        who: "command line".to_owned(),
        act,
        account: Some(account.clone()),
        object: id.to_string(),
        before: None,
        after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(account: &str, key: &str) -> Entry {
        let (account, key) = (AccountId::new(account), key.to_owned());
        Entry { account, key, value: "{}".to_owned(), saved_at: Millis(7) }
    }

    fn open(dir: &DataDir) -> Connection {
        schema::open(&dir.path().join("store.db"), None).unwrap()
    }

    /// Where `acme` has a cursor.
    async fn stopped() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(&folder.path().join("data")).await.unwrap();
        entries::put(&open(&dir), Table::Cursors, &entry("acme", "v2/trips")).unwrap();
        (folder, dir)
    }

    #[tokio::test]
    async fn an_export_shares_its_part_with_no_other_and_removes_no_file_that_it_did_not_make() {
        let (folder, dir) = stopped().await;
        let acme = AccountId::new("acme");
        let [to, unrelated, left] =
            ["eu.acme", "eu.part", "eu.acme.part"].map(|name| folder.path().join(name));
        std::fs::write(&unrelated, "unrelated").unwrap();
        std::fs::write(&left, "left").unwrap();
        let refused = export(&dir, &acme, &to, Millis(8)).unwrap_err();
        assert!(matches!(&refused, MoveError::Left(path) if *path == left), "{refused}");
        assert_eq!(std::fs::read(&left).unwrap(), b"left");
        std::fs::remove_file(&left).unwrap();
        assert_eq!(export(&dir, &acme, &to, Millis(8)).unwrap().entries, 1);
        assert_eq!(std::fs::read(&unrelated).unwrap(), b"unrelated");
        assert!(to.exists() && !left.exists());
    }

    #[tokio::test]
    async fn what_was_decided_on_and_is_not_in_its_table_yet_moves_with_its_account() {
        let (folder, dir) = stopped().await;
        let acme = AccountId::new("acme");
        let staged = staged::parts(vec![entry("acme", "tracker/1"), entry("zeta", "tracker/1")]);
        for part in staged.into_iter().chain([staged::decided(Millis(7))]) {
            entries::put(&open(&dir), Table::Jobs, &part).unwrap();
        }
        let to = folder.path().join("acme.moved");
        assert_eq!(export(&dir, &acme, &to, Millis(8)).unwrap().entries, 2);
        assert!(!staged::is_unsettled(&open(&dir)).unwrap());
        assert!(!is_unknown(&open(&dir), &AccountId::new("zeta")).unwrap());

        let other = DataDir::lock(&folder.path().join("other")).await.unwrap();
        let staged = staged::parts(vec![entry("acme", "tracker/2")]);
        for part in staged.into_iter().chain([staged::decided(Millis(7))]) {
            entries::put(&open(&other), Table::Jobs, &part).unwrap();
        }
        let refused = import(&other, &to, Millis(9)).unwrap_err();
        assert!(matches!(refused, MoveError::Here(_)), "{refused}");
        entries::remove(&open(&other), Table::CustomData, &acme, "tracker/2").unwrap();
        assert_eq!(import(&other, &to, Millis(9)).unwrap().entries, 2);
    }

    #[track_caller]
    fn check(extended: i32, is_of_file: bool) {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None);
        assert_eq!(matches!(Filling::from(error), Filling::File(_)), is_of_file, "{extended}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_not_a_store_that_fails() {
        check(ffi::SQLITE_FULL, true);
        check(ffi::SQLITE_CANTOPEN, true);
        check(ffi::SQLITE_READONLY, true);
        check(ffi::SQLITE_IOERR_WRITE, true);
        check(ffi::SQLITE_IOERR_FSYNC, true);
        check(ffi::SQLITE_IOERR_READ, false);
        check(ffi::SQLITE_CORRUPT, false);
        check(ffi::SQLITE_NOTADB, false);
    }
}
