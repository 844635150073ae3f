//! Bits that turned on the disk in what the store keeps beside parked rows: none is taken for what was saved, what is kept twice is
//! restored, and what is gone is said once.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use fleetbus::event::{AccountId, Millis};
use fleetbus::replay::{Acts, DataDir, Entry, Recovered, Salvage, Store, Table, check, check_copy, moving};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Running, lane, limits, now, parked};

const TABLES: [Table; 7] = [
    Table::Cursors,
    Table::Directory,
    Table::States,
    Table::CustomData,
    Table::Tokens,
    Table::Jobs,
    Table::Switches,
];
const KEPT_TWICE: [Table; 4] = [Table::Cursors, Table::Tokens, Table::Jobs, Table::Switches];

fn entry(table: Table, key: &str) -> Entry {
    Entry {
        account: AccountId::new("acme"),
        key: format!("key/{key}"),
        value: format!("value of {key} in {}", table.name()),
        saved_at: Millis(1_767_009_600_000),
    }
}

fn entries(table: Table) -> Vec<Entry> {
    ["a", "b", "c"].map(|key| entry(table, key)).to_vec()
}

/// Three entries in each table, and the store is closed in order.
async fn filled() -> TempDir {
    let running = Running::start(limits()).await;
    for table in TABLES {
        running.store.put(table, entries(table)).await.unwrap();
    }
    running.stop()
}

/// Where an entry's value is: in its table, and in the copy where there is one.
fn places(file: &[u8], table: Table, key: &str) -> Vec<usize> {
    let value = entry(table, key).value;
    let windows = file.windows(value.len()).enumerate();
    windows.filter(|(_, window)| *window == value.as_bytes()).map(|(at, _)| at).collect()
}

/// Turns a bit at a distance from the value of an entry, in so many of the places where it is.
fn flip(dir: &Path, table: Table, key: &str, (distance, bit): (isize, u8), most: usize) {
    let path = dir.join("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    for at in places(&bytes, table, key).into_iter().take(most) {
        bytes[at.checked_add_signed(distance).unwrap()] ^= 1 << bit;
    }
    std::fs::write(path, bytes).unwrap();
}

const IN_THE_VALUE: (isize, u8) = (3, 4);
const IN_THE_KEY: (isize, u8) = (-5, 4);

async fn findings(dir: &Path) -> Vec<String> {
    let lock = DataDir::lock(dir).await.unwrap();
    check(&lock).into_iter().flat_map(|checked| checked.findings).collect()
}

/// What a store has of a table, by the ways in which the program reads it.
async fn held(running: &Running, recovered: &Recovered, table: Table) -> Vec<Entry> {
    let paged = running.store.all_entries(table, None).await.unwrap();
    let at_start = match table {
        Table::Cursors => &recovered.cursors,
        Table::Directory => &recovered.directory,
        Table::States => &recovered.states,
        Table::CustomData => &recovered.custom_data,
        Table::Tokens => &recovered.tokens,
        Table::Jobs | Table::Switches => &paged,
    };
    assert_eq!(*at_start, paged, "{table:?}");
    for key in ["a", "b", "c"] {
        let entry = entry(table, key);
        let one = running.store.entry(table, entry.account.clone(), entry.key.clone()).await.unwrap();
        assert_eq!(one.is_some(), paged.contains(&entry), "{table:?}, {key}");
    }
    paged
}

async fn acts(running: &Running) -> Vec<(String, Option<String>)> {
    let acts = Acts { account: None, act: Some("entry.damaged".to_owned()) };
    let found = running.store.acts(&acts, None, 100).await.unwrap();
    found.into_iter().map(|act| (act.object, act.after)).collect()
}

#[tokio::test]
async fn any_bit_of_an_entry_that_turns_is_noticed() {
    let dir = filled().await;
    let path = dir.path().join("store.db");
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let said = || {
        let salvage = Salvage::open(&path).ok()?;
        Some(salvage.export(&mut std::io::sink()).unwrap())
    };
    assert!(said().unwrap().is_whole());
    for table in TABLES {
        let entry = entry(table, "b");
        for (copy, at) in places(&bytes, table, "b").into_iter().enumerate() {
            // Before the value: a header of six numbers of a byte each, account and key; behind it: when it was saved, and the checksum.
            let begin = at - 6 - entry.account.as_str().len() - entry.key.len();
            for place in begin..at + entry.value.len() + 6 + 8 {
                for bit in 0..8 {
                    file.write_all_at(&[bytes[place] ^ (1 << bit)], place as u64).unwrap();
                    let is_noticed = said().is_none_or(|said| !said.is_whole());
                    assert!(is_noticed, "bit {bit} of byte {} of {table:?}, {copy}", place - begin);
                }
                file.write_all_at(&bytes[place..=place], place as u64).unwrap();
            }
        }
    }
    assert!(said().unwrap().is_whole());
}

#[tokio::test]
async fn whichever_bit_turns_nobody_is_given_what_was_not_saved_and_a_cursor_is_where_it_was() {
    let dir = filled().await;
    let bytes = std::fs::read(dir.path().join("store.db")).unwrap();
    for table in [Table::Cursors, Table::States, Table::CustomData, Table::Tokens] {
        let at = places(&bytes, table, "b")[0];
        let saved: Vec<Entry> = entries(table);
        // Every bit of the header, and of the rest some: also how long it is, and of a table with rows their number.
        let texts = at - 4 - 5;
        let header = (texts - 8..texts).flat_map(|place| (0..8).map(move |bit| (place, bit)));
        let rest = (texts..at + saved[1].value.len() + 14).map(|place| (place, (place % 8) as u8));
        for (place, bit) in header.chain(rest) {
            let copy = tempfile::tempdir().unwrap();
            let mut changed = bytes.clone();
            changed[place] ^= 1 << bit;
            std::fs::write(copy.path().join("store.db"), changed).unwrap();
            let lock = DataDir::lock(copy.path()).await.unwrap();
            let what = format!("bit {bit} of byte {} of {table:?}", place.cast_signed() - at.cast_signed());
            let Ok((_store, _writer, recovered)) = Store::open(&lock, limits(), None) else {
                assert!(place < texts, "{what}: refused");
                continue;
            };
            let found = match table {
                Table::Cursors => recovered.cursors,
                Table::States => recovered.states,
                Table::CustomData => recovered.custom_data,
                _ => recovered.tokens,
            };
            if KEPT_TWICE.contains(&table) {
                assert_eq!(found, saved, "{what}");
            } else {
                assert!(
                    found.iter().all(|entry| saved.contains(entry)) && found.len() >= 2,
                    "{what}: {found:?}"
                );
                assert_eq!(found.len() == 2, recovered.damaged_entries == 1, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_kept_twice_is_restored_and_that_is_said_once() {
    for where_ in [IN_THE_VALUE, IN_THE_KEY] {
        for table in KEPT_TWICE {
            let dir = filled().await;
            flip(dir.path(), table, "b", where_, 1);
            let found = findings(dir.path()).await;
            assert!(found.iter().any(|one| one.starts_with("1 of its entries")), "{found:?}");
            // A name that changed is out of its order, too.
            let is_sound = check_copy(&dir.path().join("store.db")).is_sound();
            assert_eq!((found.len() == 1, is_sound), (where_ == IN_THE_VALUE, where_ == IN_THE_VALUE));
            let (running, recovered) = Running::open(dir, limits(), None).await;
            assert_eq!(held(&running, &recovered, table).await, entries(table));
            assert_eq!(running.store.stats(now()).damaged_entries, 1);
            let (object, after) = acts(&running).await.remove(0);
            assert!(object.ends_with(" acme key/b"), "{object}");
            assert_eq!(after.unwrap(), json!({"restored": true}).to_string());
            let (running, recovered) = running.restart(limits(), None).await;
            assert_eq!((recovered.damaged_entries, acts(&running).await.len()), (0, 1));
            assert_eq!(findings(running.stop().path()).await, Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn what_is_damaged_in_every_place_is_gone_alone_said_once_and_can_be_set_again() {
    for where_ in [IN_THE_VALUE, IN_THE_KEY] {
        for table in TABLES {
            let dir = filled().await;
            flip(dir.path(), table, "b", where_, usize::MAX);
            assert!(!findings(dir.path()).await.is_empty());
            let (running, recovered) = Running::open(dir, limits(), None).await;
            let rest = [entry(table, "a"), entry(table, "c")];
            assert_eq!(held(&running, &recovered, table).await, rest);
            let acts = acts(&running).await;
            assert_eq!(acts.len(), if KEPT_TWICE.contains(&table) { 2 } else { 1 }, "{acts:?}");
            let expected = if where_ == IN_THE_VALUE { "acme key/b" } else { "cannot be told" };
            assert!(acts.iter().all(|(object, _)| object.contains(expected)), "{acts:?}");
            assert!(acts.iter().any(|(_, after)| after.as_ref().unwrap().contains("false")), "{acts:?}");
            running.store.put(table, vec![entry(table, "b")]).await.unwrap();
            let (running, recovered) = running.restart(limits(), None).await;
            assert_eq!(held(&running, &recovered, table).await, entries(table));
            assert_eq!(recovered.damaged_entries, 0);
            assert_eq!(findings(running.stop().path()).await, Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn entries_of_an_older_format_have_no_checksum_and_get_one_when_they_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/v4.db");
    std::fs::copy(old, dir.path().join("store.db")).unwrap();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new(), "before it is brought forward");
    let (running, recovered) = Running::open(dir, limits(), None).await;
    assert_eq!(recovered.damaged_entries, 0);
    let cursor = recovered.cursors[0].clone();
    running
        .store
        .put(Table::Cursors, vec![Entry { value: "value of b".to_owned(), ..cursor.clone() }])
        .await
        .unwrap();
    let dir = running.stop();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
    let path = dir.path().join("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let value = b"value of b";
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let found = findings(dir.path()).await;
    assert!(found.len() == 1 && found[0].contains(&cursor.key), "{found:?}");
}

#[tokio::test]
async fn an_account_moves_with_its_entries_twice_where_they_are_kept_twice() {
    let (dir, to) = (filled().await, tempfile::tempdir().unwrap());
    let (acme, file) = (AccountId::new("acme"), to.path().join("acme.moved"));
    flip(dir.path(), Table::Cursors, "b", IN_THE_VALUE, 1);
    flip(dir.path(), Table::States, "b", IN_THE_VALUE, 1);
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let moved = moving::export(&lock, &acme, &file, now()).unwrap();
    assert_eq!((moved.entries, moved.damaged), (20, 2));
    drop(lock);
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
    let lock = DataDir::lock(to.path()).await.unwrap();
    moving::import(&lock, &file, now()).unwrap();
    drop(lock);
    for table in KEPT_TWICE {
        flip(to.path(), table, "c", IN_THE_KEY, 1);
    }
    let (running, recovered) = Running::open(to, limits(), None).await;
    assert_eq!(recovered.damaged_entries, 4);
    let mut keys = BTreeSet::new();
    for table in TABLES {
        let found = held(&running, &recovered, table).await;
        let of_move = |entry: &&Entry| entry.key.starts_with("moved-");
        let rest: Vec<_> = found.iter().filter(|entry| !of_move(entry)).cloned().collect();
        keys.extend(found.iter().filter(of_move).map(|entry| entry.key.clone()));
        let expected = entries(table);
        let expected = expected.iter().filter(|entry| table != Table::States || entry.key != "key/b");
        assert_eq!(rest, expected.cloned().collect::<Vec<_>>(), "{table:?}");
    }
    assert!(keys.len() == 1 && keys.iter().all(|key| key.starts_with("moved-in/")), "{keys:?}");
}

#[tokio::test]
async fn an_account_with_many_rows_comes_in_without_a_look_at_all_of_them_for_each() {
    let running = Running::start(limits()).await;
    for _ in 0..20_000 {
        let row = parked(&running.store, &lane("acme", "a"));
        running.store.park(vec![row], Box::new(|kept| kept.unwrap())).unwrap();
    }
    let (dir, to) = (running.stop(), tempfile::tempdir().unwrap());
    let file = to.path().join("acme.moved");
    let lock = DataDir::lock(dir.path()).await.unwrap();
    moving::export(&lock, &AccountId::new("acme"), &file, now()).unwrap();
    let lock = DataDir::lock(to.path()).await.unwrap();
    let begun = Instant::now();
    assert_eq!(moving::import(&lock, &file, now()).unwrap().parked, 20_000);
    // It takes a second at most; with such looks a minute and a half.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
