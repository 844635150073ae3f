//! Entries that a bit on the disk changed, at a start. Invariants: what is whole stays; what is whole in its copy is restored from it;
//! what is in neither is taken for nothing, and leaves once the audit log and the log have said so; a table without damage is only read.
//! Neighbours: `entries` compares, `app` makes the parts of what is read here.

use std::collections::HashMap;

use rusqlite::Connection;

use super::audit::{self, Act};
use super::entries::{self, DamagedEntry, Entry, Place, Table};
use crate::event::{AccountId, Millis};

/// Damaged entries of a table that are named one by one.
const NAMED: usize = 100;

/// A damaged entry, and what became of it.
struct Said {
    damaged: DamagedEntry,
    is_restored: bool,
}

/// All whole entries of a table, whose damaged ones are restored or gone from now on; `count` counts them.
pub(super) fn read(
    conn: &mut Connection,
    table: Table,
    now: Millis,
    count: &mut u64,
) -> rusqlite::Result<Vec<Entry>> {
    let place = Place::of(table);
    let main = entries::scan(conn, place)?;
    let copy =
        Place::of_copy(table).map(|copy| entries::scan(conn, copy).map(|found| (copy, found))).transpose()?;
    let of_copy = copy.as_ref().map_or(0, |(_, found)| found.damaged.len());
    if main.damaged.len() + of_copy == 0 {
        return Ok(main.found);
    }
    let mut all: HashMap<(AccountId, String), Entry> = HashMap::new();
    let name = |entry: &Entry| (entry.account.clone(), entry.key.clone());
    // Of two with one name, which a search that failed may leave, the younger.
    all.extend(main.found.into_iter().map(|entry| (name(&entry), entry)));
    let mut restored = Vec::new();
    let mut damaged = main.damaged;
    let copy = copy.map(|(copy, found)| {
        if !damaged.is_empty() {
            for entry in found.found.into_iter().rev() {
                all.entry(name(&entry)).or_insert_with(|| {
                    restored.push(name(&entry));
                    entry
                });
            }
        }
        damaged.extend(found.damaged);
        copy
    });
    let all = {
        let mut all: Vec<Entry> = all.into_values().collect();
        all.sort_by(|a, b| (&a.account, &a.key).cmp(&(&b.account, &b.key)));
        all
    };
    let said = said(damaged, place, restored, &all);
    let transaction = conn.transaction()?;
    for place in [Some(place), copy].into_iter().flatten() {
        entries::make_anew(&transaction, place, &all)?;
    }
    said.iter().take(NAMED).try_for_each(|one| audit::record(&transaction, &act(one, now)))?;
    transaction.commit()?;
    *count += said.len() as u64;
    let rows = said.len() as u64;
    said.iter().take(NAMED).for_each(|one| one.damaged.say(rows, one.is_restored));
    Ok(all)
}

/// What became of each. One whose name is lost too is one of those that were restored and are not named, as long as there are any.
fn said(
    damaged: Vec<DamagedEntry>,
    place: Place,
    mut restored: Vec<(AccountId, String)>,
    all: &[Entry],
) -> Vec<Said> {
    let (named, unnamed): (Vec<_>, Vec<_>) = damaged.into_iter().partition(|one| one.name.is_some());
    let is_there = |name: &(AccountId, String)| {
        all.binary_search_by(|entry| (&entry.account, &entry.key).cmp(&(&name.0, &name.1))).is_ok()
    };
    let mut said: Vec<Said> = Vec::new();
    for mut damaged in named.into_iter().chain(unnamed) {
        let is_restored = match &damaged.name {
            Some(name) => {
                restored.retain(|one| one != name);
                is_there(name)
            }
            None if damaged.place == place => {
                damaged.name = restored.pop();
                damaged.name.is_some()
            }
            // Of a copy: what it was of is there, or was said to be lost.
            None => true,
        };
        said.push(Said { damaged, is_restored });
    }
    said
}

/// The audit log may name what the log must not: whoever reads it may read the entries too.
fn act(said: &Said, now: Millis) -> Act {
    let account = said.damaged.name.as_ref().map(|(account, _)| account.clone());
    Act {
        at: now,
        who: "fleetbus".to_owned(),
        act: "entry.damaged",
        account: account.filter(|account| !account.as_str().is_empty()),
        object: said.damaged.to_string(),
        before: None,
        after: Some(serde_json::json!({ "restored": said.is_restored }).to_string()),
    }
}

impl DamagedEntry {
    /// Says it in the log, which is to know no device, person or vehicle.
    pub(super) fn say(&self, rows: u64, is_restored: bool) {
        let account = self.name.as_ref().map(|(account, _)| tracing::field::display(account));
        let key = self.name.as_ref().map(|(_, key)| key.as_str()).filter(|_| match self.place.table {
            Table::Cursors | Table::Tokens | Table::Jobs | Table::Switches => true,
            Table::Directory | Table::States | Table::CustomData => false,
        });
        let table = self.place.table.name();
        tracing::error!(account, table, key, rows, restored = is_restored, "store.entry_damaged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::schema;

    fn entry(name: &str) -> Entry {
        Entry {
            account: AccountId::new("acme"),
            key: format!("key-of-{name}"),
            value: format!("value-of-{name}"),
            saved_at: Millis(7),
        }
    }

    /// A table with three entries, the last byte of one of whose texts is another in the nth place where it is.
    fn changed(table: Table, text: &str, to: u8, nth: usize) -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let conn = schema::open(&path, None).unwrap();
        for name in ["a", "b", "c"] {
            entries::put(&conn, table, &entry(name)).unwrap();
        }
        drop(conn);
        let mut bytes = std::fs::read(&path).unwrap();
        let places = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
        let at = places.map(|(at, _)| at).nth(nth).unwrap();
        bytes[at + text.len() - 1] = to;
        std::fs::write(&path, bytes).unwrap();
        (dir, schema::open(&path, None).unwrap())
    }

    #[test]
    fn a_token_that_was_revoked_while_its_copy_could_not_be_searched_does_not_come_back() {
        // In one of the two, b stands behind c by its name.
        for nth in 0..2 {
            let (_dir, mut conn) = changed(Table::Tokens, "key-of-b", b'z', nth);
            entries::remove(&conn, Table::Tokens, &AccountId::new("acme"), "key-of-c").unwrap();
            let mut damaged = 0;
            let left = read(&mut conn, Table::Tokens, Millis(8), &mut damaged).unwrap();
            assert_eq!((left, damaged), (vec![entry("a"), entry("b")], 1));
        }
    }

    #[test]
    fn while_the_store_runs_a_damaged_entry_is_given_to_nobody_and_its_copy_is() {
        for table in Table::ALL {
            let (_dir, conn) = changed(table, "value-of-b", b'z', 0);
            let of_copy = table.copy().is_some();
            let one = entries::get(&conn, table, &AccountId::new("acme"), "key-of-b").unwrap();
            assert_eq!((one.found, one.damaged.len()), (of_copy.then(|| entry("b")), 1));
            let expected: Vec<_> =
                ["a", "b", "c"].into_iter().filter(|key| of_copy || *key != "b").map(entry).collect();
            let page = entries::page(&conn, table, None, &Default::default(), 2).unwrap();
            assert_eq!((&page.found[..], page.damaged.len()), (&expected[..2], 1), "{table:?}");
            let rest = entries::page(&conn, table, None, &("acme".into(), "key-of-b".into()), 2).unwrap();
            assert_eq!(rest.found, [entry("c")]);
            // Saved again, it is whole.
            entries::put(&conn, table, &entry("b")).unwrap();
            let one = entries::get(&conn, table, &AccountId::new("acme"), "key-of-b").unwrap();
            assert_eq!((one.found, one.damaged.len()), (Some(entry("b")), 0));
        }
    }
}
