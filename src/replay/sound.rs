//! The files of a `data_dir` that no bridge has, looked at from outside: whether they are sound, and a copy of the store.
//! Invariant: nothing is changed. What a running bridge does for a copy is in `still`.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use super::log::{self, Look};
use super::{DamagedEntry, DataDir, entries, schema, whole};

/// What was found in a file beyond its pages.
#[derive(Default)]
struct Found {
    /// What it holds.
    holds: Option<String>,
    /// What is wrong with it.
    findings: Vec<String>,
    /// What is wrong with single rows of it, which harms no other.
    of_rows: Vec<String>,
    /// Why it is another version's to say.
    unjudged: Option<String>,
}

type Contents = fn(&Connection) -> rusqlite::Result<Found>;

type Open = fn(&Path) -> rusqlite::Result<Connection>;

/// The files, and what each is asked.
const FILES: [(&str, Contents); 3] = [("store.db", of_store), ("seen.db", of_pages), ("local.db", of_pages)];
/// The most findings of SQLite's for a file: enough to see what is wrong with it.
const FINDINGS: usize = 20;
/// The most damaged entries that are named.
const NAMED: usize = 100;

/// Rows that the store's counts do not count, or that are not there: the one thing that SQLite cannot know.
const MISCOUNTED: &str = "
    SELECT count(*) FROM (SELECT account, reason AS kind, count(*) AS rows, sum(cost) AS bytes FROM
        (SELECT account, reason, cost FROM parked UNION ALL SELECT account, reason, cost FROM raw) GROUP BY 1, 2) AS there
    FULL JOIN (SELECT * FROM tally WHERE rows <> 0 OR bytes <> 0) AS counted USING (account, kind)
    WHERE there.rows IS NOT counted.rows OR there.bytes IS NOT counted.bytes";

/// What was found of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name.
    pub file: &'static str,
    /// What is worth knowing of it: what it holds, and that its last transaction was cut off.
    pub notes: Vec<String>,
    /// What is wrong with it, a sentence each.
    pub findings: Vec<String>,
    /// Why nothing can be said of it: this user may not open it, or another version wrote it.
    pub unjudged: Option<String>,
}

impl Checked {
    /// Whether nothing is wrong with it.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.unjudged.is_none()
    }
}

/// Looks at every file that is there.
#[must_use]
pub fn check(dir: &DataDir) -> Vec<Checked> {
    let there = FILES.into_iter().filter(|(file, _)| dir.path().join(file).exists());
    there
        .map(|(file, contents)| {
            check_file(file, &dir.path().join(file), schema::open_to_read, contents, OfRows::AreFindings)
        })
        .collect()
}

/// Whether rows that are damaged make a file an unsound one. A copy of a store that has such rows is as sound as the store, else
/// there would be no backups any more.
#[derive(Clone, Copy)]
enum OfRows {
    AreFindings,
    AreNotes,
}

fn check_file(file: &'static str, path: &Path, open: Open, contents: Contents, of_rows: OfRows) -> Checked {
    let mut checked = Checked { file, notes: Vec::new(), findings: Vec::new(), unjudged: None };
    if let Err(error) = File::options().read(true).write(true).open(path) {
        checked.unjudged = Some(format!("it cannot be opened by this user: {error}"));
        return checked;
    }
    let Checked { notes, findings, unjudged, .. } = &mut checked;
    match log::look(path) {
        Ok(Look::Sound) => {}
        // Nobody was told of it; the next start passes it over.
        Ok(Look::Torn) => {
            notes.push("its last transaction is cut off, as a kill or a power cut leaves it".to_owned());
        }
        Ok(Look::Damaged { commits }) => {
            findings.push(format!("its log is damaged: at least {commits} transactions cannot be read"));
        }
        Err(error) => findings.push(format!("its log cannot be read: {error}")),
    }
    let looked = open(path).and_then(|conn| {
        findings.extend(integrity(&conn)?);
        let found = contents(&conn)?;
        findings.extend(found.findings);
        notes.extend(found.holds);
        *unjudged = found.unjudged;
        match of_rows {
            OfRows::AreFindings => findings.extend(found.of_rows),
            OfRows::AreNotes => notes.extend(found.of_rows),
        }
        Ok(())
    });
    if let Err(error) = looked {
        findings.push(format!("it cannot be read: {error}"));
    }
    checked
}

fn integrity(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut query = conn.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
    let lines = query.query_map([], |row| row.get::<_, String>(0))?;
    lines.filter(|line| line.as_deref() != Ok("ok")).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "one of several")]
fn of_pages(_: &Connection) -> rusqlite::Result<Found> {
    Ok(Found::default())
}

fn of_store(conn: &Connection) -> rusqlite::Result<Found> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > schema::known() {
        let why = format!("it has format {version}, and this version knows {} at most", schema::known());
        return Ok(Found { unjudged: Some(why), ..Found::default() });
    }
    let count = |sql| conn.query_row(sql, [], |row| row.get::<_, u64>(0));
    let (events, raw) = (count("SELECT count(*) FROM parked")?, count("SELECT count(*) FROM raw")?);
    let holds = format!("format {version}, {events} events and {raw} raw messages");
    let mut findings = Vec::new();
    let miscounted = count(MISCOUNTED)?;
    if miscounted > 0 {
        findings.push(format!("{miscounted} of its counts are not those of its rows"));
    }
    let damaged = whole::damaged(conn)?;
    let mut of_rows = Vec::new();
    if damaged.count > 0 {
        of_rows.push(format!("{} of its rows are not as they were parked: {damaged}", damaged.count));
    }
    let mut entries = Vec::new();
    for place in entries::places(conn)? {
        entries.extend(entries::damaged(conn, place)?);
    }
    of_rows.extend(told(&entries));
    Ok(Found { holds: Some(holds), findings, of_rows, unjudged: None })
}

/// Damaged entries, in a sentence.
pub(super) fn told(entries: &[DamagedEntry]) -> Option<String> {
    let first: Vec<String> = entries.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if entries.len() > NAMED { " and more" } else { "" };
    let sentence =
        format!("{} of its entries are not as they were saved: {}{more}", entries.len(), first.join(", "));
    (!entries.is_empty()).then_some(sentence)
}

/// Copies the store of a bridge that does not run, log and all, into an empty file.
///
/// # Errors
/// What SQLite says: that the store is damaged, or there is no room.
pub fn backup(dir: &DataDir, to: &Path) -> rusqlite::Result<()> {
    let conn = schema::open_to_read(&dir.path().join("store.db"))?;
    conn.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map(|_| ())
}

/// Looks at a copy of the store.
#[must_use]
pub fn check_copy(path: &Path) -> Checked {
    check_file("the copy", path, schema::open_copy, of_store, OfRows::AreNotes)
}
