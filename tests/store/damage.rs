//! Bits that turned on the disk: they are noticed and said, and what can still be read is exported.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use fleetbus::event::{AccountId, Millis};
use fleetbus::replay::{
    DataDir, Exported, Filter, Kept, Parked, Reason, Salvage, Seq, Store, StoreError, Stored, check,
    check_copy, moving,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Running, lane, limits, now, park, park_raw, parked, raw, whole};

/// What can be read: the numbers of the rows, and what was said.
fn export(dir: &Path) -> (BTreeSet<u64>, Exported) {
    let mut lines = Vec::new();
    let exported = Salvage::open(&dir.join("store.db")).unwrap().export(&mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let rows =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap());
    (rows.collect(), exported)
}

async fn findings(dir: &Path) -> Vec<String> {
    let lock = DataDir::lock(dir).await.unwrap();
    check(&lock).into_iter().flat_map(|checked| checked.findings).collect()
}

/// A store with events, some of them unfit, and raw messages, closed in order.
async fn filled(events: usize) -> TempDir {
    let running = Running::start(limits()).await;
    for number in 0..events {
        let mut row = parked(&running.store, &lane("acme", &format!("s{}", number % 7)));
        row.payload = Bytes::from(vec![0xAB; 500]);
        running.store.park(vec![row], Box::new(|result| result.unwrap())).unwrap();
    }
    let bodies = (0..events / 10).map(|number| raw("acme", &format!("{number} {}", "x".repeat(300))));
    park_raw(&running.store, bodies.collect()).await.unwrap();
    running.stop()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_sound_store_is_exported_whole_and_nothing_is_found() {
    let dir = filled(1_000).await;
    let before = std::fs::read(dir.path().join("store.db")).unwrap();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
    let (rows, exported) = export(dir.path());
    assert_eq!((exported.events, exported.raw, exported.is_whole()), (1_000, 100, true));
    assert_eq!(rows, (1..=1_100).collect());
    assert!(before == std::fs::read(dir.path().join("store.db")).unwrap(), "looking changed it");
}

#[tokio::test]
async fn pages_that_were_overwritten_cost_their_own_rows_and_each_is_named() {
    let dir = filled(1_000).await;
    // Leaves of the table, here and there: each has some seven rows.
    let mut lost = 0;
    change(&dir.path().join("store.db"), |bytes| {
        let is_leaf = |page: &&mut [u8]| page.iter().filter(|byte| **byte == 0xAB).count() > 2_000;
        for page in bytes.chunks_mut(4096).filter(is_leaf).skip(3).step_by(40) {
            page[..300].fill(0xFF);
            lost += 1;
        }
    });
    assert!(lost >= 3);
    let findings = findings(dir.path()).await;
    assert!(!findings.is_empty());
    let (rows, exported) = export(dir.path());
    assert!(!exported.is_whole() && !exported.damage.is_empty());
    assert!(
        (lost..lost * 9).contains(&exported.unread.count),
        "{lost} pages, {} rows",
        exported.unread.count
    );
    assert_eq!(exported.events + exported.raw + exported.unread.count, 1_100, "each is there, or is named");
    let named: BTreeSet<u64> = exported.unread.first.iter().map(|seq| seq.0).collect();
    assert!(named.is_disjoint(&rows) && named.len() + rows.len() == 1_100);
}

#[tokio::test]
async fn a_store_without_its_first_page_is_said_to_be_lost() {
    let dir = filled(10).await;
    change(&dir.path().join("store.db"), |bytes| bytes[..100].fill(0));
    assert!(!findings(dir.path()).await.is_empty());
    let Err(error) = Salvage::open(&dir.path().join("store.db")) else { panic!("opened") };
    assert!(error.to_string().contains("restore a backup"), "{error}");
}

/// A store as a kill leaves it: what was parked last is in the log alone. Six transactions of ten rows.
async fn killed() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let running = Running::start(limits()).await;
    // Nothing is moved from the log while this is held.
    let held = running.store.hold_still().await.unwrap();
    for _ in 0..6 {
        let rows = (0..10).map(|_| parked(&running.store, &lane("acme", "a"))).collect();
        park(&running.store, rows).await.unwrap();
    }
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(running.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(held);
    copy
}

fn open(dir: &Path, lock: &DataDir) -> Result<u64, StoreError> {
    let (_store, _writer, recovered) = Store::open(lock, limits(), None)?;
    assert!(dir.join("store.db").exists());
    Ok(recovered.lanes.iter().map(|lane| lane.rows).sum())
}

#[tokio::test]
async fn a_log_that_was_damaged_is_refused_and_what_comes_before_is_exported() {
    let dir = killed().await;
    let log = dir.path().join("store.db-wal");
    let length = std::fs::metadata(&log).unwrap().len() as usize;
    change(&log, |bytes| bytes[length / 2] ^= 1);
    let before = std::fs::read(&log).unwrap();
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let Err(error) = open(dir.path(), &lock) else { panic!("opened") };
    assert!(matches!(error, StoreError::LogDamaged { commits, .. } if commits >= 2), "{error:?}");
    assert!(error.to_string().contains("fleetbus store export"), "{error}");
    assert!(before == std::fs::read(&log).unwrap(), "the evidence is gone");
    drop(lock);
    assert!(findings(dir.path()).await.iter().any(|finding| finding.contains("log is damaged")));
    let (rows, exported) = export(dir.path());
    assert!(!exported.is_whole() && (10..60).contains(&rows.len()), "{exported:?}");
    assert_eq!(rows, (1..=rows.len() as u64).collect(), "all that came before");
}

#[tokio::test]
async fn a_log_whose_last_transaction_is_torn_opens_with_all_that_came_before() {
    let dir = killed().await;
    assert!(findings(dir.path()).await.is_empty());
    let log = dir.path().join("store.db-wal");
    let length = std::fs::metadata(&log).unwrap().len() as usize;
    // The last byte of the last page: as a power cut may leave it.
    change(&log, |bytes| bytes[length - 1] ^= 1);
    let lock = DataDir::lock(dir.path()).await.unwrap();
    let checked = check(&lock).remove(0);
    assert!(checked.is_sound() && checked.notes.iter().any(|note| note.contains("cut off")), "{checked:?}");
    assert_eq!(open(dir.path(), &lock).unwrap(), 50);
}

/// Where the only copy of some bytes is in a file.
fn place_of(file: &[u8], bytes: &[u8]) -> usize {
    let places: Vec<_> =
        file.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes).collect();
    assert_eq!(places.len(), 1, "{bytes:?}");
    places[0].0
}

/// Three events of one lane, each with all that a row can have, and two raw messages; closed in order.
async fn few() -> TempDir {
    let running = Running::start(limits()).await;
    let mut rows: Vec<_> = (0..3).map(|_| parked(&running.store, &lane("acme", "subject"))).collect();
    for row in &mut rows {
        row.trace = Some(format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{}-01", row.seq.0));
        row.enters.push(uuid::Uuid::from_u128(99));
    }
    park(&running.store, rows).await.unwrap();
    park_raw(&running.store, vec![raw("acme", "the first body"), raw("acme", "the second body")])
        .await
        .unwrap();
    running.stop()
}

/// What is exported of each message, but for what is no part of it: how it fared in the store.
fn messages(lines: &[u8]) -> BTreeMap<String, u64> {
    let text = std::str::from_utf8(lines).unwrap();
    let rows = text.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        let seq = row["seq"].as_u64().unwrap();
        let fields = row.as_object_mut().unwrap();
        for name in ["seq", "error", "reason", "waits_for"] {
            fields.remove(name);
        }
        if fields["kind"] == "event" {
            fields.remove("parked_at");
        }
        (row.to_string(), seq)
    });
    rows.collect()
}

#[tokio::test]
async fn any_bit_of_a_row_that_turns_is_noticed_and_what_is_exported_is_what_was_parked() {
    let dir = few().await;
    let path = dir.path().join("store.db");
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let export = || {
        let mut lines = Vec::new();
        let exported = Salvage::open(&path).ok()?.export(&mut lines).unwrap();
        Some((messages(&lines), exported))
    };
    let (parked, _) = export().unwrap();
    assert_eq!(parked.len(), 5);
    let (mut noticed, mut flips) = (0, 0);
    for message in [&b"payload of 2"[..], b"the second body"] {
        let at = place_of(&bytes, message);
        // Its header and its other fields are before its payload, its checksum is behind. Its neighbours may be hit: all the better.
        for place in at - 260..at + message.len() + 12 {
            for bit in 0..8 {
                file.write_all_at(&[bytes[place] ^ (1 << bit)], place as u64).unwrap();
                flips += 1;
                if let Some((exported, said)) = export() {
                    let is_whole = said.is_whole();
                    noticed += usize::from(!is_whole);
                    for message in exported.keys() {
                        assert!(parked.contains_key(message), "bit {bit} of byte {place}: {message}");
                    }
                    assert!(!is_whole || exported.len() == 5, "bit {bit} of byte {place}: {exported:?}");
                } else {
                    noticed += 1;
                }
            }
            file.write_all_at(&bytes[place..=place], place as u64).unwrap();
        }
    }
    assert!(noticed * 2 > flips, "of {flips} bits {noticed} were noticed");
    assert_eq!(export().unwrap().0, parked);
}

#[tokio::test]
async fn a_bit_that_turned_in_a_payload_is_counted_named_and_no_row_behind_it_is_held() {
    let dir = few().await;
    let path = dir.path().join("store.db");
    change(&path, |bytes| {
        let (event, raw) = (place_of(bytes, b"payload of 2"), place_of(bytes, b"the first body"));
        bytes[event + 3] ^= 0x10;
        bytes[raw] ^= 1;
    });
    let found = findings(dir.path()).await;
    assert_eq!(found, ["2 of its rows are not as they were parked: 2, 4"]);
    let copy = check_copy(&path);
    assert!(copy.is_sound() && copy.notes.iter().any(|note| note.contains("2, 4")), "{copy:?}");
    let (rows, exported) = export(dir.path());
    assert_eq!(rows, BTreeSet::from([1, 3, 5]));
    assert_eq!((exported.changed.count, exported.unread.count, exported.is_whole()), (2, 0, false));
    assert_eq!(exported.changed.first, [Seq(2), Seq(4)]);

    let (running, _) = Running::open(dir, limits(), None).await;
    let key = lane("acme", "subject");
    let rows = running.read_lane(key.clone(), None, 10, u64::MAX).await.unwrap();
    assert!(matches!(rows[..], [Kept::Whole(_), Kept::Damaged(Seq(2)), Kept::Whole(_)]), "{rows:?}");
    running.store.set_damaged_aside(&key.account, Seq(2));
    let rows = running.read_lane(key, None, 10, u64::MAX).await.unwrap();
    assert_eq!(whole(rows).iter().map(|row| row.seq).collect::<Vec<_>>(), [Seq(1), Seq(3)]);
    // Who lists it reads why; who would send it again gets none of it.
    let unfit = Filter { kinds: vec![fleetbus::replay::Kind::Event(Reason::Unfit)], ..Filter::default() };
    let listed = running.store.list(&unfit, None, 10).await.unwrap().rows;
    assert!(listed.len() == 1 && listed[0].error.contains("changed on the disk"), "{listed:?}");
    let page = running.store.read(&Filter::default(), None, 10).await.unwrap().rows;
    let damaged = page.iter().filter(|row| matches!(row, Kept::Damaged(_))).map(Kept::<Stored>::seq);
    assert_eq!(damaged.collect::<Vec<_>>(), [Seq(2), Seq(4)]);
    assert_eq!(running.store.stats(now()).damaged, 1);
    // Thrown away, it is forgotten like any other.
    running.store.discard(&unfit).await.unwrap();
    assert!(running.store.get(Seq(2)).await.unwrap().is_none());
    running.settle().await;
    assert_eq!(running.gone()[0].enters.len(), 2);
}

#[tokio::test]
async fn a_row_that_moved_to_another_topic_is_whole_there_and_a_damaged_one_is_not() {
    let dir = few().await;
    change(&dir.path().join("store.db"), |bytes| {
        let at = place_of(bytes, b"payload of 2");
        bytes[at] ^= 1;
    });
    let routing = || fleetbus::replay::Routing {
        fingerprint: "another bus".to_owned(),
        topic: Box::new(|_, event_type, _| Some(format!("other.{event_type}").into())),
        before: Box::new(|_| None),
    };
    let (running, recovered) = Running::open(dir, limits(), Some(routing())).await;
    assert_eq!(recovered.rerouted, 3);
    let key = recovered.lanes[0].key.clone();
    assert_eq!(&*key.topic, "other.position");
    let rows = running.read_lane(key, None, 10, u64::MAX).await.unwrap();
    assert!(matches!(rows[..], [Kept::Whole(_), Kept::Damaged(Seq(2)), Kept::Whole(_)]), "{rows:?}");
}

#[tokio::test]
async fn a_row_that_says_what_no_row_says_is_set_aside_and_nothing_waits_for_it() {
    let dir = few().await;
    let conn = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    // As bits that turn may leave them: a type, an id and a reason that there are not.
    conn.execute_batch(
        "UPDATE parked SET type = 'pnsition' WHERE seq = 1;
         UPDATE parked SET id = x'00' WHERE seq = 2;
         PRAGMA ignore_check_constraints = 1;
         UPDATE parked SET reason = 77 WHERE seq = 3;",
    )
    .unwrap();
    drop(conn);
    let routing = fleetbus::replay::Routing {
        fingerprint: "another bus".to_owned(),
        topic: Box::new(|_, _, _| None),
        before: Box::new(|_| None),
    };
    let (running, _) = Running::open(dir, limits(), Some(routing)).await;
    let key = lane("acme", "subject");
    let rows = running.read_lane(key.clone(), None, 10, u64::MAX).await.unwrap();
    assert!(matches!(rows[..], [Kept::Damaged(_), Kept::Damaged(_), Kept::Damaged(_)]), "{rows:?}");
    for row in rows {
        running.store.set_damaged_aside(&key.account, row.seq());
    }
    assert!(running.lane_seqs(&key).await.is_empty());
    // What can be listed is; a later park is a row like any other.
    assert!(running.store.list(&Filter::default(), None, 10).await.is_ok());
    let row = parked(&running.store, &key);
    park(&running.store, vec![row]).await.unwrap();
    assert_eq!(running.lane_seqs(&key).await.len(), 1);
    running.store.discard(&Filter::default()).await.unwrap();
    running.settle().await;
    assert!(running.lane_seqs(&key).await.is_empty());
}

/// Moves `acme` into a folder of its own; what is exported there.
async fn moved(dir: &Path) -> (TempDir, Exported) {
    let (to, acme) = (tempfile::tempdir().unwrap(), AccountId::new("acme"));
    let file = to.path().join("acme.moved");
    let lock = DataDir::lock(dir).await.unwrap();
    moving::export(&lock, &acme, &file, now()).unwrap();
    let lock = DataDir::lock(to.path()).await.unwrap();
    moving::import(&lock, &file, now()).unwrap();
    drop(lock);
    let (_, exported) = export(to.path());
    (to, exported)
}

#[tokio::test]
async fn a_damaged_row_that_moves_with_its_account_is_damaged_there_too_and_no_other_is() {
    let dir = few().await;
    change(&dir.path().join("store.db"), |bytes| {
        let at = place_of(bytes, b"payload of 2");
        bytes[at] ^= 1;
    });
    let (_to, exported) = moved(dir.path()).await;
    assert_eq!((exported.events, exported.raw, exported.changed.count), (2, 2, 1));
    assert_eq!(exported.changed.first, [Seq(2)]);
}

#[tokio::test]
async fn rows_of_an_older_version_have_no_checksum_and_are_no_damage_also_where_they_move() {
    let dir = tempfile::tempdir().unwrap();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/v3.db");
    std::fs::copy(old, dir.path().join("store.db")).unwrap();
    let (rows, exported) = export(dir.path());
    assert!(exported.is_whole() && !rows.is_empty(), "before it is brought forward: {exported:?}");
    let (to, exported) = moved(dir.path()).await;
    assert!(exported.is_whole() && exported.events > 10 && exported.raw > 0, "{exported:?}");
    // What is parked from now on has one, and a row that lost it is damaged.
    let (running, recovered) = Running::at(to.path(), limits(), None).await;
    let row = parked(&running.store, &lane("acme", "new"));
    park(&running.store, vec![row]).await.unwrap();
    drop(running);
    let conn = rusqlite::Connection::open(to.path().join("store.db")).unwrap();
    conn.execute("UPDATE parked SET checksum = NULL", []).unwrap();
    drop(conn);
    assert_eq!(export(to.path()).1.changed.first, [recovered.next_seq]);
}

/// Turns a bit in the subject of a row of `few`, the first being 0: of the row itself, or of its entry in the index.
fn flip_subject(path: &Path, row: usize, of_row: bool) {
    change(path, |bytes| {
        let entry = b"acmefleet.positionsubject";
        let places = bytes.windows(entry.len()).enumerate().filter(|(_, window)| window == entry);
        // In a row the type follows.
        let is_row = |at: usize| bytes[at + entry.len()..].starts_with(b"position");
        let mut places: Vec<usize> = places.map(|(at, _)| at).filter(|at| is_row(*at) == of_row).collect();
        assert_eq!(places.len(), 3);
        // Pages are filled from their end.
        places.reverse();
        bytes[places[row] + entry.len() - 1] ^= 1;
    });
}

fn well(running: &Running) {
    assert_eq!(*running.store.health().borrow(), fleetbus::replay::StoreHealth::Well);
}

#[tokio::test]
async fn a_bit_that_turned_in_a_row_of_an_index_stops_nobody() {
    let dir = few().await;
    flip_subject(&dir.path().join("store.db"), 1, true);
    assert!(!findings(dir.path()).await.is_empty());
    let (running, _) = Running::open(dir, limits(), None).await;
    let key = lane("acme", "subject");
    let rows = running.read_lane(key.clone(), None, 10, u64::MAX).await.unwrap();
    assert_eq!(whole(rows).len(), 3, "the index has its lane, and it is whole in it");
    running.store.delete(vec![Seq(1), Seq(2), Seq(3)]);
    running.settle().await;
    well(&running);
    assert!(running.lane_seqs(&key).await.is_empty());
    let dir = running.stop();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bit_that_turned_in_a_row_that_goes_to_another_topic_is_found_there() {
    let dir = few().await;
    flip_subject(&dir.path().join("store.db"), 1, true);
    let routing = fleetbus::replay::Routing {
        fingerprint: "another bus".to_owned(),
        topic: Box::new(|_, event_type, _| Some(format!("other.{event_type}").into())),
        before: Box::new(|_| None),
    };
    let (running, recovered) = Running::open(dir, limits(), Some(routing)).await;
    assert_eq!(recovered.lanes.len(), 2, "one is of a subject that there is not");
    for (of_lane, expected) in recovered.lanes.iter().zip([vec![Seq(1), Seq(3)], vec![Seq(2)]]) {
        let rows = running.read_lane(of_lane.key.clone(), None, 10, u64::MAX).await.unwrap();
        assert_eq!(rows.iter().map(Kept::<Parked>::seq).collect::<Vec<_>>(), expected);
        assert_eq!(rows.iter().all(|row| matches!(row, Kept::Whole(_))), expected.len() == 2, "{rows:?}");
    }
}

#[tokio::test]
async fn a_bit_that_turned_in_an_index_costs_no_event() {
    let dir = few().await;
    flip_subject(&dir.path().join("store.db"), 2, false);
    let (running, recovered) = Running::open(dir, limits(), None).await;
    assert_eq!(recovered.lanes.len(), 2, "one is of a subject that there is not");
    let wrong = recovered.lanes.iter().find(|found| found.key != lane("acme", "subject")).unwrap();
    let rows = running.read_lane(wrong.key.clone(), None, 10, u64::MAX).await.unwrap();
    assert!(matches!(rows[..], [Kept::Damaged(Seq(3))]), "not sent as another's: {rows:?}");
    running.store.set_damaged_aside(&wrong.key.account, Seq(3));
    running.settle().await;
    well(&running);
    // The row itself is whole: an operator sends it.
    let row = running.store.get(Seq(3)).await.unwrap().unwrap();
    assert!(matches!(row, Kept::Whole(Stored::Event(event)) if event.reason == Reason::Unfit));
    let dir = running.stop();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_index_that_is_out_of_order_hides_no_row() {
    let dir = few().await;
    flip_subject(&dir.path().join("store.db"), 1, false);
    let (running, recovered) = Running::open(dir, limits(), None).await;
    let lanes: Vec<_> = recovered.lanes.iter().map(|found| (found.key.clone(), found.rows)).collect();
    assert_eq!(lanes, [(lane("acme", "subject"), 3)], "it was made anew");
    let rows = running.read_lane(lane("acme", "subject"), None, 10, u64::MAX).await.unwrap();
    assert_eq!(whole(rows).len(), 3);
    let dir = running.stop();
    assert_eq!(findings(dir.path()).await, Vec::<String>::new());
}

#[tokio::test]
async fn counts_of_ages_that_say_other_than_the_rows_are_made_anew() {
    let dir = few().await;
    let path = dir.path().join("store.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("INSERT INTO ages (population, minute, rows) VALUES (0, 0, 5)", []).unwrap();
    drop(conn);
    let (running, _) = Running::open(dir, limits(), None).await;
    running.settle().await;
    let stats = running.store.stats(Millis(now().0 + 8 * 24 * 3_600 * 1_000));
    assert_eq!((stats.expired, stats.expiring_for_bus), (0, 3));
    assert!(stats.oldest_for_bus.is_some_and(|at| at.0 > 0));
    well(&running);
}
