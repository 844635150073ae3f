//! What an operator did to a running bridge, kept in `store.db`. Invariants: an entry is committed with the change that it
//! tells of, or not at all; none is ever changed; beyond a bound the oldest are cut off. No secret and no payload goes in:
//! who writes an entry says what may be read.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::entries::{self, Entry, Table};
use super::{Seq, rows};
use crate::event::{AccountId, Millis};

/// The most entries that are kept.
const KEPT: i64 = 100_000;
/// The most entries that are looked at for one question before others get their turn.
const SLICE_ROWS: i64 = 5_000;
/// The most originals of edited messages that are kept, and their bytes.
const ORIGINALS: [i64; 2] = [1_000, 64 << 20];

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

/// What was parked before an operator edited it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Under which number it was parked.
    pub seq: Seq,
    /// When it was edited.
    pub saved_at: Millis,
    /// By whom.
    pub who: String,
    /// Its topic; empty for raw bytes.
    pub topic: String,
    /// Its payload, or the raw bytes.
    pub bytes: Bytes,
}

/// Keeps an original, and of all only the newest.
pub(super) fn keep_original(conn: &Connection, original: &Original) -> rusqlite::Result<()> {
    let Original { seq, saved_at, who, topic, bytes } = original;
    conn.prepare_cached(
        "INSERT INTO originals (seq, saved_at, who, topic, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![rows::int(seq.0), saved_at.0, who, topic, &**bytes])?;
    conn.prepare_cached(
        "DELETE FROM originals WHERE place IN (SELECT place FROM (
             SELECT place, row_number() OVER newer AS nth, sum(length(bytes)) OVER newer AS held FROM originals
             WINDOW newer AS (ORDER BY place DESC)) WHERE nth > ?1 OR (held > ?2 AND nth > 1))",
    )?
    .execute(ORIGINALS)
    .map(|_| ())
}

/// Of one number, newest first.
pub(super) fn originals(conn: &Connection, seq: Seq) -> rusqlite::Result<Vec<Original>> {
    let mut query = conn.prepare_cached(
        "SELECT saved_at, who, topic, bytes FROM originals WHERE seq = ?1 ORDER BY place DESC",
    )?;
    let original = |row: &Row<'_>| {
        let bytes = Bytes::from(row.get::<_, Vec<u8>>(3)?);
        let (who, topic) = (row.get(1)?, row.get(2)?);
        Ok(Original { seq, saved_at: Millis(row.get(0)?), who, topic, bytes })
    };
    query.query_map([rows::int(seq.0)], original)?.collect()
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

/// Up to `limit` acts before a place, newest first, and before which place to go on: by then they are found, or enough was
/// looked at.
pub(super) fn slice(
    conn: &Connection,
    acts: &Acts,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<(Vec<Recorded>, Option<u64>)> {
    let (oldest, newest): (i64, i64) =
        conn.query_row("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM audit", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let before = before.and_then(|seq| i64::try_from(seq).ok()).unwrap_or(i64::MAX).min(newest + 1);
    let from = before.saturating_sub(SLICE_ROWS);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let account = acts.account.as_ref().map(AccountId::as_str);
    let mut query = conn.prepare_cached(
        "SELECT seq, at, who, act, account, object, before, after FROM audit
         WHERE seq < ?1 AND (?2 IS NULL OR account = ?2) AND (?3 IS NULL OR substr(act, 1, length(?3)) = ?3)
           AND seq >= ?5
         ORDER BY seq DESC LIMIT ?4",
    )?;
    let found = query.query_map(params![before, account, acts.act, limit, from], recorded)?;
    let next = u64::try_from(from).ok().filter(|_| from > oldest);
    Ok((found.collect::<Result<_, _>>()?, next))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::schema;

    #[test]
    fn a_question_looks_at_a_bounded_number_of_acts_and_finds_all_of_them_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = schema::open(&dir.path().join("store.db"), None).unwrap();
        let transaction = conn.transaction().unwrap();
        let act = |at: i64| Act {
            at: Millis(at),
            who: "ops".to_owned(),
            act: if at % 6_000 == 1 { "rare" } else { "reload" },
            account: None,
            object: String::new(),
            before: None,
            after: None,
        };
        (1..=12_000).for_each(|at| record(&transaction, &act(at)).unwrap());
        // Those before were cut off.
        transaction.execute("UPDATE audit SET seq = seq + 1000000", []).unwrap();
        let rare = Acts { account: None, act: Some("rare".to_owned()) };
        let (mut found, mut before, mut questions) = (Vec::new(), None, 0);
        loop {
            let (some, next) = slice(&transaction, &rare, before, 10).unwrap();
            found.extend(some.iter().map(|act| act.at.0));
            (before, questions) = (next, questions + 1);
            if before.is_none() {
                break;
            }
        }
        assert_eq!((found.as_slice(), questions), (&[6_001, 1][..], 3));
        assert_eq!(slice(&transaction, &rare, Some(1), 10).unwrap(), (Vec::new(), None));
    }
}
