//! What the store keeps beside parked rows, by account and key: small values that must survive a restart. One table
//! each, all of the same shape, so that one set of statements serves them. Invariants: an entry is compared with its checksum
//! whenever it is read, and none that differs is given to anyone; what must not be lost is kept twice, in one transaction.
//! Neighbours: `whole` has the checksum, `mend` sets a table right at the start.

use std::fmt;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{staged, whole};
use crate::event::{AccountId, Millis};

/// The format since which entries have checksums, and some of them copies.
const SINCE: i64 = 5;

/// A table of entries. A closed set: each is one table in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Where a poller goes on: key `API/FEED`.
    Cursors,
    /// What is known of devices: the pairs that were learnt.
    Directory,
    /// Last states: what an edge is told from.
    States,
    /// An operator's data about objects: key `KIND/OBJECT`, value JSON.
    CustomData,
    /// Webhook tokens, hashed: key is the token's id.
    Tokens,
    /// Replays and backfills that go on after a restart: key `KIND/ID`, value JSON; the account is empty where it is of all.
    Jobs,
    /// What an operator switched: key such as `paused/API/FEED`.
    Switches,
}

impl Table {
    /// All of them.
    pub(super) const ALL: [Self; 7] = [
        Self::Cursors,
        Self::Directory,
        Self::States,
        Self::CustomData,
        Self::Tokens,
        Self::Jobs,
        Self::Switches,
    ];

    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cursors => "cursors",
            Self::Directory => "directory",
            Self::States => "states",
            Self::CustomData => "custom_data",
            Self::Tokens => "tokens",
            Self::Jobs => "jobs",
            Self::Switches => "switches",
        }
    }

    /// Where its entries are a second time: a cursor, a token, a job or a switch that is lost costs events, access, or what an
    /// operator said. The others are many, and are learnt or said again.
    pub(super) const fn copy(self) -> Option<&'static str> {
        match self {
            Self::Cursors => Some("cursors_copy"),
            Self::Tokens => Some("tokens_copy"),
            Self::Jobs => Some("jobs_copy"),
            Self::Switches => Some("switches_copy"),
            Self::Directory | Self::States | Self::CustomData => None,
        }
    }

    /// The same for one entry: what is staged is large, and there for a moment.
    fn copy_of(self, key: &str) -> Option<&'static str> {
        self.copy().filter(|_| !key.starts_with(staged::PARTS))
    }
}

/// Where entries are: a table, or its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of which table.
    pub table: Table,
    name: &'static str,
}

impl Place {
    pub(super) const fn of(table: Table) -> Self {
        Self { table, name: table.name() }
    }

    pub(super) fn of_copy(table: Table) -> Option<Self> {
        table.copy().map(|name| Self { table, name })
    }
}

/// Its name in the file.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub key: String,
    /// What.
    pub value: String,
    /// When it was saved.
    pub saved_at: Millis,
}

/// An entry that is not as it was saved: a bit of it turned on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedEntry {
    /// Where it is.
    pub place: Place,
    /// Whose, and which, where that at least is as it was.
    pub name: Option<(AccountId, String)>,
}

/// For an operator.
impl fmt::Display for DamagedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some((account, key)) if account.as_str().is_empty() => write!(f, "{} {key}", self.place.name),
            Some((account, key)) => write!(f, "{} {account} {key}", self.place.name),
            None => write!(f, "{} (which, cannot be told)", self.place.name),
        }
    }
}

/// What was found, and what is damaged of that through which it was looked.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) found: T,
    pub(super) damaged: Vec<DamagedEntry>,
}

pub(super) fn put(conn: &Connection, table: Table, entry: &Entry) -> rusqlite::Result<()> {
    insert(conn, table.name(), entry)?;
    table.copy_of(&entry.key).map_or(Ok(()), |copy| insert(conn, copy, entry))
}

fn insert(conn: &Connection, name: &str, entry: &Entry) -> rusqlite::Result<()> {
    let Entry { account, key, value, saved_at } = entry;
    let account = account.as_str();
    let checksum = whole::of_entry(account.as_bytes(), key.as_bytes(), value.as_bytes(), saved_at.0);
    let sql = format!(
        "INSERT OR REPLACE INTO {name} (account, key, value, saved_at, checksum) VALUES (?1, ?2, ?3, ?4, ?5)"
    );
    conn.prepare_cached(&sql)?.execute(params![account, key, value, saved_at.0, checksum]).map(|_| ())
}

pub(super) fn remove(
    conn: &Connection,
    table: Table,
    account: &AccountId,
    key: &str,
) -> rusqlite::Result<()> {
    let delete = |name: &str, how: &str| {
        let sql = format!("DELETE FROM {name} WHERE {how}");
        conn.prepare_cached(&sql)?.execute(params![account.as_str(), key])
    };
    let (search, look_through) = ("account = ?1 AND key = ?2", "+account = ?1 AND +key = ?2");
    let gone = delete(table.name(), search)?;
    if let Some(copy) = table.copy_of(key)
        && gone + delete(copy, search)? < 2
    {
        // A bit that turned in another's name may hide it from a search, and a token that was revoked must not come back.
        for name in [table.name(), copy] {
            delete(name, look_through)?;
        }
    }
    Ok(())
}

pub(super) fn removal(
    table: Table,
    account: AccountId,
    keys: Vec<String>,
) -> impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static {
    move |conn| keys.iter().try_for_each(|key| remove(conn, table, &account, key))
}

pub(super) fn get(
    conn: &Connection,
    table: Table,
    account: &AccountId,
    key: &str,
) -> rusqlite::Result<Found<Option<Entry>>> {
    let mut damaged = Vec::new();
    for place in [Some(Place::of(table)), Place::of_copy(table)].into_iter().flatten() {
        match get_of(conn, place, account, key)? {
            Some(Ok(entry)) => return Ok(Found { found: Some(entry), damaged }),
            Some(Err(one)) => damaged.push(one),
            None => {}
        }
    }
    Ok(Found { found: None, damaged })
}

fn get_of(
    conn: &Connection,
    place: Place,
    account: &AccountId,
    key: &str,
) -> rusqlite::Result<Option<Result<Entry, DamagedEntry>>> {
    let sql = format!(
        "SELECT account, key, value, saved_at, checksum FROM {} WHERE account = ?1 AND key = ?2",
        place.name
    );
    let mut query = conn.prepare_cached(&sql)?;
    query.query_row(params![account.as_str(), key], |row| entry(row, place)).optional()
}

/// What a row is, where it is as it was saved.
fn entry(row: &Row<'_>, place: Place) -> rusqlite::Result<Result<Entry, DamagedEntry>> {
    let text = |column: usize| row.get_ref(column).map(|text| text.as_str().ok());
    let (account, key, value) = (text(0)?, text(1)?, text(2)?);
    let saved_at = row.get_ref(3)?.as_i64().ok();
    let checksum = match row.get_ref(4)? {
        ValueRef::Blob(checksum) => Some(checksum),
        ValueRef::Null => None,
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => Some(&[][..]),
    };
    let Some((account, key)) = account.zip(key) else {
        return Ok(Err(DamagedEntry { place, name: None }));
    };
    let now = whole::of_entry(
        account.as_bytes(),
        key.as_bytes(),
        value.unwrap_or_default().as_bytes(),
        saved_at.unwrap_or_default(),
    );
    // Of an older format, but for what a bit that hides a row's last column makes of it: the texts are read one byte too early,
    // and begin with the kind of the checksum.
    let is_old = checksum.is_none() && ![account, key].iter().any(|text| text.starts_with(HIDDEN));
    let named = || (AccountId::new(account), key.to_owned());
    Ok(match (value, saved_at) {
        (Some(value), Some(saved_at)) if is_old || checksum == Some(&now[..]) => {
            let (account, key) = named();
            Ok(Entry { account, key, value: value.to_owned(), saved_at: Millis(saved_at) })
        }
        _ => {
            let is_named = is_old || checksum.and_then(|checksum| checksum.get(..4)) == Some(&now[..4]);
            Err(DamagedEntry { place, name: is_named.then(named) })
        }
    })
}

/// What SQLite writes for eight bytes.
const HIDDEN: char = '\u{1c}';

/// Those after a key, in the order of accounts and keys; of one account, or of all.
pub(super) fn page(
    conn: &Connection,
    table: Table,
    account: Option<&AccountId>,
    after: &(String, String),
    limit: usize,
) -> rusqlite::Result<Found<Vec<Entry>>> {
    let sql = format!(
        "SELECT account, key, value, saved_at, checksum FROM {} WHERE (account, key) > (?1, ?2) AND account <= ?3
         ORDER BY account, key",
        table.name()
    );
    // One account's keys begin after the pair of it and nothing, and end with it. No id is as large as the last.
    let (from, until) = match account {
        Some(account) => ((account.as_str(), after.1.as_str()), account.as_str()),
        None => ((after.0.as_str(), after.1.as_str()), "\u{10FFFF}"),
    };
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query(params![from.0, from.1, until])?;
    let mut page = Found { found: Vec::new(), damaged: Vec::new() };
    while page.found.len() < limit
        && let Some(row) = rows.next()?
    {
        match entry(row, Place::of(table))? {
            Ok(entry) => page.found.push(entry),
            Err(damaged) => {
                if let (Some((account, key)), Some(copy)) = (&damaged.name, Place::of_copy(table)) {
                    page.found.extend(get_of(conn, copy, account, key)?.and_then(Result::ok));
                }
                page.damaged.push(damaged);
            }
        }
    }
    Ok(page)
}

/// All there is in a place, in the order of accounts and keys, by no search: a bit that turned in a name hides no other.
pub(super) fn scan(conn: &Connection, place: Place) -> rusqlite::Result<Found<Vec<Entry>>> {
    let mut all = Found { found: Vec::new(), damaged: Vec::new() };
    look(conn, place, "checksum", &mut |row| match row {
        Ok(entry) => all.found.push(entry),
        Err(damaged) => all.damaged.push(damaged),
    })?;
    all.found.sort_by(|a, b| (&a.account, &a.key, a.saved_at).cmp(&(&b.account, &b.key, b.saved_at)));
    Ok(all)
}

/// The damaged entries of a place in a file that is only looked at, and may be damaged or old.
pub(super) fn damaged(conn: &Connection, place: Place) -> rusqlite::Result<Vec<DamagedEntry>> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut damaged = Vec::new();
    look(conn, place, if version < SINCE { "NULL" } else { "checksum" }, &mut |row| {
        damaged.extend(row.err());
    })?;
    Ok(damaged)
}

/// Where there are entries in a file.
pub(super) fn places(conn: &Connection) -> rusqlite::Result<Vec<Place>> {
    let mut query = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let all =
        Table::ALL.into_iter().flat_map(|table| [Some(Place::of(table)), Place::of_copy(table)]).flatten();
    Ok(all.filter(|place| names.iter().any(|name| name == place.name)).collect())
}

fn look(
    conn: &Connection,
    place: Place,
    checksum: &str,
    each: &mut dyn FnMut(Result<Entry, DamagedEntry>),
) -> rusqlite::Result<()> {
    let sql = format!("SELECT account, key, value, saved_at, {checksum} FROM {}", place.name);
    let mut query = conn.prepare(&sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        each(entry(row, place)?);
    }
    Ok(())
}

/// Sets a place to these entries and no others, through no search.
pub(super) fn make_anew(conn: &Connection, place: Place, entries: &[Entry]) -> rusqlite::Result<()> {
    conn.execute(&format!("DELETE FROM {}", place.name), [])?;
    let mut of_place = entries.iter().filter(|entry| {
        place.name == place.table.name() || place.table.copy_of(&entry.key) == Some(place.name)
    });
    of_place.try_for_each(|entry| insert(conn, place.name, entry))
}
