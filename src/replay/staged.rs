//! Many entries set together, all or none, while others get their turns: they are written down in parts, decided on in one
//! small transaction, and moved to their table part by part. Invariants: what was decided on is seen through, by the next
//! start at the latest, before anything of the table is read; what was not is forgotten.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::entries::{self, Entry, Table};
use crate::event::{AccountId, Millis};

/// The table of entries that come in such numbers.
const TABLE: Table = Table::CustomData;
/// Entries of one part, and the bytes of their values: some milliseconds.
const PART: (usize, usize) = (500, 256 << 10);
/// Among the jobs: that the parts are decided on, and the parts, which follow it in the order of keys.
const DECIDED: &str = "staged";
pub(super) const PARTS: &str = "staged/";

#[derive(Serialize, Deserialize)]
struct Row {
    account: String,
    key: String,
    value: String,
    saved_at: i64,
}

/// Staged entries are of no account.
fn nobody() -> AccountId {
    AccountId::new("")
}

fn job(key: String, value: String, saved_at: Millis) -> Entry {
    Entry { account: nobody(), key, value, saved_at }
}

/// The entries, as parts to be written down one by one.
pub(super) fn parts(new: Vec<Entry>) -> Vec<Entry> {
    let mut parts = Vec::new();
    let (mut rows, mut bytes, mut saved_at) = (Vec::new(), 0, Millis(0));
    let mut close = |rows: &mut Vec<Row>, saved_at| {
        // Texts and numbers are always written.
        let value = serde_json::to_string(&std::mem::take(rows)).unwrap_or_default();
        parts.push(job(format!("{PARTS}{:08}", parts.len()), value, saved_at));
    };
    for Entry { account, key, value, saved_at: at } in new {
        (bytes, saved_at) = (bytes + value.len(), at);
        rows.push(Row { account: account.as_str().to_owned(), key, value, saved_at: at.0 });
        if rows.len() >= PART.0 || bytes >= PART.1 {
            close(&mut rows, saved_at);
            bytes = 0;
        }
    }
    if !rows.is_empty() {
        close(&mut rows, saved_at);
    }
    parts
}

/// That the parts are all there, and hold from now on.
pub(super) fn decided(at: Millis) -> Entry {
    job(DECIDED.to_owned(), String::new(), at)
}

/// Moves one part, or forgets it where nobody decided on it. False where there is none any more.
pub(super) fn settle_one(conn: &Connection) -> rusqlite::Result<bool> {
    let is_decided = entries::get(conn, Table::Jobs, &nobody(), DECIDED)?.found.is_some();
    let first =
        entries::page(conn, Table::Jobs, Some(&nobody()), &(String::new(), PARTS.to_owned()), 1)?.found;
    let Some(part) = first.into_iter().find(|entry| entry.key.starts_with(PARTS)) else {
        if is_decided {
            entries::remove(conn, Table::Jobs, &nobody(), DECIDED)?;
        }
        return Ok(false);
    };
    if is_decided {
        let unreadable = |error: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
        };
        let rows: Vec<Row> = serde_json::from_str(&part.value).map_err(unreadable)?;
        for Row { account, key, value, saved_at } in rows {
            let entry = Entry { account: AccountId::new(&account), key, value, saved_at: Millis(saved_at) };
            entries::put(conn, TABLE, &entry)?;
        }
    }
    entries::remove(conn, Table::Jobs, &nobody(), &part.key)?;
    Ok(true)
}

/// Whether there is something to settle.
pub(super) fn is_unsettled(conn: &Connection) -> rusqlite::Result<bool> {
    let before = (String::new(), DECIDED.to_owned());
    let parts = entries::page(conn, Table::Jobs, Some(&nobody()), &before, 1)?.found;
    Ok(parts.iter().any(|entry| entry.key.starts_with(PARTS))
        || entries::get(conn, Table::Jobs, &nobody(), DECIDED)?.found.is_some())
}

/// Settles everything at once, at a start.
pub(super) fn settle(conn: &mut Connection) -> rusqlite::Result<()> {
    let transaction = conn.transaction()?;
    while settle_one(&transaction)? {}
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::entries::Place;
    use crate::replay::schema;

    fn entry(n: usize) -> Entry {
        Entry {
            account: AccountId::new("acme"),
            key: format!("tracker/{n}"),
            value: format!("{{\"n\":{n}}}"),
            saved_at: Millis(7),
        }
    }

    /// After `steps` of an import, cut off there, and a start.
    fn after(steps: usize) -> (Vec<Entry>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = schema::open(&dir.path().join("store.db"), None).unwrap();
        let new: Vec<Entry> = (0..1_200).map(entry).collect();
        let mut left = steps;
        for part in parts(new).into_iter().chain([decided(Millis(7))]) {
            if left == 0 {
                break;
            }
            entries::put(&conn, Table::Jobs, &part).unwrap();
            left -= 1;
        }
        for _ in 0..left {
            settle_one(&conn).unwrap();
        }
        settle(&mut conn).unwrap();
        assert!(!is_unsettled(&conn).unwrap());
        let jobs = entries::scan(&conn, Place::of(Table::Jobs)).unwrap().found.len();
        (entries::scan(&conn, Place::of(TABLE)).unwrap().found, jobs)
    }

    #[test]
    fn wherever_it_is_cut_off_all_of_it_is_there_or_nothing() {
        let mut expected: Vec<Entry> = (0..1_200).map(entry).collect();
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        for steps in 0..=3 {
            assert_eq!(after(steps), (Vec::new(), 0), "three parts, and nobody decided: {steps}");
        }
        for steps in 4..=8 {
            assert_eq!(after(steps), (expected.clone(), 0), "{steps}");
        }
    }
}
