//! What the store keeps beside parked rows, by account and key: small values that must survive a restart. One table
//! each, all of the same shape, so that one set of statements serves them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::event::{AccountId, Millis};

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
    const fn name(self) -> &'static str {
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

pub(super) fn put(conn: &Connection, table: Table, entry: &Entry) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT OR REPLACE INTO {} (account, key, value, saved_at) VALUES (?1, ?2, ?3, ?4)",
        table.name()
    );
    let row = params![entry.account.as_str(), entry.key, entry.value, entry.saved_at.0];
    conn.prepare_cached(&sql)?.execute(row).map(|_| ())
}

pub(super) fn remove(
    conn: &Connection,
    table: Table,
    account: &AccountId,
    key: &str,
) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM {} WHERE account = ?1 AND key = ?2", table.name());
    conn.prepare_cached(&sql)?.execute(params![account.as_str(), key]).map(|_| ())
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
) -> rusqlite::Result<Option<Entry>> {
    let sql =
        format!("SELECT account, key, value, saved_at FROM {} WHERE account = ?1 AND key = ?2", table.name());
    conn.prepare_cached(&sql)?.query_row(params![account.as_str(), key], entry).optional()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        account: AccountId::new(row.get_ref(0)?.as_str()?),
        key: row.get(1)?,
        value: row.get(2)?,
        saved_at: Millis(row.get(3)?),
    })
}

/// Those after a key, in the order of accounts and keys; of one account, or of all.
pub(super) fn page(
    conn: &Connection,
    table: Table,
    account: Option<&AccountId>,
    after: &(String, String),
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let sql = format!(
        "SELECT account, key, value, saved_at FROM {} WHERE (account, key) > (?1, ?2) AND account <= ?3
         ORDER BY account, key LIMIT ?4",
        table.name()
    );
    // One account's keys begin after the pair of it and nothing, and end with it. No id is as large as the last.
    let (from, until) = match account {
        Some(account) => ((account.as_str(), after.1.as_str()), account.as_str()),
        None => ((after.0.as_str(), after.1.as_str()), "\u{10FFFF}"),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut query = conn.prepare_cached(&sql)?;
    query.query_map(params![from.0, from.1, until, limit], entry)?.collect()
}

/// All of a table: for those that memory holds anyway.
pub(super) fn all(conn: &Connection, table: Table) -> rusqlite::Result<Vec<Entry>> {
    page(conn, table, None, &(String::new(), String::new()), usize::MAX)
}
