//! What an operator did to a running bridge, kept in `store.db`. Invariants: an entry is committed with the change that it
//! tells of, or not at all; none is ever changed; beyond a bound the oldest are cut off. No secret and no payload goes in:
//! who writes an entry says what may be read.

use rusqlite::{Connection, Row, params};

use super::entries::{self, Entry, Table};
use crate::event::{AccountId, Millis};

/// The most entries that are kept.
const KEPT: i64 = 100_000;

/// One act, before it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Millis,
    /// Who: the name of an admin token, or `loopback`.
    pub who: String,
    /// What was done, such as `token.create`.
    pub act: &'static str,
    /// Whose.
    pub account: Option<AccountId>,
    /// To what, such as a token's id or a filter.
    pub object: String,
    /// How it was, as JSON, where there was something.
    pub before: Option<String>,
    /// How it is now, as JSON.
    pub after: Option<String>,
}

/// An act that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the order.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// Who.
    pub who: String,
    /// What was done.
    pub act: String,
    /// Whose; empty where it is of none.
    pub account: String,
    /// To what.
    pub object: String,
    /// How it was.
    pub before: Option<String>,
    /// How it is since.
    pub after: Option<String>,
}

/// A change of an entry, made together with others and with the act that tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets an entry.
    Put(Table, Entry),
    /// Removes one, where it is there.
    Remove(Table, AccountId, String),
}

impl Change {
    pub(super) fn make(&self, conn: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Put(table, entry) => entries::put(conn, *table, entry),
            Self::Remove(table, account, key) => entries::remove(conn, *table, account, key),
        }
    }
}

/// Which acts.
#[derive(Debug, Clone, Default)]
pub struct Acts {
    /// Of one account.
    pub account: Option<AccountId>,
    /// Of one kind, such as `token.create`; `token.` is every act on tokens.
    pub act: Option<String>,
}

pub(super) fn record(conn: &Connection, act: &Act) -> rusqlite::Result<()> {
    let account = act.account.as_ref().map_or("", AccountId::as_str);
    conn.prepare_cached(
        "INSERT INTO audit (at, who, act, account, object, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![act.at.0, act.who, act.act, account, act.object, act.before, act.after])?;
    conn.prepare_cached("DELETE FROM audit WHERE seq <= ?1")?
        .execute([conn.last_insert_rowid().saturating_sub(KEPT)])
        .map(|_| ())
}

/// Up to `limit` acts before a place, newest first.
pub(super) fn page(
    conn: &Connection,
    acts: &Acts,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<Recorded>> {
    let before = before.and_then(|seq| i64::try_from(seq).ok()).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let account = acts.account.as_ref().map(AccountId::as_str);
    let mut query = conn.prepare_cached(
        "SELECT seq, at, who, act, account, object, before, after FROM audit
         WHERE seq < ?1 AND (?2 IS NULL OR account = ?2) AND (?3 IS NULL OR substr(act, 1, length(?3)) = ?3)
         ORDER BY seq DESC LIMIT ?4",
    )?;
    query.query_map(params![before, account, acts.act, limit], recorded)?.collect()
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    Ok(Recorded {
        seq: row.get(0)?,
        at: Millis(row.get(1)?),
        who: row.get(2)?,
        act: row.get(3)?,
        account: row.get(4)?,
        object: row.get(5)?,
        before: row.get(6)?,
        after: row.get(7)?,
    })
}
